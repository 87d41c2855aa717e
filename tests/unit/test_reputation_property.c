/* What must hold of reputations whatever happens in whatever order: random histories from fixed seeds. */
#include "tests/unit/cmocka_all.h"

#include "scheduler/reputation.h"

#include <math.h>

#define MINUTE (INT64_C(60) * 1000)
#define DAY (INT64_C(24) * 60 * MINUTE)
#define BEGIN (1000 * DAY)
#define HISTORIES 20000

static uint64_t seed;

static uint64_t below(uint64_t limit)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = (seed ^ (seed >> 31)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (x ^ (x >> 29)) % limit;
}

/* Mostly moments, sometimes days or months. */
static int64_t pause_ms(void)
{
    switch (below(6)) {
    case 0:
        return (int64_t)below((uint64_t)(60 * DAY));
    case 1:
        return (int64_t)below((uint64_t)DAY);
    default:
        return (int64_t)below((uint64_t)(10 * MINUTE));
    }
}

/* Cheap good deeds: any number of calls of up to ten cents each, none failed. */
static void serve(struct reputation *reputation, int64_t at_ms)
{
    uint64_t calls = UINT64_C(1) << below(24);
    const struct reputation_evidence deeds = reputation_of_calls(calls, 0, (int64_t)(calls * below(100000000)));
    reputation_add(reputation, &deeds, at_ms);
}

static enum verify_purpose any_purpose(void)
{
    return (enum verify_purpose)below(3);
}

static double newcomer(void)
{
    struct reputation reputation = {.at_ms = BEGIN};
    const struct reputation_evidence admission = reputation_of_proof(VERIFY_ADMISSION, 1, true);
    reputation_add(&reputation, &admission, BEGIN);
    return reputation_bound(&reputation, BEGIN);
}

static void check_below(const struct reputation *reputation, int64_t at_ms, const char *what)
{
    double total = reputation_bound(reputation, at_ms);
    if (!(total < newcomer()))
        fail_msg("%s: %f is not below a newcomer", what, total);
}

/* However much it serves, before and after: who never passed a proof does not outrank a newcomer. */
static void cheap_deeds_alone(void **state)
{
    (void)state;
    for (uint64_t history = 1; history <= HISTORIES / 4; history++) {
        seed = history * UINT64_C(0xe7037ed1a0b428db);
        struct reputation reputation = {.at_ms = BEGIN};
        int64_t at = BEGIN;
        for (uint64_t steps = 1 + below(60); steps > 0; steps--) {
            at += pause_ms();
            serve(&reputation, at);
            check_below(&reputation, at, "never proven");
        }
    }
}

/* It proves what it is for as long as it likes, serves as much as it likes, and then its last proof is wrong: from then
 * on, however much it serves, until it has proven itself again. */
static void wrong_at_the_last_proof(void **state)
{
    (void)state;
    for (uint64_t history = 1; history <= HISTORIES; history++) {
        seed = history * UINT64_C(0x9e3779b97f4a7c15);
        struct reputation reputation = {.at_ms = BEGIN};
        int64_t at = BEGIN;
        for (uint64_t steps = below(80); steps > 0; steps--) {
            at += pause_ms();
            const struct reputation_evidence proof = reputation_of_proof(any_purpose(), 1, below(2));
            if (below(3))
                reputation_add(&reputation, &proof, at);
            else
                serve(&reputation, at);
        }
        const struct reputation_evidence wrong = reputation_of_wrong(any_purpose());
        reputation_add(&reputation, &wrong, at += pause_ms());
        check_below(&reputation, at, "just wrong");
        for (uint64_t steps = below(30); steps > 0; steps--) {
            at += pause_ms();
            serve(&reputation, at);
            check_below(&reputation, at, "wrong at its last proof");
        }
    }
}

