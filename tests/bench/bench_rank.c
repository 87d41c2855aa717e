/* The best 20 of a million offers: how long a query takes, best and median of many runs. Also what a choice of a
 * replica and a build of the market cost. */
#include "core/clock.h"
#include "core/money.h"
#include "scheduler/rank.h"

#include <stdio.h>
#include <stdlib.h>

#define OFFERS 1000000
#define RUNS 41

static uint64_t state = 88172645463325252;
static uint64_t below(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % n;
}

static struct market *build_market(int64_t *ret_took_ns)
{
    static const char *const gpus[] = {
        "nvidia/h100-sxm-80", "nvidia/h100-pcie-80", "nvidia/h200-sxm-141", "nvidia/a100-sxm-80", "nvidia/a100-pcie-40",
        "nvidia/rtx4090-24",  "nvidia/rtx3090-24",   "nvidia/rtx5090-32",   "nvidia/l40s-48",     "nvidia/l4-24",
        "nvidia/t4-16",       "nvidia/a10-24",       "amd/mi300x-192",      "amd/mi250-128",      "cpu"};
    static const char *const regions[] = {"eu-west", "eu-north", "us-east", "us-west", "ap-south", "sa-east"};
    static const char *const networks[] = {"native", "akash", "vast", "runpod", "ionet"};
    static const char *const tags[] = {"", "", "gdpr", "gdpr,hipaa", "soc2"};
    struct offer *offers = calloc(OFFERS, sizeof(*offers));
    char(*ids)[24] = calloc(OFFERS, sizeof(*ids));
    struct market *market = NULL;
    if (!offers || !ids)
        abort();
    for (size_t i = 0; i < OFFERS; i++) {
        snprintf(ids[i], sizeof(ids[i]), "off_%016llx", (unsigned long long)below(UINT64_MAX));
        offers[i] = (struct offer){.id = str_of(ids[i]),
                                   .gpu = str_of(gpus[below(15)]),
                                   .gpu_raw = STR("as the network spells it"),
                                   .region = str_of(regions[below(6)]),
                                   .network = str_of(networks[below(5)]),
                                   .supplier = STR("acme"),
                                   .tags = str_of(tags[below(5)]),
                                   .gpus = 1u << below(4),
                                   .slots = 1,
                                   .price_usd_nano = (int64_t)below(8 * USD_NANO),
                                   .vram_bytes = (uint64_t)(16 << below(4)) << 30,
                                   .interruptible = below(2),
                                   .reputation = (double)below(1000) / 1000,
                                   .performance = 0.8 + (double)below(200) / 1000,
                                   .completion = 1,
                                   .latency_ns = (int64_t)below(200) * NS_PER_MS};
    }
    int64_t start = clock_mono_ns();
    if (market_build(offers, OFFERS, NULL, 0, &market))
        abort();
    *ret_took_ns = clock_mono_ns() - start;
    free(offers);
    free(ids);
    return market;
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void measure(const struct market *market, const char *name, const struct offer_query *query)
{
    struct offer_rank best[20];
    int64_t times[RUNS];
    size_t count = 0;
    for (int i = 0; i < RUNS; i++) {
        int64_t start = clock_mono_ns();
        count = rank_offers(&(const struct market *){market}, 1, query, 0, 20, best);
        times[i] = clock_mono_ns() - start;
    }
    qsort(times, RUNS, sizeof(*times), compare_times);
    printf("%-44s %2zu offers  best %6.3f ms  median %6.3f ms\n", name, count, (double)times[0] / 1e6,
           (double)times[RUNS / 2] / 1e6);
}

/* A choice among so many replicas. */
static void measure_choice(uint32_t replicas, uint64_t affinity)
{
    static const struct str models[] = {{"llama", 5}};
    struct offer *offers = calloc(replicas, sizeof(*offers));
    void **links = calloc(replicas, sizeof(*links));
    struct market *market = NULL;
    if (!offers || !links)
        abort();
    for (uint32_t i = 0; i < replicas; i++) {
        char id[ID_TEXT_MAX];
        snprintf(id, sizeof(id), "wrk_%u", i);
        struct worker *worker = worker_new(id, i);
        if (!worker)
            abort();
        worker->slots = 64;
        worker->upstream_ok = true;
        worker->heard_ns = 1;
        worker_first_byte(worker, 0, (int64_t)(below(50) + 50) * NS_PER_MS);
        links[i] = worker;
        offers[i] = (struct offer){.id = STR("x"),
                                   .region = STR("eu-west"),
                                   .tags = STR("gdpr"),
                                   .models = models,
                                   .model_count = 1,
                                   .worker = worker,
                                   .is_ready = true,
                                   .price_usd_nano = (int64_t)(below(3) + 1) * USD_NANO,
                                   .performance = 1,
                                   .completion = 1};
    }
    if (market_build(offers, replicas, NULL, 0, &market))
        abort();
    struct dispatch_query query = {.weights = weights_default(),
                                   .max_price_usd_nano = 3 * USD_NANO,
                                   .region = STR("eu-west"),
                                   .require = STR("gdpr"),
                                   .affinity = affinity,
                                   .links = links,
                                   .link_count = replicas,
                                   .now_ns = NS_PER_S};
    uint32_t row = 0, sum = 0;
    int calls = 2000000 / (int)(replicas + 9);
    int64_t start = clock_mono_ns();
    for (int i = 0; i < calls; i++) {
        query.random += UINT64_C(0x9e3779b97f4a7c15);
        if (dispatch_choose(market, &query, &row) == DISPATCH_CHOSEN)
            sum += row;
    }
    int64_t took = clock_mono_ns() - start;
    printf("choose among %4u replicas%-19s %25.0f ns a call  (%u)\n", replicas, affinity ? ", with affinity" : "",
           (double)took / calls, sum % 10);
    market_unref(market);
    for (uint32_t i = 0; i < replicas; i++)
        worker_unref(offers[i].worker);
    free(links);
    free(offers);
}

int main(void)
{
    int64_t took_ns;
    struct market *market = build_market(&took_ns);
    printf("build of %d offers: %.0f ms\n", OFFERS, (double)took_ns / 1e6);
    struct offer_query any = {.max_price_usd_nano = -1, .interruptible = -1, .weights = weights_default()};
    struct offer_query query = any;
    measure(market, "any, by score", &query);
    query.sort = OFFER_BY_PRICE;
    measure(market, "any, by price", &query);
    query = any;
    query.gpu = STR("h100");
    measure(market, "gpu=h100", &query);
    query.gpu = STR("nvidia/rtx4090-24");
    query.region = STR("eu-west");
    query.max_price_usd_nano = 2 * USD_NANO;
    query.require = STR("gdpr");
    query.count_min = 2;
    measure(market, "gpu, region, max_price, require, count", &query);
    query.gpu = (struct str){NULL, 0};
    measure(market, "region, max_price, require, count", &query);
    query = any;
    query.vram_bytes_min = UINT64_C(48) << 30;
    query.interruptible = 0;
    query.network = STR("vast");
    measure(market, "min_vram, interruptible, network", &query);
    query = any;
    query.max_price_usd_nano = 4 * USD_NANO;
    query.require = STR("gdpr");
    measure(market, "max_price, require", &query);
    market_unref(market);
    static const uint32_t sizes[] = {1, 3, 10, 50, 1000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        measure_choice(sizes[i], 0);
        measure_choice(sizes[i], 12345);
    }
    return 0;
}
