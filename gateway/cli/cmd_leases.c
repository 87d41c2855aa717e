/* sluice ps, logs, down. */
#include "gateway/cli/http.h"
#include "gateway/cli/lease.h"
#include "gateway/cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CELL_WIDTH 40
#define EVENT_MAX ((size_t)4 << 20)
#define SILENT_MOST 30
#define LOOKS_MOST 180 /* a second apart */

const struct cli_option cli_ps_options[] = {{"all", NULL, "those that are over too", 'a'}, {NULL, NULL, NULL, 0}};
const struct cli_option cli_down_options[] = {{"detach", NULL, "do not wait until they are over", 'd'},
                                              {"yes", NULL, "end several without asking", 'y'},
                                              {NULL, NULL, NULL, 0}};
const struct cli_option cli_logs_options[] = {{"follow", NULL, "until the lease is over", 'f'}, {NULL, NULL, NULL, 0}};

/* -- ps ---------------------------------------------------------------------------------------------------------- */

bool lease_row_is_over(const json_t *lease)
{
    struct str state = cli_text(lease, "state");
    return str_eq(state, STR("ended")) || str_eq(state, STR("failed"));
}

const json_t *lease_last_attempt(const json_t *lease)
{
    const json_t *attempts = json_object_get(lease, "attempts");
    size_t count = json_array_size(attempts);
    return count ? json_array_get(attempts, count - 1) : NULL;
}

/* "2 h 05 min" */
static const char *span_text(int64_t span_ms, char ret[static 32])
{
    int64_t s = span_ms > 0 ? span_ms / 1000 : 0;
    if (s < 120)
        snprintf(ret, 32, "%d s", (int)s);
    else if (s < 7200)
        snprintf(ret, 32, "%d min", (int)(s / 60));
    else if (s < 172800)
        snprintf(ret, 32, "%d h %02d min", (int)(s / 3600), (int)(s / 60 % 60));
    else
        snprintf(ret, 32, "%d days", (int)(s / 86400));
    return ret;
}

static void lease_row(struct table *table, const json_t *lease, bool is_wide)
{
    char span[32], at[CLI_TIME_MAX];
    int64_t count = json_integer_value(json_object_get(lease, "count"));
    int64_t billed = json_integer_value(json_object_get(lease, "billed_ms")) / (count > 0 ? count : 1);
    const json_t *endpoint = json_array_get(json_object_get(lease, "endpoints"), 0);
    struct str gpu = cli_text(lease, "gpu");
    table_text(table, cli_text(lease, "id"));
    table_text(table, cli_text(lease, "state"));
    table_printf(table, "%.0f x %.60s", cli_number(lease, "count"), gpu.ptr);
    table_text(table, cli_text(lease_last_attempt(lease), "network"));
    table_text(table, cli_text(lease, "price_per_gpu_hour_usd"));
    table_text(table, str_of(billed ? span_text(billed, span) : ""));
    table_text(table, cli_text(lease, "cost_usd"));
    table_text(table, cli_text(endpoint, "url"));
    table_text(table, cli_text(lease, "reason"));
    if (is_wide) {
        table_text(table, cli_text(lease, "image"));
        table_text(table, cli_text(lease, "offer"));
        table_printf(table, "%zu", json_array_size(json_object_get(lease, "attempts")));
        table_text(table, str_of(cli_time(lease, "created_at", at)));
        table_text(table, str_of(cli_time(lease, "active_at", at)));
        table_text(table, str_of(cli_time(lease, "ended_at", at)));
    }
}

static json_t *live_ones(json_t *take_list)
{
    json_t *data = json_object_get(take_list, "data");
    for (size_t i = json_array_size(data); i-- > 0;)
        if (lease_row_is_over(json_array_get(data, i)))
            json_array_remove(data, i);
    return take_list;
}

int cmd_ps(struct cli *cli)
{
    static const char *const heads[] = {"LEASE",   "STATE",     "GPUS",       "NETWORK",   ">$/GPU-H",
                                        ">BILLED", ">COST $",   "ENDPOINT",   "REASON",    "IMAGE",
                                        "OFFER",   ">ATTEMPTS", "CREATED AT", "ACTIVE AT", "ENDED AT"};
    bool is_wide = cli->output == CLI_WIDE;
    json_t *list = NULL, *lease;
    size_t i;
    int code = http_list(cli, "/api/v1/leases?limit=100", 0, &list);
    if (code || !list)
        return code;
    if (!cli_given(cli, "all"))
        list = live_ones(list);
    struct table *table = NULL;
    if (cli->output == CLI_JSON)
        code = cli_print_json(list);
    else
        table = cli->output == CLI_NAME ? table_new(1, NULL, 0)
                                        : table_new(is_wide ? COUNT(heads) : 9, heads, is_wide ? 0 : CELL_WIDTH);
    json_array_foreach(json_object_get(list, "data"), i, lease)
    {
        if (cli->output == CLI_NAME)
            table_text(table, cli_text(lease, "id"));
        else if (table)
            lease_row(table, lease, is_wide);
    }
    if (table && !table_print(table, stdout))
        code = cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
    table_free(table);
    json_decref(list);
    return code;
}

