/* The pure parts of the door: scripts and their quoting, signed addresses, what was sold against what was proven. */
#include "core/clock.h"
#include "core/log.h"
#include "gateway/bootstrap.h"
#include "gateway/enrolment.h"
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEASE "lse_01h8zzzzzzzzzzzzzzzzzzzzzz.3"

static char folder[] = "/tmp/sluice-door-XXXXXX";
static struct bootstrap *bootstrap;

static void write_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

static int open_all(void **state)
{
    (void)state;
    uint8_t key[SHA256_BYTES] = {1, 2, 3};
    log_init("test", LOG_ERROR);
    assert_non_null(mkdtemp(folder));
    write_file("sluice-worker", "worker\n");
    write_file("sluice-probe", "probe\n");
    assert_int_equal(bootstrap_open(folder, &bootstrap), ERR_NONE);
    assert_true(bootstrap_is_whole(bootstrap));
    bootstrap_set_key(bootstrap, key);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    char command[64];
    bootstrap = bootstrap_free(bootstrap);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

/* What a command prints, at most 64 KiB; its exit code in *ret_code. */
static char *output_of(const char *command, int *ret_code)
{
    char *text = calloc(1, 65536);
    FILE *pipe = popen(command, "r");
    assert_true(text && pipe);
    size_t len = fread(text, 1, 65535, pipe);
    text[len] = '\0';
    int status = pclose(pipe);
    *ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text;
}

/* -- quoting ----------------------------------------------------------------------------------------------------- */

static const char *const hostile[] = {
    "",
    "plain",
    "two words",
    "it's",
    "'",
    "''''",
    "\\",
    "\\'",
    "$(touch /tmp/owned)",
    "`id`",
    "$HOME ${HOME}",
    "a;b",
    "a\nb\n",
    "\n",
    "\"",
    "-n",
    "--",
    "*",
    "~",
    "!!",
    "#",
    "&& rm -rf /",
    "'; exit 7; '",
    "'\"'\"'",
    "\t",
    "\x01\x7f",
    "%s%n",
    "\xff\xfe",
    "$'x'",
    "<(id)",
    "a=b",
    "{a,b}",
    "é漢",
    "'$(id)'",
    "\\\n",
};
#define HOSTILE (sizeof(hostile) / sizeof(hostile[0]))

static void quoted_words_are_one_word(void **state)
{
    (void)state;
    for (size_t i = 0; i < HOSTILE; i++) {
        struct buf text;
        int code;
        buf_init(&text, 4096);
        /* The dot keeps line ends that $() and the like would cut; the count shows that it stayed one word. */
        assert_true(buf_append_str(&text, STR("set -- ")) && bootstrap_quote(str_of(hostile[i]), &text) &&
                    buf_append_str(&text, STR("; printf '%s:%s.' $# \"$1\"")));
        write_file("quote.sh", "");
        char path[128], want[256], command[160];
        snprintf(path, sizeof(path), "%s/quote.sh", folder);
        FILE *file = fopen(path, "w");
        assert_int_equal(fwrite(text.ptr, 1, text.len, file), text.len);
        fclose(file);
        snprintf(command, sizeof(command), "sh %s", path);
        char *said = output_of(command, &code);
        snprintf(want, sizeof(want), "1:%s.", hostile[i]);
        assert_int_equal(code, 0);
        assert_string_equal(said, want);
        free(said);
        buf_free(&text);
    }
    struct buf text;
    buf_init(&text, 64);
    assert_false(bootstrap_quote((struct str){"a\0b", 3}, &text));
    buf_free(&text);
    buf_init(&text, 8);
    assert_false(bootstrap_quote(STR("too long for it"), &text));
    buf_free(&text);
}

/* -- scripts ----------------------------------------------------------------------------------------------------- */

static enum error script_of(const struct door_want *door, struct buf *to)
{
    const struct bootstrap_want want = {.lease = STR(LEASE),
                                        .url = STR("http://127.0.0.1:1"),
                                        .token = STR("sll-token"),
                                        .expires_at_s = 2000000000,
                                        .door = door};
    buf_init(to, 256 << 10);
    return bootstrap_script(bootstrap, &want, to);
}

/* Runs the script's last part, from its call of the worker on, with programs of ours in place of what it calls: they
 * print each argument in brackets. */
static char *arguments_of(const struct buf *script, const char *program, int *ret_code)
{
    static const char head[] = "PATH=%s:$PATH\nd=%s l=" LEASE " g=url SLUICE_TOKEN=x\nset --\ndie() { exit 9; }\n"
                               "has() { command -v \"$1\" >/dev/null 2>&1; }\n";
    char path[128], command[160];
    struct str text = buf_str(script);
    const char *from = NULL;
    for (size_t i = 0; i + 8 < text.len && !from; i++)
        if (!memcmp(text.ptr + i, program, strlen(program)))
            from = text.ptr + i;
    assert_non_null(from);
    snprintf(path, sizeof(path), "%s/part.sh", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, head, folder, folder);
    fwrite(from, 1, (size_t)(text.ptr + text.len - from), file);
    assert_int_equal(fclose(file), 0);
    snprintf(command, sizeof(command), "sh %s 2>&1", path);
    return output_of(command, ret_code);
}

static void commands_arrive_as_they_are(void **state)
{
    (void)state;
    struct str words[HOSTILE + 1];
    struct buf script, want;
    int code;
    words[0] = STR("/bin/echo");
    for (size_t i = 0; i < HOSTILE; i++)
        words[i + 1] = str_of(hostile[i]);
    const struct door_want door = {.kind = DOOR_CONTAINER, .command = words, .command_count = HOSTILE + 1};
    write_file("sluice-worker", "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\n"
                                "for a; do printf '[%s]' \"$a\"; done\nexit 5\n");
    assert_int_equal(script_of(&door, &script), ERR_NONE);
    char *said = arguments_of(&script, "exec \"$d/sluice-worker", &code);
    buf_init(&want, 65536);
    for (size_t i = 0; i < HOSTILE + 1; i++)
        assert_true(buf_printf(&want, "[" STR_FMT "]", STR_ARG(words[i])));
    assert_int_equal(code, 5);
    assert_int_equal(strlen(said), want.len);
    assert_memory_equal(said, want.ptr, want.len);
    free(said);
    buf_free(&want);
    buf_free(&script);
}

static void machines_run_the_image(void **state)
{
    (void)state;
    struct buf script;
    int code;
    const struct str words[] = {STR("serve"), STR("it's $(id)")};
    const struct door_pair env[] = {{STR("A_1"), STR("x y'z$(id)")}, {STR("B"), STR("")}};
    const struct door_port ports[] = {{.port = 8000}, {.port = 53, .is_udp = true}};
    const struct door_want door = {.kind = DOOR_MACHINE,
                                   .image = STR("reg.example/a:1"),
                                   .command = words,
                                   .command_count = 2,
                                   .env = env,
                                   .env_count = 2,
                                   .ports = ports,
                                   .port_count = 2};
    write_file("sluice-worker", "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\n\"$@\"\nexit 4\n");
    write_file("docker", "#!/bin/sh\n[ \"$1\" = run ] || { echo \"($1 $2 $3)\"; exit 0; }\n"
                         "for a; do [ \"$a\" = --gpus ] || [ \"$a\" = all ] || printf '[%s]' \"$a\"; done; echo\n");
    write_file("shutdown", "#!/bin/sh\necho \"shutdown $*\"\n");
    assert_int_equal(script_of(&door, &script), ERR_NONE);
    char *said = arguments_of(&script, "i='reg.example", &code);
    assert_int_equal(code, 4);
    assert_non_null(strstr(said, "[run][--rm][--name][sluice-" LEASE "][--ipc=host][-p][8000:8000/tcp][-p][53:53/udp]"
                                 "[-e][A_1=x y'z$(id)][-e][B=][reg.example/a:1][serve][it's $(id)]\n"));
    assert_non_null(strstr(said, "shutdown -h now")); /* nobody owns it any more */
    free(said);

    /* As user data it brings its token. */
    struct buf data;
    const struct bootstrap_want want = {.lease = STR(LEASE),
                                        .url = STR("http://127.0.0.1:1"),
                                        .token = STR("sll-token"),
                                        .expires_at_s = 2000000000,
                                        .door = &door};
    buf_init(&data, 0);
    assert_int_equal(bootstrap_user_data(bootstrap, &want, &data), ERR_NONE);
    assert_true(str_starts(buf_str(&data), STR("#!/bin/sh\nSLUICE_TOKEN='sll-token'\nexport SLUICE_TOKEN\n")));
    assert_true(str_ends(buf_str(&data), buf_str(&script)));
    assert_int_equal(script.len > 0, 1);
    buf_free(&data);
    buf_free(&script);
}

/* The whole script, on a machine that has the programs already and a worker that cannot run there. */
static void says_where_the_worker_cannot_run(void **state)
{
    (void)state;
    struct bootstrap *other = NULL;
    struct buf script;
    uint8_t key[SHA256_BYTES] = {1};
    char command[512];
    int code;
    const struct door_want door = {.kind = DOOR_CONTAINER};
    const struct bootstrap_want want = {
        .lease = STR(LEASE), .url = STR("http://127.0.0.1:1"), .expires_at_s = 2000000000, .door = &door};
    write_file("sluice-worker", "#!/bin/sh\necho noise\nexit 1\n");
    assert_int_equal(bootstrap_open(folder, &other), ERR_NONE);
    bootstrap_set_key(other, key);
    buf_init(&script, 0);
    assert_int_equal(bootstrap_script(other, &want, &script), ERR_NONE);
    assert_true(buf_append(&script, "", 1));
    write_file("whole.sh", script.ptr);
    snprintf(command, sizeof(command), "mkdir -m 700 %s/.sluice-" LEASE " && cp %s/sluice-* %s/.sluice-" LEASE, folder,
             folder, folder);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "TMPDIR=%s SLUICE_TOKEN=x sh %s/whole.sh 2>&1", folder, folder);
    char *said = output_of(command, &code);
    assert_int_equal(code, 1);
    assert_string_equal(said, "sluice: this image cannot run our worker: it needs x86-64 and glibc 2.34 or later\n");
    free(said);
    snprintf(command, sizeof(command), "TMPDIR=%s SLUICE_TOKEN= sh %s/whole.sh 2>&1", folder, folder);
    said = output_of(command, &code);
    assert_int_equal(code, 1);
    assert_string_equal(said, "sluice: SLUICE_TOKEN is not set\n");
    free(said);
    buf_free(&script);
    bootstrap_free(other);
}

