/* One scan over the columns, a block of rows at a time: each filter is a short loop over a contiguous array that the
 * compiler turns into vector code, and only what passes all of them and beats the worst of the best so far is looked at
 * one by one. */
#include "scheduler/rank.h"
#include "scheduler/gpu_name.h"
#include "scheduler/market_columns.h"
#include "scheduler/region.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES_COMPARED 4 /* classes of a column that are compared one by one; more go through a table */
#define DENSE (MARKET_BLOCK / 4)

/* Which values of an interned column are wanted. */
struct classes {
    uint8_t *wanted; /* by number; NULL: any */
    uint32_t few[CLASSES_COMPARED];
    size_t count;
};

/* A query with its texts looked up in a market. */
struct scan {
    const struct market *market;
    const struct offer_query *query;
    struct classes gpus, regions, countries, networks;
    struct tag_filter tags;
    float price_reference;
    uint32_t reference_rows; /* how many rows it stands for */
    bool nothing_fits;
};

/* Better first: key, then price, then id. */
struct entry {
    double key;
    uint32_t market, row;
};

struct heap {
    const struct market *const *markets;
    struct entry *entries; /* the worst on top */
    size_t count, max;
};

/* -- preparing -- */

static bool classes_make(struct classes *classes, uint32_t of)
{
    classes->wanted = calloc((size_t)of + 1, sizeof(*classes->wanted));
    return classes->wanted;
}

static void classes_add(struct classes *classes, uint32_t number)
{
    classes->wanted[number] = 1;
    if (classes->count < CLASSES_COMPARED)
        classes->few[classes->count] = number;
    classes->count++;
}

/* The name itself where the market has it, else all that it can mean. */
static bool gpu_fits(const struct market *market, struct str gpu, uint32_t exact, uint32_t class)
{
    return exact != MARKET_NONE ? class == exact : gpu_name_means(gpu, intern_text(market, &market->gpus_seen, class));
}

static bool choose_gpus(struct scan *scan, struct str gpu)
{
    const struct market *market = scan->market;
    if (!classes_make(&scan->gpus, market->gpus_seen.count))
        return false;
    scan->reference_rows = 0;
    uint32_t exact = intern_find(market, &market->gpus_seen, gpu);
    for (uint32_t class = 0; class < market->gpus_seen.count; class ++) {
        if (!gpu_fits(market, gpu, exact, class))
            continue;
        classes_add(&scan->gpus, class);
        if (market->gpu_rows[class] > scan->reference_rows) {
            scan->reference_rows = market->gpu_rows[class];
            scan->price_reference = market->gpu_price_median[class];
        }
    }
    scan->nothing_fits |= scan->gpus.count == 0;
    return true;
}

static bool choose_regions(struct scan *scan, struct str said)
{
    const struct market *market = scan->market;
    if (!classes_make(&scan->regions, market->regions.count) ||
        !classes_make(&scan->countries, market->countries.count))
        return false;
    for (uint32_t i = 0; i < market->regions.count; i++) {
        if (region_means(said, intern_text(market, &market->regions, i), STR("")))
            classes_add(&scan->regions, i);
    }
    for (uint32_t i = 0; i < market->countries.count; i++) {
        if (region_means(said, STR(""), intern_text(market, &market->countries, i)))
            classes_add(&scan->countries, i);
    }
    scan->nothing_fits |= scan->regions.count + scan->countries.count == 0;
    return true;
}

static bool is_stale(const struct sighting *sighting, int64_t now_ms)
{
    return sighting && (atomic_load_explicit(&sighting->is_down, memory_order_relaxed) ||
                        now_ms - atomic_load_explicit(&sighting->at_ms, memory_order_relaxed) > sighting->ttl_ms);
}

