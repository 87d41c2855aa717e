/* One scan over the columns, a block of rows at a time: each filter is a short loop over a contiguous array that the
 * compiler turns into vector code, and only what passes all of them and beats the worst of the best so far is looked at
 * one by one. */
#include "scheduler/rank.h"
#include "scheduler/gpu_name.h"
#include "scheduler/market_columns.h"

#include <stdlib.h>
#include <string.h>

#define CLASSES_COMPARED 4 /* GPU classes that are compared one by one; more go through a table */
#define DENSE (MARKET_BLOCK / 4)

/* A query with its texts looked up. */
struct scan {
    const struct market *market;
    const struct offer_query *query;
    uint8_t *class_wanted; /* by gpu; NULL: any */
    uint32_t classes[CLASSES_COMPARED];
    size_t class_count;
    uint32_t region, network;
    struct tag_filter tags;
    float price_reference;
    bool nothing_fits;
};

/* Better first: key, then price, then id. */
struct entry {
    double key;
    uint32_t row;
};

struct heap {
    const struct market *market;
    struct entry *entries; /* the worst on top */
    size_t count, max;
};

/* -- preparing -- */

static bool choose_classes(struct scan *scan, struct str gpu)
{
    const struct market *market = scan->market;
    uint32_t most = 0;
    scan->class_wanted = calloc((size_t)market->gpus_seen.count + 1, sizeof(*scan->class_wanted));
    if (!scan->class_wanted)
        return false;
    uint32_t exact = intern_find(market, &market->gpus_seen, gpu);
    for (uint32_t class = 0; class < market->gpus_seen.count; class ++) {
        if (exact != MARKET_NONE ? class != exact
                                 : !gpu_name_means(gpu, intern_text(market, &market->gpus_seen, class)))
            continue;
        scan->class_wanted[class] = 1;
        if (scan->class_count < CLASSES_COMPARED)
            scan->classes[scan->class_count] = class;
        scan->class_count++;
        if (market->gpu_rows[class] > most) {
            most = market->gpu_rows[class];
            scan->price_reference = market->gpu_price_median[class];
        }
    }
    scan->nothing_fits |= scan->class_count == 0;
    return true;
}

static bool scan_make(const struct market *market, const struct offer_query *query, struct scan *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->market = market;
    ret->query = query;
    ret->price_reference = market->price_median;
    if (query->region.ptr) {
        ret->region = intern_find(market, &market->regions, query->region);
        ret->nothing_fits |= ret->region == MARKET_NONE;
    }
    if (query->network.ptr) {
        ret->network = intern_find(market, &market->networks, query->network);
        ret->nothing_fits |= ret->network == MARKET_NONE;
    }
    tag_filter_make(market, query->require, &ret->tags);
    ret->nothing_fits |= ret->tags.impossible;
    if (query->gpu.ptr && !choose_classes(ret, query->gpu))
        return false;
    if (ret->price_reference < 1e-9f)
        ret->price_reference = 1e-9f; /* all are free: keeps 0 / 0 away */
    return true;
}

/* -- filters over a block -- */

static void keep_equal(uint32_t *restrict keep, const uint32_t *restrict column, uint32_t wanted)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] == wanted;
}

static void keep_at_least(uint32_t *restrict keep, const uint32_t *restrict column, uint32_t least)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] >= least;
}

static void keep_cheap(uint32_t *restrict keep, const int64_t *restrict column, int64_t most)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] <= most;
}

static void keep_large(uint32_t *restrict keep, const uint64_t *restrict column, uint64_t least)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] >= least;
}

static void keep_tagged(uint32_t *restrict keep, const uint64_t *restrict column, uint64_t mask)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= (column[i] & mask) == mask;
}

static void keep_flag(uint32_t *restrict keep, const uint8_t *restrict column, uint8_t wanted)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] == wanted;
}

static void keep_classes(uint32_t *restrict keep, const struct scan *scan, const uint32_t *restrict gpu)
{
    if (scan->class_count > CLASSES_COMPARED) {
        for (size_t i = 0; i < MARKET_BLOCK; i++)
            keep[i] &= scan->class_wanted[gpu[i]];
        return;
    }
    uint32_t found[MARKET_BLOCK] = {0};
    for (size_t c = 0; c < scan->class_count; c++) {
        uint32_t class = scan->classes[c];
        for (size_t i = 0; i < MARKET_BLOCK; i++)
            found[i] |= gpu[i] == class;
    }
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= found[i];
}

static bool any_kept(const uint32_t *keep)
{
    uint32_t any = 0;
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        any |= keep[i];
    return any;
}

