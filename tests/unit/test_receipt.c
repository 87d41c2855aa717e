#include "probes/receipt.h"
#include "core/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct signing_key *gateway, *other;
static struct gpu_class class = {.name = "nvidia/h200-sxm-141"};

static struct verify_report report_of(enum verify_result result)
{
    struct verify_report report = {.result = result,
                                   .has_hello = true,
                                   .claimed = &class,
                                   .proven_class = &class,
                                   .proven = {139.8, 1205.123456789, 4187.5, 98.25, 1210},
                                   .ratio = 0.9871234567,
                                   .performance = 1.0 / 3,
                                   .rtt_ns = 1234567,
                                   .step_count = 2};
    memset(report.worker_key, 0x11, 32);
    memset(report.exchange_key, 0x22, 32);
    memset(report.host_id, 0x33, 32);
    memset(report.claim.uuid, 0x44, 16);
    memcpy(report.claim.driver, "580.95.05", 10);
    report.steps[0] = (struct verify_step_report){.kind = "hello", .is_passed = true, .unit = ""};
    report.steps[1] = (struct verify_step_report){
        .kind = "chain", .is_passed = true, .took_ns = 351234567, .rate = 1210.75, .unit = "TOPS", .id = {1}};
    memset(report.steps[1].root, 0x66, 32);
    return report;
}

static void make(struct buf *to, int64_t at_ms, const char *previous, const struct signing_key *key)
{
    struct verify_report report = report_of(VERIFY_PASSED);
    struct receipt_facts facts = {STR("wrk_1"), STR("gw_1"), 0, VERIFY_ADMISSION, at_ms, ""};
    assert_true(str_copy(facts.previous, sizeof(facts.previous), str_of(previous)));
    buf_init(to, 0);
    assert_int_equal(receipt_make(&facts, &report, key, to), ERR_NONE);
}

static bool has(const struct buf *text, const char *part)
{
    return memmem(text->ptr, text->len, part, strlen(part)) != NULL;
}

static void test_made_and_checked(void **state)
{
    (void)state;
    struct buf text;
    struct receipt_view view;
    uint8_t key[32], want[32];
    char hex[65];
    make(&text, 1763770000123, "", gateway);
    signing_key_public(gateway, key);
    assert_int_equal(receipt_check(buf_str(&text), NULL, &view), ERR_NONE);
    assert_int_equal(receipt_check(buf_str(&text), key, &view), ERR_NONE);
    assert_string_equal(view.worker, "wrk_1");
    assert_string_equal(view.gateway, "gw_1");
    assert_string_equal(view.class_name, "nvidia/h200-sxm-141");
    assert_string_equal(view.result, "passed");
    assert_string_equal(view.previous, "");
    assert_int_equal(view.at_ms, 1763770000123);
    assert_memory_equal(view.gateway_key, key, 32);
    memset(want, 0x11, 32);
    assert_memory_equal(view.worker_key, want, 32);
    crypto_sha256_hex(buf_str(&text), hex);
    assert_string_equal(view.sha256, hex);
    assert_true(str_starts(buf_str(&text), STR("{\"at\":1763770000123,\"claimed\":\"nvidia/h200-sxm-141\",")));
    assert_true(has(&text, "\"fill_gbps\":1205.12,\"pass_gbps\":4187.5,\"vram_gib\":139.8,"));
    assert_true(has(&text, "\"performance\":0.333333,") && has(&text, "\"ratio\":0.987123,"));
    assert_true(has(&text, "\"took_us\":351234,\"unit\":\"TOPS\"}"));
    assert_false(has(&text, "44444444")); /* the UUID itself */
    assert_true(has(&text, "\"uuid_sha256\":\"") && !has(&text, "\"uuid_sha256\":\"\""));
    signing_key_public(other, key);
    assert_int_equal(receipt_check(buf_str(&text), key, &view), ERR_DENIED);
    buf_free(&text);
}

/* Every bit of every byte counts. */
static void test_any_change_is_refused(void **state)
{
    (void)state;
    struct buf text;
    struct receipt_view view = {.at_ms = -1};
    make(&text, 1763770000123, "", gateway);
    for (size_t i = 0; i < text.len; i++) {
        const char was = text.ptr[i];
        static const char changes[] = "\1\2\10\40"; /* digits to digits, letters to letters and cases */
        for (size_t k = 0; changes[k]; k++) {
            text.ptr[i] = (char)(was ^ changes[k]);
            enum error error = receipt_check(buf_str(&text), NULL, &view);
            assert_true(error == ERR_BAD_INPUT || error == ERR_DENIED);
        }
        text.ptr[i] = was;
        assert_int_equal(receipt_check((struct str){text.ptr, i}, NULL, &view), ERR_BAD_INPUT); /* cut off */
    }
    assert_int_equal(view.at_ms, -1); /* untouched */
    assert_true(buf_append_str(&text, STR(" ")));
    assert_int_equal(receipt_check(buf_str(&text), NULL, &view), ERR_BAD_INPUT);
    buf_free(&text);
}

