/* The choice of a replica for a call.
 *
 * Best score first. Where the caller has an affinity, the home is chosen by rendezvous hashing among the replicas that
 * cost the same as the best one and score nearly the same; otherwise two are drawn among the near-equal best and the
 * less loaded one is taken, so that gateways which see the same market do not all run to the same worker.
 *
 * For affinity a replica's latency counts by its slow mean, without load: a home that is busy stays the home until it
 * has no free slot, and one slow answer does not scatter the sessions. */
#include "scheduler/dispatch.h"
#include "scheduler/market_columns.h"

#include <assert.h>
#include <stdlib.h>

#define REPLICAS_MAX 1024 /* looked at for one call; of more, a random run of this many */
#define NEAR_EQUAL 0.01
#define AFFINITY_NEAR 0.05
#define UNNOTICED_NS 50e6
#define DOUBTFUL 0.75 /* the reputation part of a worker that has failed, not of one that is new */

enum reason {
    FITS,
    REASON_PRICE,
    REASON_REGION,
    REASON_TAG,
    REASON_LAST_CONSTRAINT = REASON_TAG,
    REASON_TRIED,
    REASON_NO_HEARTBEAT,
    REASON_DRAINING,
    REASON_UPSTREAM,
    REASON_EJECTED,
    REASON_NOT_LINKED,
    REASON_FULL,
    REASON_EXPOSURE,
    REASON_COUNT
};

static const char *const reason_texts[REASON_COUNT] = {
    [REASON_PRICE] = "price above x-sluice-max-price",
    [REASON_REGION] = "region differs",
    [REASON_TAG] = "required tag missing",
    [REASON_TRIED] = "already tried",
    [REASON_NO_HEARTBEAT] = "no heartbeat",
    [REASON_DRAINING] = "draining",
    [REASON_UPSTREAM] = "its model server does not answer",
    [REASON_EJECTED] = "ejected after failures",
    [REASON_NOT_LINKED] = "not linked to this gateway",
    [REASON_FULL] = "no free slot",
    [REASON_EXPOSURE] = "exposure: as much value in flight as its earnings cover",
};

/* A query with its texts looked up. */
struct plan {
    const struct market *market;
    const struct dispatch_query *query;
    const uint32_t *replicas;
    size_t count;
    double price_reference;
    struct tag_filter tags;
    uint32_t region;
    bool any_region, any_tags, ignore_ejection;
};

struct parts {
    double price, latency, reputation, score;
    double cost; /* expected time to first byte under its load, ns */
};

static void plan_make(const struct market *market, const struct dispatch_query *query, struct plan *ret)
{
    ret->market = market;
    ret->query = query;
    ret->replicas = market_replicas(market, query->model, &ret->count);
    ret->price_reference = (double)market->model_price_median[query->model];
    ret->any_region = !query->region.ptr;
    ret->region = ret->any_region ? MARKET_NONE : intern_find(market, &market->regions, query->region);
    ret->any_tags = query->require.len == 0;
    if (!ret->any_tags)
        tag_filter_make(market, query->require, &ret->tags);
    ret->ignore_ejection = false;
}

static enum reason constraint_broken(const struct plan *plan, uint32_t row)
{
    const struct market *market = plan->market;
    if (plan->query->max_price_usd_nano >= 0 && market->price_usd_nano[row] > plan->query->max_price_usd_nano)
        return REASON_PRICE;
    if (!plan->any_region && market->region[row] != plan->region)
        return REASON_REGION;
    if (!plan->any_tags && !tag_filter_fits(market, &plan->tags, row))
        return REASON_TAG;
    return FITS;
}

static bool is_linked(const struct dispatch_query *query, const struct worker *worker)
{
    return worker->index < query->link_count && query->links && query->links[worker->index];
}

