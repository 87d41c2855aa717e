#include "pricing/credit.h"

#include "core/clock.h"
#include "pricing/credit_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define PUT(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
#define FAST_SLICE_NS (2 * NS_PER_S)  /* gone sooner: the next one is twice as large */
#define SLOW_SLICE_NS (20 * NS_PER_S) /* lasted longer: half as large */

struct credit *credit_new(enum credit_kind kind, const char *id, int64_t limit_usd_nano, const char *period)
{
    struct credit *credit = aligned_alloc(_Alignof(struct credit), sizeof(*credit));

    if (!credit)
        return NULL;
    memset(credit, 0, sizeof(*credit));
    assert(money_id_is_good(str_of(id)));
    (void)!str_copy(credit->id, sizeof(credit->id), str_of(id));
    credit->kind = kind;
    credit->mono_ns = clock_mono_ns;
    credit->wall_ms = clock_wall_ms;
    if (kind == CREDIT_BUDGET) {
        assert(limit_usd_nano >= 0 && period && (!strcmp(period, "day") || !strcmp(period, "month")));
        credit->limit_usd_nano = limit_usd_nano;
        credit->is_daily = !strcmp(period, "day");
    }
    PUT(credit->slice, SLICE_LEAST);
    PUT(credit->refs, 1);
    return credit;
}

struct credit *credit_ref(struct credit *credit)
{
    atomic_fetch_add_explicit(&credit->refs, 1, memory_order_relaxed);
    return credit;
}

struct credit *credit_unref(struct credit *credit)
{
    if (credit && atomic_fetch_sub_explicit(&credit->refs, 1, memory_order_acq_rel) == 1)
        free(credit);
    return NULL;
}

int64_t credit_limit(const struct credit *credit, const char **ret_period)
{
    assert(credit->kind == CREDIT_BUDGET);
    *ret_period = credit->is_daily ? "day" : "month";
    return credit->limit_usd_nano;
}

int64_t credit_period_start(const struct credit *credit, int64_t wall_ms)
{
    if (credit->kind != CREDIT_BUDGET)
        return 0;
    return credit->is_daily ? clock_day_start(wall_ms) : clock_month_start(wall_ms);
}

int64_t credit_period_end(const struct credit *credit, int64_t period_ms)
{
    return credit->is_daily ? period_ms + 86400000 : clock_month_start(period_ms + INT64_C(32) * 86400000);
}

bool credit_is_valid(const struct credit *credit, int64_t mono_ns)
{
    if (mono_ns >= atomic_load_explicit(&credit->valid_until_ns, memory_order_acquire))
        return false;
    return credit->kind != CREDIT_BUDGET || credit->wall_ms() < GET(credit->period_end_ms);
}

/* Takes at most `want` off what is left, and never below zero: the charge of a lapsed credit finds nothing. */
static int64_t draw(struct credit *credit, int64_t want)
{
    int64_t left = GET(credit->left), got;

    do {
        got = left < want ? left : want;
        if (got <= 0)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&credit->left, &left, left - got, memory_order_relaxed,
                                                    memory_order_relaxed));
    return got;
}

static void note_want(struct credit *credit, int64_t want)
{
    if (want > GET(credit->largest_want))
        PUT(credit->largest_want, want < WANT_MOST ? want : WANT_MOST);
}

int64_t credit_take(struct credit *credit, int64_t want_usd_nano)
{
    int64_t now = credit->mono_ns(), got;

    assert(want_usd_nano >= 1);
    note_want(credit, want_usd_nano);
    if (!credit_is_valid(credit, now))
        return 0;
    got = draw(credit, want_usd_nano);
    if (got && now - GET(credit->last_take_ns) > NS_PER_S)
        PUT(credit->last_take_ns, now);
    return got;
}

