#include "core/loop.h"

#include "core/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_A_TURN 256
#define HEAP_CHILDREN 4
#define INBOX_KEEP 1024 /* messages whose memory is kept between turns */
#define WAKE_DATA UINT64_MAX

/* epoll carries {slot, generation}, never a pointer: what a source's removal leaves in the current batch then points
 * to an older generation and is dropped, even if another source at the same address took its place. */
struct slot {
    struct io_source *source; /* NULL when free */
    uint32_t generation, next_free;
};

struct heap_entry {
    int64_t due_ns;
    struct timer *timer;
};

struct message {
    void (*run)(void *arg);
    void *arg;
};

struct inbox {
    struct message *messages;
    size_t count, cap;
};

struct loop {
    int epoll_fd, wake_fd;
    int64_t now_ns, lag_ns;
    struct slot *slots; /* slot 0 is never used: index 0 of a source means that it is not added */
    uint32_t slot_count, slot_cap, free_slot;
    struct heap_entry *heap; /* from 1 */
    size_t heap_count, heap_cap;
    struct task *tasks, **tasks_end;
    atomic_bool stopping;
    pthread_mutex_t lock; /* of inbox */
    struct inbox inbox, reading;
};

enum error loop_open(struct loop **ret)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&loop->lock, NULL);
    loop->tasks_end = &loop->tasks;
    loop->slot_count = 1;
    loop->now_ns = clock_mono_ns();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = WAKE_DATA};
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &wake) != 0) {
        loop_free(loop);
        return ERR_SYSTEM;
    }
    *ret = loop;
    return ERR_NONE;
}

struct loop *loop_free(struct loop *loop)
{
    if (!loop)
        return NULL;
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop->slots);
    free(loop->heap);
    free(loop->inbox.messages);
    free(loop->reading.messages);
    free(loop);
    return NULL;
}

int64_t loop_now(const struct loop *loop)
{
    return loop->now_ns;
}

int64_t loop_lag_ns(const struct loop *loop)
{
    return loop->lag_ns;
}

static void wake(struct loop *loop)
{
    int saved = errno; /* loop_stop runs in signal handlers */
    uint64_t one = 1;
    ssize_t written = write(loop->wake_fd, &one, sizeof(one));
    (void)written; /* fails only when the counter is full, and then the loop wakes anyway */
    errno = saved;
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    wake(loop);
}

/* ---- sources ---- */

static enum error slot_take(struct loop *loop, uint32_t *ret)
{
    if (loop->free_slot) {
        *ret = loop->free_slot;
        loop->free_slot = loop->slots[*ret].next_free;
        return ERR_NONE;
    }
    if (loop->slot_count >= loop->slot_cap) {
        uint32_t cap = loop->slot_cap ? loop->slot_cap * 2 : 64;
        struct slot *slots = cap > loop->slot_cap ? realloc(loop->slots, cap * sizeof(*slots)) : NULL;
        if (!slots)
            return ERR_NO_MEMORY;
        loop->slots = slots;
        loop->slot_cap = cap;
    }
    *ret = loop->slot_count++;
    loop->slots[*ret] = (struct slot){NULL, 0, 0};
    return ERR_NONE;
}

static void slot_release(struct loop *loop, uint32_t at)
{
    struct slot *slot = &loop->slots[at];
    slot->source = NULL;
    slot->generation++;
    slot->next_free = loop->free_slot;
    loop->free_slot = at;
}

static enum error control(struct loop *loop, int operation, const struct io_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events,
                                .data.u64 = (uint64_t)loop->slots[source->index].generation << 32 | source->index};
    if (epoll_ctl(loop->epoll_fd, operation, source->fd, &event) == 0)
        return ERR_NONE;
    switch (errno) {
    case EEXIST:
        return ERR_EXISTS;
    case ENOENT:
        return ERR_NOT_FOUND;
    case ENOMEM:
    case ENOSPC:
        return ERR_NO_MEMORY;
    default:
        return ERR_SYSTEM;
    }
}

