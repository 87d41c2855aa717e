/* ledger_invoice: the lines that settle.lua has summed, as JSON or CSV. */
#include "pricing/ledger.h"

#include "core/log.h"
#include "core/money.h"
#include "pricing/keys.h"
#include "pricing/ledger_entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX 100000
#define MONTH_LEN 7
#define HOUR_MS 3600000

/* Texts are borrowed from the reply. */
struct line {
    struct str name; /* model US worker US gpu US price */
    struct str model, worker, gpu;
    int64_t price_usd_nano, requests, gpu_ms, amount_usd_nano;
};

struct invoice {
    ledger_done_fn *done;
    void *ctx;
    bool as_csv;
    char month[MONTH_LEN + 1];
    struct line *lines;
    size_t count;
    int64_t total_usd_nano;
};

static bool month_is_good(struct str month)
{
    static const char pattern[] = "dddd-dd";

    if (month.len != MONTH_LEN)
        return false;
    for (size_t i = 0; i < MONTH_LEN; i++)
        if (pattern[i] == 'd' ? month.ptr[i] < '0' || month.ptr[i] > '9' : month.ptr[i] != pattern[i])
            return false;
    int number = (month.ptr[5] - '0') * 10 + month.ptr[6] - '0';
    return number >= 1 && number <= 12;
}

/* Hours to nine digits after the point, half to even, in the form of an amount. gpu_ms x 10^9 / 3,600,000 = gpu_ms x
 * 2,500 / 9: of ninths none is a half. */
static void hours_text(int64_t gpu_ms, char ret[static MONEY_TEXT_MAX])
{
    __int128 ninths = (__int128)gpu_ms * 2500;
    money_text((int64_t)((ninths + 4) / 9), ret);
}

/* Cuts the last field off a hash field: which number of the line this is. */
static bool split_field(struct str field, struct str *ret_name, struct str *ret_what)
{
    for (size_t i = field.len; i-- > 0;)
        if (field.ptr[i] == '\x1f') {
            *ret_name = (struct str){field.ptr, i};
            *ret_what = (struct str){field.ptr + i + 1, field.len - i - 1};
            return true;
        }
    return false;
}

static int compare_fields(const void *a, const void *b)
{
    const struct line *left = a, *right = b;
    size_t len = left->name.len < right->name.len ? left->name.len : right->name.len;
    int order = memcmp(left->name.ptr, right->name.ptr, len);
    return order ? order : (left->name.len > right->name.len) - (left->name.len < right->name.len);
}

static bool parse_name(struct line *line)
{
    struct str rest = line->name;

    line->model = str_next(&rest, '\x1f');
    line->worker = str_next(&rest, '\x1f');
    line->gpu = str_next(&rest, '\x1f');
    return rest.ptr && str_to_i64(rest, &line->price_usd_nano);
}

/* Each field becomes a line with one number; then lines of one name, which sorting put together, become one. */
static enum error take_lines(struct invoice *invoice, const redisReply *reply)
{
    size_t merged = 0;

    if (reply->elements / 2 > LINES_MAX * 3)
        return ERR_TOO_LARGE;
    invoice->lines = calloc(reply->elements / 2 + 1, sizeof(*invoice->lines));
    if (!invoice->lines)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        struct line *line = &invoice->lines[i / 2];
        struct str field = {reply->element[i]->str, reply->element[i]->len}, what;
        struct str value = {reply->element[i + 1]->str, reply->element[i + 1]->len};
        if (!split_field(field, &line->name, &what) ||
            !str_to_i64(value, str_eq(what, STR("n"))    ? &line->requests
                               : str_eq(what, STR("ms")) ? &line->gpu_ms
                                                         : &line->amount_usd_nano))
            return ERR_PROTOCOL;
        invoice->count++;
    }
    qsort(invoice->lines, invoice->count, sizeof(*invoice->lines), compare_fields);
    for (size_t i = 0; i < invoice->count; i++) {
        struct line *line = &invoice->lines[i], *into = merged ? &invoice->lines[merged - 1] : NULL;
        if (!money_add(invoice->total_usd_nano, line->amount_usd_nano, &invoice->total_usd_nano))
            return ERR_OVERFLOW;
        if (into && str_eq(into->name, line->name)) {
            into->requests += line->requests;
            into->gpu_ms += line->gpu_ms;
            into->amount_usd_nano += line->amount_usd_nano;
        } else {
            invoice->lines[merged] = *line;
            if (!parse_name(&invoice->lines[merged++]))
                return ERR_PROTOCOL;
        }
    }
    invoice->count = merged;
    return ERR_NONE;
}

