#include "tests/unit/cmocka_all.h"

#include "scheduler/lease_pick.h"

#include <string.h>

#define NOW INT64_C(1764000000000)
#define OFFERS 24
#define WORLDS 3000
#define DRAWS 4000

static uint64_t seed;

static uint64_t below(uint64_t limit)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = (seed ^ (seed >> 31)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (x ^ (x >> 29)) % limit;
}

static struct lease_ranked offer(const char *network, const char *id, double score, int64_t price)
{
    struct lease_ranked ranked = {
        .score = score,
        .candidate = {.gpu = "nvidia/rtx4090-24", .gpus = 1, .price_usd_nano = price, .network_price_usd_nano = price}};
    snprintf(ranked.candidate.network, sizeof(ranked.candidate.network), "%s", network);
    snprintf(ranked.candidate.offer, sizeof(ranked.candidate.offer), "%s", id);
    snprintf(ranked.candidate.zone, sizeof(ranked.candidate.zone), "%s", id);
    return ranked;
}

static struct lease *lease_of(void)
{
    struct lease *lease = lease_new();
    assert_non_null(lease);
    lease->request.price_max_usd_nano = lease->request.price_quoted_usd_nano = -1;
    return lease;
}

static void tried(struct lease *lease, const struct lease_ranked *ranked, enum supply_error error)
{
    lease->attempts[lease->attempt_count++] =
        (struct lease_attempt){.of = ranked->candidate, .state = ATTEMPT_CLOSED, .error = error};
    lease->attempts_of_search++;
}

static size_t pick(const struct lease *lease, const struct lease_ranked *ranked, size_t count)
{
    return lease_pick(lease, ranked, count, NULL, NOW, below(UINT64_MAX)).index;
}

static void goes_down_the_list(void **state)
{
    (void)state;
    struct lease *lease = lease_of();
    const struct lease_ranked ranked[] = {offer("a", "1", 0.1, 10), offer("a", "2", 0.2, 20), offer("b", "1", 0.3, 30),
                                          offer("b", "2", 0.4, 40)};
    assert_int_equal(pick(lease, ranked, 4), 0);
    tried(lease, &ranked[0], SUPPLY_NO_CAPACITY);
    assert_int_equal(pick(lease, ranked, 4), 1);
    tried(lease, &ranked[1], SUPPLY_QUOTA);
    assert_int_equal(pick(lease, ranked, 4), 2);
    tried(lease, &ranked[2], SUPPLY_BAD_REQUEST); /* the whole network would refuse it again */
    struct lease_picked none = lease_pick(lease, ranked, 4, NULL, NOW, 1);
    assert_true(none.index == SIZE_MAX);
    assert_int_equal(none.error, SUPPLY_NO_CAPACITY);
    assert_int_equal(none.skipped[SKIP_TRIED], 4);
    assert_non_null(strstr(none.message, "4 tried already"));
    /* A new search forgets. */
    lease->attempts_of_search = 0;
    assert_int_equal(pick(lease, ranked, 4), 0);
    lease_free(lease);
}

/* What failed for a moment comes again when nothing else is left, three times in all. */
static void comes_again(void **state)
{
    (void)state;
    struct lease *lease = lease_of();
    const struct lease_ranked ranked[] = {offer("a", "1", 0.1, 10), offer("a", "2", 0.5, 20)};
    tried(lease, &ranked[0], SUPPLY_RATE_LIMITED);
    assert_int_equal(pick(lease, ranked, 2), 1);
    tried(lease, &ranked[1], SUPPLY_FAILED);
    assert_int_equal(pick(lease, ranked, 2), 0);
    tried(lease, &ranked[0], SUPPLY_TRANSIENT);
    assert_int_equal(pick(lease, ranked, 2), 0);
    tried(lease, &ranked[0], SUPPLY_TRANSIENT);
    assert_true(pick(lease, ranked, 2) == SIZE_MAX);
    lease_free(lease);
}

static void says_why(void **state)
{
    (void)state;
    struct lease *lease = lease_of();
    struct lease_ranked ranked[] = {offer("a", "1", 0.1, 620000000), offer("b", "2", 0.2, 700000000),
                                    offer("c", "1", 0.3, 1), offer("c", "2", 0.4, 1)};
    ranked[2].is_stale = true;
    ranked[3].is_down = true;
    lease->request.price_max_usd_nano = 500000000;
    struct lease_picked none = lease_pick(lease, ranked, 4, NULL, NOW, 1);
    assert_int_equal(none.error, SUPPLY_PRICE_MOVED);
    assert_string_equal(none.message,
                        "none of 4 offers can be tried: 1 not heard of lately, 1 on networks that do not answer, 2 "
                        "above your price cap of 0.50 USD; the cheapest above it is 0.62 USD per GPU-hour at a");
    lease->request.price_max_usd_nano = -1;
    lease->request.price_quoted_usd_nano = 590000000;
    lease->request.tolerance_bps = 100;
    none = lease_pick(lease, ranked, 4, NULL, NOW, 1);
    assert_int_equal(none.skipped[SKIP_QUOTE], 2);
    lease->request.tolerance_bps = 600;
    assert_int_equal(pick(lease, ranked, 4), 0);
    none = lease_pick(lease, ranked, 0, NULL, NOW, 1);
    assert_int_equal(none.error, SUPPLY_NO_CAPACITY);
    assert_non_null(strstr(none.message, "no network offers"));
    lease_free(lease);
}

