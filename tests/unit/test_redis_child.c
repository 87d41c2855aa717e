#include "tests/unit/cmocka_all.h"
#include "core/clock.h"
#include "core/redis_child.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS (20 * NS_PER_S)

struct fixture {
    char dir[300];
    char url[160];
    struct redis_child *child;
};

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2 * NS_PER_MS}, NULL);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    snprintf(fixture->dir, sizeof(fixture->dir), "/tmp/sluice-child-XXXXXX");
    *state = fixture;
    return mkdtemp(fixture->dir) == NULL;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    char command[400];
    int rc;

    redis_child_stop(fixture->child);
    snprintf(command, sizeof(command), "rm -rf '%.25s'", fixture->dir); /* the part that mkdtemp made */
    rc = system(command);
    free(fixture);
    return rc;
}

static void start(struct fixture *fixture)
{
    assert_int_equal(redis_child_start(fixture->dir, false, &fixture->child, fixture->url, sizeof(fixture->url)),
                     ERR_NONE);
    assert_memory_equal(fixture->url, "unix:///", 8);
}

/* One command on a connection of its own; "" when there is no answer. */
static void ask(const char *url, const char *command, char *ret, size_t ret_size)
{
    redisContext *redis = redisConnectUnix(url + 7);
    redisReply *reply = redis != NULL && redis->err == 0 ? redisCommand(redis, command) : NULL;

    ret[0] = '\0';
    if (reply != NULL && reply->str != NULL)
        snprintf(ret, ret_size, "%s", reply->str);
    freeReplyObject(reply);
    if (redis != NULL)
        redisFree(redis);
}

static void assert_answer(const char *url, const char *command, const char *expected)
{
    char answer[4096];

    ask(url, command, answer, sizeof(answer));
    assert_string_equal(answer, expected);
}

static pid_t server_pid(const char *url)
{
    char info[4096];
    const char *at;

    ask(url, "INFO server", info, sizeof(info));
    at = strstr(info, "process_id:");
    assert_non_null(at);
    return (pid_t)strtol(at + 11, NULL, 10);
}

static void wait_died(struct redis_child *child)
{
    int64_t until_ns = clock_mono_ns() + PATIENCE_NS;

    while (!redis_child_has_died(child)) {
        assert_true(clock_mono_ns() < until_ns);
        nap();
    }
}

static void wait_answer(const char *url, const char *command, const char *expected)
{
    int64_t until_ns = clock_mono_ns() + PATIENCE_NS;
    char answer[4096];

    for (;;) {
        ask(url, command, answer, sizeof(answer));
        if (strcmp(answer, expected) == 0)
            return;
        assert_true(clock_mono_ns() < until_ns);
        nap();
    }
}

static void test_data_survives_stop(void **state)
{
    struct fixture *fixture = *state;
    pid_t pid;

    start(fixture);
    assert_false(redis_child_has_died(fixture->child));
    assert_answer(fixture->url, "SET key value", "OK");
    pid = server_pid(fixture->url);
    assert_int_equal(getpgid(pid), pid);
    fixture->child = redis_child_stop(fixture->child);
    assert_null(fixture->child);
    assert_int_equal(kill(pid, 0), -1);
    start(fixture);
    assert_answer(fixture->url, "GET key", "value");
}

static void test_is_configured_as_promised(void **state)
{
    static const char *const settings[][2] = {
        {"appendonly", "yes"}, {"appendfsync", "always"},    {"maxmemory-policy", "noeviction"}, {"port", "0"},
        {"save", ""},          {"aof-load-truncated", "yes"}};
    struct fixture *fixture = *state;
    redisContext *redis;

    assert_int_equal(redis_child_start(fixture->dir, true, &fixture->child, fixture->url, sizeof(fixture->url)),
                     ERR_NONE);
    redis = redisConnectUnix(fixture->url + 7);
    assert_int_equal(redis->err, 0);
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        redisReply *reply = redisCommand(redis, "CONFIG GET %s", settings[i][0]);

        assert_int_equal(reply->elements, 2);
        assert_string_equal(reply->element[1]->str, settings[i][1]);
        freeReplyObject(reply);
    }
    redisFree(redis);
}

