/* The agent and its probe: this program is the probe too, when it is started as `test_agent_probe serve`. */
#pragma GCC diagnostic ignored "-Wunused-function" /* not all that agent_play.h offers is played here */
#include "tests/unit/agent_play.h"

#include "adapters/native/agent_priv.h"
#include "probes/protocol.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>

#define HEAD 12

/* -- the played probe -------------------------------------------------------------------------------------------- */

static void put_all(const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = write(1, at, len);
        if (n <= 0)
            _exit(1);
        at += n;
        len -= (size_t)n;
    }
}

static bool get_all(void *bytes, size_t len)
{
    char *at = bytes;
    while (len > 0) {
        ssize_t n = read(0, at, len);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void put_frame(const uint8_t id[8], const void *frame, uint32_t len)
{
    uint8_t head[HEAD] = {(uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16), (uint8_t)(len >> 24)};
    memcpy(head + 4, id, 8);
    put_all(head, sizeof(head));
    put_all(frame, len);
}

/* What this process was given: its arguments, who it is, and its environment. */
static void tell(const uint8_t id[8], int argc, char *argv[])
{
    static struct buf text;
    char here[1024] = "";
    buf_clear(&text);
    bool is_good = buf_printf(&text, "uid=%d gid=%d sid=%d groups=%d here=%s\n", (int)getuid(), (int)getgid(),
                              getsid(0) == getpid(), getgroups(0, NULL), getcwd(here, sizeof(here)) ? here : "?");
    for (int i = 1; is_good && i < argc; i++)
        is_good = buf_printf(&text, "arg=%s\n", argv[i]);
    for (size_t i = 0; is_good && environ[i]; i++)
        is_good = buf_printf(&text, "env=%s\n", environ[i]);
    if (!is_good)
        _exit(1);
    put_frame(id, text.ptr, (uint32_t)text.len);
}

/* The byte behind a frame's head says what to do with it. */
static int played_probe(int argc, char *argv[])
{
    static uint8_t frame[PROBE_FRAME_MAX], held[64][8];
    size_t held_count = 0;
    uint8_t head[HEAD];
    bool is_stubborn = false;
    while (get_all(head, HEAD)) {
        uint32_t len = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
        if (len > sizeof(frame) || !get_all(frame, len))
            return 1;
        const char *claims = getenv("SLUICE_PROBE_TEST_CLAIMS");
        if (claims && len == 15 && !memcmp(frame, "{\"op\":\"claims\"}", 15)) {
            put_frame(head + 4, claims, (uint32_t)strlen(claims));
            continue;
        }
        if (head[HEAD - 1] & 0x80) { /* the agent's own: answered with the same, in brackets */
            memmove(frame + 1, frame, len);
            frame[0] = '[';
            frame[len + 1] = ']';
            put_frame(head + 4, frame, len + 2);
            continue;
        }
        switch (len > PROBE_FRAME_HEAD ? frame[PROBE_FRAME_HEAD] : 'e') {
        case 't':
            tell(head + 4, argc, argv);
            break;
        case 'h': /* holds it until 'g', which answers all of them, the last first */
            memcpy(held[held_count++ % 64], head + 4, 8);
            break;
        case 'g':
            put_frame(head + 4, frame, len);
            while (held_count > 0)
                put_frame(held[--held_count % 64], "SL\1held", 7);
            break;
        case 'd':
            return 7;
        case 'c': /* reads no more, but lives */
            close(0);
            pause();
            break;
        case 'u': /* an id that nobody has given */
            head[4] ^= 0x55;
            put_frame(head + 4, frame, len);
            break;
        case 'l': { /* larger than any frame */
            const uint8_t wrong[HEAD] = {1, 0, 16, 0, head[4]};
            put_all(wrong, sizeof(wrong));
            break;
        }
        case 'z': { /* empty */
            const uint8_t wrong[HEAD] = {0, 0, 0, 0, head[4]};
            put_all(wrong, sizeof(wrong));
            break;
        }
        case 's':
            is_stubborn = true;
            put_frame(head + 4, frame, len);
            break;
        case 'w':
            for (int i = 0; i < 1000; i++)
                fputs("long-line-", stderr);
            fputs("\nshort\x1b[31m line\n", stderr);
            put_frame(head + 4, frame, len);
            break;
        default:
            put_frame(head + 4, frame, len);
        }
    }
    while (is_stubborn)
        pause();
    return 0;
}

/* -- the agent's side -------------------------------------------------------------------------------------------- */

static char self[1024];

static void start(const char *name)
{
    registry_reset();
    gate_open();
    registry_welcomes(1, NULL);
    options_set(name);
    assert_true(str_copy(options.probe, sizeof(options.probe), str_of(self)));
}

static void go(void)
{
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
}

/* A frame of that length whose first byte of payload is what. */
static struct str frame_of(char what, size_t len)
{
    static char bytes[26][PROBE_FRAME_MAX];
    char *at = bytes[what - 'a'];
    memset(at, '.', len);
    memcpy(at, "SL\1\3....", PROBE_FRAME_HEAD);
    at[PROBE_FRAME_HEAD] = what;
    return (struct str){at, len};
}

static void ask(struct call *call, char what, int status)
{
    call_run(call, "POST", "/sluice/probe", frame_of(what, 64), status);
}

static bool says(const struct call *call, const char *text)
{
    return strstr(call->body.ptr, text) != NULL;
}

static void test_frames_go_through(void **state)
{
    (void)state;
    struct call call = {0}, other = {0};
    setenv("SLUICE_TOKEN", "secret", 1);
    setenv("NVIDIA_VISIBLE_DEVICES", "0", 1);
    start("frames");
    go();
    static const size_t sizes[] = {PROBE_FRAME_HEAD, 64, 65536, PROBE_FRAME_MAX - 1, PROBE_FRAME_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct str frame = frame_of('e', sizes[i]);
        call_start(&call, "POST", "/sluice/probe", frame);
        turn_until(call.ends);
        assert_int_equal(call.status, 200);
        assert_string_equal(call.type, "application/octet-stream");
        assert_true(str_eq(buf_str(&call.body), frame));
        buf_free(&call.body);
    }
    static char too_large[PROBE_FRAME_MAX + 1] = {'S', 'L', 1};
    call_start(&call, "POST", "/sluice/probe", (struct str){too_large, sizeof(too_large)});
    turn_until(call.ends);
    assert_int_not_equal(call.end, H2_END_OK);
    buf_free(&call.body);
    ask(&call, 't', 200);
    char key[1200];
    snprintf(key, sizeof(key), "arg=serve\narg=--key\narg=%s/probe.key\n", options.state_dir);
    assert_true(says(&call, key) && says(&call, "sid=1") && says(&call, "env=PATH=") &&
                says(&call, "env=NVIDIA_VISIBLE_DEVICES=0"));
    assert_false(says(&call, "secret") || says(&call, "HOME=") || says(&call, "SLUICE_PROBE_FAULT"));
    buf_free(&call.body);
    call_run(&other, "POST", "/sluice/probe", STR("SL\2 another version"), 400);
    buf_free(&other.body);
    agent_stop();

    options.probe[0] = '\0'; /* none at all */
    gate_open();
    registry_welcomes(1, NULL);
    go();
    ask(&call, 'e', 503);
    assert_string_equal(call.fault, "busy");
    buf_free(&call.body);
    agent_stop();
}

static void test_lost_probe_comes_back(void **state)
{
    (void)state;
    struct call held = {0}, call = {0}, before = {0};
    start("lost");
    go();
    static const char ways[] = "dulcz";
    for (size_t i = 0; ways[i]; i++) {
        ask(&before, 'e', 200);
        buf_free(&before.body);
        call_start(&held, "POST", "/sluice/probe", frame_of('h', 64));
        call_start(&call, "POST", "/sluice/probe", frame_of(ways[i], 64));
        if (ways[i] == 'c') /* shows at the next one */
            call_start(&before, "POST", "/sluice/probe", frame_of('e', PROBE_FRAME_MAX));
        turn_until(call.ends && held.ends && (ways[i] != 'c' || before.ends));
        buf_free(&before.body);
        assert_int_equal(call.status, 503);
        assert_int_equal(held.status, 503);
        assert_string_equal(call.fault, "busy");
        buf_free(&call.body);
        buf_free(&held.body);
        for (int status = 0; status != 200;) { /* down for a while, then there again */
            call_start(&call, "POST", "/sluice/probe", frame_of('e', 64));
            turn_until(call.ends);
            status = call.status;
            assert_true(status == 200 || status == 503);
            buf_free(&call.body);
        }
    }
    agent_stop();
}

static void test_bounds_and_cancel(void **state)
{
    (void)state;
    static struct call calls[32];
    struct call call = {0};
    start("bounds");
    go();
    for (size_t i = 0; i < 32; i++)
        call_start(&calls[i], "POST", "/sluice/probe", frame_of('h', 64));
    ask(&call, 'e', 503);
    buf_free(&call.body);
    for (size_t i = 0; i < 32; i += 2)
        h2_stream_cancel(calls[i].stream, NGHTTP2_CANCEL);
    for (size_t i = 0; i < 32; i += 2)
        turn_until(calls[i].ends);
    turn_until(agent->probe_streams == 16);
    ask(&call, 'g', 503); /* the probe has them still */
    buf_free(&call.body);
    gate_drop_links(); /* all of them are cancelled now */
    turn_until(gate_up() == 1);
    for (size_t i = 0; i < 32; i++)
        buf_free(&calls[i].body);
    assert_int_equal(agent->probe_streams, 0);
    agent_stop();

    start("bounds"); /* answers in another order, and to some that went */
    go();
    for (size_t i = 0; i < 31; i++)
        call_start(&calls[i], "POST", "/sluice/probe", frame_of('h', i % 3 ? 64 : 200000));
    turn_until(agent->probe_streams == 31);
    for (size_t i = 0; i < 31; i += 2)
        h2_stream_cancel(calls[i].stream, NGHTTP2_CANCEL);
    turn_until(agent->probe_streams == 15);
    do { /* as soon as the last of them was read whole */
        buf_free(&call.body);
        call_start(&call, "POST", "/sluice/probe", frame_of('g', 64));
        turn_until(call.ends);
    } while (call.status == 503);
    assert_int_equal(call.status, 200);
    buf_free(&call.body);
    for (size_t i = 1; i < 31; i += 2) {
        turn_until(calls[i].ends);
        assert_int_equal(calls[i].status, 200);
        assert_true(str_eq(buf_str(&calls[i].body), STR("SL\1held")));
    }
    for (size_t i = 0; i < 31; i++)
        buf_free(&calls[i].body);
    agent_stop();
}

static struct buf local_answer;
static int local_count, local_lost;

static void on_local(void *ctx, struct str answer)
{
    local_count++;
    local_lost += !answer.ptr;
    assert_ptr_equal(ctx, &local_answer);
    buf_clear(&local_answer);
    assert_true(buf_append_str(&local_answer, answer));
}

static void test_own_questions(void **state)
{
    (void)state;
    struct call call = {0};
    local_count = local_lost = 0;
    start("own");
    go();
    assert_int_equal(agent_probe_local(agent, STR("{\"do\":\"claims\"}"), on_local, &local_answer), ERR_NONE);
    assert_int_equal(local_count, 0);
    turn_until(local_count == 1);
    assert_true(str_eq(buf_str(&local_answer), STR("[{\"do\":\"claims\"}]")));
    call_start(&call, "POST", "/sluice/probe", frame_of('d', 64));
    turn_until(call.ends);
    buf_free(&call.body);
    assert_int_equal(agent_probe_local(agent, STR("{}"), on_local, &local_answer), ERR_BUSY); /* it is down */
    turn_until(agent_probe_local(agent, STR("{}"), on_local, &local_answer) == ERR_NONE);
    turn_until(local_count == 2);
    for (int i = 0; i < 8; i++)
        assert_int_equal(agent_probe_local(agent, STR("{}"), on_local, &local_answer), ERR_NONE);
    assert_int_equal(agent_probe_local(agent, STR("{}"), on_local, &local_answer), ERR_BUSY);
    agent_stop(); /* ends those that are open */
    assert_int_equal(local_count, 10);
    assert_int_equal(local_lost, 8);
    buf_free(&local_answer);
}

/* Without --gpu the probe says what this machine is. */
static void test_it_says_what_we_are(void **state)
{
    (void)state;
    static const struct {
        const char *claims, *gpu;
        int given, gpus;
    } cases[] = {
        {"{\"claims\":[{\"name\":\"cpu\"}]}", "cpu", 0, 1},
        {"{\"claims\":[{\"name\":\"NVIDIA H200\",\"vram_bytes\":150754820096},{\"name\":\"NVIDIA H200\"},"
         "{\"name\":\"NVIDIA T400\"}]}",
         "nvidia/h200-sxm-141", 0, 2},
        {"{\"claims\":[{\"name\":\"NVIDIA H200\",\"vram_bytes\":150754820096}]}", "nvidia/h200-sxm-141", 4, 4},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[16];
        snprintf(name, sizeof(name), "says-%zu", i);
        start(name);
        setenv("SLUICE_PROBE_TEST_CLAIMS", cases[i].claims, 1);
        options.gpu[0] = '\0';
        options.gpus = cases[i].given;
        go();
        json_t *body = registered_body();
        assert_string_equal(json_string_value(json_object_get(body, "gpu")), cases[i].gpu);
        assert_int_equal(json_integer_value(json_object_get(body, "gpus")), cases[i].gpus);
        json_decref(body);
        agent_stop();
    }
    start("says-not");
    setenv("SLUICE_PROBE_TEST_CLAIMS", "{\"claims\":[{\"name\":\"NVIDIA Of Tomorrow\",\"vram_bytes\":7}]}", 1);
    options.gpu[0] = '\0';
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_REFUSED);
    assert_int_equal(registered_count(), 0);
    agent_stop();
    unsetenv("SLUICE_PROBE_TEST_CLAIMS");
}

static void test_faults_go_to_the_probe(void **state)
{
    (void)state;
    struct call call = {0};
    for (int late = 0; late < 2; late++) {
        start("faults");
        setenv("SLUICE_PROBE_FAULT", "other", 1);
        options.wrong_proof = !late;
        options.late_proof = late;
        go();
        ask(&call, 't', 200);
        assert_true(says(&call, late ? "env=SLUICE_PROBE_FAULT=late-proof\n" : "env=SLUICE_PROBE_FAULT=wrong-proof\n"));
        assert_false(says(&call, "other"));
        buf_free(&call.body);
        agent_stop();
    }
    unsetenv("SLUICE_PROBE_FAULT");
}

static void test_its_log_is_ours(void **state)
{
    (void)state;
    struct call call = {0};
    char path[64], text[16384];
    snprintf(path, sizeof(path), "%s/log.txt", folder);
    start("log");
    int was = dup(2), fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(was >= 0 && fd >= 0 && dup2(fd, 2) == 2);
    go();
    ask(&call, 'w', 200);
    buf_free(&call.body);
    ssize_t n = 0;
    turn_until((n = pread(fd, text, sizeof(text) - 1, 0)) > 0 && (text[n] = '\0', strstr(text, "probe: short")));
    agent_stop();
    assert_int_equal(dup2(was, 2), 2);
    close(was);
    close(fd);
    assert_non_null(strstr(text, "long-line-..."));
    assert_null(strchr(text, 0x1b));
    assert_true(n < 4096);
}

static void test_ends_with_the_agent(void **state)
{
    (void)state;
    struct call call = {0};
    start("ends");
    go();
    ask(&call, 's', 200); /* from now on it ignores the end of its input */
    buf_free(&call.body);
    pid_t pid = 0;
    call_run(&call, "POST", "/sluice/probe", frame_of('e', 64), 200);
    buf_free(&call.body);
    char path[64], line[64] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *children = fopen(path, "re");
    if (children && fgets(line, sizeof(line), children))
        pid = (pid_t)atol(line);
    if (children)
        fclose(children);
    agent_drain(agent);
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_DRAINED);
    agent_stop();
    if (pid > 0)
        assert_int_equal(kill(pid, 0), -1);
}

