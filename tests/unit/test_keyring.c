#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/redis_child.h"
#include "gateway/keyring.h"
#include "gateway/keyring_store.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct api_key *key_of(const char *secret, int32_t rpm, int32_t max_concurrency)
{
    struct api_key fields = {.rpm = rpm, .max_concurrency = max_concurrency};
    id_new("key_", fields.id);
    crypto_sha256(str_of(secret), fields.sha256);
    struct api_key *key = api_key_new(&fields);
    assert_non_null(key);
    return key;
}

static void test_find(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    struct api_key *keys[COUNT];
    char secrets[COUNT][SECRET_TEXT_MAX], unknown[SECRET_TEXT_MAX];
    for (size_t i = 0; i < COUNT; i++) {
        crypto_secret("sk-", secrets[i]);
        keys[i] = key_of(secrets[i], 0, 0);
    }
    struct keyring *keyring = keyring_new(keys, COUNT);
    assert_int_equal(keyring_count(keyring), COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_ptr_equal(keyring_find(keyring, str_of(secrets[i])), keys[i]);
        crypto_secret("sk-", unknown);
        assert_null(keyring_find(keyring, str_of(unknown)));
    }
    assert_null(keyring_find(keyring, STR("")));
    assert_null(keyring_find(keyring, (struct str){NULL, 0}));
    char longest[4096];
    memset(longest, 'a', sizeof(longest));
    assert_null(keyring_find(keyring, (struct str){longest, sizeof(longest)}));
    keyring_unref(keyring_ref(keyring));
    for (size_t i = 0; i < COUNT; i++)
        api_key_unref(keys[i]);
    assert_non_null(keyring_find(keyring, str_of(secrets[7]))); /* the keyring has references of its own */
    keyring_unref(keyring);
    keyring = keyring_new(NULL, 0);
    assert_null(keyring_find(keyring, STR("sk-x")));
    keyring_unref(keyring);
}

static void test_models(void **state)
{
    (void)state;
    struct str models[] = {STR("a"), STR("model-b")};
    struct api_key fields = {.models = models, .model_count = 2, .has_models = true};
    struct api_key *some = api_key_new(&fields);
    fields.model_count = 0;
    struct api_key *none = api_key_new(&fields);
    fields.has_models = false;
    struct api_key *all = api_key_new(&fields);
    assert_true(api_key_allows_model(some, STR("a")));
    assert_true(api_key_allows_model(some, STR("model-b")));
    assert_false(api_key_allows_model(some, STR("model")));
    assert_false(api_key_allows_model(none, STR("a")));
    assert_true(api_key_allows_model(all, STR("a")));
    api_key_unref(some);
    api_key_unref(none);
    api_key_unref(all);
}

static void test_rate_is_exact(void **state)
{
    (void)state;
    struct api_key *key = key_of("sk-rate", 5, 0);
    int64_t start = 7 * NS_PER_S, retry = 0, left = 0, reset = 0;
    for (int i = 0; i < 5; i++) {
        assert_true(key_rate_take(key, start + i * NS_PER_S, &retry, &left, &reset));
        assert_int_equal(left, 4 - i);
        assert_in_range(reset, 1, 60000);
    }
    assert_false(key_rate_take(key, start + 5 * NS_PER_S, &retry, &left, &reset));
    assert_int_equal(retry, 55000);
    assert_int_equal(left, 0);
    assert_int_equal(reset, 59000);
    assert_false(key_rate_take(key, start + 60 * NS_PER_S - NS_PER_MS, &retry, &left, &reset));
    assert_int_equal(retry, 1);
    /* The first has left the window, the second has not: one call, no more. */
    assert_true(key_rate_take(key, start + 60 * NS_PER_S, &retry, &left, &reset));
    assert_false(key_rate_take(key, start + 60 * NS_PER_S, &retry, &left, &reset));
    assert_int_equal(retry, 1000);
    /* After a quiet minute all are there again, and laps of the ring do not matter. */
    for (int64_t lap = 2; lap < 50; lap++) {
        for (int i = 0; i < 5; i++) {
            assert_true(key_rate_take(key, start + lap * 60 * NS_PER_S, &retry, &left, &reset));
            assert_int_equal(left, 4 - i);
        }
        assert_false(key_rate_take(key, start + lap * 60 * NS_PER_S, &retry, &left, &reset));
        assert_int_equal(retry, 60000);
    }
    api_key_unref(key);
    key = key_of("sk-free", 0, 0);
    assert_true(key_rate_take(key, start, &retry, &left, &reset));
    assert_int_equal(left, -1);
    api_key_unref(key);
}

