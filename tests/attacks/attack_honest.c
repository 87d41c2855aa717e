/* Honest runs: a thousand admissions of the real `sluice-probe serve` over its pipes, with real times, while a busy
 * loop loads each of two CPUs. All must pass. ATTACK_ADMISSIONS: how many (1,000). */
#include "core/clock.h"
#include "core/config.h"
#include "tests/attacks/world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LANES 4 /* probes side by side, each with a session at a time */
#define LOOPS 2
#define ADMISSIONS_MAX 100000
#define ENVELOPE 12

static struct catalogue *catalogue;
static struct chain_pool *pool;

struct lane {
    pthread_t thread;
    pid_t pid;
    int to, from;
    uint64_t id;
    unsigned wanted, passed;
    double *ms, *cpu_ms;
    char reason[128]; /* of the first that did not pass */
};

static void die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static pid_t loop_start(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        die_with_parent();
        for (volatile uint64_t n = 0;; n++)
            ;
    }
    must(pid > 0, "no process");
    return pid;
}

static void probe_start(struct lane *lane, const char *path)
{
    int in[2], out[2];
    must(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "no pipe");
    lane->pid = fork();
    if (lane->pid == 0) {
        die_with_parent();
        if (dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1)
            execl(path, path, "serve", "--backend", "cpu", (char *)NULL);
        _exit(127);
    }
    must(lane->pid > 0, "no process");
    close(in[0]);
    close(out[1]);
    lane->to = in[1];
    lane->from = out[0];
}

static void put_all(int fd, const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = write(fd, (const char *)bytes + done, len - done);
        must(n > 0 || (n < 0 && errno == EINTR), "the probe does not read");
        done += n > 0 ? (size_t)n : 0;
    }
}

static void get_all(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = read(fd, (char *)to + done, len - done);
        must(n > 0 || (n < 0 && errno == EINTR), "the probe has ended");
        done += n > 0 ? (size_t)n : 0;
    }
}

