#include "tests/unit/redis_fixture.h"

#include "scheduler/lease_open.h"
#include "scheduler/lease_store.h"

#define MANY 40
#define OWNERS 3
#define ROUNDS 1500

static uint64_t seed;

static uint64_t below(uint64_t limit)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = (seed ^ (seed >> 31)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (x ^ (x >> 29)) % limit;
}

/* What came of one question. */
struct answer {
    int ends;
    enum error error;
    struct lease *leases[MANY + 1];
    size_t count;
    char text[16];
};

static void on_stored(void *ctx, enum error error)
{
    struct answer *answer = ctx;
    answer->ends++;
    answer->error = error;
}

static void on_one(void *ctx, enum error error, struct lease *take)
{
    struct answer *answer = ctx;
    on_stored(ctx, error);
    assert_true((error == ERR_NONE) == (take != NULL));
    if (take)
        answer->leases[answer->count++] = take;
}

static void on_many(void *ctx, enum error error, struct lease *take)
{
    struct answer *answer = ctx;
    if (!take) {
        on_stored(ctx, error);
    } else {
        assert_int_equal(error, ERR_NONE);
        assert_true(answer->count < MANY + 1);
        answer->leases[answer->count++] = take;
    }
}

static void answer_free(struct answer *answer)
{
    while (answer->count > 0)
        lease_free(answer->leases[--answer->count]);
}

static struct lease *lease_of(const char *tenant)
{
    struct lease *lease = lease_new();
    assert_non_null(lease);
    id_new(LEASE_ID_PREFIX, lease->id);
    snprintf(lease->tenant, sizeof(lease->tenant), "%s", tenant);
    snprintf(lease->installation, sizeof(lease->installation), "0a1b2c");
    lease->created_at_ms = lease->due_ms = clock_wall_ms() - 1;
    return lease;
}

static enum error create(const struct lease *lease)
{
    struct answer answer = {.ends = 0};
    assert_int_equal(lease_store_create(fixture.redis, lease, on_stored, &answer), ERR_NONE);
    turn_until(answer.ends);
    return answer.error;
}

static struct lease *create_new(const char *tenant)
{
    struct lease *lease = lease_of(tenant);
    assert_int_equal(create(lease), ERR_NONE);
    return lease;
}

static enum error save(struct lease *lease, bool is_claimed)
{
    struct answer answer = {.ends = 0};
    assert_int_equal(lease_store_save(fixture.redis, lease, is_claimed, on_stored, &answer), ERR_NONE);
    turn_until(answer.ends);
    return answer.error;
}

static enum error keep(const struct lease *lease)
{
    struct answer answer = {.ends = 0};
    assert_int_equal(lease_store_keep(fixture.redis, lease, on_stored, &answer), ERR_NONE);
    turn_until(answer.ends);
    return answer.error;
}

static struct lease *get(const char *id, enum error expect)
{
    struct answer answer = {.ends = 0};
    assert_int_equal(lease_store_get(fixture.redis, str_of(id), on_one, &answer), ERR_NONE);
    turn_until(answer.ends);
    assert_int_equal(answer.error, expect);
    return answer.leases[0];
}

static enum error stop(const char *id, struct str tenant)
{
    struct answer answer = {.ends = 0};
    assert_int_equal(lease_store_stop(fixture.redis, str_of(id), tenant, on_one, &answer), ERR_NONE);
    turn_until(answer.ends);
    answer_free(&answer);
    return answer.error;
}

/* All that is due, of all shards. */
static void claim_all(size_t most, struct answer *ret)
{
    *ret = (struct answer){.ends = 0};
    for (unsigned shard = 0; shard < LEASE_SHARDS; shard++)
        assert_int_equal(lease_store_claim(fixture.redis, shard, most, on_many, ret), ERR_NONE);
    turn_until(ret->ends == LEASE_SHARDS);
    assert_int_equal(ret->error, ERR_NONE);
}

static struct lease *claim_one(void)
{
    struct answer answer;
    claim_all(MANY, &answer);
    assert_int_equal(answer.count, 1);
    return answer.leases[0];
}

static bool nothing_is_due(void)
{
    struct answer answer;
    claim_all(MANY, &answer);
    bool is_none = answer.count == 0;
    answer_free(&answer);
    return is_none;
}