/* -- logs -------------------------------------------------------------------------------------------------------- */

struct reader {
    bool is_following, is_terminal, has_failed, has_ended;
    int64_t next, id;      /* offset of what comes; of the event that is being read */
    int silent;            /* tries in a row that brought nothing */
    bool has_data;         /* the event has a line of data, if an empty one */
    struct buf line, data; /* of the stream of events */
    char event[16];
};

/* What a machine wrote goes to a terminal without its controls, and to a file as it is. */
static bool put_log(const struct reader *reader, struct str text)
{
    if (!reader->is_terminal)
        return text.len == 0 || fwrite(text.ptr, 1, text.len, stdout) == text.len;
    while (text.ptr) {
        struct str line = str_next(&text, '\n');
        struct buf safe;
        buf_init(&safe, EVENT_MAX * 4);
        line.len -= line.len > 0 && line.ptr[line.len - 1] == '\r';
        bool is_put = text_safe(line, &safe) && (safe.len == 0 || fwrite(safe.ptr, 1, safe.len, stdout) == safe.len) &&
                      (!text.ptr || putchar('\n') != EOF);
        buf_free(&safe);
        if (!is_put)
            return false;
    }
    return true;
}

/* False: nothing more is wanted. */
static bool take_event(struct reader *reader)
{
    struct str data = buf_str(&reader->data);
    json_t *said = NULL;
    bool goes_on = true;
    if (!strcmp(reader->event, "log")) {
        goes_on = put_log(reader, data) && fflush(stdout) == 0;
        reader->has_failed |= !goes_on;
        reader->next = reader->id;
    } else if (reader->event[0]) {
        said = json_loadb(data.ptr ? data.ptr : "", data.len, 0, NULL);
    }
    if (!strcmp(reader->event, "note"))
        cli_fail(0, "%.300s", cli_text(said, "message").ptr);
    else if (!strcmp(reader->event, "state"))
        cli_fail(0, "%.40s", cli_text(said, "state").ptr);
    else if (!strcmp(reader->event, "end")) {
        cli_fail(0, "%.40s: %.300s", cli_text(said, "state").ptr, cli_text(said, "reason").ptr);
        reader->has_ended = true;
        goes_on = false;
    }
    json_decref(said);
    return goes_on;
}

static bool take_line(struct reader *reader)
{
    struct str line = buf_str(&reader->line), value = line, name = str_next(&value, ':');
    bool goes_on = true;
    if (value.len && value.ptr[0] == ' ') {
        value.ptr++;
        value.len--;
    }
    if (line.len == 0) {
        goes_on = take_event(reader);
        buf_clear(&reader->data);
        reader->event[0] = '\0';
        reader->has_data = false;
    } else if (str_eq(name, STR("id"))) {
        (void)!str_to_i64(value, &reader->id);
    } else if (str_eq(name, STR("event"))) {
        (void)!str_copy(reader->event, sizeof(reader->event), value);
    } else if (str_eq(name, STR("data"))) {
        goes_on = (!reader->has_data || buf_append(&reader->data, "\n", 1)) &&
                  buf_append(&reader->data, value.len ? value.ptr : "", value.len);
        reader->has_data = true;
        reader->has_failed |= !goes_on;
    }
    return goes_on;
}

static bool on_bytes(void *ctx, struct str bytes)
{
    struct reader *reader = ctx;
    if (!reader->is_following) {
        reader->has_failed |= !put_log(reader, bytes);
        return !reader->has_failed;
    }
    reader->silent = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        bool goes_on = true;
        if (bytes.ptr[i] != '\n') {
            goes_on = buf_append(&reader->line, &bytes.ptr[i], 1);
            reader->has_failed |= !goes_on;
        } else {
            goes_on = take_line(reader);
            buf_clear(&reader->line);
        }
        if (!goes_on)
            return false;
    }
    return true;
}

/* A stream that breaks off is taken up again where it was. */
static int follow(struct cli *cli, struct reader *reader)
{
    const struct timespec pause = {.tv_sec = 1};
    char behind[64], path[CLI_PATH_MAX];
    int code = CLI_OK;
    while (!reader->has_ended && !reader->has_failed) {
        snprintf(behind, sizeof(behind), "/logs?follow=1&from=%" PRId64, reader->next);
        buf_clear(&reader->line);
        buf_clear(&reader->data);
        reader->has_data = false;
        reader->event[0] = '\0';
        code = http_path(path, "/api/v1/leases/", cli->args[0], behind) ? http_read(cli, path, on_bytes, reader)
                                                                        : cli_fail(CLI_USAGE, "ID: too long");
        if (cli->is_curl || (code && code != CLI_UNREACHABLE) || ++reader->silent > SILENT_MOST)
            break;
        if (!reader->has_ended && !reader->has_failed)
            nanosleep(&pause, NULL);
    }
    if (!code && !cli->is_curl && !reader->has_ended && !reader->has_failed)
        code = cli_fail(CLI_UNREACHABLE, "%s ends the stream again and again", cli->gateway);
    return code;
}