/* Slow below the floor: once five proofs are slow for four that are not, in whatever order they came. */
static void slow_below_the_floor(void **state)
{
    (void)state;
    for (uint64_t history = 1; history <= HISTORIES; history++) {
        seed = history * UINT64_C(0xd1342543de82ef95);
        struct reputation reputation = {.at_ms = BEGIN};
        int64_t at = BEGIN, fast = 0, slow = 0; /* proofs of the same weight */
        for (uint64_t steps = 1 + below(60); steps > 0; steps--) {
            bool is_fast = below(2);
            at += (int64_t)below((uint64_t)DAY); /* good memories fade first, so waiting does not help it */
            const struct reputation_evidence proof = reputation_of_proof(VERIFY_SPOT, is_fast, true);
            reputation_add(&reputation, &proof, at);
            fast += is_fast;
            slow += !is_fast;
            while (below(3))
                serve(&reputation, at);
            if (4 * slow >= 5 * fast)
                check_below(&reputation, at, "slow");
        }
    }
}

/* The same history with one more good deed is never worse, with one more bad one never better: in each dimension and in
 * total, then and later. */
static void monotonous(void **state)
{
    (void)state;
    for (uint64_t history = 1; history <= HISTORIES; history++) {
        seed = history * UINT64_C(0xa0761d6478bd642f);
        struct reputation as_is = {.at_ms = BEGIN}, better = as_is, worse = as_is;
        uint64_t steps = 1 + below(20), better_at = below(steps), worse_at = below(steps);
        unsigned dimension = (unsigned)below(REPUTATION_DIMENSIONS);
        int64_t at = BEGIN;
        for (uint64_t step = 0; step < steps; step++) {
            struct reputation_evidence evidence = {.good = {0}}, more = {.good = {0}};
            at += pause_ms();
            for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
                evidence.good[i] = below(3) ? 0 : (double)below(4000) / 100;
                evidence.bad[i] = below(3) ? 0 : (double)below(4000) / 100;
            }
            reputation_add(&as_is, &evidence, at);
            reputation_add(&better, &evidence, at);
            reputation_add(&worse, &evidence, at);
            more.good[dimension] = step == better_at ? (double)below(1000) / 50 : 0;
            reputation_add(&better, &more, at);
            more.good[dimension] = 0;
            more.bad[dimension] = step == worse_at ? (double)below(1000) / 50 : 0;
            reputation_add(&worse, &more, at);
            double total = reputation_bound(&as_is, at), score = reputation_score(&as_is, dimension, at);
            assert_true(total >= 0 && total <= 1 && score >= 0 && score <= 1);
            assert_true(reputation_bound(&better, at) >= total - 1e-12 &&
                        reputation_bound(&worse, at) <= total + 1e-12);
            assert_true(reputation_score(&better, dimension, at) >= score - 1e-12);
            assert_true(reputation_score(&worse, dimension, at) <= score + 1e-12);
            if (below(10) == 0) { /* who had more has lost more, but stands no lower */
                const struct reputation_evidence wrong =
                    below(2) ? reputation_of_wrong(VERIFY_SPOT) : reputation_of_mismatch();
                reputation_add(&as_is, &wrong, at);
                reputation_add(&better, &wrong, at);
                reputation_add(&worse, &wrong, at);
            }
        }
    }
}

/* An honest worker that is probed now and then and serves stands above a newcomer. */
static void honesty_pays(void **state)
{
    (void)state;
    struct reputation reputation = {.at_ms = BEGIN};
    const struct reputation_evidence admission = reputation_of_proof(VERIFY_ADMISSION, 1, true);
    const struct reputation_evidence spot = reputation_of_proof(VERIFY_SPOT, 1, true);
    const struct reputation_evidence late = reputation_of_late(VERIFY_SPOT);
    int64_t at = BEGIN;
    reputation_add(&reputation, &admission, at);
    for (int hour = 1; hour <= 24 * 14; hour++) {
        at += 60 * MINUTE;
        reputation_add(&reputation, hour % 12 ? &spot : &late, at); /* one in twelve is late: 92% */
        serve(&reputation, at);
        assert_true(reputation_bound(&reputation, at) > newcomer());
    }
    assert_true(reputation_bound(&reputation, at) > 0.75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cheap_deeds_alone),    cmocka_unit_test(wrong_at_the_last_proof),
        cmocka_unit_test(slow_below_the_floor), cmocka_unit_test(monotonous),
        cmocka_unit_test(honesty_pays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