/* The same facts in another form, or other facts, are no receipt even when the signature would be right. */
static void test_one_form_only(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"\"gpu\":0", "\"gpu\": 0"},
        {"\"gpu\":0", "\"gpu\":0.0"},
        {"\"gpu\":0", "\"gpu\":-1"},
        {"\"gpu\":0", "\"gpu\":0,\"hidden\":1"},
        {"\"gpu\":0,", ""},
        {"\"gpu\":0", "\"gpu\":0,\"gpu\":0"},
        {"\"vram_gib\":139.8", "\"vram_gib\":139.80"},
        {"\"vram_gib\":139.8", "\"vram_gib\":1398e-1"},
        {"\"vram_gib\":139.8", "\"vram_gib\":140"},
        {"\"worker\":\"wrk_1\"", "\"worker\":\"wrk\\u005f1\""},
        {"\"worker\":\"wrk_1\"", "\"worker\":\"wrk\\n1\""},
        {"\"result\":\"passed\"", "\"result\":\"splendid\""},
        {"\"version\":1", "\"version\":2"},
        {"\"kind\":\"hello\"", "\"kind\":\"hello\",\"more\":\"x\""},
        {"\"passed\":true", "\"passed\":1"},
        {"\"worker_key\":\"11", "\"worker_key\":\"1"},
    };
    struct buf text, changed;
    struct receipt_view view;
    make(&text, 1763770000123, "", gateway);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        const char *at = memmem(text.ptr, text.len, pairs[i][0], strlen(pairs[i][0]));
        assert_non_null(at);
        size_t before = (size_t)(at - text.ptr), after = before + strlen(pairs[i][0]);
        buf_init(&changed, 0);
        assert_true(buf_append(&changed, text.ptr, before) && buf_append_str(&changed, str_of(pairs[i][1])) &&
                    buf_append(&changed, text.ptr + after, text.len - after));
        assert_int_equal(receipt_check(buf_str(&changed), NULL, &view), ERR_BAD_INPUT);
        buf_free(&changed);
    }
    static const char *const texts[] = {"", "{}", "[]", "null", "{\"at\":1}", "{\"signature\":\"\"}"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(receipt_check(str_of(texts[i]), NULL, &view), ERR_BAD_INPUT);
    buf_free(&text);
}

static void test_indented_and_back(void **state)
{
    (void)state;
    struct buf text, wide, again;
    make(&text, 1763770000123, "", gateway);
    json_t *root = json_loadb(text.ptr, text.len, 0, NULL);
    char *indented = json_dumps(root, JSON_INDENT(2)); /* in another order, and 17 digits a number */
    buf_init(&wide, 0);
    buf_init(&again, 0);
    assert_non_null(indented);
    assert_int_equal(receipt_canonical(str_of(indented), &again), ERR_NONE);
    assert_true(str_eq(buf_str(&again), buf_str(&text)));
    assert_int_equal(receipt_canonical(STR("[]"), &wide), ERR_BAD_INPUT);
    assert_int_equal(receipt_canonical((struct str){NULL, 0}, &wide), ERR_BAD_INPUT);
    assert_int_equal(receipt_canonical(STR("{\"a\":1,\"a\":1}"), &wide), ERR_BAD_INPUT);
    free(indented);
    json_decref(root);
    buf_free(&text);
    buf_free(&again);
}