static void test_killed_server_restarts_with_its_data(void **state)
{
    struct fixture *fixture = *state;
    char path[400];
    FILE *file;

    start(fixture);
    assert_answer(fixture->url, "SET key value", "OK");
    assert_int_equal(kill(server_pid(fixture->url), SIGKILL), 0);
    wait_died(fixture->child);
    assert_true(redis_child_has_died(fixture->child)); /* until it runs again */

    /* A write that the kill has cut. */
    snprintf(path, sizeof(path), "%s/redis/appendonlydir/appendonly.aof.1.incr.aof", fixture->dir);
    file = fopen(path, "a");
    assert_non_null(file);
    fputs("*3\r\n$3\r\nSET\r\n$3\r\nke", file);
    fclose(file);

    assert_int_equal(redis_child_restart(fixture->child), ERR_NONE);
    assert_false(redis_child_has_died(fixture->child));
    wait_answer(fixture->url, "GET key", "value");
    assert_answer(fixture->url, "SET key again", "OK");
}

static void test_one_owner_a_directory(void **state)
{
    struct fixture *fixture = *state;
    struct redis_child *second = NULL;
    char url[160] = "untouched";

    start(fixture);
    assert_int_equal(redis_child_start(fixture->dir, false, &second, url, sizeof(url)), ERR_EXISTS);
    assert_null(second);
    assert_string_equal(url, "untouched");
    assert_answer(fixture->url, "PING", "PONG"); /* the first is unharmed */
}

/* The owner is killed; its server ends by itself, and the next owner waits for that. */
static void test_killed_owner(void **state)
{
    struct fixture *fixture = *state;
    char url[160] = "";
    pid_t owner, server;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    owner = fork();
    if (owner == 0) {
        struct redis_child *child;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (redis_child_start(fixture->dir, false, &child, url, sizeof(url)) != ERR_NONE ||
            write(fds[1], url, sizeof(url)) != (ssize_t)sizeof(url))
            _exit(1);
        for (;;)
            pause();
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], url, sizeof(url)), sizeof(url));
    close(fds[0]);
    assert_answer(url, "SET key value", "OK");
    server = server_pid(url);
    kill(owner, SIGKILL);
    assert_int_equal(waitpid(owner, NULL, 0), owner);
    start(fixture);
    assert_int_not_equal(server_pid(fixture->url), server);
    assert_answer(fixture->url, "GET key", "value");
}

static void test_long_directory(void **state)
{
    struct fixture *fixture = *state;
    size_t len = strlen(fixture->dir);

    fixture->dir[len] = '/';
    memset(fixture->dir + len + 1, 'd', 200);
    fixture->dir[len + 201] = '\0';
    start(fixture);
    assert_true(strlen(fixture->url) <= 7 + 107);
    assert_answer(fixture->url, "PING", "PONG");
}

static void test_signals_and_descriptors_are_not_inherited(void **state)
{
    struct fixture *fixture = *state;
    char path[64], target[400], status[4096];
    sigset_t blocked, before;
    int zero = open("/dev/zero", O_RDONLY);
    int leaked = fcntl(zero, F_DUPFD, 50); /* not close-on-exec, as a careless library opens it */
    DIR *dir;
    FILE *file;
    size_t len;
    pid_t pid;

    close(zero);
    assert_true(leaked >= 50);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    start(fixture);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(leaked);
    pid = server_pid(fixture->url);

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    file = fopen(path, "r");
    assert_non_null(file);
    len = fread(status, 1, sizeof(status) - 1, file);
    fclose(file);
    status[len] = '\0';
    assert_non_null(strstr(status, "SigBlk:\t0000000000000000"));

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        ssize_t target_len = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (target_len < 0)
            continue;
        target[target_len] = '\0';
        assert_string_not_equal(target, "/dev/zero");
    }
    closedir(dir);
}

static void test_failures(void **state)
{
    struct fixture *fixture = *state;
    char path[320], *saved_path = strdup(getenv("PATH"));

    snprintf(path, sizeof(path), "%s/file", fixture->dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(redis_child_start(path, false, &fixture->child, fixture->url, sizeof(fixture->url)), ERR_SYSTEM);
    setenv("PATH", "/nonexistent", 1);
    assert_int_equal(redis_child_start(fixture->dir, false, &fixture->child, fixture->url, sizeof(fixture->url)),
                     ERR_UNREACHABLE);
    setenv("PATH", saved_path, 1);
    free(saved_path);
    assert_null(fixture->child);
    start(fixture); /* the failure has let go of the directory */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_data_survives_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_is_configured_as_promised, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_server_restarts_with_its_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_owner_a_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signals_and_descriptors_are_not_inherited, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
