/* One lock over everything; the threads drop it while they compute.
 *
 * Memory: an entry is 2 * blocks * n bytes (128 KiB at n = 8192, B = 8), all of them CHAIN_POOL_BYTES_MAX at most. A
 * thread needs n * n bytes (64 MiB) more while it makes one. */
#include "probes/chain_pool.h"
#include "core/clock.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define READY_MAX 32u /* of a shape */
#define SMALL_N 512u  /* made on the spot: a few milliseconds */
#define AGE_MAX_NS (3600 * NS_PER_S)
#define WISH_MAX_NS (600 * NS_PER_S) /* who wanted one and has not come by then will not */
#define SWEEP_NS (60 * NS_PER_S)
#define NICE 10 /* calls come first; not SCHED_IDLE: on a full machine admissions would never end */

struct slot {
    struct chain_shape shape; /* n = 0: free */
    int64_t used_ns;          /* when it was last wanted or asked for */
    unsigned ready_count, making, wish_count;
    struct fingerprint ready[READY_MAX]; /* oldest first */
    int64_t wishes_ns[READY_MAX];        /* oldest first */
};

struct chain_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_t threads[THREADS_MAX];
    unsigned thread_count;
    bool is_closing;
    size_t bytes; /* of what is ready or being made */
    struct chain_pool_stats stats;
    struct slot slots[CHAIN_POOL_SHAPES_MAX];
};

static size_t entry_bytes(struct chain_shape shape)
{
    return (size_t)shape.n * shape.blocks * 2;
}

static int64_t thread_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static struct slot *slot_find(struct chain_pool *pool, struct chain_shape shape)
{
    for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX; i++)
        if (pool->slots[i].shape.n && chain_shape_equal(pool->slots[i].shape, shape))
            return &pool->slots[i];
    return NULL;
}

static void drop_oldest(struct chain_pool *pool, struct slot *slot)
{
    fingerprint_free(&slot->ready[0]);
    memmove(slot->ready, slot->ready + 1, --slot->ready_count * sizeof(slot->ready[0]));
    pool->bytes -= entry_bytes(slot->shape);
    pool->stats.dropped++;
}

/* The shape's slot, a free one, or the one that nobody used for longest. NULL: all are being made for. */
static struct slot *slot_of(struct chain_pool *pool, struct chain_shape shape, int64_t now_ns)
{
    struct slot *slot = slot_find(pool, shape);
    for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX && !slot; i++)
        if (!pool->slots[i].shape.n)
            slot = &pool->slots[i];
    if (!slot) {
        for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX; i++)
            if (!pool->slots[i].making && (!slot || pool->slots[i].used_ns < slot->used_ns))
                slot = &pool->slots[i];
        while (slot && slot->ready_count)
            drop_oldest(pool, slot);
        if (slot)
            memset(slot, 0, sizeof(*slot));
    }
    if (slot) {
        slot->shape = shape;
        slot->used_ns = now_ns;
    }
    return slot;
}

static void wish_drop(struct slot *slot)
{
    memmove(slot->wishes_ns, slot->wishes_ns + 1, --slot->wish_count * sizeof(slot->wishes_ns[0]));
}

static void sweep(struct chain_pool *pool, int64_t now_ns)
{
    for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX; i++) {
        struct slot *slot = &pool->slots[i];
        while (slot->wish_count && now_ns - slot->wishes_ns[0] > WISH_MAX_NS)
            wish_drop(slot);
        while (slot->ready_count && now_ns - slot->ready[0].made_ns > AGE_MAX_NS)
            drop_oldest(pool, slot);
        if (slot->shape.n && !slot->ready_count && !slot->making && now_ns - slot->used_ns > AGE_MAX_NS)
            memset(slot, 0, sizeof(*slot));
    }
}

/* One more than takers are expected, as long as anybody takes them. */
static unsigned target(const struct slot *slot, int64_t now_ns)
{
    if (!slot->shape.n || now_ns - slot->used_ns > AGE_MAX_NS)
        return 0;
    return slot->wish_count + 1 < READY_MAX ? slot->wish_count + 1 : READY_MAX;
}

/* What is most wanted: the shape that lacks the largest share of its target. */
static struct slot *most_wanted(struct chain_pool *pool, int64_t now_ns)
{
    struct slot *best = NULL;
    double best_share = 1;
    for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX; i++) {
        struct slot *slot = &pool->slots[i];
        const unsigned have = slot->ready_count + slot->making, want = target(slot, now_ns);
        if (have >= want || pool->bytes + entry_bytes(slot->shape) > CHAIN_POOL_BYTES_MAX)
            continue;
        const double share = (double)have / (double)want;
        if (share < best_share) {
            best = slot;
            best_share = share;
        }
    }
    return best;
}