static void scripts_are_short_and_without_the_token(void **state)
{
    (void)state;
    struct buf script;
    const struct str words[] = {STR("sleep"), STR("1")};
    const struct door_want door = {.kind = DOOR_CONTAINER, .command = words, .command_count = 2};
    assert_int_equal(script_of(&door, &script), ERR_NONE);
    assert_true(script.len < 4096);
    assert_true(buf_append(&script, "", 1));
    assert_null(strstr(script.ptr, "sll-token"));
    buf_free(&script);
    const struct bootstrap_want secure = {
        .lease = STR(LEASE), .url = STR("https://h"), .expires_at_s = 2000000000, .door = &door};
    write_file("ca.crt", "CAs\n");
    char path[64];
    snprintf(path, sizeof(path), "%s/ca.crt", folder);
    struct bootstrap *with_ca = NULL;
    assert_int_equal(setenv("SSL_CERT_FILE", path, 1), 0);
    assert_int_equal(bootstrap_open(folder, &with_ca), ERR_NONE);
    unsetenv("SSL_CERT_FILE");
    uint8_t key[SHA256_BYTES] = {1};
    bootstrap_set_key(with_ca, key);
    buf_init(&script, 0);
    assert_int_equal(bootstrap_script(with_ca, &secure, &script), ERR_NONE);
    assert_true(script.len < 4096);
    assert_true(buf_append(&script, "", 1));
    assert_non_null(strstr(script.ptr, "need \"$d/ca.pem\" \"$g\"'/worker/v1/bootstrap/ca?lease="));
    assert_non_null(strstr(script.ptr, " --ca \"$d/ca.pem\" -- 'sleep' '1'"));
    buf_free(&script);
    bootstrap_free(with_ca);
    const struct door_want unproven = {.kind = DOOR_CONTAINER, .without_probe = true};
    assert_int_equal(script_of(&unproven, &script), ERR_NONE);
    assert_true(buf_append(&script, "", 1));
    assert_null(strstr(script.ptr, "bootstrap/probe"));
    assert_non_null(strstr(script.ptr, "--no-probe\n"));
    buf_free(&script);
}

