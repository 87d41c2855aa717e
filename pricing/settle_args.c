#include "pricing/settle_args.h"

#include "core/clock.h"
#include "core/money.h"
#include "pricing/keys.h"
#include "pricing/refund.h"

#include <assert.h>
#include <string.h>

#define AMOUNT_MOST (USD_NANO * 100000000) /* of one record */
#define GPU_MS_MOST (INT64_C(1) << 50)
#define TOKENS_MOST (INT64_C(1) << 40) /* tokens are a worker's word: a boast is shown as this and overflows no sum */
#define SEPARATOR '\x1f'               /* of the fields of rows and lines */

bool settle_record_is_good(const struct usage_record *record)
{
    return money_id_is_good(str_of(record->tenant)) && record->id[0] && record->cost_usd_nano <= AMOUNT_MOST &&
           record->loss_usd_nano <= AMOUNT_MOST && record->gpu_ms <= GPU_MS_MOST &&
           (!settle_counts_in_budget(record) || money_id_is_good(str_of(record->key)));
}

bool settle_counts_in_budget(const struct usage_record *record)
{
    return record->budget_period_ms > 0 && record->cost_usd_nano > 0;
}

static int64_t tokens(int64_t count)
{
    return count < TOKENS_MOST ? count : TOKENS_MOST;
}

static char *room(struct settle_args *args, size_t len)
{
    char *at = args->text + args->text_len;
    assert(args->text_len + len <= sizeof(args->text));
    return at;
}

/* Control characters would break rows and lines apart. */
static void put_text(struct settle_args *args, const char *text)
{
    size_t len = strlen(text);
    char *at = room(args, len);
    for (size_t i = 0; i < len; i++)
        at[i] = (unsigned char)text[i] < 0x20 ? '?' : text[i];
    args->text_len += len;
}

static void put_number(struct settle_args *args, int64_t value)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t left = (uint64_t)value;

    assert(value >= 0);
    do
        digits[--at] = (char)('0' + left % 10);
    while (left /= 10);
    memcpy(room(args, sizeof(digits) - at), digits + at, sizeof(digits) - at);
    args->text_len += sizeof(digits) - at;
}

static void put_separator(struct settle_args *args)
{
    *room(args, 1) = SEPARATOR;
    args->text_len++;
}

/* What was put since `start` becomes the next argument. */
static void end_arg(struct settle_args *args, size_t start)
{
    args->args[args->count++] = (struct str){args->text + start, args->text_len - start};
}

static void add_text(struct settle_args *args, const char *text)
{
    size_t start = args->text_len;
    put_text(args, text);
    end_arg(args, start);
}

static void add_number(struct settle_args *args, int64_t value)
{
    size_t start = args->text_len;
    put_number(args, value);
    end_arg(args, start);
}

static void add_key(struct settle_args *args, const struct purse *purse, const char *suffix, const char *suffix_more)
{
    size_t start = args->text_len;
    put_text(args, purse->prefix);
    put_text(args, suffix);
    put_text(args, suffix_more);
    end_arg(args, start);
}

/* lease: NULL for calls. */
static void begin(struct settle_args *args, const struct usage_record *first, const char *owner, const char *lease)
{
    char day[11], month[8];
    struct purse purse;
    bool is_good = purse_of_tenant(str_of(first->tenant), &purse);

    assert(is_good);
    (void)is_good;
    clock_day(first->at_ms, day);
    clock_month(first->at_ms, month);
    args->count = args->text_len = 0;
    add_key(args, &purse, "acct", "");
    add_key(args, &purse, "hold", "");
    add_key(args, &purse, "seen:", day);
    add_key(args, &purse, "usage:", day);
    add_key(args, &purse, "inv:", month);
    add_key(args, &purse, "ledger", "");
    add_key(args, &purse, "chain", "");
    add_key(args, &purse, "days", "");
    add_key(args, &purse, "short:", day);
    assert(args->count == SETTLE_KEYS);
    if (lease)
        add_key(args, &purse, "lse:", lease);
    args->key_count = args->count;
    add_text(args, owner);
    add_text(args, day);
    add_number(args, DEDUP_S);
}

void settle_args_begin(struct settle_args *args, const struct usage_record *first, const char *owner)
{
    begin(args, first, owner, NULL);
}

static const char *kind_of(const struct usage_record *record)
{
    return record->outcome == USAGE_REFUNDED ? "refund" : record->outcome == USAGE_CHECKED ? "check" : "usage";
}

/* All fields but the last. */
static void add_record(struct settle_args *args, const struct usage_record *record)
{
    int64_t full = record->cost_usd_nano + record->loss_usd_nano, take = 0;
    const char *texts[] = {record->id, record->key, record->worker, record->network, record->model};
    int64_t numbers[] = {record->outcome, record->gpu_ms, tokens(record->prompt_tokens),
                         tokens(record->completion_tokens)};
    bool is_good = money_bps(full, record->take_rate_bps, &take);
    size_t start;

    assert(is_good && take >= 0 && take <= full);
    (void)is_good;
    add_text(args, record->id);
    add_number(args, record->at_ms);
    add_number(args, record->cost_usd_nano);
    add_number(args, record->loss_usd_nano);
    add_number(args, full - take);
    add_number(args, take);
    add_text(args, record->supplier);
    start = args->text_len;
    if (record->outcome != USAGE_CHECKED && (record->outcome != USAGE_BROKEN || full > 0)) {
        put_text(args, record->model);
        put_separator(args);
        put_text(args, record->worker);
        put_separator(args);
        put_text(args, record->gpu);
        put_separator(args);
        put_number(args, record->price_usd_nano);
    }
    end_arg(args, start);
    add_number(args, record->gpu_ms);
    start = args->text_len;
    put_number(args, record->at_ms);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        put_separator(args);
        put_text(args, texts[i]);
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        put_separator(args);
        put_number(args, numbers[i]);
    }
    end_arg(args, start);
    add_text(args, kind_of(record));
}

void settle_args_add(struct settle_args *args, const struct usage_record *record)
{
    int64_t full = record->cost_usd_nano + record->loss_usd_nano;

    add_record(args, record);
    add_number(args, record->outcome == USAGE_REFUNDED ? full * REFUND_PENALTY_TIMES : 0);
}

void settle_args_lease(struct settle_args *args, const struct usage_record *record, const struct settle_slice *slice)
{
    int64_t numbers[] = {slice->n, slice->run, slice->from_ms, slice->until_ms};
    size_t start;

    begin(args, record, slice->lease, slice->lease);
    add_record(args, record);
    start = args->text_len;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (i > 0)
            put_text(args, " ");
        put_number(args, numbers[i]);
    }
    end_arg(args, start);
}

void settle_args_begin_budget(struct settle_args *args, const struct usage_record *first, const char *owner)
{
    struct purse purse;
    bool is_good = purse_of_budget(str_of(first->key), first->budget_period_ms, &purse);

    assert(is_good);
    (void)is_good;
    args->count = args->text_len = 0;
    add_key(args, &purse, "acct", "");
    add_key(args, &purse, "hold", "");
    add_key(args, &purse, "seen", "");
    args->key_count = args->count;
    add_text(args, owner);
    add_number(args, DEDUP_S + 31 * 86400);
}

void settle_args_add_budget(struct settle_args *args, const struct usage_record *record)
{
    add_text(args, record->id);
    add_number(args, record->cost_usd_nano);
}
