/* The event loop: one epoll a thread, timers, end-of-turn tasks and an inbox for other threads.
 *
 * Rules. All calls but loop_post and loop_stop are for the loop's own thread. Callbacks may add, change and remove any
 * source, timer or task, their own too; after loop_remove a source is never called again, so its owner may free it at
 * once. Order of a turn: ready sources, due timers, posted messages, tasks. */
#ifndef SLUICE_CORE_LOOP_H
#define SLUICE_CORE_LOOP_H

#include "core/error.h"
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

struct loop;

/* Something with a descriptor. Embedded in its owner; container_of leads back. */
struct io_source {
    int fd;
    void (*on_ready)(struct io_source *source, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP... */
    unsigned index;                                              /* of the loop; 0 when not added */
};

struct timer {
    void (*on_due)(struct timer *timer);
    int64_t due_ns;
    size_t heap_at; /* of the loop; 0 when not set */
};

/* Runs once at the end of the turn in which it was deferred; what tasks defer runs in the next turn. */
struct task {
    void (*run)(struct task *task);
    struct task *next, **link; /* of the loop; link is NULL when not queued */
};

#define container_of(member_ptr, type, member) ((type *)(void *)((char *)(member_ptr)-offsetof(type, member)))

MUST_CHECK enum error loop_open(struct loop **ret); /* free with loop_free */
struct loop *loop_free(struct loop *loop);          /* accepts NULL; returns NULL; sources are not closed */
void loop_run(struct loop *loop);                   /* until loop_stop */
void loop_turn(struct loop *loop, int64_t wait_ns); /* one turn that waits at most wait_ns; for tests */
void loop_stop(struct loop *loop);                  /* from any thread or a signal handler */
int64_t loop_now(const struct loop *loop);          /* monotonic ns, read once a turn */
int64_t loop_lag_ns(const struct loop *loop);       /* how long the last turn's work took */

MUST_CHECK enum error loop_add(struct loop *loop, struct io_source *source, uint32_t events);
MUST_CHECK enum error loop_modify(struct loop *loop, struct io_source *source, uint32_t events);
void loop_remove(struct loop *loop,
                 struct io_source *source); /* before close(fd), which it leaves; harmless if not added */

void timer_set(struct loop *loop, struct timer *timer, int64_t due_ns); /* moves it if set already */
void timer_clear(struct loop *loop, struct timer *timer);               /* harmless if not set */
bool timer_is_set(const struct timer *timer);

void loop_defer(struct loop *loop, struct task *task); /* harmless if queued already */
void loop_undefer(struct loop *loop, struct task *task);

/* From any thread: run(arg) on the loop's thread in a coming turn, in order of posting. Bounded by memory only;
 * callers bound their own rate. ERR_NO_MEMORY leaves arg with the caller. */
MUST_CHECK enum error loop_post(struct loop *loop, void (*run)(void *arg), void *arg);

#endif
