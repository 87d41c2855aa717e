/* The market of networks and the candidates of leases, from tables that no network filled. */
#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/money.h"
#include "gateway/networks_priv.h"

#include <string.h>

#define NETS 3

struct world {
    struct control control;
    struct networks networks;
    struct net nets[NETS];
    struct settings_network settings[NETS];
    struct adapter adapter;
    char ids[NETS][8];
};

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    if (!world || loop_open(&world->control.loop) != ERR_NONE)
        return -1;
    world->control.is_shut = true; /* nothing is published */
    control_publish_init(&world->control);
    world->networks =
        (struct networks){.control = &world->control, .loop = world->control.loop, .nets = world->nets, .count = NETS};
    networks_market_init(&world->networks);
    for (size_t i = 0; i < NETS; i++) {
        struct net *net = &world->nets[i];
        snprintf(world->ids[i], sizeof(world->ids[i]), "net%zu", i);
        world->settings[i] = (struct settings_network){.id = world->ids[i], .probe = PROBE_REQUIRED};
        *net = (struct net){.all = &world->networks,
                            .settings = &world->settings[i],
                            .adapter = &world->adapter,
                            .sighting = sighting_new(60000)};
        atomic_store(&net->sighting->at_ms, clock_wall_ms());
        offer_table_init(&net->table);
    }
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    timer_clear(world->control.loop, &world->networks.build);
    timer_clear(world->control.loop, &world->control.publish);
    for (size_t i = 0; i < NETS; i++) {
        offer_table_free(&world->nets[i].table);
        net_origins_free(&world->nets[i].origins);
        sighting_unref(world->nets[i].sighting);
    }
    market_unref(world->networks.market);
    loop_free(world->control.loop);
    free(world);
    return 0;
}

static void put(struct world *world, size_t net, const char *id, const char *machine, int64_t cents, uint32_t gpus)
{
    struct network_offer offer = {.id = str_of(id),
                                  .gpu_raw = STR("H100"),
                                  .gpu = "nvidia/h100-sxm-80",
                                  .region = STR("eu-west"),
                                  .origin = str_of(id),
                                  .machine = str_of(machine),
                                  .gpus = gpus,
                                  .fraction_ppm = 1000000,
                                  .price_usd_nano = cents * (USD_NANO / 100),
                                  .reliability = -1};
    struct offer_digest digest = offer_digest_of(str_of(world->ids[net]), offer.id);
    assert_int_equal(offer_table_put(&world->nets[net].table, &digest, &offer), OFFER_CHANGED);
}

static void build(struct world *world)
{
    world->networks.build.on_due(&world->networks.build);
    assert_non_null(world->networks.market);
}

static struct lease_request request_of(uint32_t gpus)
{
    return (struct lease_request){.gpu = STR("h100"),
                                  .prefer = STR("price"),
                                  .gpus = gpus,
                                  .price_max_usd_nano = -1,
                                  .price_quoted_usd_nano = -1};
}

static struct lease_ranked ranked[16];

static size_t candidates(struct world *world, const struct lease_request *request, size_t *ret_considered)
{
    size_t considered;
    return networks_candidates(&world->networks, request, 16, ranked, ret_considered ? ret_considered : &considered);
}

