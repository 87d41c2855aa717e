/* What a body asks for of a lease: each field's limits, and what is said where one is broken. */
#include "tests/unit/cmocka_all.h"

#include "gateway/gpu_known.h"
#include "gateway/lease_body.h"
#include <string.h>

static json_t *body;

static bool parse(const char *text, struct lease_request *ret, struct api_error *error)
{
    json_error_t where;
    json_decref(body);
    body = json_loads(text, 0, &where);
    if (!body)
        fail_msg("%s: %s", text, where.text);
    return lease_body_parse(body, ret, error);
}

static void the_least(void **state)
{
    struct lease_request request;
    struct api_error error;
    (void)state;
    assert_true(parse("{\"gpu\":\"H100\",\"image\":\"debian\"}", &request, &error));
    assert_true(str_eq(request.gpu, STR("H100")) && str_eq(request.image, STR("debian")));
    assert_int_equal(request.gpus, 1);
    assert_int_equal(request.price_max_usd_nano, -1);
    assert_int_equal(request.price_quoted_usd_nano, -1);
    assert_int_equal(request.disk_gib, LEASE_DISK_GIB);
    assert_false(request.interruptible || request.retry_until_up);
    assert_true(request.recovers);
    assert_true(request.argc == 0 && request.env_count == 0 && request.port_count == 0);
    assert_true(!request.region.ptr && !request.quote.ptr && !request.offer.ptr);
}

static void all_of_it(void **state)
{
    struct lease_request request;
    struct api_error error;
    (void)state;
    assert_true(parse(
        "{\"gpu\":\"nvidia/rtx4090-24\",\"count\":8,\"image\":\"ghcr.io/acme/x_y/z:1.2\",\"command\":[\"sh\",\"\"],"
        "\"env\":{\"A_1\":\"two\\nlines\",\"b\":\"\"},\"ports\":[8000,22],"
        "\"max_price_per_gpu_hour_usd\":\"0.50\",\"region\":\"eu\",\"network\":\"vast-main\","
        "\"require\":\"gdpr\",\"prefer\":\"price\",\"offer\":\"off_1\",\"interruptible\":true,"
        "\"max_duration_s\":3600,\"quote\":\"quo_1\",\"deadline_s\":600,\"retry_until_up\":true,"
        "\"recover\":false,\"disk_gib\":100,\"price_tolerance_bps\":200}",
        &request, &error));
    assert_int_equal(request.gpus, 8);
    assert_int_equal(request.argc, 2);
    assert_true(str_eq(request.argv[1], STR("")));
    assert_int_equal(request.env_count, 2);
    assert_true(str_eq(request.env[0].key, STR("A_1")) && str_eq(request.env[0].value, STR("two\nlines")));
    assert_int_equal(request.ports[0], 8000);
    assert_int_equal(request.ports[1], 22);
    assert_int_equal(request.price_max_usd_nano, 500000000);
    assert_true(request.interruptible && request.retry_until_up && !request.recovers);
    assert_int_equal(request.max_duration_s, 3600);
    assert_int_equal(request.deadline_s, 600);
    assert_int_equal(request.disk_gib, 100);
    assert_int_equal(request.tolerance_bps, 200);
}

static void each_field_is_checked(void **state)
{
    static const char *const bad[][2] = {
        {"count", "0"},
        {"count", "1025"},
        {"count", "\"2\""},
        {"count", "1.5"},
        {"image", "\"\""},
        {"image", "\"https://ghcr.io/x/y\""},
        {"image", "\"Debian\""},
        {"command", "[]"},
        {"command", "\"sh -c true\""},
        {"command", "[\"\"]"},
        {"command", "[\"a\", 1]"},
        {"env", "[]"},
        {"env", "{\"1A\":\"x\"}"},
        {"env", "{\"A-B\":\"x\"}"},
        {"env", "{\"\":\"x\"}"},
        {"env", "{\"A\":1}"},
        {"env", "{\"SLUICE_WORKER_TOKEN\":\"x\"}"},
        {"ports", "[0]"},
        {"ports", "[65536]"},
        {"ports", "[80, 80]"},
        {"ports", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"},
        {"ports", "8000"},
        {"max_price_per_gpu_hour_usd", "2.5"},
        {"max_price_per_gpu_hour_usd", "\"-1\""},
        {"interruptible", "1"},
        {"retry_until_up", "\"yes\""},
        {"recover", "0"},
        {"max_duration_s", "0"},
        {"deadline_s", "604801"},
        {"disk_gib", "0"},
        {"price_tolerance_bps", "10001"},
        {"prefer", "\"cheap\""},
        {"require", "\"a b\""},
        {"region", "\"\""},
        {"gpus", "1"},
        {"gpu", "\"H1000\""},
        {"gpu", "8"},
    };
    struct lease_request request;
    struct api_error error;
    char text[512];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bool is_image = !strcmp(bad[i][0], "image"), is_gpu = !strcmp(bad[i][0], "gpu");
        snprintf(text, sizeof(text), "{%s%s\"%s\":%s}", is_gpu ? "" : "\"gpu\":\"h100\",",
                 is_image ? "" : "\"image\":\"debian\",", bad[i][0], bad[i][1]);
        if (parse(text, &request, &error))
            fail_msg("taken: %s", text);
        assert_int_equal(error.status, 400);
        assert_string_equal(error.param, bad[i][0]);
        if (strcmp(bad[i][0], "gpus") != 0 && !strstr(error.message, bad[i][0]))
            fail_msg("%s: %s", bad[i][0], error.message);
    }
    assert_false(parse("{\"image\":\"debian\"}", &request, &error));
    assert_string_equal(error.param, "gpu");
    assert_false(parse("{\"gpu\":\"h100\"}", &request, &error));
    assert_string_equal(error.param, "image");
}

