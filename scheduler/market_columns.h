/* The inside of a market, for the files of this folder that scan it: dispatch.c and rank.c. */
#ifndef SLUICE_SCHEDULER_MARKET_COLUMNS_H
#define SLUICE_SCHEDULER_MARKET_COLUMNS_H

#include "scheduler/market.h"

/* Columns are padded to a multiple of this with rows that are not valid, so that a scan has no tail. */
#define MARKET_BLOCK 256
#define MARKET_TAGS_MAX 64

/* Distinct texts, numbered from 0 in the order of their first use. */
struct intern {
    struct intern_text {
        uint32_t at, len; /* in the market's pool */
    } * texts;
    uint32_t *slots; /* hash table of number + 1; 0: free */
    uint32_t count, cap, slot_count;
    bool ignores_case;
};

struct market {
    atomic_uint refs;
    uint32_t count, padded;
    uint64_t seed;   /* of the hash tables: their keys come from strangers */
    struct buf pool; /* ids, row after row, then the interned texts */
    uint32_t *id_at; /* [count + 1] into pool */

    /* columns, [padded] */
    uint8_t *valid, *interruptible, *marks;
    uint32_t *gpu, *claimed, *gpu_raw, *region, *country, *network, *supplier, *tag_text, *terms, *also;
    uint64_t *tags; /* bit mask by number in tag_names */
    uint32_t *gpus, *slots, *calls_max, *available, *fraction_ppm;
    uint64_t *vram_bytes;
    int64_t *price_usd_nano, *latency_ns, *observed_at_ms;
    int32_t *take_rate_bps;
    float *price_effective; /* USD: divided by measured performance and by the probability of completing */
    float *performance, *claimed_performance;
    float *latency_part, *reputation_part;
    float (*reputation_scores)[REPUTATION_DIMENSIONS];
    struct worker **worker; /* references held */
    uint64_t *worker_hash;  /* of the worker's id, the same in every gateway */

    struct intern gpus_seen, claims, gpu_raws, regions, countries, networks, suppliers, tag_texts, tag_names, models,
        aliases, term_texts, also_texts;
    struct sighting **sightings; /* by network; NULL where its offers do not grow old; references held */
    uint32_t sighting_count;     /* places in it */
    unsigned marks_seen;
    uint32_t gpu_unknown;    /* the class of unknown GPUs, or MARKET_NONE */
    bool tags_overflowed;    /* more than MARKET_TAGS_MAX distinct tags: look into tag_texts for the others */
    float price_median;      /* effective, of all rows */
    float *gpu_price_median; /* by gpu */
    uint32_t *gpu_rows;      /* how many rows, by gpu */
    /* replicas of model m: replica_rows[replica_at[m] .. replica_at[m + 1]) */
    uint32_t *replica_at, *replica_rows;
    float *model_price_median; /* by model */
    uint32_t *alias_target;    /* by alias: model or MARKET_NONE */
};

struct str intern_text(const struct market *market, const struct intern *intern, uint32_t number);
uint32_t intern_find(const struct market *market, const struct intern *intern, struct str text); /* or MARKET_NONE */

/* The parts of a score. Each is x / (x + reference): it grows with x over its whole range, so that the better one of
 * two always scores better, and one absurd value only reaches 1 instead of squeezing the others together. */
#define LATENCY_REFERENCE_NS 250e6 /* what a person begins to notice */
static inline double part_of(double value, double reference)
{
    return value <= 0 ? 0 : value / (value + reference);
}

/* Required tags, looked up once for a query. */
struct tag_filter {
    uint64_t mask;
    struct str texts[OFFER_TAGS_MAX]; /* those without a bit, compared as text; borrowed from the query */
    size_t text_count;
    bool impossible; /* a tag that no offer has */
};
void tag_filter_make(const struct market *market, struct str require, struct tag_filter *ret);
bool tag_filter_fits(const struct market *market, const struct tag_filter *filter, uint32_t row);

#endif
