#include "tests/unit/cmocka_all.h"

#include "scheduler/slot.h"

#include <string.h>

#define SECOND INT64_C(1000000000)
#define T (INT64_C(100) * SECOND)

static uint64_t random_state = 42;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void keys(void **state)
{
    (void)state;
    assert_true(slot_key(STR("")) == 0);
    assert_true(slot_key((struct str){NULL, 0}) == 0);
    assert_true(slot_key(STR("acme")) != 0);
    assert_true(slot_key(STR("acme")) == slot_key(STR("acme")));
    assert_true(slot_key(STR("acme")) != slot_key(STR("acmf")));
}

static void groups(void **state)
{
    (void)state;
    static const struct slot_member members[] = {
        {.operator_key = 1, .uuid_key = 10, .block_key = 100},
        {.operator_key = 2, .uuid_key = 11, .block_key = 101},
        {.operator_key = 3, .uuid_key = 12, .block_key = 102},
        {.operator_key = 4, .uuid_key = 10, .block_key = 103}, /* the UUID of 0 */
        {.operator_key = 2, .uuid_key = 14, .block_key = 104}, /* the operator of 1 */
        {.operator_key = 7, .uuid_key = 15, .block_key = 103}, /* the block of 3, so with 0 */
        {0},                                                   /* nothing is known */
        {0},
        {.operator_key = 100, .uuid_key = 101, .block_key = 1}, /* numbers of another kind mean nothing */
        {.is_cpu = true, .operator_key = 1, .block_key = 100},
        {.is_cpu = true, .operator_key = 1, .block_key = 100},
        {.is_cpu = true, .operator_key = 1, .block_key = 100, .uuid_key = 12}, /* of one UUID with 2 */
    };
    static const uint32_t want[] = {0, 1, 2, 0, 1, 0, 3, 4, 5, 6, 7, 2};
    enum { COUNT = sizeof(members) / sizeof(members[0]) };
    uint32_t got[COUNT];
    size_t count = 0;
    assert_int_equal(slot_group(members, COUNT, got, &count), ERR_NONE);
    assert_memory_equal(got, want, sizeof(want));
    assert_int_equal(count, 8);
    assert_int_equal(slot_group(members, 0, got, &count), ERR_NONE);
    assert_int_equal(count, 0);
}

static bool share(const struct slot_member *a, const struct slot_member *b)
{
    bool is_machine = a->is_cpu || b->is_cpu;
    return (a->uuid_key && a->uuid_key == b->uuid_key) ||
           (!is_machine && ((a->operator_key && a->operator_key == b->operator_key) ||
                            (a->block_key && a->block_key == b->block_key)));
}

/* Against the definition: the same group when and only when a path of shared keys leads from one to the other. */
static void groups_by_definition(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    for (int round = 0; round < 200; round++) {
        struct slot_member members[COUNT];
        uint32_t got[COUNT], want[COUNT];
        for (int i = 0; i < COUNT; i++)
            members[i] = (struct slot_member){.is_cpu = next_random() % 4 == 0,
                                              .operator_key = next_random() % 40,
                                              .uuid_key = next_random() % 60,
                                              .block_key = next_random() % 50};
        uint32_t groups_wanted = 0;
        memset(want, 0xff, sizeof(want));
        for (int i = 0; i < COUNT; i++) {
            if (want[i] != UINT32_MAX)
                continue;
            want[i] = groups_wanted++;
            for (bool grew = true; grew;) {
                grew = false;
                for (int a = 0; a < COUNT; a++)
                    for (int b = 0; b < COUNT; b++)
                        if (want[a] == want[i] && want[b] == UINT32_MAX && share(&members[a], &members[b])) {
                            want[b] = want[i];
                            grew = true;
                        }
            }
        }
        size_t count = 0;
        assert_int_equal(slot_group(members, COUNT, got, &count), ERR_NONE);
        assert_int_equal(count, groups_wanted);
        assert_memory_equal(got, want, sizeof(want));
    }
}

static void picks(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    uint32_t group[COUNT];
    size_t picked[SLOT_MEMBERS_MAX];
    int taken[COUNT] = {0};
    for (size_t i = 0; i < COUNT; i++)
        group[i] = i % 100 == 0 ? 1 : 0;
    assert_int_equal(slot_pick(group, COUNT, 200, 1, picked), 5);
    static const size_t all[] = {200, 0, 100, 300, 400};
    assert_memory_equal(picked, all, sizeof(all));
    int rounds = 2000;
    for (int round = 0; round < rounds; round++) {
        bool seen[COUNT] = {false};
        assert_int_equal(slot_pick(group, COUNT, 7, next_random(), picked), SLOT_MEMBERS_MAX);
        assert_int_equal(picked[0], 7);
        for (size_t i = 0; i < SLOT_MEMBERS_MAX; i++) {
            assert_true(picked[i] < COUNT && group[picked[i]] == 0 && !seen[picked[i]]);
            seen[picked[i]] = true;
            taken[picked[i]]++;
        }
    }
    for (size_t i = 0; i < COUNT; i++) { /* 63 of 494: 255 times of 2,000 each, give or take */
        if (group[i] == 0 && i != 7)
            assert_in_range(taken[i], 170, 350);
    }
}