/* What a worker says of itself cannot break the form, and no number can. */
static void test_hostile_reports(void **state)
{
    (void)state;
    struct verify_report report = report_of(VERIFY_WRONG);
    struct receipt_facts facts = {STR("wrk_1"), STR("gw_1"), 15, VERIFY_LEASE, 0, ""};
    struct receipt_view view;
    struct buf text;
    memset(&report.claim, 0xff, sizeof(report.claim));
    report.claim.name[PROBE_NAME_MAX - 1] = report.claim.driver[31] = '\0';
    memcpy(report.claim.driver, "a\"b\\c\n\x1b[2J\xc3\xa9", 13);
    report.claimed = report.proven_class = NULL;
    report.proven = (struct proven){NAN, INFINITY, -1e300, 1e-300, 12345678901234567890.0};
    report.ratio = -INFINITY;
    report.rtt_ns = -5;
    report.step_count = VERIFY_STEPS_MAX;
    for (size_t i = 0; i < VERIFY_STEPS_MAX; i++) {
        report.steps[i] = report.steps[1];
        memset(report.steps[i].id, 0xff, 16);
        memset(report.steps[i].seed, 0xff, 32);
    }
    memset(report.reason, '<', sizeof(report.reason) - 1);
    buf_init(&text, RECEIPT_MAX);
    assert_int_equal(receipt_make(&facts, &report, gateway, &text), ERR_NONE);
    assert_int_equal(receipt_check(buf_str(&text), NULL, &view), ERR_NONE);
    assert_true(has(&text, "\"driver\":\"a\\\"b\\\\c??[2J??"));
    assert_string_equal(view.result, "wrong");
    assert_string_equal(view.class_name, "");
    buf_free(&text);

    struct verify_report silent = {.result = VERIFY_LATE, .reason = "hello: no answer"}; /* it said nothing at all */
    assert_int_equal(receipt_make(&facts, &silent, gateway, &text), ERR_NONE);
    assert_int_equal(receipt_check(buf_str(&text), NULL, &view), ERR_NONE);
    assert_true(has(&text, "\"worker_key\":\"\"") && has(&text, "\"steps\":[]") && has(&text, "\"uuid_sha256\":\"\""));
    buf_free(&text);
}

#define LOG 6
static void test_logs(void **state)
{
    (void)state;
    struct buf made[LOG], strange;
    struct str texts[LOG + 1], picked[LOG + 1];
    struct receipt_row rows[LOG + 1];
    char previous[65] = "";
    uint8_t key[32];
    for (size_t i = 0; i < LOG; i++) {
        make(&made[i], 1000 + (int64_t)i, previous, gateway);
        texts[i] = buf_str(&made[i]);
        crypto_sha256_hex(texts[i], previous);
    }
    assert_int_equal(receipt_log_check(texts, LOG, NULL, rows), 0);
    assert_int_equal(rows[0].link, RECEIPT_FIRST);
    for (size_t i = 1; i < LOG; i++)
        assert_int_equal(rows[i].link, RECEIPT_LINKED);
    assert_int_equal(receipt_log_check(texts + 2, LOG - 2, NULL, rows), 0); /* the end of a log */
    assert_int_equal(rows[0].link, RECEIPT_START);
    for (size_t i = 0; i < LOG; i++) /* newest first, one of them twice */
        picked[i] = texts[LOG - 1 - i];
    picked[LOG] = texts[3];
    assert_int_equal(receipt_log_check(picked, LOG + 1, NULL, rows), 0);

    for (size_t left_out = 1; left_out + 1 < LOG; left_out++) {
        size_t count = 0;
        for (size_t i = 0; i < LOG; i++)
            if (i != left_out)
                picked[count++] = texts[i];
        assert_int_equal(receipt_log_check(picked, count, NULL, rows), 1);
        assert_int_equal(rows[left_out].link, RECEIPT_GAP);
    }

    crypto_sha256_hex(texts[1], previous); /* told in two ways */
    make(&strange, 5000, previous, gateway);
    memcpy(picked, texts, sizeof(texts));
    picked[LOG] = buf_str(&strange);
    assert_int_equal(receipt_log_check(picked, LOG + 1, NULL, rows), 2);
    assert_int_equal(rows[2].link, RECEIPT_FORK);
    assert_int_equal(rows[LOG].link, RECEIPT_FORK);
    buf_free(&strange);

    made[3].ptr[made[3].len / 2] ^= 1; /* changed: what follows it hangs in the air */
    assert_int_equal(receipt_log_check(texts, LOG, NULL, rows), 2);
    assert_int_equal(rows[3].link, RECEIPT_UNKNOWN);
    assert_int_not_equal(rows[3].error, ERR_NONE);
    assert_int_equal(rows[4].link, RECEIPT_GAP);
    made[3].ptr[made[3].len / 2] ^= 1;
    signing_key_public(other, key);
    assert_int_equal(receipt_log_check(texts, LOG, key, rows), LOG);
    assert_int_equal(receipt_log_check(NULL, 0, NULL, rows), 0);
    for (size_t i = 0; i < LOG; i++)
        buf_free(&made[i]);
}

static int set_up(void **state)
{
    (void)state;
    return signing_key_new(&gateway) == ERR_NONE && signing_key_new(&other) == ERR_NONE ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    gateway = signing_key_free(gateway);
    other = signing_key_free(other);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_and_checked),  cmocka_unit_test(test_any_change_is_refused),
        cmocka_unit_test(test_one_form_only),     cmocka_unit_test(test_hostile_reports),
        cmocka_unit_test(test_indented_and_back), cmocka_unit_test(test_logs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
