#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/redis_child.h"
#include "gateway/idempotency.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    char dir[64], url[160];
    struct redis_child *child;
    struct loop *loop;
    struct redis *redis;
};

struct outcome {
    int fired;
    enum error error;
    struct id seed;
    int status;
    char answer[128];
};

static void on_claimed(void *ctx, enum error error, const struct id *seed, int status, struct str answer)
{
    struct outcome *outcome = ctx;
    outcome->fired++;
    outcome->error = error;
    outcome->status = status;
    if (seed)
        outcome->seed = *seed;
    (void)str_copy(outcome->answer, sizeof(outcome->answer), answer);
}

static void on_done(void *ctx, enum error error)
{
    struct outcome *outcome = ctx;
    outcome->fired++;
    outcome->error = error;
}

static void until_fired(struct fixture *fixture, struct outcome *outcome)
{
    int64_t give_up = clock_mono_ns() + 20 * NS_PER_S;
    while (!outcome->fired && clock_mono_ns() < give_up)
        loop_turn(fixture->loop, 100 * NS_PER_MS);
    assert_int_equal(outcome->fired, 1);
}

static struct outcome claim(struct fixture *fixture, const struct idempotency *what)
{
    struct outcome outcome = {0};
    assert_int_equal(idempotency_claim(fixture->redis, what, on_claimed, &outcome), ERR_NONE);
    until_fired(fixture, &outcome);
    return outcome;
}

static enum error complete(struct fixture *fixture, const struct idempotency *what, const struct id *seed,
                           const char *answer)
{
    struct outcome outcome = {0};
    assert_int_equal(idempotency_complete(fixture->redis, what, seed, 200, str_of(answer), on_done, &outcome),
                     ERR_NONE);
    until_fired(fixture, &outcome);
    return outcome.error;
}

static void release(struct fixture *fixture, const struct idempotency *what, const struct id *seed)
{
    struct outcome outcome = {0};
    assert_int_equal(idempotency_release(fixture->redis, what, seed, on_done, &outcome), ERR_NONE);
    until_fired(fixture, &outcome);
    assert_int_equal(outcome.error, ERR_NONE);
}

static struct idempotency made(const char *caller, const char *path, const char *key, const char *body)
{
    struct idempotency what;
    assert_true(idempotency_make(str_of(caller), STR("POST"), str_of(path), str_of(key), str_of(body),
                                 IDEMPOTENCY_DAY_MS, &what));
    return what;
}

static void test_records_are_apart(void **state)
{
    (void)state;
    struct idempotency first = made("admin", "/a", "k", "body");
    assert_string_equal(made("admin", "/a", "k", "other").record, first.record);
    assert_string_not_equal(made("admin", "/a", "k", "other").body_sha256, first.body_sha256);
    assert_string_not_equal(made("ten_1", "/a", "k", "body").record, first.record);
    assert_string_not_equal(made("admin", "/b", "k", "body").record, first.record);
    assert_string_not_equal(made("admin", "/a", "k2", "body").record, first.record);
}

static void test_key_bounds(void **state)
{
    (void)state;
    char text[IDEMPOTENCY_KEY_MAX + 1];
    memset(text, 'k', sizeof(text));
    struct idempotency what;
    assert_false(idempotency_make(STR("admin"), STR("POST"), STR("/a"), STR(""), STR(""), 1, &what));
    assert_true(idempotency_make(STR("admin"), STR("POST"), STR("/a"), (struct str){text, IDEMPOTENCY_KEY_MAX}, STR(""),
                                 1, &what));
    assert_false(idempotency_make(STR("admin"), STR("POST"), STR("/a"), (struct str){text, IDEMPOTENCY_KEY_MAX + 1},
                                  STR(""), 1, &what));
}

static void test_first_answer_stays(void **state)
{
    struct fixture *fixture = *state;
    struct idempotency what = made("admin", "/a", "first", "body");
    struct outcome one = claim(fixture, &what), two = claim(fixture, &what);
    assert_int_equal(one.error, ERR_NONE);
    assert_int_equal(one.status, 0);
    assert_int_equal(two.status, 0); /* nobody waits for the one that claimed first: it may be dead */
    assert_memory_equal(&one.seed, &two.seed, sizeof(one.seed));
    assert_int_equal(complete(fixture, &what, &one.seed, "{\"n\":1}"), ERR_NONE);
    assert_int_equal(complete(fixture, &what, &one.seed, "{\"n\":2}"), ERR_NONE);
    struct outcome three = claim(fixture, &what);
    assert_int_equal(three.status, 200);
    assert_string_equal(three.answer, "{\"n\":1}");
    assert_memory_equal(&three.seed, &one.seed, sizeof(one.seed));
    struct idempotency other = made("admin", "/a", "first", "another body");
    assert_int_equal(claim(fixture, &other).error, ERR_MISMATCH);
}

static void test_refused_requests_free_their_key(void **state)
{
    struct fixture *fixture = *state;
    struct idempotency what = made("admin", "/a", "refused", "body"), other = made("admin", "/a", "refused", "fixed");
    struct outcome one = claim(fixture, &what);
    release(fixture, &what, &one.seed);
    struct outcome two = claim(fixture, &other);
    assert_int_equal(two.error, ERR_NONE);
    assert_memory_not_equal(&one.seed, &two.seed, sizeof(one.seed));
    /* A late release by the refused one does not take the other's claim, nor an answer. */
    release(fixture, &what, &one.seed);
    assert_int_equal(complete(fixture, &other, &two.seed, "{}"), ERR_NONE);
    release(fixture, &other, &two.seed);
    assert_int_equal(claim(fixture, &other).status, 200);
    assert_int_equal(claim(fixture, &what).error, ERR_MISMATCH);
}

static void test_records_expire(void **state)
{
    struct fixture *fixture = *state;
    struct idempotency what = made("admin", "/a", "short", "body"), other = made("admin", "/a", "short", "new");
    what.keep_ms = 30;
    struct outcome one = claim(fixture, &what), two;
    int64_t give_up = clock_mono_ns() + 20 * NS_PER_S;
    do {
        two = claim(fixture, &other);
    } while (two.error == ERR_MISMATCH && clock_mono_ns() < give_up);
    assert_int_equal(two.error, ERR_NONE);
    assert_memory_not_equal(&one.seed, &two.seed, sizeof(one.seed));
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    *state = fixture;
    signal(SIGPIPE, SIG_IGN);
    snprintf(fixture->dir, sizeof(fixture->dir), "/tmp/sluice-idempotency-XXXXXX");
    if (!mkdtemp(fixture->dir) || loop_open(&fixture->loop) != ERR_NONE ||
        redis_child_start(fixture->dir, false, &fixture->child, fixture->url, sizeof(fixture->url)) != ERR_NONE)
        return -1;
    return (int)redis_open(fixture->loop, &(struct redis_options){.url = fixture->url}, &fixture->redis);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    redis_free(fixture->redis);
    loop_free(fixture->loop);
    redis_child_stop(fixture->child);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", fixture->dir);
    int rc = system(command);
    free(fixture);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_are_apart),  cmocka_unit_test(test_key_bounds),
        cmocka_unit_test(test_first_answer_stays), cmocka_unit_test(test_refused_requests_free_their_key),
        cmocka_unit_test(test_records_expire),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