/* What is taken fits the lease's memory, whatever its texts are. */
static void texts_together_are_bounded(void **state)
{
    struct lease_request request;
    struct api_error error;
    char arg[8193] = "";
    (void)state;
    for (size_t len = 8000; len <= 8192; len++) {
        memset(arg, 'x', len);
        json_t *all = json_pack("{s:s, s:s, s:[s, s]}", "gpu", "h100", "image", "debian", "command", arg, arg);
        if (lease_body_parse(all, &request, &error)) {
            struct lease *lease = lease_new();
            assert_true(lease_request_copy(lease, &request));
            assert_true(len < 8192);
            lease_free(lease);
        } else {
            assert_string_equal(error.param, "command");
            assert_true(len > 8100);
        }
        json_decref(all);
    }
}

static void images(void **state)
{
    static const char *const good[] = {"debian",
                                       "debian:12",
                                       "library/debian:12-slim",
                                       "ghcr.io/x/y:1",
                                       "localhost/x",
                                       "localhost:5000/x/y",
                                       "10.0.0.1:5000/a/b__c/d--e",
                                       "registry.example.com/a.b/c_d:V1.2_x-y",
                                       "x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                                       "x:1@sha256:0123456789abcdef0123456789abcdef"};
    static const char *const bad[] = {"",           "/x",
                                      "x/",         "x//y",
                                      "x:",         "x:a/b:",
                                      "x y",        "X",
                                      "a/B",        "-x",
                                      "x-",         "a..b",
                                      "a___b",      "x:-t",
                                      "x@",         "x@sha256:",
                                      "x@md5:00ff", "x\ny",
                                      "http://x/y", "ghcr.io:99999/x",
                                      "a$(id)",     "x;y",
                                      "x'y",        "-it",
                                      "ghcr.io/",   "x@sha256:0123456789ABCDEF0123456789abcdef"};
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!image_reference_is_good(str_of(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (image_reference_is_good(str_of(bad[i])))
            fail_msg("taken: %s", bad[i]);
}

static void near_gpus(void **state)
{
    static const char *const known[] = {"h100",  "RTX4090", "rtx 4090", "4090", "A100-80GB", "nvidia/h100-sxm-80",
                                        "mi300x"};
    char near[GPU_NEAR_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (gpu_known(str_of(known[i]), near))
            fail_msg("%s: not known, near %s", known[i], near);
    assert_int_equal(gpu_known(STR("RTX4091"), near), ERR_NOT_FOUND);
    assert_true(!strncmp(near, "nvidia/rtx4090", 14));
    assert_int_equal(gpu_known(STR("h10O"), near), ERR_NOT_FOUND);
    assert_non_null(strstr(near, "nvidia/h100-sxm-80"));
    assert_int_equal(gpu_known(STR("mi30x"), near), ERR_NOT_FOUND);
    assert_non_null(strstr(near, "amd/mi300x-192"));
    assert_int_equal(gpu_known(STR("///"), near), ERR_NOT_FOUND);
}

static int end(void **state)
{
    (void)state;
    json_decref(body);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least),
        cmocka_unit_test(all_of_it),
        cmocka_unit_test(each_field_is_checked),
        cmocka_unit_test(texts_together_are_bounded),
        cmocka_unit_test(images),
        cmocka_unit_test(near_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
