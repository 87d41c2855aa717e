/* The handlers of the operator's and the money's resources. */
#include "tests/unit/routes_fixture.h"

static int make_tenant(struct fixture *fixture, const char *body, const char *key)
{
    return post(fixture, route_tenant_create, "/api/v1/admin/tenants", body, key);
}

static int make_key(struct fixture *fixture, const char *body, const char *key)
{
    return post(fixture, route_key_create, "/api/v1/admin/keys", body, key);
}

static int make_credit(struct fixture *fixture, const char *body, const char *key)
{
    return post(fixture, route_credit, "/api/v1/admin/credits", body, key);
}

static void new_tenant(struct fixture *fixture, char ret[static ID_TEXT_MAX])
{
    assert_int_equal(make_tenant(fixture, "{\"name\":\"acme\"}", NULL), 200);
    assert_true(str_copy(ret, ID_TEXT_MAX, str_of(text_at(fixture, "id"))));
}

/* -- tests -- */

static void test_tenants(void **state)
{
    struct fixture *fixture = *state;
    char id[ID_TEXT_MAX];
    assert_int_equal(make_tenant(fixture, "{\"name\":\"acme\"}", "t1"), 200);
    assert_true(str_copy(id, sizeof(id), str_of(text_at(fixture, "id"))));
    assert_true(str_starts(str_of(id), STR("ten_")));
    json_t *first = json_incref(fixture->json);
    assert_int_equal(make_tenant(fixture, "{\"name\":\"acme\"}", "t1"), 200);
    assert_true(json_equal(first, fixture->json));
    json_decref(first);
    assert_int_equal(make_tenant(fixture, "{\"name\":\"other\"}", "t1"), 409);
    assert_string_equal(error_at(fixture, "code"), "idempotency_mismatch");
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "{\"name\":5}",
                                      "{}",
                                      "{\"name\":\"\"}",
                                      "{\"name\":\"a\",\"x\":1}",
                                      "{\"name\":\"a\\n\"}",
                                      "{\"name\":\"a\",\"name\":\"b\"}",
                                      "{\"name\":null}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(make_tenant(fixture, bad[i], NULL), 400);
    char longest[400] = "{\"name\":\"";
    for (int i = 0; i < ROUTES_NAME_MAX; i++)
        strcat(longest, "\xc3\xa9");
    char longer[420];
    snprintf(longer, sizeof(longer), "%sx\"}", longest);
    strcat(longest, "\"}");
    assert_int_equal(make_tenant(fixture, longest, NULL), 200);
    assert_int_equal(make_tenant(fixture, longer, NULL), 400);
    assert_int_equal(get(fixture, route_tenants, "limit=1", NULL, NULL), 200);
    assert_int_equal(json_array_size(json_object_get(fixture->json, "data")), 1);
    assert_non_null(text_at(fixture, "next"));
    char query[96];
    snprintf(query, sizeof(query), "cursor=%s", text_at(fixture, "next"));
    assert_int_equal(get(fixture, route_tenants, query, NULL, NULL), 200);
    assert_true(json_array_size(json_object_get(fixture->json, "data")) >= 1);
    assert_true(json_is_null(json_object_get(fixture->json, "next")));
    assert_int_equal(get(fixture, route_tenants, "limit=0", NULL, NULL), 400);
    assert_string_equal(error_at(fixture, "param"), "limit");
    assert_int_equal(get(fixture, route_tenants, "cursor=@@@", NULL, NULL), 400);
}

