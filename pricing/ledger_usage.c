/* ledger_usage: sums of usage rows over any time, exact to the millisecond. Rows lie in a stream a day. Who reads a
 * whole day keeps its sums beside it, with the place in the stream up to which they count: the next one reads them and
 * only the rows behind that place, so a long range costs one small read a day. A kept text is always true, whoever
 * wrote it last, because rows are only ever added. */
#include "pricing/ledger.h"

#include "core/clock.h"
#include "core/log.h"
#include "pricing/keys.h"
#include "pricing/usage_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_TEXT 11
#define ENTRIES_AT_ONCE "100" /* of at most SETTLE_BATCH rows; bounds the work of one turn */
#define ENTRIES_AT_ONCE_COUNT 100
#define PLACE_MAX 48
#define SUMS_WORTH_KEEPING 2000 /* rows; fewer are read again as fast */
#define SUMS_BYTES_MAX ((size_t)4 << 20)
#define SUMS_KEEP_S "2592000"

struct report {
    struct redis *redis;
    struct purse purse;
    int64_t from_ms, to_ms;
    enum usage_group group;
    ledger_done_fn *done;
    void *ctx;
    struct usage_table *table;
    char (*days)[DAY_TEXT];
    size_t day_count, day_at;
    /* of the day that is being read */
    char place[PLACE_MAX]; /* the last row read; "" at the start */
    size_t rows_read;
    struct usage_table *day_sums; /* by key, worker, network and model together; NULL for a part of a day */
    struct buf scratch;
};

static void report_free(struct report *report)
{
    usage_table_free(report->table);
    usage_table_free(report->day_sums);
    buf_free(&report->scratch);
    free(report->days);
    free(report);
}

static const char *column_of(enum usage_group group)
{
    static const char *const columns[] = {
        [USAGE_BY_DAY] = "day", [USAGE_BY_MODEL] = "model",     [USAGE_BY_WORKER] = "worker",
        [USAGE_BY_KEY] = "key", [USAGE_BY_NETWORK] = "network",
    };
    return columns[group];
}

static void report_end(struct report *report, enum error error)
{
    char *text = NULL;

    if (!error) {
        json_t *all = json_pack("{s:s, s:o, s:n}", "object", "list", "data",
                                usage_table_json(report->table, column_of(report->group)), "next");
        text = all ? json_dumps(all, JSON_COMPACT) : NULL;
        json_decref(all);
        if (!text)
            error = ERR_NO_MEMORY;
    }
    report->done(report->ctx, error, str_of(text));
    free(text);
    report_free(report);
}

static enum error list_error(const redisReply *reply, enum error error)
{
    if (error)
        return error;
    if (reply->type == REDIS_REPLY_ARRAY)
        return ERR_NONE;
    log_warn(NULL, "redis: usage: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "not a list");
    return ERR_CLOSED;
}

static struct str group_text(const struct report *report, const struct usage_row *row)
{
    switch (report->group) {
    case USAGE_BY_MODEL:
        return row->model;
    case USAGE_BY_WORKER:
        return row->worker;
    case USAGE_BY_KEY:
        return row->key;
    case USAGE_BY_NETWORK:
        return row->network;
    case USAGE_BY_DAY:
        break;
    }
    return str_of(report->days[report->day_at]);
}

static enum error count_row(struct report *report, const struct usage_row *row)
{
    if (!report->day_sums)
        return usage_table_add(report->table, group_text(report, row), &row->sums);
    buf_clear(&report->scratch);
    if (!usage_group_write(row, &report->scratch))
        return ERR_NO_MEMORY;
    return usage_table_add(report->day_sums, buf_str(&report->scratch), &row->sums);
}

static void read_rows(struct report *report);
static void next_day(struct report *report);

static struct str day_key(struct report *report, const char *what, char ret[static MONEY_KEY_MAX])
{
    char suffix[32];
    snprintf(suffix, sizeof(suffix), "%s:%s", what, report->days[report->day_at]);
    return purse_key(&report->purse, suffix, ret);
}

/* Nobody waits for it: sums that are not kept are read from the rows again. */
static void keep_sums(struct report *report)
{
    char key[MONEY_KEY_MAX];
    struct buf text;

    buf_init(&text, SUMS_BYTES_MAX);
    if (usage_keep_write(report->day_sums, str_of(report->place), &text)) {
        struct str args[] = {STR("SET"), day_key(report, "sums", key), buf_str(&text), STR("EX"), STR(SUMS_KEEP_S)};
        if (redis_command(report->redis, NULL, NULL, 5, args))
            log_debug(NULL, "sums of a day's usage are not kept");
    }
    buf_free(&text);
}

static enum error count_day_sums(struct report *report)
{
    struct usage_row row;
    struct str group;
    enum error error = ERR_NONE;

    for (size_t at = 0; !error && usage_table_next(report->day_sums, &at, &group, &row.sums);) {
        struct usage_sums sums = row.sums;
        error = usage_group_parse(group, &row) ? usage_table_add(report->table, group_text(report, &row), &sums)
                                               : ERR_PROTOCOL;
    }
    return error;
}

static void day_is_read(struct report *report)
{
    enum error error = ERR_NONE;

    if (report->day_sums) {
        error = count_day_sums(report);
        if (report->rows_read >= SUMS_WORTH_KEEPING)
            keep_sums(report);
        report->day_sums = usage_table_free(report->day_sums);
    }
    report->day_at++;
    if (error)
        report_end(report, error);
    else
        next_day(report);
}

static enum error take_row(struct report *report, const redisReply *text)
{
    struct usage_row row;