struct taker {
    const struct api_key *key;
    int takes, taken;
};

static void *take_many(void *arg)
{
    struct taker *taker = arg;
    int64_t retry, left, reset;
    for (int i = 0; i < taker->takes; i++)
        taker->taken += key_rate_take(taker->key, NS_PER_S, &retry, &left, &reset);
    return NULL;
}

static void test_rate_is_exact_over_threads(void **state)
{
    (void)state;
    enum { THREADS = 4, RPM = 1000 };
    struct api_key *key = key_of("sk-many", RPM, 0);
    struct taker takers[THREADS];
    pthread_t threads[THREADS];
    int taken = 0;
    for (int i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){key, RPM, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, &takers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        taken += takers[i].taken;
    }
    assert_int_equal(taken, RPM);
    api_key_unref(key);
}

static void test_concurrency(void **state)
{
    (void)state;
    struct api_key *key = key_of("sk-two", 0, 2);
    assert_true(key_concurrency_enter(key));
    assert_true(key_concurrency_enter(key));
    assert_false(key_concurrency_enter(key));
    key_concurrency_leave(key->limits);
    assert_true(key_concurrency_enter(key));
    struct key_limits *limits = key->limits;
    api_key_unref(key); /* revoked while two calls run */
    key_concurrency_leave(limits);
    key_concurrency_leave(limits);
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {{0, "0ms"},         {12, "12ms"},        {999, "999ms"},  {1000, "1s"},
                 {1500, "1.5s"},     {59999, "59.999s"},  {60000, "1m0s"}, {360000, "6m0s"},
                 {61050, "1m1.05s"}, {3600000, "1h0m0s"}, {-5, "0ms"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[DURATION_TEXT_MAX];
        ratelimit_duration_text(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* -- the store, on a real Redis -- */

struct fixture {
    char dir[64], url[160];
    struct redis_child *child;
    struct loop *loop;
    struct redis *redis;
    struct keyring_store *store;
    struct keyring *keyring;
    int fired;
    enum error error;
    json_t *json;
    bool is_new;
};

static void on_put(void *ctx, enum error error, json_t *take_object, bool is_new)
{
    struct fixture *fixture = ctx;
    fixture->fired++;
    fixture->error = error;
    json_decref(fixture->json);
    fixture->json = take_object;
    fixture->is_new = is_new;
}

static void on_list(void *ctx, enum error error, json_t *take_array)
{
    on_put(ctx, error, take_array, false);
}

static void on_done(void *ctx, enum error error)
{
    on_put(ctx, error, NULL, false);
}

static void on_keyring(void *ctx, struct keyring *keyring)
{
    struct fixture *fixture = ctx;
    keyring_unref(fixture->keyring);
    fixture->keyring = keyring;
}

static enum error answered(struct fixture *fixture, enum error started)
{
    assert_int_equal(started, ERR_NONE);
    int64_t give_up = clock_mono_ns() + 20 * NS_PER_S;
    while (!fixture->fired && clock_mono_ns() < give_up)
        loop_turn(fixture->loop, 50 * NS_PER_MS);
    assert_int_equal(fixture->fired, 1);
    fixture->fired = 0;
    return fixture->error;
}

static const struct api_key *awaited(struct fixture *fixture, const char *secret, bool is_there)
{
    const struct api_key *key;
    int64_t give_up = clock_mono_ns() + 20 * NS_PER_S;
    do {
        loop_turn(fixture->loop, 50 * NS_PER_MS);
        key = fixture->keyring ? keyring_find(fixture->keyring, str_of(secret)) : NULL;
    } while ((!fixture->keyring || !key == is_there) && clock_mono_ns() < give_up);
    assert_non_null(fixture->keyring);
    assert_int_equal(key != NULL, is_there);
    return key;
}

static json_t *key_json(const char *id, const char *tenant, const char *secret)
{
    char digest[SHA256_HEX];
    crypto_sha256_hex(str_of(secret), digest);
    json_t *json = json_pack("{s:s, s:s, s:s, s:[s], s:i, s:i, s:s, s:s, s:s}", "id", id, "tenant", tenant, "name",
                             "first", "models", "m", "rpm", 7, "max_concurrency", 3, "budget_usd", "1.5",
                             "budget_period", "day", "sha256", digest);
    assert_non_null(json);
    return json;
}

static void put_tenant(struct fixture *fixture, const char *id, bool is_new)
{
    json_t *json = json_pack("{s:s, s:s}", "id", id, "name", "n");
    assert_int_equal(answered(fixture, keyring_put_tenant(fixture->redis, json, on_put, fixture)), ERR_NONE);
    assert_int_equal(fixture->is_new, is_new);
    assert_true(json_equal(fixture->json, json));
    json_decref(json);
}

static enum error put_key(struct fixture *fixture, const char *id, const char *tenant, const char *secret)
{
    json_t *json = key_json(id, tenant, secret);
    enum error error = answered(fixture, keyring_put_key(fixture->redis, json, on_put, fixture));
    json_decref(json);
    return error;
}

static void test_store(void **state)
{
    struct fixture *fixture = *state;
    struct redis *redis = fixture->redis;
    assert_int_equal(put_key(fixture, "key_1", "ten_1", "sk-one"), ERR_NOT_FOUND);
    put_tenant(fixture, "ten_1", true);
    put_tenant(fixture, "ten_1", false);
    assert_int_equal(put_key(fixture, "key_1", "ten_1", "sk-one"), ERR_NONE);
    assert_true(fixture->is_new);
    assert_null(json_object_get(fixture->json, "sha256"));
    assert_int_equal(put_key(fixture, "key_1", "ten_1", "sk-another"), ERR_NONE); /* the first one stays */
    assert_false(fixture->is_new);

    assert_int_equal(keyring_store_open(fixture->loop, redis, on_keyring, fixture, &fixture->store), ERR_NONE);
    const struct api_key *key = awaited(fixture, "sk-one", true);
    assert_null(keyring_find(fixture->keyring, STR("sk-another")));
    assert_string_equal(key->id, "key_1");
    assert_string_equal(key->tenant, "ten_1");
    assert_int_equal(key->rpm, 7);
    assert_int_equal(key->max_concurrency, 3);
    assert_true(api_key_allows_model(key, STR("m")) && !api_key_allows_model(key, STR("n")));
    assert_non_null(key->budget);
    struct key_limits *limits = key->limits;
    struct credit *balance = key->balance;

    /* A second key of the tenant shares its balance; the first keeps its counters over the change. */
    assert_int_equal(put_key(fixture, "key_2", "ten_1", "sk-two"), ERR_NONE);
    assert_ptr_equal(awaited(fixture, "sk-two", true)->balance, balance);
    assert_ptr_equal(keyring_find(fixture->keyring, STR("sk-one"))->limits, limits);

    assert_int_equal(answered(fixture, keyring_list_keys(redis, on_list, fixture)), ERR_NONE);
    assert_int_equal(json_array_size(fixture->json), 2);
    assert_null(json_object_get(json_array_get(fixture->json, 0), "sha256"));
    assert_int_equal(answered(fixture, keyring_has_tenant(redis, STR("ten_1"), on_done, fixture)), ERR_NONE);
    assert_int_equal(answered(fixture, keyring_has_tenant(redis, STR("ten_2"), on_done, fixture)), ERR_NOT_FOUND);

    assert_int_equal(answered(fixture, keyring_delete_key(redis, STR("key_1"), on_done, fixture)), ERR_NONE);
    assert_int_equal(answered(fixture, keyring_delete_key(redis, STR("key_1"), on_done, fixture)), ERR_NONE);
    assert_int_equal(answered(fixture, keyring_delete_key(redis, STR("key_9"), on_done, fixture)), ERR_NOT_FOUND);
    awaited(fixture, "sk-one", false);
    assert_non_null(keyring_find(fixture->keyring, STR("sk-two")));
    assert_int_equal(put_key(fixture, "key_1", "ten_1", "sk-one"), ERR_MISMATCH); /* no way back */

    /* The store was lost: what is no longer there is refused. */
    assert_int_equal(redis_commandf(redis, NULL, NULL, "FLUSHALL"), ERR_NONE);
    awaited(fixture, "sk-two", false);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    *state = fixture;
    signal(SIGPIPE, SIG_IGN);
    snprintf(fixture->dir, sizeof(fixture->dir), "/tmp/sluice-keyring-XXXXXX");
    if (!mkdtemp(fixture->dir) || loop_open(&fixture->loop) != ERR_NONE ||
        redis_child_start(fixture->dir, false, &fixture->child, fixture->url, sizeof(fixture->url)) != ERR_NONE)
        return -1;
    return (int)redis_open(fixture->loop, &(struct redis_options){.url = fixture->url}, &fixture->redis);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    keyring_store_free(fixture->store);
    redis_free(fixture->redis);
    keyring_unref(fixture->keyring);
    json_decref(fixture->json);
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
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_rate_is_exact),
        cmocka_unit_test(test_rate_is_exact_over_threads),
        cmocka_unit_test(test_concurrency),
        cmocka_unit_test(test_durations),
        cmocka_unit_test_setup_teardown(test_store, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
