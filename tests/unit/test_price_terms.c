#include "tests/unit/cmocka_all.h"

#include "pricing/price_terms.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NOW_MS INT64_C(1790000000000)
#define AKT "0.731259874102"
#define IOCOIN "0.000000123456789012345"

static struct rates rates;

static int set_rates(void **state)
{
    (void)state;
    rates_init(&rates, 0);
    return rates_set(&rates, STR("AKT"), STR(AKT), STR("test"), NOW_MS) ||
           rates_set(&rates, STR("IOCOIN"), STR(IOCOIN), STR("test"), NOW_MS);
}

/* Computed with Python's fractions: ceil(amount * rate * 10^9 * hours / GPUs). */
static const struct {
    const char *amount, *currency;
    enum price_per per;
    uint32_t gpus;
    int64_t span_s, block_ms, usd_nano;
} table[] = {
    {"2916.000000000000000000", "uact", PRICE_PER_BLOCK, 1, 0, 6000, 1749600000},
    {"2916.000000000000000000", "uact", PRICE_PER_BLOCK, 8, 0, 6000, 218700000},
    {"2916.123456789012345678", "uakt", PRICE_PER_BLOCK, 1, 0, 6098, 1258904339},
    {"1.000000000000000001", "uakt", PRICE_PER_BLOCK, 7, 0, 5999, 62690},
    {"100000", "uact", PRICE_PER_BLOCK, 8, 0, 6000, 7500000000},
    {"249", "cents", PRICE_PER_MACHINE_HOUR, 1, 0, 0, 2490000000},
    {"2592", "cents", PRICE_PER_MACHINE_HOUR, 8, 0, 0, 3240000000},
    {"1", "cents", PRICE_PER_MACHINE_HOUR, 3, 0, 0, 3333334},
    {"0.3367", "USD", PRICE_PER_MACHINE_HOUR, 1, 0, 0, 336700000},
    {"0.3367", "USD", PRICE_PER_MACHINE_HOUR, 4, 0, 0, 84175000},
    {"0.33666666666666667", "USD", PRICE_PER_MACHINE_HOUR, 2, 0, 0, 168333334},
    {"0.69", "USD", PRICE_PER_GPU_HOUR, 8, 0, 0, 690000000},
    {"0.69", "USD", PRICE_PER_GPU_HOUR, 0, 0, 0, 690000000},
    {"2.19", "USDC", PRICE_PER_SPAN, 1, 3600, 0, 2190000000},
    {"17.52", "USDC", PRICE_PER_SPAN, 8, 3600, 0, 2190000000},
    {"1000", "USDC", PRICE_PER_SPAN, 8, 86400, 0, 5208333334},
    {"100", "usdc", PRICE_PER_SPAN, 3, 31536000, 0, 3805176},
    {"75548.4000", "USD", PRICE_PER_SPAN, 64, 1209600, 0, 3513225447},
    {"11.111", "USD", PRICE_PER_SPAN, 1, 315360000, 0, 126838},
    {"5.42", "cents", PRICE_PER_MACHINE_MINUTE, 2, 0, 0, 1626000000},
    {"0.00031", "USD", PRICE_PER_MACHINE_SECOND, 1, 0, 0, 1116000000},
    {"0.000000001", "USD", PRICE_PER_GPU_HOUR, 1, 0, 0, 1},
    {"0.0000000001", "USD", PRICE_PER_GPU_HOUR, 1, 0, 0, 1},
    {"0.00000000000000000000000000000000000000000001", "USD", PRICE_PER_GPU_HOUR, 1, 0, 0, 1},
    {"0", "USD", PRICE_PER_GPU_HOUR, 1, 0, 0, 0},
    {"0.000", "uakt", PRICE_PER_BLOCK, 1, 0, 6000, 0},
    {"00012.50", "USD", PRICE_PER_GPU_HOUR, 1, 0, 0, 12500000000},
    {"9223372036.854775807", "USD", PRICE_PER_GPU_HOUR, 1, 0, 0, 9223372036854775807},
    {"18446744073.709551614", "USD", PRICE_PER_MACHINE_HOUR, 2, 0, 0, 9223372036854775807},
    {"604462909807.314587353", "USD", PRICE_PER_MACHINE_HOUR, 65536, 0, 0, 9223372036854776},
    {"0.5", "AKT", PRICE_PER_GPU_HOUR, 1, 0, 0, 365629938},
    {"12345678901234.567890123", "IOCOIN", PRICE_PER_MACHINE_HOUR, 1, 0, 0, 1524157875323876},
    {"1.211068403885", "uact", PRICE_PER_MACHINE_HOUR, 3, 0, 0, 404},
    {"3.443244", "USD", PRICE_PER_MACHINE_HOUR, 72, 0, 0, 47822834},
    {"1.8323741840", "uact", PRICE_PER_BLOCK, 3, 0, 75022, 29310},
    {"204603.6694672344010748", "uact", PRICE_PER_BLOCK, 8, 0, 84935, 1084024858},
    {"86.3163", "IOCOIN", PRICE_PER_MACHINE_SECOND, 72, 0, 0, 532817},
    {"45.69583", "uakt", PRICE_PER_BLOCK, 3, 0, 13236, 3029513},
    {"9.93152470", "IOCOIN", PRICE_PER_GPU_HOUR, 1, 0, 0, 1227},
    {"1.054526914", "IOCOIN", PRICE_PER_MACHINE_MINUTE, 8, 0, 0, 977},
    {"32.6925", "uakt", PRICE_PER_MACHINE_HOUR, 8, 0, 0, 2989},
    {"0.55491736310002", "uact", PRICE_PER_GPU_HOUR, 8, 0, 0, 555},
    {"8949.7", "cents", PRICE_PER_BLOCK, 8, 0, 32645, 1233685097259},
    {"1.6373376703673637", "USD", PRICE_PER_MACHINE_MINUTE, 2, 0, 0, 49120130112},
    {"31.83364250", "USD", PRICE_PER_GPU_HOUR, 3, 0, 0, 31833642500},
    {"663.761639254756", "USD", PRICE_PER_SPAN, 8, 225694, 0, 1323441198},
    {"354975.67143069", "IOCOIN", PRICE_PER_BLOCK, 2, 0, 35317, 2233583879},
    {"721265.79766", "USD", PRICE_PER_BLOCK, 2, 0, 430, 3019252176251162791},
    {"0.66380329", "cents", PRICE_PER_MACHINE_HOUR, 3, 0, 0, 2212678},
    {"432.10917849205180", "uakt", PRICE_PER_SPAN, 3, 878381, 0, 432},
    {"1.63463761119586671", "USD", PRICE_PER_MACHINE_MINUTE, 72, 0, 0, 1362198010},
    {"54.182522257548020", "IOCOIN", PRICE_PER_MACHINE_HOUR, 72, 0, 0, 93},
    {"7970.978", "USD", PRICE_PER_MACHINE_MINUTE, 1, 0, 0, 478258680000000},
    {"365.320095879", "cents", PRICE_PER_SPAN, 3, 982240, 0, 4463106},
    {"6419.24955261929245", "uakt", PRICE_PER_SPAN, 2, 603962, 0, 13991},
    {"1262.62", "IOCOIN", PRICE_PER_MACHINE_MINUTE, 3, 0, 0, 3117581},
};

