#include "scheduler/lease_record.h"

#include "core/money.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Members that are zero, false or "" are left out, and come back so. */
enum kind {
    TEXT,     /* char array */
    BORROWED, /* struct str, of the request's pool; absent is not the same as empty */
    COUNT,    /* int64_t, 0 .. 2^53: times, durations, amounts of time */
    MONEY,    /* int64_t, -1 and up */
    NUMBER,   /* uint32_t */
    WIDE,     /* uint64_t below 2^63 */
    FLAG,     /* bool */
    WHETHER,  /* int, 0 or 1 */
};
struct field {
    const char *name;
    enum kind kind;
    size_t at, size; /* size: of a TEXT */
};

#define OF(type, name_, kind_, member)                                    \
    {                                                                     \
        name_, kind_, offsetof(type, member), sizeof(((type *)0)->member) \
    }

#define CANDIDATE(name, kind, member) OF(struct lease_candidate, name, kind, member)
static const struct field candidate_fields[] = {
    CANDIDATE("network", TEXT, network),
    CANDIDATE("offer", TEXT, offer),
    CANDIDATE("shown_offer", TEXT, shown_offer),
    CANDIDATE("gpu", TEXT, gpu),
    CANDIDATE("gpu_raw", TEXT, gpu_raw),
    CANDIDATE("region", TEXT, region),
    CANDIDATE("zone", TEXT, zone),
    CANDIDATE("origin", TEXT, origin),
    CANDIDATE("gpus", NUMBER, gpus),
    CANDIDATE("price", MONEY, price_usd_nano),
    CANDIDATE("network_price", MONEY, network_price_usd_nano),
    CANDIDATE("interruptible", FLAG, interruptible),
};

#define ATTEMPT(name, kind, member) OF(struct lease_attempt, name, kind, member)
static const struct field attempt_fields[] = {
    ATTEMPT("number", NUMBER, number),
    ATTEMPT("epoch", NUMBER, epoch),
    ATTEMPT("tag", TEXT, tag),
    ATTEMPT("instance", TEXT, instance),
    ATTEMPT("message", TEXT, message),
    ATTEMPT("at_ms", COUNT, at_ms),
    ATTEMPT("intended_ms", COUNT, intended_ms),
    ATTEMPT("known_ms", COUNT, known_ms),
    ATTEMPT("up_ms", COUNT, up_ms),
    ATTEMPT("ending_ms", COUNT, ending_ms),
    ATTEMPT("said_ended_ms", COUNT, said_ended_ms),
    ATTEMPT("tries", NUMBER, tries),
    ATTEMPT("look_ms", COUNT, look_ms),
    ATTEMPT("door_ms", COUNT, door_ms),
    ATTEMPT("proven_ms", COUNT, proven_ms),
    ATTEMPT("gone_looks", NUMBER, gone_looks),
};

#define REQUEST(name, kind, member) OF(struct lease_request, name, kind, member)
static const struct field request_fields[] = {
    REQUEST("gpu", BORROWED, gpu),
    REQUEST("image", BORROWED, image),
    REQUEST("region", BORROWED, region),
    REQUEST("network", BORROWED, network),
    REQUEST("require", BORROWED, require),
    REQUEST("prefer", BORROWED, prefer),
    REQUEST("quote", BORROWED, quote),
    REQUEST("offer", BORROWED, offer),
    REQUEST("gpus", NUMBER, gpus),
    REQUEST("price_max", MONEY, price_max_usd_nano),
    REQUEST("price_quoted", MONEY, price_quoted_usd_nano),
    REQUEST("tolerance_bps", COUNT, tolerance_bps),
    REQUEST("interruptible", WHETHER, interruptible),
    REQUEST("max_duration_s", COUNT, max_duration_s),
    REQUEST("deadline_s", COUNT, deadline_s),
    REQUEST("retry_until_up", FLAG, retry_until_up),
    REQUEST("recovers", FLAG, recovers),
    REQUEST("disk_gib", COUNT, disk_gib),
};