/* Near-equals share by what they have; what is clearly worse gets nothing. */
static void spreads(void **state)
{
    (void)state;
    struct lease *lease = lease_of();
    struct lease_ranked ranked[] = {offer("a", "1", 0.100, 10), offer("b", "1", 0.110, 10), offer("c", "1", 0.119, 10),
                                    offer("d", "1", 0.125, 10)};
    unsigned times[4] = {0};
    ranked[1].available = 3;
    seed = 3;
    for (unsigned i = 0; i < DRAWS; i++)
        times[pick(lease, ranked, 4)]++;
    assert_int_equal(times[3], 0);
    assert_in_range(times[0], DRAWS / 5 - DRAWS / 25, DRAWS / 5 + DRAWS / 25);
    assert_in_range(times[1], 3 * DRAWS / 5 - DRAWS / 25, 3 * DRAWS / 5 + DRAWS / 25);
    assert_in_range(times[2], DRAWS / 5 - DRAWS / 25, DRAWS / 5 + DRAWS / 25);
    lease_free(lease);
}

static void remembers_capacity(void **state)
{
    (void)state;
    struct lease *lease = lease_of();
    struct capacity_memory *memory = NULL;
    const struct lease_ranked ranked[] = {offer("a", "1", 0.1, 10), offer("b", "1", 0.5, 10)};
    int64_t until_ms = 0;
    assert_int_equal(capacity_memory_open(&memory), ERR_NONE);
    capacity_note(memory, NULL, &ranked[0].candidate, false, NOW);
    capacity_note(memory, NULL, &ranked[0].candidate, false, NOW);
    struct lease_picked picked = lease_pick(lease, ranked, 2, memory, NOW, 0);
    assert_int_equal(picked.index, 1);
    assert_int_equal(picked.skipped[SKIP_NO_CAPACITY], 1);
    assert_int_equal(capacity_ask(memory, &ranked[0].candidate, NOW, &until_ms), CAPACITY_CLOSED);
    /* Half-open: one goes, and until it is known what came of it the others go elsewhere. */
    assert_int_equal(lease_pick(lease, ranked, 2, memory, until_ms, 0).index, 0);
    capacity_try(memory, &ranked[0].candidate, until_ms);
    assert_int_equal(lease_pick(lease, ranked, 2, memory, until_ms, 0).index, 1);
    capacity_note(memory, NULL, &ranked[0].candidate, true, until_ms + 1);
    assert_int_equal(lease_pick(lease, ranked, 2, memory, until_ms + 1, 0).index, 0);
    capacity_memory_free(memory);
    lease_free(lease);
}

static bool may_be_tried(const struct lease *lease, const struct lease_ranked *ranked)
{
    const struct lease_request *request = &lease->request;
    if (ranked->is_stale || ranked->is_down ||
        (request->price_max_usd_nano >= 0 && ranked->candidate.price_usd_nano > request->price_max_usd_nano))
        return false;
    for (size_t i = 0; i < lease->attempt_count; i++) {
        if (strcmp(lease->attempts[i].of.offer, ranked->candidate.offer) == 0)
            return false;
    }
    return true;
}

/* In any market: nothing over the cap, stale or tried is taken, nothing that is clearly worse than another that could
 * be had, and none only when there is none. Better by price and score is never passed over. */
static void any_market(void **state)
{
    (void)state;
    for (uint64_t world = 1; world <= WORLDS; world++) {
        struct lease *lease = lease_of();
        struct lease_ranked ranked[OFFERS];
        seed = world * UINT64_C(0xe7037ed1a0b428db);
        size_t count = below(OFFERS + 1);
        lease->request.price_max_usd_nano = below(2) ? (int64_t)below(1000) : -1;
        for (size_t i = 0; i < count; i++) {
            char id[24];
            snprintf(id, sizeof(id), "%zu", i);
            ranked[i] = offer("n", id, (double)below(1000) / 1000, (int64_t)below(1000));
            ranked[i].available = (uint32_t)below(5);
            ranked[i].is_stale = below(6) == 0;
            ranked[i].is_down = below(6) == 0;
            if (below(5) == 0)
                tried(lease, &ranked[i], SUPPLY_NO_CAPACITY);
        }
        struct lease_picked picked = lease_pick(lease, ranked, count, NULL, NOW, below(UINT64_MAX));
        double best = 2;
        for (size_t i = 0; i < count; i++) {
            if (may_be_tried(lease, &ranked[i]) && ranked[i].score < best)
                best = ranked[i].score;
        }
        assert_true((picked.index == SIZE_MAX) == (best > 1));
        if (picked.index == SIZE_MAX) {
            assert_true(picked.message[0] != '\0');
        } else {
            assert_true(may_be_tried(lease, &ranked[picked.index]));
            assert_true(ranked[picked.index].score <= best + 0.02);
        }
        lease_free(lease);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_down_the_list), cmocka_unit_test(comes_again),
        cmocka_unit_test(says_why),           cmocka_unit_test(spreads),
        cmocka_unit_test(remembers_capacity), cmocka_unit_test(any_market),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
