#include "tests/unit/cmocka_all.h"

#include "scheduler/lease_record.h"

#include <string.h>

#define ID "lse_01jd5v7q2m3n4p5r6s7t8v9wxy"
#define NOW INT64_C(1764000000000)

static struct lease *sample(void)
{
    struct lease *lease = lease_new();
    assert_non_null(lease);
    snprintf(lease->id, sizeof(lease->id), ID);
    snprintf(lease->tenant, sizeof(lease->tenant), "ten_1");
    snprintf(lease->key_id, sizeof(lease->key_id), "key_1");
    snprintf(lease->installation, sizeof(lease->installation), "0a1b2c");
    snprintf(lease->budget_period, sizeof(lease->budget_period), "month");
    lease->budget_usd_nano = 7;
    lease->state = LEASE_ACTIVE;
    snprintf(lease->reason, sizeof(lease->reason), "warned");
    lease->created_at_ms = NOW;
    lease->active_at_ms = lease->since_ms = NOW + 60000;
    lease->seen_ms = NOW + 120000;
    lease->price_usd_nano = 450000000;
    lease->epoch_billed_ms = 30000;
    lease->billed_gpu_ms = 1060000;
    lease->cost_usd_nano = 132500000;
    lease->captures = 2;
    lease->attempts_made = 34;
    lease->token = UINT64_C(9007199254740993);
    lease->version = 12;
    lease->endpoint_count = 1;
    lease->endpoints[0].port = 8000;
    snprintf(lease->endpoints[0].url, sizeof(lease->endpoints[0].url), "http://203.0.113.7:33526");
    const struct lease_request request = {.gpu = STR("nvidia/rtx4090-24"),
                                          .image = STR("ghcr.io/x/y:1"),
                                          .region = STR(""),
                                          .gpus = 2,
                                          .argv = {STR("sh"), STR("-c"), STR("echo \"\xc3\xa4\"\n")},
                                          .argc = 3,
                                          .env = {{STR("TOKEN"), STR("secret")}, {STR("EMPTY"), STR("")}},
                                          .env_count = 2,
                                          .ports = {8000, 65535},
                                          .port_count = 2,
                                          .price_max_usd_nano = -1,
                                          .price_quoted_usd_nano = 5,
                                          .interruptible = 1,
                                          .retry_until_up = true,
                                          .max_duration_s = 3600};
    assert_true(lease_request_copy(lease, &request));
    lease->attempt_count = 2;
    lease->attempts[0] = (struct lease_attempt){
        .number = 33,
        .state = ATTEMPT_ENDING,
        .of = {.network = "vast-main", .offer = "42", .shown_offer = "off_vast.0", .price_usd_nano = 400000000},
        .instance = "i-1",
        .error = SUPPLY_PROBE_FAILED,
        .message = "sold 8, proven 4",
        .at_ms = NOW,
        .tries = 3};
    lease->attempts[1] = (struct lease_attempt){.number = 34,
                                                .state = ATTEMPT_UP,
                                                .of = {.network = "runpod",
                                                       .shown_offer = "off_runpod.1",
                                                       .gpu = "nvidia/rtx4090-24",
                                                       .price_usd_nano = 450000000,
                                                       .interruptible = true},
                                                .door = LEASE_DOOR_PROVEN,
                                                .at_ms = NOW + 1};
    return lease;
}

static struct lease *again(const struct lease *lease)
{
    struct buf text;
    struct lease *read = NULL;
    buf_init(&text, 0);
    assert_true(lease_record_write(lease, &text));
    assert_int_equal(lease_record_read(buf_str(&text), &read), ERR_NONE);
    buf_free(&text);
    return read;
}

static bool is_text(struct str text, const char *expect)
{
    return str_eq(text, str_of(expect));
}

