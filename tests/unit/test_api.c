#include "tests/unit/cmocka_all.h"

#include "gateway/api.h"
#include <string.h>

static void nothing(struct api_call *call)
{
    (void)call;
}

static const struct api_route routes[] = {
    {"GET", "/healthz", API_OPEN, nothing},
    {"GET", "/api/v1/admin/keys", API_ADMIN, nothing},
    {"POST", "/api/v1/admin/keys", API_ADMIN, nothing},
    {"DELETE", "/api/v1/admin/keys/{id}", API_ADMIN, nothing},
    {"GET", "/api/v1/a/{one}/b/{two}", API_OPEN, nothing},
    {NULL, NULL, API_OPEN, NULL},
};

static void test_match(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path;
        enum api_match want;
        const char *pattern, *one, *two, *allow;
    } cases[] = {
        {"GET", "/healthz", API_FOUND, "/healthz", NULL, NULL, ""},
        {"HEAD", "/healthz", API_FOUND, "/healthz", NULL, NULL, ""},
        {"POST", "/healthz", API_NO_METHOD, NULL, NULL, NULL, "GET, HEAD"},
        {"get", "/healthz", API_NO_METHOD, NULL, NULL, NULL, "GET, HEAD"},
        {"GET", "/healthz/", API_NO_PATH, NULL, NULL, NULL, ""},
        {"GET", "//healthz", API_NO_PATH, NULL, NULL, NULL, ""},
        {"GET", "/", API_NO_PATH, NULL, NULL, NULL, ""},
        {"GET", "", API_NO_PATH, NULL, NULL, NULL, ""},
        {"GET", "healthz", API_NO_PATH, NULL, NULL, NULL, ""},
        {"GET", "/Healthz", API_NO_PATH, NULL, NULL, NULL, ""},
        {"POST", "/api/v1/admin/keys", API_FOUND, "/api/v1/admin/keys", NULL, NULL, ""},
        {"PUT", "/api/v1/admin/keys", API_NO_METHOD, NULL, NULL, NULL, "GET, HEAD, POST"},
        {"DELETE", "/api/v1/admin/keys/key_1", API_FOUND, "/api/v1/admin/keys/{id}", "key_1", NULL, ""},
        {"HEAD", "/api/v1/admin/keys/key_1", API_NO_METHOD, NULL, NULL, NULL, "DELETE"},
        {"DELETE", "/api/v1/admin/keys/", API_NO_PATH, NULL, NULL, NULL, ""},
        {"DELETE", "/api/v1/admin/keys/a/b", API_NO_PATH, NULL, NULL, NULL, ""},
        {"GET", "/api/v1/a/x/b/y%2Fz", API_FOUND, "/api/v1/a/{one}/b/{two}", "x", "y%2Fz", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct api_route *route = NULL;
        struct str params[API_PARAMS_MAX] = {{NULL, 0}};
        struct buf allow;
        buf_init(&allow, 0);
        enum api_match match =
            api_match_in(routes, str_of(cases[i].method), str_of(cases[i].path), &route, params, &allow);
        assert_int_equal(match, cases[i].want);
        assert_true(str_eq(buf_str(&allow), str_of(cases[i].allow)) || (allow.len == 0 && !*cases[i].allow));
        if (match == API_FOUND) {
            assert_string_equal(route->pattern, cases[i].pattern);
            assert_true(str_eq(params[0], str_of(cases[i].one)));
            assert_true(str_eq(params[1], str_of(cases[i].two)));
        } else {
            assert_null(route);
        }
        buf_free(&allow);
    }
}

static void test_params(void **state)
{
    (void)state;
    struct api_call *call = calloc(1, sizeof(*call));
    assert_true(api_params_set(call, (struct str[]){STR("y%2Fz"), STR("a+b")}));
    assert_true(str_eq(call->params[0], STR("y/z")));
    assert_true(str_eq(call->params[1], STR("a+b")));
    static const char *const bad[] = {"%", "%4", "%zz", "a%00b", "%0a", "tab\there"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(api_params_set(call, (struct str[]){str_of(bad[i]), {NULL, 0}}));
    free(call);
}

static void test_query(void **state)
{
    (void)state;
    static const char *const known[] = {"gpu", "limit", "region", NULL};
    static const struct {
        const char *query;
        bool good;
        const char *param, *gpu, *limit;
    } cases[] = {
        {"", true, NULL, NULL, NULL},
        {"gpu=h100&limit=5", true, NULL, "h100", "5"},
        {"gpu=nvidia%2Fh100+sxm&&", true, NULL, "nvidia/h100 sxm", NULL},
        {"gpu", true, NULL, "", NULL},
        {"gpu=a=b", true, NULL, "a=b", NULL},
        {"%67pu=1", true, NULL, "1", NULL},
        {"gpu=1&gpu=1", false, "gpu", NULL, NULL},
        {"colour=red", false, "colour", NULL, NULL},
        {"GPU=1", false, "GPU", NULL, NULL},
        {"=1", false, "", NULL, NULL},
        {"gpu=%", false, NULL, NULL, NULL},
        {"gpu=%g0", false, NULL, NULL, NULL},
        {"gpu=%00", false, NULL, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct api_call *call = calloc(1, sizeof(*call));
        call->query = str_of(cases[i].query);
        struct api_error error = {0};
        assert_int_equal(api_query_parse(call, known, &error), cases[i].good);
        if (cases[i].good) {
            assert_true(str_eq(api_query(call, "gpu"), str_of(cases[i].gpu)));
            assert_true(str_eq(api_query(call, "limit"), str_of(cases[i].limit)));
            assert_null(api_query(call, "region").ptr);
        } else {
            assert_int_equal(error.status, 400);
            if (cases[i].param)
                assert_string_equal(error.param, cases[i].param);
            else
                assert_null(error.param);
        }
        free(call);
    }
}

static void test_query_bounds(void **state)
{
    (void)state;
    static const char *const known[] = {"a", NULL};
    char text[API_QUERY_BYTES_MAX + 2];
    memset(text, 'x', sizeof(text));
    memcpy(text, "a=", 2);
    for (size_t len = API_QUERY_BYTES_MAX; len <= API_QUERY_BYTES_MAX + 1; len++) {
        struct api_call *call = calloc(1, sizeof(*call));
        call->query = (struct str){text, len};
        struct api_error error;
        assert_int_equal(api_query_parse(call, known, &error), len == API_QUERY_BYTES_MAX);
        free(call);
    }
    struct buf many;
    buf_init(&many, 0);
    for (int i = 0; i <= API_QUERY_FIELDS_MAX; i++)
        assert_true(buf_printf(&many, "f%d=&", i));
    struct api_call *call = calloc(1, sizeof(*call));
    call->query = buf_str(&many);
    struct api_error error;
    assert_false(api_query_parse(call, known, &error));
    assert_null(error.param);
    free(call);
    buf_free(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_query_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