int64_t credit_charge(struct credit *credit, int64_t held_usd_nano, int64_t cost_usd_nano)
{
    int64_t more;

    assert(held_usd_nano >= 0 && cost_usd_nano >= 0);
    if (cost_usd_nano <= held_usd_nano) {
        if (held_usd_nano > cost_usd_nano)
            atomic_fetch_add_explicit(&credit->left, held_usd_nano - cost_usd_nano, memory_order_relaxed);
        return cost_usd_nano;
    }
    note_want(credit, cost_usd_nano);
    more = credit_is_valid(credit, credit->mono_ns()) ? draw(credit, cost_usd_nano - held_usd_nano) : 0;
    return held_usd_nano + more;
}

int64_t credit_left(const struct credit *credit)
{
    return credit_is_valid(credit, credit->mono_ns()) ? GET(credit->left) : 0;
}

/* Moves a time forward, never back. */
static void raise_to(_Atomic int64_t *field, int64_t value)
{
    int64_t old = atomic_load_explicit(field, memory_order_relaxed);
    while (old < value &&
           !atomic_compare_exchange_weak_explicit(field, &old, value, memory_order_release, memory_order_relaxed))
        ;
}

/* What was left of a lapsed lease or of a past period is no longer ours. Nobody takes meanwhile, because the credit is
 * not valid; of two threads that come here at once, the one whose exchange of `field` fails puts back what it removed,
 * which may be the other's new slice. */
static void start_anew(struct credit *credit, _Atomic int64_t *field, int64_t old, int64_t value)
{
    int64_t removed = atomic_exchange_explicit(&credit->left, 0, memory_order_acq_rel);

    if (!atomic_compare_exchange_strong_explicit(field, &old, value, memory_order_acq_rel, memory_order_relaxed))
        atomic_fetch_add_explicit(&credit->left, removed, memory_order_relaxed);
}

void credit_grant(struct credit *credit, int64_t amount, int64_t sent_ns, int64_t period_ms)
{
    int64_t valid_until = atomic_load_explicit(&credit->valid_until_ns, memory_order_acquire);
    int64_t period = atomic_load_explicit(&credit->period_ms, memory_order_acquire);

    atomic_fetch_add_explicit(&credit->grants, 1, memory_order_relaxed);
    if (period_ms < period)
        return; /* an answer from before midnight: the sweep returns it */
    if (period_ms > period) {
        start_anew(credit, &credit->period_ms, period, period_ms);
        raise_to(&credit->period_end_ms, credit_period_end(credit, period_ms));
    }
    if (credit->mono_ns() >= valid_until)
        start_anew(credit, &credit->valid_until_ns, valid_until, sent_ns + LOCAL_LIFE_NS);
    atomic_fetch_add_explicit(&credit->left, amount, memory_order_relaxed);
    raise_to(&credit->valid_until_ns, sent_ns + LOCAL_LIFE_NS);
}

void credit_extend(struct credit *credit, int64_t sent_ns)
{
    raise_to(&credit->valid_until_ns, sent_ns + LOCAL_LIFE_NS);
}

void credit_lapse(struct credit *credit, int64_t left)
{
    if (left > 0)
        (void)draw(credit, left); /* no more than that: a slice may be coming in on another thread */
}

int64_t credit_next_slice(struct credit *credit)
{
    int64_t now = credit->mono_ns(), lasted = now - GET(credit->sliced_at_ns), slice = GET(credit->slice);
    int64_t wanted = GET(credit->largest_want) * WANTS_A_SLICE;

    if (GET(credit->sliced_at_ns) && lasted < FAST_SLICE_NS)
        slice *= 2;
    else if (lasted > SLOW_SLICE_NS)
        slice /= 2;
    slice = slice < SLICE_LEAST ? SLICE_LEAST : slice > SLICE_MOST ? SLICE_MOST : slice;
    if (slice < wanted)
        slice = wanted;
    PUT(credit->largest_want, GET(credit->largest_want) / 2); /* one large call is forgotten after some slices */
    PUT(credit->slice, slice);
    PUT(credit->sliced_at_ns, now);
    return slice;
}
