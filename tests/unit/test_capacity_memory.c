#include "tests/unit/redis_fixture.h"

#include "scheduler/capacity_memory.h"

#define NOW INT64_C(1764000000000)
#define SECOND 1000
#define MINUTE (60 * SECOND)

static struct lease_candidate class_of(const char *network, const char *zone)
{
    struct lease_candidate candidate = {.gpu = "nvidia/h100-sxm-80", .gpus = 8};
    snprintf(candidate.network, sizeof(candidate.network), "%s", network);
    snprintf(candidate.zone, sizeof(candidate.zone), "%s", zone);
    return candidate;
}

static struct capacity_memory *memory_new(void)
{
    struct capacity_memory *memory = NULL;
    assert_int_equal(capacity_memory_open(&memory), ERR_NONE);
    return memory;
}

static void fail_twice(struct capacity_memory *memory, const struct lease_candidate *candidate, int64_t now_ms)
{
    capacity_note(memory, NULL, candidate, false, now_ms);
    capacity_note(memory, NULL, candidate, false, now_ms);
}

static void closes_and_opens(void **state)
{
    (void)state;
    struct capacity_memory *memory = memory_new();
    const struct lease_candidate here = class_of("aws", "eu-1a"), there = class_of("aws", "eu-1b");
    int64_t until_ms = 0;
    assert_int_equal(capacity_ask(memory, &here, NOW, &until_ms), CAPACITY_OPEN);
    capacity_note(memory, NULL, &here, false, NOW);
    assert_int_equal(capacity_ask(memory, &here, NOW, NULL), CAPACITY_OPEN); /* one says little */
    capacity_note(memory, NULL, &here, false, NOW + SECOND);
    assert_int_equal(capacity_ask(memory, &here, NOW + SECOND, &until_ms), CAPACITY_CLOSED);
    assert_true(until_ms > NOW + 30 * SECOND && until_ms < NOW + 60 * SECOND);
    assert_int_equal(capacity_ask(memory, &there, NOW + SECOND, NULL), CAPACITY_OPEN);
    assert_int_equal(capacity_ask(memory, &here, until_ms, NULL), CAPACITY_HALF_OPEN);
    /* One tries, the others wait for it, but not for ever. */
    capacity_try(memory, &here, until_ms);
    int64_t again_ms = 0;
    assert_int_equal(capacity_ask(memory, &here, until_ms + 1, &again_ms), CAPACITY_CLOSED);
    assert_true(again_ms == until_ms + 2 * MINUTE);
    assert_int_equal(capacity_ask(memory, &here, again_ms, NULL), CAPACITY_HALF_OPEN);
    /* Without capacity again: longer. */
    capacity_note(memory, NULL, &here, false, again_ms);
    int64_t third_ms = 0;
    assert_int_equal(capacity_ask(memory, &here, again_ms, &third_ms), CAPACITY_CLOSED);
    assert_true(third_ms - again_ms > until_ms - (NOW + SECOND));
    capacity_try(memory, &here, third_ms);
    capacity_note(memory, NULL, &here, true, third_ms + SECOND);
    assert_int_equal(capacity_ask(memory, &here, third_ms + SECOND, NULL), CAPACITY_OPEN);
    capacity_memory_free(memory);
}

static void fades(void **state)
{
    (void)state;
    struct capacity_memory *memory = memory_new();
    const struct lease_candidate here = class_of("aws", "eu-1a");
    /* Two failures with an hour between them are not two. */
    capacity_note(memory, NULL, &here, false, NOW);
    capacity_note(memory, NULL, &here, false, NOW + 60 * MINUTE);
    assert_int_equal(capacity_ask(memory, &here, NOW + 60 * MINUTE, NULL), CAPACITY_OPEN);
    int64_t at_ms = NOW + 60 * MINUTE, until_ms = 0;
    for (int i = 0; i < 30; i++)
        capacity_note(memory, NULL, &here, false, at_ms);
    assert_int_equal(capacity_ask(memory, &here, at_ms, &until_ms), CAPACITY_CLOSED);
    assert_true(until_ms == at_ms + 15 * MINUTE);
    assert_int_equal(capacity_ask(memory, &here, at_ms + 120 * MINUTE, NULL), CAPACITY_OPEN);
    assert_int_equal(capacity_ask(memory, &here, at_ms - 60 * MINUTE, NULL), CAPACITY_OPEN); /* a clock set back */
    capacity_memory_free(memory);
}