/* The shard of the lease, as its hash tells. */
static unsigned shard_of(const char *id)
{
    for (unsigned shard = 0; shard < LEASE_SHARDS; shard++) {
        if (strcmp(look("EXISTS sl:{lse:%u}:l:%s", shard, id), "1") == 0)
            return shard;
    }
    fail_msg("no shard has %s", id);
    return 0;
}

static long long due_of(const char *id)
{
    return strtoll(look("ZSCORE sl:{lse:%u}:due %s", shard_of(id), id), NULL, 10);
}

static const char *field_of(const char *id, const char *field)
{
    return look("HGET sl:{lse:%u}:l:%s %s", shard_of(id), id, field);
}

/* The claim has run out. */
static void expire(const char *id)
{
    unsigned shard = shard_of(id);
    look("HSET sl:{lse:%u}:l:%s until 1", shard, id);
    look("ZADD sl:{lse:%u}:due 1 %s", shard, id);
}

static void created_once(void **state)
{
    (void)state;
    struct lease *lease = create_new("ten_a"), *read = get(lease->id, ERR_NONE);
    assert_string_equal(read->tenant, "ten_a");
    assert_int_equal(read->state, LEASE_REQUESTED);
    assert_true(read->version == 1 && read->token == 0);
    lease_free(read);
    snprintf(lease->reason, sizeof(lease->reason), "another");
    assert_int_equal(create(lease), ERR_NONE);
    read = get(lease->id, ERR_NONE);
    assert_string_equal(read->reason, "");
    lease_free(read);
    assert_null(get("lse_01jd5v7q2m3n4p5r6s7t8v9wxy", ERR_NOT_FOUND));
    assert_int_equal(lease_store_get(fixture.redis, STR("wrk_1"), on_one, NULL), ERR_NOT_FOUND);
    assert_string_equal(look("XLEN sl:{lse:%u}:events", shard_of(lease->id)), "1");
    assert_string_equal(look("XLEN sl:feed"), "1");
    lease_free(lease);
}

static void on_counted(void *ctx, enum error error, size_t count)
{
    struct answer *answer = ctx;
    answer->count = count;
    on_stored(ctx, error);
}

static size_t open_of(const char *tenant)
{
    struct answer answer = {.ends = 0};
    assert_int_equal(lease_open_count(fixture.redis, str_of(tenant), on_counted, &answer), ERR_NONE);
    turn_until(answer.ends);
    assert_int_equal(answer.error, ERR_NONE);
    return answer.count;
}

/* Open until it is over and cleared: while its machine is being ended it counts. */
static void open_ones_are_counted(void **state)
{
    struct answer answer;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        struct lease *made = create_new(i % 2 ? "ten_a" : "ten_b");
        assert_int_equal(create(made), ERR_NONE);
        lease_free(made);
    }
    assert_int_equal(open_of("ten_a"), MANY / 2);
    assert_int_equal(open_of("ten_c"), 0);
    claim_all(MANY, &answer);
    assert_int_equal(answer.count, MANY);
    for (size_t i = 0; i < answer.count; i++) {
        answer.leases[i]->state = LEASE_ENDED;
        assert_int_equal(save(answer.leases[i], true), ERR_NONE);
    }
    assert_int_equal(open_of("ten_a"), MANY / 2);
    for (size_t i = 0; i < answer.count; i++) {
        answer.leases[i]->due_ms = 0;
        assert_int_equal(save(answer.leases[i], false), ERR_NONE);
    }
    assert_int_equal(open_of("ten_a") + open_of("ten_b"), 0);
    answer_free(&answer);
}

static void one_owner(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *first = claim_one();
    assert_true(nothing_is_due());
    assert_true(first->token > 0 && first->version == 1);
    assert_true(due_of(made->id) > clock_wall_ms() + LEASE_CLAIM_MS / 2);
    first->state = LEASE_STOPPING;
    assert_int_equal(save(first, true), ERR_NONE);
    assert_true(first->version == 2);
    assert_int_equal(save(first, true), ERR_NONE);
    assert_int_equal(keep(first), ERR_NONE);
    assert_string_equal(look("XLEN sl:{lse:%u}:events", shard_of(made->id)), "2");
    assert_string_equal(field_of(made->id, "state"), "stopping");
    first->due_ms = clock_wall_ms() + 3600000;
    assert_int_equal(save(first, false), ERR_NONE);
    assert_true(due_of(made->id) == first->due_ms);
    assert_true(nothing_is_due());
    assert_int_equal(keep(first), ERR_MISMATCH); /* it was let go */
    assert_true(due_of(made->id) == first->due_ms);
    lease_free(first);
    lease_free(made);
}

