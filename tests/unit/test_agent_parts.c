/* The agent's options, its names of GPUs, and its identity on disk. */
#include "adapters/native/agent.h"
#include "adapters/native/agent_state.h"
#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_options(void **state)
{
    (void)state;
#define LEASE "--gateway", "http://g:1", "--token", "t", "--lease", "lse_1.1", "--state-dir", "/tmp/x"
#define BASE "--gateway", "http://g:1", "--token", "t", "--upstream", "http://u:2", "--price", "1"
    static const struct {
        const char *args[16];
        enum agent_parsed want;
        const char *says;
    } cases[] = {
        {{BASE}, AGENT_RUN, ""},
        {{"--help"}, AGENT_HELP, ""},
        {{"--version"}, AGENT_VERSION, ""},
        {{"--gateway", "http://g:1", "--token", "t", "--upstream", "http://u:2"}, AGENT_BAD, "--price is missing"},
        {{"--token", "t", "--upstream", "http://u:2", "--price", "1"}, AGENT_BAD, "--gateway is missing"},
        {{"--gateway", "http://g:1", "--upstream", "http://u:2", "--price", "1"}, AGENT_BAD, "--token is missing"},
        {{"--gateway", "http://g:1", "--token", "t", "--price", "1"}, AGENT_BAD, "--upstream is missing"},
        {{BASE, "--slots", "0"}, AGENT_BAD, "--slots"},
        {{BASE, "--slots", "8x"}, AGENT_BAD, "--slots"},
        {{BASE, "--slots"}, AGENT_BAD, "--slots"},
        {{BASE, "--gpus", "-1"}, AGENT_BAD, "--gpus"},
        {{BASE, "--price", "-1"}, AGENT_BAD, "--price"},
        {{BASE, "--price", "1e3"}, AGENT_BAD, "--price"},
        {{BASE, "--gpu", "NVIDIA H100"}, AGENT_BAD, "--gpu"},
        {{BASE, "--gpu", ""}, AGENT_BAD, "--gpu"},
        {{BASE, "--gateway", "g:1"}, AGENT_BAD, "--gateway"},
        {{BASE, "--gateway", "ftp://g:1"}, AGENT_BAD, "--gateway"},
        {{BASE, "--gateway", "http://g:1/path"}, AGENT_BAD, "--gateway"},
        {{BASE, "--gateway", "http://me:pw@g:1"}, AGENT_BAD, "--gateway"},
        {{BASE, "--upstream", "http://u:2/?a=b"}, AGENT_BAD, "--upstream"},
        {{BASE, "--upstream-key", "sk-plain"}, AGENT_BAD, "env:NAME"},
        {{LEASE}, AGENT_RUN, ""},
        {{LEASE, "--", "echo", "--help"}, AGENT_RUN, ""},
        {{LEASE, "echo"}, AGENT_BAD, "\"--\""},
        {{LEASE, "--", ""}, AGENT_BAD, "\"--\""},
        {{LEASE, "--upstream", "http://u:2"}, AGENT_BAD, "--lease goes without"},
        {{LEASE, "--price", "1"}, AGENT_BAD, "--lease goes without"},
        {{LEASE, "--orphan-s", "0"}, AGENT_BAD, "--orphan-s"},
        {{LEASE, "--command-user", "no-such-user"}, AGENT_BAD, "--command-user"},
        {{"--gateway", "http://g:1", "--token", "t", "--lease", "a b"}, AGENT_BAD, "--lease"},
        {{BASE, "--", "echo"}, AGENT_BAD, "of --lease"},
        {{BASE, "--orphan-s", "5"}, AGENT_BAD, "of --lease"},
        {{BASE, "--token", "env:NO_SUCH_NAME"}, AGENT_BAD, "NO_SUCH_NAME"},
        {{BASE, "--token", "file:/no/such/file"}, AGENT_BAD, "/no/such/file"},
        {{BASE, "--token", "two words"}, AGENT_BAD, "--token"},
        {{BASE, "--nonsense"}, AGENT_BAD, "--nonsense"},
        {{BASE, "word"}, AGENT_BAD, "word"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct agent_options got;
        char message[256], *argv[20] = {"sluice-worker"};
        int argc = 1;
        for (; cases[i].args[argc - 1]; argc++)
            argv[argc] = (char *)(uintptr_t)cases[i].args[argc - 1];
        assert_int_equal(agent_options_parse(argc, argv, &got, message, sizeof(message)), cases[i].want);
        assert_non_null(strstr(message, cases[i].says));
    }
}

static void test_options_taken(void **state)
{
    (void)state;
    struct agent_options got;
    char message[256];
    setenv("TEST_UP_KEY", "up-key", 1);
    char *argv[] = {"w",
                    BASE,
                    "--upstream",
                    "http://127.0.0.1:8000/v1/",
                    "--price",
                    "1.20",
                    "--gpu",
                    "nvidia/h100-sxm-80",
                    "--upstream-key",
                    "env:TEST_UP_KEY",
                    "--delay-ms",
                    "5",
                    "--gateway",
                    "https://h/",
                    NULL};
    assert_int_equal(
        agent_options_parse((int)(sizeof(argv) / sizeof(argv[0])) - 1, argv, &got, message, sizeof(message)),
        AGENT_RUN);
    assert_int_equal(got.price_usd_nano, 1200000000);
    assert_string_equal(got.upstream, "http://127.0.0.1:8000");
    assert_string_equal(got.upstream_key, "up-key");
    assert_string_equal(got.gpu, "nvidia/h100-sxm-80");
    assert_string_equal(got.gateways[1], "https://h");
    assert_int_equal(got.gateway_count, 2);
    assert_int_equal(got.delay_ns, 5 * NS_PER_MS);
    assert_int_equal(got.slots, 8);
    assert_int_equal(got.gpus, 1);
    assert_true(got.name[0]);
}

static void test_state_folder_is_per_upstream(void **state)
{
    (void)state;
    struct agent_options one, two;
    char message[256];
    char *argv[] = {"w", "--gateway", "http://g:1", "--token", "t", "--upstream", "http://u:1", "--price", "1", NULL};
    setenv("XDG_STATE_HOME", "/tmp/xdg", 1);
    assert_int_equal(agent_options_parse(9, argv, &one, message, sizeof(message)), AGENT_RUN);
    argv[6] = "http://u:2";
    assert_int_equal(agent_options_parse(9, argv, &two, message, sizeof(message)), AGENT_RUN);
    unsetenv("XDG_STATE_HOME");
    assert_true(str_starts(str_of(one.state_dir), STR("/tmp/xdg/sluice-worker/")));
    assert_string_not_equal(one.state_dir, two.state_dir);
}

static void test_gpu_names(void **state)
{
    (void)state;
    static const struct {
        const char *driver, *name; /* NULL: not known */
    } cases[] = {
        {"NVIDIA H100 80GB HBM3", "nvidia/h100-sxm-80"},
        {"NVIDIA H100 PCIe", "nvidia/h100-pcie-80"},
        {"NVIDIA H200", "nvidia/h200-sxm-141"},
        {"NVIDIA A100-SXM4-80GB", "nvidia/a100-sxm-80"},
        {"NVIDIA A100 80GB PCIe", "nvidia/a100-pcie-80"},
        {"NVIDIA A100-PCIE-40GB", "nvidia/a100-pcie-40"},
        {"NVIDIA GeForce RTX 4090", "nvidia/rtx4090-24"},
        {"NVIDIA GeForce RTX 4090 D", NULL},
        {"NVIDIA GeForce RTX 4090 Laptop GPU", NULL},
        {"NVIDIA GeForce RTX 3090 Ti", "nvidia/rtx3090ti-24"},
        {"NVIDIA GeForce RTX 3060", NULL}, /* with 8 or with 12 GB? */
        {"NVIDIA L4", "nvidia/l4-24"},
        {"NVIDIA L40S", "nvidia/l40s-48"},
        {"NVIDIA L40", "nvidia/l40-48"},
        {"Tesla T4", "nvidia/t4-16"},
        {"NVIDIA Something New", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[40] = "";
        assert_int_equal(agent_gpu_name(str_of(cases[i].driver), 0, name, sizeof(name)), cases[i].name != NULL);
        assert_string_equal(name, cases[i].name ? cases[i].name : "");
    }
}

static void test_state_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/sluice-state-XXXXXX", dir[128], path[160], command[200];
    struct agent_state first, second;
    struct stat info;
    assert_non_null(mkdtemp(folder));
    snprintf(dir, sizeof(dir), "%s/deep/er", folder);
    snprintf(path, sizeof(path), "%s/worker.json", dir);
    assert_int_equal(agent_state_open(dir, &first), ERR_NONE);
    assert_string_equal(first.worker_id, "");
    assert_int_equal(agent_state_open(dir, &second), ERR_EXISTS);
    assert_true(str_copy(first.worker_id, sizeof(first.worker_id), STR("wrk_a")));
    assert_true(str_copy(first.secret, sizeof(first.secret), STR("sec_a")));
    assert_int_equal(agent_state_save(&first), ERR_NONE);
    assert_true(str_copy(first.secret, sizeof(first.secret), STR("sec_ab")));
    assert_int_equal(agent_state_save(&first), ERR_NONE);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    agent_state_close(&first);
    assert_int_equal(agent_state_open(dir, &second), ERR_NONE);
    assert_string_equal(second.worker_id, "wrk_a");
    assert_string_equal(second.secret, "sec_ab");
    agent_state_close(&second);
    static const char *const damaged[] = {"", "{", "{\"worker_id\":\"w\"}", "{\"worker_id\":\"w\",\"secret\":7}"};
    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        FILE *file = fopen(path, "w");
        fputs(damaged[i], file);
        fclose(file);
        assert_int_equal(agent_state_open(dir, &second), ERR_BAD_INPUT);
    }
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_options_taken),
        cmocka_unit_test(test_state_folder_is_per_upstream),
        cmocka_unit_test(test_gpu_names),
        cmocka_unit_test(test_state_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