enum error loop_add(struct loop *loop, struct io_source *source, uint32_t events)
{
    if (source->index)
        return ERR_EXISTS;
    uint32_t slot;
    enum error error = slot_take(loop, &slot);
    if (error)
        return error;
    source->index = slot;
    error = control(loop, EPOLL_CTL_ADD, source, events);
    if (error) {
        source->index = 0;
        slot_release(loop, slot);
        return error;
    }
    loop->slots[slot].source = source;
    return ERR_NONE;
}

enum error loop_modify(struct loop *loop, struct io_source *source, uint32_t events)
{
    return source->index ? control(loop, EPOLL_CTL_MOD, source, events) : ERR_NOT_FOUND;
}

void loop_remove(struct loop *loop, struct io_source *source)
{
    if (!source->index)
        return;
    assert(source->index < loop->slot_count && loop->slots[source->index].source == source);
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    slot_release(loop, source->index);
    source->index = 0;
}

/* ---- timers: a 4-ary heap; a timer knows its place in it ---- */

static void heap_put(struct loop *loop, size_t at, struct heap_entry entry)
{
    loop->heap[at] = entry;
    entry.timer->heap_at = at;
}

static size_t heap_parent(size_t at)
{
    return (at + HEAP_CHILDREN - 2) / HEAP_CHILDREN;
}

static void heap_rise(struct loop *loop, size_t at, struct heap_entry entry)
{
    while (at > 1 && loop->heap[heap_parent(at)].due_ns > entry.due_ns) {
        heap_put(loop, at, loop->heap[heap_parent(at)]);
        at = heap_parent(at);
    }
    heap_put(loop, at, entry);
}

static void heap_sink(struct loop *loop, size_t at, struct heap_entry entry)
{
    for (;;) {
        size_t child = HEAP_CHILDREN * (at - 1) + 2, end = child + HEAP_CHILDREN;
        if (child > loop->heap_count)
            break;
        if (end > loop->heap_count + 1)
            end = loop->heap_count + 1;
        size_t least = child;
        while (++child < end) {
            if (loop->heap[child].due_ns < loop->heap[least].due_ns)
                least = child;
        }
        if (loop->heap[least].due_ns >= entry.due_ns)
            break;
        heap_put(loop, at, loop->heap[least]);
        at = least;
    }
    heap_put(loop, at, entry);
}

static void heap_place(struct loop *loop, size_t at, struct heap_entry entry)
{
    if (at > 1 && loop->heap[heap_parent(at)].due_ns > entry.due_ns)
        heap_rise(loop, at, entry);
    else
        heap_sink(loop, at, entry);
}

void timer_set(struct loop *loop, struct timer *timer, int64_t due_ns)
{
    struct heap_entry entry = {due_ns, timer};
    timer->due_ns = due_ns;
    if (timer->heap_at) {
        heap_place(loop, timer->heap_at, entry);
        return;
    }
    if (loop->heap_count + 1 >= loop->heap_cap) {
        size_t cap = loop->heap_cap ? loop->heap_cap * 2 : 64;
        struct heap_entry *heap = realloc(loop->heap, cap * sizeof(*heap));
        if (!heap)
            abort(); /* a deadline that silently never comes would be worse */
        loop->heap = heap;
        loop->heap_cap = cap;
    }
    heap_rise(loop, ++loop->heap_count, entry);
}

void timer_clear(struct loop *loop, struct timer *timer)
{
    size_t at = timer->heap_at;
    if (!at)
        return;
    assert(at <= loop->heap_count && loop->heap[at].timer == timer);
    timer->heap_at = 0;
    struct heap_entry last = loop->heap[loop->heap_count--];
    if (last.timer != timer)
        heap_place(loop, at, last);
}

bool timer_is_set(const struct timer *timer)
{
    return timer->heap_at != 0;
}

/* ---- tasks, messages ---- */

static void task_append(struct loop *loop, struct task *task)
{
    task->next = NULL;
    task->link = loop->tasks_end;
    *loop->tasks_end = task;
    loop->tasks_end = &task->next;
}

void loop_defer(struct loop *loop, struct task *task)
{
    if (!task->link)
        task_append(loop, task);
}

