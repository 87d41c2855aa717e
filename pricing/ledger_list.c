/* ledger_list: transfers of one tenant, or of all merged by the time of writing, a page at a time. */
#include "pricing/ledger.h"

#include "core/log.h"
#include "pricing/keys.h"
#include "pricing/ledger_entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 1000
#define TENANTS_AT_ONCE 50
#define STREAM_ID_MAX 44

/* Where a transfer lies: the id of the stream entry, and whose. All are ordered so; a cursor is one of these. */
struct place {
    uint64_t ms, seq;
    char tenant[MONEY_ID_MAX + 1];
};

struct item {
    struct place place;
    json_t *json;
};

struct list_part {
    struct list *list;
    char tenant[MONEY_ID_MAX + 1];
};

struct list {
    struct redis *redis;
    ledger_done_fn *done;
    void *ctx;
    bool is_of_all, has_cursor;
    struct place cursor;
    enum error error;
    size_t limit, item_count; /* keeps limit + 1: the last one tells that there is a next page */
    struct item *items;
    char last_tenant[MONEY_ID_MAX + 1];
    size_t part_count, in_flight;
    struct list_part parts[TENANTS_AT_ONCE];
};

static int place_compare(const struct place *a, const struct place *b)
{
    if (a->ms != b->ms)
        return a->ms < b->ms ? -1 : 1;
    if (a->seq != b->seq)
        return a->seq < b->seq ? -1 : 1;
    return strcmp(a->tenant, b->tenant);
}

static bool parse_number(struct str text, uint64_t *ret)
{
    int64_t value;
    if (text.len < 1 || text.ptr[0] == '-' || !str_to_i64(text, &value))
        return false;
    *ret = (uint64_t)value;
    return true;
}

/* "<ms>-<seq>", for all tenants "<ms>-<seq>.<tenant>". */
static bool parse_cursor(struct str text, bool is_of_all, struct place *ret)
{
    struct str id = str_next(&text, '.'), ms = str_next(&id, '-');

    *ret = (struct place){0};
    return id.ptr && parse_number(ms, &ret->ms) && parse_number(id, &ret->seq) && (text.ptr != NULL) == is_of_all &&
           (!is_of_all || (money_id_is_good(text) && str_copy(ret->tenant, sizeof(ret->tenant), text)));
}

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->item_count; i++)
        json_decref(list->items[i].json);
    free(list->items);
    free(list);
}

static void list_finish(struct list *list)
{
    bool has_next = list->item_count > list->limit;
    size_t count = has_next ? list->limit : list->item_count;
    json_t *data = json_array(), *next = json_null(), *all;
    char cursor[STREAM_ID_MAX + MONEY_ID_MAX + 2], *text = NULL;

    for (size_t i = 0; i < count; i++)
        json_array_append(data, list->items[i].json);
    if (has_next) {
        const struct place *last = &list->items[count - 1].place;
        snprintf(cursor, sizeof(cursor), "%" PRIu64 "-%" PRIu64 "%s%s", last->ms, last->seq, list->is_of_all ? "." : "",
                 list->is_of_all ? last->tenant : "");
        next = json_string(cursor);
    }
    all = json_pack("{s:s, s:o, s:o}", "object", "list", "data", data, "next", next);
    if (all && !list->error)
        text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    if (!text && !list->error)
        list->error = ERR_NO_MEMORY;
    list->done(list->ctx, list->error, str_of(text));
    free(text);
    list_free(list);
}

/* Keeps the limit + 1 first ones, in order. Owns json. */
static void list_insert(struct list *list, const struct place *place, json_t *json)
{
    size_t at = list->item_count, most = list->limit + 1;

    while (at > 0 && place_compare(place, &list->items[at - 1].place) < 0)
        at--;
    if (at == most) {
        json_decref(json);
        return;
    }
    if (list->item_count == most)
        json_decref(list->items[--list->item_count].json);
    memmove(&list->items[at + 1], &list->items[at], (list->item_count - at) * sizeof(*list->items));
    list->items[at] = (struct item){.place = *place, .json = json};
    list->item_count++;
}

/* [id, ["d", content, "h", hash]] */
static bool take_entry(struct list *list, const char *tenant, const redisReply *entry)
{
    struct place place;
    json_t *json;

    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || entry->element[1]->type != REDIS_REPLY_ARRAY ||
        entry->element[1]->elements < 2 ||
        !parse_cursor((struct str){entry->element[0]->str, entry->element[0]->len}, false, &place))
        return false;
    (void)!str_copy(place.tenant, sizeof(place.tenant), str_of(tenant));
    if (list->item_count > list->limit && place_compare(&place, &list->items[list->limit].place) > 0)
        return true;
    const redisReply *content = entry->element[1]->element[1];
    json = ledger_entry_json((struct str){content->str, content->len}, str_of(tenant));
    if (!json)
        return false;
    list_insert(list, &place, json);
    return true;
}

