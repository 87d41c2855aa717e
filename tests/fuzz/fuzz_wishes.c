/* What callers say: weights, required tags, regions, names of GPUs, as a question to a small market. Fields lie between
 * line feeds. */
#include "tests/fuzz/fuzz.h"

#include "scheduler/gpu_name.h"
#include "scheduler/rank.h"
#include "scheduler/region.h"

static struct market *small_market(void)
{
    static const char *const gpus[] = {"nvidia/h100-sxm-80", "nvidia/rtx4090-24", "amd/mi300x-192", "cpu"};
    static const char *const tags[] = {"", "gdpr", "gdpr,hipaa", "soc2, iso"};
    struct offer offers[40];
    struct market *market = NULL;
    for (uint32_t i = 0; i < 40; i++) {
        static char junk[40][96];
        snprintf(junk[i], sizeof(junk[i]), "%s,t%u-a,t%u-b", tags[i % 4], i, i); /* more tags than bits */
        offers[i] = (struct offer){.id = str_of(junk[i]),
                                   .gpu = str_of(gpus[i % 4]),
                                   .region = i % 3 ? STR("eu-west") : STR("us-east"),
                                   .network = STR("vast"),
                                   .tags = str_of(junk[i]),
                                   .price_usd_nano = (int64_t)i * 1000,
                                   .performance = 1,
                                   .completion = 1};
    }
    CHECK(market_build(offers, 40, NULL, 0, &market) == ERR_NONE);
    return market;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct market *market;
    struct offer_rank ranks[40];
    struct str rest = {(const char *)data, size};
    if (!market)
        market = small_market();
    struct offer_query query = {.max_price_usd_nano = -1, .interruptible = -1, .weights = weights_default()};
    struct weights weights;
    if (weights_parse(str_next(&rest, '\n'), &weights)) {
        double sum = weights.price + weights.latency + weights.reputation;
        CHECK(sum > 0.999 && sum < 1.001);
        CHECK(weights.price >= 0 && weights.latency >= 0 && weights.reputation >= 0);
        query.weights = weights;
    }
    size_t all = rank_offers(&(const struct market *){market}, 1, &query, 0, 40, ranks);
    CHECK(all == 40);
    query.require = str_next(&rest, '\n');
    query.gpu = str_next(&rest, '\n');
    query.region = str_next(&rest, '\n');
    size_t count = rank_offers(&(const struct market *){market}, 1, &query, 0, 40, ranks);
    for (size_t i = 0; i < count; i++) {
        CHECK(!query.region.ptr || region_means(query.region, market_region(market, ranks[i].row), STR("")));
        CHECK(!query.gpu.ptr || gpu_name_means(query.gpu, market_gpu(market, ranks[i].row)));
        CHECK(ranks[i].score >= 0 && ranks[i].score <= 1.001);
    }
    (void)gpu_name_means(STR("h100"), rest); /* a canonical name of whatever form */
    return 0;
}