/* Classes without end: it stays as large as it is, and knows what is fresh. */
static void is_bounded(void **state)
{
    (void)state;
    struct capacity_memory *memory = memory_new();
    char zone[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(zone, sizeof(zone), "zone-%d", i);
        const struct lease_candidate class = class_of("aws", zone);
        fail_twice(memory, &class, NOW + i);
        assert_int_equal(capacity_ask(memory, &class, NOW + i, NULL), CAPACITY_CLOSED);
    }
    capacity_memory_free(memory);
}

static bool is_seen(struct capacity_memory *memory, const struct lease_candidate *candidate,
                    enum capacity_verdict expect)
{
    capacity_refresh(memory, fixture.redis);
    loop_turn(fixture.loop, NS_PER_MS);
    return capacity_ask(memory, candidate, clock_wall_ms(), NULL) == expect;
}

static void is_shared(void **state)
{
    (void)state;
    struct capacity_memory *one = memory_new(), *other = memory_new();
    const struct lease_candidate here = class_of("aws", "eu-1a");
    int64_t now_ms = clock_wall_ms();
    /* One failure here and one there are two. */
    capacity_note(one, fixture.redis, &here, false, now_ms);
    capacity_note(other, fixture.redis, &here, false, now_ms);
    assert_int_equal(capacity_ask(one, &here, now_ms, NULL), CAPACITY_OPEN);
    turn_until(is_seen(one, &here, CAPACITY_CLOSED));
    turn_until(is_seen(other, &here, CAPACITY_CLOSED));
    /* The back-off is over: one tries, and the other learns of it. */
    const char *key = "sl:{cap}";
    char class_key[64];
    snprintf(class_key, sizeof(class_key), "%s:%s", key,
             look("EVAL %s 1 %s", "return redis.call('ZRANGE', KEYS[1], 0, 0)[1]", key));
    look("HSET %s until_ms 1", class_key);
    look("ZADD %s %lld a", key, (long long)now_ms);
    turn_until(is_seen(one, &here, CAPACITY_HALF_OPEN));
    turn_until(is_seen(other, &here, CAPACITY_HALF_OPEN));
    capacity_try(one, &here, clock_wall_ms());
    assert_true(is_seen(one, &here, CAPACITY_CLOSED));
    turn_until(is_seen(other, &here, CAPACITY_CLOSED));
    capacity_note(one, fixture.redis, &here, true, clock_wall_ms());
    assert_int_equal(capacity_ask(one, &here, clock_wall_ms(), NULL), CAPACITY_OPEN);
    turn_until(is_seen(other, &here, CAPACITY_OPEN));
    assert_true(strtoll(look("PTTL %s", class_key), NULL, 10) > 60 * MINUTE);
    /* Freed while a question is open. */
    capacity_refresh(one, fixture.redis);
    capacity_memory_free(one);
    turn_until(is_seen(other, &here, CAPACITY_OPEN));
    capacity_memory_free(other);
}

/* What Redis has there may be anything. */
static void odd_fields(void **state)
{
    (void)state;
    struct capacity_memory *memory = memory_new();
    const struct lease_candidate here = class_of("aws", "eu-1a"), there = class_of("aws", "eu-1b");
    look("ZADD sl:{cap} 5 0123456789abcdef");
    look("ZADD sl:{cap} 5 not-a-digest");
    look("ZADD sl:{cap} 5 zzzzzzzzzzzzzzzz");
    look("HSET sl:{cap}:0123456789abcdef score nan at_ms -1 until_ms x try_ms 1e300");
    struct capacity_memory *other = memory_new();
    fail_twice(memory, &there, clock_wall_ms());
    capacity_note(other, fixture.redis, &here, false, clock_wall_ms());
    capacity_note(other, fixture.redis, &here, false, clock_wall_ms());
    turn_until(is_seen(memory, &here, CAPACITY_CLOSED));
    assert_int_equal(capacity_ask(memory, &there, clock_wall_ms(), NULL), CAPACITY_CLOSED);
    capacity_memory_free(memory);
    capacity_memory_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closes_and_opens),
        cmocka_unit_test(fades),
        cmocka_unit_test(is_bounded),
        cmocka_unit_test_setup(is_shared, fixture_empty),
        cmocka_unit_test_setup(odd_fields, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