/* Collects the places of what is kept, without a branch that could be guessed wrong. */
static size_t collect(const uint32_t *keep, uint32_t *restrict ret)
{
    size_t count = 0;
    for (uint32_t i = 0; i < MARKET_BLOCK; i++) {
        ret[count] = i;
        count += keep[i];
    }
    return count;
}

/* The filters on wide columns, for a few places. */
static size_t filter_places(const struct scan *scan, size_t base, uint32_t *places, size_t count)
{
    const struct market *m = scan->market;
    const struct offer_query *query = scan->query;
    int64_t most = query->max_price_usd_nano < 0 ? INT64_MAX : query->max_price_usd_nano;
    uint64_t mask = scan->tags.mask;
    bool any = query->interruptible<0, wanted = query->interruptible> 0;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        size_t row = base + places[i];
        /* & rather than &&: no branch, for the processor could not guess it */
        uint32_t fits =
            (uint32_t)(m->price_usd_nano[row] <= most) & (uint32_t)(m->vram_bytes[row] >= query->vram_bytes_min) &
            (uint32_t)((m->tags[row] & mask) == mask) & ((uint32_t)any | (uint32_t)(m->interruptible[row] == wanted));
        places[kept] = places[i];
        kept += fits;
    }
    return kept;
}

/* The same for a whole block; false when the query has none of them. */
static bool filter_wide(const struct scan *scan, size_t base, uint32_t *keep)
{
    const struct market *m = scan->market;
    const struct offer_query *query = scan->query;
    if (query->max_price_usd_nano >= 0)
        keep_cheap(keep, m->price_usd_nano + base, query->max_price_usd_nano);
    if (query->vram_bytes_min > 0)
        keep_large(keep, m->vram_bytes + base, query->vram_bytes_min);
    if (scan->tags.mask)
        keep_tagged(keep, m->tags + base, scan->tags.mask);
    if (query->interruptible >= 0)
        keep_flag(keep, m->interruptible + base, query->interruptible != 0);
    return query->max_price_usd_nano >= 0 || query->vram_bytes_min > 0 || scan->tags.mask || query->interruptible >= 0;
}

/* The rows of the block that fit the query, as places in the block; ret has one more place than a block. */
static size_t filter_block(const struct scan *scan, size_t base, uint32_t *restrict ret)
{
    const struct market *m = scan->market;
    const struct offer_query *query = scan->query;
    uint32_t keep[MARKET_BLOCK];
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] = m->valid[base + i];
    if (scan->class_wanted) {
        keep_classes(keep, scan, m->gpu + base);
        if (!any_kept(keep)) /* the strictest filter, usually */
            return 0;
    }
    if (query->region.ptr)
        keep_equal(keep, m->region + base, scan->region);
    if (query->network.ptr)
        keep_equal(keep, m->network + base, scan->network);
    if (query->count_min > 1)
        keep_at_least(keep, m->gpus + base, query->count_min);
    size_t count = collect(keep, ret), kept = 0;
    if (count < DENSE) {
        count = filter_places(scan, base, ret, count);
    } else if (filter_wide(scan, base, keep)) {
        count = collect(keep, ret);
    }
    if (scan->tags.text_count == 0)
        return count;
    for (size_t i = 0; i < count; i++) {
        if (tag_filter_fits(m, &scan->tags, (uint32_t)base + ret[i]))
            ret[kept++] = ret[i];
    }
    return kept;
}

/* -- keys -- */

static float score_of(const struct scan *scan, size_t row)
{
    const struct market *m = scan->market;
    const struct weights *w = &scan->query->weights;
    float price = m->price_effective[row];
    return (float)w->price * (price / (price + scan->price_reference)) + (float)w->latency * m->latency_part[row] +
           (float)w->reputation * m->reputation_part[row];
}

static void score_block(const struct scan *scan, size_t base, float ret[restrict static MARKET_BLOCK])
{
    const float *restrict price = scan->market->price_effective + base;
    const float *restrict latency = scan->market->latency_part + base;
    const float *restrict reputation = scan->market->reputation_part + base;
    float wp = (float)scan->query->weights.price, wl = (float)scan->query->weights.latency;
    float wr = (float)scan->query->weights.reputation, reference = scan->price_reference;
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        ret[i] = wp * (price[i] / (price[i] + reference)) + wl * latency[i] + wr * reputation[i];
}

