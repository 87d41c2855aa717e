/* The door with everything real: a gateway (a reactor on its thread, the control thread here), Redis, and the script as
 * a local process, which fetches worker and probe, proves this machine's CPU, and runs a command. */
#include "core/httpd.h"
#include "gateway/bootstrap.h"
#include "gateway/control_priv.h"
#include "gateway/door.h"
#include "gateway/enrolment.h"
#include "tests/unit/redis_fixture.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>

#define LEASE_ID "lse_01h8zzzzzzzzzzzzzzzzzzzzzz"

static struct {
    struct settings settings;
    struct gateway gateway;
    struct reactor *reactors[1];
    pthread_t thread;
    uint16_t port;
    char script[65536], token[SECRET_TEXT_MAX], home[64];
    pid_t machine;
    unsigned answers;
    enum error error;
    char logs[4096];
    struct door_logs told;
} world;

/* -- a gateway --------------------------------------------------------------------------------------------------- */

static void *reactor_thread(void *arg)
{
    reactor_run(arg);
    return NULL;
}

static void programs_folder(char ret[static PATH_MAX])
{
    ssize_t len = readlink("/proc/self/exe", ret, PATH_MAX - 1);
    assert_true(len > 0);
    ret[len] = '\0';
    for (int i = 0; i < 2; i++)
        *strrchr(ret, '/') = '\0'; /* BUILD/tests/test_door_flow */
}

static void gateway_open(void)
{
    char folder[PATH_MAX], address[64];
    int fd;
    programs_folder(folder);
    memset(&world.gateway, 0, sizeof(world.gateway));
    world.gateway.settings = &world.settings;
    world.gateway.reactors = world.reactors;
    world.gateway.reactor_count = 1;
    world.gateway.control_loop = fixture.loop;
    id_new("gwy_", world.gateway.id);
    assert_int_equal(bootstrap_open(folder, &world.gateway.bootstrap), ERR_NONE);
    assert_true(bootstrap_is_whole(world.gateway.bootstrap));
    snprintf(address, sizeof(address), "127.0.0.1:%u", world.port);
    assert_int_equal(httpd_listen(address, true, &fd, &world.port), ERR_NONE);
    snprintf(world.gateway.public_url, sizeof(world.gateway.public_url), "http://127.0.0.1:%u", world.port);
    const struct reactor_options reactor = {
        .gateway = &world.gateway, .redis_url = fixture.url, .journal_dir = fixture.dir, .listen_fd = fd};
    assert_int_equal(reactor_open(&reactor, &world.reactors[0]), ERR_NONE);
    const struct control_options control = {.gateway = &world.gateway,
                                            .loop = fixture.loop,
                                            .redis = fixture.redis,
                                            .redis_url = fixture.url,
                                            .journal_dir = fixture.dir};
    struct control *opened = NULL;
    assert_int_equal(control_open(&control, &opened), ERR_NONE);
    assert_int_equal(pthread_create(&world.thread, NULL, reactor_thread, world.reactors[0]), 0);
    turn_until(control_is_ready(world.gateway.control) && bootstrap_has_key(world.gateway.bootstrap));
}

static void gateway_close(void)
{
    control_shut(world.gateway.control);
    reactor_stop(world.reactors[0]);
    pthread_join(world.thread, NULL);
    control_give_back(world.gateway.control);
    turn_until(control_is_idle(world.gateway.control));
    control_free(world.gateway.control);
    world.reactors[0] = reactor_free(world.reactors[0]);
    world.gateway.bootstrap = bootstrap_free(world.gateway.bootstrap);
}

static int world_open(void **state)
{
    char error[CONFIG_ERROR_MAX];
    (void)state;
    look("FLUSHALL");
    memset(&world, 0, sizeof(world));
    assert_int_equal(settings_load(NULL, &world.settings, error), ERR_NONE);
    assert_int_equal(settings_set(&world.settings, "data_dir", fixture.dir, "--data-dir", error), ERR_NONE);
    snprintf(world.home, sizeof(world.home), "%s/home-XXXXXX", fixture.dir);
    assert_non_null(mkdtemp(world.home));
    gateway_open();
    return 0;
}

static int world_close(void **state)
{
    (void)state;
    if (world.machine > 0) {
        kill(world.machine, SIGKILL);
        waitpid(world.machine, NULL, 0);
    }
    gateway_close();
    settings_free(&world.settings);
    return 0;
}

/* -- an attempt -------------------------------------------------------------------------------------------------- */

