#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "scheduler/worker.h"

#include <math.h>
#include <pthread.h>

#define assert_near(a, b, off) assert_true(fabs((double)(a) - (double)(b)) <= (off))
#define S NS_PER_S
#define START (100 * S)

static struct worker *fresh(void)
{
    struct worker *worker = worker_new("wrk_a", 7);
    assert_non_null(worker);
    atomic_store(&worker->slots, 4);
    atomic_store(&worker->upstream_ok, true);
    atomic_store(&worker->heard_ns, START);
    return worker;
}

static bool finish(struct worker *worker, int64_t now_ns, enum worker_outcome outcome)
{
    worker_begin(worker, now_ns);
    return worker_end(worker, now_ns, outcome, false);
}

static void identity(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    assert_string_equal(worker->id, "wrk_a");
    assert_int_equal(worker->index, 7);
    assert_ptr_equal(worker_ref(worker), worker);
    assert_null(worker_unref(worker));
    assert_null(worker_unref(worker));
    assert_null(worker_unref(NULL));
    assert_null(worker_new("an id that is much longer than any identifier of ours may ever be", 0));
}

static void slots_and_life(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    for (int i = 0; i < 4; i++) {
        assert_true(worker_has_free_slot(worker));
        worker_begin(worker, START);
    }
    assert_false(worker_has_free_slot(worker));
    assert_int_equal(worker_load(worker), 4);
    assert_false(worker_end(worker, START, WORKER_CANCELLED, false));
    assert_true(worker_has_free_slot(worker));
    for (int i = 0; i < 3; i++)
        worker_end(worker, START, WORKER_DONE, false);
    assert_int_equal(atomic_load(&worker->in_flight), 0);

    assert_true(worker_is_live(worker, START + 5 * S));
    assert_false(worker_is_live(worker, START + 5 * S + 1));
    atomic_store(&worker->draining, true);
    assert_false(worker_is_live(worker, START));
    atomic_store(&worker->draining, false);
    atomic_store(&worker->upstream_ok, false);
    assert_false(worker_is_live(worker, START));
    atomic_store(&worker->upstream_ok, true);
    atomic_store(&worker->heard_ns, 0);
    assert_false(worker_is_live(worker, START));
    worker_unref(worker);
}

static void old_reports_do_not_count(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    atomic_store(&worker->reported, 3);
    assert_int_equal(worker_load(worker), 3);
    finish(worker, START + 1, WORKER_DONE);
    assert_int_equal(worker_load(worker), 0);
    atomic_store(&worker->heard_ns, START + 2);
    assert_int_equal(worker_load(worker), 3);
    worker_unref(worker);
}

static void refusals(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    assert_false(worker_refused_lately(worker, START));
    for (int i = 0; i < 20; i++)
        assert_false(finish(worker, START, WORKER_REFUSED));
    assert_true(worker_refused_lately(worker, START + 49 * NS_PER_MS));
    assert_false(worker_refused_lately(worker, START + 50 * NS_PER_MS));
    assert_false(worker_is_ejected(worker, START));
    assert_int_equal(atomic_load(&worker->failed_count), 0);
    worker_unref(worker);
}

static void latency(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    assert_true(worker_ttfb_ns(worker, START, 3 * NS_PER_MS) == 3e6); /* the prior given */
    atomic_store(&worker->rtt_ns, 2 * NS_PER_MS);
    assert_true(worker_ttfb_ns(worker, START, 3 * NS_PER_MS) == 2e6); /* the round trip known */
    worker_first_byte(worker, START, 100 * NS_PER_MS);
    assert_true(worker_ttfb_ns(worker, START, 0) == 100e6);
    worker_first_byte(worker, START, 900 * NS_PER_MS); /* up at once */
    assert_true(worker_ttfb_ns(worker, START, 0) == 900e6);
    worker_first_byte(worker, START, 100 * NS_PER_MS); /* not down at once */
    assert_true(worker_ttfb_ns(worker, START, 0) > 899e6);
    worker_first_byte(worker, START + 10 * S, 100 * NS_PER_MS); /* down by a time constant */
    assert_near(worker_ttfb_ns(worker, START + 10 * S, 0) / 1e6, 100 + 800 / 2.71828, 1);
    /* idle: towards the round trip, never below it */
    double before = worker_ttfb_ns(worker, START + 11 * S, 0), after = worker_ttfb_ns(worker, START + 60 * S, 0);
    assert_true(after < before && after > 100e6);
    assert_near(worker_ttfb_ns(worker, START + 3000 * S, 0) / 1e6, 2, 0.01);
    worker_unref(worker);
}

