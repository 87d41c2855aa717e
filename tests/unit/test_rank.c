#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/money.h"
#include "scheduler/gpu_name.h"
#include "scheduler/rank.h"

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

static struct market *random_market(size_t count)
{
    static const char *const gpus[] = {"nvidia/h100-sxm-80", "nvidia/h100-pcie-80", "nvidia/rtx4090-24",
                                       "amd/mi300x-192",     "nvidia/a100-sxm-80",  "nvidia/h100-nvl-94",
                                       "nvidia/h100-x-96",   "nvidia/h100-y-97"};
    static const char *const regions[] = {"eu-west", "us-east", "ap-south"}, *const networks[] = {"vast", "akash"};
    static const char *const tags[] = {"", "gdpr", "hipaa,gdpr"};
    struct market *market = NULL;
    for (size_t i = 0; i < count; i++) {
        snprintf(ids[i], sizeof(ids[i]), "off_%04u", (unsigned)((i * 7919) % 10000));
        offers[i] = (struct offer){.id = str_of(ids[i]),
                                   .gpu = str_of(gpus[below(8)]),
                                   .region = str_of(regions[below(3)]),
                                   .network = str_of(networks[below(2)]),
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
    assert_int_equal(market_build(offers, count, NULL, 0, &market), ERR_NONE);
    return market;
}

static struct offer_query random_query(void)
{
    static const char *const gpus[] = {"h100", "nvidia/h100-sxm-80", "4090", "h100-80", "b200", "mi300x"};
    static const char *const weights[] = {"price", "latency", "reputation", "balanced"};
    struct offer_query query = {.max_price_usd_nano = -1, .interruptible = (int)below(3) - 1};
    if (below(2))
        query.gpu = str_of(gpus[below(6)]);
    if (below(3) == 0)
        query.region = below(5) ? STR("EU-West") : STR("mars");
    if (below(3) == 0)
        query.network = STR("vast");
    if (below(3) == 0)
        query.require = below(5) ? STR("gdpr,HIPAA") : STR("soc2");
    if (below(3) == 0)
        query.max_price_usd_nano = (int64_t)below(20) * USD_NANO / 4;
    if (below(3) == 0)
        query.vram_bytes_min = UINT64_C(3) << 34;
    query.count_min = (uint32_t)below(9);
    query.sort = (enum offer_sort)below(4);
    assert_true(weights_parse(str_of(weights[below(4)]), &query.weights));
    return query;
}

static bool fits(const struct offer_query *query, const struct offer *offer)
{
    bool tags =
        !query->require.ptr || (str_eq(query->require, STR("gdpr,HIPAA")) && str_starts(offer->tags, STR("hipaa")));
    return (!query->gpu.ptr || gpu_name_means(query->gpu, offer->gpu)) &&
           (!query->region.ptr || str_eq_nocase(query->region, offer->region)) &&
           (!query->network.ptr || str_eq(query->network, offer->network)) && tags &&
           (query->max_price_usd_nano < 0 || offer->price_usd_nano <= query->max_price_usd_nano) &&
           offer->vram_bytes >= query->vram_bytes_min && offer->gpus >= query->count_min &&
           (query->interruptible < 0 || offer->interruptible == (query->interruptible == 1));
}

/* What the order must be by; ties come by price and then id. */
static double key_of(const struct offer_query *query, const struct offer_rank *rank)
{
    const struct offer *offer = &offers[rank->row];
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
        struct market *market = random_market(count);
        struct offer_query query = random_query();
        size_t expected = 0, got = rank_offers(market, &query, 0, OFFERS_MAX, all);
        for (size_t i = 0; i < count; i++)
            expected += fits(&query, &offers[i]);
        assert_int_equal(got, expected);
        bool seen[OFFERS_MAX] = {false};
        for (size_t i = 0; i < got; i++) {
            const struct offer_rank *rank = &all[i], *next = &all[i + 1];
            assert_true(fits(&query, &offers[rank->row]) && !seen[rank->row]);
            seen[rank->row] = true;
            assert_true(rank->price >= 0 && rank->price <= 1 && rank->latency >= 0 && rank->latency <= 1 &&
                        rank->reputation >= 0 && rank->reputation <= 1);
            double sum = query.weights.price * rank->price + query.weights.latency * rank->latency +
                         query.weights.reputation * rank->reputation;
            assert_true(fabs(sum - rank->score) < 1e-5);
            if (i + 1 == got)
                break;
            double key = key_of(&query, rank), next_key = key_of(&query, next);
            assert_true(key <= next_key);
            const struct offer *a = &offers[rank->row], *b = &offers[next->row];
            if (key < next_key)
                continue;
            assert_true(a->price_usd_nano <= b->price_usd_nano);
            assert_true(a->price_usd_nano < b->price_usd_nano || strcmp(a->id.ptr, b->id.ptr) < 0);
        }
        /* pages are pieces of the whole */
        size_t size = below(40) + 1;
        for (size_t offset = 0; offset < got + 2; offset += size) {
            size_t want = offset >= got ? 0 : got - offset < size ? got - offset : size;
            assert_int_equal(rank_offers(market, &query, offset, size, page), want);
            for (size_t i = 0; i < want; i++)
                assert_int_equal(page[i].row, all[offset + i].row);
        }
        market_unref(market);
    }
}

static void edges(void **state)
{
    (void)state;
    struct offer_rank best[4];
    struct offer_query query = {.max_price_usd_nano = -1, .interruptible = -1, .weights = weights_default()};
    struct market *market = random_market(0);
    assert_int_equal(rank_offers(market, &query, 0, 4, best), 0);
    market_unref(market);
    market = random_market(10);
    assert_int_equal(rank_offers(market, &query, 0, 0, best), 0);
    assert_int_equal(rank_offers(market, &query, SIZE_MAX, 4, best), 0);
    assert_int_equal(rank_offers(market, &query, 9, SIZE_MAX, best), 1);
    query.max_price_usd_nano = 0; /* equal fits: only free ones */
    size_t count = rank_offers(market, &query, 0, 4, best);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(offers[best[i].row].price_usd_nano, 0);
    market_unref(market);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_names),
        cmocka_unit_test(random_markets),
        cmocka_unit_test(edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