static void on_opened(void *ctx, enum error error, const struct door_start *start)
{
    (void)ctx;
    world.answers++;
    world.error = error;
    if (error)
        return;
    assert_true(str_copy(world.script, sizeof(world.script), start->argv[2]));
    assert_int_equal(start->env_count, 1);
    assert_true(str_eq(start->env[0].name, STR("SLUICE_TOKEN")));
    assert_true(str_copy(world.token, sizeof(world.token), start->env[0].value));
}

static void on_done(void *ctx, enum error error)
{
    (void)ctx;
    world.answers++;
    world.error = error;
}

static void on_logs(void *ctx, enum error error, const struct door_logs *logs)
{
    on_done(ctx, error);
    if (error)
        return;
    world.told = *logs;
    assert_true(str_copy(world.logs, sizeof(world.logs), logs->bytes));
}

static enum error answer_to(enum error asked)
{
    unsigned before = world.answers;
    assert_int_equal(asked, ERR_NONE);
    turn_until(world.answers > before);
    assert_int_equal(world.answers, before + 1);
    return world.error;
}

#define door(call, ...) answer_to(door_##call(world.gateway.control, STR(LEASE_ID), 1, __VA_ARGS__, NULL))

static struct door_view view(void)
{
    struct door_view now;
    door_state(world.gateway.control, STR(LEASE_ID), 1, &now);
    return now;
}

static void open_attempt(const char *shell_command, int64_t orphan_s)
{
    const struct str words[] = {STR("sh"), STR("-c"), str_of(shell_command)};
    const struct door_want want = {
        .kind = DOOR_CONTAINER, .command = words, .command_count = 3, .orphan_s = orphan_s, .supplier = STR("net")};
    assert_int_equal(door(open_attempt, &want, on_opened), ERR_NONE);
}

/* What a network does: runs the script with the token in its environment. */
static void machine_start(void)
{
    char token[SECRET_TEXT_MAX + 16], tmp[96], secret[] = "SLUICE_SECRET_THING=1", path[] = "PATH=/usr/bin:/bin";
    snprintf(token, sizeof(token), "SLUICE_TOKEN=%s", world.token);
    snprintf(tmp, sizeof(tmp), "TMPDIR=%s", world.home);
    char *const env[] = {path, token, tmp, secret, (char[]){"TENANT=yes"}, NULL};
    char *const argv[] = {(char[]){"sh"}, (char[]){"-c"}, world.script, NULL};
    world.machine = fork();
    if (world.machine == 0) {
        signal(SIGPIPE, SIG_DFL);
        execve("/bin/sh", argv, env);
        _exit(127);
    }
    assert_true(world.machine > 0);
}