static void price_order_and_markup(void **state)
{
    struct world *world = *state;
    put(world, 0, "a", "", 200, 1);
    put(world, 1, "b", "", 150, 1);
    put(world, 2, "c", "", 100, 8);
    world->settings[1].markup_bps = 10000; /* 3.00 to the tenant */
    build(world);
    struct lease_request request = request_of(1);
    size_t considered;
    assert_int_equal(candidates(world, &request, &considered), 2);
    assert_int_equal(considered, 3);
    assert_string_equal(ranked[0].candidate.network, "net0");
    assert_string_equal(ranked[1].candidate.network, "net1");
    assert_string_equal(ranked[1].candidate.offer, "b");
    assert_int_equal(ranked[1].candidate.price_usd_nano, 3 * USD_NANO);
    assert_int_equal(ranked[1].candidate.network_price_usd_nano, 3 * USD_NANO / 2);
    assert_int_equal(
        candidates(world, &(struct lease_request){.gpu = STR("h100"), .gpus = 8, .price_max_usd_nano = -1}, NULL), 1);
    request.price_max_usd_nano = 5 * USD_NANO / 2;
    assert_int_equal(candidates(world, &request, NULL), 1);
    request.price_max_usd_nano = USD_NANO; /* none: those too dear tell why, the cheapest first */
    assert_int_equal(candidates(world, &request, NULL), 2);
    assert_int_equal(ranked[0].candidate.price_usd_nano, 2 * USD_NANO);
    request = request_of(1);
    request.network = STR("net1");
    assert_int_equal(candidates(world, &request, NULL), 1);
    request = request_of(1);
    request.offer = str_of(ranked[0].candidate.shown_offer);
    assert_int_equal(candidates(world, &request, NULL), 1);
    assert_string_equal(ranked[0].candidate.offer, "b");
    request.offer = STR("off_000000000000000000000000");
    assert_int_equal(candidates(world, &request, NULL), 0);
    request = request_of(1);
    request.region = STR("us");
    assert_int_equal(candidates(world, &request, NULL), 0);
}

static void down_and_stale(void **state)
{
    struct world *world = *state;
    put(world, 0, "a", "", 100, 1);
    put(world, 1, "b", "", 200, 1);
    build(world);
    struct lease_request request = request_of(1);
    atomic_store(&world->nets[0].sighting->at_ms, clock_wall_ms() - 60100);
    assert_int_equal(candidates(world, &request, NULL), 1);
    assert_string_equal(ranked[0].candidate.offer, "b");
    assert_true(breaker_note(&world->nets[1].breaker, SUPPLY_BAD_CREDENTIAL, 0, clock_wall_ms()));
    net_show_down(&world->nets[1]);
    assert_int_equal(candidates(world, &request, NULL), 2); /* none: both tell why */
    for (size_t i = 0; i < 2; i++) {
        bool is_first = strcmp(ranked[i].candidate.offer, "a") == 0;
        assert_int_equal(ranked[i].is_stale, is_first);
        assert_true(ranked[i].is_down || is_first);
    }
}

/* Listed once, where it is cheaper, with the other's name; both to who names a network. */
static void one_machine_on_two_networks(void **state)
{
    struct world *world = *state;
    put(world, 0, "a", "ip:203.0.113.7", 200, 1);
    put(world, 1, "b", "ip:203.0.113.7", 150, 1);
    put(world, 2, "c", "ip:203.0.113.7", 300, 1);
    put(world, 2, "d", "ip:203.0.113.7", 310, 1); /* a second of it */
    put(world, 2, "e", "ip:203.0.113.7", 310, 2); /* more of it is something else */
    put(world, 2, "f", "ip:203.0.113.8", 320, 1);
    build(world);
    struct lease_request request = request_of(1);
    assert_int_equal(candidates(world, &request, NULL), 2);
    assert_string_equal(ranked[0].candidate.offer, "b");
    assert_string_equal(ranked[1].candidate.offer, "f");
    const struct market *market = world->networks.market;
    for (uint32_t row = 0; row < market_count(market); row++) {
        struct str also = market_also(market, row);
        bool is_b = str_eq(market_supplier(market, row), STR("b"));
        assert_true(is_b ? str_eq(also, STR("net0,net2")) : also.len == 0);
    }
    request.network = STR("net2");
    assert_int_equal(candidates(world, &request, NULL), 3);
    /* While the cheaper network's offers are too old, the other is shown. */
    atomic_store(&world->nets[1].sighting->at_ms, 1);
    build(world);
    request = request_of(1);
    assert_int_equal(candidates(world, &request, NULL), 2);
    assert_string_equal(ranked[0].candidate.offer, "a");
}

static void set_origin(struct net *net, const char *name, double bad)
{
    net->origins.place_count = 16;
    net->origins.places = calloc(16, sizeof(*net->origins.places));
    assert_non_null(net->origins.places);
    struct net_origin *place = &net->origins.places[str_hash(str_of(name), 0x6f726967) & 15];
    strcpy(place->name, name);
    place->reputation.at_ms = clock_wall_ms();
    place->reputation.bad[REPUTATION_AVAILABILITY] = bad;
    net->origins.count = 1;
}