static void list_tenants(struct list *list);

static void part_answered(struct list *list)
{
    if (--list->in_flight > 0)
        return;
    if (list->is_of_all && !list->error && list->part_count == TENANTS_AT_ONCE)
        list_tenants(list);
    else
        list_finish(list);
}

static enum error answer_error(const redisReply *reply, enum error error)
{
    if (error)
        return error;
    if (reply->type == REDIS_REPLY_ARRAY)
        return ERR_NONE;
    log_warn(NULL, "redis: ledger: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "not a list");
    return ERR_CLOSED;
}

static void part_done(void *ctx, const redisReply *reply, enum error error)
{
    struct list_part *part = ctx;
    struct list *list = part->list;

    error = answer_error(reply, error);
    for (size_t i = 0; !error && i < reply->elements; i++)
        if (!take_entry(list, part->tenant, reply->element[i]))
            error = ERR_PROTOCOL;
    if (error && !list->error)
        list->error = error;
    part_answered(list);
}

static enum error part_send(struct list_part *part)
{
    struct list *list = part->list;
    struct purse purse;
    char key[MONEY_KEY_MAX], from[STREAM_ID_MAX] = "-", count[16];

    if (!purse_of_tenant(str_of(part->tenant), &purse))
        return ERR_BAD_INPUT;
    /* Of the transfers written at the cursor's very place, those of tenants behind it are still to come. */
    if (list->has_cursor)
        snprintf(from, sizeof(from), "%s%" PRIu64 "-%" PRIu64,
                 list->is_of_all && strcmp(part->tenant, list->cursor.tenant) > 0 ? "" : "(", list->cursor.ms,
                 list->cursor.seq);
    purse_key(&purse, "ledger", key);
    snprintf(count, sizeof(count), "%zu", list->limit + 1);
    return redis_commandf(list->redis, part_done, part, "XRANGE %s %s + COUNT %s", key, from, count);
}

static void tenants_done(void *ctx, const redisReply *reply, enum error error)
{
    struct list *list = ctx;

    list->error = answer_error(reply, error);
    list->part_count = 0;
    list->in_flight = 1; /* this answer itself */
    for (size_t i = 0; !list->error && i < reply->elements && i < TENANTS_AT_ONCE; i++) {
        struct list_part *part = &list->parts[list->part_count++];
        struct str tenant = {reply->element[i]->str, reply->element[i]->len};
        part->list = list;
        if (!str_copy(part->tenant, sizeof(part->tenant), tenant) ||
            !str_copy(list->last_tenant, sizeof(list->last_tenant), tenant))
            list->error = ERR_PROTOCOL;
        else
            list->error = part_send(part);
        list->in_flight += !list->error;
    }
    part_answered(list);
}

static void list_tenants(struct list *list)
{
    char from[MONEY_ID_MAX + 2] = "-";
    enum error error;

    if (list->last_tenant[0])
        snprintf(from, sizeof(from), "(%s", list->last_tenant);
    error = redis_commandf(list->redis, tenants_done, list, "ZRANGEBYLEX %s %s + LIMIT 0 50", LEDGERS, from);
    if (error) {
        list->error = error;
        list_finish(list);
    }
}

enum error ledger_list(struct redis *redis, struct str tenant, struct str cursor, size_t limit, ledger_done_fn *done,
                       void *ctx)
{
    struct list *list;
    struct place place = {0};
    enum error error;

    if ((tenant.ptr && !money_id_is_good(tenant)) || (cursor.ptr && !parse_cursor(cursor, !tenant.ptr, &place)))
        return ERR_BAD_INPUT;
    list = calloc(1, sizeof(*list));
    if (!list)
        return ERR_NO_MEMORY;
    list->limit = limit < 1 ? 1 : limit > PAGE_MAX ? PAGE_MAX : limit;
    list->items = calloc(list->limit + 2, sizeof(*list->items));
    list->redis = redis;
    list->done = done;
    list->ctx = ctx;
    list->is_of_all = !tenant.ptr;
    list->has_cursor = cursor.ptr != NULL;
    list->cursor = place;
    if (!list->items) {
        error = ERR_NO_MEMORY;
    } else if (list->is_of_all) {
        error = redis_commandf(redis, tenants_done, list, "ZRANGEBYLEX %s - + LIMIT 0 50", LEDGERS);
    } else {
        list->parts[0].list = list;
        (void)!str_copy(list->parts[0].tenant, sizeof(list->parts[0].tenant), tenant);
        list->in_flight = 1;
        error = part_send(&list->parts[0]);
    }
    if (error)
        list_free(list);
    return error;
}