static int machine_end(void)
{
    int status = 0;
    turn_until(waitpid(world.machine, &status, WNOHANG) == world.machine);
    world.machine = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* -- tests ------------------------------------------------------------------------------------------------------- */

static void a_lease_from_start_to_end(void **state)
{
    (void)state;
    char text[160], worker[ID_TEXT_MAX];
    const struct door_sold sold = {STR("cpu"), 1, 0};
    open_attempt("echo begins; env; trap 'echo ends; exit 3' TERM; while :; do sleep 0.05; done", 0);
    char token[SECRET_TEXT_MAX];
    memcpy(token, world.token, sizeof(token));
    open_attempt("echo begins; env; trap 'echo ends; exit 3' TERM; while :; do sleep 0.05; done", 0);
    assert_string_equal(token, world.token); /* another gateway that goes on makes the same */
    assert_int_equal(view().stage, DOOR_ABSENT);
    assert_int_equal(door_go(world.gateway.control, STR(LEASE_ID), 1, on_done, NULL), ERR_CLOSED);

    machine_start();
    turn_until(view().stage == DOOR_PROVEN && view().command == DOOR_COMMAND_WAITING);
    struct door_view now = view();
    assert_true(now.is_linked);
    assert_string_equal(now.gpu, "cpu");
    assert_int_equal(now.devices, 1);
    assert_int_equal(door_judge(&sold, &now, text, sizeof(text)), DOOR_OK);
    memcpy(worker, now.worker_id, sizeof(worker));
    assert_string_equal(look("HGET sl:{wrk:%s} lease", worker), LEASE_ID ".1");
    assert_string_equal(look("HGET sl:{wrk:%s} supplier", worker), "net");
    assert_string_equal(look("HGET sl:{wrk:%s} price_usd_nano", worker), "0");
    assert_string_equal(look("SCARD sl:workers"), "1");

    /* It is no offer, and is routed nothing. */
    struct registry_entry *entry = registry_find(world.gateway.control->registry, str_of(worker));
    struct offer offers[1];
    assert_non_null(entry);
    assert_false(registry_serves(entry, PROBE_OFF, clock_mono_ns()));
    assert_int_equal(
        registry_offers(world.gateway.control->registry, &world.settings, clock_mono_ns(), clock_wall_ms(), offers), 0);

    /* Nothing of the command yet. */
    assert_int_equal(door(logs, 0, 0, on_logs), ERR_NONE);
    assert_string_equal(world.logs, "");
    assert_false(world.told.is_over);

    assert_int_equal(door(go, on_done), ERR_NONE);
    assert_int_equal(view().command, DOOR_COMMAND_RUNNING);
    assert_int_equal(door(go, on_done), ERR_NONE); /* once started, nothing */
    turn_until(door(logs, 0, 200, on_logs) == ERR_NONE && strstr(world.logs, "TENANT=yes"));
    assert_int_equal(strncmp(world.logs, "begins\n", 7), 0);
    assert_null(strstr(world.logs, "SLUICE_")); /* neither token nor anything else of ours */
    assert_null(strstr(world.logs, world.token));
    int64_t end = world.told.end;
    assert_int_equal(world.told.start, 0);

    /* Another gateway takes over: the command lives on, the worker comes again. */
    gateway_close();
    assert_int_equal(kill(world.machine, 0), 0);
    gateway_open();
    turn_until(view().is_linked && view().command == DOOR_COMMAND_RUNNING);
    assert_int_equal(view().stage, DOOR_PROVEN);
    assert_string_equal(view().worker_id, worker);

    assert_int_equal(door(stop, on_done), ERR_NONE);
    turn_until(view().command == DOOR_COMMAND_EXITED);
    assert_int_equal(view().exit_code, 3);
    assert_int_equal(door(logs, end, 1000, on_logs), ERR_NONE);
    assert_int_equal(world.told.start, end);
    assert_true(str_ends(str_of(world.logs), STR("ends\n"))); /* its shell may tell of the signal first */
    assert_true(world.told.is_over);
    assert_int_equal(door(logs, 1000000, 0, on_logs), ERR_NONE); /* behind the end: the end */
    assert_int_equal(world.told.start, world.told.end);

    assert_int_equal(door(close_attempt, on_done), ERR_NONE);
    turn_until(view().stage == DOOR_ABSENT);
    assert_string_equal(look("EXISTS sl:{wrk:%s}", worker), "0");
    assert_string_equal(look("SCARD sl:workers"), "0");
    assert_true(strtol(look("TTL sl:{wrk:%s}proofs", worker), NULL, 10) > 0); /* receipts stay a while */
    assert_int_equal(door(close_attempt, on_done), ERR_NONE);
    /* Whatever it still tries, it comes in no more. */
    for (int64_t until = clock_mono_ns() + 600 * NS_PER_MS; clock_mono_ns() < until;)
        loop_turn(fixture.loop, 20 * NS_PER_MS);
    assert_int_equal(view().stage, DOOR_ABSENT);
    assert_string_equal(look("SCARD sl:workers"), "0");
    redisReply *left = redisCommand(fixture.look, "KEYS sl:lease_token:*");
    assert_int_equal(left->elements, 0);
    freeReplyObject(left);
}

static void stopped_before_it_began(void **state)
{
    (void)state;
    open_attempt("echo never", 0);
    machine_start();
    turn_until(view().is_linked && view().command == DOOR_COMMAND_WAITING);
    assert_int_equal(door(stop, on_done), ERR_NONE);
    turn_until(view().command == DOOR_COMMAND_EXITED);
    assert_int_equal(door(go, on_done), ERR_NONE);
    assert_int_equal(door(logs, 0, 100, on_logs), ERR_NONE);
    assert_string_equal(world.logs, "");
    assert_true(world.told.is_over);
    assert_int_equal(view().command, DOOR_COMMAND_EXITED);
    /* The network ends the container. */
    kill(world.machine, SIGTERM);
    assert_int_equal(machine_end(), 0);
}

static void a_program_that_is_not_there(void **state)
{
    (void)state;
    const struct str words[] = {STR("/no/such/program"), STR("x")};
    const struct door_want want = {.kind = DOOR_CONTAINER, .command = words, .command_count = 2};
    assert_int_equal(door(open_attempt, &want, on_opened), ERR_NONE);
    machine_start();
    turn_until(view().is_linked && view().command == DOOR_COMMAND_WAITING);
    assert_int_equal(door(go, on_done), ERR_NONE);
    turn_until(view().command == DOOR_COMMAND_EXITED);
    assert_int_equal(view().exit_code, 127);
    assert_int_equal(door(logs, 0, 0, on_logs), ERR_NONE);
    assert_string_equal(world.logs, "sluice-worker: cannot run /no/such/program: there is no such program\n");
}

/* A zombie, which its parent has yet to see, does not. */
static bool is_running(long pid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    const char *state = fgets(text, sizeof(text), file) ? strrchr(text, ')') : NULL;
    fclose(file);
    return state && state[1] == ' ' && state[2] != 'Z';
}

static void nobody_owns_it_any_more(void **state)
{
    (void)state;
    char mark[96];
    open_attempt("sleep 1000 & echo $! >$TMPDIR/mark; wait", 1);
    machine_start();
    turn_until(view().stage == DOOR_PROVEN && view().command == DOOR_COMMAND_WAITING);
    assert_int_equal(door(go, on_done), ERR_NONE);
    snprintf(mark, sizeof(mark), "%s/mark", world.home);
    char pid[16] = "";
    for (FILE *file = NULL; !file || !strchr(pid, '\n');) {
        loop_turn(fixture.loop, 10 * NS_PER_MS);
        file = fopen(mark, "r");
        if (file && !fgets(pid, sizeof(pid), file))
            pid[0] = '\0';
        if (file)
            fclose(file);
    }
    gateway_close();
    assert_int_equal(machine_end(), 4);             /* AGENT_ORPHANED */
    turn_until(!is_running(strtol(pid, NULL, 10))); /* what the command had started went with it */
    gateway_open();
}

/* While Redis takes no writes nothing can be forgotten: it is tried again, and ends at once when the gateway does. */
static void closing_is_tried_again(void **state)
{
    (void)state;
    open_attempt("sleep 1000", 0);
    machine_start();
    turn_until(view().stage == DOOR_PROVEN && view().command == DOOR_COMMAND_WAITING);
    struct door_view before = view();
    unsigned answers = world.answers;
    look("CONFIG SET min-replicas-to-write 1");
    struct control *control = world.gateway.control;
    assert_int_equal(door_close_attempt(control, STR(LEASE_ID), 1, on_done, NULL), ERR_NONE);
    turn_until(control->door_closing);
    assert_int_equal(world.answers, answers);
    look("CONFIG SET min-replicas-to-write 0");
    turn_until(world.answers == answers + 1);
    assert_int_equal(world.error, ERR_NONE);
    assert_string_equal(look("EXISTS sl:{wrk:%s}", before.worker_id), "0");

    look("CONFIG SET min-replicas-to-write 1");
    assert_int_equal(door_close_attempt(control, STR(LEASE_ID), 1, on_done, NULL), ERR_NONE);
    turn_until(control->door_closing);
    look("CONFIG SET min-replicas-to-write 0");
    gateway_close();
    assert_int_equal(world.answers, answers + 2);
    assert_int_equal(world.error, ERR_CANCELLED);
    gateway_open();
}

static void wrong_wants_open_nothing(void **state)
{
    (void)state;
    struct control *control = world.gateway.control;
    const struct door_want none = {.kind = DOOR_MACHINE}, good = {.kind = DOOR_CONTAINER};
    char long_name[80];
    memset(long_name, 'x', sizeof(long_name));
    assert_int_equal(door_open_attempt(control, STR(LEASE_ID), 1, &none, on_opened, NULL), ERR_BAD_INPUT);
    assert_int_equal(door_open_attempt(control, (struct str){long_name, 80}, 1, &good, on_opened, NULL), ERR_BAD_INPUT);
    assert_int_equal(door_open_attempt(control, STR("lse_'x"), 1, &good, on_opened, NULL), ERR_BAD_INPUT);
    world.gateway.public_url[0] = '\0';
    assert_int_equal(door_open_attempt(control, STR(LEASE_ID), 1, &good, on_opened, NULL), ERR_UNREACHABLE);
    assert_int_equal(world.answers, 0);
    assert_int_equal(door_logs(control, STR(LEASE_ID), 1, 0, 0, on_logs, NULL), ERR_CLOSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_lease_from_start_to_end, world_open, world_close),
        cmocka_unit_test_setup_teardown(stopped_before_it_began, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_program_that_is_not_there, world_open, world_close),
        cmocka_unit_test_setup_teardown(nobody_owns_it_any_more, world_open, world_close),
        cmocka_unit_test_setup_teardown(closing_is_tried_again, world_open, world_close),
        cmocka_unit_test_setup_teardown(wrong_wants_open_nothing, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