#define TABLE_ROWS (sizeof(table) / sizeof(table[0]))

static struct price_terms terms_of(size_t row)
{
    return (struct price_terms){.amount = str_of(table[row].amount),
                                .currency = str_of(table[row].currency),
                                .per = table[row].per,
                                .gpus = table[row].gpus,
                                .span_s = table[row].span_s,
                                .block_ms = table[row].block_ms};
}

static void prices_are_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_ROWS; i++) {
        struct price_terms terms = terms_of(i);
        int64_t usd = -1;
        enum error failed = price_terms_usd(&terms, &rates, NOW_MS, &usd);
        if (failed || usd != table[i].usd_nano)
            fail_msg("row %zu, %s %s: %s, %lld and not %lld", i, table[i].amount, table[i].currency, error_text(failed),
                     (long long)usd, (long long)table[i].usd_nano);
    }
}

/* More asked is never less, more GPUs or time for it are never dearer. */
static void prices_are_monotonous(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_ROWS; i++) {
        struct price_terms terms = terms_of(i);
        char more[PRICE_AMOUNT_MAX + 1];
        int64_t usd = 0;
        bool is_whole = !strchr(table[i].amount, '.');
        snprintf(more, sizeof(more), "%s%s1", table[i].amount, is_whole ? "." : "");
        if (strlen(more) < PRICE_AMOUNT_MAX) {
            terms.amount = str_of(more);
            enum error failed = price_terms_usd(&terms, &rates, NOW_MS, &usd);
            assert_true(failed == ERR_OVERFLOW || (!failed && usd >= table[i].usd_nano));
        }
        terms = terms_of(i);
        terms.gpus = (terms.gpus ? terms.gpus : 1) + (terms.gpus < PRICE_GPUS_MAX);
        assert_int_equal(price_terms_usd(&terms, &rates, NOW_MS, &usd), ERR_NONE);
        assert_true(usd <= table[i].usd_nano);
        terms = terms_of(i);
        terms.span_s += terms.span_s < PRICE_SPAN_S_MAX;
        terms.block_ms++;
        assert_int_equal(price_terms_usd(&terms, &rates, NOW_MS, &usd), ERR_NONE);
        assert_true(usd <= table[i].usd_nano);
    }
}

