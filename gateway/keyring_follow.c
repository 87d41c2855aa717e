#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"
#include "gateway/keyring.h"
#include "gateway/keyring_store.h"

#include <stdlib.h>
#include <string.h>

/* The control thread's copy of all keys, kept up by asking for what changed since the last version it saw: four times a
 * second and at once when the feed tells. A pass that starts from version 0 also drops keys that it did not meet. */

EMBED(keyring_read_lua, "gateway/keyring_read.lua");
REDIS_SCRIPT(read_script, keyring_read_lua);

#define LOOK_EVERY_NS (250 * NS_PER_MS)
#define READ_MOST 1000

struct entry {
    struct api_key *key;
    uint32_t pass; /* the full pass that met it last */
};

struct tenant {
    char id[ID_TEXT_MAX];
    struct credit *balance; /* kept while the store lives: it may hold money */
};

struct keyring_store {
    struct loop *loop;
    struct redis *redis;
    void (*on_keyring)(void *ctx, struct keyring *keyring);
    void *ctx;
    struct timer timer;
    struct entry *entries; /* by id */
    size_t entry_count, entry_cap;
    struct tenant *tenants; /* by id */
    size_t tenant_count, tenant_cap;
    char since[24]; /* the version read up to */
    uint32_t pass;
    bool is_full_pass; /* since version 0, under way */
    bool wants_full_pass;
    bool is_reading, again;
    bool is_changed;   /* since the last table */
    bool is_published; /* a table was given out */
    bool is_freed;     /* waits for the answer under way */
};

static void look(struct keyring_store *store);

/* -- the sorted arrays -- */

static size_t find_entry(const struct keyring_store *store, struct str id, bool *ret_found)
{
    size_t low = 0, high = store->entry_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct str have = str_of(store->entries[middle].key->id);
        size_t len = have.len < id.len ? have.len : id.len;
        int order = memcmp(have.ptr, id.ptr, len);
        if (order == 0 && have.len == id.len) {
            *ret_found = true;
            return middle;
        }
        if (order < 0 || (order == 0 && have.len < id.len))
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = false;
    return low;
}

static bool grow(void **array, size_t *cap, size_t count, size_t item_size)
{
    if (count < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 16;
    void *bigger = realloc(*array, more * item_size);
    if (!bigger)
        return false;
    *array = bigger;
    *cap = more;
    return true;
}

/* The tenant's one credit, made at the first key. */
static struct credit *balance_of(struct keyring_store *store, const char *id)
{
    size_t low = 0, high = store->tenant_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(store->tenants[middle].id, id);
        if (order == 0)
            return store->tenants[middle].balance;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    struct tenant tenant = {0};
    if (!str_copy(tenant.id, sizeof(tenant.id), str_of(id)) ||
        !grow((void **)&store->tenants, &store->tenant_cap, store->tenant_count, sizeof(tenant)))
        return NULL;
    tenant.balance = credit_new(CREDIT_BALANCE, id, 0, NULL);
    if (!tenant.balance)
        return NULL;
    memmove(store->tenants + low + 1, store->tenants + low, (store->tenant_count - low) * sizeof(tenant));
    store->tenants[low] = tenant;
    store->tenant_count++;
    return tenant.balance;
}

static void remove_entry(struct keyring_store *store, size_t at)
{
    api_key_unref(store->entries[at].key);
    memmove(store->entries + at, store->entries + at + 1, (store->entry_count - at - 1) * sizeof(*store->entries));
    store->entry_count--;
    store->is_changed = true;
}

static struct api_key *make_key(struct keyring_store *store, struct str json)
{
    struct api_key fields, *key = NULL;
    struct keyring_key_text text;
    const char *period;
    int64_t budget;
    if (!keyring_key_parse(json, &fields, &budget, &period, &text))
        return NULL;
    fields.balance = balance_of(store, fields.tenant);
    fields.budget = period ? credit_new(CREDIT_BUDGET, fields.id, budget, period) : NULL;
    if (fields.balance && (!period || fields.budget))
        key = api_key_new(&fields);
    if (fields.budget)
        credit_unref(fields.budget);
    keyring_key_text_free(&text);
    return key;
}

/* A stored key never changes but to be deleted, so one that is known stays as it is, with its counters. */
static bool apply(struct keyring_store *store, struct str id, const redisReply *value)
{
    bool found;
    size_t at = find_entry(store, id, &found);
    if (value->type != REDIS_REPLY_STRING) {
        if (found)
            remove_entry(store, at);
        return true;
    }
    if (found) {
        store->entries[at].pass = store->pass;
        return true;
    }
    struct api_key *key = make_key(store, (struct str){value->str, value->len});
    if (!key || !str_eq(str_of(key->id), id)) {
        api_key_unref(key);
        log_error(NULL, "stored key " STR_FMT " cannot be used: it is refused", STR_ARG(id));
        return true;
    }
    if (!grow((void **)&store->entries, &store->entry_cap, store->entry_count, sizeof(*store->entries))) {
        api_key_unref(key);
        return false;
    }
    memmove(store->entries + at + 1, store->entries + at, (store->entry_count - at) * sizeof(*store->entries));
    store->entries[at] = (struct entry){key, store->pass};
    store->entry_count++;
    store->is_changed = true;
    return true;
}

/* -- reading -- */

static void publish(struct keyring_store *store)
{
    size_t count = store->entry_count;
    struct api_key **keys = malloc((count ? count : 1) * sizeof(struct api_key *));
    for (size_t i = 0; keys && i < count; i++)
        keys[i] = store->entries[i].key;
    struct keyring *keyring = keys ? keyring_new(keys, count) : NULL;
    free(keys);
    if (!keyring) {
        log_error(NULL, "out of memory: the keyring is not renewed");
        return;
    }
    store->is_changed = false;
    store->is_published = true;
    store->on_keyring(store->ctx, keyring);
}

static void pass_done(struct keyring_store *store)
{
    if (store->is_full_pass) {
        for (size_t at = store->entry_count; at-- > 0;) {
            if (store->entries[at].pass != store->pass)
                remove_entry(store, at);
        }
        store->is_full_pass = false;
    }
    if (store->is_changed || !store->is_published)
        publish(store);
}

static bool is_text(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING;
}

/* False: not understood, try again later. *ret_more: there is more to read at once. */
static bool read_answer(struct keyring_store *store, const redisReply *reply, bool *ret_more)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->elements % 2 || !is_text(reply->element[0]) ||
        !is_text(reply->element[1]) || reply->element[1]->len >= (int)sizeof(store->since))
        return false;
    const char *version = reply->element[0]->str, *upto = reply->element[1]->str;
    if (strcmp(upto, "-1") == 0) {
        store->wants_full_pass = true;
        *ret_more = true;
        return true;
    }
    for (size_t i = 2; i < reply->elements; i += 2) {
        const redisReply *id = reply->element[i];
        if (!is_text(id) || !apply(store, (struct str){id->str, (size_t)id->len}, reply->element[i + 1]))
            return false;
    }
    snprintf(store->since, sizeof(store->since), "%s", upto);
    *ret_more = strcmp(version, upto) != 0;
    return true;
}

