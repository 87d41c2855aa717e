/* Ranking offers for GET /api/v1/offers and for leases: filters, scores, the best k of a million rows in one scan over
 * the columns of a market, or of several: our workers and what other networks offer. */
#ifndef SLUICE_SCHEDULER_RANK_H
#define SLUICE_SCHEDULER_RANK_H

#include "scheduler/dispatch.h"

enum offer_sort { OFFER_BY_SCORE, OFFER_BY_PRICE, OFFER_BY_LATENCY, OFFER_BY_REPUTATION };

struct offer_query {
    struct str gpu;                /* canonical or a short name as people say it ("h100", "RTX4090"); absent: any */
    uint32_t count_min, count_max; /* GPUs; 0: any */
    uint64_t vram_bytes_min;
    struct str region, network, require; /* absent: any; region as region.h has it */
    int64_t max_price_usd_nano;          /* -1: any */
    int interruptible;                   /* -1 any, 0 no, 1 yes */
    struct weights weights;
    enum offer_sort sort;
    unsigned without; /* marks of offers (enum offer_mark) that are left out */
    int64_t now_ms;   /* Unix: offers seen too long ago, or of a network that is down, are left out; 0: none is */
};

#define RANK_MARKETS_MAX 2

struct offer_rank {
    uint32_t market; /* which of those given */
    uint32_t row;
    double score, price, latency, reputation;
};

/* The best `limit` of all markets (at most RANK_MARKETS_MAX) from position `offset` on, ties broken by id so that pages
 * are stable. The price part of all is measured by one reference: the median of the GPU class asked for, or of all, in
 * the market that holds most of it. Offers of unknown GPUs only when the query's gpu is OFFER_GPU_UNKNOWN. Returns how
 * many. */
size_t rank_offers(const struct market *const *markets, size_t market_count, const struct offer_query *query,
                   size_t offset, size_t limit, struct offer_rank *ret);
/* How many rows are of the GPU at all, whatever else is asked. */
size_t rank_count(const struct market *market, struct str gpu);

#endif
