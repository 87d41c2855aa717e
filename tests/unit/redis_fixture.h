/* A real redis-server in a temporary folder, a loop, a connection of the code under test and a blocking one to look. */
#ifndef SLUICE_TESTS_UNIT_REDIS_FIXTURE_H
#define SLUICE_TESTS_UNIT_REDIS_FIXTURE_H

#include "core/clock.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/redis.h"
#include "core/redis_child.h"
#include "tests/unit/cmocka_all.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

struct redis_fixture {
    char dir[32];
    char url[256];
    struct redis_child *child;
    struct loop *loop;
    struct redis *redis;
    redisContext *look;
};

static struct redis_fixture fixture;

static inline void fixture_connect(void)
{
    if (fixture.look)
        redisFree(fixture.look);
    fixture.look = redisConnectUnix(fixture.url + strlen("unix://"));
    assert_non_null(fixture.look);
}

static inline int fixture_start_as(bool fsync_always)
{
    struct redis_options options = {.url = fixture.url};

    signal(SIGPIPE, SIG_IGN);
    log_init("test", LOG_ERROR);
    strcpy(fixture.dir, "/tmp/sluice-money-XXXXXX");
    assert_non_null(mkdtemp(fixture.dir));
    assert_int_equal(redis_child_start(fixture.dir, fsync_always, &fixture.child, fixture.url, sizeof(fixture.url)),
                     ERR_NONE);
    assert_int_equal(loop_open(&fixture.loop), ERR_NONE);
    assert_int_equal(redis_open(fixture.loop, &options, &fixture.redis), ERR_NONE);
    fixture_connect();
    return 0;
}

static inline int fixture_start(void **state)
{
    (void)state;
    return fixture_start_as(false);
}

static inline int fixture_stop(void **state)
{
    char command[64];

    (void)state;
    redisFree(fixture.look);
    fixture.redis = redis_free(fixture.redis);
    fixture.loop = loop_free(fixture.loop);
    fixture.child = redis_child_stop(fixture.child);
    snprintf(command, sizeof(command), "rm -rf %s", fixture.dir);
    return system(command);
}

/* A command on the looking connection; the text or number of its answer, "" for nil. Good until the next call. */
static inline const char *look(const char *format, ...)
{
    static char text[4096];
    va_list args;
    va_start(args, format);
    redisReply *reply = redisvCommand(fixture.look, format, args);
    va_end(args);
    if (!reply)
        fail_msg("redis: %s", fixture.look->errstr);
    if (reply->type == REDIS_REPLY_INTEGER)
        snprintf(text, sizeof(text), "%lld", reply->integer);
    else
        snprintf(text, sizeof(text), "%s", reply->str ? reply->str : "");
    freeReplyObject(reply);
    return text;
}

static inline int fixture_empty(void **state)
{
    (void)state;
    look("FLUSHALL");
    return 0;
}

static inline long long look_number(const char *key, const char *field)
{
    return strtoll(look("HGET %s %s", key, field), NULL, 10);
}

/* kill -9 of the server, and a new one on the same files. */
static inline void fixture_kill_redis(void)
{
    char pid[32] = "";
    const char *info = look("INFO server"), *at = strstr(info, "process_id:");
    assert_non_null(at);
    snprintf(pid, sizeof(pid), "%.20s", at + strlen("process_id:"));
    kill((pid_t)strtol(pid, NULL, 10), SIGKILL);
}

static inline void fixture_restart_redis(void)
{
    int64_t deadline = clock_mono_ns() + 20 * NS_PER_S;
    while (!redis_child_has_died(fixture.child))
        assert_true(clock_mono_ns() < deadline);
    while (redis_child_restart(fixture.child))
        assert_true(clock_mono_ns() < deadline);
    for (;;) {
        assert_true(clock_mono_ns() < deadline);
        fixture_connect();
        redisReply *reply = fixture.look->err ? NULL : redisCommand(fixture.look, "PING");
        bool is_up = reply && reply->type == REDIS_REPLY_STATUS;
        if (reply)
            freeReplyObject(reply);
        if (is_up)
            break;
        usleep(2000);
    }
}

#define turn_until(condition)                                   \
    do {                                                        \
        int64_t deadline_ns_ = clock_mono_ns() + 30 * NS_PER_S; \
        while (!(condition)) {                                  \
            loop_turn(fixture.loop, 5 * NS_PER_MS);             \
            if (clock_mono_ns() > deadline_ns_)                 \
                fail_msg("never: %s", #condition);              \
        }                                                       \
    } while (0)

/* The sum of all accounts of a tenant, which is zero always. */
static inline long long sum_of_accounts(const char *tenant)
{
    long long sum = 0;
    redisReply *reply = redisCommand(fixture.look, "HVALS sl:{ten:%s}:acct", tenant);
    assert_true(reply && reply->type == REDIS_REPLY_ARRAY);
    for (size_t i = 0; i < reply->elements; i++)
        sum += strtoll(reply->element[i]->str, NULL, 10);
    freeReplyObject(reply);
    return sum;
}

/* The sum of what gateways hold of a tenant, which is the account `held`. */
static inline long long sum_of_holds(const char *tenant)
{
    long long sum = 0;
    redisReply *reply = redisCommand(fixture.look, "HVALS sl:{ten:%s}:hold", tenant);
    assert_true(reply && reply->type == REDIS_REPLY_ARRAY);
    for (size_t i = 0; i < reply->elements; i++)
        sum += strtoll(reply->element[i]->str, NULL, 10);
    freeReplyObject(reply);
    return sum;
}

#endif
