#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "gateway/metrics.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

static char *rendered(struct metrics *const *sets, size_t count)
{
    struct metrics_extra extra = {.workers_by_state = {1, 2, 3, 4},
                                  .redis_connected = 1,
                                  .journal_pending = 5,
                                  .credit_held_usd_nano = 6,
                                  .loop_lag_ns = {1500000, 2},
                                  .reactor_count = 2};
    struct buf text;
    buf_init(&text, 0);
    assert_true(metrics_render(sets, count, &extra, &text));
    assert_true(buf_append(&text, "", 1));
    return text.ptr;
}

static void assert_has(const char *text, const char *line)
{
    const char *at = strstr(text, line);
    if (!at || (at > text && at[-1] != '\n') || at[strlen(line)] != '\n')
        fail_msg("no line %s in\n%s", line, text);
}

static void test_sums_over_sets(void **state)
{
    (void)state;
    struct metrics *sets[] = {metrics_new(), metrics_new()};
    metrics_request(sets[0], 200, STR("m"), STR("native"));
    metrics_request(sets[0], 200, STR("m"), STR("native"));
    metrics_request(sets[1], 200, STR("m"), STR("native"));
    metrics_request(sets[1], 429, STR("m"), STR("native"));
    metrics_request(sets[1], 404, STR(""), STR(""));
    metrics_count(sets[0], METRIC_GPU_MS, 40);
    metrics_count(sets[1], METRIC_GPU_MS, 2);
    metrics_count(sets[1], METRIC_COMPLETION_TOKENS, 9);
    metrics_gauge_add(sets[0], METRIC_CALLS_RUNNING, 3);
    metrics_gauge_add(sets[1], METRIC_CALLS_RUNNING, -1);
    metrics_observe(sets[0], METRIC_QUEUE_WAIT, STR("m"), STR("native"), 50 * NS_PER_US);
    metrics_observe(sets[1], METRIC_QUEUE_WAIT, STR("m"), STR("native"), 50 * NS_PER_US + 1);
    metrics_observe(sets[1], METRIC_QUEUE_WAIT, STR("m"), STR("native"), 100 * NS_PER_S);
    metrics_observe(sets[1], METRIC_QUEUE_WAIT, STR("m"), STR("native"), -1);
    char *text = rendered(sets, 2);
    assert_has(text, "sluice_requests_total{status=\"200\",model=\"m\",network=\"native\"} 3");
    assert_has(text, "sluice_requests_total{status=\"429\",model=\"m\",network=\"native\"} 1");
    assert_has(text, "sluice_requests_total{status=\"404\",model=\"\",network=\"\"} 1");
    assert_has(text, "sluice_gpu_milliseconds_total 42");
    assert_has(text, "sluice_tokens_total{kind=\"completion\"} 9");
    assert_has(text, "sluice_calls_running 2");
    assert_has(text, "sluice_workers{state=\"suspended\"} 4");
    assert_has(text, "sluice_loop_lag_seconds{reactor=\"0\"} 0.001500000");
    assert_has(text, "sluice_queue_wait_seconds_bucket{model=\"m\",network=\"native\",le=\"5e-05\"} 2");
    assert_has(text, "sluice_queue_wait_seconds_bucket{model=\"m\",network=\"native\",le=\"0.0001\"} 3");
    assert_has(text, "sluice_queue_wait_seconds_bucket{model=\"m\",network=\"native\",le=\"60\"} 3");
    assert_has(text, "sluice_queue_wait_seconds_bucket{model=\"m\",network=\"native\",le=\"+Inf\"} 4");
    assert_has(text, "sluice_queue_wait_seconds_count{model=\"m\",network=\"native\"} 4");
    assert_has(text, "sluice_queue_wait_seconds_sum{model=\"m\",network=\"native\"} 100.000100001");
    struct metrics_totals totals;
    assert_true(metrics_totals(sets, 2, &totals));
    assert_int_equal(totals.requests, 5);
    assert_int_equal(totals.by_class[2], 3);
    assert_int_equal(totals.by_class[4], 2);
    assert_int_equal(totals.counters[METRIC_GPU_MS], 42);
    free(text);
    metrics_free(sets[0]);
    metrics_free(sets[1]);
}