static void typical_latency(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    worker_first_byte(worker, START, 2000 * NS_PER_MS); /* a cold start */
    worker_first_byte(worker, START, 10 * NS_PER_MS);
    assert_true(worker_typical_ttfb_ns(worker) == 0);
    for (int i = 0; i < 20; i++)
        worker_first_byte(worker, START, 10 * NS_PER_MS);
    assert_true(worker_typical_ttfb_ns(worker) < 14e6);
    for (int i = 0; i < 200; i++)
        worker_first_byte(worker, START, 500 * NS_PER_MS);
    assert_true(worker_typical_ttfb_ns(worker) > 450e6);
    worker_first_byte(worker, START, -5); /* clocks never run backwards; still no harm */
    worker_unref(worker);
}

static void ejected_after_three_in_a_row(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    assert_false(finish(worker, START, WORKER_FAILED));
    assert_false(finish(worker, START, WORKER_FAILED));
    assert_false(finish(worker, START, WORKER_DONE));
    assert_false(finish(worker, START + 20 * S, WORKER_FAILED));
    assert_false(finish(worker, START + 40 * S, WORKER_FAILED));
    assert_false(finish(worker, START + 41 * S, WORKER_CANCELLED));
    assert_false(finish(worker, START + 42 * S, WORKER_REFUSED));
    assert_true(finish(worker, START + 60 * S, WORKER_FAILED));
    int64_t at = START + 60 * S;
    assert_true(worker_is_ejected(worker, at));
    assert_true(worker_is_ejected(worker, at + 5 * S - 1));
    assert_false(worker_is_ejected(worker, at + 5 * S));
    /* what was under way and fails now neither counts twice nor lengthens it */
    for (int i = 0; i < 5; i++)
        assert_false(finish(worker, at + S, WORKER_FAILED));
    assert_false(worker_is_ejected(worker, at + 5 * S));
    worker_unref(worker);
}

static void ejected_for_half_of_ten(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    bool ejected = false;
    for (int i = 0; i < 4; i++) {
        ejected |= finish(worker, START + i, WORKER_FAILED);
        ejected |= finish(worker, START + i, WORKER_DONE);
    }
    assert_false(ejected);
    assert_true(finish(worker, START + S, WORKER_FAILED));
    worker_unref(worker);

    worker = fresh(); /* the same, too slowly */
    for (int i = 0; i < 30; i++) {
        assert_false(finish(worker, START + i * 3 * S, WORKER_FAILED));
        assert_false(finish(worker, START + i * 3 * S, WORKER_DONE));
    }
    worker_unref(worker);

    worker = fresh(); /* four of ten */
    for (int i = 0; i < 50; i++)
        assert_false(finish(worker, START + i, i % 5 < 3 ? WORKER_DONE : WORKER_FAILED));
    worker_unref(worker);
}

static void span_doubles_and_is_forgotten(void **state)
{
    (void)state;
    static const int64_t spans[] = {5, 10, 20, 40, 60, 60};
    struct worker *worker = fresh();
    int64_t now = START;
    for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        assert_false(finish(worker, now, WORKER_FAILED));
        assert_false(finish(worker, now, WORKER_FAILED));
        assert_true(finish(worker, now, WORKER_FAILED));
        assert_true(worker_is_ejected(worker, now + spans[i] * S - 1));
        now += spans[i] * S;
        assert_false(worker_is_ejected(worker, now));
    }
    now += 61 * S;
    for (int i = 0; i < 3; i++)
        finish(worker, now, WORKER_FAILED);
    assert_false(worker_is_ejected(worker, now + 5 * S));
    worker_unref(worker);
}

static void never_the_last_replica(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    for (int i = 0; i < 50; i++) {
        worker_begin(worker, START);
        assert_false(worker_end(worker, START, WORKER_FAILED, true));
    }
    assert_false(worker_is_ejected(worker, START));
    assert_int_equal(atomic_load(&worker->failed_count), 50);
    assert_true(finish(worker, START, WORKER_FAILED)); /* another replica came */
    worker_unref(worker);
}