/* All GPUs for the hour together pay at least what is asked, and less than a nano-dollar each too much. */
static void never_below_what_is_asked(void **state)
{
    (void)state;
    for (uint32_t gpus = 1; gpus <= 72; gpus++) {
        for (int64_t nano = 0; nano < 3000; nano += 7) {
            char amount[PRICE_AMOUNT_MAX];
            int64_t usd;
            snprintf(amount, sizeof(amount), "0.%09lld", (long long)nano);
            struct price_terms terms = {str_of(amount), STR("USD"), PRICE_PER_MACHINE_HOUR, gpus, 0, 0, false};
            assert_int_equal(price_terms_usd(&terms, &rates, NOW_MS, &usd), ERR_NONE);
            assert_true(usd * gpus >= nano && usd * gpus < nano + gpus);
        }
    }
}

static enum error ask(const char *amount, const char *currency, struct price_terms terms, int64_t now_ms)
{
    int64_t usd = -1;
    terms.amount = str_of(amount);
    terms.currency = str_of(currency);
    enum error failed = price_terms_usd(&terms, &rates, now_ms, &usd);
    assert_true(failed ? usd == -1 : usd >= 0);
    return failed;
}

static void what_is_no_price(void **state)
{
    (void)state;
    static const char *const bad[] = {"",         " ",
                                      "-1",       "+1",
                                      "1e-3",     "1E3",
                                      ".5",       "5.",
                                      "1.2.3",    "1,5",
                                      " 1",       "1 ",
                                      "0x10",     "nan",
                                      "inf",      "1_0",
                                      "\xd9\xa1", "$1",
                                      ".",        "1-",
                                      "1.-1",     "0.000000000000000000000000000000000000000000000000000000001"};
    struct price_terms hour = {.per = PRICE_PER_GPU_HOUR};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(ask(bad[i], "USD", hour, NOW_MS), ERR_BAD_INPUT);
    assert_int_equal(ask(NULL, "USD", hour, NOW_MS), ERR_BAD_INPUT);
    int64_t usd = 5;
    struct price_terms with_nul = {.amount = {"1\0", 2}, .currency = STR("USD")};
    assert_int_equal(price_terms_usd(&with_nul, &rates, NOW_MS, &usd), ERR_BAD_INPUT);
    assert_int_equal(usd, 5);
    assert_int_equal(ask("1", "EUR", hour, NOW_MS), ERR_NOT_FOUND);
    assert_int_equal(ask("1", "", hour, NOW_MS), ERR_NOT_FOUND);
    assert_int_equal(ask("1", NULL, hour, NOW_MS), ERR_NOT_FOUND);
    assert_int_equal(ask("1", "USD", (struct price_terms){.per = PRICE_PER_SPAN}, NOW_MS), ERR_BAD_INPUT);
    assert_int_equal(ask("1", "USD", (struct price_terms){.per = PRICE_PER_SPAN, .span_s = -1}, NOW_MS), ERR_BAD_INPUT);
    assert_int_equal(ask("1", "USD", (struct price_terms){.per = PRICE_PER_SPAN, .span_s = INT64_MAX}, NOW_MS),
                     ERR_BAD_INPUT);
    assert_int_equal(ask("1", "USD", (struct price_terms){.per = PRICE_PER_BLOCK}, NOW_MS), ERR_BAD_INPUT);
    assert_int_equal(ask("1", "USD", (struct price_terms){.per = PRICE_PER_BLOCK, .block_ms = INT64_MIN}, NOW_MS),
                     ERR_BAD_INPUT);
    assert_int_equal(ask("1", "USD", (struct price_terms){.per = PRICE_PER_COUNT}, NOW_MS), ERR_BAD_INPUT);
    assert_int_equal(ask("1", "USD", (struct price_terms){.gpus = PRICE_GPUS_MAX + 1}, NOW_MS), ERR_BAD_INPUT);
}

