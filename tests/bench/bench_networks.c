/* 100,000 offers over ten networks, looked at every 30 s: how much of a core that takes the gateway that polls them,
 * and one that follows. Bodies are parsed from JSON as they would come, names and prices normalised, changes found and
 * written to a Redis, the market built as often as networks_market.c lets it. One in twenty offers changes between two
 * looks, one in a hundred goes and another comes. */
#include "core/clock.h"
#include "core/log.h"
#include "core/redis_child.h"
#include "gateway/networks_priv.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NETS 10
#define OFFERS 10000 /* of each */
#define PAGE 500
#define EVERY_S 30
#define ROUNDS 4
#define BAR 0.10

static unsigned look_number; /* what the networks list moves with it */

/* -- a network: pages of JSON ------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    return x * UINT64_C(0xc4ceb9fe1a85ec53);
}

/* Every look moves another twentieth of the prices, and lets another hundredth be somebody else's. */
static void write_offer(struct buf *to, size_t network, size_t i)
{
    static const char *const gpus[] = {
        "RTX 4090", "NVIDIA H100 80GB HBM3", "A100-SXM4-80GB", "L40S", "RTX 3090", "NVIDIA H200", "L4", "Voodoo 2"};
    static const char *const regions[] = {"eu-west", "us-east", "ap-south", "Sweden, SE"};
    uint64_t x = mix(network * OFFERS + i);
    unsigned moved = (look_number + (unsigned)(x % 20)) / 20, renewed = (look_number + (unsigned)(x % 100)) / 100;
    if (!buf_printf(
            to,
            "%s{\"id\":\"ask-%zu-%u\",\"gpu_name\":\"%s\",\"num_gpus\":%u,\"dph\":%u.%03u,\"geolocation\":\"%s\","
            "\"host_id\":\"host-%llu\",\"reliability\":0.9%u,\"public_ipaddr\":\"203.0.%u.%u\",\"cpu_cores\":%u,"
            "\"disk_space\":512.5,\"inet_up\":812.1,\"inet_down\":911.2,\"verified\":true,\"rentable\":true,"
            "\"cuda_max_good\":12.4,\"direct_port_count\":100,\"driver_version\":\"550.54.15\"}",
            i % PAGE ? "," : "", i, renewed, gpus[x % 8], 1u << (x >> 8) % 4, (unsigned)(x >> 16) % 4,
            (moved * 7 + (unsigned)(x >> 24)) % 999 + 1, regions[(x >> 32) % 4], (unsigned long long)(x >> 40) % 700,
            (unsigned)(x >> 20) % 10, (unsigned)(x >> 12) % 256, (unsigned)(x >> 4) % 256, 16u))
        abort();
}

static struct buf pages[NETS][OFFERS / PAGE]; /* of the look that comes */

static void write_pages(void)
{
    for (size_t n = 0; n < NETS; n++) {
        for (size_t p = 0; p < OFFERS / PAGE; p++) {
            struct buf *page = &pages[n][p];
            buf_clear(page);
            if (!buf_append(page, "[", 1))
                abort();
            for (size_t i = p * PAGE; i < (p + 1) * PAGE; i++)
                write_offer(page, n, i);
            if (!buf_append(page, "]", 1))
                abort();
        }
    }
}

struct paging {
    size_t next;
};

static void list_page(struct adapter_call *call)
{
    struct paging *paging = adapter_memory(call, sizeof(*paging));
    size_t network = (size_t)atoi(network_base_url(call_network(call)) + strlen("bench://"));
    const struct buf *page = &pages[network][paging->next++];
    struct adapter_offer offers[PAGE];
    size_t i, count = 0;
    const json_t *row;
    json_t *list = json_loadb(page->ptr, page->len, 0, NULL);
    json_array_foreach(list, i, row)
    {
        struct adapter_offer *offer = &offers[count++];
        uint32_t gpus = (uint32_t)json_count_at(row, "num_gpus");
        *offer = (struct adapter_offer){.id = json_text_at(row, "id"),
                                        .gpu_raw = json_text_at(row, "gpu_name"),
                                        .gpus = gpus,
                                        .fraction_ppm = 1000000,
                                        .available = 1,
                                        .region = json_text_at(row, "geolocation"),
                                        .machine = adapter_text(call, "ip:%s", json_text_at(row, "public_ipaddr").ptr),
                                        .origin = json_text_at(row, "host_id"),
                                        .reliability = json_number_at(row, "reliability", -1),
                                        .is_priced = true};
        offer->terms = (struct price_terms){
            json_decimal_at(call, row, "dph"), STR("USD"), PRICE_PER_MACHINE_HOUR, gpus, 0, 0, false};
    }
    adapter_offers(call, offers, count);
    json_decref(list);
    if (paging->next < OFFERS / PAGE)
        adapter_later(call, 1, list_page);
    else
        adapter_done(call, NULL);
}