static void ramp(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    assert_true(worker_ramp(worker, START) == 1.0);
    for (int i = 0; i < 3; i++)
        finish(worker, START, WORKER_FAILED);
    int64_t back = START + 5 * S;
    double before = 0;
    for (int i = 0; i <= 10; i++) {
        double now = worker_ramp(worker, back + i * S);
        assert_true(now > 0 && now <= 1 && now >= before);
        before = now;
    }
    assert_near(worker_ramp(worker, back + 5 * S), 0.5, 1e-9);
    assert_true(worker_ramp(worker, back + 10 * S) == 1.0);
    worker_unref(worker);
}

static void *hammer(void *arg)
{
    struct worker *worker = arg;
    for (int i = 0; i < 20000; i++) {
        int64_t now = START + i * NS_PER_US;
        worker_begin(worker, now);
        worker_first_byte(worker, now, (i % 50 + 1) * NS_PER_MS);
        (void)worker_ttfb_ns(worker, now, 0);
        worker_end(worker, now, i % 4 ? WORKER_DONE : (enum worker_outcome)(i / 4 % 4), i % 3 == 0);
    }
    return worker_unref(worker);
}

static void many_threads(void **state)
{
    (void)state;
    struct worker *worker = fresh();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, worker_ref(worker)), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&worker->in_flight), 0);
    assert_int_equal(atomic_load(&worker->refs), 1);
    assert_int_equal(atomic_load(&worker->done_count) + atomic_load(&worker->failed_count), 70000);
    double ttfb = worker_ttfb_ns(worker, START, 0);
    assert_true(ttfb >= 1e6 && ttfb <= 50e6);
    worker_unref(worker);
}

static void address_blocks(void **state)
{
    (void)state;
    const uint8_t a[4] = {203, 0, 113, 7}, b[4] = {203, 0, 113, 200}, c[4] = {203, 0, 114, 7},
                  local[4] = {127, 3, 0, 1};
    const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 9}, v6_near[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 8, 8};
    const uint8_t v6_far[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 2}, v6_local[16] = {[15] = 1};
    const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 203, [13] = 0, [14] = 113, [15] = 9};
    assert_true(worker_address_block(a, false) == worker_address_block(b, false));
    assert_true(worker_address_block(a, false) != worker_address_block(c, false));
    assert_true(worker_address_block(a, false) == worker_address_block(mapped, true));
    assert_true(worker_address_block(local, false) == 0);
    assert_true(worker_address_block(v6, true) == worker_address_block(v6_near, true));
    assert_true(worker_address_block(v6, true) != worker_address_block(v6_far, true));
    assert_true(worker_address_block(v6, true) != 0);
    assert_true(worker_address_block(v6_local, true) == 0);
}

static void payments_are_kept_by_tenant(void **state)
{
    (void)state;
    struct worker *worker = worker_new("wrk_1", 0);
    struct worker_payment payments[WORKER_PAYERS];
    assert_int_not_equal(worker_tenant(STR("ten_1")), worker_tenant(STR("ten_2")));
    assert_int_equal(worker_take_payments(worker, payments), 0);
    for (int i = 0; i < 3; i++)
        worker_paid(worker, 7, 100);
    worker_paid(worker, 8, 5);
    assert_int_equal(worker_take_payments(worker, payments), 2);
    assert_true(payments[0].tenant == 7 && payments[0].done == 3 && payments[0].value_usd_nano == 300);
    assert_true(payments[1].tenant == 8 && payments[1].done == 1 && payments[1].value_usd_nano == 5);
    for (uint64_t tenant = 10; tenant < 10 + 2 * WORKER_PAYERS; tenant++) /* two places are still taken */
        worker_paid(worker, tenant, 1);
    assert_int_equal(worker_take_payments(worker, payments), WORKER_PAYERS - 2);
    for (uint64_t tenant = 50; tenant < 50 + 2 * WORKER_PAYERS; tenant++) /* now they are free */
        worker_paid(worker, tenant, 1);
    assert_int_equal(worker_take_payments(worker, payments), 2);
    assert_int_equal(worker_take_payments(worker, payments), 0);
    worker_unref(worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity),
        cmocka_unit_test(slots_and_life),
        cmocka_unit_test(old_reports_do_not_count),
        cmocka_unit_test(refusals),
        cmocka_unit_test(latency),
        cmocka_unit_test(typical_latency),
        cmocka_unit_test(ejected_after_three_in_a_row),
        cmocka_unit_test(ejected_for_half_of_ten),
        cmocka_unit_test(span_doubles_and_is_forgotten),
        cmocka_unit_test(never_the_last_replica),
        cmocka_unit_test(ramp),
        cmocka_unit_test(address_blocks),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(payments_are_kept_by_tenant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