static struct slot_barrier slot_of(unsigned count)
{
    struct slot_barrier slot;
    slot_barrier_open(&slot);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(slot_barrier_join(&slot), i);
    return slot;
}

static void all_are_sent_when_the_last_arrives(void **state)
{
    (void)state;
    struct slot_go go = {0};
    struct slot_barrier slot = slot_of(3);
    assert_true(slot_barrier_due_ns(&slot) == INT64_MAX);
    for (int round = 0; round < 3; round++) {
        int64_t now = T + round * SECOND;
        assert_int_equal(slot_barrier_arrive(&slot, 1, now, &go), SLOT_WAIT);
        assert_true(slot_barrier_due_ns(&slot) == now + SLOT_WAIT_NS);
        assert_int_equal(slot_barrier_arrive(&slot, 2, now + 5, &go), SLOT_WAIT);
        assert_true(slot_barrier_due_ns(&slot) == now + SLOT_WAIT_NS);
        assert_int_equal(slot_barrier_tick(&slot, now + 6, &go), SLOT_WAIT);
        assert_int_equal(slot_barrier_arrive(&slot, 0, now + 7, &go), SLOT_GO);
        assert_int_equal(go.count, 3);
        assert_int_equal(go.members[0], 0);
        assert_int_equal(go.members[2], 2);
        assert_int_equal(slot_barrier_tick(&slot, now + 8, &go), SLOT_WAIT); /* nobody is sent twice */
    }
    slot = slot_of(1);
    assert_int_equal(slot_barrier_arrive(&slot, 0, T, &go), SLOT_GO);
    assert_int_equal(go.count, 1);
}