static void both_ways(void **state)
{
    (void)state;
    struct lease *lease = sample(), *read = again(lease);
    const struct lease_request *request = &read->request;
    assert_string_equal(read->id, ID);
    assert_string_equal(read->tenant, "ten_1");
    assert_string_equal(read->budget_period, "month");
    assert_int_equal(read->state, LEASE_ACTIVE);
    assert_true(read->token == lease->token && read->version == 12);
    assert_true(is_text(request->gpu, "nvidia/rtx4090-24") && is_text(request->image, "ghcr.io/x/y:1"));
    assert_true(request->region.ptr && request->region.len == 0); /* empty, */
    assert_null(request->network.ptr);                            /* and absent */
    assert_int_equal(request->argc, 3);
    assert_true(is_text(request->argv[2], "echo \"\xc3\xa4\"\n"));
    assert_int_equal(request->env_count, 2);
    assert_true(is_text(request->env[0].value, "secret") && is_text(request->env[1].value, ""));
    assert_int_equal(request->ports[1], 65535);
    assert_true(request->price_max_usd_nano == -1 && request->interruptible == 1 && request->retry_until_up);
    assert_int_equal(read->attempt_count, 2);
    assert_memory_equal(&read->attempts[0], &lease->attempts[0], sizeof(lease->attempts[0]));
    assert_memory_equal(&read->attempts[1], &lease->attempts[1], sizeof(lease->attempts[1]));
    assert_string_equal(read->endpoints[0].url, "http://203.0.113.7:33526");
    lease_free(read);
    lease_free(lease);
}

/* What is over needs its secrets no more. */
static void forgets_secrets(void **state)
{
    (void)state;
    struct lease *lease = sample();
    lease->state = LEASE_ENDED;
    lease->attempts[0].state = lease->attempts[1].state = ATTEMPT_CLOSED;
    struct lease *read = again(lease);
    assert_int_equal(read->request.env_count, 2);
    assert_true(is_text(read->request.env[0].key, "TOKEN") && is_text(read->request.env[0].value, ""));
    lease_free(read);
    lease_free(lease);
}

/* A network's message may be any bytes; the record stays readable. */
static void odd_bytes(void **state)
{
    (void)state;
    struct lease *lease = sample();
    snprintf(lease->attempts[0].message, sizeof(lease->attempts[0].message), "no\xff\xfe \x01 way");
    struct lease *read = again(lease);
    assert_string_equal(read->attempts[0].message, "no?? \x01 way");
    lease_free(read);
    lease_free(lease);
}

#define FILL(text) (memset(text, 1, sizeof(text) - 1), (text)[sizeof(text) - 1] = '\0')

/* All that a tenant and its networks may say, each byte six in JSON: one that does not fit is never stored again, and
 * what it owns runs on. */
static void the_largest_fits(void **state)
{
    (void)state;
    struct lease *lease = sample(), *read;
    static char command[LEASE_TEXT_MAX - 256];
    FILL(command);
    struct lease_request request = {.gpu = STR("h100"), .image = STR("x"), .gpus = 1, .argc = 1};
    request.argv[0] = str_of(command);
    assert_true(lease_request_copy(lease, &request));
    lease->attempt_count = LEASE_ATTEMPTS_MAX;
    lease->endpoint_count = SUPPLY_PORTS_MAX;
    FILL(lease->reason);
    for (size_t i = 0; i < SUPPLY_PORTS_MAX; i++)
        FILL(lease->endpoints[i].url);
    for (uint32_t i = 0; i < LEASE_ATTEMPTS_MAX; i++) {
        struct lease_attempt *attempt = &lease->attempts[i];
        *attempt = (struct lease_attempt){
            .number = i + 1, .state = ATTEMPT_ENDING, .of = {.gpus = 1, .price_usd_nano = INT64_MAX}, .at_ms = NOW};
        FILL(attempt->message);
        FILL(attempt->tag);
        FILL(attempt->instance);
        FILL(attempt->of.network);
        FILL(attempt->of.offer);
        FILL(attempt->of.shown_offer);
        FILL(attempt->of.gpu);
        FILL(attempt->of.gpu_raw);
        FILL(attempt->of.region);
        FILL(attempt->of.zone);
        FILL(attempt->of.origin);
    }
    lease->attempts[LEASE_ATTEMPTS_MAX - 1].state = ATTEMPT_UP;
    read = again(lease);
    assert_memory_equal(read->attempts, lease->attempts, sizeof(lease->attempts));
    lease_free(read);
    lease_free(lease);
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "[1]",
        "{\"id\":\"" ID "\",\"state\":\"requested\"}",
        "{\"id\":\"lse_1\",\"state\":\"requested\",\"request\":{}}",
        "{\"id\":\"" ID "\",\"state\":\"gone\",\"request\":{}}",
        "{\"id\":\"" ID "\",\"state\":\"active\",\"request\":{}}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{\"gpus\":-1}}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{\"gpus\":\"1\"}}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{\"ports\":[0]}}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{\"argv\":[1]}}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{\"env\":[[\"A\"]]}}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{},\"since_ms\":-5}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{},\"attempts\":[{}]}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{},\"attempts\":[{\"state\":\"up\",\"error\":\"ok\","
        "\"of\":{}}]}",
        "{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{},\"installation\":\"longer than it may be\"}",
    };
    struct lease *lease = NULL;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (lease_record_read(str_of(bad[i]), &lease) != ERR_BAD_INPUT)
            fail_msg("read: %s", bad[i]);
    }
    assert_null(lease);
    const struct str least = STR("{\"id\":\"" ID "\",\"state\":\"requested\",\"request\":{},\"later\":[{}]}");
    assert_int_equal(lease_record_read(least, &lease), ERR_NONE); /* older and newer records */
    assert_int_equal(lease->attempt_count, 0);
    lease_free(lease);
}

