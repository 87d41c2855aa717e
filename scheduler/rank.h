/* Ranking offers for GET /api/v1/offers: filters, scores, the best k of a million rows in one scan over the columns. */
#ifndef SLUICE_SCHEDULER_RANK_H
#define SLUICE_SCHEDULER_RANK_H

#include "scheduler/dispatch.h"

enum offer_sort { OFFER_BY_SCORE, OFFER_BY_PRICE, OFFER_BY_LATENCY, OFFER_BY_REPUTATION };

struct offer_query {
    struct str gpu;     /* canonical or a short name as people say it ("h100", "RTX4090"); absent: any */
    uint32_t count_min; /* GPUs; 0: any */
    uint64_t vram_bytes_min;
    struct str region, network, require; /* absent: any */
    int64_t max_price_usd_nano;          /* -1: any */
    int interruptible;                   /* -1 any, 0 no, 1 yes */
    struct weights weights;
    enum offer_sort sort;
};

struct offer_rank {
    uint32_t row;
    double score, price, latency, reputation;
};

/* The best `limit` from position `offset` on, ties broken by id so that pages are stable. Returns how many. */
size_t rank_offers(const struct market *market, const struct offer_query *query, size_t offset, size_t limit,
                   struct offer_rank *ret);

#endif