    if (!usage_row_parse((struct str){text->str, text->len}, &row))
        return ERR_PROTOCOL;
    report->rows_read++;
    if (row.at_ms < report->from_ms || row.at_ms >= report->to_ms)
        return ERR_NONE;
    return count_row(report, &row);
}

/* [id, ["r", row, "r", row, ...]]: what one call of settle.lua wrote. */
static enum error take_entry(struct report *report, const redisReply *entry)
{
    enum error error = ERR_NONE;

    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || entry->element[1]->type != REDIS_REPLY_ARRAY)
        return ERR_PROTOCOL;
    const redisReply *id = entry->element[0], *fields = entry->element[1];
    if (!str_copy(report->place, sizeof(report->place), (struct str){id->str, id->len}))
        return ERR_PROTOCOL;
    for (size_t i = 1; !error && i < fields->elements; i += 2)
        error = take_row(report, fields->element[i]);
    return error;
}

static void rows_done(void *ctx, const redisReply *reply, enum error error)
{
    struct report *report = ctx;

    error = list_error(reply, error);
    for (size_t i = 0; !error && i < reply->elements; i++)
        error = take_entry(report, reply->element[i]);
    if (error)
        report_end(report, error);
    else if (reply->elements < ENTRIES_AT_ONCE_COUNT)
        day_is_read(report);
    else
        read_rows(report);
}

static void read_rows(struct report *report)
{
    char key[MONEY_KEY_MAX];
    enum error error;

    day_key(report, "usage", key);
    error = redis_commandf(report->redis, rows_done, report, "XRANGE %s %s%s + COUNT %s", key,
                           report->place[0] ? "(" : "", report->place[0] ? report->place : "-", ENTRIES_AT_ONCE);
    if (error)
        report_end(report, error);
}

static void sums_done(void *ctx, const redisReply *reply, enum error error)
{
    struct report *report = ctx;
    struct str place;

    if (error) {
        report_end(report, error);
        return;
    }
    if (reply->type == REDIS_REPLY_STRING &&
        !(usage_keep_parse((struct str){reply->str, reply->len}, report->day_sums, &place) &&
          str_copy(report->place, sizeof(report->place), place))) {
        usage_table_free(report->day_sums);
        report->day_sums = usage_table_new();
    }
    if (report->day_sums)
        read_rows(report);
    else
        report_end(report, ERR_NO_MEMORY);
}

static void next_day(struct report *report)
{
    char key[MONEY_KEY_MAX], before[DAY_TEXT] = "", after[DAY_TEXT];
    enum error error;

    if (report->day_at == report->day_count) {
        report_end(report, ERR_NONE);
        return;
    }
    report->place[0] = '\0';
    report->rows_read = 0;
    /* Whole days: the millisecond before the range and the one behind it are of other days. */
    if (report->from_ms > 0)
        clock_day(report->from_ms - 1, before);
    clock_day(report->to_ms, after);
    const char *day = report->days[report->day_at];
    if (!strcmp(day, before) || !strcmp(day, after)) {
        read_rows(report);
        return;
    }
    report->day_sums = usage_table_new();
    error = report->day_sums
                ? redis_commandf(report->redis, sums_done, report, "GET %s", day_key(report, "sums", key).ptr)
                : ERR_NO_MEMORY;
    if (error)
        report_end(report, error);
}

static int compare_days(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Days compare as texts do. */
static bool overlaps(const struct report *report, struct str day)
{
    char first[DAY_TEXT], last[DAY_TEXT], text[DAY_TEXT];

    if (report->from_ms >= report->to_ms || day.len != DAY_TEXT - 1 || !str_copy(text, sizeof(text), day))
        return false;
    clock_day(report->from_ms, first);
    clock_day(report->to_ms - 1, last);
    return strcmp(text, first) >= 0 && strcmp(text, last) <= 0;
}

static void days_done(void *ctx, const redisReply *reply, enum error error)
{
    struct report *report = ctx;

    error = list_error(reply, error);
    if (!error) {
        report->days = calloc(reply->elements + 1, sizeof(*report->days));
        if (!report->days)
            error = ERR_NO_MEMORY;
    }
    if (error) {
        report_end(report, error);
        return;
    }
    for (size_t i = 0; i < reply->elements; i++) {
        struct str day = {reply->element[i]->str, reply->element[i]->len};
        if (overlaps(report, day))
            (void)!str_copy(report->days[report->day_count++], DAY_TEXT, day);
    }
    qsort(report->days, report->day_count, sizeof(*report->days), compare_days);
    next_day(report);
}

enum error ledger_usage(struct redis *redis, struct str tenant, int64_t from_ms, int64_t to_ms, enum usage_group group,
                        ledger_done_fn *done, void *ctx)
{
    struct report *report;
    char key[MONEY_KEY_MAX];
    enum error error;

    if (!money_id_is_good(tenant))
        return ERR_BAD_INPUT;
    report = calloc(1, sizeof(*report));
    if (!report)
        return ERR_NO_MEMORY;
    buf_init(&report->scratch, 4096);
    report->redis = redis;
    report->from_ms = from_ms;
    report->to_ms = to_ms;
    report->group = group;
    report->done = done;
    report->ctx = ctx;
    report->table = usage_table_new();
    error = report->table && purse_of_tenant(tenant, &report->purse) ? ERR_NONE : ERR_NO_MEMORY;
    if (!error) {
        purse_key(&report->purse, "days", key);
        error = redis_commandf(redis, days_done, report, "SMEMBERS %s", key);
    }
    if (error)
        report_free(report);
    return error;
}