static void test_keys(void **state)
{
    struct fixture *fixture = *state;
    char tenant[ID_TEXT_MAX], id[ID_TEXT_MAX], body[512], secret[SECRET_TEXT_MAX];
    new_tenant(fixture, tenant);
    snprintf(body, sizeof(body),
             "{\"tenant\":\"%s\",\"name\":\"k\",\"models\":[\"m\"],\"rpm\":5,\"budget_usd\":\"1.50\"}", tenant);
    assert_int_equal(make_key(fixture, body, "k1"), 200);
    assert_true(str_copy(id, sizeof(id), str_of(text_at(fixture, "id"))));
    assert_true(str_copy(secret, sizeof(secret), str_of(text_at(fixture, "key"))));
    assert_true(str_starts(str_of(secret), STR("sk-")));
    assert_string_equal(text_at(fixture, "budget_usd"), "1.50");
    assert_string_equal(text_at(fixture, "budget_period"), "month");
    assert_null(text_at(fixture, "sha256"));
    assert_int_equal(make_key(fixture, body, "k1"), 200); /* again: the same key, its secret is not shown again */
    assert_string_equal(text_at(fixture, "id"), id);
    assert_null(json_object_get(fixture->json, "key"));
    assert_int_equal(get(fixture, route_keys, "", NULL, NULL), 200);
    char query[96];
    snprintf(query, sizeof(query), "tenant=%s", tenant);
    assert_int_equal(get(fixture, route_keys, query, NULL, NULL), 200);
    json_t *rows = json_object_get(fixture->json, "data");
    assert_int_equal(json_array_size(rows), 1);
    assert_null(json_object_get(json_array_get(rows, 0), "key"));
    assert_null(json_object_get(json_array_get(rows, 0), "sha256"));
    assert_int_equal(get(fixture, route_keys, "tenant=ten_nobody", NULL, NULL), 404);
    assert_int_equal(get(fixture, route_key_delete, "", id, NULL), 204);
    assert_int_equal(get(fixture, route_key_delete, "", id, NULL), 204);
    assert_int_equal(get(fixture, route_key_delete, "", "key_x", NULL), 404);
    assert_int_equal(
        get(fixture, route_key_delete, "", "key_that_is_much_longer_than_any_id_can_ever_be_in_here", NULL), 404);
}

static void test_nonsense_in_a_key(void **state)
{
    struct fixture *fixture = *state;
    char tenant[ID_TEXT_MAX], body[512];
    new_tenant(fixture, tenant);
    static const struct {
        const char *fields, *param;
        int status;
    } cases[] = {
        {"\"rpm\":-1", "rpm", 400},
        {"\"rpm\":\"5\"", "rpm", 400},
        {"\"max_concurrency\":1.5", "max_concurrency", 400},
        {"\"budget_usd\":5", "budget_usd", 400},
        {"\"budget_usd\":\"1\",\"budget_period\":\"year\"", "budget_period", 400},
        {"\"budget_period\":\"day\"", "budget_usd", 400},
        {"\"models\":\"m\"", "models", 400},
        {"\"models\":[1]", "models", 400},
        {"\"models\":[\"\"]", "models", 400},
        {"\"expires_at\":\"soon\"", "expires_at", 400},
        {"\"nonsense\":1", "nonsense", 400},
        {"\"models\":null,\"rpm\":null,\"budget_usd\":null", NULL, 200},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"name\":\"x\",%s}", tenant, cases[i].fields);
        assert_int_equal(make_key(fixture, body, NULL), cases[i].status);
        if (cases[i].param)
            assert_string_equal(error_at(fixture, "param"), cases[i].param);
    }
    assert_int_equal(make_key(fixture, "{\"tenant\":\"ten_nobody\",\"name\":\"x\"}", "nobody"), 404);
    snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"name\":\"x\"}", tenant);
    assert_int_equal(make_key(fixture, body, "nobody"), 200); /* the refused one did not use the key up */
    assert_int_equal(make_key(fixture, "{\"tenant\":7,\"name\":\"x\"}", NULL), 400);
}

static void test_credits(void **state)
{
    struct fixture *fixture = *state;
    char tenant[ID_TEXT_MAX], body[256];
    new_tenant(fixture, tenant);
    snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"amount_usd\":\"12.5\"}", tenant);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(make_credit(fixture, body, "c1"), 200);
        assert_string_equal(text_at(fixture, "available_usd"), "12.50");
        assert_string_equal(text_at(fixture, "tenant"), tenant);
    }
    assert_int_equal(make_credit(fixture, body, NULL), 200);
    assert_string_equal(text_at(fixture, "available_usd"), "25.00");
    assert_int_equal(make_credit(fixture, body, "c1"), 200); /* the first answer, not today's balance */
    assert_string_equal(text_at(fixture, "available_usd"), "12.50");
    snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"amount_usd\":\"1\"}", tenant);
    assert_int_equal(make_credit(fixture, body, "c1"), 409);
    assert_int_equal(make_credit(fixture, "{\"tenant\":\"ten_nobody\",\"amount_usd\":\"1\"}", "c2"), 404);
    static const char *const bad[] = {"5",    "\"-1\"", "\"+1\"",  "\"1e3\"", "\"\"",    "\" 1\"",         "null",
                                      "true", "\"0\"",  "\"0.0\"", "\"1.\"",  "\"1,5\"", "\"12345678901\""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"amount_usd\":%s}", tenant, bad[i]);
        assert_int_equal(make_credit(fixture, body, NULL), 400);
        assert_string_equal(error_at(fixture, "param"), "amount_usd");
    }
    assert_int_equal(get(fixture, route_balance, "", NULL, tenant), 200);
    assert_string_equal(text_at(fixture, "available_usd"), "25.00");
    char query[96];
    snprintf(query, sizeof(query), "tenant=%s", tenant);
    assert_int_equal(get(fixture, route_balance, query, NULL, NULL), 200);
    assert_string_equal(text_at(fixture, "available_usd"), "25.00");
    assert_int_equal(get(fixture, route_balance, query, NULL, tenant), 200);
    assert_int_equal(get(fixture, route_balance, "tenant=ten_other", NULL, tenant), 403);
    assert_int_equal(get(fixture, route_balance, "", NULL, NULL), 400);
    assert_int_equal(get(fixture, route_balance, "tenant=ten_nobody", NULL, NULL), 404);
}

