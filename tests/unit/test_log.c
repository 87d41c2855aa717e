#include "tests/unit/cmocka_all.h"

#include "core/log.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

/* What one log line writes to stderr, which is a pipe meanwhile. */
static size_t logged(char *ret, size_t size, const struct log_ctx *ctx, const char *message)
{
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_init("test", LOG_INFO);
    log_debug(ctx, "below the level");
    log_warn(ctx, "%s", message);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    ssize_t len = read(ends[0], ret, size - 1);
    close(ends[0]);
    assert_true(len > 0);
    ret[len] = '\0';
    return (size_t)len;
}

static void writes_one_json_line(void **state)
{
    (void)state;
    char line[8192];
    struct log_ctx ctx = {.request = "r\"1\xff\n\x01", .worker = "wrk_\xc3\xa9"};
    size_t len = logged(line, sizeof(line), &ctx, "up \\ to \"here\"\r\n\xed\xa0\x80");
    assert_ptr_equal(strchr(line, '\n'), line + len - 1);
    json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(root, "program")), "test");
    assert_string_equal(json_string_value(json_object_get(root, "message")),
                        "up \\ to \"here\"\r\n\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_string_equal(json_string_value(json_object_get(root, "request")), "r\"1\xef\xbf\xbd\n\x01");
    assert_string_equal(json_string_value(json_object_get(root, "worker")), "wrk_\xc3\xa9");
    assert_null(json_object_get(root, "tenant"));
    assert_int_equal(strlen(json_string_value(json_object_get(root, "time"))), 24);
    json_decref(root);
}

static void cuts_long_lines(void **state)
{
    (void)state;
    static char message[20000], line[32768];
    memset(message, '"', sizeof(message) - 1);
    struct log_ctx ctx = {.request = message, .worker = message, .tenant = message, .network = message};
    size_t len = logged(line, sizeof(line), &ctx, message);
    assert_true(len < 4200);
    json_t *root = json_loads(line, 0, NULL);
    assert_non_null(root);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(writes_one_json_line), cmocka_unit_test(cuts_long_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