/* Why the row cannot take the call now. */
static enum reason check(const struct plan *plan, uint32_t row)
{
    const struct dispatch_query *query = plan->query;
    const struct worker *worker = plan->market->worker[row];
    enum reason reason = constraint_broken(plan, row);
    if (reason)
        return reason;
    for (size_t i = 0; i < query->tried_count; i++) {
        if (query->tried[i] == worker)
            return REASON_TRIED;
    }
    if (!worker_is_live(worker, query->now_ns)) {
        if (atomic_load_explicit(&worker->draining, memory_order_relaxed))
            return REASON_DRAINING;
        return atomic_load_explicit(&worker->upstream_ok, memory_order_relaxed) ? REASON_NO_HEARTBEAT : REASON_UPSTREAM;
    }
    if (!plan->ignore_ejection && worker_is_ejected(worker, query->now_ns))
        return REASON_EJECTED;
    if (!is_linked(query, worker))
        return REASON_NOT_LINKED;
    if (!worker_has_free_slot(worker) || worker_refused_lately(worker, query->now_ns))
        return REASON_FULL;
    /* Calls of this gateway alone: what the worker itself reports must not widen its own bound, nor narrow it. */
    if ((uint32_t)atomic_load_explicit(&worker->in_flight, memory_order_relaxed) >= plan->market->calls_max[row])
        return REASON_EXPOSURE;
    return FITS;
}