/* Paused until its claim ran out, the first owner changes nothing any more. */
static void paused_owner(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *paused = claim_one();
    expire(made->id);
    struct lease *owner = claim_one();
    assert_true(owner->token > paused->token);
    snprintf(paused->reason, sizeof(paused->reason), "late");
    assert_int_equal(save(paused, false), ERR_MISMATCH);
    assert_int_equal(keep(paused), ERR_MISMATCH);
    assert_true(paused->version == 1);
    snprintf(owner->reason, sizeof(owner->reason), "mine");
    assert_int_equal(save(owner, true), ERR_NONE);
    assert_int_equal(save(paused, false), ERR_MISMATCH);
    struct lease *read = get(made->id, ERR_NONE);
    assert_string_equal(read->reason, "mine");
    lease_free(read);
    lease_free(owner);
    lease_free(paused);
    lease_free(made);
}

/* The answer of a save was lost: it is sent again, and is one save. */
static void saved_twice(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *owner = claim_one();
    snprintf(owner->reason, sizeof(owner->reason), "a");
    assert_int_equal(save(owner, true), ERR_NONE);
    owner->version--;
    assert_int_equal(save(owner, true), ERR_NONE);
    assert_string_equal(field_of(made->id, "version"), "2");
    owner->version--;
    snprintf(owner->reason, sizeof(owner->reason), "b");
    assert_int_equal(save(owner, true), ERR_MISMATCH);
    lease_free(owner);
    lease_free(made);
}

static void stopped(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *owner = claim_one();
    assert_int_equal(stop(made->id, STR("ten_b")), ERR_NOT_FOUND);
    assert_string_equal(field_of(made->id, "stop"), "");
    assert_int_equal(stop(made->id, STR("ten_a")), ERR_NONE);
    assert_true(nothing_is_due()); /* its owner has it */
    /* The owner would wait for an hour: it sees the stop, and the lease is due at once. */
    owner->due_ms = clock_wall_ms() + 3600000;
    assert_int_equal(save(owner, false), ERR_NONE);
    int64_t stop_ms = owner->stop_asked_ms;
    assert_true(stop_ms > 0);
    lease_free(owner);
    owner = claim_one();
    assert_true(owner->stop_asked_ms == stop_ms);
    owner->due_ms = clock_wall_ms() + 3600000;
    assert_int_equal(save(owner, false), ERR_NONE); /* now it knows, and may wait */
    assert_true(nothing_is_due());
    assert_int_equal(stop(made->id, (struct str){NULL, 0}), ERR_NONE); /* again, by the operator */
    assert_true(strtoll(field_of(made->id, "stop"), NULL, 10) == stop_ms);
    lease_free(owner);
    lease_free(made);
    /* Nobody has it, and it waits: a stop makes it due. */
    made = create_new("ten_a");
    owner = claim_one();
    owner->due_ms = clock_wall_ms() + 3600000;
    assert_int_equal(save(owner, false), ERR_NONE);
    assert_int_equal(stop(made->id, STR("ten_a")), ERR_NONE);
    lease_free(owner);
    owner = claim_one();
    assert_true(owner->stop_asked_ms > 0);
    lease_free(owner);
    lease_free(made);
}

static void over(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *owner = claim_one();
    owner->state = LEASE_ENDED;
    owner->due_ms = 0;
    assert_int_equal(save(owner, false), ERR_NONE);
    assert_string_equal(look("ZCARD sl:{lse:%u}:due", shard_of(made->id)), "0");
    assert_true(strtoll(look("TTL sl:{lse:%u}:l:%s", shard_of(made->id), made->id), NULL, 10) > 80 * 24 * 3600);
    assert_int_equal(stop(made->id, STR("ten_a")), ERR_NONE);
    assert_string_equal(field_of(made->id, "stop"), "");
    assert_true(nothing_is_due());
    lease_free(owner);
    lease_free(made);
}