/* The networks that may be shown, where some may not. */
static bool choose_networks(struct scan *scan, const struct offer_query *query)
{
    const struct market *market = scan->market;
    struct classes *networks = &scan->networks;
    uint32_t asked = query->network.ptr ? intern_find(market, &market->networks, query->network) : MARKET_NONE;
    if (!classes_make(networks, market->networks.count))
        return false;
    for (uint32_t i = 0; i < market->networks.count; i++) {
        if ((!query->network.ptr || i == asked) && !(query->now_ms && is_stale(market->sightings[i], query->now_ms)))
            classes_add(networks, i);
    }
    scan->nothing_fits |= networks->count == 0;
    if (networks->count == market->networks.count) {
        free(networks->wanted);
        *networks = (struct classes){.count = 0};
    }
    return true;
}

static bool scan_make(const struct market *market, const struct offer_query *query, struct scan *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->market = market;
    ret->query = query;
    ret->price_reference = market->price_median;
    ret->reference_rows = market->count;
    tag_filter_make(market, query->require, &ret->tags);
    ret->nothing_fits |= ret->tags.impossible;
    return (!query->region.ptr || choose_regions(ret, query->region)) && choose_networks(ret, query) &&
           (!query->gpu.ptr || choose_gpus(ret, query->gpu));
}

static void scan_free(struct scan *scan)
{
    free(scan->gpus.wanted);
    free(scan->regions.wanted);
    free(scan->countries.wanted);
    free(scan->networks.wanted);
}

/* -- filters over a block -- */

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

static void keep_unlike(uint32_t *restrict keep, const uint32_t *restrict column, uint32_t unwanted)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] != unwanted;
}

static void keep_at_most(uint32_t *restrict keep, const uint32_t *restrict column, uint32_t most)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= column[i] <= most;
}

static void keep_without(uint32_t *restrict keep, const uint8_t *restrict column, uint8_t marks)
{
    for (size_t i = 0; i < MARKET_BLOCK; i++)
        keep[i] &= (column[i] & marks) == 0;
}

static void find_classes(uint32_t *restrict found, const struct classes *classes, const uint32_t *restrict column)
{
    if (classes->count > CLASSES_COMPARED) {
        for (size_t i = 0; i < MARKET_BLOCK; i++)
            found[i] |= classes->wanted[column[i]];
        return;
    }
    for (size_t c = 0; c < classes->count; c++) {
        uint32_t class = classes->few[c];
        for (size_t i = 0; i < MARKET_BLOCK; i++)
            found[i] |= column[i] == class;
    }
}

