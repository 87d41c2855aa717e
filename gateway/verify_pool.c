#include "gateway/verify_pool.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define THREADS_MAX 8

struct job_queue {
    struct verify_job *first, **end;
};

/* Threads and posted wake-ups hold a reference: a wake-up may come to the loop after verify_pool_free. */
struct verify_pool {
    struct loop *loop;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    struct job_queue waiting, finished;
    unsigned open, open_max; /* jobs whose done has not been called */
    unsigned refs;
    bool is_stopping;
    bool is_waking; /* a wake-up is posted */
    unsigned thread_count;
    pthread_t threads[THREADS_MAX];
};

static void queue_init(struct job_queue *queue)
{
    *queue = (struct job_queue){NULL, &queue->first};
}

static void queue_add(struct job_queue *queue, struct verify_job *job)
{
    job->next = NULL;
    *queue->end = job;
    queue->end = &job->next;
}

static struct verify_job *queue_take(struct job_queue *queue)
{
    struct verify_job *job = queue->first;
    if (job && !(queue->first = job->next))
        queue->end = &queue->first;
    return job;
}

/* Locked on entry; not after. */
static void unref_and_unlock(struct verify_pool *pool)
{
    bool is_last = --pool->refs == 0;
    pthread_mutex_unlock(&pool->lock);
    if (!is_last)
        return;
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    free(pool);
}

/* On the loop: the finished ones, oldest first. A completion may free the pool. */
static void on_wake(void *arg)
{
    struct verify_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    pool->is_waking = false;
    for (struct verify_job *job; (job = queue_take(&pool->finished));) {
        pool->open--;
        pthread_mutex_unlock(&pool->lock);
        job->done(job, ERR_NONE);
        pthread_mutex_lock(&pool->lock);
    }
    unref_and_unlock(pool);
}

static void *thread_main(void *arg)
{
    struct verify_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    while (!pool->is_stopping) {
        struct verify_job *job = queue_take(&pool->waiting);
        if (!job) {
            pthread_cond_wait(&pool->wake, &pool->lock);
            continue;
        }
        pthread_mutex_unlock(&pool->lock);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        queue_add(&pool->finished, job);
        if (pool->is_waking)
            continue;
        /* Without memory for the wake-up the next one that finishes brings this one along. */
        if (loop_post(pool->loop, on_wake, pool) == ERR_NONE) {
            pool->is_waking = true;
            pool->refs++;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Signals are for the main thread. */
static bool start_threads(struct verify_pool *pool, unsigned threads)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (pool->thread_count < threads &&
           pthread_create(&pool->threads[pool->thread_count], NULL, thread_main, pool) == 0)
        pool->thread_count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool->thread_count == threads;
}

enum error verify_pool_open(struct loop *loop, unsigned threads, unsigned queue_max, struct verify_pool **ret)
{
    assert(threads >= 1 && threads <= THREADS_MAX);
    struct verify_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return ERR_NO_MEMORY;
    pool->loop = loop;
    pool->open_max = queue_max;
    pool->refs = 1;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    queue_init(&pool->waiting);
    queue_init(&pool->finished);
    if (!start_threads(pool, threads)) {
        verify_pool_free(pool);
        return ERR_SYSTEM;
    }
    *ret = pool;
    return ERR_NONE;
}

struct verify_pool *verify_pool_free(struct verify_pool *pool)
{
    if (!pool)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    pool->is_stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    for (struct verify_job *job; (job = queue_take(&pool->finished));)
        job->done(job, ERR_NONE);
    for (struct verify_job *job; (job = queue_take(&pool->waiting));)
        job->done(job, ERR_CANCELLED);
    pthread_mutex_lock(&pool->lock);
    unref_and_unlock(pool);
    return NULL;
}

enum error verify_pool_give(struct verify_pool *pool, struct verify_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool is_full = pool->open >= pool->open_max || pool->is_stopping;
    if (!is_full) {
        pool->open++;
        queue_add(&pool->waiting, job);
        pthread_cond_signal(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    return is_full ? ERR_BUSY : ERR_NONE;
}