static void bad_wants_are_refused(void **state)
{
    (void)state;
    static char large[DOOR_TEXT_MAX + 1];
    static struct str many[DOOR_WORDS_MAX + 1];
    memset(large, '\'', sizeof(large));
    for (size_t i = 0; i <= DOOR_WORDS_MAX; i++)
        many[i] = STR("x");
    const struct str nul[] = {{"a\0b", 3}}, none[] = {STR("")}, big[] = {{large, sizeof(large)}},
                     fits[] = {{large, sizeof(large) - 1}};
    const struct door_pair names[] = {
        {STR("A B"), STR("")}, {STR("1A"), STR("")}, {STR(""), STR("")}, {STR("A;id"), STR("")}};
    const struct door_port port = {.port = 0};
    const struct {
        struct door_want want;
        enum error error;
    } cases[] = {
        {{.command = nul, .command_count = 1}, ERR_BAD_INPUT},
        {{.command = none, .command_count = 1}, ERR_BAD_INPUT},
        {{.command = big, .command_count = 1}, ERR_TOO_LARGE},
        {{.command = fits, .command_count = 1}, ERR_NONE},
        {{.command = many, .command_count = DOOR_WORDS_MAX + 1}, ERR_TOO_LARGE},
        {{.kind = DOOR_MACHINE}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = STR("--privileged")}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = {"a\0", 2}}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = STR("a"), .env = &names[0], .env_count = 1}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = STR("a"), .env = &names[1], .env_count = 1}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = STR("a"), .env = &names[2], .env_count = 1}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = STR("a"), .env = &names[3], .env_count = 1}, ERR_BAD_INPUT},
        {{.kind = DOOR_MACHINE, .image = STR("a"), .ports = &port, .port_count = 1}, ERR_BAD_INPUT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf script;
        assert_int_equal(script_of(&cases[i].want, &script), cases[i].error);
        buf_free(&script);
    }
    static const char *const leases[] = {"", "lse_1'; id; '", "LSE_1.1", "a b", "../x", "$(id)", "x\ny"};
    for (size_t i = 0; i < sizeof(leases) / sizeof(leases[0]); i++) {
        const struct door_want door = {.kind = DOOR_CONTAINER};
        const struct bootstrap_want want = {.lease = str_of(leases[i]), .url = STR("http://h"), .door = &door};
        struct buf script;
        buf_init(&script, 0);
        assert_int_equal(bootstrap_script(bootstrap, &want, &script), ERR_BAD_INPUT);
        buf_free(&script);
    }
}