static void on_read(void *ctx, const redisReply *reply, enum error error)
{
    struct keyring_store *store = ctx;
    store->is_reading = false;
    if (store->is_freed) {
        free(store);
        return;
    }
    bool more = false;
    if (error || !read_answer(store, reply, &more)) {
        if (!error)
            log_warn(NULL, "reading the keys: unexpected answer from the store");
        timer_set(store->loop, &store->timer, loop_now(store->loop) + LOOK_EVERY_NS);
        return;
    }
    if (!more)
        pass_done(store);
    if (more || store->again)
        look(store);
    else
        timer_set(store->loop, &store->timer, loop_now(store->loop) + LOOK_EVERY_NS);
}

static void look(struct keyring_store *store)
{
    if (store->is_reading) {
        store->again = true;
        return;
    }
    if (store->wants_full_pass) {
        store->wants_full_pass = false;
        store->is_full_pass = true;
        store->pass++;
        snprintf(store->since, sizeof(store->since), "0");
    }
    store->again = false;
    char most[16];
    snprintf(most, sizeof(most), "%d", READ_MOST);
    struct str args[] = {STR(KEYRING_KEYS), STR(KEYRING_LOG), STR(KEYRING_VERSION), str_of(store->since), str_of(most)};
    if (redis_run(store->redis, &read_script, on_read, store, 3, 2, args) == ERR_NONE)
        store->is_reading = true;
    else
        timer_set(store->loop, &store->timer, loop_now(store->loop) + LOOK_EVERY_NS);
}

static void on_timer(struct timer *timer)
{
    look(container_of(timer, struct keyring_store, timer));
}

enum error keyring_store_open(struct loop *loop, struct redis *redis,
                              void (*on_keyring)(void *ctx, struct keyring *keyring), void *ctx,
                              struct keyring_store **ret)
{
    struct keyring_store *store = calloc(1, sizeof(*store));
    if (!store)
        return ERR_NO_MEMORY;
    store->loop = loop;
    store->redis = redis;
    store->on_keyring = on_keyring;
    store->ctx = ctx;
    store->timer.on_due = on_timer;
    store->wants_full_pass = true;
    look(store);
    *ret = store;
    return ERR_NONE;
}

struct keyring_store *keyring_store_free(struct keyring_store *store)
{
    if (!store)
        return NULL;
    timer_clear(store->loop, &store->timer);
    for (size_t i = 0; i < store->entry_count; i++)
        api_key_unref(store->entries[i].key);
    for (size_t i = 0; i < store->tenant_count; i++)
        credit_unref(store->tenants[i].balance);
    free(store->entries);
    free(store->tenants);
    store->is_freed = true;
    if (!store->is_reading)
        free(store);
    return NULL;
}

void keyring_store_changed(struct keyring_store *store, struct str kind, struct str id)
{
    (void)id; /* the version's log tells which, and all others since */
    if (str_eq(kind, STR("all")))
        store->wants_full_pass = true;
    else if (!str_eq(kind, STR("key")))
        return;
    timer_clear(store->loop, &store->timer);
    look(store);
}

void keyring_store_each_credit(struct keyring_store *store, void (*each)(void *ctx, struct credit *credit), void *ctx)
{
    for (size_t i = 0; i < store->tenant_count; i++)
        each(ctx, store->tenants[i].balance);
    for (size_t i = 0; i < store->entry_count; i++) {
        if (store->entries[i].key->budget)
            each(ctx, store->entries[i].key->budget);
    }
}
