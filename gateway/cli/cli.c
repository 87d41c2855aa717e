#include "gateway/cli/cli.h"

#include "gateway/cli/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int cli_fail(int code, const char *format, ...)
{
    char text[1024];
    struct buf safe;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_init(&safe, 4 * sizeof(text));
    if (text_safe(str_of(text), &safe))
        fprintf(stderr, "sluice: " STR_FMT "\n", STR_ARG(safe));
    buf_free(&safe);
    return code;
}

const char *cli_given(const struct cli *cli, const char *name)
{
    const char *last = NULL, *value;
    for (size_t at = 0; (value = cli_given_next(cli, name, &at)) != NULL;)
        last = value;
    return last;
}

const char *cli_given_next(const struct cli *cli, const char *name, size_t *at)
{
    while (*at < cli->given_count) {
        const struct cli_given *given = &cli->given[(*at)++];
        if (!strcmp(given->name, name))
            return given->value;
    }
    return NULL;
}

int cli_print_json(const json_t *root)
{
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15));
    if (!text)
        return cli_fail(CLI_FAILED, "out of memory");
    puts(text);
    free(text);
    return CLI_OK;
}

struct str cli_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_string(value) ? (struct str){json_string_value(value), json_string_length(value)} : STR("");
}

double cli_number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

const char *cli_time_of(int64_t at_ms, char ret[static CLI_TIME_MAX])
{
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm date;
    if (at_ms <= 0 || !gmtime_r(&seconds, &date) || strftime(ret, CLI_TIME_MAX, "%Y-%m-%d %H:%M:%SZ", &date) == 0)
        ret[0] = '\0';
    return ret;
}

const char *cli_time(const json_t *object, const char *name, char ret[static CLI_TIME_MAX])
{
    return cli_time_of(json_integer_value(json_object_get(object, name)), ret);
}

json_t *cli_receipt(const json_t *row)
{
    json_t *held = json_object_get(row, "receipt");
    if (json_is_string(row))
        return json_loadb(json_string_value(row), json_string_length(row), JSON_REJECT_DUPLICATES, NULL);
    if (json_is_string(held))
        return json_loadb(json_string_value(held), json_string_length(held), JSON_REJECT_DUPLICATES, NULL);
    return json_is_object(held)  ? json_incref(held)
           : json_is_object(row) ? json_incref((json_t *)(uintptr_t)row)
                                 : NULL;
}