static void test_another_user(void **state)
{
    (void)state;
    struct call call = {0};
    struct passwd *nobody = getpwnam("nobody");
    char path[1200], want[64];
    struct stat about;
    if (geteuid() != 0 || !nobody)
        skip();
    start("user");
    snprintf(path, sizeof(path), "%s/sluice-probe-test", folder); /* where anybody may start it */
    char command[4096];
    snprintf(command, sizeof(command), "chmod 0711 %s && cp %s %s && chmod 0755 %s", folder, self, path, path);
    assert_int_equal(system(command), 0);
    assert_true(str_copy(options.probe, sizeof(options.probe), str_of(path)));
    options.has_probe_user = true;
    options.probe_uid = nobody->pw_uid;
    options.probe_gid = nobody->pw_gid;
    go();
    ask(&call, 't', 200);
    snprintf(want, sizeof(want), "uid=%d gid=%d sid=1 groups=0", (int)nobody->pw_uid, (int)nobody->pw_gid);
    assert_true(says(&call, want) && says(&call, "arg=probe.key"));
    buf_free(&call.body);
    snprintf(path, sizeof(path), "%s/probe", options.state_dir);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_uid, nobody->pw_uid);
    assert_int_equal(about.st_mode & 0777, 0700);
    agent_stop();
}

