#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/money.h"
#include "scheduler/gpu_name.h"
#include "scheduler/rank.h"
#include "scheduler/region.h"

#include <math.h>
#include <string.h>

static void gpu_names(void **state)
{
    (void)state;
    static const struct {
        const char *said, *canonical;
        bool means;
    } cases[] = {
        {"h100", "nvidia/h100-sxm-80", true},
        {"H100", "nvidia/h100-pcie-80", true},
        {"NVIDIA H100", "nvidia/h100-sxm-80", true},
        {"h100 sxm", "nvidia/h100-sxm-80", true},
        {"H100-SXM-80GB", "nvidia/h100-sxm-80", true},
        {"H100 80GB SXM", "nvidia/h100-sxm-80", true},
        {"h100_80gib", "nvidia/h100-sxm-80", true},
        {"h100 pcie", "nvidia/h100-sxm-80", false},
        {"h100-94", "nvidia/h100-sxm-80", false},
        {"h10", "nvidia/h100-sxm-80", false},
        {"h1000", "nvidia/h100-sxm-80", false},
        {"nvidia/h100-sxm-80", "nvidia/h100-sxm-80", true},
        {"amd/h100-sxm-80", "nvidia/h100-sxm-80", false},
        {"a100-80", "nvidia/a100-sxm-80", true},
        {"a100-80", "nvidia/a100-pcie-80", true},
        {"a100-80", "nvidia/a100-sxm-40", false},
        {"a10", "nvidia/a100-sxm-80", false},
        {"a10", "nvidia/a10-24", true},
        {"a100", "nvidia/a10-24", false},
        {"RTX4090", "nvidia/rtx4090-24", true},
        {"rtx 4090", "nvidia/rtx4090-24", true},
        {"GeForce RTX 4090", "nvidia/rtx4090-24", true},
        {"NVIDIA GeForce RTX 4090 24GB", "nvidia/rtx4090-24", true},
        {"4090", "nvidia/rtx4090-24", true},
        {"gtx4090", "nvidia/rtx4090-24", false},
        {"090", "nvidia/rtx4090-24", false},
        {"rtx", "nvidia/rtx4090-24", false},
        {"6000ada", "nvidia/rtx6000ada-48", true},
        {"a6000", "nvidia/rtxa6000-48", false},
        {"rtx a6000", "nvidia/rtxa6000-48", true},
        {"Tesla T4", "nvidia/t4-16", true},
        {"l40", "nvidia/l40s-48", false},
        {"l40s", "nvidia/l40s-48", true},
        {"Instinct MI300X", "amd/mi300x-192", true},
        {"cpu", "cpu", true},
        {"CPU", "cpu", true},
        {"nvidia", "nvidia/h100-sxm-80", false},
        {"80", "nvidia/h100-sxm-80", false},
        {"gb", "nvidia/h100-sxm-80", false},
        {"", "nvidia/h100-sxm-80", false},
        {" - ", "nvidia/h100-sxm-80", false},
        {"h100", "", false},
        {"h100", "/", false},
        {"h100", "nvidia/", false},
        {"h100", "nvidia/-80", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (gpu_name_means(str_of(cases[i].said), str_of(cases[i].canonical)) != cases[i].means)
            fail_msg("%s, %s", cases[i].said, cases[i].canonical);
    }
    char longest[500];
    memset(longest, 'h', sizeof(longest));
    assert_false(gpu_name_means((struct str){longest, sizeof(longest)}, STR("nvidia/h100-sxm-80")));
    assert_false(gpu_name_means(STR("h100"), (struct str){longest, sizeof(longest)}));
}

/* -- against a plain ranking of random markets -- */

#define OFFERS_MAX 700

static struct offer offers[OFFERS_MAX];
static char ids[OFFERS_MAX][16];
static uint64_t state_of_random = 99;

static uint64_t below(uint64_t n)
{
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return state_of_random % n;
}

#define NOW_MS 10000

/* The offers in two markets: those before `split`, and the others. */
struct markets {
    struct market *both[2];
    size_t split;
};

static struct offer *offer_of(const struct markets *markets, const struct offer_rank *rank)
{
    return &offers[rank->row + (rank->market ? markets->split : 0)];
}

static size_t best_of(const struct markets *markets, const struct offer_query *query, size_t offset, size_t limit,
                      struct offer_rank *ret)
{
    const struct market *const both[] = {markets->both[0], markets->both[1]};
    return rank_offers(both, 2, query, offset, limit, ret);
}

static struct markets random_markets_of(size_t count)
{
    static const char *const gpus[] = {"nvidia/h100-sxm-80", "nvidia/h100-pcie-80", "nvidia/rtx4090-24",
                                       "amd/mi300x-192",     "nvidia/a100-sxm-80",  "nvidia/h100-nvl-94",
                                       "nvidia/h100-x-96",   "nvidia/h100-y-97",    OFFER_GPU_UNKNOWN};
    static const char *const regions[] = {"eu-west", "us-east", "ap-south"}, *const networks[] = {"vast", "akash"};
    static const char *const tags[] = {"", "gdpr", "hipaa,gdpr"}, *const countries[] = {"", "SE", "US"};
    struct markets markets = {.split = count ? below(count + 1) : 0};
    struct sighting *fresh = sighting_new(5000), *old = sighting_new(5000);
    atomic_store(&fresh->at_ms, NOW_MS - 5000);
    atomic_store(&old->at_ms, NOW_MS - 5001);
    for (size_t i = 0; i < count; i++) {
        snprintf(ids[i], sizeof(ids[i]), "off_%04u", (unsigned)((i * 7919) % 10000));
        size_t network = below(2);
        offers[i] = (struct offer){.id = str_of(ids[i]),
                                   .gpu = str_of(gpus[below(9)]),
                                   .region = str_of(regions[below(3)]),
                                   .country = str_of(countries[below(3)]),
                                   .network = str_of(networks[network]),
                                   .sighting = network ? old : fresh,
                                   .marks = (unsigned)(below(3) ? 0 : below(32)),
                                   .tags = str_of(tags[below(3)]),
                                   .gpus = (uint32_t)below(8) + 1,
                                   .price_usd_nano = below(10) ? (int64_t)below(20) * USD_NANO / 4 : 0,
                                   .vram_bytes = (below(5) + 1) << 34,
                                   .interruptible = below(2),
                                   .reputation = (double)below(5) / 4,
                                   .performance = 0.5 + (double)below(3) / 4,
                                   .completion = 1,
                                   .latency_ns = (int64_t)below(10) * 20 * NS_PER_MS};
    }
    assert_int_equal(market_build(offers, markets.split, NULL, 0, &markets.both[0]), ERR_NONE);
    assert_int_equal(market_build(offers + markets.split, count - markets.split, NULL, 0, &markets.both[1]), ERR_NONE);
    sighting_unref(fresh);
    sighting_unref(old);
    return markets;
}

static void markets_free(struct markets *markets)
{
    market_unref(markets->both[0]);
    market_unref(markets->both[1]);
}

static struct offer_query random_query(void)
{
    static const char *const gpus[] = {"h100",   "nvidia/h100-sxm-80", "4090", "h100-80", "b200",
                                       "mi300x", OFFER_GPU_UNKNOWN};
    static const char *const said[] = {"EU-West", "mars", "eu", "us"};
    static const char *const weights[] = {"price", "latency", "reputation", "balanced"};
    struct offer_query query = {.max_price_usd_nano = -1, .interruptible = (int)below(3) - 1};
    if (below(2))
        query.gpu = str_of(gpus[below(7)]);
    if (below(3) == 0)
        query.region = str_of(said[below(4)]);
    if (below(3) == 0)
        query.network = STR("vast");
    if (below(3) == 0)
        query.require = below(5) ? STR("gdpr,HIPAA") : STR("soc2");
    if (below(3) == 0)
        query.max_price_usd_nano = (int64_t)below(20) * USD_NANO / 4;
    if (below(3) == 0)
        query.vram_bytes_min = UINT64_C(3) << 34;
    query.count_min = (uint32_t)below(9);
    query.count_max = (uint32_t)below(12);
    query.now_ms = below(2) ? NOW_MS : 0;
    query.without = (unsigned)below(32);
    query.sort = (enum offer_sort)below(4);
    assert_true(weights_parse(str_of(weights[below(4)]), &query.weights));
    return query;
}

static bool fits(const struct offer_query *query, const struct offer *offer)
{
    bool tags =
        !query->require.ptr || (str_eq(query->require, STR("gdpr,HIPAA")) && str_starts(offer->tags, STR("hipaa")));
    bool is_unknown = str_eq(offer->gpu, STR(OFFER_GPU_UNKNOWN));
    return (query->gpu.ptr ? gpu_name_means(query->gpu, offer->gpu) : !is_unknown) &&
           (!query->region.ptr || region_means(query->region, offer->region, offer->country)) &&
           !(offer->marks & query->without) && (query->count_max == 0 || offer->gpus <= query->count_max) &&
           (query->now_ms == 0 || str_eq(offer->network, STR("vast"))) &&
           (!query->network.ptr || str_eq(query->network, offer->network)) && tags &&
           (query->max_price_usd_nano < 0 || offer->price_usd_nano <= query->max_price_usd_nano) &&
           offer->vram_bytes >= query->vram_bytes_min && offer->gpus >= query->count_min &&
           (query->interruptible < 0 || offer->interruptible == (query->interruptible == 1));
}

/* What the order must be by; ties come by price and then id. */
static double key_of(const struct offer_query *query, const struct offer *offer, const struct offer_rank *rank)
{
    switch (query->sort) {
    case OFFER_BY_PRICE:
        return (double)offer->price_usd_nano;
    case OFFER_BY_LATENCY:
        return (double)offer->latency_ns;
    case OFFER_BY_REPUTATION:
        return -offer->reputation;
    case OFFER_BY_SCORE:
        break;
    }
    return rank->score;
}

static void random_markets(void **state)
{
    (void)state;
    static struct offer_rank all[OFFERS_MAX], page[OFFERS_MAX];
    for (int round = 0; round < 600; round++) {
        size_t count = below(4) ? below(OFFERS_MAX) + 1 : below(5);
        struct markets markets = random_markets_of(count);
        struct offer_query query = random_query();
        size_t expected = 0, got = best_of(&markets, &query, 0, OFFERS_MAX, all);
        for (size_t i = 0; i < count; i++)
            expected += fits(&query, &offers[i]);
        assert_int_equal(got, expected);
        bool seen[OFFERS_MAX] = {false};
        for (size_t i = 0; i < got; i++) {
            const struct offer_rank *rank = &all[i], *next = &all[i + 1];
            const struct offer *a = offer_of(&markets, rank), *b = i + 1 < got ? offer_of(&markets, next) : NULL;
            assert_true(fits(&query, a) && !seen[a - offers]);
            seen[a - offers] = true;
            assert_true(rank->price >= 0 && rank->price <= 1 && rank->latency >= 0 && rank->latency <= 1 &&
                        rank->reputation >= 0 && rank->reputation <= 1);
            double sum = query.weights.price * rank->price + query.weights.latency * rank->latency +
                         query.weights.reputation * rank->reputation;
            assert_true(fabs(sum - rank->score) < 1e-5);
            if (!b)
                break;
            double key = key_of(&query, a, rank), next_key = key_of(&query, b, next);
            assert_true(key <= next_key);
            if (key < next_key)
                continue;
            assert_true(a->price_usd_nano <= b->price_usd_nano);
            assert_true(a->price_usd_nano < b->price_usd_nano || strcmp(a->id.ptr, b->id.ptr) < 0);
        }
        /* pages are pieces of the whole */
        size_t size = below(40) + 1;
        for (size_t offset = 0; offset < got + 2; offset += size) {
            size_t want = offset >= got ? 0 : got - offset < size ? got - offset : size;
            assert_int_equal(best_of(&markets, &query, offset, size, page), want);
            for (size_t i = 0; i < want; i++)
                assert_memory_equal(&page[i], &all[offset + i], sizeof(page[i]));
        }
        markets_free(&markets);
    }
}

static void edges(void **state)
{
    (void)state;
    static struct offer_rank all[10];
    struct offer_rank best[4];
    struct offer_query query = {.max_price_usd_nano = -1, .interruptible = -1, .weights = weights_default()};
    struct markets markets = random_markets_of(0);
    assert_int_equal(best_of(&markets, &query, 0, 4, best), 0);
    markets_free(&markets);
    markets = random_markets_of(10);
    assert_int_equal(best_of(&markets, &query, 0, 0, best), 0);
    assert_int_equal(best_of(&markets, &query, SIZE_MAX, 4, best), 0);
    assert_int_equal(best_of(&markets, &query, 0, SIZE_MAX, all), 10);
    query.max_price_usd_nano = 0; /* equal fits: only free ones */
    size_t count = best_of(&markets, &query, 0, 4, best);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(offer_of(&markets, &best[i])->price_usd_nano, 0);
    markets_free(&markets);
}

/* Scores of both are measured by the reference of the market that has more of what is asked for. */
static void one_reference(void **state)
{
    (void)state;
    static const int64_t prices[] = {1, 2, 3, 40};
    struct offer few[4];
    struct market *markets[2];
    struct offer_rank ranks[4];
    for (size_t i = 0; i < 4; i++)
        few[i] = (struct offer){.id = STR("x"),
                                .gpu = STR("nvidia/l4-24"),
                                .network = STR("a"),
                                .price_usd_nano = prices[i] * USD_NANO,
                                .performance = 1,
                                .completion = 1};
    few[3].latency_ns = NS_PER_S;
    few[1].also = STR("b,c");
    few[1].terms = STR("{}");
    assert_int_equal(market_build(few + 3, 1, NULL, 0, &markets[0]), ERR_NONE);
    assert_int_equal(market_build(few, 3, NULL, 0, &markets[1]), ERR_NONE);
    struct offer_query query = {.max_price_usd_nano = -1, .interruptible = -1, .weights = {1, 0, 0}};
    const struct market *const both[] = {markets[0], markets[1]};
    assert_int_equal(rank_offers(both, 2, &query, 0, 4, ranks), 4);
    for (size_t i = 0; i < 4; i++) {
        double price = (double)prices[i];
        assert_true(fabs(ranks[i].price - price / (price + 2)) < 1e-6);
        assert_int_equal(ranks[i].market, i < 3);
    }
    assert_true(str_eq(market_also(markets[1], 1), STR("b,c")) && str_eq(market_terms(markets[1], 1), STR("{}")));
    assert_int_equal(market_fraction_ppm(markets[1], 1), 1000000);
    assert_int_equal(rank_count(markets[1], STR("l4")), 3);
    assert_int_equal(rank_count(markets[1], STR("l40")), 0);
    market_unref(markets[0]);
    market_unref(markets[1]);
}

static void regions(void **state)
{
    (void)state;
    static const struct {
        const char *said, *region, *country;
        bool means;
    } cases[] = {{"eu", "EU-RO-1", "", true},
                 {"eu-west", "eu-west-1", "", true},
                 {"eu-west", "eu-westland", "", false},
                 {"eu", "Sweden", "SE", true},
                 {"se", "Sweden", "SE", true},
                 {"eu", "Norway", "NO", false},
                 {"eu", "europe", "", false},
                 {"us", "", "US", true},
                 {"", "", "", false},
                 {"eu", "", "AT", true},
                 {"ta", "", "AT", false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (region_means(str_of(cases[i].said), str_of(cases[i].region), str_of(cases[i].country)) != cases[i].means)
            fail_msg("%s, %s, %s", cases[i].said, cases[i].region, cases[i].country);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_names),     cmocka_unit_test(random_markets), cmocka_unit_test(edges),
        cmocka_unit_test(one_reference), cmocka_unit_test(regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