static void late_ones_are_left_behind(void **state)
{
    (void)state;
    struct slot_go go = {0};
    struct slot_barrier slot = slot_of(4);
    assert_int_equal(slot_barrier_arrive(&slot, 0, T, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_arrive(&slot, 1, T + SECOND, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_tick(&slot, T + SLOT_WAIT_NS - 1, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_tick(&slot, T + SLOT_WAIT_NS, &go), SLOT_GO);
    assert_int_equal(go.count, 2);
    assert_int_equal(slot_barrier_arrive(&slot, 2, T + SLOT_WAIT_NS + 1, &go), SLOT_LATE);
    /* those that were sent do not wait for the late ones the next time */
    assert_int_equal(slot_barrier_arrive(&slot, 0, T + 5 * SECOND, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_arrive(&slot, 1, T + 5 * SECOND, &go), SLOT_GO);
    assert_int_equal(slot_barrier_arrive(&slot, 3, T + 6 * SECOND, &go), SLOT_LATE);
    assert_false(slot_barrier_is_over(&slot));
    assert_int_equal(slot_barrier_leave(&slot, 0, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_leave(&slot, 1, &go), SLOT_WAIT);
    assert_true(slot_barrier_is_over(&slot));
}

static void the_wait_can_be_put_off(void **state)
{
    (void)state;
    struct slot_barrier slot;
    struct slot_go go;
    slot_barrier_open(&slot);
    unsigned a = slot_barrier_join(&slot), b = slot_barrier_join(&slot);
    slot_barrier_put_off(&slot, T);
    assert_true(slot_barrier_due_ns(&slot) == INT64_MAX); /* nobody waits yet */
    assert_int_equal(slot_barrier_arrive(&slot, a, T, &go), SLOT_WAIT);
    slot_barrier_put_off(&slot, T + SLOT_WAIT_NS);
    assert_int_equal(slot_barrier_tick(&slot, T + SLOT_WAIT_NS, &go), SLOT_WAIT);
    assert_true(slot_barrier_due_ns(&slot) == T + 2 * SLOT_WAIT_NS);
    assert_int_equal(slot_barrier_arrive(&slot, b, T + SLOT_WAIT_NS + 1, &go), SLOT_GO);
    assert_int_equal(go.count, 2);
}

static void who_leaves_is_not_waited_for(void **state)
{
    (void)state;
    struct slot_go go = {0};
    struct slot_barrier slot = slot_of(3);
    assert_int_equal(slot_barrier_arrive(&slot, 0, T, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_leave(&slot, 1, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_leave(&slot, 1, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_leave(&slot, 2, &go), SLOT_GO);
    assert_int_equal(go.count, 1);
    assert_int_equal(go.members[0], 0);
    /* one that waits may leave too */
    slot = slot_of(2);
    assert_int_equal(slot_barrier_arrive(&slot, 0, T, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_leave(&slot, 0, &go), SLOT_WAIT);
    assert_true(slot_barrier_due_ns(&slot) == INT64_MAX);
    assert_int_equal(slot_barrier_arrive(&slot, 1, T + 9 * SECOND, &go), SLOT_GO);
}

static void who_joins_is_waited_for(void **state)
{
    (void)state;
    struct slot_go go = {0};
    struct slot_barrier slot = slot_of(0);
    assert_true(slot_barrier_is_over(&slot));
    assert_int_equal(slot_barrier_tick(&slot, T, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_join(&slot), 0);
    assert_int_equal(slot_barrier_join(&slot), 1);
    assert_false(slot_barrier_is_over(&slot));
    assert_int_equal(slot_barrier_arrive(&slot, 0, T, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_join(&slot), 2); /* while another waits already */
    assert_int_equal(slot_barrier_arrive(&slot, 1, T, &go), SLOT_WAIT);
    assert_int_equal(slot_barrier_arrive(&slot, 2, T, &go), SLOT_GO);
    assert_int_equal(go.count, 3);
    for (unsigned i = 3; i < SLOT_MEMBERS_MAX; i++)
        assert_int_equal(slot_barrier_join(&slot), i);
    assert_int_equal(slot_barrier_join(&slot), SLOT_MEMBERS_MAX);
    assert_int_equal(slot.count, SLOT_MEMBERS_MAX);
}

/* Members that come and go as they like: whoever waits is sent within the limit, once, and never after being late. */
static void properties(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct slot_barrier slot;
        struct slot_go go = {0};
        unsigned count = 1 + (unsigned)(next_random() % SLOT_MEMBERS_MAX);
        bool waits[SLOT_MEMBERS_MAX] = {false}, gone[SLOT_MEMBERS_MAX] = {false};
        int64_t since[SLOT_MEMBERS_MAX] = {0}, now = T;
        slot = slot_of(count);
        for (int i = 0; i < 400; i++) {
            unsigned member = (unsigned)(next_random() % count);
            enum slot_turn turn;
            now += (int64_t)(next_random() % (SECOND / 8));
            bool is_arrival = next_random() % 20 != 0 && !gone[member] && !waits[member];
            if (is_arrival) {
                turn = slot_barrier_arrive(&slot, member, now, &go);
                waits[member] = turn != SLOT_LATE;
                gone[member] = turn == SLOT_LATE;
                since[member] = now;
            } else if (next_random() % 30 == 0) {
                turn = slot_barrier_leave(&slot, member, &go);
                waits[member] = false;
                gone[member] = true;
            } else {
                turn = slot_barrier_tick(&slot, now, &go);
            }
            assert_true(turn != SLOT_LATE || is_arrival);
            for (unsigned k = 0; turn == SLOT_GO && k < go.count; k++) {
                assert_true(waits[go.members[k]]);
                waits[go.members[k]] = false;
            }
            bool anybody = false;
            for (unsigned k = 0; k < count; k++) {
                anybody = anybody || waits[k];
                assert_true(turn != SLOT_GO || !waits[k]);
                assert_true(!waits[k] || now - since[k] < SLOT_WAIT_NS + SECOND / 8);
            }
            assert_true(anybody == (slot_barrier_due_ns(&slot) != INT64_MAX));
            if (slot_barrier_due_ns(&slot) <= now) { /* the caller's timer */
                assert_int_equal(slot_barrier_tick(&slot, now, &go), SLOT_GO);
                for (unsigned k = 0; k < go.count; k++)
                    waits[go.members[k]] = false;
            }
        }
        for (unsigned k = 0; k < count; k++)
            (void)slot_barrier_leave(&slot, k, &go);
        assert_true(slot_barrier_is_over(&slot));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),
        cmocka_unit_test(groups),
        cmocka_unit_test(groups_by_definition),
        cmocka_unit_test(picks),
        cmocka_unit_test(all_are_sent_when_the_last_arrives),
        cmocka_unit_test(late_ones_are_left_behind),
        cmocka_unit_test(the_wait_can_be_put_off),
        cmocka_unit_test(who_leaves_is_not_waited_for),
        cmocka_unit_test(who_joins_is_waited_for),
        cmocka_unit_test(properties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
