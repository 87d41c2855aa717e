#include "tests/unit/redis_fixture.h"

#include "scheduler/identity_store.h"

#include <math.h>

#define DAY (INT64_C(24) * 3600 * 1000)
#define WORKER STR("wrk_00000000000000000000000001")

static struct {
    int fired;
    enum error error;
    struct identity_memory memory;
    struct identity_ban bans[64];
    size_t count;
    bool is_granted;
    int64_t retry_after_ms;
} answer;

static void on_memory(void *ctx, enum error error, const struct identity_memory *memory)
{
    (void)ctx;
    answer.fired++;
    answer.error = error;
    if (memory)
        answer.memory = *memory;
}

static void on_bans(void *ctx, enum error error, const struct identity_ban *bans, size_t count)
{
    (void)ctx;
    answer.fired++;
    answer.error = error;
    answer.count = count;
    assert_true(count <= 64);
    memcpy(answer.bans, bans, count * sizeof(*bans));
}

static void on_lifted(void *ctx, enum error error, unsigned found)
{
    (void)ctx;
    answer.fired++;
    answer.error = error;
    answer.count = found;
}

static void on_slot(void *ctx, enum error error, bool is_granted, int64_t retry_after_ms)
{
    (void)ctx;
    answer.fired++;
    answer.error = error;
    answer.is_granted = is_granted;
    answer.retry_after_ms = retry_after_ms;
}

#define wait_for(call)                            \
    do {                                          \
        memset(&answer, 0, sizeof(answer));       \
        assert_int_equal((call), ERR_NONE);       \
        assert_int_equal(answer.fired, 0);        \
        turn_until(answer.fired);                 \
        assert_int_equal(answer.fired, 1);        \
        assert_int_equal(answer.error, ERR_NONE); \
    } while (0)

static struct identity of(enum identity_kind kind, const char *value)
{
    struct identity identity = {.kind = kind};
    identity_digest(kind, str_of(value), identity.digest);
    return identity;
}

static const struct identity_memory *learn(const struct identity *identities, size_t count)
{
    wait_for(identity_store_learn(fixture.redis, identities, count, on_memory, NULL));
    return &answer.memory;
}

static const struct identity_memory *blame(const struct identity *identities, size_t count, const char *ban)
{
    const struct reputation_evidence wrong = reputation_of_wrong(VERIFY_SPOT);
    wait_for(identity_store_fail(fixture.redis, identities, count, &wrong, ban, WORKER, on_memory, NULL));
    return &answer.memory;
}

static void digests(void **state)
{
    (void)state;
    const struct identity a = of(IDENTITY_UUID, "GPU-1"), b = of(IDENTITY_KEY, "GPU-1"), c = of(IDENTITY_UUID, "GPU-2");
    assert_int_equal(strlen(a.digest), 64);
    assert_string_not_equal(a.digest, b.digest);
    assert_string_not_equal(a.digest, c.digest);
    assert_string_equal(a.digest, of(IDENTITY_UUID, "GPU-1").digest);
}

