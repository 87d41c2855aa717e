#include "pricing/usage_table.h"

#include "pricing/ledger_entry.h"
#include "pricing/usage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_LEAST 64

struct group {
    struct usage_sums sums;
    size_t len;
    char text[];
};

/* Open addressing; at most half full. */
struct usage_table {
    size_t count, slot_count;
    struct group **slots;
};

struct usage_table *usage_table_new(void)
{
    struct usage_table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->slot_count = SLOTS_LEAST;
    table->slots = calloc(table->slot_count, sizeof(struct group *));
    if (!table->slots) {
        free(table);
        return NULL;
    }
    return table;
}

struct usage_table *usage_table_free(struct usage_table *table)
{
    if (!table)
        return NULL;
    for (size_t i = 0; i < table->slot_count; i++)
        free(table->slots[i]);
    free(table->slots);
    free(table);
    return NULL;
}

static struct group **slot_of(struct group **slots, size_t slot_count, struct str text)
{
    size_t at = str_hash(text, 0) % slot_count;

    while (slots[at] && !str_eq((struct str){slots[at]->text, slots[at]->len}, text))
        at = (at + 1) % slot_count;
    return &slots[at];
}

static bool grow(struct usage_table *table)
{
    size_t more = table->slot_count * 2;
    struct group **slots = calloc(more, sizeof(struct group *));

    if (!slots)
        return false;
    for (size_t i = 0; i < table->slot_count; i++) {
        struct group *group = table->slots[i];
        if (group)
            *slot_of(slots, more, (struct str){group->text, group->len}) = group;
    }
    free(table->slots);
    table->slots = slots;
    table->slot_count = more;
    return true;
}

static bool sums_add(struct usage_sums *to, const struct usage_sums *more)
{
    return !__builtin_add_overflow(to->requests, more->requests, &to->requests) &&
           !__builtin_add_overflow(to->gpu_ms, more->gpu_ms, &to->gpu_ms) &&
           !__builtin_add_overflow(to->prompt_tokens, more->prompt_tokens, &to->prompt_tokens) &&
           !__builtin_add_overflow(to->completion_tokens, more->completion_tokens, &to->completion_tokens) &&
           !__builtin_add_overflow(to->cost_usd_nano, more->cost_usd_nano, &to->cost_usd_nano);
}

enum error usage_table_add(struct usage_table *table, struct str group, const struct usage_sums *sums)
{
    struct group **slot = slot_of(table->slots, table->slot_count, group);

    if (!*slot) {
        struct group *made;
        if (table->count >= USAGE_GROUPS_MAX)
            return ERR_TOO_LARGE;
        if (table->count * 2 >= table->slot_count) {
            if (!grow(table))
                return ERR_NO_MEMORY;
            slot = slot_of(table->slots, table->slot_count, group);
        }
        made = calloc(1, sizeof(*made) + group.len + 1);
        if (!made)
            return ERR_NO_MEMORY;
        made->len = group.len;
        if (group.len)
            memcpy(made->text, group.ptr, group.len);
        *slot = made;
        table->count++;
    }
    return sums_add(&(*slot)->sums, sums) ? ERR_NONE : ERR_OVERFLOW;
}

bool usage_table_next(const struct usage_table *table, size_t *at, struct str *ret_group, struct usage_sums *ret_sums)
{
    while (*at < table->slot_count) {
        const struct group *group = table->slots[(*at)++];
        if (group) {
            *ret_group = (struct str){group->text, group->len};
            *ret_sums = group->sums;
            return true;
        }
    }
    return false;
}

static int compare_groups(const void *a, const void *b)
{
    const struct group *left = *(struct group *const *)a, *right = *(struct group *const *)b;
    return strcmp(left->text, right->text);
}

