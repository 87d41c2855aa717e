#include "tests/unit/cmocka_all.h"

#include "core/money.h"
#include "tests/unit/market_fixture.h"
#include "scheduler/market_columns.h"

#include <math.h>
#include <string.h>

#define assert_near(a, b, off) assert_true(fabs((double)(a) - (double)(b)) <= (off))
#define assert_str(view, text) assert_true(str_eq((view), STR(text)))

static void empty(void **state)
{
    (void)state;
    struct market *market = NULL;
    assert_int_equal(market_build(NULL, 0, NULL, 0, &market), ERR_NONE);
    assert_int_equal(market_count(market), 0);
    assert_int_equal(market_model_count(market), 0);
    assert_int_equal(market_model(market, STR("llama"), NULL), MARKET_NONE);
    assert_ptr_equal(market_ref(market), market);
    assert_null(market_unref(market));
    assert_null(market_unref(market));
    assert_null(market_unref(NULL));
}

static void rows(void **state)
{
    (void)state;
    struct worker *worker = fixture_worker(1);
    struct offer offers[2] = {fixture_offer(worker, CENTS(120)), {.id = STR("off_1"), .interruptible = true}};
    offers[0].gpus = 8;
    offers[0].take_rate_bps = 1000;
    offers[0].vram_bytes = UINT64_C(80) << 30;
    offers[0].observed_at_ms = 12345;
    offers[0].claimed = STR("nvidia/h200-sxm-141");
    offers[0].performance = 0.5;
    offers[0].claimed_performance = 0.25;
    offers[0].reputation_scores[REPUTATION_NETWORK] = 0.75;
    struct market *market = NULL;
    assert_int_equal(market_build(offers, 2, NULL, 0, &market), ERR_NONE);
    memset(offers, 0, sizeof(offers)); /* texts were borrowed for the call only */
    assert_int_equal(market_count(market), 2);
    assert_str(market_id(market, 0), "wrk_0001");
    assert_str(market_network(market, 0), "native");
    assert_str(market_gpu(market, 0), "nvidia/h100-sxm-80");
    assert_str(market_gpu_raw(market, 0), "NVIDIA H100 80GB HBM3");
    assert_str(market_region(market, 0), "eu-west");
    assert_str(market_supplier(market, 0), "acme");
    assert_int_equal(market_price(market, 0), 1200000000);
    assert_int_equal(market_gpus(market, 0), 8);
    assert_int_equal(market_slots(market, 0), 4);
    assert_int_equal(market_take_rate_bps(market, 0), 1000);
    assert_int_equal(market_vram_bytes(market, 0), UINT64_C(80) << 30);
    assert_int_equal(market_latency_ns(market, 0), NS_PER_MS);
    assert_int_equal(market_observed_at_ms(market, 0), 12345);
    assert_near(market_reputation(market, 0), 0.5, 1e-6);
    assert_near(market_reputation_score(market, 0, REPUTATION_NETWORK), 0.75, 1e-6);
    assert_near(market_reputation_score(market, 0, REPUTATION_HARDWARE), 0, 1e-6);
    assert_str(market_claimed(market, 0), "nvidia/h200-sxm-141");
    assert_near(market_performance(market, 0), 0.5, 1e-6);
    assert_int_equal(market_effective_price(market, 0), 4800000000); /* a quarter of what it claims to be */
    assert_near((double)market->price_effective[0], 2.4, 1e-6);      /* ranked among what it is sold as */
    assert_false(market_is_interruptible(market, 0));
    assert_ptr_equal(market_worker(market, 0), worker);
    assert_int_equal(atomic_load(&worker->refs), 2);

    assert_str(market_id(market, 1), "off_1");
    assert_str(market_region(market, 1), "");
    assert_int_equal(market_gpus(market, 1), 1); /* at least one */
    assert_str(market_claimed(market, 1), "");
    assert_int_equal(market_effective_price(market, 1), 0);
    assert_true(market_is_interruptible(market, 1));
    assert_null(market_worker(market, 1));
    market_unref(market);
    assert_int_equal(atomic_load(&worker->refs), 1);
    worker_unref(worker);
}