static void limits(void **state)
{
    (void)state;
    struct price_terms hour = {.per = PRICE_PER_GPU_HOUR};
    assert_int_equal(ask("9223372036.854775807", "USD", hour, NOW_MS), ERR_NONE);
    assert_int_equal(ask("9223372036.8547758071", "USD", hour, NOW_MS), ERR_OVERFLOW);
    assert_int_equal(ask("9223372036.854775808", "USD", hour, NOW_MS), ERR_OVERFLOW);
    assert_int_equal(ask("18446744073.709551616", "USD", hour, NOW_MS), ERR_OVERFLOW);
    /* the longest of all amounts, at the dearest rate that can be set, for the shortest block */
    char nines[PRICE_AMOUNT_MAX];
    memset(nines, '9', sizeof(nines) - 1);
    nines[sizeof(nines) - 1] = '\0';
    assert_int_equal(rates_set(&rates, STR("DEAR"), STR("999999999999999999"), STR("test"), NOW_MS), ERR_NONE);
    assert_int_equal(ask(nines, "USD", hour, NOW_MS), ERR_OVERFLOW);
    assert_int_equal(ask(nines, "DEAR", (struct price_terms){.per = PRICE_PER_BLOCK, .block_ms = 1}, NOW_MS),
                     ERR_OVERFLOW);
    nines[1] = '.'; /* 9.99..., so the result is as large as the rate */
    assert_int_equal(ask(nines, "IOCOIN", hour, NOW_MS), ERR_NONE);
    /* 10^-47 of 10^-30 rounds up to one nano-dollar */
    assert_int_equal(rates_set(&rates, STR("CHEAP"), STR("0.000000000000000000000000000001"), STR("test"), NOW_MS),
                     ERR_NONE);
    struct price_terms least = {.amount = STR("0.000000000000000000000000000000000000000000001"),
                                .currency = STR("CHEAP"),
                                .per = PRICE_PER_SPAN,
                                .gpus = PRICE_GPUS_MAX,
                                .span_s = PRICE_SPAN_S_MAX};
    int64_t usd = 0;
    assert_int_equal(price_terms_usd(&least, &rates, NOW_MS, &usd), ERR_NONE);
    assert_int_equal(usd, 1);
}

static void old_rates_are_not_used(void **state)
{
    (void)state;
    struct price_terms block = {.per = PRICE_PER_BLOCK, .block_ms = 6000};
    assert_int_equal(ask("100", "uakt", block, NOW_MS + RATES_LIMIT_MS_DEFAULT), ERR_NONE);
    assert_int_equal(ask("100", "uakt", block, NOW_MS + RATES_LIMIT_MS_DEFAULT + 1), ERR_DEADLINE);
    assert_int_equal(ask("100", "uact", block, NOW_MS + 1000 * RATES_LIMIT_MS_DEFAULT), ERR_NONE);
}