static const struct adapter_error_row no_errors[] = {{.error = SUPPLY_OK}};
static const struct adapter adapter_bench = {
    .name = "bench", .title = "Bench", .base_url = "", .errors = no_errors, .run = {[ADAPTER_OFFERS] = list_page}};

/* -- a gateway's networks ---------------------------------------------------------------------------------------- */

struct world {
    struct gateway gateway;
    struct control control;
    struct networks networks;
    struct settings_network settings[NETS];
    char ids[NETS][8], urls[NETS][16];
};

static void check(enum error error)
{
    if (error) {
        fprintf(stderr, "bench_networks: %s\n", error_text(error));
        exit(1);
    }
}

static void world_open(struct world *world, struct loop *loop, const char *id, const char *redis_url)
{
    static const struct config_map nothing;
    memset(world, 0, sizeof(*world));
    snprintf(world->gateway.id, sizeof(world->gateway.id), "%s", id);
    world->control = (struct control){.gateway = &world->gateway, .loop = loop, .is_shut = true};
    control_publish_init(&world->control);
    world->networks = (struct networks){.control = &world->control, .loop = loop, .count = NETS};
    networks_market_init(&world->networks);
    rates_init(&world->networks.rates, 0);
    check(redis_open(loop, &(struct redis_options){.url = redis_url}, &world->networks.redis));
    check(http_client_open(loop, &world->networks.http));
    world->networks.nets = calloc(NETS, sizeof(struct net));
    for (size_t i = 0; i < NETS; i++) {
        struct net *net = &world->networks.nets[i];
        static const char *const keys[] = {"poller", "offers", "state", "changes", "origins", "orphans"};
        char error[CONFIG_ERROR_MAX];
        snprintf(world->ids[i], sizeof(world->ids[i]), "net%zu", i);
        snprintf(world->urls[i], sizeof(world->urls[i]), "bench://%zu", i);
        world->settings[i] =
            (struct settings_network){.id = world->ids[i], .poll_s = 86400, .max_price_per_gpu_hour_usd_nano = -1};
        *net = (struct net){.all = &world->networks,
                            .settings = &world->settings[i],
                            .adapter = &adapter_bench,
                            .sighting = sighting_new(86400000)};
        offer_table_init(&net->table);
        for (size_t k = 0; k < NET_KEYS; k++)
            snprintf(net->keys[k], sizeof(net->keys[k]), "sl:{net:%s}:%s", world->ids[i], keys[k]);
        check(network_open(&(struct network_options){.loop = loop,
                                                     .http = world->networks.http,
                                                     .adapter = &adapter_bench,
                                                     .id = world->ids[i],
                                                     .base_url = world->urls[i],
                                                     .credential = &nothing,
                                                     .options = &nothing,
                                                     .rates = &world->networks.rates,
                                                     .installation = STR("abcdef")},
                           &net->network, error));
    }
}

static void world_close(struct world *world)
{
    world->networks.is_shut = true;
    timer_clear(world->control.loop, &world->networks.build);
    timer_clear(world->control.loop, &world->control.publish);
    redis_free(world->networks.redis);
    for (size_t i = 0; i < NETS; i++) {
        struct net *net = &world->networks.nets[i];
        network_free(net->network);
        offer_table_free(&net->table);
        sighting_unref(net->sighting);
        free(net->dirty);
    }
    http_client_free(world->networks.http);
    market_unref(world->networks.market);
    free(world->networks.nets);
}

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void turn_until(struct loop *loop, bool (*is_so)(const struct net *net), struct net *net)
{
    int64_t give_up = clock_mono_ns() + 120 * NS_PER_S;
    while (!is_so(net)) {
        net_follow(net);
        loop_turn(loop, 20 * NS_PER_MS);
        if (clock_mono_ns() > give_up)
            check(ERR_DEADLINE);
    }
}

static bool is_ready(const struct net *net)
{
    return net->is_synced;
}

static bool is_idle(const struct net *net)
{
    return net->is_synced && !net->call && !net->is_ended && net->writes == 0;
}

static void build_market(struct world *world)
{
    timer_clear(world->control.loop, &world->networks.build);
    world->networks.build.on_due(&world->networks.build);
}

static size_t offers_of(const struct world *world)
{
    return world->networks.market ? market_count(world->networks.market) : 0;
}