static void a_new_name_inherits(void **state)
{
    (void)state;
    const struct identity first[] = {of(IDENTITY_UUID, "GPU-1"), of(IDENTITY_KEY, "k1"), of(IDENTITY_HOST, "h")};
    const struct identity second[] = {of(IDENTITY_UUID, "GPU-1"), of(IDENTITY_KEY, "k2"), of(IDENTITY_HOST, "h2")};
    const struct identity other[] = {of(IDENTITY_UUID, "GPU-9"), of(IDENTITY_KEY, "k3"), of(IDENTITY_HOST, "h9")};
    const struct identity clone[] = {of(IDENTITY_UUID, "GPU-8"), of(IDENTITY_KEY, "k4"), of(IDENTITY_HOST, "h")};
    assert_true(learn(first, 3)->bad[REPUTATION_HARDWARE] == 0 && answer.memory.bans == 0);
    assert_string_equal(look("DBSIZE"), "0"); /* asking leaves nothing behind */
    assert_true(blame(first, 3, NULL)->bad[REPUTATION_HARDWARE] == 20);
    assert_int_equal(answer.memory.bans, 0);
    assert_true(learn(second, 3)->bad[REPUTATION_CORRECTNESS] > 19.99); /* the same device under another key */
    assert_true(learn(other, 3)->bad[REPUTATION_HARDWARE] == 0);

    int64_t now = clock_wall_ms();
    blame(second, 3, "wrong answer in a re-test");
    assert_int_equal(answer.memory.bans, 1);
    assert_true(llabs(answer.memory.banned_until_ms - now - 30 * DAY) < 60000);
    assert_string_equal(answer.memory.reason, "wrong answer in a re-test");
    assert_true(answer.memory.bad[REPUTATION_HARDWARE] > 39.99);
    assert_true(learn(&first[0], 1)->banned_until_ms > now); /* the device */
    assert_true(learn(&second[1], 1)->banned_until_ms > now);
    assert_true(learn(&first[1], 1)->banned_until_ms == 0); /* the key of before was not part of it */
    assert_true(learn(clone, 3)->banned_until_ms == 0);     /* a machine's id is remembered, not banned */
    assert_true(answer.memory.bad[REPUTATION_HARDWARE] > 19.99);

    blame(second, 2, "again");
    assert_int_equal(answer.memory.bans, 2);
    assert_true(llabs(answer.memory.banned_until_ms - now - 60 * DAY) < 60000); /* doubles */
    for (int i = 0; i < 8; i++)
        blame(second, 2, "and again");
    assert_true(llabs(answer.memory.banned_until_ms - now - 64 * 30 * DAY) < 60000);
    assert_true(learn(other, 3)->bans == 0);
}

static void bad_counts_fade(void **state)
{
    (void)state;
    const struct identity device = of(IDENTITY_UUID, "GPU-1");
    blame(&device, 1, NULL);
    look("HINCRBY sl:{ident}:%s at_ms %lld", device.digest, (long long)(-30 * DAY));
    assert_true(fabs(learn(&device, 1)->bad[REPUTATION_HARDWARE] - 10) < 0.01);
    assert_true(strtoll(look("PTTL sl:{ident}:%s", device.digest), NULL, 10) > 300 * DAY);
    for (int i = 0; i < 60; i++)
        blame(&device, 1, NULL);
    assert_true(learn(&device, 1)->bad[REPUTATION_HARDWARE] <= REPUTATION_COUNT_MAX);
}

static void bans_are_listed_and_lifted(void **state)
{
    (void)state;
    struct identity devices[2] = {of(IDENTITY_UUID, "GPU-1"), of(IDENTITY_KEY, "k1")};
    const struct identity longer = of(IDENTITY_UUID, "GPU-2"), over = of(IDENTITY_UUID, "GPU-3");
    blame(&over, 1, "long ago");
    look("ZADD sl:{ident}due 1000 %s", over.digest);
    blame(&longer, 1, "first");
    blame(&longer, 1, "second time");
    blame(devices, 2, "wrong answer: tile 3");
    assert_string_equal(look("HEXISTS sl:{ident}bans %s", over.digest), "0"); /* what is over has left the list */
    wait_for(identity_store_bans(fixture.redis, on_bans, NULL));
    assert_int_equal(answer.count, 3);
    assert_string_equal(answer.bans[2].digest, longer.digest);
    assert_int_equal(answer.bans[2].bans, 2);
    assert_string_equal(answer.bans[2].reason, "second time");
    for (size_t i = 0; i < 2; i++) {
        const struct identity_ban *ban = &answer.bans[i];
        assert_string_equal(ban->reason, "wrong answer: tile 3");
        assert_string_equal(ban->worker, WORKER.ptr);
        assert_string_equal(ban->digest, devices[ban->kind == IDENTITY_KEY].digest);
        assert_true(ban->until_ms - ban->at_ms == IDENTITY_BAN_MS);
    }
    wait_for(identity_store_lift(fixture.redis, devices, 2, on_lifted, NULL));
    assert_int_equal(answer.count, 2);
    assert_true(learn(devices, 2)->bans == 0 && answer.memory.bad[REPUTATION_HARDWARE] == 0);
    wait_for(identity_store_lift(fixture.redis, devices, 2, on_lifted, NULL));
    assert_int_equal(answer.count, 0);
    wait_for(identity_store_bans(fixture.redis, on_bans, NULL));
    assert_int_equal(answer.count, 1);
}