static void damaged(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *sound = create_new("ten_a");
    look("HSET sl:{lse:%u}:l:%s record {}", shard_of(made->id), made->id);
    struct lease *owner = claim_one();
    assert_string_equal(owner->id, sound->id);
    turn_until(due_of(made->id) > clock_wall_ms() + 3000000); /* put off, not dropped */
    assert_null(get(made->id, ERR_BAD_INPUT));
    lease_free(owner);
    lease_free(sound);
    lease_free(made);
}

static void list(struct str tenant, struct str before, size_t most, struct answer *ret)
{
    *ret = (struct answer){.ends = 0};
    assert_int_equal(lease_store_list(fixture.redis, tenant, before, most, on_many, ret), ERR_NONE);
    turn_until(ret->ends);
    assert_int_equal(ret->error, ERR_NONE);
}

static void listed(void **state)
{
    (void)state;
    const struct str all = {NULL, 0}, newest = {NULL, 0};
    struct lease *leases[MANY];
    struct answer answer;
    for (size_t i = 0; i < MANY; i++)
        leases[i] = create_new(i % 4 ? "ten_a" : "ten_b");
    list(all, newest, MANY, &answer);
    assert_int_equal(answer.count, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_string_equal(answer.leases[i]->id, leases[MANY - 1 - i]->id);
    answer_free(&answer);
    list(STR("ten_b"), newest, 3, &answer);
    assert_int_equal(answer.count, 3);
    assert_string_equal(answer.leases[0]->id, leases[MANY - 4]->id);
    char before[ID_TEXT_MAX];
    snprintf(before, sizeof(before), "%s", answer.leases[2]->id);
    answer_free(&answer);
    list(STR("ten_b"), str_of(before), MANY, &answer);
    assert_int_equal(answer.count, MANY / 4 - 3);
    assert_string_equal(answer.leases[0]->id, leases[MANY - 16]->id);
    answer_free(&answer);
    list(STR("ten_c"), newest, MANY, &answer);
    assert_int_equal(answer.count, 0);
    /* One whose time is over leaves the index. */
    unsigned shard = shard_of(leases[4]->id);
    look("DEL sl:{lse:%u}:l:%s", shard, leases[4]->id);
    list(STR("ten_b"), newest, MANY, &answer);
    assert_int_equal(answer.count, MANY / 4 - 1);
    answer_free(&answer);
    turn_until(!*look("ZSCORE sl:{lse:%u}:ten:ten_b %s", shard, leases[4]->id));
    for (size_t i = 0; i < MANY; i++)
        lease_free(leases[i]);
}

/* Each lease that is due goes to one of those who ask at the same time. */
static void two_claimants(void **state)
{
    (void)state;
    struct answer one = {.ends = 0}, other = {.ends = 0};
    for (size_t i = 0; i < MANY; i++)
        lease_free(create_new("ten_a"));
    for (unsigned shard = 0; shard < LEASE_SHARDS; shard++) {
        assert_int_equal(lease_store_claim(fixture.redis, shard, MANY, on_many, &one), ERR_NONE);
        assert_int_equal(lease_store_claim(fixture.redis, shard, MANY, on_many, &other), ERR_NONE);
    }
    turn_until(one.ends == LEASE_SHARDS && other.ends == LEASE_SHARDS);
    assert_int_equal(one.count + other.count, MANY);
    for (size_t i = 0; i < one.count; i++) {
        for (size_t k = 0; k < other.count; k++)
            assert_string_not_equal(one.leases[i]->id, other.leases[k]->id);
    }
    answer_free(&one);
    answer_free(&other);
}

static void on_installation(void *ctx, enum error error, struct str installation)
{
    struct answer *answer = ctx;
    on_stored(ctx, error);
    assert_true(str_copy(answer->text, sizeof(answer->text), installation));
}

static void installed(void **state)
{
    (void)state;
    struct answer first = {.ends = 0}, second = {.ends = 0};
    char tag[SUPPLY_TAG_MAX];
    assert_int_equal(lease_store_installation(fixture.redis, on_installation, &first), ERR_NONE);
    assert_int_equal(lease_store_installation(fixture.redis, on_installation, &second), ERR_NONE);
    turn_until(first.ends && second.ends);
    assert_int_equal(first.error, ERR_NONE);
    assert_string_equal(first.text, second.text);
    assert_true(supply_tag_make(str_of(first.text), STR("lse_01jd5v7q2m3n4p5r6s7t8v9wxy"), 1, tag));
}

/* Owners that claim, save, renew, forget and come back late in any order, and tenants that stop: every save that
 * succeeded stands on the one before it, so none is lost, and a stop is never forgotten. */
static void interleavings(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a"), *held[OWNERS] = {NULL};
    unsigned long saved = 0, refused = 0;
    bool is_stopped = false;
    seed = 7;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct lease **mine = &held[below(OWNERS)];
        struct answer answer;
        switch (below(6)) {
        case 0:
            expire(made->id);
            break;
        case 1:
            claim_all(1, &answer);
            if (answer.count == 1) {
                assert_int_equal(answer.leases[0]->captures, saved);
                lease_free(*mine);
                *mine = answer.leases[0];
            }
            break;
        case 2:
            if (*mine && keep(*mine) == ERR_MISMATCH)
                refused++;
            break;
        case 3:
            if (!is_stopped && round > ROUNDS / 2) {
                is_stopped = true;
                assert_int_equal(stop(made->id, STR("ten_a")), ERR_NONE);
            }
            break;
        default:
            if (!*mine)
                break;
            (*mine)->captures++;
            (*mine)->due_ms = clock_wall_ms() - 1;
            if (save(*mine, below(3)) == ERR_NONE) {
                saved++;
                assert_int_equal((*mine)->captures, saved);
                assert_true(((*mine)->stop_asked_ms > 0) == is_stopped);
            } else {
                refused++;
                *mine = lease_free(*mine);
            }
            break;
        }
    }
    assert_true(saved > 100 && refused > 50 && is_stopped);
    struct lease *read = get(made->id, ERR_NONE);
    assert_int_equal(read->captures, saved);
    assert_true(read->stop_asked_ms > 0);
    lease_free(read);
    for (size_t i = 0; i < OWNERS; i++)
        lease_free(held[i]);
    lease_free(made);
}