static void test_options(void **state)
{
    (void)state;
    char message[256],
        *argv[] = {"w",       "--gateway", "http://g:1", "--token", "t",       "--upstream", "http://u:1",
                   "--price", "1",         "--gpu",      "cpu",     "--probe", self,         NULL};
    struct agent_options got;
    assert_int_equal(agent_options_parse(13, argv, &got, message, sizeof(message)), AGENT_RUN);
    assert_string_equal(got.probe, self);
    static char missing[] = "/no/such/program", directory[] = "/tmp";
    argv[12] = missing;
    assert_int_equal(agent_options_parse(13, argv, &got, message, sizeof(message)), AGENT_BAD);
    assert_non_null(strstr(message, "/no/such/program"));
    argv[12] = directory;
    assert_int_equal(agent_options_parse(13, argv, &got, message, sizeof(message)), AGENT_BAD);
    static char user_option[] = "--probe-user", user[] = "no-such-user-here";
    argv[11] = user_option;
    argv[12] = user;
    assert_int_equal(agent_options_parse(13, argv, &got, message, sizeof(message)), AGENT_BAD);
    assert_non_null(strstr(message, "--probe-user"));

    char place[64], file[96], path[512];
    snprintf(place, sizeof(place), "%s/bin", folder);
    snprintf(file, sizeof(file), "%s/sluice-probe", place);
    snprintf(path, sizeof(path), "/no/such/folder:%s", place);
    char *was = strdup(getenv("PATH"));
    setenv("PATH", path, 1);
    assert_int_equal(mkdir(place, 0700), 0);
    got.probe[0] = '\0';
    assert_false(agent_probe_default(&got, message, sizeof(message)));
    assert_non_null(strstr(message, "--probe"));
    assert_int_equal(symlink(self, file), 0);
    assert_true(agent_probe_default(&got, message, sizeof(message)));
    assert_string_equal(got.probe, self);
    setenv("PATH", was, 1);
    free(was);
}

int main(int argc, char *argv[])
{
    if (argc > 1 && !strcmp(argv[1], "serve"))
        return played_probe(argc, argv);
    if (!realpath("/proc/self/exe", self))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_go_through),   cmocka_unit_test(test_lost_probe_comes_back),
        cmocka_unit_test(test_bounds_and_cancel),   cmocka_unit_test(test_own_questions),
        cmocka_unit_test(test_it_says_what_we_are), cmocka_unit_test(test_faults_go_to_the_probe),
        cmocka_unit_test(test_its_log_is_ours),     cmocka_unit_test(test_ends_with_the_agent),
        cmocka_unit_test(test_another_user),        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