/* With the lock held on both ends; a slot that is being made for keeps its place. */
static void make_one(struct chain_pool *pool, struct slot *slot)
{
    const struct chain_shape shape = slot->shape;
    struct fingerprint made;
    slot->making++;
    pool->stats.making++;
    pool->bytes += entry_bytes(shape);
    pthread_mutex_unlock(&pool->lock);
    const int64_t before_ns = thread_cpu_ns();
    const enum error error = fingerprint_make(shape, &made);
    const int64_t cpu_ns = thread_cpu_ns() - before_ns;
    pthread_mutex_lock(&pool->lock);
    slot->making--;
    pool->stats.making--;
    pool->stats.cpu_ns += cpu_ns;
    if (error) {
        pool->bytes -= entry_bytes(shape);
        slot->used_ns = INT64_MIN / 2; /* no memory: not again before somebody asks */
        return;
    }
    assert(slot->ready_count < READY_MAX);
    slot->ready[slot->ready_count++] = made;
    pool->stats.made++;
}

static void *work(void *ctx)
{
    struct chain_pool *pool = ctx;
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE); /* on Linux: of this thread */
    pthread_mutex_lock(&pool->lock);
    while (!pool->is_closing) {
        const int64_t now_ns = clock_mono_ns();
        sweep(pool, now_ns);
        struct slot *slot = most_wanted(pool, now_ns);
        if (slot) {
            make_one(pool, slot);
            continue;
        }
        const int64_t until_ns = now_ns + SWEEP_NS;
        const struct timespec until = {until_ns / NS_PER_S, until_ns % NS_PER_S};
        (void)pthread_cond_timedwait(&pool->work, &pool->lock, &until);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

enum error chain_pool_open(unsigned threads, struct chain_pool **ret)
{
    assert(threads > 0 && threads <= THREADS_MAX);
    pthread_condattr_t attributes;
    struct chain_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &attributes);
    pthread_condattr_destroy(&attributes);
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&pool->threads[i], NULL, work, pool)) {
            chain_pool_free(pool);
            return ERR_SYSTEM;
        }
        pool->thread_count++;
    }
    *ret = pool;
    return ERR_NONE;
}

struct chain_pool *chain_pool_free(struct chain_pool *pool)
{
    if (!pool)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    pool->is_closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX; i++)
        for (unsigned j = 0; j < pool->slots[i].ready_count; j++)
            fingerprint_free(&pool->slots[i].ready[j]);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return NULL;
}

void chain_pool_want(struct chain_pool *pool, struct chain_shape shape)
{
    if (shape.n <= SMALL_N)
        return;
    const int64_t now_ns = clock_mono_ns();
    pthread_mutex_lock(&pool->lock);
    struct slot *slot = slot_of(pool, shape, now_ns);
    if (slot) {
        if (slot->wish_count == READY_MAX)
            wish_drop(slot);
        slot->wishes_ns[slot->wish_count++] = now_ns;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
}

static enum error make_on_the_spot(struct chain_pool *pool, struct chain_shape shape, struct fingerprint *ret)
{
    const int64_t before_ns = thread_cpu_ns();
    enum error error = fingerprint_make(shape, ret);
    const int64_t cpu_ns = thread_cpu_ns() - before_ns;
    pthread_mutex_lock(&pool->lock);
    pool->stats.cpu_ns += cpu_ns;
    pool->stats.made += !error;
    pool->stats.taken += !error;
    pthread_mutex_unlock(&pool->lock);
    return error;
}

enum error chain_pool_take(struct chain_pool *pool, struct chain_shape shape, struct fingerprint *ret)
{
    if (shape.n <= SMALL_N)
        return make_on_the_spot(pool, shape, ret);
    enum error error = ERR_BUSY;
    const int64_t now_ns = clock_mono_ns();
    pthread_mutex_lock(&pool->lock);
    sweep(pool, now_ns);
    struct slot *slot = slot_of(pool, shape, now_ns);
    if (slot && slot->ready_count) {
        *ret = slot->ready[0];
        memmove(slot->ready, slot->ready + 1, --slot->ready_count * sizeof(slot->ready[0]));
        pool->bytes -= entry_bytes(shape);
        pool->stats.taken++;
        if (slot->wish_count)
            wish_drop(slot);
        error = ERR_NONE;
    }
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    return error;
}

void chain_pool_sweep(struct chain_pool *pool, int64_t now_ns)
{
    pthread_mutex_lock(&pool->lock);
    sweep(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);
}

struct chain_pool_stats chain_pool_stats(struct chain_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct chain_pool_stats stats = pool->stats;
    for (size_t i = 0; i < CHAIN_POOL_SHAPES_MAX; i++) {
        stats.shapes += pool->slots[i].shape.n != 0;
        stats.ready += pool->slots[i].ready_count;
    }
    pthread_mutex_unlock(&pool->lock);
    return stats;
}
