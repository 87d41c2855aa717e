#include "scheduler/lease_pick.h"

#include "core/money.h"
#include "scheduler/lease_moves.h"

#include <stdio.h>
#include <string.h>

#define NEAR 0.02 /* of a score in [0, 1]: as good as the best */
#define WEIGHT_MAX 1000
#define TRIES_MAX 3 /* of one offer in a search, where it failed for a moment only */
#define BPS 10000

static bool is_of_moment(enum supply_error error)
{
    return error == SUPPLY_RATE_LIMITED || error == SUPPLY_TRANSIENT;
}

/* Said by a network once, it holds for all its offers as long as this search lasts. */
static bool is_of_network(enum supply_error error)
{
    return error == SUPPLY_BAD_CREDENTIAL || error == SUPPLY_QUOTA || error == SUPPLY_NO_FUNDS ||
           error == SUPPLY_BAD_REQUEST;
}

/* May it be tried (again) in this search? `again`: what failed for a moment may. */
static bool is_untried(const struct lease *lease, const struct lease_candidate *candidate, bool again)
{
    unsigned tries = 0;
    for (size_t i = lease_search_begin(lease); i < lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &lease->attempts[i];
        if (strcmp(attempt->of.network, candidate->network) != 0)
            continue;
        if (is_of_network(attempt->error))
            return false;
        if (strcmp(attempt->of.offer, candidate->offer) != 0)
            continue;
        if (!again || !is_of_moment(attempt->error) || ++tries >= TRIES_MAX)
            return false;
    }
    return true;
}

static bool is_over_cap(const struct lease_request *request, const struct lease_candidate *candidate)
{
    return request->price_max_usd_nano >= 0 && candidate->price_usd_nano > request->price_max_usd_nano;
}

static bool is_over_quote(const struct lease_request *request, const struct lease_candidate *candidate)
{
    int64_t most = 0;
    if (request->price_quoted_usd_nano < 0)
        return false;
    return !money_bps(request->price_quoted_usd_nano, BPS + request->tolerance_bps, &most) ||
           candidate->price_usd_nano > most;
}

/* SKIP_COUNT: it may be tried. */
static enum lease_skip skip_of(const struct lease *lease, const struct lease_ranked *ranked,
                               const struct capacity_memory *memory, int64_t now_ms, bool again)
{
    const struct lease_candidate *candidate = &ranked->candidate;
    if (ranked->is_stale)
        return SKIP_STALE;
    if (ranked->is_down)
        return SKIP_DOWN;
    if (is_over_cap(&lease->request, candidate))
        return SKIP_PRICE;
    if (is_over_quote(&lease->request, candidate))
        return SKIP_QUOTE;
    if (!is_untried(lease, candidate, again))
        return SKIP_TRIED;
    if (memory && capacity_ask(memory, candidate, now_ms, NULL) == CAPACITY_CLOSED)
        return SKIP_NO_CAPACITY;
    return SKIP_COUNT;
}

static uint64_t weight_of(const struct lease_ranked *ranked)
{
    uint32_t available = ranked->available > 0 ? ranked->available : 1;
    return available < WEIGHT_MAX ? available : WEIGHT_MAX;
}

/* The list is gone through three times: for the best, for the weight of those near it, for where the draw fell. */
struct draw {
    double best;
    uint64_t weight, drawn;
};

static bool is_near(const struct draw *draw, const struct lease_ranked *ranked)
{
    return ranked->score <= draw->best + NEAR;
}

static size_t choose(const struct lease *lease, const struct lease_ranked *ranked, size_t count,
                     const struct capacity_memory *memory, int64_t now_ms, uint64_t random, bool again,
                     unsigned skipped[SKIP_COUNT])
{
    struct draw draw = {.weight = 0};
    bool has_best = false;
    memset(skipped, 0, SKIP_COUNT * sizeof(skipped[0]));
    for (size_t i = 0; i < count; i++) {
        enum lease_skip skip = skip_of(lease, &ranked[i], memory, now_ms, again);
        if (skip != SKIP_COUNT)
            skipped[skip]++;
        else if (!has_best || ranked[i].score < draw.best)
            draw.best = ranked[i].score;
        has_best |= skip == SKIP_COUNT;
    }
    for (size_t i = 0; i < count && has_best; i++) {
        if (is_near(&draw, &ranked[i]) && skip_of(lease, &ranked[i], memory, now_ms, again) == SKIP_COUNT)
            draw.weight += weight_of(&ranked[i]);
    }
    draw.drawn = draw.weight > 0 ? random % draw.weight : 0;
    for (size_t i = 0; i < count && has_best; i++) {
        if (!is_near(&draw, &ranked[i]) || skip_of(lease, &ranked[i], memory, now_ms, again) != SKIP_COUNT)
            continue;
        if (draw.drawn < weight_of(&ranked[i]))
            return i;
        draw.drawn -= weight_of(&ranked[i]);
    }
    return SIZE_MAX;
}