static void amounts_of_json(void **state)
{
    (void)state;
    static const struct {
        const char *json, *amount; /* NULL: refused */
    } cases[] = {
        {"0.3367", "0.3367"},
        {"0.1", "0.1"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"0.33666666666666667", "0.33666666666666667"},
        {"1.0", "1"},
        {"2.50", "2.5"},
        {"249", "249"},
        {"0", "0"},
        {"0.0", "0"},
        {"-0.0", "0"},
        {"1e-05", "0.00001"},
        {"1.25e-7", "0.000000125"},
        {"1e-18", "0.000000000000000001"},
        {"1e-19", NULL},
        {"1.5e3", "1500"},
        {"123456.789", "123456.789"},
        {"1e14", "100000000000000"},
        {"123456789012345.6", "123456789012345.6"},
        {"1e15", NULL},
        {"1e300", NULL},
        {"999999999999999", "999999999999999"},
        {"1000000000000000", NULL},
        {"9223372036854775807", NULL},
        {"-1", NULL},
        {"-0.5", NULL},
        {"\"0.3367\"", "0.3367"},
        {"\"2916.000000000000000000\"", "2916.000000000000000000"},
        {"\"249\"", "249"},
        {"\"1e-3\"", NULL},
        {"\"\"", NULL},
        {"\"-1\"", NULL},
        {"\"0.5 USD\"", NULL},
        {"\"nan\"", NULL},
        {"\"1\\u0000\"", NULL},
        {"\"000000000000000000000000000000000000000000000000000000001\"", NULL},
        {"null", NULL},
        {"true", NULL},
        {"[1]", NULL},
        {"{\"a\":1}", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char amount[PRICE_AMOUNT_MAX] = "untouched";
        json_t *value = json_loads(cases[i].json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(value);
        bool is_good = price_amount_of_json(value, amount);
        if (is_good != (cases[i].amount != NULL) || strcmp(amount, is_good ? cases[i].amount : "untouched") != 0)
            fail_msg("%s: %s", cases[i].json, amount);
        json_decref(value);
    }
    char amount[PRICE_AMOUNT_MAX];
    assert_false(price_amount_of_json(NULL, amount));
}

/* Every double comes back as itself, in the fewest digits. */
static void amounts_read_back(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 20000; i++) {
        char amount[PRICE_AMOUNT_MAX], shorter[64];
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        double number = (double)(seed >> 11) * pow(10, (double)(seed % 20) - 24), again = -1;
        if (number >= 1e15 || number < 1e-18)
            continue;
        json_t *value = json_real(number);
        assert_true(price_amount_of_json(value, amount));
        assert_true(str_to_double(str_of(amount), &again) && again == number);
        json_decref(value);
        int digits = 0;
        for (const char *c = amount; *c; c++)
            digits += *c >= '0' && *c <= '9' && (digits || *c != '0');
        snprintf(shorter, sizeof(shorter), "%.*e", digits > 2 ? digits - 2 : 0, number);
        if (digits > 1 && strchr(amount, '.'))
            assert_true(str_to_double(str_of(shorter), &again) && again != number);
    }
}

static void terms_are_told(void **state)
{
    (void)state;
    static const struct {
        struct {
            const char *amount, *currency;
        } of;
        struct price_terms terms;
        const char *text, *json;
    } cases[] = {
        {{"2916.000000000000000000", "uact"},
         {.per = PRICE_PER_BLOCK, .block_ms = 6000, .gpus = 8, .is_estimate = true},
         "2916 uact per block of 6 s for 8 GPUs (estimate)",
         "{\"amount\": \"2916.000000000000000000\", \"block_ms\": 6000, \"currency\": \"uact\", \"gpus\": 8, "
         "\"is_estimate\": true, \"per\": \"block\"}"},
        {{"249", "cents"},
         {.per = PRICE_PER_MACHINE_HOUR},
         "249 cents per hour for 1 GPU",
         "{\"amount\": \"249\", \"currency\": \"cents\", \"gpus\": 1, \"per\": \"machine_hour\"}"},
        {{"0.690", "USD"},
         {.per = PRICE_PER_GPU_HOUR, .gpus = 8},
         "0.69 USD per GPU and hour",
         "{\"amount\": \"0.690\", \"currency\": \"USD\", \"per\": \"gpu_hour\"}"},
        {{"17.52", "USDC"},
         {.per = PRICE_PER_SPAN, .gpus = 8, .span_s = 7200},
         "17.52 USDC per span of 2 h for 8 GPUs",
         "{\"amount\": \"17.52\", \"currency\": \"USDC\", \"gpus\": 8, \"per\": \"span\", \"span_s\": 7200}"},
        {{"1", "USDC"},
         {.per = PRICE_PER_SPAN, .gpus = 1, .span_s = 90},
         "1 USDC per span of 90 s for 1 GPU",
         "{\"amount\": \"1\", \"currency\": \"USDC\", \"gpus\": 1, \"per\": \"span\", \"span_s\": 90}"},
        {{"5.42", "cents"},
         {.per = PRICE_PER_MACHINE_MINUTE, .gpus = 2},
         "5.42 cents per minute for 2 GPUs",
         "{\"amount\": \"5.42\", \"currency\": \"cents\", \"gpus\": 2, \"per\": \"machine_minute\"}"},
        {{"0.000", "USD"},
         {.per = PRICE_PER_MACHINE_SECOND, .gpus = 2},
         "0 USD per second for 2 GPUs",
         "{\"amount\": \"0.000\", \"currency\": \"USD\", \"gpus\": 2, \"per\": \"machine_second\"}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct price_terms terms = cases[i].terms;
        struct buf text;
        buf_init(&text, 200);
        terms.amount = str_of(cases[i].of.amount);
        terms.currency = str_of(cases[i].of.currency);
        assert_true(price_terms_text(&terms, &text));
        assert_true(buf_append(&text, "", 1));
        assert_string_equal(text.ptr, cases[i].text);
        json_t *object = price_terms_json(&terms);
        char *written = json_dumps(object, JSON_SORT_KEYS);
        assert_string_equal(written, cases[i].json);
        free(written);
        json_decref(object);
        buf_free(&text);
    }
    struct price_terms hostile = {.amount = STR("1"), .currency = STR("\xff\xfe"), .per = PRICE_PER_COUNT};
    assert_null(price_terms_json(&hostile));
    assert_string_equal(price_per_text(PRICE_PER_COUNT), "unknown");
    struct buf small;
    buf_init(&small, 4);
    assert_false(price_terms_text(&hostile, &small));
    assert_int_equal(small.len, 0);
    buf_free(&small);
}

static void prices_move(void **state)
{
    (void)state;
    assert_false(price_moved(1000, 1000, 0));
    assert_true(price_moved(1000, 1001, 0));
    assert_false(price_moved(1000, 900, 0));
    assert_false(price_moved(1000, 1050, 500));
    assert_true(price_moved(1000, 1051, 500));
    assert_false(price_moved(999, 1048, 500)); /* 1048.95 */
    assert_true(price_moved(999, 1049, 500));
    assert_true(price_moved(0, 1, 1000000));
    assert_false(price_moved(0, 0, 0));
    assert_false(price_moved(INT64_MAX, INT64_MAX, 0));
    assert_true(price_moved(INT64_MAX - 1, INT64_MAX, 0));
    assert_false(price_moved(INT64_MAX, INT64_MAX, INT64_MAX));
    assert_true(price_moved(1000, 1001, -500)); /* no tolerance, not less than none */
    assert_false(price_moved(1000, 990, -500));
}

static void markups(void **state)
{
    (void)state;
    int64_t usd = -1;
    assert_true(price_with_markup(1749600000, 500, &usd));
    assert_int_equal(usd, 1837080000);
    assert_true(price_with_markup(1749600001, 0, &usd));
    assert_int_equal(usd, 1749600001);
    assert_true(price_with_markup(5, 1000, &usd)); /* 5.5 */
    assert_int_equal(usd, 6);
    assert_true(price_with_markup(15, 1000, &usd)); /* 16.5 */
    assert_int_equal(usd, 16);
    assert_true(price_with_markup(INT64_MAX, 0, &usd));
    assert_true(usd == INT64_MAX);
    usd = -1;
    assert_false(price_with_markup(INT64_MAX, 1, &usd));
    assert_false(price_with_markup(INT64_MAX, INT64_MAX, &usd));
    assert_false(price_with_markup(-1, 0, &usd));
    assert_false(price_with_markup(1, -1, &usd));
    assert_int_equal(usd, -1);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup(function, set_rates)
    const struct CMUnitTest tests[] = {
        TEST(prices_are_exact),
        TEST(prices_are_monotonous),
        TEST(never_below_what_is_asked),
        TEST(what_is_no_price),
        TEST(limits),
        TEST(old_rates_are_not_used),
        TEST(amounts_of_json),
        TEST(amounts_read_back),
        TEST(terms_are_told),
        TEST(prices_move),
        TEST(markups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