void loop_undefer(struct loop *loop, struct task *task)
{
    if (!task->link)
        return;
    *task->link = task->next;
    if (task->next)
        task->next->link = task->link;
    else
        loop->tasks_end = task->link;
    task->next = NULL;
    task->link = NULL;
}

enum error loop_post(struct loop *loop, void (*run)(void *arg), void *arg)
{
    enum error error = ERR_NONE;
    pthread_mutex_lock(&loop->lock);
    struct inbox *inbox = &loop->inbox;
    bool first = inbox->count == 0;
    if (inbox->count == inbox->cap) {
        size_t cap = inbox->cap ? inbox->cap * 2 : 64;
        struct message *messages = realloc(inbox->messages, cap * sizeof(*messages));
        if (messages) {
            inbox->messages = messages;
            inbox->cap = cap;
        } else {
            error = ERR_NO_MEMORY;
        }
    }
    if (!error)
        inbox->messages[inbox->count++] = (struct message){run, arg};
    pthread_mutex_unlock(&loop->lock);
    if (first && !error)
        wake(loop);
    return error;
}

/* ---- a turn ---- */

static void run_messages(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct inbox full = loop->inbox;
    loop->inbox = loop->reading;
    loop->reading = full;
    pthread_mutex_unlock(&loop->lock);
    for (size_t i = 0; i < full.count; i++)
        full.messages[i].run(full.messages[i].arg);
    loop->reading.count = 0;
    if (loop->reading.cap > INBOX_KEEP) {
        free(loop->reading.messages);
        loop->reading = (struct inbox){NULL, 0, 0};
    }
}

/* What tasks defer in turn runs in the next turn, which then does not wait: sockets are served in between. */
static void run_tasks(struct loop *loop)
{
    struct task end = {NULL, NULL, NULL};
    task_append(loop, &end);
    while (loop->tasks != &end) {
        struct task *task = loop->tasks;
        loop_undefer(loop, task);
        task->run(task);
    }
    loop_undefer(loop, &end);
}

static void run_timers(struct loop *loop)
{
    /* At most as many as were set, so that a timer that sets itself to now cannot hold the turn. */
    for (size_t left = loop->heap_count; left > 0 && loop->heap_count > 0; left--) {
        struct timer *timer = loop->heap[1].timer;
        if (timer->due_ns > loop->now_ns)
            return;
        timer_clear(loop, timer);
        timer->on_due(timer);
    }
}

/* Whole milliseconds, rounded up so that a timer is due when the wait for it ends. */
static int wait_ms(const struct loop *loop, int64_t now_ns, int64_t wait_ns)
{
    if (loop->tasks)
        return 0;
    if (loop->heap_count > 0) {
        int64_t until_ns = loop->heap[1].due_ns - now_ns;
        wait_ns = until_ns < wait_ns ? until_ns : wait_ns;
    }
    if (wait_ns <= 0)
        return 0;
    int64_t ms = wait_ns / NS_PER_MS + (wait_ns % NS_PER_MS > 0);
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

void loop_turn(struct loop *loop, int64_t wait_ns)
{
    struct epoll_event events[EVENTS_A_TURN];
    bool messages = false;
    int timeout = wait_ns == 0 ? 0 : wait_ms(loop, clock_mono_ns(), wait_ns);
    int count = epoll_wait(loop->epoll_fd, events, EVENTS_A_TURN, timeout);
    loop->now_ns = clock_mono_ns();
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == WAKE_DATA) {
            uint64_t value;
            messages = read(loop->wake_fd, &value, sizeof(value)) == sizeof(value);
            continue;
        }
        const struct slot *slot = &loop->slots[(uint32_t)events[i].data.u64];
        if (slot->source && slot->generation == (uint32_t)(events[i].data.u64 >> 32))
            slot->source->on_ready(slot->source, events[i].events);
    }
    run_timers(loop);
    if (messages)
        run_messages(loop);
    run_tasks(loop);
    loop->lag_ns = clock_mono_ns() - loop->now_ns;
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->stopping))
        loop_turn(loop, INT64_MAX);
    atomic_store(&loop->stopping, false);
}
