#include "tests/unit/cmocka_all.h"
#include "core/clock.h"
#include "core/redis.h"
#include "core/redis_child.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_NS (20 * NS_PER_S)
#define NEVER_NS (600 * NS_PER_S)

struct fixture {
    char dir[64];
    char url[160];
    struct redis_child *child;
    struct loop *loop;
    struct redis *redis;
    unsigned ups, downs;
    bool in_call; /* within a call that asks for a completion */
    bool free_on_up;
};

/* What a completion brought. */
struct answer {
    struct fixture *fixture;
    unsigned fired;
    enum error error;
    int type;
    long long integer;
    char text[64];
    struct answer *after; /* must have fired before */
    bool free_then;
};

static void on_done(void *ctx, const redisReply *reply, enum error error)
{
    struct answer *answer = ctx;

    assert_false(answer->fixture->in_call);
    assert_true(answer->after == NULL || answer->after->fired == 1);
    assert_true((reply != NULL) == (error == ERR_NONE));
    answer->fired++;
    answer->error = error;
    if (reply != NULL) {
        answer->type = reply->type;
        answer->integer = reply->integer;
        snprintf(answer->text, sizeof(answer->text), "%s", reply->str != NULL ? reply->str : "");
    }
    if (answer->free_then)
        answer->fixture->redis = redis_free(answer->fixture->redis);
}

static void on_state(void *ctx, bool connected)
{
    struct fixture *fixture = ctx;

    assert_int_equal(redis_is_connected(fixture->redis), connected);
    if (connected)
        fixture->ups++;
    else
        fixture->downs++;
    if (connected && fixture->free_on_up)
        fixture->redis = redis_free(fixture->redis);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    *state = fixture;
    snprintf(fixture->dir, sizeof(fixture->dir), "/tmp/sluice-redis-XXXXXX");
    if (mkdtemp(fixture->dir) == NULL || loop_open(&fixture->loop) != ERR_NONE)
        return -1;
    return (int)redis_child_start(fixture->dir, false, &fixture->child, fixture->url, sizeof(fixture->url));
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    char command[128];
    int rc;

    redis_free(fixture->redis);
    loop_free(fixture->loop);
    redis_child_stop(fixture->child);
    snprintf(command, sizeof(command), "rm -rf '%s'", fixture->dir);
    rc = system(command);
    free(fixture);
    return rc;
}

static void open_redis(struct fixture *fixture, const char *url, int64_t timeout_ns, unsigned queue_max)
{
    struct redis_options options = {
        .url = url, .timeout_ns = timeout_ns, .queue_max = queue_max, .on_state = on_state, .ctx = fixture};

    assert_int_equal(redis_open(fixture->loop, &options, &fixture->redis), ERR_NONE);
    assert_false(redis_is_connected(fixture->redis));
}

#define turn_until(fixture, condition)                     \
    do {                                                   \
        int64_t until_ns_ = clock_mono_ns() + PATIENCE_NS; \
        while (!(condition)) {                             \
            assert_true(clock_mono_ns() < until_ns_);      \
            loop_turn((fixture)->loop, 10 * NS_PER_MS);    \
        }                                                  \
    } while (0)

/* A command of up to 8 words; NULL ends them. */
static enum error ask(struct fixture *fixture, struct answer *answer, ...)
{
    struct str words[8];
    size_t count = 0;
    enum error error;
    va_list list;

    va_start(list, answer);
    for (const char *word; (word = va_arg(list, const char *)) != NULL;)
        words[count++] = str_of(word);
    va_end(list);
    *answer = (struct answer){.fixture = fixture, .after = answer->after, .free_then = answer->free_then};
    fixture->in_call = true;
    error = redis_command(fixture->redis, on_done, answer, count, words);
    fixture->in_call = false;
    return error;
}