static void without_redis(void **state)
{
    (void)state;
    struct lease *made = create_new("ten_a");
    struct answer stored = {.ends = 0}, many = {.ends = 0}, listing = {.ends = 0};
    assert_int_equal(lease_store_keep(fixture.redis, made, on_stored, &stored), ERR_NONE);
    assert_int_equal(lease_store_claim(fixture.redis, 0, 8, on_many, &many), ERR_NONE);
    assert_int_equal(lease_store_list(fixture.redis, STR("ten_a"), (struct str){NULL, 0}, 8, on_many, &listing),
                     ERR_NONE);
    struct redis_options options = {.url = fixture.url};
    fixture.redis = redis_free(fixture.redis);
    assert_true(stored.ends == 1 && many.ends == 1 && listing.ends == 1);
    assert_true(stored.error == ERR_CANCELLED && many.error == ERR_CANCELLED && listing.error == ERR_CANCELLED);
    assert_int_equal(redis_open(fixture.loop, &options, &fixture.redis), ERR_NONE);
    lease_free(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(created_once, fixture_empty),
        cmocka_unit_test_setup(one_owner, fixture_empty),
        cmocka_unit_test_setup(open_ones_are_counted, fixture_empty),
        cmocka_unit_test_setup(paused_owner, fixture_empty),
        cmocka_unit_test_setup(saved_twice, fixture_empty),
        cmocka_unit_test_setup(stopped, fixture_empty),
        cmocka_unit_test_setup(over, fixture_empty),
        cmocka_unit_test_setup(damaged, fixture_empty),
        cmocka_unit_test_setup(listed, fixture_empty),
        cmocka_unit_test_setup(two_claimants, fixture_empty),
        cmocka_unit_test_setup(installed, fixture_empty),
        cmocka_unit_test_setup(interleavings, fixture_empty),
        cmocka_unit_test_setup(without_redis, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
