/* Two gateways' networks over one Redis and one fake network. */
#include "tests/unit/redis_fixture.h"

#include "gateway/networks_priv.h"

#include <stdlib.h>
#include <sys/stat.h>

struct side {
    struct gateway gateway;
    struct control control;
    struct settings settings;
    struct settings_network row;
    struct networks *networks;
};

static struct side sides[2];
static char folder[64], url[96];

static void write_offers(const char *text)
{
    char path[128], next[128];
    snprintf(path, sizeof(path), "%s/offers.json", folder);
    snprintf(next, sizeof(next), "%s/.new", folder);
    FILE *file = fopen(next, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
    assert_int_equal(rename(next, path), 0);
}

#define OFFER(id, price)                                                     \
    "{\"id\":\"" id "\",\"gpu\":\"NVIDIA L4\",\"gpus\":1,\"price\":\"" price \
    "\",\"region\":\"eu\",\"stock\":3,\"interruptible\":false,\"origin\":\"host-" id "\"}"

static void side_open(struct side *side, const char *id)
{
    memset(side, 0, sizeof(*side));
    snprintf(side->gateway.id, sizeof(side->gateway.id), "%s", id);
    side->row = (struct settings_network){.id = (char *)"fake",
                                          .adapter = (char *)"fake",
                                          .base_url = url,
                                          .poll_s = 1,
                                          .reconcile_s = 3600,
                                          .max_price_per_gpu_hour_usd_nano = -1};
    side->settings.networks = (struct config_list){&side->row, 1};
    side->gateway.settings = &side->settings;
    side->control =
        (struct control){.gateway = &side->gateway, .loop = fixture.loop, .settings = &side->settings, .is_shut = true};
    control_publish_init(&side->control);
    assert_int_equal(networks_open(&side->control, fixture.redis, &side->networks), ERR_NONE);
}

static int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    strcpy(folder, "/tmp/sluice-fake-XXXXXX");
    if (fixture_start(state) != 0 || !mkdtemp(folder))
        return -1;
    snprintf(url, sizeof(url), "dir://%s", folder);
    write_offers("[" OFFER("a", "0.50") "," OFFER("b", "0.60") "]");
    side_open(&sides[0], "gwy_a");
    side_open(&sides[1], "gwy_b");
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    for (size_t i = 0; i < 2; i++)
        networks_shut(sides[i].networks);
    redis_free(fixture.redis);
    fixture.redis = NULL;
    for (size_t i = 0; i < 2; i++) {
        networks_free(sides[i].networks);
        timer_clear(fixture.loop, &sides[i].control.publish);
    }
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command) != 0 || fixture_stop(state) != 0;
}

static struct net *net_of(size_t side)
{
    return &sides[side].networks->nets[0];
}

/* A turn, and what the networks' tick would do within a second. */
static void hurry(void)
{
    loop_turn(fixture.loop, 10 * NS_PER_MS);
    for (size_t i = 0; i < 2; i++) {
        if (net_of(i)->network)
            net_follow(net_of(i));
        if (timer_is_set(&sides[i].networks->build))
            timer_set(fixture.loop, &sides[i].networks->build, loop_now(fixture.loop));
    }
}