static void weigh(const struct plan *plan, uint32_t row, struct parts *ret)
{
    const struct market *market = plan->market;
    const struct worker *worker = market->worker[row];
    const struct weights *weights = &plan->query->weights;
    int load = worker_load(worker);
    double ttfb = worker_ttfb_ns(worker, plan->query->now_ns, market->latency_ns[row]);
    /* Nothing measured and calls under way: the round trip alone would draw every call of a burst to it. */
    if (load > 0 && ttfb < LATENCY_REFERENCE_NS && !atomic_load_explicit(&worker->ttfb_samples, memory_order_relaxed))
        ttfb = LATENCY_REFERENCE_NS;
    ret->cost = ttfb * (load > 0 ? load + 1 : 1);
    ret->price = part_of((double)market->price_effective[row], plan->price_reference);
    ret->latency = part_of(ret->cost, LATENCY_REFERENCE_NS);
    ret->reputation = (double)market->reputation_part[row];
    ret->score = weights->price * ret->price + weights->latency * ret->latency + weights->reputation * ret->reputation;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* -- candidates of one call -- */

struct candidates {
    uint32_t rows[REPLICAS_MAX];
    double scores[REPLICAS_MAX], costs[REPLICAS_MAX];
    size_t count;
    bool fits;     /* some replica fits the constraints */
    bool may_wait; /* one of those is worth waiting for */
    bool has_ejected;
};

/* A worker on its way back from ejection sits out some of the calls. */
static bool sits_out(const struct plan *plan, uint32_t row)
{
    double ramp = worker_ramp(plan->market->worker[row], plan->query->now_ns);
    if (ramp >= 1.0)
        return false;
    return (double)(mix(plan->query->random ^ plan->market->worker_hash[row]) >> 11) * 0x1p-53 >= ramp;
}

static void gather(const struct plan *plan, struct candidates *ret)
{
    size_t count = plan->count < REPLICAS_MAX ? plan->count : REPLICAS_MAX, sitting = 0;
    size_t start = plan->count > REPLICAS_MAX ? (size_t)(mix(plan->query->random) % plan->count) : 0;
    ret->count = 0;
    ret->fits = ret->may_wait = ret->has_ejected = false;
    for (size_t i = 0; i < count; i++) {
        size_t at = start + i < plan->count ? start + i : start + i - plan->count;
        uint32_t row = plan->replicas[at];
        enum reason reason = check(plan, row);
        if (reason != FITS) {
            ret->fits |= reason > REASON_LAST_CONSTRAINT;
            ret->has_ejected |= reason == REASON_EJECTED;
            ret->may_wait |= reason >= REASON_NOT_LINKED || (reason > REASON_TRIED && !plan->query->tried_count);
            continue;
        }
        struct parts parts;
        weigh(plan, row, &parts);
        /* Those that sit out gather at the front and are cut off if anybody else is there. */
        size_t to = ret->count++;
        if (sits_out(plan, row)) {
            ret->rows[to] = ret->rows[sitting];
            ret->scores[to] = ret->scores[sitting];
            ret->costs[to] = ret->costs[sitting];
            to = sitting++;
        }
        ret->rows[to] = row;
        ret->scores[to] = parts.score;
        ret->costs[to] = parts.cost;
    }
    if (sitting > 0 && sitting < ret->count) {
        ret->count -= sitting;
        for (size_t i = 0; i < ret->count; i++) {
            ret->rows[i] = ret->rows[i + sitting];
            ret->scores[i] = ret->scores[i + sitting];
            ret->costs[i] = ret->costs[i + sitting];
        }
    }
}

/* The latency that affinity compares, ns; 0: not known well enough. A caller who wants latency above all gets the live
 * estimate; the others a steady one, in which what nobody notices does not count. */
static double steady_ttfb(const struct plan *plan, uint32_t row)
{
    const struct worker *worker = plan->market->worker[row];
    if (plan->query->weights.latency > 0.5)
        return worker_ttfb_ns(worker, plan->query->now_ns, plan->market->latency_ns[row]);
    double ttfb = worker_typical_ttfb_ns(worker);
    return ttfb > 0 && ttfb < UNNOTICED_NS ? UNNOTICED_NS : ttfb;
}

/* The score that affinity compares; one without measurements is given the best latency of the others. */
static double steady_score(const struct plan *plan, uint32_t row, double best_ttfb)
{
    const struct market *market = plan->market;
    const struct weights *weights = &plan->query->weights;
    double ttfb = steady_ttfb(plan, row), reputation = (double)market->reputation_part[row];
    /* Experience alone is no reason to move: else sessions would leave whoever has served less so far. */
    if (reputation < DOUBTFUL && weights->reputation <= 0.5)
        reputation = DOUBTFUL;
    return weights->price * part_of((double)market->price_effective[row], plan->price_reference) +
           weights->latency * part_of(ttfb > 0 ? ttfb : best_ttfb, LATENCY_REFERENCE_NS) +
           weights->reputation * reputation;
}

/* Narrows the candidates to those of the best one's price, and chooses the home among them. */
static uint32_t choose_home(const struct plan *plan, struct candidates *candidates, uint32_t best)
{
    const struct market *market = plan->market;
    double best_ttfb = 0, best_score = 2.0;
    size_t count = 0;
    for (size_t i = 0; i < candidates->count; i++) {
        uint32_t row = candidates->rows[i];
        if (market->price_usd_nano[row] != market->price_usd_nano[best])
            continue;
        candidates->rows[count++] = row;
        double ttfb = steady_ttfb(plan, row);
        if (ttfb > 0 && (best_ttfb <= 0 || ttfb < best_ttfb))
            best_ttfb = ttfb;
    }
    for (size_t i = 0; i < count; i++) {
        candidates->scores[i] = steady_score(plan, candidates->rows[i], best_ttfb);
        best_score = candidates->scores[i] < best_score ? candidates->scores[i] : best_score;
    }
    uint32_t home = best;
    uint64_t most = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t weight = mix(plan->query->affinity ^ market->worker_hash[candidates->rows[i]]);
        if (candidates->scores[i] < best_score + AFFINITY_NEAR && weight >= most) {
            most = weight;
            home = candidates->rows[i];
        }
    }
    return home;
}

/* Two different ones at random among the near-equal best; the less loaded of them. */
static uint32_t choose_of_two(const struct candidates *candidates, double best_score, uint64_t random)
{
    size_t near = 0, picked[2];
    for (size_t i = 0; i < candidates->count; i++)
        near += candidates->scores[i] <= best_score + NEAR_EQUAL;
    size_t first = (size_t)((random & UINT32_MAX) % near);
    size_t second = near > 1 ? (first + 1 + (size_t)((random >> 32) % (near - 1))) % near : first;
    picked[0] = picked[1] = 0;
    for (size_t i = 0, seen = 0; i < candidates->count; i++) {
        if (candidates->scores[i] > best_score + NEAR_EQUAL)
            continue;
        if (seen == first)
            picked[0] = i;
        if (seen == second)
            picked[1] = i;
        seen++;
    }
    return candidates->rows[candidates->costs[picked[1]] < candidates->costs[picked[0]] ? picked[1] : picked[0]];
}

