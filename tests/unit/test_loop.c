#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/loop.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct loop *loop;
static char trace[256];

static void note(char c)
{
    size_t len = strlen(trace);
    assert_true(len + 1 < sizeof(trace));
    trace[len] = c;
    trace[len + 1] = '\0';
}

static int setup(void **state)
{
    (void)state;
    memset(trace, 0, sizeof(trace));
    return loop_open(&loop) != ERR_NONE;
}

static int teardown(void **state)
{
    (void)state;
    loop = loop_free(loop);
    return 0;
}

struct thing {
    struct io_source io;
    struct timer timer;
    struct task task;
    struct thing *victim;
    char name;
};

static int ready_fd(void)
{
    return eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void on_ready(struct io_source *source, uint32_t events)
{
    struct thing *thing = container_of(source, struct thing, io);
    assert_true(events & EPOLLIN);
    note(thing->name);
}

static void on_ready_kill(struct io_source *source, uint32_t events)
{
    struct thing *thing = container_of(source, struct thing, io), *victim = thing->victim;
    on_ready(source, events);
    if (!victim)
        return;
    /* The victim is in the same batch. Its memory goes at once, and a new source takes its address and slot. */
    thing->victim = NULL;
    victim->victim = NULL;
    loop_remove(loop, &victim->io);
    close(victim->io.fd);
    *victim = (struct thing){.io = {.fd = ready_fd(), .on_ready = on_ready}, .name = 'n'};
    assert_int_equal(loop_add(loop, &victim->io, EPOLLIN), ERR_NONE);
}

static void removed_source_is_not_called(void **state)
{
    (void)state;
    struct thing a = {.io = {.fd = ready_fd(), .on_ready = on_ready_kill}, .name = 'a'};
    struct thing b = {.io = {.fd = ready_fd(), .on_ready = on_ready_kill}, .name = 'a'};
    a.victim = &b;
    b.victim = &a;
    assert_int_equal(loop_add(loop, &a.io, EPOLLIN), ERR_NONE);
    assert_int_equal(loop_add(loop, &b.io, EPOLLIN), ERR_NONE);
    assert_int_equal(loop_add(loop, &b.io, EPOLLIN), ERR_EXISTS);
    loop_turn(loop, 0);
    assert_string_equal(trace, "a"); /* neither the victim nor its successor in this turn */
    loop_turn(loop, 0);
    assert_true(strcmp(trace, "aan") == 0 || strcmp(trace, "ana") == 0);
    loop_remove(loop, &a.io);
    loop_remove(loop, &b.io);
    loop_remove(loop, &b.io);
    assert_int_equal(loop_modify(loop, &b.io, EPOLLIN), ERR_NOT_FOUND);
    loop_turn(loop, 0);
    assert_int_equal(strlen(trace), 3);
    close(a.io.fd);
    close(b.io.fd);
}

static void modify_masks(void **state)
{
    (void)state;
    struct thing a = {.io = {.fd = ready_fd(), .on_ready = on_ready}, .name = 'a'};
    assert_int_equal(loop_add(loop, &a.io, 0), ERR_NONE);
    loop_turn(loop, 0);
    assert_string_equal(trace, "");
    assert_int_equal(loop_modify(loop, &a.io, EPOLLIN | EPOLLET), ERR_NONE);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_string_equal(trace, "a"); /* edge: once */
    assert_int_equal(loop_modify(loop, &a.io, EPOLLIN), ERR_NONE);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_string_equal(trace, "aaa"); /* level: each turn */
    loop_remove(loop, &a.io);
    close(a.io.fd);
    struct thing bad = {.io = {.fd = -1, .on_ready = on_ready}};
    assert_int_equal(loop_add(loop, &bad.io, EPOLLIN), ERR_SYSTEM);
    assert_int_equal(bad.io.index, 0);
}

#define TIMERS 500

struct due {
    struct timer timer;
    int64_t *last;
    int *fired;
};

static void on_due_in_order(struct timer *timer)
{
    struct due *due = container_of(timer, struct due, timer);
    assert_true(timer->due_ns >= *due->last);
    assert_true(timer->due_ns <= loop_now(loop));
    assert_false(timer_is_set(timer));
    *due->last = timer->due_ns;
    ++*due->fired;
}

static void timers_fire_in_order(void **state)
{
    (void)state;
    static struct due timers[TIMERS];
    memset(timers, 0, sizeof(timers));
    int64_t last = 0, base = loop_now(loop) - NS_PER_S;
    int fired = 0, expected = 0;
    unsigned random = 7;
    for (size_t i = 0; i < TIMERS; i++)
        timers[i] = (struct due){.timer.on_due = on_due_in_order, .last = &last, .fired = &fired};
    for (size_t i = 0; i < 4 * TIMERS; i++) {
        random = random * 1664525 + 1013904223;
        struct timer *timer = &timers[random >> 8 & 255].timer;
        if (random >> 28 == 0)
            timer_clear(loop, timer);
        else
            timer_set(loop, timer, base + (random >> 6 & 0xffff));
    }
    for (size_t i = 0; i < TIMERS; i++)
        expected += timer_is_set(&timers[i].timer);
    timer_set(loop, &timers[TIMERS - 1].timer, loop_now(loop) + 3600 * NS_PER_S);
    assert_true(expected > 200);
    loop_turn(loop, 0);
    assert_int_equal(fired, expected);
    assert_true(timer_is_set(&timers[TIMERS - 1].timer));
    timer_clear(loop, &timers[TIMERS - 1].timer);
    timer_clear(loop, &timers[TIMERS - 1].timer);
}

static void on_due_again(struct timer *timer)
{
    note('t');
    timer_set(loop, timer, timer->due_ns);
}

static void timer_that_sets_itself_lets_the_turn_end(void **state)
{
    (void)state;
    struct timer timer = {.on_due = on_due_again};
    timer_set(loop, &timer, loop_now(loop));
    loop_turn(loop, 0);
    loop_turn(loop, NS_PER_S);
    assert_string_equal(trace, "tt");
    timer_clear(loop, &timer);
}

static void wait_ends_at_the_timer(void **state)
{
    (void)state;
    struct thing a = {.name = 'a'};
    a.timer.on_due = on_due_again;
    int64_t start = clock_mono_ns();
    timer_set(loop, &a.timer, start + 3 * NS_PER_MS);
    while (trace[0] == '\0')
        loop_turn(loop, 60 * NS_PER_S);
    int64_t took = clock_mono_ns() - start;
    assert_in_range(took, 3 * NS_PER_MS, 30 * NS_PER_S);
    timer_clear(loop, &a.timer);
}

static void run_task(struct task *task)
{
    struct thing *thing = container_of(task, struct thing, task);
    note(thing->name);
    if (thing->victim) {
        loop_undefer(loop, &thing->victim->task);
        thing->victim = NULL;
        loop_defer(loop, task);
    }
}

static void tasks_run_once(void **state)
{
    (void)state;
    struct thing a = {.task.run = run_task, .name = 'a'}, b = a, c = a;
    b.name = 'b';
    c.name = 'c';
    a.victim = &c; /* takes the last task off the list from within a task, and queues itself again */
    loop_defer(loop, &a.task);
    loop_defer(loop, &b.task);
    loop_defer(loop, &a.task);
    loop_defer(loop, &c.task);
    loop_turn(loop, NS_PER_S);
    assert_string_equal(trace, "ab");
    loop_turn(loop, 60 * NS_PER_S); /* does not wait: a task is queued */
    assert_string_equal(trace, "aba");
    loop_defer(loop, &a.task);
    loop_undefer(loop, &a.task);
    loop_undefer(loop, &a.task);
    loop_defer(loop, &c.task);
    loop_turn(loop, 0);
    assert_string_equal(trace, "abac");
}

#define POSTS 20000

struct posting {
    int next, wrong;
};

static struct posting posting;

static void take_post(void *arg)
{
    posting.wrong += (int)(intptr_t)arg != posting.next;
    if (++posting.next == POSTS)
        loop_stop(loop);
}

static void *post_all(void *arg)
{
    for (int i = 0; i < POSTS; i++) {
        if (loop_post(arg, take_post, (void *)(intptr_t)i) != ERR_NONE)
            return arg;
    }
    return NULL;
}

static void posts_arrive_in_order(void **state)
{
    (void)state;
    pthread_t thread;
    void *failed;
    posting = (struct posting){0, 0};
    assert_int_equal(pthread_create(&thread, NULL, post_all, loop), 0);
    loop_run(loop);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(posting.next, POSTS);
    assert_int_equal(posting.wrong, 0);
}

static void stop_by_signal(int number)
{
    (void)number;
    loop_stop(loop);
}

static void signal_stops(void **state)
{
    (void)state;
    struct sigaction act = {.sa_handler = stop_by_signal}, old;
    sigaction(SIGUSR1, &act, &old);
    struct thing a = {.timer.on_due = on_due_again};
    raise(SIGUSR1);
    loop_run(loop); /* returns at once: stopped before it ran */
    assert_false(timer_is_set(&a.timer));
    sigaction(SIGUSR1, &old, NULL);
    assert_true(loop_lag_ns(loop) >= 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(removed_source_is_not_called), TEST(modify_masks),
        TEST(timers_fire_in_order),         TEST(timer_that_sets_itself_lets_the_turn_end),
        TEST(wait_ends_at_the_timer),       TEST(tasks_run_once),
        TEST(posts_arrive_in_order),        TEST(signal_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