static char *invoice_json(const struct invoice *invoice)
{
    json_t *lines = json_array(), *all;
    char *text;

    for (size_t i = 0; i < invoice->count; i++) {
        const struct line *line = &invoice->lines[i];
        char hours[MONEY_TEXT_MAX];
        hours_text(line->gpu_ms, hours);
        json_array_append_new(
            lines, json_pack("{s:o, s:o, s:o, s:I, s:I, s:s, s:o, s:o}", "model", ledger_text_json(line->model),
                             "worker", ledger_text_json(line->worker), "gpu", ledger_text_json(line->gpu), "requests",
                             (json_int_t)line->requests, "gpu_ms", (json_int_t)line->gpu_ms, "gpu_hours", hours,
                             "price_per_gpu_hour_usd", ledger_amount_json(line->price_usd_nano), "amount_usd",
                             ledger_amount_json(line->amount_usd_nano)));
    }
    all = json_pack("{s:s, s:o, s:o}", "month", invoice->month, "lines", lines, "total_usd",
                    ledger_amount_json(invoice->total_usd_nano));
    text = all && json_array_size(lines) == invoice->count ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return text;
}

/* RFC 4180: quoted where needed, quotes doubled. */
static bool csv_text(struct buf *csv, struct str text)
{
    bool is_plain = true;

    for (size_t i = 0; i < text.len; i++)
        is_plain &= text.ptr[i] != ',' && text.ptr[i] != '"' && text.ptr[i] != '\r' && text.ptr[i] != '\n';
    if (is_plain)
        return buf_append_str(csv, text) && buf_append(csv, ",", 1);
    bool ok = buf_append(csv, "\"", 1);
    for (size_t i = 0; ok && i < text.len; i++)
        ok = (text.ptr[i] != '"' || buf_append(csv, "\"", 1)) && buf_append(csv, &text.ptr[i], 1);
    return ok && buf_append(csv, "\",", 2);
}

static bool invoice_csv(const struct invoice *invoice, struct buf *csv)
{
    bool ok =
        buf_append_str(csv, STR("model,worker,gpu,requests,gpu_ms,gpu_hours,price_per_gpu_hour_usd,amount_usd\r\n"));

    for (size_t i = 0; ok && i < invoice->count; i++) {
        const struct line *line = &invoice->lines[i];
        char hours[MONEY_TEXT_MAX], price[MONEY_TEXT_MAX], amount[MONEY_TEXT_MAX];
        hours_text(line->gpu_ms, hours);
        money_text(line->price_usd_nano, price);
        money_text(line->amount_usd_nano, amount);
        ok =
            csv_text(csv, line->model) && csv_text(csv, line->worker) && csv_text(csv, line->gpu) &&
            buf_printf(csv, "%" PRId64 ",%" PRId64 ",%s,%s,%s\r\n", line->requests, line->gpu_ms, hours, price, amount);
    }
    return ok;
}

static void invoice_done(void *ctx, const redisReply *reply, enum error error)
{
    struct invoice *invoice = ctx;
    struct buf csv;
    char *json = NULL;
    struct str text = {NULL, 0};

    buf_init(&csv, 0);
    if (!error && reply->type != REDIS_REPLY_ARRAY) {
        log_warn(NULL, "redis: invoice: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "not a list");
        error = ERR_CLOSED;
    }
    if (!error)
        error = reply->elements ? take_lines(invoice, reply) : ERR_NOT_FOUND;
    if (!error && invoice->as_csv) {
        error = invoice_csv(invoice, &csv) ? ERR_NONE : ERR_NO_MEMORY;
        text = buf_str(&csv);
    } else if (!error) {
        json = invoice_json(invoice);
        error = json ? ERR_NONE : ERR_NO_MEMORY;
        text = str_of(json);
    }
    invoice->done(invoice->ctx, error, error ? (struct str){NULL, 0} : text);
    free(json);
    buf_free(&csv);
    free(invoice->lines);
    free(invoice);
}

enum error ledger_invoice(struct redis *redis, struct str tenant, struct str month, bool as_csv, ledger_done_fn *done,
                          void *ctx)
{
    struct invoice *invoice;
    struct purse purse;
    char key[MONEY_KEY_MAX], suffix[32];
    enum error error;

    if (!purse_of_tenant(tenant, &purse))
        return ERR_BAD_INPUT;
    if (!month_is_good(month))
        return ERR_NOT_FOUND;
    invoice = calloc(1, sizeof(*invoice));
    if (!invoice)
        return ERR_NO_MEMORY;
    invoice->done = done;
    invoice->ctx = ctx;
    invoice->as_csv = as_csv;
    (void)!str_copy(invoice->month, sizeof(invoice->month), month);
    snprintf(suffix, sizeof(suffix), "inv:%s", invoice->month);
    purse_key(&purse, suffix, key);
    error = redis_commandf(redis, invoice_done, invoice, "HGETALL %s", key);
    if (error)
        free(invoice);
    return error;
}
