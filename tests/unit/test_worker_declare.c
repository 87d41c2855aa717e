#include "tests/unit/cmocka_all.h"
#include "gateway/worker_declare.h"

#include <string.h>

static void gpu_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool is_good;
        uint64_t gib;
    } cases[] = {
        {"cpu", true, 0},
        {"nvidia/h100-sxm-80", true, 80},
        {"nvidia/rtx4090-24", true, 24},
        {"amd/mi300x-192", true, 192},
        {"nvidia/l4", true, 0},
        {"nvidia/rtx4000-sff-ada-20", true, 20},
        {"", false, 0},
        {"CPU", false, 0},
        {"NVIDIA/h100", false, 0},
        {"nvidia/", false, 0},
        {"/h100", false, 0},
        {"nvidia", false, 0},
        {"nvidia/h100/80", false, 0},
        {"nvidia/h100-", false, 0},
        {"nvidia/-h100", false, 0},
        {"nvidia/h 100", false, 0},
        {"nvidia/h_100", false, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(worker_gpu_is_canonical(str_of(cases[i].name)), cases[i].is_good);
        if (cases[i].is_good)
            assert_int_equal(worker_gpu_vram(str_of(cases[i].name)) >> 30, cases[i].gib);
    }
}

/* A good description with one field replaced (value NULL: left out) by JSON text. */
static json_t *described(const char *field, const char *value)
{
    json_t *body = json_pack("{s:s, s:s, s:i, s:s, s:[s,s], s:i, s:s, s:[s]}", "name", "gpu-7", "gpu",
                             "nvidia/h100-sxm-80", "gpus", 2, "region", "eu-west", "tags", "gdpr", "hipaa", "slots", 64,
                             "price_per_gpu_hour_usd", "1.20", "models", "m1");
    assert_non_null(body);
    if (field && value) {
        json_t *replaced = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(replaced);
        json_object_set_new(body, field, replaced);
    } else if (field) {
        json_object_del(body, field);
    }
    return body;
}

static void takes_all_fields(void **state)
{
    (void)state;
    struct worker_record record = {0};
    struct api_error error;
    json_t *body = described(NULL, NULL);
    assert_true(worker_declare(body, &record, &error));
    assert_string_equal(record.name, "gpu-7");
    assert_string_equal(record.gpu, "nvidia/h100-sxm-80");
    assert_string_equal(record.gpu_raw, "nvidia/h100-sxm-80");
    assert_string_equal(record.region, "eu-west");
    assert_string_equal(record.tags, "gdpr,hipaa");
    assert_int_equal(record.gpus, 2);
    assert_int_equal(record.slots, 64);
    assert_int_equal(record.price_usd_nano, 1200000000);
    assert_int_equal(record.vram_bytes, UINT64_C(80) << 30);
    json_decref(body);
}

static void checks_each_field(void **state)
{
    (void)state;
    static const struct {
        const char *field, *value;
        bool is_good;
    } cases[] = {
        {"name", NULL, true},
        {"name", "\"\"", true},
        {"name", "7", false},
        {"name", "\"a\\nb\"", false},
        {"name", "\"0123456789012345678901234567890123456789012345678901234567890123\"", false},
        {"gpu", NULL, false},
        {"gpu", "\"H100\"", false},
        {"gpu", "\"nvidia/0123456789012345678901234567890123456789\"", false},
        {"gpu_raw", "\"NVIDIA H100 80GB HBM3\"", true},
        {"gpu_raw", "{}", false},
        {"gpus", NULL, true},
        {"gpus", "0", false},
        {"gpus", "-1", false},
        {"gpus", "1.0", false},
        {"gpus", "1025", false},
        {"gpus", "1024", true},
        {"slots", "0", false},
        {"slots", "4096", true},
        {"slots", "4097", false},
        {"slots", "\"8\"", false},
        {"region", NULL, true},
        {"region", "\"\"", true},
        {"region", "\"EU_west.1\"", true},
        {"region", "\"eu west\"", false},
        {"region", "\"01234567890123456789012345678901\"", false},
        {"tags", NULL, true},
        {"tags", "[]", true},
        {"tags", "[\"a,b\"]", false},
        {"tags", "[\"\"]", false},
        {"tags", "[7]", false},
        {"tags", "\"gdpr\"", false},
        {"tags",
         "[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]",
         false},
        {"price_per_gpu_hour_usd", NULL, false},
        {"price_per_gpu_hour_usd", "1.2", false},
        {"price_per_gpu_hour_usd", "\"-1\"", false},
        {"price_per_gpu_hour_usd", "\"0\"", true},
        {"price_per_gpu_hour_usd", "\"10000\"", true},
        {"price_per_gpu_hour_usd", "\"10000.000000001\"", false},
        {"something_newer", "[1]", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct worker_record record = {0};
        struct api_error error = {0};
        json_t *body = described(cases[i].field, cases[i].value);
        if (worker_declare(body, &record, &error) != cases[i].is_good)
            fail_msg("%s: %s", cases[i].field, cases[i].value);
        if (!cases[i].is_good) {
            assert_int_equal(error.status, 400);
            assert_string_equal(error.param, cases[i].field);
        }
        json_decref(body);
    }
}

static void another_gpu_is_proven_again(void **state)
{
    (void)state;
    static const struct {
        const char *gpu;
        uint32_t gpus;
        enum admission_state state;
        bool is_again;
    } cases[] = {
        {"nvidia/l4-24", 1, ADMISSION_READY, false},       {"nvidia/l4-24", 2, ADMISSION_READY, true},
        {"nvidia/h100-80", 1, ADMISSION_READY, true},      {"nvidia/h100-80", 1, ADMISSION_PROBING, true},
        {"nvidia/h100-80", 1, ADMISSION_SUSPENDED, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct worker_record old = {.gpu = "nvidia/l4-24", .gpus = 1}, declared = {.gpus = cases[i].gpus};
        struct admission admission;
        old.admission = (struct admission){.state = cases[i].state, .token = 7, .next_probe_at_ms = 99};
        strcpy(declared.gpu, cases[i].gpu);
        assert_int_equal(worker_redeclared(&old, &declared, &admission), cases[i].is_again);
        if (cases[i].is_again) {
            assert_int_equal(admission.state, ADMISSION_ENROLLED);
            assert_int_equal(admission.token, 8);
            assert_int_equal(admission.next_probe_at_ms, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_names),
        cmocka_unit_test(takes_all_fields),
        cmocka_unit_test(checks_each_field),
        cmocka_unit_test(another_gpu_is_proven_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