static void models_and_aliases(void **state)
{
    (void)state;
    const struct str both[] = {STR("a"), STR("b"), STR("a")}, only_b[] = {STR("b")}, secret[] = {STR("c")};
    const struct model_alias aliases[] = {
        {STR("gpt-4o-mini"), STR("b")}, {STR("b"), STR("a")}, {STR("ghost"), STR("c")}, {STR("a"), STR("gone")}};
    struct worker *workers[3];
    struct offer offers[3];
    for (uint32_t i = 0; i < 3; i++) {
        workers[i] = fixture_worker(i);
        offers[i] = fixture_offer(workers[i], CENTS(100));
    }
    offers[0].models = both;
    offers[0].model_count = 3;
    offers[1].models = only_b;
    offers[2].models = secret;
    offers[2].is_ready = false;
    struct market *market = NULL;
    assert_int_equal(market_build(offers, 3, aliases, 4, &market), ERR_NONE);
    assert_int_equal(market_model_count(market), 2);

    struct str target = STR("untouched");
    assert_int_equal(market_model(market, STR("c"), &target), MARKET_NONE); /* its worker is not ready */
    assert_int_equal(market_model(market, STR("ghost"), &target), MARKET_NONE);
    assert_int_equal(market_model(market, STR("A"), &target), MARKET_NONE); /* models mind their case */
    assert_str(target, "untouched");
    uint32_t b = market_model(market, STR("gpt-4o-mini"), &target);
    assert_str(target, "b");
    assert_str(market_model_name(market, b), "b");
    size_t count;
    const uint32_t *replicas = market_replicas(market, b, &count);
    assert_int_equal(count, 2);
    assert_int_equal(replicas[0], 0);
    assert_int_equal(replicas[1], 1);
    uint32_t a = market_model(market, STR("b"), &target); /* the operator's alias wins */
    assert_str(target, "a");
    replicas = market_replicas(market, a, &count);
    assert_int_equal(count, 1); /* though listed twice */
    assert_int_equal(replicas[0], 0);
    assert_int_equal(market_model(market, STR("a"), &target), a); /* an alias to nothing does not hide a model */
    market_unref(market);
    for (uint32_t i = 0; i < 3; i++)
        worker_unref(workers[i]);
}

/* By the row, and by the text alone: they agree. */
static bool has(const struct market *market, const struct offer *offers, uint32_t row, const char *require)
{
    struct tag_filter filter;
    tag_filter_make(market, str_of(require), &filter);
    bool fits = tag_filter_fits(market, &filter, row);
    assert_int_equal(offer_has_tags(offers[row].tags, str_of(require)), fits);
    return fits;
}

static void tags(void **state)
{
    (void)state;
    struct offer offers[3] = {{.tags = STR("gdpr, HIPAA,,")}, {.tags = STR("gdpr")}, {.gpus = 1}};
    struct market *market = NULL;
    assert_int_equal(market_build(offers, 3, NULL, 0, &market), ERR_NONE);
    assert_true(has(market, offers, 0, "hipaa,GDPR"));
    assert_true(has(market, offers, 0, " gdpr , "));
    assert_false(has(market, offers, 1, "gdpr,hipaa"));
    assert_true(has(market, offers, 1, "gdpr"));
    assert_false(has(market, offers, 2, "gdpr"));
    assert_true(has(market, offers, 2, ""));
    assert_false(has(market, offers, 0, "gdp"));
    assert_false(has(market, offers, 0, "soc2"));
    market_unref(market);
}

/* A supplier who floods the market with tags must not hide those of the others. */
static void more_tags_than_bits(void **state)
{
    (void)state;
    enum { OFFERS = 40 };
    struct offer offers[OFFERS];
    memset(offers, 0, sizeof(offers));
    static char texts[OFFERS][128];
    for (int i = 0; i < OFFERS - 1; i++) {
        snprintf(texts[i], sizeof(texts[i]), "junk%d-a,junk%d-b,junk%d-c", i, i, i);
        offers[i].tags = str_of(texts[i]);
    }
    offers[OFFERS - 1].tags = STR("junk0-a,gdpr");
    struct market *market = NULL;
    assert_int_equal(market_build(offers, OFFERS, NULL, 0, &market), ERR_NONE);
    assert_true(has(market, offers, OFFERS - 1, "GDPR,junk0-a"));
    assert_false(has(market, offers, 0, "gdpr"));
    assert_false(has(market, offers, OFFERS - 1, "gdpr,junk1-a"));
    market_unref(market);
}

