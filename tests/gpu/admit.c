/* Admissions and spot checks of a device, both ends in this process: what an honest worker without a network between
 * gets, and how long it takes. check_gpu.sh builds and runs it on a machine with a GPU.
 *
 * usage: admit BACKEND COUNT [CLASS]. A line of JSON for each purpose; exit code 0 only if every session passed. */
#include "core/clock.h"
#include "core/config.h"
#include "core/log.h"
#include "probes/prover.h"
#include "probes/verifier.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT_MAX 1000
#define RESUMES_MAX 3000 /* of 20 ms: a chain is prepared in a second or so */

struct tool {
    const struct catalogue *catalogue;
    struct chain_pool *pool;
    struct prover *prover;
    struct str claimed;
};

struct outcome {
    double ms; /* without waiting for the chain's preparation */
    double rate[VERIFY_STEPS_MAX], ratio;
    bool is_passed;
};

/* One session; false: it could not be run at all. */
static bool session_run(const struct tool *tool, enum verify_purpose purpose, struct outcome *ret,
                        struct verify_report *ret_report)
{
    const struct verify_options options = {
        .purpose = purpose, .catalogue = tool->catalogue, .pool = tool->pool, .claimed_gpu = tool->claimed};
    struct verify_session *session = NULL;
    struct verify_send send;
    struct buf answer;
    int64_t spent_ns = 0;
    bool is_fine = true;
    if (verify_open(&options, &session) != ERR_NONE)
        return false;
    buf_init(&answer, PROBE_FRAME_MAX);
    enum verify_next next = verify_start(session, &send);
    for (unsigned waits = 0; next != VERIFY_DONE && is_fine;) {
        if (next == VERIFY_WAIT) {
            (void)nanosleep(&(struct timespec){.tv_nsec = 20 * NS_PER_MS}, NULL);
            is_fine = ++waits < RESUMES_MAX;
            next = verify_resume(session, &send);
            continue;
        }
        buf_clear(&answer);
        const int64_t start_ns = clock_mono_ns();
        is_fine = prover_answer(tool->prover, send.frame, &answer) == ERR_NONE;
        const int64_t took_ns = clock_mono_ns() - start_ns;
        if (is_fine)
            next = verify_answer(session, buf_str(&answer), took_ns, &send);
        spent_ns += clock_mono_ns() - start_ns;
    }
    const struct verify_report *report = verify_report(session);
    *ret_report = *report;
    ret->ms = (double)spent_ns / 1e6;
    ret->ratio = report->ratio;
    ret->is_passed = report->result == VERIFY_PASSED;
    (void)verify_free(session);
    buf_free(&answer);
    return is_fine;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* False: not all passed. */
static bool purpose_run(const struct tool *tool, enum verify_purpose purpose, const char *name, unsigned count)
{
    static double ms[COUNT_MAX], ratios[COUNT_MAX];
    struct verify_report report = {0};
    unsigned passed = 0, done = 0;
    for (; done < count; done++) {
        struct outcome outcome;
        if (!session_run(tool, purpose, &outcome, &report))
            break;
        ms[done] = outcome.ms;
        ratios[done] = outcome.ratio;
        passed += outcome.is_passed;
        if (!outcome.is_passed)
            fprintf(stderr, "%s %u: %s: %s\n", name, done, verify_result_name(report.result), report.reason);
    }
    if (done == 0)
        return false;
    qsort(ms, done, sizeof ms[0], by_size);
    qsort(ratios, done, sizeof ratios[0], by_size);
    printf("{\"purpose\": \"%s\", \"passed\": %u, \"of\": %u, \"ms_median\": %.1f, \"ms_max\": %.1f, \"ratio_least\": "
           "%.3f, \"ratio_median\": %.3f, \"class\": \"%s\", \"steps\": {",
           name, passed, count, ms[done / 2], ms[done - 1], ratios[0], ratios[done / 2],
           report.proven_class != NULL ? report.proven_class->name : "");
    for (unsigned i = 0; i < report.step_count; i++)
        printf("%s\"%s\": {\"ms\": %.1f, \"rate\": %.4g, \"unit\": \"%s\"}", i > 0 ? ", " : "", report.steps[i].kind,
               (double)report.steps[i].took_ns / 1e6, report.steps[i].rate,
               report.steps[i].unit != NULL ? report.steps[i].unit : "");
    puts("}}");
    return passed == count;
}

int main(int argc, char **argv)
{
    char why[CONFIG_ERROR_MAX];
    int64_t count = 0;
    struct tool tool = {0};
    struct catalogue *catalogue = NULL;
    struct signing_key *key = NULL;
    const struct probe_backend_ops *ops =
        argc > 1 && strcmp(argv[1], "cuda") == 0 ? &probe_backend_cuda : &probe_backend_cpu;
    log_init("admit", LOG_WARN);
    if (argc < 3 || !str_to_i64(str_of(argv[2]), &count) || count < 1 || count > COUNT_MAX) {
        fputs("usage: admit BACKEND COUNT [CLASS]\n", stderr);
        return 2;
    }
    if (ops->count() == 0) {
        fputs("admit: no such device here\n", stderr);
        return 1;
    }
    if (argc > 3)
        tool.claimed = str_of(argv[3]);
    bool is_fine = catalogue_open(NULL, &catalogue, why) == ERR_NONE && chain_pool_open(2, &tool.pool) == ERR_NONE &&
                   signing_key_new(&key) == ERR_NONE;
    const struct prover_options options = {.backend = ops, .key = key, .devices = 1};
    is_fine = is_fine && prover_open(&options, &tool.prover) == ERR_NONE;
    tool.catalogue = catalogue;
    if (is_fine) {
        is_fine = purpose_run(&tool, VERIFY_ADMISSION, "admission", (unsigned)count);
        is_fine = purpose_run(&tool, VERIFY_SPOT, "spot", (unsigned)count) && is_fine;
    }
    (void)prover_free(tool.prover);
    (void)signing_key_free(key);
    (void)chain_pool_free(tool.pool);
    (void)catalogue_free(catalogue);
    return is_fine ? 0 : 1;
}