/* -- addresses and tokens ---------------------------------------------------------------------------------------- */

static void addresses_are_signed(void **state)
{
    (void)state;
    char signature[SECRET_TEXT_MAX];
    assert_true(bootstrap_sign(bootstrap, STR("worker"), STR("lse_1.1"), 1000, signature));
    const struct {
        const char *file, *lease, *expires, *signature;
        int64_t now_s;
        enum error error;
    } cases[] = {
        {"worker", "lse_1.1", "1000", signature, 1000, ERR_NONE},
        {"worker", "lse_1.1", "1000", signature, 1001, ERR_DENIED},
        {"probe", "lse_1.1", "1000", signature, 1000, ERR_DENIED},
        {"worker", "lse_1.2", "1000", signature, 1000, ERR_DENIED},
        {"worker", "lse_1.1", "1001", signature, 1000, ERR_DENIED},
        {"worker", "lse_1.1", "1e9", signature, 1000, ERR_DENIED},
        {"worker", "lse_1.1", "", signature, 1000, ERR_DENIED},
        {"worker", "lse_1.1", "1000", "", 1000, ERR_DENIED},
        {"worker", "lse_1.1", "1000", NULL, 1000, ERR_DENIED},
        {"worker", NULL, "1000", signature, 1000, ERR_DENIED},
        {"worker", "lse_1.1", NULL, signature, 1000, ERR_DENIED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(bootstrap_verify(bootstrap, str_of(cases[i].file), str_of(cases[i].lease),
                                          str_of(cases[i].expires), str_of(cases[i].signature), cases[i].now_s),
                         cases[i].error);
    signature[5] ^= 1;
    assert_int_equal(bootstrap_verify(bootstrap, STR("worker"), STR("lse_1.1"), STR("1000"), str_of(signature), 0),
                     ERR_DENIED);
}

static void tokens_follow_from_their_lease(void **state)
{
    (void)state;
    char token[SECRET_TEXT_MAX], again[SECRET_TEXT_MAX], secret[SECRET_TEXT_MAX], id[ID_TEXT_MAX], other[ID_TEXT_MAX];
    struct id parsed;
    assert_true(bootstrap_token(bootstrap, STR("lse_1.1"), token));
    assert_true(bootstrap_token(bootstrap, STR("lse_1.1"), again));
    assert_string_equal(token, again);
    assert_true(enrolment_token_is_formed(str_of(token)));
    assert_true(bootstrap_token(bootstrap, STR("lse_1.2"), again));
    assert_string_not_equal(token, again);
    enrolment_lease_worker(STR("lse_1.1"), id);
    enrolment_lease_worker(STR("lse_1.2"), other);
    assert_true(id_parse("wrk_", str_of(id), &parsed));
    assert_string_not_equal(id, other);
    enrolment_lease_secret(str_of(token), secret);
    assert_true(str_starts(str_of(secret), STR("sls-")));
    assert_null(strstr(secret, token + 4));

    struct bootstrap *young = NULL;
    assert_int_equal(bootstrap_open("/nowhere", &young), ERR_NONE);
    assert_false(bootstrap_is_whole(young));
    assert_false(bootstrap_has_key(young));
    assert_false(bootstrap_token(young, STR("lse_1.1"), token));
    assert_int_equal(bootstrap_verify(young, STR("worker"), STR("l"), STR("1"), STR("s"), 0), ERR_UNREACHABLE);
    uint8_t key[SHA256_BYTES] = {0};
    bootstrap_set_key(young, key);
    struct buf script;
    const struct door_want door = {.kind = DOOR_CONTAINER};
    const struct bootstrap_want want = {.lease = STR("lse_1.1"), .url = STR("http://h"), .door = &door};
    buf_init(&script, 0);
    assert_int_equal(bootstrap_script(young, &want, &script), ERR_UNREACHABLE); /* nothing to serve */
    buf_free(&script);
    bootstrap_free(young);
}

/* -- what was sold ----------------------------------------------------------------------------------------------- */

static void what_is_sold_is_proven(void **state)
{
    (void)state;
    static const struct {
        const char *sold;
        uint32_t sold_gpus;
        double sold_gib;
        const char *proven;
        uint32_t devices;
        double class_gib;
        enum door_verdict verdict;
        const char *text;
    } cases[] = {
        {"nvidia/h100-sxm-80", 8, 0, "nvidia/h100-sxm-80", 8, 80, DOOR_OK, "sold 8 x nvidia/h100-sxm-80, proven 8 x"},
        {"nvidia/h100-sxm-80", 8, 0, "nvidia/h100-sxm-80", 7, 80, DOOR_LESS, "fewer GPUs"},
        {"nvidia/h100-sxm-80", 1, 0, "nvidia/h100-pcie-80", 1, 80, DOOR_LESS, "another GPU"},
        {"nvidia/h100", 1, 0, "nvidia/h100-pcie-80", 1, 80, DOOR_OK, "proven 1 x nvidia/h100-pcie-80"},
        {"nvidia/h100-80", 1, 0, "nvidia/h100-pcie-80", 1, 80, DOOR_OK, ""},
        {"nvidia/h10", 1, 0, "nvidia/h100-pcie-80", 1, 80, DOOR_LESS, "another GPU"},
        {"nvidia/a100-sxm-80", 1, 0, "nvidia/a100-sxm-40", 1, 40, DOOR_LESS, "less memory"},
        {"nvidia/a100-sxm-40", 1, 0, "nvidia/a100-sxm-80", 1, 80, DOOR_OK, ""},
        {"nvidia/rtx4090-24", 1, 0, "nvidia/rtx4090-24", 1, 24, DOOR_OK, ""},
        {"nvidia/rtx4090-24", 1, 48, "nvidia/rtx4090-24", 1, 24, DOOR_LESS, "less memory"},
        {"nvidia/rtx4090-24", 1, 0, "", 1, 0, DOOR_LESS, "proven 1 x unknown: another GPU"},
        {"nvidia/rtx4090-24", 1, 0, "cpu", 1, 0, DOOR_LESS, "another GPU"},
        {"cpu", 4, 0, "cpu", 1, 0, DOOR_OK, "proven 1 x cpu"},
        {"cpu", 1, 0, "nvidia/t4-16", 1, 16, DOOR_LESS, "another GPU"},
    };
    char text[128];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct door_sold sold = {str_of(cases[i].sold), cases[i].sold_gpus, cases[i].sold_gib};
        struct door_view view = {
            .stage = DOOR_PROVEN, .devices = cases[i].devices, .class_vram_gib = cases[i].class_gib, .proven_at_ms = 1};
        assert_true(str_copy(view.gpu, sizeof(view.gpu), str_of(cases[i].proven)));
        assert_int_equal(door_judge(&sold, &view, text, sizeof(text)), cases[i].verdict);
        assert_non_null(strstr(text, cases[i].text));
        view.stage = DOOR_REFUSED;
        memcpy(view.reason, "wrong answers", 14);
        assert_int_equal(door_judge(&sold, &view, text, sizeof(text)), DOOR_NOTHING);
        assert_non_null(strstr(text, "nothing proven: wrong answers"));
        view.stage = DOOR_PROVEN;
        view.proven_at_ms = 0;
        assert_int_equal(door_judge(&sold, &view, text, sizeof(text)), DOOR_NOTHING);
        assert_int_equal(door_judge(&sold, &view, text, 8), DOOR_NOTHING); /* cut, not overrun */
        assert_int_equal(strlen(text), 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quoted_words_are_one_word),
        cmocka_unit_test(commands_arrive_as_they_are),
        cmocka_unit_test(machines_run_the_image),
        cmocka_unit_test(says_where_the_worker_cannot_run),
        cmocka_unit_test(scripts_are_short_and_without_the_token),
        cmocka_unit_test(bad_wants_are_refused),
        cmocka_unit_test(addresses_are_signed),
        cmocka_unit_test(tokens_follow_from_their_lease),
        cmocka_unit_test(what_is_sold_is_proven),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