#define LEASE(name, kind, member) OF(struct lease, name, kind, member)
static const struct field lease_fields[] = {
    LEASE("id", TEXT, id),
    LEASE("tenant", TEXT, tenant),
    LEASE("key", TEXT, key_id),
    LEASE("installation", TEXT, installation),
    LEASE("reason", TEXT, reason),
    LEASE("created_at_ms", COUNT, created_at_ms),
    LEASE("active_at_ms", COUNT, active_at_ms),
    LEASE("ended_at_ms", COUNT, ended_at_ms),
    LEASE("stop_asked_ms", COUNT, stop_asked_ms),
    LEASE("search_ms", COUNT, search_ms),
    LEASE("pick_ms", COUNT, pick_ms),
    LEASE("pauses", NUMBER, pauses),
    LEASE("epoch", NUMBER, epoch),
    LEASE("attempts_made", NUMBER, attempts_made),
    LEASE("attempts_of_search", NUMBER, attempts_of_search),
    LEASE("budget", MONEY, budget_usd_nano),
    LEASE("budget_period", TEXT, budget_period),
    LEASE("is_held", FLAG, is_held),
    LEASE("is_released", FLAG, is_released),
    LEASE("hold_ms", COUNT, hold_ms),
    LEASE("former_ms", COUNT, former_ms),
    LEASE("price", MONEY, price_usd_nano),
    LEASE("since_ms", COUNT, since_ms),
    LEASE("until_ms", COUNT, until_ms),
    LEASE("seen_ms", COUNT, seen_ms),
    LEASE("epoch_billed_ms", COUNT, epoch_billed_ms),
    LEASE("billed_gpu_ms", COUNT, billed_gpu_ms),
    LEASE("cost", MONEY, cost_usd_nano),
    LEASE("captures", NUMBER, captures),
    LEASE("capture_intent_ms", COUNT, capture_intent_ms),
    LEASE("unfunded_ms", COUNT, unfunded_ms),
    LEASE("token", WIDE, token),
    LEASE("version", WIDE, version),
    LEASE("due_ms", COUNT, due_ms),
};

#define FIELDS(table) table, sizeof(table) / sizeof((table)[0])
#define COUNT_MAX (INT64_C(1) << 53)

/* -- writing -- */

/* A JSON text of whatever bytes. NULL: out of memory. */
static json_t *text_of(struct str text)
{
    json_t *json = memchr(text.ptr, '\0', text.len) ? NULL : json_stringn(text.ptr, text.len);
    if (json || text.len == 0)
        return json ? json : json_string("");
    char *plain = malloc(text.len);
    if (!plain)
        return NULL;
    for (size_t i = 0; i < text.len; i++)
        plain[i] = text.ptr[i] > 0 && (unsigned char)text.ptr[i] < 0x80 ? text.ptr[i] : '?';
    json = json_stringn(plain, text.len);
    free(plain);
    return json;
}

static int put_text(json_t *to, const char *name, struct str text)
{
    return json_object_set_new(to, name, text_of(text));
}

static json_t *value_of(const struct field *field, const void *base)
{
    const void *at = (const char *)base + field->at;
    switch (field->kind) {
    case TEXT:
        return text_of((struct str){at, strnlen(at, field->size)});
    case BORROWED:
        return text_of(*(const struct str *)at);
    case COUNT:
    case MONEY:
        return json_integer(*(const int64_t *)at);
    case NUMBER:
        return json_integer(*(const uint32_t *)at);
    case WIDE:
        return json_integer((json_int_t)(*(const uint64_t *)at & INT64_MAX));
    case FLAG:
        return json_boolean(*(const bool *)at);
    case WHETHER:
        return json_integer(*(const int *)at);
    }
    return NULL;
}

static bool is_default(const struct field *field, const void *base)
{
    const void *at = (const char *)base + field->at;
    switch (field->kind) {
    case TEXT:
        return *(const char *)at == '\0';
    case BORROWED:
        return !((const struct str *)at)->ptr;
    case COUNT:
    case MONEY:
        return *(const int64_t *)at == 0;
    case NUMBER:
        return *(const uint32_t *)at == 0;
    case WIDE:
        return *(const uint64_t *)at == 0;
    case FLAG:
        return !*(const bool *)at;
    case WHETHER:
        return *(const int *)at == 0;
    }
    return false;
}

static json_t *fields_write(const void *base, const struct field *fields, size_t count)
{
    json_t *to = json_object();
    for (size_t i = 0; i < count && to; i++) {
        if (!is_default(&fields[i], base) && json_object_set_new(to, fields[i].name, value_of(&fields[i], base)) != 0) {
            json_decref(to);
            to = NULL;
        }
    }
    return to;
}

/* Values may be secrets: of a lease that is over they are of no more use, and not kept. */
static json_t *pairs_write(const struct lease_request *request, bool is_over)
{
    json_t *env = json_array();
    for (size_t i = 0; env && i < request->env_count; i++) {
        json_t *pair = json_array();
        json_array_append_new(pair, text_of(request->env[i].key));
        json_array_append_new(pair, is_over ? json_string("") : text_of(request->env[i].value));
        json_array_append_new(env, pair);
    }
    return env;
}

static json_t *texts_write(const struct str *texts, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        json_array_append_new(list, text_of(texts[i]));
    return list;
}

static json_t *ports_write(const struct lease_request *request)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < request->port_count; i++)
        json_array_append_new(list, json_integer(request->ports[i]));
    return list;
}