static void request_limits(void **state)
{
    (void)state;
    static char long_text[LEASE_TEXT_MAX + 1];
    struct lease *lease = lease_new();
    memset(long_text, 'x', sizeof(long_text));
    struct lease_request request = {.image = {long_text, sizeof(long_text)}};
    assert_false(lease_request_copy(lease, &request));
    assert_null(lease->request.image.ptr);
    request.image.len = LEASE_TEXT_MAX - 1;
    assert_true(lease_request_copy(lease, &request));
    assert_ptr_not_equal(lease->request.image.ptr, long_text);
    assert_true(lease_request_copy(lease, &lease->request)); /* its own */
    assert_int_equal(lease->request.image.len, LEASE_TEXT_MAX - 1);
    request.env_count = LEASE_ENV_MAX + 1;
    assert_false(lease_request_copy(lease, &request));
    lease_free(lease);
}

static void view(void **state)
{
    (void)state;
    struct lease *lease = sample();
    /* 1,060,000 ms are charged; 30 s of wall time more ran, on two GPUs at 0.45 USD. */
    json_t *json = lease_view(lease, NOW + 500000);
    char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    const struct {
        const char *part;
        bool is_there;
    } parts[] = {
        {"\"id\":\"" ID "\"", true},
        {"\"state\":\"active\"", true},
        {"\"reason\":\"warned\"", true},
        {"\"offer\":\"off_runpod.1\"", true},
        {"\"error\":\"probe_failed\"", true},
        {"\"message\":\"sold 8, proven 4\"", true},
        {"\"endpoints\":[{\"port\":8000,\"url\":\"http://203.0.113.7:33526\"}]", true},
        {"\"price_per_gpu_hour_usd\":\"0.45\"", true},
        {"\"billed_ms\":1120000", true},
        {"\"cost_usd\":\"0.14\"", true},
        {"\"ended_at\":null", true},
        {"\"env\":[\"TOKEN\",\"EMPTY\"]", true},
        {"\"count\":2", true},
        {"secret", false},
        {"instance", false},
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (!strstr(text, parts[i].part) == parts[i].is_there)
            fail_msg("%s in %s", parts[i].part, text);
    }
    free(text);
    json_decref(json);
    lease_free(lease);
}

/* It ran, was lost, and nothing was found after that. */
static void view_of_a_lost_one(void **state)
{
    (void)state;
    struct lease *lease = sample();
    struct lease_attempt *last = &lease->attempts[lease->attempt_count - 1];
    lease->state = LEASE_FAILED;
    lease->epoch = last->epoch + 1;
    lease->price_usd_nano = lease->epoch_billed_ms = 0;
    for (int is_free = 0; is_free < 2; is_free++) {
        if (is_free)
            lease->cost_usd_nano = lease->billed_gpu_ms = 0;
        json_t *json = lease_view(lease, NOW + 500000), *price = json_object_get(json, "price_per_gpu_hour_usd");
        assert_true(is_free ? json_is_null(price) : strcmp(json_string_value(price), "0.45") == 0);
        json_decref(json);
    }
    lease_free(lease);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways), cmocka_unit_test(forgets_secrets),
        cmocka_unit_test(odd_bytes), cmocka_unit_test(the_largest_fits),
        cmocka_unit_test(refused),   cmocka_unit_test(request_limits),
        cmocka_unit_test(view),      cmocka_unit_test(view_of_a_lost_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