#define WAIT(condition)                                     \
    do {                                                    \
        int64_t give_up_ = clock_mono_ns() + 20 * NS_PER_S; \
        while (!(condition)) {                              \
            hurry();                                        \
            if (clock_mono_ns() > give_up_)                 \
                fail_msg("waited in vain: %s", #condition); \
        }                                                   \
    } while (0)

static size_t offers_in_market(size_t side)
{
    return sides[side].networks->market ? market_count(sides[side].networks->market) : 0;
}

static void one_looks_and_both_know(void **state)
{
    (void)state;
    WAIT(net_of(0)->table.count == 2 && net_of(1)->table.count == 2 && offers_in_market(0) == 2 &&
         offers_in_market(1) == 2);
    assert_true(net_of(0)->is_poller != net_of(1)->is_poller);
    assert_true(networks_find(sides[1].networks, "fake") != NULL && !networks_find(sides[1].networks, "fak"));
    assert_int_equal(networks_installation(sides[0].networks).len, 6);
    write_offers("[" OFFER("b", "0.61") "," OFFER("c", "0.70") "]");
    struct offer_digest b = offer_digest_of(STR("fake"), STR("b"));
    for (size_t i = 0; i < 2; i++) {
        struct offer_digest a = offer_digest_of(STR("fake"), STR("a"));
        WAIT(!offer_table_find(&net_of(i)->table, &a) && net_of(i)->table.count == 2);
        assert_int_equal(offer_table_find(&net_of(i)->table, &b)->of.price_usd_nano, 610000000);
        assert_false(net_is_stale(net_of(i)));
    }
}

/* The stream has been cut off behind what a gateway knows; and the store has lost everything. */
static void who_is_behind_reads_all(void **state)
{
    (void)state;
    WAIT(net_of(0)->table.count == 2 && net_of(1)->table.count == 2);
    size_t follower = net_of(0)->is_poller;
    assert_false(net_of(follower)->is_poller);
    struct offer_digest digest = offer_digest_of(STR("fake"), STR("z"));
    char hex[OFFER_DIGEST_HEX];
    struct buf record;
    buf_init(&record, 0);
    struct network_offer offer = {.id = STR("z"), .gpus = 1, .reliability = -1};
    assert_true(offer_record_write(&offer, &record));
    offer_digest_hex(&digest, hex);
    look("HSET sl:{net:fake}:offers %s %b", hex, record.ptr, record.len);
    look("DEL sl:{net:fake}:changes");
    look("HINCRBY sl:{net:fake}:state version 7");
    WAIT(offer_table_find(&net_of(follower)->table, &digest));
    for (size_t i = 0; i < 2; i++) /* the poller finds out, and that the network knows no such offer */
        WAIT(!offer_table_find(&net_of(i)->table, &digest) && net_of(i)->table.count == 2);
    look("FLUSHALL");
    WAIT(look_number("sl:{net:fake}:state", "polled_at") > 0);
    for (size_t i = 0; i < 2; i++)
        WAIT(net_of(i)->is_synced && net_of(i)->table.count == 2 && net_of(i)->version > 0);
    buf_free(&record);
}

/* What one gateway's lease met is known to the other. */
static void what_leases_tell(void **state)
{
    (void)state;
    WAIT(net_of(0)->table.count == 2 && net_of(1)->table.count == 2);
    struct lease_candidate candidate = {.network = "fake", .origin = "host-a"};
    networks_note(sides[0].networks, "fake", &candidate, SUPPLY_PROBE_FAILED, "it is another GPU");
    struct net_standing all;
    for (size_t i = 0; i < 2; i++) {
        WAIT(net_of(i)->origins.count == 1);
        all = net_standing_of_all(net_of(i));
        struct net_standing one = net_standing_of(net_of(i), STR("host-a"), &all);
        struct net_standing other = net_standing_of(net_of(i), STR("host-b"), &all);
        assert_true(one.completion < 0.5 && one.reputation < 0.01);
        assert_true(other.completion == all.completion && other.completion > 0.8 && other.completion < 0.9);
    }
    assert_int_equal(net_of(0)->errors[SUPPLY_PROBE_FAILED], 1);
    WAIT(net_of(1)->shared.errors[SUPPLY_PROBE_FAILED] == 1);
    assert_int_equal(net_of(1)->breaker.state, BREAKER_CLOSED); /* the machine's fault, not the network's */
    networks_note(sides[0].networks, "fake", &candidate, SUPPLY_NO_FUNDS, "the account is empty");
    assert_true(net_is_down(net_of(0)) && atomic_load(&net_of(0)->sighting->is_down));
    networks_note(sides[0].networks, "fake", &candidate, SUPPLY_OK, "");
    assert_false(net_is_down(net_of(0)));
}

static void a_breaker_opens_for_all(void **state)
{
    (void)state;
    WAIT(net_of(0)->table.count == 2 && net_of(1)->table.count == 2);
    networks_note(sides[1].networks, "fake", NULL, SUPPLY_BAD_CREDENTIAL, "unknown key");
    assert_int_equal(net_of(1)->breaker.state, BREAKER_OPEN);
    WAIT(net_of(0)->breaker.state == BREAKER_OPEN && atomic_load(&net_of(0)->sighting->is_down));
    assert_int_equal(net_of(0)->breaker.until_ms, net_of(1)->breaker.until_ms);
    networks_note(sides[0].networks, "fake", NULL, SUPPLY_OK, "");
    WAIT(net_of(1)->breaker.state == BREAKER_CLOSED && !atomic_load(&net_of(1)->sighting->is_down));
}

/* A lease found an offer gone: whoever polls looks soon, though not too often. */
static void an_early_look(void **state)
{
    (void)state;
    WAIT(net_of(0)->table.count == 2 && net_of(1)->table.count == 2);
    size_t poller = net_of(1)->is_poller;
    for (size_t i = 0; i < 2; i++)
        sides[i].row.poll_s = 3600;
    WAIT(net_of(poller)->next_poll_ns > loop_now(fixture.loop) + 1000 * NS_PER_S);
    write_offers("[" OFFER("a", "0.55") "]");
    net_of(poller)->polled_ns = 0; /* the last look is long past */
    networks_note(sides[!poller].networks, "fake", NULL, SUPPLY_NO_CAPACITY, "gone");
    networks_note(sides[!poller].networks, "fake", NULL, SUPPLY_NO_CAPACITY, "gone");
    WAIT(net_of(!poller)->table.count == 1);
    assert_int_equal(net_of(poller)->shared.early, 1);
}

static void a_configuration_is_refused(void **state)
{
    (void)state;
    struct networks *networks = NULL;
    sides[0].row.base_url = (char *)"dir://";
    assert_int_equal(networks_open(&sides[0].control, fixture.redis, &networks), ERR_BAD_INPUT);
    assert_null(networks);
    sides[0].row.adapter = (char *)"native"; /* ours: nothing to open */
    assert_int_equal(networks_open(&sides[0].control, fixture.redis, &networks), ERR_NONE);
    assert_int_equal(networks->count, 0);
    networks_shut(networks);
    networks_free(networks);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_looks_and_both_know), TEST(who_is_behind_reads_all), TEST(what_leases_tell),
        TEST(a_breaker_opens_for_all), TEST(an_early_look),           TEST(a_configuration_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