/* other: NULL, or a second column either of which may fit. */
static void keep_classes(uint32_t *restrict keep, const struct classes *classes, const uint32_t *restrict column,
                         const struct classes *other, const uint32_t *restrict other_column)
{
    uint32_t found[MARKET_BLOCK] = {0};
    find_classes(found, classes, column);
    if (other)
        find_classes(found, other, other_column);
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
    if (scan->gpus.wanted) {
        keep_classes(keep, &scan->gpus, m->gpu + base, NULL, NULL);
        if (!any_kept(keep)) /* the strictest filter, usually */
            return 0;
    } else if (m->gpu_unknown != MARKET_NONE) {
        keep_unlike(keep, m->gpu + base, m->gpu_unknown);
    }
    if (scan->regions.wanted)
        keep_classes(keep, &scan->regions, m->region + base, &scan->countries, m->country + base);
    if (scan->networks.wanted)
        keep_classes(keep, &scan->networks, m->network + base, NULL, NULL);
    if (query->count_min > 1)
        keep_at_least(keep, m->gpus + base, query->count_min);
    if (query->count_max > 0)
        keep_at_most(keep, m->gpus + base, query->count_max);
    if (query->without & m->marks_seen)
        keep_without(keep, m->marks + base, (uint8_t)query->without);
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

static int compare_entries(const struct heap *heap, const struct entry *a, const struct entry *b)
{
    const struct market *of_a = heap->markets[a->market], *of_b = heap->markets[b->market];
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    if (of_a->price_usd_nano[a->row] != of_b->price_usd_nano[b->row])
        return of_a->price_usd_nano[a->row] < of_b->price_usd_nano[b->row] ? -1 : 1;
    struct str left = market_id(of_a, a->row), right = market_id(of_b, b->row);
    size_t common = left.len < right.len ? left.len : right.len;
    int order = common ? memcmp(left.ptr, right.ptr, common) : 0;
    if (order == 0)
        order = left.len < right.len ? -1 : left.len > right.len;
    if (order == 0 && a->market != b->market)
        return a->market < b->market ? -1 : 1;
    return order ? order : a->row < b->row ? -1 : a->row > b->row;
}

static void sink(struct heap *heap, size_t at)
{
    for (;;) {
        size_t worst = at, child = 2 * at + 1;
        for (size_t c = child; c < child + 2 && c < heap->count; c++) {
            if (compare_entries(heap, &heap->entries[c], &heap->entries[worst]) > 0)
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
            if (compare_entries(heap, &entry, &heap->entries[parent]) <= 0)
                break;
            heap->entries[at] = heap->entries[parent];
            at = parent;
        }
        heap->entries[at] = entry;
    } else if (compare_entries(heap, &entry, &heap->entries[0]) < 0) {
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

static void scan_block(const struct scan *scan, uint32_t number, size_t base, struct heap *heap)
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
            offer_entry(heap, (struct entry){key, number, (uint32_t)row});
    }
}

/* The reference of the market that knows most counts for all, so that scores can be compared. */
static void share_reference(struct scan *scans, size_t count)
{
    size_t most = 0;
    for (size_t i = 1; i < count; i++) {
        if (scans[i].reference_rows > scans[most].reference_rows)
            most = i;
    }
    float reference = scans[most].price_reference;
    if (reference < 1e-9f)
        reference = 1e-9f; /* all are free: keeps 0 / 0 away */
    for (size_t i = 0; i < count; i++)
        scans[i].price_reference = reference;
}

static struct offer_rank rank_of(const struct scan *scan, const struct entry *entry)
{
    const struct market *market = scan->market;
    float price = market->price_effective[entry->row];
    return (struct offer_rank){.market = entry->market,
                               .row = entry->row,
                               .score = (double)score_of(scan, entry->row),
                               .price = (double)(price / (price + scan->price_reference)),
                               .latency = (double)market->latency_part[entry->row],
                               .reputation = (double)market->reputation_part[entry->row]};
}

size_t rank_offers(const struct market *const *markets, size_t market_count, const struct offer_query *query,
                   size_t offset, size_t limit, struct offer_rank *ret)
{
    struct scan scans[RANK_MARKETS_MAX] = {0};
    struct heap heap = {.markets = markets};
    size_t total = 0, written = 0, made = 0;
    bool ok = true, fits = false;
    assert(market_count <= RANK_MARKETS_MAX);
    for (size_t i = 0; i < market_count; i++)
        total += markets[i]->count;
    if (limit == 0 || offset >= total)
        return 0;
    heap.max = limit < total - offset ? offset + limit : total;
    for (; ok && made < market_count; made++) {
        ok = scan_make(markets[made], query, &scans[made]);
        fits |= !scans[made].nothing_fits;
    }
    heap.entries = ok && fits ? malloc(heap.max * sizeof(*heap.entries)) : NULL;
    if (!heap.entries)
        goto out;
    share_reference(scans, market_count);
    for (uint32_t i = 0; i < market_count; i++) {
        for (size_t base = 0; !scans[i].nothing_fits && base < markets[i]->padded; base += MARKET_BLOCK)
            scan_block(&scans[i], i, base, &heap);
    }
    sort_heap(&heap);
    for (size_t i = offset; i < heap.count; i++, written++)
        ret[written] = rank_of(&scans[heap.entries[i].market], &heap.entries[i]);
out:
    free(heap.entries);
    for (size_t i = 0; i < made; i++)
        scan_free(&scans[i]);
    return written;
}

size_t rank_count(const struct market *market, struct str gpu)
{
    size_t count = 0;
    uint32_t exact = intern_find(market, &market->gpus_seen, gpu);
    for (uint32_t class = 0; class < market->gpus_seen.count; class ++) {
        if (gpu_fits(market, gpu, exact, class))
            count += market->gpu_rows[class];
    }
    return count;
}