static void medians(void **state)
{
    (void)state;
    static const int64_t prices[] = {5, 5, 900000, 1, 3, 5, 2};
    struct offer offers[7];
    memset(offers, 0, sizeof(offers));
    for (int i = 0; i < 7; i++) {
        offers[i].price_usd_nano = prices[i] * USD_NANO;
        offers[i].performance = offers[i].completion = 1;
        offers[i].gpu = i < 3 ? STR("x") : STR("y");
    }
    struct market *market = NULL;
    assert_int_equal(market_build(offers, 7, NULL, 0, &market), ERR_NONE);
    assert_near(market->price_median, 5, 1e-6);
    assert_near(market->gpu_price_median[0], 5, 1e-6);
    assert_near(market->gpu_price_median[1], 2, 1e-6); /* the lower of 2 and 3 */
    assert_int_equal(market->gpu_rows[0], 3);
    assert_int_equal(market->gpu_rows[1], 4);
    market_unref(market);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void medians_of_random_prices(void **state)
{
    (void)state;
    static struct offer offers[300];
    float sorted[300];
    srand(1);
    for (size_t count = 1; count <= 300; count += 13) {
        int spread = rand() % 50 + 1;
        for (size_t i = 0; i < count; i++) {
            offers[i] =
                (struct offer){.price_usd_nano = (rand() % spread) * USD_NANO, .performance = 1, .completion = 1};
            sorted[i] = (float)(offers[i].price_usd_nano / USD_NANO);
        }
        qsort(sorted, count, sizeof(*sorted), compare_floats);
        struct market *market = NULL;
        assert_int_equal(market_build(offers, count, NULL, 0, &market), ERR_NONE);
        assert_true(market->price_median == sorted[(count - 1) / 2]);
        market_unref(market);
    }
}

static void nonsense_stays_finite(void **state)
{
    (void)state;
    struct offer offers[2] = {{.performance = 0, .completion = -1, .price_usd_nano = INT64_MAX, .reputation = 7},
                              {.performance = 0, .price_usd_nano = -5, .latency_ns = -1, .reputation = -1}};
    offers[1].completion = __builtin_nan("");
    offers[1].reputation = __builtin_nan("");
    struct market *market = NULL;
    assert_int_equal(market_build(offers, 2, NULL, 0, &market), ERR_NONE);
    for (uint32_t row = 0; row < 2; row++) {
        assert_true(__builtin_isfinite(market->price_effective[row]));
        assert_true(market_effective_price(market, row) >= 0);
        assert_true(market->latency_part[row] >= 0 && market->latency_part[row] <= 1);
        assert_true(market->reputation_part[row] >= 0 && market->reputation_part[row] <= 1);
    }
    assert_int_equal(market_price(market, 1), 0);
    market_unref(market);
}

static void many_distinct_texts(void **state)
{
    (void)state;
    enum { OFFERS = 5000 };
    struct offer *offers = calloc(OFFERS, sizeof(*offers));
    char(*texts)[24] = calloc(OFFERS, sizeof(*texts));
    for (int i = 0; i < OFFERS; i++) {
        snprintf(texts[i], sizeof(texts[i]), "Region-%d", i);
        offers[i].id = offers[i].region = offers[i].supplier = str_of(texts[i]);
    }
    struct market *market = NULL;
    assert_int_equal(market_build(offers, OFFERS, NULL, 0, &market), ERR_NONE);
    for (uint32_t i = 0; i < OFFERS; i++) {
        assert_true(str_eq(market_region(market, i), str_of(texts[i])));
        assert_true(str_eq(market_id(market, i), str_of(texts[i])));
        texts[i][0] = 'r';
        assert_int_equal(intern_find(market, &market->regions, str_of(texts[i])), market->region[i]);
        assert_int_equal(intern_find(market, &market->suppliers, str_of(texts[i])), MARKET_NONE);
    }
    market_unref(market);
    free(texts);
    free(offers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty),
        cmocka_unit_test(rows),
        cmocka_unit_test(models_and_aliases),
        cmocka_unit_test(tags),
        cmocka_unit_test(more_tags_than_bits),
        cmocka_unit_test(medians),
        cmocka_unit_test(medians_of_random_prices),
        cmocka_unit_test(nonsense_stays_finite),
        cmocka_unit_test(many_distinct_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