static json_t *endpoints_write(const struct lease *lease)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < lease->endpoint_count; i++) {
        json_t *endpoint = json_pack("{s:i}", "port", (int)lease->endpoints[i].port);
        put_text(endpoint, "url", str_of(lease->endpoints[i].url));
        json_array_append_new(list, endpoint);
    }
    return list;
}

static json_t *request_write(const struct lease *lease)
{
    const struct lease_request *request = &lease->request;
    json_t *json = fields_write(request, FIELDS(request_fields));
    int failed = json_object_set_new(json, "argv", texts_write(request->argv, request->argc));
    failed |= json_object_set_new(json, "env", pairs_write(request, lease_is_over(lease)));
    failed |= json_object_set_new(json, "ports", ports_write(request));
    if (failed) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static json_t *attempt_write(const struct lease_attempt *attempt)
{
    json_t *json = fields_write(attempt, FIELDS(attempt_fields));
    int failed = json_object_set_new(json, "state", json_string(attempt_state_name(attempt->state)));
    failed |= json_object_set_new(json, "error", json_string(supply_error_name(attempt->error)));
    failed |= json_object_set_new(json, "door", json_integer(attempt->door));
    failed |= json_object_set_new(json, "of", fields_write(&attempt->of, FIELDS(candidate_fields)));
    if (failed) {
        json_decref(json);
        return NULL;
    }
    return json;
}

bool lease_record_write(const struct lease *lease, struct buf *to)
{
    json_t *json = fields_write(lease, FIELDS(lease_fields)), *attempts = json_array();
    int failed = !attempts;
    for (size_t i = 0; i < lease->attempt_count; i++)
        failed |= json_array_append_new(attempts, attempt_write(&lease->attempts[i]));
    failed |= json_object_set_new(json, "state", json_string(lease_state_name(lease->state)));
    failed |= json_object_set_new(json, "request", request_write(lease));
    failed |= json_object_set_new(json, "endpoints", endpoints_write(lease));
    failed |= json_object_set_new(json, "attempts", attempts);
    size_t size = failed ? 0 : json_dumpb(json, NULL, 0, JSON_COMPACT);
    bool fits = size > 0 && size <= LEASE_RECORD_MAX && buf_reserve(to, size);
    if (fits)
        to->len += json_dumpb(json, to->ptr + to->len, size, JSON_COMPACT);
    json_decref(json);
    return fits;
}

/* -- reading -- */

static bool take_integer(const json_t *value, int64_t least, int64_t most, int64_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most)
        return false;
    *ret = json_integer_value(value);
    return true;
}

static struct str text_in(const json_t *value)
{
    return json_is_string(value) ? (struct str){json_string_value(value), json_string_length(value)}
                                 : (struct str){NULL, 0};
}

/* One member; texts of BORROWED stay the JSON's. */
static bool take_field(const struct field *field, const json_t *value, void *base)
{
    void *at = (char *)base + field->at;
    int64_t number = 0;
    switch (field->kind) {
    case TEXT:
        return json_is_string(value) && str_copy(at, field->size, text_in(value));
    case BORROWED:
        *(struct str *)at = text_in(value);
        return json_is_string(value);
    case COUNT:
        return take_integer(value, 0, COUNT_MAX, at);
    case MONEY:
        return take_integer(value, -1, INT64_MAX, at);
    case NUMBER:
        if (!take_integer(value, 0, UINT32_MAX, &number))
            return false;
        *(uint32_t *)at = (uint32_t)number;
        return true;
    case WIDE:
        if (!take_integer(value, 0, INT64_MAX, &number))
            return false;
        *(uint64_t *)at = (uint64_t)number;
        return true;
    case FLAG:
        *(bool *)at = json_is_true(value);
        return json_is_boolean(value);
    case WHETHER:
        if (!take_integer(value, 0, 1, &number))
            return false;
        *(int *)at = (int)number;
        return true;
    }
    return false;
}

static bool fields_read(const json_t *json, const struct field *fields, size_t count, void *base)
{
    bool is_good = json_is_object(json);
    for (size_t i = 0; i < count && is_good; i++) {
        const json_t *value = json_object_get(json, fields[i].name);
        is_good = !value || take_field(&fields[i], value, base);
    }
    return is_good;
}

static bool ports_read(const json_t *list, struct lease_request *request)
{
    if (json_array_size(list) > SUPPLY_PORTS_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t port = 0;
        if (!take_integer(json_array_get(list, i), 1, UINT16_MAX, &port))
            return false;
        request->ports[request->port_count++] = (uint16_t)port;
    }
    return true;
}