/* -- why none -- */

static const char *const skip_texts[SKIP_COUNT] = {
    [SKIP_STALE] = "not heard of lately",  [SKIP_DOWN] = "on networks that do not answer",
    [SKIP_TRIED] = "tried already",        [SKIP_NO_CAPACITY] = "without capacity a moment ago",
    [SKIP_PRICE] = "above your price cap", [SKIP_QUOTE] = "above the quoted price",
};

static const struct lease_candidate *cheapest(const struct lease_request *request, const struct lease_ranked *ranked,
                                              size_t count)
{
    const struct lease_candidate *best = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct lease_candidate *candidate = &ranked[i].candidate;
        if (ranked[i].is_stale || ranked[i].is_down ||
            (!is_over_cap(request, candidate) && !is_over_quote(request, candidate)))
            continue;
        if (!best || candidate->price_usd_nano < best->price_usd_nano)
            best = candidate;
    }
    return best;
}

static bool explain_skip(const struct lease_request *request, unsigned skip, unsigned times, struct buf *to)
{
    char price[MONEY_TEXT_MAX];
    if (skip != SKIP_PRICE && skip != SKIP_QUOTE)
        return buf_printf(to, " %u %s,", times, skip_texts[skip]);
    money_text(skip == SKIP_PRICE ? request->price_max_usd_nano : request->price_quoted_usd_nano, price);
    return buf_printf(to, " %u %s of %s USD,", times, skip_texts[skip], price);
}

static void explain(const struct lease_request *request, const struct lease_ranked *ranked, size_t count,
                    struct lease_picked *picked)
{
    char price[MONEY_TEXT_MAX];
    struct buf text;
    if (count == 0) {
        lease_tell(picked->message, sizeof(picked->message),
                   STR("no network offers what is asked for: loosen GPU, count, region, network or requirements"));
        return;
    }
    buf_init(&text, 1024);
    bool fits = buf_printf(&text, "none of %zu offers can be tried:", count);
    for (unsigned i = 0; i < SKIP_COUNT; i++) {
        if (picked->skipped[i] > 0)
            fits = fits && explain_skip(request, i, picked->skipped[i], &text);
    }
    const struct lease_candidate *least = cheapest(request, ranked, count);
    if (fits)
        text.len--; /* the last comma */
    if (least) {
        money_text(least->price_usd_nano, price);
        fits = fits && buf_printf(&text, "; the cheapest above it is %s USD per GPU-hour at %s", price, least->network);
    }
    lease_tell(picked->message, sizeof(picked->message), fits ? buf_str(&text) : STR("no offer can be tried"));
    buf_free(&text);
}

struct lease_picked lease_pick(const struct lease *lease, const struct lease_ranked *ranked, size_t count,
                               const struct capacity_memory *memory, int64_t now_ms, uint64_t random)
{
    struct lease_picked picked = {.index = SIZE_MAX, .error = SUPPLY_OK};
    picked.index = choose(lease, ranked, count, memory, now_ms, random, false, picked.skipped);
    if (picked.index == SIZE_MAX && picked.skipped[SKIP_TRIED] > 0)
        picked.index = choose(lease, ranked, count, memory, now_ms, random, true, picked.skipped);
    if (picked.index != SIZE_MAX)
        return picked;
    picked.error =
        picked.skipped[SKIP_PRICE] + picked.skipped[SKIP_QUOTE] > 0 ? SUPPLY_PRICE_MOVED : SUPPLY_NO_CAPACITY;
    explain(&lease->request, ranked, count, &picked);
    return picked;
}