static bool is_granted(uint64_t block, int worker)
{
    char id[ID_TEXT_MAX];
    snprintf(id, sizeof(id), "wrk_%026d", worker);
    wait_for(identity_store_newcomer(fixture.redis, block, str_of(id), on_slot, NULL));
    return answer.is_granted;
}

static void a_block_brings_only_so_many(void **state)
{
    (void)state;
    uint64_t block = UINT64_C(4) << 56 | 0xc00002;
    int next = 0;
    for (; next < NEWCOMERS_PER_HOUR; next++)
        assert_true(is_granted(block, next));
    assert_false(is_granted(block, next));
    assert_true(answer.retry_after_ms > 3500000 && answer.retry_after_ms <= 3600000);
    assert_true(is_granted(block, 0));        /* has been counted: it may try as often as it likes */
    assert_true(is_granted(block + 1, next)); /* the neighbours may */
    while (++next < NEWCOMERS_PER_DAY + 1) {  /* an hour later, and so on */
        look("DEL sl:{ident}new:h:%016llx", (unsigned long long)block);
        assert_true(is_granted(block, next));
    }
    look("DEL sl:{ident}new:h:%016llx", (unsigned long long)block);
    assert_false(is_granted(block, next));
    assert_true(answer.retry_after_ms > 23 * 3600000);
}

static void nonsense(void **state)
{
    (void)state;
    const struct identity bad = {IDENTITY_KEY, "xyz"}, good = of(IDENTITY_KEY, "k");
    const struct reputation_evidence evidence = {.bad = {NAN}}, none = {.bad = {0}};
    assert_int_equal(identity_store_learn(fixture.redis, &bad, 1, on_memory, NULL), ERR_BAD_INPUT);
    assert_int_equal(identity_store_learn(fixture.redis, &good, 0, on_memory, NULL), ERR_BAD_INPUT);
    assert_int_equal(identity_store_learn(fixture.redis, &good, IDENTITIES_MAX + 1, on_memory, NULL), ERR_BAD_INPUT);
    assert_int_equal(identity_store_fail(fixture.redis, &good, 1, &evidence, NULL, WORKER, on_memory, NULL),
                     ERR_BAD_INPUT);
    assert_int_equal(identity_store_fail(fixture.redis, &good, 1, &none, "", WORKER, on_memory, NULL), ERR_BAD_INPUT);
    assert_int_equal(identity_store_fail(fixture.redis, &good, 1, &none, "x", STR("x y"), on_memory, NULL),
                     ERR_BAD_INPUT);
    assert_int_equal(identity_store_newcomer(fixture.redis, 0, WORKER, on_slot, NULL), ERR_BAD_INPUT);
    look("SET sl:{ident}:%s damaged", good.digest); /* no hash */
    memset(&answer, 0, sizeof(answer));
    assert_int_equal(identity_store_learn(fixture.redis, &good, 1, on_memory, NULL), ERR_NONE);
    turn_until(answer.fired);
    assert_int_equal(answer.error, ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests),
        cmocka_unit_test_setup(a_new_name_inherits, fixture_empty),
        cmocka_unit_test_setup(bad_counts_fade, fixture_empty),
        cmocka_unit_test_setup(bans_are_listed_and_lifted, fixture_empty),
        cmocka_unit_test_setup(a_block_brings_only_so_many, fixture_empty),
        cmocka_unit_test_setup(nonsense, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