static int64_t exchange(struct lane *lane, struct str frame, struct buf *answer)
{
    uint8_t head[ENVELOPE];
    const uint64_t id = ++lane->id;
    const int64_t sent_ns = clock_mono_ns();
    for (unsigned i = 0; i < 4; i++)
        head[i] = (uint8_t)(frame.len >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        head[4 + i] = (uint8_t)(id >> (8 * i));
    put_all(lane->to, head, sizeof(head));
    put_all(lane->to, frame.ptr, frame.len);
    get_all(lane->from, head, sizeof(head));
    size_t len = 0;
    uint64_t of = 0;
    for (unsigned i = 4; i-- > 0;)
        len = len << 8 | head[i];
    for (unsigned i = 8; i-- > 0;)
        of = of << 8 | head[4 + i];
    must(of == id && len > 0 && len <= PROBE_FRAME_MAX, "not the probe's envelope");
    buf_clear(answer);
    must(buf_reserve(answer, len), "no memory");
    get_all(lane->from, answer->ptr, len);
    answer->len = len;
    return clock_mono_ns() - sent_ns;
}

static void admit(struct lane *lane, unsigned number)
{
    const struct verify_options options = {.purpose = VERIFY_ADMISSION, .catalogue = catalogue, .pool = pool};
    struct verify_session *session;
    struct verify_send send;
    struct buf answer;
    const int64_t start_ns = clock_mono_ns();
    buf_init(&answer, PROBE_FRAME_MAX);
    must(!verify_open(&options, &session), "no session");
    enum verify_next next = verify_start(session, &send);
    while (next != VERIFY_DONE) {
        if (next == VERIFY_WAIT) {
            usleep(1000);
            next = verify_resume(session, &send);
            continue;
        }
        const int64_t took_ns = exchange(lane, send.frame, &answer);
        next = verify_answer(session, buf_str(&answer), took_ns, &send);
    }
    const struct verify_report *report = verify_report(session);
    const bool is_cpu = report->proven_class && strcmp(report->proven_class->name, "cpu") == 0;
    lane->passed += report->result == VERIFY_PASSED && is_cpu;
    if (report->result != VERIFY_PASSED && !lane->reason[0])
        snprintf(lane->reason, sizeof(lane->reason), "%s: %s", verify_result_name(report->result), report->reason);
    lane->ms[number] = (double)(clock_mono_ns() - start_ns) / 1e6;
    lane->cpu_ms[number] = (double)report->cpu_ns / 1e6;
    verify_free(session);
    buf_free(&answer);
}

static void *lane_main(void *ctx)
{
    struct lane *lane = ctx;
    for (unsigned i = 0; i < lane->wanted; i++)
        admit(lane, i);
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_percentiles(const char *what, double *values, unsigned count)
{
    qsort(values, count, sizeof(values[0]), by_size);
    printf("%-28s p50 %7.1f   p90 %7.1f   p99 %7.1f   most %7.1f ms\n", what, values[count / 2], values[count * 9 / 10],
           values[count * 99 / 100], values[count - 1]);
}

static void probe_path(const char *program, char ret[static 512])
{
    const char *slash = strrchr(program, '/');
    snprintf(ret, 512, "%.*s/../sluice-probe", slash ? (int)(slash - program) : 1, slash ? program : ".");
}

int main(int argc, char **argv)
{
    const char *text = getenv("ATTACK_ADMISSIONS");
    char why[CONFIG_ERROR_MAX] = "", path[512];
    int64_t count = 1000;
    struct lane lanes[LANES] = {0};
    pid_t loops[LOOPS];
    unsigned passed = 0;
    (void)argc;
    if (text)
        must(str_to_i64(str_of(text), &count) && count >= LANES && count <= ADMISSIONS_MAX, "ATTACK_ADMISSIONS");
    double *ms = calloc((size_t)count, sizeof(*ms)), *cpu_ms = calloc((size_t)count, sizeof(*cpu_ms));
    must(ms && cpu_ms, "no memory");
    signal(SIGPIPE, SIG_IGN);
    probe_path(argv[0], path);
    for (unsigned i = 0; i < LOOPS; i++)
        loops[i] = loop_start();
    for (unsigned i = 0; i < LANES; i++)
        probe_start(&lanes[i], path);
    must(!catalogue_open(NULL, &catalogue, why), why);
    must(!chain_pool_open(1, &pool), "no pool");
    const int64_t start_ns = clock_mono_ns();
    for (unsigned i = 0, at = 0; i < LANES; i++) {
        lanes[i].wanted = (unsigned)count / LANES + (i < (unsigned)count % LANES);
        lanes[i].ms = ms + at;
        lanes[i].cpu_ms = cpu_ms + at;
        at += lanes[i].wanted;
        must(pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < LANES; i++) {
        pthread_join(lanes[i].thread, NULL);
        close(lanes[i].to);
        passed += lanes[i].passed;
        if (lanes[i].reason[0])
            printf("not passed: %s\n", lanes[i].reason);
    }
    const double total_s = (double)(clock_mono_ns() - start_ns) / 1e9;
    for (unsigned i = 0; i < LANES; i++) {
        int status;
        must(waitpid(lanes[i].pid, &status, 0) == lanes[i].pid, "no child");
        close(lanes[i].from);
        must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the probe failed");
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        kill(loops[i], SIGKILL);
        waitpid(loops[i], NULL, 0);
    }
    printf("\nHonest: %u of %u admissions passed as cpu in %.1f s, beside %d busy loops\n", passed, (unsigned)count,
           total_s, LOOPS);
    print_percentiles("an admission", ms, (unsigned)count);
    print_percentiles("CPU of the verifier for it", cpu_ms, (unsigned)count);
    chain_pool_free(pool);
    catalogue_free(catalogue);
    free(ms);
    free(cpu_ms);
    return passed == (unsigned)count ? 0 : 1;
}