struct spent {
    int64_t looking_ns, building_ns; /* all networks once; the market once */
};

static struct spent look_at_all(struct world *world)
{
    struct spent spent = {.looking_ns = cpu_ns()};
    for (size_t i = 0; i < NETS; i++) {
        struct net *net = &world->networks.nets[i];
        timer_clear(world->control.loop, &world->networks.build);
        net->next_poll_ns = 0;
        net_poll_tick(net);
        turn_until(world->control.loop, is_idle, net);
    }
    spent.building_ns = cpu_ns();
    spent.looking_ns = spent.building_ns - spent.looking_ns;
    build_market(world);
    spent.building_ns = cpu_ns() - spent.building_ns;
    return spent;
}

static struct spent follow_all(struct world *world, const struct world *leader)
{
    struct spent spent = {.looking_ns = cpu_ns()};
    for (size_t i = 0; i < NETS; i++) {
        struct net *net = &world->networks.nets[i];
        timer_clear(world->control.loop, &world->networks.build);
        while (net->version != leader->networks.nets[i].version || !net->is_synced) {
            net_follow(net);
            loop_turn(world->control.loop, 20 * NS_PER_MS);
        }
    }
    spent.building_ns = cpu_ns();
    spent.looking_ns = spent.building_ns - spent.looking_ns;
    build_market(world);
    spent.building_ns = cpu_ns() - spent.building_ns;
    return spent;
}

/* Of a core, with as many markets as fit between two looks. */
static double share_of(const struct spent *spent, double *ret_markets)
{
    double gap_ns = (double)spent->building_ns * MARKET_SHARE, every_ns = EVERY_S * (double)NS_PER_S;
    gap_ns = gap_ns > (double)MARKET_EVERY_NS ? gap_ns : (double)MARKET_EVERY_NS;
    *ret_markets = every_ns / gap_ns < NETS ? every_ns / gap_ns : NETS;
    return ((double)spent->looking_ns + *ret_markets * (double)spent->building_ns) / every_ns;
}

static void keep_least(struct spent *best, const struct spent *spent)
{
    best->looking_ns = spent->looking_ns < best->looking_ns ? spent->looking_ns : best->looking_ns;
    best->building_ns = spent->building_ns < best->building_ns ? spent->building_ns : best->building_ns;
}

static double report(const char *who, const struct spent *spent)
{
    double markets, share = share_of(spent, &markets);
    printf("%-22s %5.0f ms for all, %4.0f ms a market, %4.1f markets in %d s: %4.1f %% of a core\n", who,
           (double)spent->looking_ns / 1e6, (double)spent->building_ns / 1e6, markets, EVERY_S, 100 * share);
    return share;
}

int main(void)
{
    static struct world leader, follower;
    struct redis_child *child;
    struct loop *loop;
    char dir[] = "/tmp/sluice-bench-XXXXXX", url[160], command[64];
    struct spent looking = {INT64_MAX, INT64_MAX}, following = looking, spent;
    signal(SIGPIPE, SIG_IGN);
    log_init("bench_networks", LOG_ERROR);
    if (!mkdtemp(dir))
        return 1;
    check(redis_child_start(dir, false, &child, url, sizeof(url)));
    check(loop_open(&loop));
    world_open(&leader, loop, "gwy_leader", url);
    world_open(&follower, loop, "gwy_follower", url);
    for (size_t i = 0; i < NETS; i++)
        turn_until(loop, is_ready, &leader.networks.nets[i]);
    write_pages();
    spent = look_at_all(&leader);
    printf("%d offers over %d networks, every %d s\n", NETS * OFFERS, NETS, EVERY_S);
    report("the first look", &spent);
    follow_all(&follower, &leader);
    for (int round = 0; round < ROUNDS; round++) {
        look_number++;
        write_pages();
        spent = look_at_all(&leader);
        keep_least(&looking, &spent);
        spent = follow_all(&follower, &leader);
        keep_least(&following, &spent);
    }
    report("a gateway that follows", &following);
    bool is_under = report("one that looks", &looking) < BAR;
    printf("bar %.0f %%: %s\n", 100 * BAR, is_under ? "good" : "MISSED");
    bool is_good = offers_of(&leader) == NETS * OFFERS && offers_of(&follower) == NETS * OFFERS;
    world_close(&leader);
    world_close(&follower);
    loop_free(loop);
    redis_child_stop(child);
    for (size_t n = 0; n < NETS; n++)
        for (size_t p = 0; p < OFFERS / PAGE; p++)
            buf_free(&pages[n][p]);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) || !is_good;
}
