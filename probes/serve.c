/* One thread reads requests into a short queue, a few answer them, and whoever has an answer writes it. */
#include "probes/serve.h"
#include "core/clock.h"
#include "core/crypto.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_MAX 48 /* requests read and not begun; more wait in the pipe */
#define THREADS_MAX (PROBE_DEVICES_MAX + 2)
#define END_MS 500
#define LATE_S 60
#define GARBAGE_MAX 512

struct job {
    struct job *next;
    uint64_t id;
    struct buf frame;
};

struct serve {
    struct serve_options options;
    pthread_mutex_t lock, out_lock;
    pthread_cond_t work, change; /* work: a job came, or the end; change: a job was taken or done */
    struct job *first, **end;
    unsigned queued, running;
    bool is_ending, is_out_broken;
};

bool serve_fault_parse(struct str name, enum serve_fault *ret)
{
    static const struct {
        struct str name;
        enum serve_fault fault;
    } all[] = {
        {STR(""), SERVE_HONEST},       {STR("wrong-proof"), SERVE_WRONG_PROOF}, {STR("late-proof"), SERVE_LATE_PROOF},
        {STR("silent"), SERVE_SILENT}, {STR("garbage"), SERVE_GARBAGE},         {STR("oversize"), SERVE_OVERSIZE}};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (str_eq(name, all[i].name)) {
            *ret = all[i].fault;
            return true;
        }
    return false;
}

/* -- reading and writing -- */

static bool wait_for(int fd, short events)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};
    return poll(&poll_fd, 1, -1) >= 0 || errno == EINTR;
}

/* ERR_CLOSED: the end came before the first byte. */
static enum error read_all(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = read(fd, (char *)to + done, len - done);
        if (got > 0)
            done += (size_t)got;
        else if (got == 0)
            return done == 0 ? ERR_CLOSED : ERR_PROTOCOL;
        else if (errno == EAGAIN ? !wait_for(fd, POLLIN) : errno != EINTR)
            return ERR_SYSTEM;
    }
    return ERR_NONE;
}

static bool write_all(int fd, const uint8_t *head, size_t head_len, struct str body)
{
    size_t total = head_len + body.len;
    for (size_t done = 0; done < total;) {
        size_t of_head = done < head_len ? done : head_len, of_body = done - of_head;
        struct iovec parts[2] = {{(void *)(uintptr_t)(head + of_head), head_len - of_head},
                                 {(void *)(uintptr_t)(body.ptr + of_body), body.len - of_body}};
        ssize_t put = writev(fd, parts, 2);
        if (put >= 0)
            done += (size_t)put;
        else if (errno == EAGAIN ? !wait_for(fd, POLLOUT) : errno != EINTR)
            return false;
    }
    return true;
}