/* Two requests at once with one key: both are answered, one object comes of it. */
static void test_at_once(void **state)
{
    struct fixture *fixture = *state;
    char tenant[ID_TEXT_MAX], body[256];
    enum { COUNT = 8 };
    new_tenant(fixture, tenant);
    snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"amount_usd\":\"7\"}", tenant);
    for (int i = 0; i < COUNT; i++) {
        struct test_call *test = call_new(fixture, NULL);
        test->api.method = STR("POST");
        test->api.path = STR("/api/v1/admin/credits");
        test->api.body = str_of(body);
        test->api.idempotency_key = STR("at once");
        route_credit(&test->api);
    }
    int64_t give_up = clock_mono_ns() + 20 * NS_PER_S;
    while (fixture->answers < COUNT && clock_mono_ns() < give_up)
        loop_turn(fixture->reactor.loop, 50 * NS_PER_MS);
    assert_int_equal(fixture->answers, COUNT);
    fixture->answers = 0;
    assert_int_equal(get(fixture, route_balance, "", NULL, tenant), 200);
    assert_string_equal(text_at(fixture, "available_usd"), "7.00");
}

static void test_money_queries(void **state)
{
    struct fixture *fixture = *state;
    char tenant[ID_TEXT_MAX], body[256];
    new_tenant(fixture, tenant);
    static const struct {
        api_handler *handler;
        const char *query, *param_in, *param;
        int status;
    } cases[] = {
        {route_usage, "", NULL, NULL, 200},
        {route_usage, "group_by=model&from=0&to=5", NULL, NULL, 200},
        {route_usage, "group_by=tenant", NULL, "group_by", 400},
        {route_usage, "from=yesterday", NULL, "from", 400},
        {route_usage, "from=-1", NULL, "from", 400},
        {route_usage, "from=5&to=4", NULL, "from", 400},
        {route_usage, "to=1e3", NULL, "to", 400},
        {route_usage, "since=1", NULL, "since", 400},
        {route_invoice, "", "2001-01", NULL, 404},
        {route_invoice, "", "2026-13", NULL, 404},
        {route_invoice, "", "latest", NULL, 404},
        {route_invoice, "format=pdf", "2001-01", "format", 400},
        {route_ledger, "", NULL, NULL, 200},
        {route_ledger, "cursor=%40%40", NULL, "cursor", 400},
        {route_ledger, "limit=1001", NULL, "limit", 400},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(get(fixture, cases[i].handler, cases[i].query, cases[i].param_in, tenant), cases[i].status);
        if (cases[i].param)
            assert_string_equal(error_at(fixture, "param"), cases[i].param);
    }
    snprintf(body, sizeof(body), "{\"tenant\":\"%s\",\"amount_usd\":\"3\"}", tenant);
    assert_int_equal(make_credit(fixture, body, NULL), 200);
    assert_int_equal(get(fixture, route_ledger, "", NULL, tenant), 200);
    assert_int_equal(json_array_size(json_object_get(fixture->json, "data")), 1);
    assert_int_equal(get(fixture, route_ledger, "limit=1", NULL, NULL), 200);
    assert_int_equal(json_array_size(json_object_get(fixture->json, "data")), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenants), cmocka_unit_test(test_keys),    cmocka_unit_test(test_nonsense_in_a_key),
        cmocka_unit_test(test_credits), cmocka_unit_test(test_at_once), cmocka_unit_test(test_money_queries),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
