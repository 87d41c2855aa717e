/* The agent of a leased machine against a played gateway (agent_play.h): its tenant's command, and the output. */
#include "tests/unit/agent_play.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct call call;

static void lease_start(const char *name, const char *script)
{
    static char *command[] = {NULL, NULL, NULL, NULL};
    static char words[2][8] = {"sh", "-c"};
    static char text[1024];
    assert_true(str_copy(text, sizeof(text), str_of(script)));
    command[0] = words[0];
    command[1] = words[1];
    command[2] = text;
    registry_reset();
    gate_open();
    registry_welcomes(1, NULL);
    options_set(name);
    options.command = command;
    options.upstream[0] = '\0';
    options.orphan_ns = options.orphan_ns ? options.orphan_ns : 900 * NS_PER_S;
    assert_true(str_copy(options.lease, sizeof(options.lease), STR("lse_1.1")));
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
}

static void run(const char *method, const char *path, const char *body, int status)
{
    buf_free(&call.body);
    call_run(&call, method, path, str_of(body), status);
}

static void act(const char *action)
{
    char body[64];
    snprintf(body, sizeof(body), "{\"action\":\"%s\"}", action);
    run("POST", "/sluice/lease", body, 200);
}

static bool is_state(const char *text)
{
    run("GET", "/sluice/lease/logs?from=999999999", "", 200); /* turns the loop */
    act("run");                                               /* repeated, it changes nothing */
    return strstr(call.body.ptr, text) != NULL;
}