static void put_answer(struct serve *serve, uint64_t id, struct str frame)
{
    uint8_t head[SERVE_HEAD];
    for (unsigned i = 0; i < 4; i++)
        head[i] = (uint8_t)(frame.len >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        head[4 + i] = (uint8_t)(id >> (8 * i));
    pthread_mutex_lock(&serve->out_lock);
    if (!serve->is_out_broken && !write_all(serve->options.out, head, sizeof(head), frame))
        serve->is_out_broken = true; /* nobody listens; the end of input follows */
    pthread_mutex_unlock(&serve->out_lock);
}

static struct job *job_free(struct job *job)
{
    if (job && job->frame.ptr)
        crypto_wipe(job->frame.ptr, job->frame.len);
    if (job)
        buf_free(&job->frame);
    free(job);
    return NULL;
}

static enum error job_read(int fd, struct job **ret)
{
    uint8_t head[SERVE_HEAD];
    uint64_t len = 0;
    struct job *job = NULL;
    enum error error = read_all(fd, head, sizeof(head));
    if (error != ERR_NONE)
        return error;
    for (unsigned i = 0; i < 4; i++)
        len |= (uint64_t)head[i] << (8 * i);
    if (len == 0 || len > PROBE_FRAME_MAX)
        return ERR_PROTOCOL;
    job = calloc(1, sizeof(*job));
    if (!job)
        return ERR_NO_MEMORY;
    for (unsigned i = 0; i < 8; i++)
        job->id |= (uint64_t)head[4 + i] << (8 * i);
    buf_init(&job->frame, PROBE_FRAME_MAX);
    if (!buf_reserve(&job->frame, (size_t)len)) {
        job_free(job);
        return ERR_NO_MEMORY;
    }
    error = read_all(fd, job->frame.ptr, (size_t)len);
    job->frame.len = (size_t)len;
    if (error != ERR_NONE) {
        job_free(job);
        return error == ERR_CLOSED ? ERR_PROTOCOL : error;
    }
    *ret = job;
    return ERR_NONE;
}

/* -- answering -- */

static void flip_a_bit(struct buf *answer)
{
    struct probe_frame frame;
    if (probe_frame_decode(buf_str(answer), &frame) != ERR_NONE || frame.type != PROBE_PROOF)
        return;
    const struct probe_item *item = &frame.of.proof.items[0];
    struct str part = item->data.len > 0 ? item->data : item->path;
    if (part.len > 0)
        answer->ptr[part.ptr - answer->ptr] ^= 1;
}

static bool is_commit(const struct buf *answer)
{
    return answer->len > PROBE_FRAME_HEAD && answer->ptr[3] == PROBE_COMMIT;
}

/* False: no answer. */
static bool act_on_fault(enum serve_fault fault, struct buf *answer)
{
    uint8_t bytes[GARBAGE_MAX];
    size_t len;
    switch (fault) {
    case SERVE_HONEST:
        return true;
    case SERVE_WRONG_PROOF:
        flip_a_bit(answer);
        return true;
    case SERVE_LATE_PROOF:
        if (is_commit(answer))
            nanosleep(&(struct timespec){.tv_sec = LATE_S}, NULL);
        return true;
    case SERVE_SILENT:
        return false;
    case SERVE_GARBAGE:
        crypto_random(bytes, sizeof(bytes));
        len = 1 + (bytes[0] | (size_t)bytes[1] << 8) % (sizeof(bytes) - 1);
        buf_clear(answer);
        return buf_append(answer, bytes, len);
    case SERVE_OVERSIZE:
        buf_clear(answer);
        if (!buf_reserve(answer, PROBE_FRAME_MAX))
            return false;
        memset(answer->ptr, 0, PROBE_FRAME_MAX);
        answer->len = PROBE_FRAME_MAX;
        return true;
    }
    return true;
}

static void job_answer(struct serve *serve, const struct job *job)
{
    struct prover *prover = serve->options.prover;
    struct str frame = buf_str(&job->frame);
    bool is_local = (job->id & SERVE_LOCAL) != 0;
    struct buf answer;
    buf_init(&answer, PROBE_FRAME_MAX);
    uint32_t asker = (uint32_t)(job->id >> SERVE_ASKER_SHIFT);
    enum error error = is_local ? serve_local(prover, frame, &answer) : prover_answer_to(prover, asker, frame, &answer);
    if (error != ERR_NONE)
        fprintf(stderr, "sluice-probe: no answer to a request: %s\n", error_text(error));
    else if (is_local || act_on_fault(serve->options.fault, &answer))
        put_answer(serve, job->id, buf_str(&answer));
    if (!is_local && prover_is_broken(prover)) {
        fprintf(stderr, "sluice-probe: a device failed for good in this process\n");
        _exit(EXIT_FAILURE); /* whoever started it starts another */
    }
    if (is_local && answer.ptr)
        crypto_wipe(answer.ptr, answer.cap);
    buf_free(&answer);
}

static void *answer_main(void *ctx)
{
    struct serve *serve = ctx;
    pthread_mutex_lock(&serve->lock);
    for (;;) {
        while (!serve->first && !serve->is_ending)
            pthread_cond_wait(&serve->work, &serve->lock);
        struct job *job = serve->first;
        if (!job)
            break;
        serve->first = job->next;
        if (!serve->first)
            serve->end = &serve->first;
        serve->queued--;
        serve->running++;
        pthread_cond_signal(&serve->change);
        pthread_mutex_unlock(&serve->lock);
        job_answer(serve, job);
        job_free(job);
        pthread_mutex_lock(&serve->lock);
        serve->running--;
        pthread_cond_signal(&serve->change);
    }
    pthread_mutex_unlock(&serve->lock);
    return NULL;
}

/* -- the loop -- */

static void job_put(struct serve *serve, struct job *job)
{
    pthread_mutex_lock(&serve->lock);
    while (serve->queued >= QUEUE_MAX)
        pthread_cond_wait(&serve->change, &serve->lock);
    *serve->end = job;
    serve->end = &job->next;
    serve->queued++;
    pthread_cond_signal(&serve->work);
    pthread_mutex_unlock(&serve->lock);
}

static enum error read_jobs(struct serve *serve)
{
    struct job *job;
    enum error error;
    while ((error = job_read(serve->options.in, &job)) == ERR_NONE)
        job_put(serve, job);
    return error == ERR_CLOSED ? ERR_NONE : error;
}

/* False: work is still under way though it was waited for. */
static bool drain(struct serve *serve)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += END_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&serve->lock);
    while ((serve->queued > 0 || serve->running > 0) &&
           pthread_cond_timedwait(&serve->change, &serve->lock, &until) != ETIMEDOUT)
        ;
    bool is_idle = serve->queued == 0 && serve->running == 0;
    serve->is_ending = true;
    pthread_cond_broadcast(&serve->work);
    pthread_mutex_unlock(&serve->lock);
    return is_idle;
}

enum error serve_run(const struct serve_options *options)
{
    pthread_t threads[THREADS_MAX];
    unsigned count = 0, wanted = options->threads < THREADS_MAX ? options->threads : THREADS_MAX;
    pthread_condattr_t monotonic;
    struct serve serve = {.options = *options};
    serve.end = &serve.first;
    pthread_mutex_init(&serve.lock, NULL);
    pthread_mutex_init(&serve.out_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&serve.work, NULL);
    pthread_cond_init(&serve.change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    while (count < wanted && pthread_create(&threads[count], NULL, answer_main, &serve) == 0)
        count++;
    enum error error = count > 0 ? read_jobs(&serve) : ERR_SYSTEM;
    if (!drain(&serve)) {
        for (unsigned i = 0; i < count; i++)
            pthread_detach(threads[i]);
        _exit(error == ERR_NONE ? 0 : 1);
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&serve.work);
    pthread_cond_destroy(&serve.change);
    pthread_mutex_destroy(&serve.lock);
    pthread_mutex_destroy(&serve.out_lock);
    return error;
}
