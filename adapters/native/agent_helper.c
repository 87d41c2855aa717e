#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define JOBS_MAX 64
#define BACKOFF_MIN_NS (200 * NS_PER_MS)
#define BACKOFF_MAX_NS (5 * NS_PER_S)

struct helper {
    struct loop *loop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *waiting, **waiting_end, *done, **done_end;
    size_t count;
    bool is_stopping;
    struct io_source io; /* an eventfd, not loop_post: nothing may point to us once we are freed */
};

int64_t backoff_next(struct backoff *backoff)
{
    uint32_t random;
    crypto_random(&random, sizeof(random));
    if (backoff->span_ns < BACKOFF_MIN_NS)
        backoff->span_ns = BACKOFF_MIN_NS;
    int64_t half = backoff->span_ns / 2;
    backoff->span_ns = backoff->span_ns * 2 > BACKOFF_MAX_NS ? BACKOFF_MAX_NS : backoff->span_ns * 2;
    return half + half * (int64_t)(random >> 12) / (1 << 20);
}

void backoff_reset(struct backoff *backoff)
{
    backoff->span_ns = 0;
}

static struct job *take_done(struct helper *helper)
{
    pthread_mutex_lock(&helper->lock);
    struct job *jobs = helper->done;
    helper->done = NULL;
    helper->done_end = &helper->done;
    pthread_mutex_unlock(&helper->lock);
    return jobs;
}

static void helper_deliver(struct io_source *source, uint32_t events)
{
    struct helper *helper = container_of(source, struct helper, io);
    uint64_t count;
    (void)events;
    if (read(source->fd, &count, sizeof(count)) != sizeof(count))
        return;
    for (struct job *job = take_done(helper), *next; job; job = next) {
        next = job->next;
        job->done(job, false);
    }
}

static void *helper_run(void *arg)
{
    struct helper *helper = arg;
    pthread_mutex_lock(&helper->lock);
    while (!helper->is_stopping) {
        struct job *job = helper->waiting;
        if (!job) {
            pthread_cond_wait(&helper->wake, &helper->lock);
            continue;
        }
        helper->waiting = job->next;
        if (!helper->waiting)
            helper->waiting_end = &helper->waiting;
        helper->count--;
        pthread_mutex_unlock(&helper->lock);
        job->run(job);
        pthread_mutex_lock(&helper->lock);
        job->next = NULL;
        *helper->done_end = job;
        helper->done_end = &job->next;
        ssize_t written = write(helper->io.fd, &(uint64_t){1}, sizeof(uint64_t));
        (void)written; /* fails only when the counter is full, and then it is readable anyway */
    }
    pthread_mutex_unlock(&helper->lock);
    return NULL;
}

enum error helper_open(struct loop *loop, struct helper **ret)
{
    struct helper *helper = calloc(1, sizeof(*helper));
    if (!helper)
        return ERR_NO_MEMORY;
    helper->loop = loop;
    helper->waiting_end = &helper->waiting;
    helper->done_end = &helper->done;
    helper->io.on_ready = helper_deliver;
    helper->io.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&helper->lock, NULL);
    pthread_cond_init(&helper->wake, NULL);
    if (helper->io.fd < 0 || loop_add(loop, &helper->io, EPOLLIN) != ERR_NONE ||
        pthread_create(&helper->thread, NULL, helper_run, helper) != 0) {
        loop_remove(loop, &helper->io);
        if (helper->io.fd >= 0)
            close(helper->io.fd);
        free(helper);
        return ERR_SYSTEM;
    }
    *ret = helper;
    return ERR_NONE;
}

struct helper *helper_free(struct helper *helper)
{
    if (!helper)
        return NULL;
    pthread_mutex_lock(&helper->lock);
    helper->is_stopping = true;
    pthread_cond_signal(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
    pthread_join(helper->thread, NULL);
    loop_remove(helper->loop, &helper->io);
    close(helper->io.fd);
    *helper->done_end = helper->waiting;
    for (struct job *job = helper->done, *next; job; job = next) {
        next = job->next;
        job->done(job, true);
    }
    pthread_cond_destroy(&helper->wake);
    pthread_mutex_destroy(&helper->lock);
    free(helper);
    return NULL;
}

enum error helper_give(struct helper *helper, struct job *job)
{
    enum error error = ERR_NONE;
    job->next = NULL;
    pthread_mutex_lock(&helper->lock);
    if (helper->count >= JOBS_MAX) {
        error = ERR_BUSY;
    } else {
        *helper->waiting_end = job;
        helper->waiting_end = &job->next;
        helper->count++;
        pthread_cond_signal(&helper->wake);
    }
    pthread_mutex_unlock(&helper->lock);
    return error;
}