static bool request_read(const json_t *json, struct lease *lease)
{
    struct lease_request request = {.price_max_usd_nano = 0};
    const json_t *argv = json_object_get(json, "argv"), *env = json_object_get(json, "env");
    if (!fields_read(json, FIELDS(request_fields), &request) || json_array_size(argv) > LEASE_ARGS_MAX ||
        json_array_size(env) > LEASE_ENV_MAX || !ports_read(json_object_get(json, "ports"), &request))
        return false;
    for (size_t i = 0; i < json_array_size(argv); i++) {
        struct str text = text_in(json_array_get(argv, i));
        if (!text.ptr)
            return false;
        request.argv[request.argc++] = text;
    }
    for (size_t i = 0; i < json_array_size(env); i++) {
        const json_t *pair = json_array_get(env, i);
        struct supply_pair *to = &request.env[request.env_count++];
        to->key = text_in(json_array_get(pair, 0));
        to->value = text_in(json_array_get(pair, 1));
        if (!to->key.ptr || !to->value.ptr)
            return false;
    }
    return lease_request_copy(lease, &request);
}

static bool attempt_state_of(struct str name, enum attempt_state *ret)
{
    for (unsigned i = 0; i <= ATTEMPT_CLOSED; i++) {
        if (str_eq(name, str_of(attempt_state_name((enum attempt_state)i)))) {
            *ret = (enum attempt_state)i;
            return true;
        }
    }
    return false;
}

static bool attempt_read(const json_t *json, struct lease_attempt *attempt)
{
    int64_t door = 0;
    const json_t *seen = json_object_get(json, "door");
    if (!fields_read(json, FIELDS(attempt_fields), attempt) ||
        !fields_read(json_object_get(json, "of"), FIELDS(candidate_fields), &attempt->of) ||
        !attempt_state_of(text_in(json_object_get(json, "state")), &attempt->state) ||
        !supply_error_of(text_in(json_object_get(json, "error")), &attempt->error) ||
        (seen && !take_integer(seen, LEASE_DOOR_NONE, LEASE_DOOR_EXITED, &door)))
        return false;
    attempt->door = (enum lease_door)door;
    return true;
}

static bool lists_read(const json_t *json, struct lease *lease)
{
    const json_t *attempts = json_object_get(json, "attempts"), *endpoints = json_object_get(json, "endpoints");
    if (json_array_size(attempts) > LEASE_ATTEMPTS_MAX || json_array_size(endpoints) > SUPPLY_PORTS_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        if (!attempt_read(json_array_get(attempts, i), &lease->attempts[lease->attempt_count++]))
            return false;
    }
    for (size_t i = 0; i < json_array_size(endpoints); i++) {
        const json_t *from = json_array_get(endpoints, i);
        struct lease_endpoint *to = &lease->endpoints[lease->endpoint_count++];
        int64_t port = 0;
        if (!take_integer(json_object_get(from, "port"), 0, UINT16_MAX, &port) ||
            !str_copy(to->url, sizeof(to->url), text_in(json_object_get(from, "url"))))
            return false;
        to->port = (uint16_t)port;
    }
    return true;
}

/* What the machine counts on: from reserved to active there is a current attempt, and it is where the lease is. */
static bool is_whole(const struct lease *lease)
{
    static const struct {
        enum attempt_state least, most;
    } current[LEASE_STATE_COUNT] = {[LEASE_RESERVED] = {ATTEMPT_CHOSEN, ATTEMPT_CHOSEN},
                                    [LEASE_PROVISIONING] = {ATTEMPT_CREATING, ATTEMPT_BOOTING},
                                    [LEASE_PROBING] = {ATTEMPT_UP, ATTEMPT_UP},
                                    [LEASE_ACTIVE] = {ATTEMPT_UP, ATTEMPT_UP}};
    struct id id;
    size_t count = lease->attempt_count;
    if (!id_parse(LEASE_ID_PREFIX, str_of(lease->id), &id) || (lease->state == LEASE_ACTIVE && lease->since_ms == 0))
        return false;
    bool has_current = lease->state > LEASE_REQUESTED && lease->state <= LEASE_ACTIVE;
    for (size_t i = 0; i < count; i++) {
        enum attempt_state state = lease->attempts[i].state;
        if (i + 1 == count && has_current ? state < current[lease->state].least || state > current[lease->state].most
                                          : state <= ATTEMPT_UP)
            return false;
    }
    return count > 0 || !has_current;
}

enum error lease_record_read(struct str text, struct lease **ret)
{
    enum error error = ERR_BAD_INPUT;
    struct lease *lease = lease_new();
    json_t *json = text.len <= LEASE_RECORD_MAX ? json_loadb(text.ptr, text.len, 0, NULL) : NULL;
    if (!lease)
        error = ERR_NO_MEMORY;
    else if (fields_read(json, FIELDS(lease_fields), lease) && lists_read(json, lease) &&
             lease_state_of(text_in(json_object_get(json, "state")), &lease->state) &&
             request_read(json_object_get(json, "request"), lease) && is_whole(lease))
        error = ERR_NONE;
    json_decref(json);
    if (error)
        lease_free(lease);
    else
        *ret = lease;
    return error;
}