static double key_of(const struct scan *scan, size_t row)
{
    const struct market *m = scan->market;
    switch (scan->query->sort) {
    case OFFER_BY_PRICE:
        return (double)m->price_usd_nano[row];
    case OFFER_BY_LATENCY:
        return (double)m->latency_ns[row];
    case OFFER_BY_REPUTATION:
        return (double)m->reputation_part[row];
    case OFFER_BY_SCORE:
        break;
    }
    return (double)score_of(scan, row);
}

/* -- the best so far -- */

static int compare_entries(const struct market *m, const struct entry *a, const struct entry *b)
{
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    if (m->price_usd_nano[a->row] != m->price_usd_nano[b->row])
        return m->price_usd_nano[a->row] < m->price_usd_nano[b->row] ? -1 : 1;
    struct str left = market_id(m, a->row), right = market_id(m, b->row);
    size_t common = left.len < right.len ? left.len : right.len;
    int order = common ? memcmp(left.ptr, right.ptr, common) : 0;
    if (order == 0)
        order = left.len < right.len ? -1 : left.len > right.len;
    return order ? order : a->row < b->row ? -1 : a->row > b->row;
}

static void sink(struct heap *heap, size_t at)
{
    for (;;) {
        size_t worst = at, child = 2 * at + 1;
        for (size_t c = child; c < child + 2 && c < heap->count; c++) {
            if (compare_entries(heap->market, &heap->entries[c], &heap->entries[worst]) > 0)
                worst = c;
        }
        if (worst == at)
            return;
        struct entry swap = heap->entries[at];
        heap->entries[at] = heap->entries[worst];
        heap->entries[worst] = swap;
        at = worst;
    }
}

static void offer_entry(struct heap *heap, struct entry entry)
{
    if (heap->count < heap->max) {
        size_t at = heap->count++;
        while (at > 0) {
            size_t parent = (at - 1) / 2;
            if (compare_entries(heap->market, &entry, &heap->entries[parent]) <= 0)
                break;
            heap->entries[at] = heap->entries[parent];
            at = parent;
        }
        heap->entries[at] = entry;
    } else if (compare_entries(heap->market, &entry, &heap->entries[0]) < 0) {
        heap->entries[0] = entry;
        sink(heap, 0);
    }
}

/* Best first, in place. */
static void sort_heap(struct heap *heap)
{
    size_t count = heap->count;
    while (heap->count > 1) {
        struct entry worst = heap->entries[0];
        heap->entries[0] = heap->entries[--heap->count];
        heap->entries[heap->count] = worst;
        sink(heap, 0);
    }
    heap->count = count;
}

static void scan_block(const struct scan *scan, size_t base, struct heap *heap)
{
    uint32_t places[MARKET_BLOCK + 1];
    float scores[MARKET_BLOCK];
    size_t count = filter_block(scan, base, places);
    if (count == 0)
        return;
    bool by_score = scan->query->sort == OFFER_BY_SCORE;
    if (by_score && count >= DENSE) {
        score_block(scan, base, scores);
    } else if (by_score) {
        for (size_t i = 0; i < count; i++)
            scores[places[i]] = score_of(scan, base + places[i]);
    }
    for (size_t i = 0; i < count; i++) {
        size_t row = base + places[i];
        double key = by_score ? (double)scores[places[i]] : key_of(scan, row);
        if (heap->count < heap->max || key <= heap->entries[0].key)
            offer_entry(heap, (struct entry){key, (uint32_t)row});
    }
}

size_t rank_offers(const struct market *market, const struct offer_query *query, size_t offset, size_t limit,
                   struct offer_rank *ret)
{
    struct scan scan;
    struct heap heap = {.market = market};
    size_t written = 0;
    if (limit == 0 || offset >= market->count)
        return 0;
    heap.max = limit < market->count - offset ? offset + limit : market->count;
    bool ok = scan_make(market, query, &scan);
    heap.entries = ok && !scan.nothing_fits ? malloc(heap.max * sizeof(*heap.entries)) : NULL;
    if (!heap.entries)
        goto out;
    for (size_t base = 0; base < market->padded; base += MARKET_BLOCK)
        scan_block(&scan, base, &heap);
    sort_heap(&heap);
    for (size_t i = offset; i < heap.count; i++, written++) {
        uint32_t row = heap.entries[i].row;
        float price = market->price_effective[row];
        ret[written] = (struct offer_rank){.row = row,
                                           .score = (double)score_of(&scan, row),
                                           .price = (double)(price / (price + scan.price_reference)),
                                           .latency = (double)market->latency_part[row],
                                           .reputation = (double)market->reputation_part[row]};
    }
out:
    free(heap.entries);
    free(scan.class_wanted);
    return written;
}