int cmd_logs(struct cli *cli)
{
    struct reader reader = {.is_following = cli_given(cli, "follow") != NULL,
                            .is_terminal = isatty(STDOUT_FILENO) == 1};
    char path[CLI_PATH_MAX];
    int code;
    buf_init(&reader.line, EVENT_MAX);
    buf_init(&reader.data, EVENT_MAX);
    if (reader.is_following)
        code = follow(cli, &reader);
    else if (http_path(path, "/api/v1/leases/", cli->args[0], "/logs"))
        code = http_read(cli, path, on_bytes, &reader);
    else
        code = cli_fail(CLI_USAGE, "ID: too long");
    buf_free(&reader.line);
    buf_free(&reader.data);
    if (reader.has_failed)
        code = cli_fail(CLI_FAILED, "the output cannot be written, or the gateway's events are too long");
    return code;
}

/* -- down -------------------------------------------------------------------------------------------------------- */

/* Several at once are ended only on purpose. */
static bool is_agreed(const struct cli *cli)
{
    char answer[16] = "";
    if (cli->arg_count < 2 || cli->is_curl || cli_given(cli, "yes") || isatty(STDIN_FILENO) != 1)
        return true;
    fprintf(stderr, "End %zu leases? [y/N] ", cli->arg_count);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Looks at each in turn until all are over, or it has taken too long. */
static int wait_until_over(struct cli *cli, json_t *all)
{
    const struct timespec pause = {.tv_sec = 1};
    int code = CLI_OK;
    for (size_t i = 0, looks = 0; i < json_array_size(all);) {
        const json_t *lease = json_array_get(all, i);
        char path[CLI_PATH_MAX];
        json_t *now = NULL;
        if (lease_row_is_over(lease)) {
            i++;
            continue;
        }
        if (++looks > LOOKS_MOST)
            return cli_fail(CLI_FAILED, "%.40s is not over after %d s: it is still being ended",
                            cli_text(lease, "id").ptr, LOOKS_MOST);
        nanosleep(&pause, NULL);
        if (!http_path(path, "/api/v1/leases/", cli_text(lease, "id").ptr, ""))
            return cli_fail(CLI_FAILED, "the gateway's id is too long");
        code = http_call(cli, "GET", path, &now);
        if (code && code != CLI_UNREACHABLE)
            return code;
        if (now)
            json_array_set_new(all, i, now);
    }
    return code;
}

static int show_ended(const struct cli *cli, json_t *all)
{
    json_t *lease, *list;
    size_t i;
    int code = CLI_OK;
    if (cli->output == CLI_JSON) {
        list = json_pack("{s:s, s:O}", "object", "list", "data", all);
        code = cli_print_json(list);
        json_decref(list);
        return code;
    }
    struct table *table = table_new(cli->output == CLI_NAME ? 1 : 3, NULL, 0);
    json_array_foreach(all, i, lease)
    {
        table_text(table, cli_text(lease, "id"));
        if (cli->output == CLI_NAME)
            continue;
        table_text(table, lease_row_is_over(lease) ? cli_text(lease, "state") : STR("stopping"));
        table_printf(table, "$%.40s", cli_text(lease, "cost_usd").ptr);
    }
    if (!table_print(table, stdout))
        code = cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
    table_free(table);
    return code;
}

int cmd_down(struct cli *cli)
{
    json_t *all = json_array();
    int worst = CLI_OK;
    if (!is_agreed(cli)) {
        json_decref(all);
        return cli_fail(CLI_FAILED, "nothing was ended");
    }
    for (size_t i = 0; i < cli->arg_count; i++) {
        char path[CLI_PATH_MAX];
        json_t *lease = NULL;
        int code = http_path(path, "/api/v1/leases/", cli->args[i], "") ? http_call(cli, "DELETE", path, &lease)
                                                                        : cli_fail(CLI_USAGE, "ID: too long");
        worst = code ? code : worst;
        if (lease)
            json_array_append_new(all, lease);
    }
    if (!cli->is_curl) {
        int waited = cli_given(cli, "detach") ? CLI_OK : wait_until_over(cli, all);
        int shown = show_ended(cli, all);
        worst = worst ? worst : waited ? waited : shown;
    }
    json_decref(all);
    return worst;
}