static void test_nothing_before_it_is_told(void **state)
{
    (void)state;
    lease_start("waits", "echo ran");
    assert_int_equal(registered_count(), 1);
    json_t *body = registered_body();
    assert_int_equal(json_array_size(json_object_get(body, "models")), 0);
    assert_null(json_object_get(body, "lease")); /* which lease it is of is not the worker's to say */
    json_decref(body);
    struct call status;
    memset(&status, 0, sizeof(status));
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "lease", "{\"exit_code\":0,\"state\":\"waiting\"}") ||
               status_has(&status, "lease", "{\"state\":\"waiting\",\"exit_code\":0}"));
    assert_true(status_has(&status, "models", "[]"));
    run("GET", "/sluice/lease/logs", "", 200);
    assert_string_equal(call.body.ptr, "");
    static const struct {
        const char *method, *path, *body;
        int status;
    } wrong[] = {
        {"POST", "/sluice/lease", "", 400},
        {"POST", "/sluice/lease", "{\"action\":\"go\"}", 400},
        {"POST", "/sluice/lease", "{\"action\":1}", 400},
        {"GET", "/sluice/lease", "", 404},
        {"POST", "/sluice/lease/logs", "", 404},
        {"POST", "/sluice/lease/other", "", 404},
        {"GET", "/sluice/lease/logs?from=-1", "", 400},
        {"GET", "/sluice/lease/logs?from=x", "", 400},
        {"GET", "/sluice/lease/logs?wait_ms=30001", "", 400},
        {"GET", "/sluice/lease/logs?other=1", "", 400},
        {"POST", "/v1/chat/completions", "{}", 404},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        run(wrong[i].method, wrong[i].path, wrong[i].body, wrong[i].status);
    char large[2000];
    memset(large, ' ', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    buf_free(&call.body);
    call_start(&call, "POST", "/sluice/lease", str_of(large));
    turn_until(call.ends);
    assert_int_not_equal(call.end, H2_END_OK);
    run("GET", "/sluice/lease/logs", "", 200);
    assert_string_equal(call.body.ptr, "");
    agent_stop();
    buf_free(&status.body);
}

static void test_runs_and_tells(void **state)
{
    (void)state;
    setenv("SLUICE_TOKEN", "secret-of-the-agent", 1);
    lease_start("runs", "env | grep -c SLUICE_; echo err >&2; cat; echo end; exit 7");
    unsetenv("SLUICE_TOKEN");
    act("run");
    turn_until(is_state("\"exited\",\"exit_code\":7"));
    run("GET", "/sluice/lease/logs?from=0", "", 200);
    assert_int_equal(strncmp(call.body.ptr, "0\nerr\nend\n", 10), 0);
    run("GET", "/sluice/lease/logs?from=2", "", 200);
    assert_int_equal(strncmp(call.body.ptr, "err\n", 4), 0);
    assert_true(call.header_count >= 4);
    act("stop"); /* over is over */
    assert_non_null(strstr(call.body.ptr, "\"exit_code\":7"));
    agent_stop();
}

static void test_keeps_the_last_mebibyte(void **state)
{
    (void)state;
    struct buf all;
    lease_start(
        "ring",
        "i=0; while [ $i -lt 30 ]; do head -c 100000 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo; echo last");
    act("run");
    turn_until(is_state("\"exited\",\"exit_code\":0"));
    buf_init(&all, (size_t)4 << 20);
    size_t total = 30 * 100000 + 6, kept = (size_t)1 << 20, from = total - kept;
    /* An old offset is moved to what is kept, and each answer is at most 64 KiB. */
    run("GET", "/sluice/lease/logs?from=5", "", 200);
    while (call.body.len > 1) {
        char path[64];
        assert_true(call.body.len - 1 <= 65536);
        assert_true(buf_append(&all, call.body.ptr, call.body.len - 1));
        snprintf(path, sizeof(path), "/sluice/lease/logs?from=%zu", from + all.len);
        run("GET", path, "", 200);
    }
    assert_int_equal(all.len, kept);
    assert_true(str_ends(buf_str(&all), STR("xxx\nlast\n")));
    assert_int_equal(all.ptr[0], 'x');
    buf_free(&all);
    agent_stop();
}

static void test_waits_for_output(void **state)
{
    (void)state;
    char fifo[64], script[128];
    snprintf(fifo, sizeof(fifo), "%s/fifo", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(script, sizeof(script), "while read l <%s; do echo $l; done", fifo);
    lease_start("follows", script);
    act("run");
    struct call waiting;
    memset(&waiting, 0, sizeof(waiting));
    call_start(&waiting, "GET", "/sluice/lease/logs?from=0&wait_ms=30000", STR(""));
    run("GET", "/sluice/lease/logs?from=0", "", 200); /* without waiting: nothing yet */
    assert_string_equal(call.body.ptr, "");
    assert_int_equal(waiting.ends, 0);
    int fd = open(fifo, O_RDWR);
    assert_true(fd >= 0 && write(fd, "here\n", 5) == 5);
    turn_until(waiting.ends);
    assert_int_equal(waiting.end, H2_END_OK);
    assert_int_equal(waiting.body.len, 5);
    buf_free(&waiting.body);
    /* One that nobody waits for any more, and one that outlasts its time. */
    call_start(&waiting, "GET", "/sluice/lease/logs?from=5&wait_ms=30000", STR(""));
    turn_until(waiting.stream);
    h2_stream_cancel(waiting.stream, NGHTTP2_CANCEL);
    turn_until(waiting.ends);
    run("GET", "/sluice/lease/logs?from=5&wait_ms=50", "", 200);
    assert_string_equal(call.body.ptr, "");
    close(fd);
    agent_stop();
}

static void test_drain_ends_the_command(void **state)
{
    (void)state;
    lease_start("drains", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    act("run");
    struct call waiting;
    memset(&waiting, 0, sizeof(waiting));
    call_start(&waiting, "GET", "/sluice/lease/logs?wait_ms=20000", STR(""));
    turn_until(waiting.ends);
    buf_free(&waiting.body);
    agent_drain(agent);
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_DRAINED);
    agent_stop();
}

static void test_a_container_is_started_again(void **state)
{
    (void)state;
    struct call waiting;
    memset(&waiting, 0, sizeof(waiting));
    for (int i = 0; i < 2; i++) { /* the second time nobody says run */
        lease_start("again", "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done");
        if (i == 0)
            act("run");
        call_start(&waiting, "GET", "/sluice/lease/logs?wait_ms=20000", STR(""));
        turn_until(waiting.ends);
        assert_int_equal(waiting.body.len, 3);
        buf_free(&waiting.body);
        if (i == 0) {
            agent_drain(agent); /* the container's end */
            turn_until(done_count);
        } else {
            act("stop");
            turn_until(is_state("\"exited\""));
        }
        agent_stop();
    }
    /* What was stopped begins no more. */
    lease_start("again", "echo never");
    for (int64_t until = clock_mono_ns() + 1500 * NS_PER_MS; clock_mono_ns() < until;)
        loop_turn(loop, 20 * NS_PER_MS);
    run("GET", "/sluice/lease/logs", "", 200);
    assert_string_equal(call.body.ptr, "");
    agent_stop();
}

static void test_without_a_gateway_it_ends(void **state)
{
    (void)state;
    registry_reset();
    options_set("orphan");
    char *command[] = {(char[]){"sleep"}, (char[]){"1000"}, NULL};
    options.command = command;
    options.orphan_ns = NS_PER_S;
    assert_true(str_copy(options.lease, sizeof(options.lease), STR("lse_1.1")));
    registry_answers(500, "{}");
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_ORPHANED);
    agent = agent_free(agent);
}

static void test_others_have_no_such_paths(void **state)
{
    (void)state;
    agent_start("plain", 1);
    run("POST", "/sluice/lease", "{\"action\":\"run\"}", 404);
    run("GET", "/sluice/lease/logs", "", 404);
    agent_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_before_it_is_told),    cmocka_unit_test(test_runs_and_tells),
        cmocka_unit_test(test_keeps_the_last_mebibyte),      cmocka_unit_test(test_waits_for_output),
        cmocka_unit_test(test_a_container_is_started_again), cmocka_unit_test(test_drain_ends_the_command),
        cmocka_unit_test(test_without_a_gateway_it_ends),    cmocka_unit_test(test_others_have_no_such_paths),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    buf_free(&call.body);
    return failed;
}