/* Who let machines fail ranks behind who is 20 % dearer. */
static void an_origin_that_failed(void **state)
{
    struct world *world = *state;
    put(world, 0, "bad", "", 100, 1);
    put(world, 0, "new", "", 120, 1);
    build(world);
    struct lease_request request = request_of(1);
    assert_int_equal(candidates(world, &request, NULL), 2);
    assert_string_equal(ranked[0].candidate.offer, "bad");
    set_origin(&world->nets[0], "bad", 10); /* one failed proof */
    build(world);
    assert_int_equal(candidates(world, &request, NULL), 2);
    assert_string_equal(ranked[0].candidate.offer, "new");
    struct net_standing all = net_standing_of_all(&world->nets[0]);
    struct net_standing bad = net_standing_of(&world->nets[0], STR("bad"), &all);
    struct net_standing new = net_standing_of(&world->nets[0], STR("new"), &all);
    assert_true(bad.completion < 0.5 && new.completion == all.completion &&all.completion == 0.9);
    assert_true(bad.reputation < new.reputation);
}

static void slices_and_arm_are_no_candidates(void **state)
{
    struct world *world = *state;
    struct network_offer offer = {.gpu = "nvidia/h100-sxm-80", .gpus = 1, .price_usd_nano = 1, .reliability = -1};
    for (int i = 0; i < 3; i++) {
        char id[2] = {(char)('a' + i), 0};
        offer.id = str_of(id);
        offer.is_slice = i == 1;
        offer.is_arm = i == 2;
        struct offer_digest digest = offer_digest_of(STR("net0"), offer.id);
        assert_int_equal(offer_table_put(&world->nets[0].table, &digest, &offer), OFFER_CHANGED);
    }
    build(world);
    struct lease_request request = request_of(1);
    assert_int_equal(candidates(world, &request, NULL), 1);
    assert_string_equal(ranked[0].candidate.offer, "a");
}

/* Charged is what was asked for, created is what the offer is: they must be the same. */
static void a_certain_offer_must_fit(void **state)
{
    struct world *world = *state;
    char shown[OFFER_SHOWN_MAX];
    struct network_offer offer = {.id = STR("spot"),
                                  .gpu_raw = STR("H100"),
                                  .gpu = "nvidia/h100-sxm-80",
                                  .region = STR("eu-west"),
                                  .tags = STR("gdpr,hipaa"),
                                  .gpus = 8,
                                  .interruptible = true,
                                  .price_usd_nano = USD_NANO,
                                  .reliability = -1};
    struct offer_digest digest = offer_digest_of(STR("net0"), offer.id);
    assert_int_equal(offer_table_put(&world->nets[0].table, &digest, &offer), OFFER_CHANGED);
    build(world);
    offer_shown_id(&digest, shown);
    struct lease_request request = request_of(8), fits;
    request.offer = str_of(shown);
    request.interruptible = 1;
    request.region = STR("eu");
    request.require = STR("hipaa");
    request.network = STR("net0");
    assert_int_equal(candidates(world, &request, NULL), 1);
    fits = request;
    request.gpus = 1; /* eight for the price of one */
    assert_int_equal(candidates(world, &request, NULL), 0);
    request = fits;
    request.gpu = STR("rtx4090");
    assert_int_equal(candidates(world, &request, NULL), 0);
    request = fits;
    request.interruptible = 0;
    assert_int_equal(candidates(world, &request, NULL), 0);
    request = fits;
    request.network = STR("net1");
    assert_int_equal(candidates(world, &request, NULL), 0);
    request = fits;
    request.region = STR("us");
    assert_int_equal(candidates(world, &request, NULL), 0);
    request = fits;
    request.require = STR("hipaa,sox");
    assert_int_equal(candidates(world, &request, NULL), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(price_order_and_markup),           TEST(down_and_stale),
        TEST(one_machine_on_two_networks),      TEST(an_origin_that_failed),
        TEST(slices_and_arm_are_no_candidates), TEST(a_certain_offer_must_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
