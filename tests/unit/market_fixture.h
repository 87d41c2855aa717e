/* Offers for the tests of the market, of dispatch and of ranking. */
#ifndef SLUICE_TESTS_UNIT_MARKET_FIXTURE_H
#define SLUICE_TESTS_UNIT_MARKET_FIXTURE_H

#include "core/clock.h"
#include "scheduler/market.h"

#define FIXTURE_NOW (1000 * NS_PER_S)
#define CENTS(n) ((n)*INT64_C(10000000))

static const struct str fixture_model[] = {{"llama", 5}};

/* An offer of a ready, live, idle worker with four slots that serves "llama". */
static inline struct offer fixture_offer(struct worker *worker, int64_t price_usd_nano)
{
    return (struct offer){.id = str_of(worker->id),
                          .network = STR("native"),
                          .gpu = STR("nvidia/h100-sxm-80"),
                          .gpu_raw = STR("NVIDIA H100 80GB HBM3"),
                          .region = STR("eu-west"),
                          .supplier = STR("acme"),
                          .models = fixture_model,
                          .model_count = 1,
                          .worker = worker,
                          .is_ready = true,
                          .gpus = 1,
                          .slots = 4,
                          .price_usd_nano = price_usd_nano,
                          .reputation = 0.5,
                          .performance = 1,
                          .completion = 1,
                          .latency_ns = NS_PER_MS};
}

static inline struct worker *fixture_worker(uint32_t index)
{
    char id[ID_TEXT_MAX];
    snprintf(id, sizeof(id), "wrk_%04u", index);
    struct worker *worker = worker_new(id, index);
    atomic_store(&worker->slots, 4);
    atomic_store(&worker->upstream_ok, true);
    atomic_store(&worker->heard_ns, FIXTURE_NOW);
    return worker;
}

#endif