static void assert_asks(struct fixture *fixture, const char *word, const char *argument, const char *expected)
{
    struct answer answer = {0};

    assert_int_equal(ask(fixture, &answer, word, argument, NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(answer.error, ERR_NONE);
    assert_string_equal(answer.text, expected);
}

/* A command on a connection of its own, blocking. */
static redisReply *ask_aside(struct fixture *fixture, const char *command)
{
    redisContext *redis = redisConnectUnix(fixture->url + 7);
    redisReply *reply = redisCommand(redis, command);

    assert_non_null(reply);
    redisFree(redis);
    return reply;
}

static void kill_server(struct fixture *fixture)
{
    redisReply *info = ask_aside(fixture, "INFO server");

    assert_int_equal(kill((pid_t)strtol(strstr(info->str, "process_id:") + 11, NULL, 10), SIGKILL), 0);
    freeReplyObject(info);
}

static void test_pipeline_keeps_order(void **state)
{
    enum { COUNT = 1000 };
    struct fixture *fixture = *state;
    struct answer *answers = calloc(COUNT, sizeof(*answers));

    open_redis(fixture, fixture->url, 0, 0);
    for (unsigned round = 1; round <= 2; round++) { /* first while not connected yet */
        for (unsigned i = 0; i < COUNT; i++) {
            answers[i].after = i > 0 ? &answers[i - 1] : NULL;
            assert_int_equal(ask(fixture, &answers[i], "INCR", "counter", NULL), ERR_NONE);
        }
        turn_until(fixture, answers[COUNT - 1].fired > 0);
        for (unsigned i = 0; i < COUNT; i++) {
            assert_int_equal(answers[i].fired, 1);
            assert_int_equal(answers[i].integer, (round - 1) * COUNT + i + 1);
        }
    }
    assert_true(redis_is_connected(fixture->redis));
    assert_int_equal(fixture->ups, 1);
    assert_int_equal(fixture->downs, 0);
    free(answers);
}

/* Far more than a socket takes at once. */
static void test_large_backlog(void **state)
{
    enum { COUNT = 200, SIZE = 100000 };
    struct fixture *fixture = *state;
    struct answer *answers = calloc(COUNT, sizeof(*answers));
    char *value = malloc(SIZE);

    memset(value, 'v', SIZE);
    value[1] = '\0';
    open_redis(fixture, fixture->url, 0, 0);
    for (unsigned i = 0; i < COUNT; i++) {
        struct str argv[] = {STR("APPEND"), STR("key"), {value, SIZE}};

        answers[i] = (struct answer){.fixture = fixture, .after = i > 0 ? &answers[i - 1] : NULL};
        assert_int_equal(redis_command(fixture->redis, on_done, &answers[i], 3, argv), ERR_NONE);
    }
    turn_until(fixture, answers[COUNT - 1].fired == 1);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(answers[i].integer, (long long)(i + 1) * SIZE);
    free(value);
    free(answers);
}

static void test_formats(void **state)
{
    struct fixture *fixture = *state;
    struct answer answers[2] = {{.fixture = fixture}, {.fixture = fixture}};

    open_redis(fixture, fixture->url, 0, 0);
    assert_int_equal(redis_commandf(fixture->redis, NULL, NULL, "SET %s %b", "key", "a b", (size_t)3), ERR_NONE);
    assert_int_equal(redis_commandf(fixture->redis, on_done, &answers[0], "GET %s", "key"), ERR_NONE);
    assert_int_equal(redis_commandf(fixture->redis, on_done, &answers[1], "NOSUCH"), ERR_NONE);
    turn_until(fixture, answers[1].fired == 1);
    assert_string_equal(answers[0].text, "a b");
    assert_int_equal(answers[1].error, ERR_NONE);
    assert_int_equal(answers[1].type, REDIS_REPLY_ERROR);

    assert_int_equal(redis_commandf(fixture->redis, on_done, &answers[0], "SUBSCRIBE c"), ERR_BAD_INPUT);
    assert_int_equal(redis_commandf(fixture->redis, on_done, &answers[0], "GET %q", "key"), ERR_BAD_INPUT);
    assert_int_equal(ask(fixture, &answers[0], "monitor", NULL), ERR_BAD_INPUT);
    assert_int_equal(redis_command(fixture->redis, on_done, &answers[0], 0, NULL), ERR_BAD_INPUT);
    assert_int_equal(answers[0].fired, 0);
}

static const char script_text[] = "return redis.call('INCRBY', KEYS[1], ARGV[1]) .. ':' .. ARGV[2]";

static void run(struct fixture *fixture, struct redis_script *script, struct answer *answer, const char *amount)
{
    struct str args[] = {STR("sum"), str_of(amount), STR("b\r\n$1")};

    *answer = (struct answer){.fixture = fixture};
    fixture->in_call = true;
    assert_int_equal(redis_run(fixture->redis, script, on_done, answer, 1, 2, args), ERR_NONE);
    fixture->in_call = false;
}

static void test_scripts(void **state)
{
    struct fixture *fixture = *state;
    struct redis_script script = {
        .name = "test", .text = script_text, .text_end = script_text + sizeof(script_text) - 1};
    struct answer answers[3];
    redisReply *info;

    open_redis(fixture, fixture->url, 0, 0);
    for (unsigned i = 0; i < 3; i++) /* none is loaded when the three are sent; each runs once */
        run(fixture, &script, &answers[i], "1");
    turn_until(fixture, answers[2].fired == 1);
    assert_string_equal(answers[0].text, "1:b\r\n$1");
    assert_string_equal(answers[1].text, "2:b\r\n$1");
    assert_string_equal(answers[2].text, "3:b\r\n$1");
    info = ask_aside(fixture, "INFO commandstats");
    assert_non_null(strstr(info->str, "cmdstat_eval:calls=1,")); /* the text was sent once */
    freeReplyObject(info);
    assert_asks(fixture, "SCRIPT", "FLUSH", "OK");
    run(fixture, &script, &answers[0], "10");
    turn_until(fixture, answers[0].fired == 1);
    assert_string_equal(answers[0].text, "13:b\r\n$1");
    assert_asks(fixture, "CONFIG", "RESETSTAT", "OK");
    run(fixture, &script, &answers[0], "100"); /* loaded: no text is sent */
    turn_until(fixture, answers[0].fired == 1);
    assert_string_equal(answers[0].text, "113:b\r\n$1");
    info = ask_aside(fixture, "INFO commandstats");
    assert_non_null(strstr(info->str, "cmdstat_evalsha:"));
    assert_null(strstr(info->str, "cmdstat_eval:"));
    freeReplyObject(info);

    assert_asks(fixture, "SCRIPT", "FLUSH", "OK"); /* again: the text is sent again */
    for (unsigned i = 0; i < 3; i++)
        run(fixture, &script, &answers[i], "0");
    turn_until(fixture, answers[0].fired && answers[1].fired && answers[2].fired);
    for (unsigned i = 0; i < 3; i++)
        assert_string_equal(answers[i].text, "113:b\r\n$1");

    run(fixture, &script, &answers[0], "not a number"); /* an error of the script is an answer */
    turn_until(fixture, answers[0].fired == 1);
    assert_int_equal(answers[0].error, ERR_NONE);
    assert_int_equal(answers[0].type, REDIS_REPLY_ERROR);
}

struct script_user {
    pthread_t thread;
    const char *url;
    struct redis_script *script;
    char text[64];
};

static void on_script_user_done(void *ctx, const redisReply *reply, enum error error)
{
    struct script_user *user = ctx;

    snprintf(user->text, sizeof(user->text), "%s", error == ERR_NONE && reply->str != NULL ? reply->str : "failed");
}

static void *use_script(void *arg)
{
    struct script_user *user = arg;
    struct redis_options options = {.url = user->url};
    struct str args[] = {STR("none"), STR("0"), STR("done")};
    struct loop *loop = NULL;
    struct redis *redis = NULL;

    if (loop_open(&loop) == ERR_NONE && redis_open(loop, &options, &redis) == ERR_NONE &&
        redis_run(redis, user->script, on_script_user_done, user, 1, 2, args) == ERR_NONE)
        while (user->text[0] == '\0')
            loop_turn(loop, 10 * NS_PER_MS);
    redis_free(redis);
    loop_free(loop);
    return NULL;
}

static void test_threads_share_a_script(void **state)
{
    struct fixture *fixture = *state;
    struct redis_script script = {
        .name = "test", .text = script_text, .text_end = script_text + sizeof(script_text) - 1};
    struct script_user users[4] = {0};

    for (size_t i = 0; i < 4; i++) {
        users[i] = (struct script_user){.url = fixture->url, .script = &script};
        assert_int_equal(pthread_create(&users[i].thread, NULL, use_script, &users[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(users[i].thread, NULL);
        assert_string_equal(users[i].text, "0:done");
    }
    assert_int_equal(strlen(script.sha), 40);
}

static void test_killed_server(void **state)
{
    struct fixture *fixture = *state;
    struct answer stuck = {0}, behind[50] = {0}, waits = {0};

    open_redis(fixture, fixture->url, 0, 0);
    assert_asks(fixture, "SET", "key", "ERR wrong number of arguments for 'set' command");
    assert_int_equal(ask(fixture, &stuck, "BLPOP", "nothing", "0", NULL), ERR_NONE);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(ask(fixture, &behind[i], "INCR", "never", NULL), ERR_NONE);
    loop_turn(fixture->loop, 0);
    loop_turn(fixture->loop, 0);
    kill_server(fixture);
    turn_until(fixture, fixture->downs == 1);
    assert_int_equal(stuck.fired, 1);
    assert_int_equal(stuck.error, ERR_CLOSED);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(behind[i].fired, 1);
        assert_int_equal(behind[i].error, ERR_CLOSED);
    }
    assert_int_equal(ask(fixture, &waits, "INCR", "later", NULL), ERR_NONE); /* for the connection */
    turn_until(fixture, redis_child_has_died(fixture->child));
    turn_until(fixture, redis_child_restart(fixture->child) == ERR_NONE);
    turn_until(fixture, waits.fired == 1);
    assert_int_equal(waits.error, ERR_NONE);
    assert_int_equal(waits.integer, 1);
    assert_int_equal(fixture->ups, 2);
    assert_int_equal(ask(fixture, &waits, "EXISTS", "never", NULL), ERR_NONE); /* not sent again */
    turn_until(fixture, waits.fired == 1);
    assert_int_equal(waits.integer, 0);
}

/* The server closes the connection at any point of the traffic, large answers included. */
static void test_connections_cut(void **state)
{
    enum { COUNT = 100, ROUNDS = 30 };
    struct fixture *fixture = *state;
    struct redis_script script = {
        .name = "test", .text = script_text, .text_end = script_text + sizeof(script_text) - 1};
    struct answer *answers = calloc(COUNT, sizeof(*answers));
    unsigned answered = 0, lost = 0;

    freeReplyObject(ask_aside(fixture, "SETRANGE large 300000 x"));
    open_redis(fixture, fixture->url, 0, 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            if (i % 3 == 0)
                run(fixture, &script, &answers[i], "1");
            else
                assert_int_equal(ask(fixture, &answers[i], "GET", "large", NULL), ERR_NONE);
        }
        for (unsigned i = 0; i < round; i++)
            loop_turn(fixture->loop, NS_PER_MS);
        freeReplyObject(ask_aside(fixture, round % 2 ? "CLIENT KILL TYPE normal" : "SCRIPT FLUSH"));
        for (unsigned i = 0; i < COUNT; i++) {
            turn_until(fixture, answers[i].fired > 0);
            assert_int_equal(answers[i].fired, 1);
            assert_true(answers[i].error == ERR_NONE || answers[i].error == ERR_CLOSED);
            if (answers[i].error == ERR_NONE)
                answered++;
            else
                lost++;
        }
    }
    assert_true(answered > 0 && lost > 0 && fixture->downs > 0);
    free(answers);
}

static void test_queue_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    struct answer answers[10] = {0}, more = {0};
    size_t half = (size_t)40 << 20;
    char *value = calloc(1, half * 2);
    struct str argv[] = {STR("ECHO"), {value, half * 2}};

    open_redis(fixture, fixture->url, 0, 10);
    assert_int_equal(redis_command(fixture->redis, on_done, &more, 2, argv), ERR_TOO_LARGE);
    argv[1].len = half;
    answers[0].fixture = fixture;
    assert_int_equal(redis_command(fixture->redis, on_done, &answers[0], 2, argv), ERR_NONE);
    assert_int_equal(redis_command(fixture->redis, on_done, &more, 2, argv), ERR_BUSY);
    for (unsigned i = 1; i < 10; i++)
        assert_int_equal(ask(fixture, &answers[i], "PING", NULL), ERR_NONE);
    assert_int_equal(ask(fixture, &more, "PING", NULL), ERR_BUSY);
    turn_until(fixture, answers[9].fired == 1);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(ask(fixture, &answers[i], "PING", NULL), ERR_NONE);
    assert_int_equal(ask(fixture, &more, "PING", NULL), ERR_BUSY);
    turn_until(fixture, answers[9].fired == 1);
    assert_int_equal(more.fired, 0);
    free(value);
}

static void test_overdue_in_flight(void **state)
{
    struct fixture *fixture = *state;
    struct answer stuck = {0}, behind = {0};
    int64_t started_ns;

    open_redis(fixture, fixture->url, 300 * NS_PER_MS, 0);
    turn_until(fixture, fixture->ups == 1);
    started_ns = clock_mono_ns();
    assert_int_equal(ask(fixture, &stuck, "BLPOP", "nothing", "0", NULL), ERR_NONE);
    turn_until(fixture, clock_mono_ns() >= started_ns + 100 * NS_PER_MS);
    assert_int_equal(ask(fixture, &behind, "PING", NULL), ERR_NONE);
    turn_until(fixture, stuck.fired == 1 && behind.fired == 1);
    assert_true(clock_mono_ns() >= started_ns + 300 * NS_PER_MS);
    assert_int_equal(stuck.error, ERR_DEADLINE);
    assert_int_equal(behind.error, ERR_CLOSED);
    assert_int_equal(fixture->downs, 1);
    assert_asks(fixture, "PING", NULL, "PONG");
    assert_int_equal(fixture->ups, 2);
}

/* A listener that accepts by its backlog and never answers. */
static int open_mute(char *ret_url, size_t ret_url_size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(ret_url, ret_url_size, "redis://127.0.0.1:%d", ntohs(address.sin_port));
    return fd;
}

static void test_overdue_unsent(void **state)
{
    struct fixture *fixture = *state;
    struct answer answer = {0};
    char url[64];
    int fd = open_mute(url, sizeof(url));

    open_redis(fixture, url, 50 * NS_PER_MS, 0);
    assert_int_equal(ask(fixture, &answer, "PING", NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(answer.error, ERR_DEADLINE);
    fixture->redis = redis_free(fixture->redis);
    close(fd);
    open_redis(fixture, url, 50 * NS_PER_MS, 0); /* refused */
    assert_int_equal(ask(fixture, &answer, "PING", NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(answer.error, ERR_DEADLINE);
    assert_int_equal(fixture->ups, 0);
    assert_int_equal(fixture->downs, 0);
}

static void test_free_cancels(void **state)
{
    enum { COUNT = 20 };
    struct fixture *fixture = *state;
    struct answer answers[COUNT] = {0};

    /* Waiting, then in flight. */
    for (unsigned round = 0; round < 2; round++) {
        open_redis(fixture, fixture->url, NEVER_NS, 0);
        if (round == 1)
            turn_until(fixture, redis_is_connected(fixture->redis));
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(ask(fixture, &answers[i], "BLPOP", "nothing", "0", NULL), ERR_NONE);
        loop_turn(fixture->loop, 0);
        fixture->redis = redis_free(fixture->redis);
        for (unsigned i = 0; i < COUNT; i++) {
            assert_int_equal(answers[i].fired, 1);
            assert_int_equal(answers[i].error, ERR_CANCELLED);
        }
        for (unsigned i = 0; i < 3; i++)
            loop_turn(fixture->loop, 0);
        assert_int_equal(answers[0].fired, 1);
    }
}

/* A completion frees the connection while hiredis holds more answers for it. */
static void test_free_within_completion(void **state)
{
    enum { COUNT = 20 };
    struct fixture *fixture = *state;
    struct answer answers[COUNT] = {0}, stuck = {.free_then = true};

    open_redis(fixture, fixture->url, NEVER_NS, 0);
    answers[5].free_then = true;
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(ask(fixture, &answers[i], "PING", NULL), ERR_NONE);
    turn_until(fixture, fixture->redis == NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(answers[i].fired, 1);
        assert_int_equal(answers[i].error, i <= 5 ? ERR_NONE : ERR_CANCELLED);
    }

    /* As a command is overdue. */
    open_redis(fixture, fixture->url, 200 * NS_PER_MS, 0);
    turn_until(fixture, redis_is_connected(fixture->redis));
    assert_int_equal(ask(fixture, &stuck, "BLPOP", "nothing", "0", NULL), ERR_NONE);
    assert_int_equal(ask(fixture, &answers[0], "PING", NULL), ERR_NONE);
    turn_until(fixture, fixture->redis == NULL);
    assert_int_equal(stuck.error, ERR_DEADLINE);
    assert_int_equal(answers[0].error, ERR_CANCELLED);

    /* As the server has died. */
    open_redis(fixture, fixture->url, NEVER_NS, 0);
    turn_until(fixture, redis_is_connected(fixture->redis));
    assert_int_equal(ask(fixture, &stuck, "BLPOP", "nothing", "0", NULL), ERR_NONE);
    assert_int_equal(ask(fixture, &answers[0], "PING", NULL), ERR_NONE);
    loop_turn(fixture->loop, 0);
    kill_server(fixture);
    turn_until(fixture, fixture->redis == NULL);
    assert_int_equal(stuck.error, ERR_CLOSED);
    assert_int_equal(answers[0].error, ERR_CANCELLED);
}

static void test_free_as_connected(void **state)
{
    struct fixture *fixture = *state;
    struct answer answer = {0};

    fixture->free_on_up = true;
    open_redis(fixture, fixture->url, NEVER_NS, 0);
    assert_int_equal(ask(fixture, &answer, "PING", NULL), ERR_NONE);
    turn_until(fixture, fixture->redis == NULL);
    assert_int_equal(answer.fired, 1);
    assert_int_equal(answer.error, ERR_CANCELLED);
}

static void on_done_ask_again(void *ctx, const redisReply *reply, enum error error)
{
    struct answer *answer = ctx;
    enum error again = redis_commandf(answer->fixture->redis, on_done, answer, "PING");

    assert_null(reply);
    assert_int_equal(error, ERR_CANCELLED);
    assert_int_equal(again, ERR_CANCELLED);
    answer->error = again;
}

static void test_no_command_within_free(void **state)
{
    struct fixture *fixture = *state;
    struct answer answer = {.fixture = fixture};

    open_redis(fixture, fixture->url, 0, 0);
    assert_int_equal(redis_commandf(fixture->redis, on_done_ask_again, &answer, "PING"), ERR_NONE);
    fixture->redis = redis_free(fixture->redis);
    assert_int_equal(answer.error, ERR_CANCELLED);
    assert_int_equal(answer.fired, 0);
}

static void test_login_and_database(void **state)
{
    struct fixture *fixture = *state;
    struct answer answer = {0};
    char url[160], good[200], port[8];
    const char *address;
    int fd = open_mute(url, sizeof(url));

    close(fd); /* its port is free now */
    address = url + strlen("redis://");
    snprintf(port, sizeof(port), "%s", strchr(address, ':') + 1);
    open_redis(fixture, fixture->url, 0, 0);
    assert_int_equal(ask(fixture, &answer, "CONFIG", "SET", "bind", "127.0.0.1", NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(ask(fixture, &answer, "CONFIG", "SET", "port", port, NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_string_equal(answer.text, "OK");
    assert_int_equal(ask(fixture, &answer, "ACL", "SETUSER", "gate", "on", ">p@ss/w:rd", "~*", "+@all", NULL),
                     ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_string_equal(answer.text, "OK");
    assert_int_equal(ask(fixture, &answer, "CONFIG", "SET", "requirepass", "only", NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    fixture->redis = redis_free(fixture->redis);

    snprintf(good, sizeof(good), "redis://gate:p%%40ss%%2fw:rd@%s/3", address);
    open_redis(fixture, good, 0, 0);
    assert_asks(fixture, "ACL", "WHOAMI", "gate");
    assert_int_equal(ask(fixture, &answer, "SET", "here", "1", NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(ask(fixture, &answer, "MOVE", "here", "0", NULL), ERR_NONE); /* from 3 */
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(answer.integer, 1);
    fixture->redis = redis_free(fixture->redis);

    snprintf(good, sizeof(good), "redis://:only@%s", address);
    open_redis(fixture, good, 0, 0);
    assert_asks(fixture, "GET", "here", "1");
    fixture->redis = redis_free(fixture->redis);

    snprintf(good, sizeof(good), "redis://:wrong@%s", address);
    fixture->ups = 0;
    open_redis(fixture, good, 300 * NS_PER_MS, 0);
    assert_int_equal(ask(fixture, &answer, "PING", NULL), ERR_NONE);
    turn_until(fixture, answer.fired == 1);
    assert_int_equal(answer.error, ERR_DEADLINE);
    assert_int_equal(fixture->ups, 0);
}

static void test_refused_urls(void **state)
{
    static const char *const urls[] = {
        "",
        "localhost:6379",
        "http://localhost",
        "rediss://localhost:6379",
        "redis://",
        "redis://:6379",
        "redis://host:0",
        "redis://host:65536",
        "redis://host:port",
        "redis://host/db",
        "redis://host/-1",
        "redis://user@host",
        "redis://:%4@host",
        "redis://:%00@host",
        "redis://[::1",
        "redis://[::1]6379",
        "unix://",
        "unix://relative",
    };
    struct fixture *fixture = *state;
    char path[200];

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct redis_options options = {.url = urls[i]};

        assert_int_equal(redis_open(fixture->loop, &options, &fixture->redis), ERR_BAD_INPUT);
        assert_null(fixture->redis);
    }
    /* A byte longer than a socket address holds. */
    memset(path, 'p', sizeof(path) - 1);
    memcpy(path, "unix:///", 8);
    path[7 + 108] = '\0';
    assert_int_equal(redis_open(fixture->loop, &(struct redis_options){.url = path}, &fixture->redis), ERR_BAD_INPUT);
    path[7 + 107] = '\0';
    open_redis(fixture, path, 0, 0);
    fixture->redis = redis_free(fixture->redis);
    open_redis(fixture, "redis://:secret@[::1]:1/0", 0, 0); /* good, though nobody answers there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pipeline_keeps_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_backlog, setup, teardown),
        cmocka_unit_test_setup_teardown(test_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scripts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads_share_a_script, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_server, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connections_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overdue_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overdue_unsent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_cancels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_within_completion, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_as_connected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_command_within_free, setup, teardown),
        cmocka_unit_test_setup_teardown(test_login_and_database, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_urls, setup, teardown),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