static void test_quantiles(void **state)
{
    (void)state;
    struct metrics *set = metrics_new();
    for (int i = 0; i < 98; i++)
        metrics_observe(set, METRIC_FIRST_TOKEN, STR("m"), STR("n"), 3 * NS_PER_MS);
    for (int i = 0; i < 2; i++)
        metrics_observe(set, METRIC_FIRST_TOKEN, STR("m"), STR("n"), 40 * NS_PER_S);
    struct metrics_totals totals;
    assert_true(metrics_totals(&set, 1, &totals));
    assert_true(totals.p50_ns[METRIC_FIRST_TOKEN] > 2.5e6 && totals.p50_ns[METRIC_FIRST_TOKEN] < 5e6);
    assert_true(totals.p99_ns[METRIC_FIRST_TOKEN] > 30e9 && totals.p99_ns[METRIC_FIRST_TOKEN] <= 60e9);
    assert_true(fabs(totals.p50_ns[METRIC_QUEUE_WAIT]) < 1e-9);
    metrics_free(set);
}

static void test_hostile_names(void **state)
{
    (void)state;
    struct metrics *set = metrics_new();
    char longest[400];
    memset(longest, 'x', sizeof(longest));
    metrics_request(set, 200, STR("a\"b\\c\nd"), STR("n\"}"));
    metrics_request(set, 200, STR("bad\xff"), STR("n"));
    metrics_request(set, 200, STR("caf\xc3\xa9"), STR("n"));
    metrics_request(set, 200, (struct str){longest, sizeof(longest)}, STR("n"));
    char *text = rendered(&set, 1);
    assert_has(text, "sluice_requests_total{status=\"200\",model=\"a\\\"b\\\\c?d\",network=\"n\\\"}\"} 1");
    assert_has(text, "sluice_requests_total{status=\"200\",model=\"bad?\",network=\"n\"} 1");
    assert_has(text, "sluice_requests_total{status=\"200\",model=\"caf\xc3\xa9\",network=\"n\"} 1");
    free(text);
    metrics_free(set);
}

static void test_bounded(void **state)
{
    (void)state;
    struct metrics *set = metrics_new();
    char name[32];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 600; i++) {
            snprintf(name, sizeof(name), "model-%d", i);
            metrics_request(set, 200, str_of(name), STR("n"));
        }
    }
    for (int status = 300; status < 340; status++)
        metrics_request(set, status, STR("model-1"), STR("n"));
    char *text = rendered(&set, 1);
    assert_has(text, "sluice_requests_total{status=\"200\",model=\"model-511\",network=\"n\"} 2");
    assert_has(text, "sluice_requests_total{status=\"200\",model=\"other\",network=\"other\"} 176");
    assert_null(strstr(text, "model-512"));
    /* The first 22 statuses after 200 have their own count, the other 18 share one. */
    assert_has(text, "sluice_requests_total{status=\"321\",model=\"model-1\",network=\"n\"} 1");
    assert_has(text, "sluice_requests_total{status=\"other\",model=\"model-1\",network=\"n\"} 18");
    free(text);
    metrics_free(set);
}

static void test_promtool(void **state)
{
    (void)state;
    if (system("command -v promtool >/dev/null 2>&1") != 0)
        skip(); /* promtool is not installed */
    struct metrics *set = metrics_new();
    metrics_request(set, 200, STR("a\"b\\c\nd\xff"), STR("native"));
    for (int h = 0; h < METRIC_HISTOGRAM_COUNT; h++)
        metrics_observe(set, (enum metric_histogram)h, STR("m"), STR("native"), h * NS_PER_MS);
    char *text = rendered(&set, 1);
    char path[] = "/tmp/sluice-metrics-XXXXXX", command[96], line[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    snprintf(command, sizeof(command), "promtool check metrics <%s 2>&1", path);
    FILE *tool = popen(command, "r");
    assert_non_null(tool);
    /* That name is promised as it is; its unit is the one remark that may come. */
    while (fgets(line, sizeof(line), tool)) {
        if (strncmp(line, "sluice_gpu_milliseconds_total ", 30) != 0)
            fail_msg("promtool: %s", line);
    }
    pclose(tool);
    unlink(path);
    free(text);
    metrics_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_over_sets), cmocka_unit_test(test_quantiles), cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_bounded),        cmocka_unit_test(test_promtool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