static bool is_usable(const struct worker *worker, int64_t now_ns)
{
    return worker_is_live(worker, now_ns) && !worker_is_ejected(worker, now_ns);
}

static bool all_are_ejected(const struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (is_usable(plan->market->worker[plan->replicas[i]], plan->query->now_ns))
            return false;
    }
    return true;
}

enum dispatch_verdict dispatch_choose(const struct market *market, const struct dispatch_query *query,
                                      uint32_t *ret_row)
{
    struct plan plan;
    struct candidates candidates;
    assert(query->tried_count <= DISPATCH_TRIES_MAX);
    plan_make(market, query, &plan);
    gather(&plan, &candidates);
    if (candidates.count == 0 && candidates.has_ejected && all_are_ejected(&plan)) {
        /* Ejected at the same time by several threads or for another model's sake, or the last healthy one has left. */
        plan.ignore_ejection = true;
        gather(&plan, &candidates);
    }
    if (candidates.count == 0) {
        if (!candidates.fits)
            return DISPATCH_NO_MATCH;
        return candidates.may_wait ? DISPATCH_FULL : DISPATCH_NONE_LEFT;
    }
    size_t best = 0;
    for (size_t i = 1; i < candidates.count; i++) {
        if (candidates.scores[i] < candidates.scores[best])
            best = i;
    }
    if (query->affinity)
        *ret_row = choose_home(&plan, &candidates, candidates.rows[best]);
    else
        *ret_row = choose_of_two(&candidates, candidates.scores[best], query->random);
    return DISPATCH_CHOSEN;
}

size_t dispatch_fitting(const struct market *market, const struct dispatch_query *query)
{
    struct plan plan;
    size_t count = 0;
    plan_make(market, query, &plan);
    for (size_t i = 0; i < plan.count; i++)
        count += constraint_broken(&plan, plan.replicas[i]) == FITS &&
                 is_usable(market->worker[plan.replicas[i]], query->now_ns);
    return count;
}

/* -- explaining -- */

static int compare_candidates(const void *left, const void *right)
{
    const struct dispatch_candidate *a = left, *b = right;
    if (!a->rejected != !b->rejected)
        return a->rejected ? 1 : -1;
    if (a->score != b->score)
        return a->score < b->score ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

static struct str first_missing_tag(const struct market *market, struct str require, uint32_t row)
{
    while (require.ptr) {
        struct str tag = str_trim(str_next(&require, ','));
        struct tag_filter filter;
        tag_filter_make(market, tag, &filter);
        if (!tag_filter_fits(market, &filter, row))
            return tag;
    }
    return require;
}

size_t dispatch_explain(const struct market *market, const struct dispatch_query *query, struct dispatch_candidate *ret,
                        size_t max)
{
    struct plan plan;
    size_t count = 0;
    plan_make(market, query, &plan);
    plan.ignore_ejection = all_are_ejected(&plan);
    for (size_t i = 0; i < plan.count && max > 0; i++) {
        struct parts parts;
        weigh(&plan, plan.replicas[i], &parts);
        enum reason reason = check(&plan, plan.replicas[i]);
        struct dispatch_candidate candidate = {.row = plan.replicas[i],
                                               .score = parts.score,
                                               .price = parts.price,
                                               .latency = parts.latency,
                                               .reputation = parts.reputation,
                                               .rejected = reason_texts[reason]};
        if (reason == REASON_TAG)
            candidate.missing_tag = first_missing_tag(market, query->require, candidate.row);
        size_t to = count;
        if (count < max) {
            count++;
        } else { /* no room: the worst one leaves */
            to = 0;
            for (size_t j = 1; j < count; j++)
                to = compare_candidates(&ret[j], &ret[to]) > 0 ? j : to;
            if (compare_candidates(&candidate, &ret[to]) > 0)
                continue;
        }
        ret[to] = candidate;
    }
    if (count)
        qsort(ret, count, sizeof(*ret), compare_candidates);
    return count;
}