json_t *usage_table_json(struct usage_table *table, const char *column)
{
    struct group **sorted = calloc(table->count + 1, sizeof(struct group *));
    json_t *rows = json_array();
    size_t count = 0;

    if (!sorted || !rows)
        goto failed;
    for (size_t i = 0; i < table->slot_count; i++)
        if (table->slots[i])
            sorted[count++] = table->slots[i];
    qsort(sorted, count, sizeof(struct group *), compare_groups);
    for (size_t i = 0; i < count; i++) {
        const struct usage_sums *sums = &sorted[i]->sums;
        json_t *row = json_pack(
            "{s:o, s:I, s:I, s:I, s:I, s:o}", column, ledger_text_json((struct str){sorted[i]->text, sorted[i]->len}),
            "requests", (json_int_t)sums->requests, "gpu_ms", (json_int_t)sums->gpu_ms, "prompt_tokens",
            (json_int_t)sums->prompt_tokens, "completion_tokens", (json_int_t)sums->completion_tokens, "cost_usd",
            ledger_amount_json(sums->cost_usd_nano));
        if (json_array_append_new(rows, row))
            goto failed;
    }
    free(sorted);
    return rows;
failed:
    free(sorted);
    json_decref(rows);
    return NULL;
}

bool usage_row_parse(struct str text, struct usage_row *ret)
{
    struct usage_row row = {.sums = {.requests = 1}};
    struct str at = str_next(&text, '\x1f');
    struct str outcome, gpu_ms, prompt, completion, cost;
    int64_t outcome_number;

    row.id = str_next(&text, '\x1f');
    row.key = str_next(&text, '\x1f');
    row.worker = str_next(&text, '\x1f');
    row.network = str_next(&text, '\x1f');
    row.model = str_next(&text, '\x1f');
    outcome = str_next(&text, '\x1f');
    gpu_ms = str_next(&text, '\x1f');
    prompt = str_next(&text, '\x1f');
    completion = str_next(&text, '\x1f');
    cost = str_next(&text, '\x1f');
    if (text.ptr || !cost.ptr || !str_to_i64(at, &row.at_ms) || !str_to_i64(outcome, &outcome_number) ||
        !str_to_i64(gpu_ms, &row.sums.gpu_ms) || !str_to_i64(prompt, &row.sums.prompt_tokens) ||
        !str_to_i64(completion, &row.sums.completion_tokens) || !str_to_i64(cost, &row.sums.cost_usd_nano))
        return false;
    if (outcome_number == USAGE_REFUNDED || outcome_number == USAGE_LEASED)
        row.sums.requests = 0;
    *ret = row;
    return true;
}

bool usage_group_write(const struct usage_row *row, struct buf *text)
{
    return buf_append_str(text, row->key) && buf_append(text, "\x1f", 1) && buf_append_str(text, row->worker) &&
           buf_append(text, "\x1f", 1) && buf_append_str(text, row->network) && buf_append(text, "\x1f", 1) &&
           buf_append_str(text, row->model);
}

bool usage_group_parse(struct str group, struct usage_row *ret)
{
    *ret = (struct usage_row){0};
    ret->key = str_next(&group, '\x1f');
    ret->worker = str_next(&group, '\x1f');
    ret->network = str_next(&group, '\x1f');
    ret->model = str_next(&group, '\x1f');
    return ret->model.ptr && !group.ptr;
}

bool usage_keep_write(const struct usage_table *table, struct str place, struct buf *text)
{
    struct str group;
    struct usage_sums sums;
    bool ok = buf_append_str(text, place) && buf_append(text, "\n", 1);

    for (size_t at = 0; ok && usage_table_next(table, &at, &group, &sums);)
        ok = buf_printf(
            text, "%" PRId64 "\x1f%" PRId64 "\x1f%" PRId64 "\x1f%" PRId64 "\x1f%" PRId64 "\x1f" STR_FMT "\n",
            sums.requests, sums.gpu_ms, sums.prompt_tokens, sums.completion_tokens, sums.cost_usd_nano, STR_ARG(group));
    return ok;
}

bool usage_keep_parse(struct str text, struct usage_table *table, struct str *ret_place)
{
    struct str place = str_next(&text, '\n');

    while (text.len) {
        struct str line = str_next(&text, '\n');
        struct usage_sums sums;
        int64_t *const numbers[] = {&sums.requests, &sums.gpu_ms, &sums.prompt_tokens, &sums.completion_tokens,
                                    &sums.cost_usd_nano};
        for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
            if (!str_to_i64(str_next(&line, '\x1f'), numbers[i]))
                return false;
        if (!line.ptr || usage_table_add(table, line, &sums))
            return false;
    }
    *ret_place = place;
    return true;
}
