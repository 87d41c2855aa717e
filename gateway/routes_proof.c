/* What workers proved, asking for a proof now, and the operator's hand on bans. */
#include "gateway/routes_proof.h"

#include "core/clock.h"
#include "core/redis.h"
#include "gateway/control.h"
#include "gateway/routes.h"
#include "scheduler/identity_store.h"
#include "scheduler/proof_store.h"
#include "scheduler/worker_store.h"

#include <stdlib.h>
#include <string.h>

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

static void not_found(struct api_call *call, const char *what)
{
    struct api_error error;
    api_error_set(&error, 404, "invalid_request_error", "not_found", "id", "No such %s.", what);
    api_reply_error(call, &error);
}

/* -- receipts ---------------------------------------------------------------------------------------------------- */

static void on_proofs(void *ctx, enum error code, const struct proof_entry *entries, size_t count, uint64_t next)
{
    struct api_call *call = ctx;
    char cursor[STR_U64_MAX + 1];
    json_t *data = json_array();
    if (code) {
        json_decref(data);
        fail(call, code);
        return;
    }
    for (size_t i = 0; data && i < count; i++) {
        json_t *receipt = json_loadb(entries[i].receipt.ptr, entries[i].receipt.len, 0, NULL);
        if (receipt)
            json_array_append_new(data, receipt);
    }
    cursor[str_put_u64(cursor, next)] = '\0';
    json_t *follows = next ? json_string(cursor) : json_null();
    api_reply_json(call, 200, json_pack("{s:s, s:o, s:o}", "object", "list", "data", data, "next", follows));
}

static bool take_cursor(struct api_call *call, uint64_t *ret)
{
    struct str text = api_query(call, "cursor");
    int64_t number = 0;
    if (text.ptr && (!str_to_i64(text, &number) || number < 1)) {
        struct api_error error;
        api_error_bad_request(&error, "cursor", "cursor must be the \"next\" of the answer before.");
        api_reply_error(call, &error);
        return false;
    }
    *ret = (uint64_t)number;
    return true;
}

void route_proofs(struct api_call *call)
{
    static const char *const known[] = {"limit", "cursor", NULL};
    struct api_error error;
    struct id id;
    uint64_t cursor;
    int64_t limit = PROOF_LIST_MAX;
    if (!api_query_check(call, known))
        return;
    if (!query_int(call, "limit", 1, PROOF_LIST_MAX, &limit, &error)) {
        api_reply_error(call, &error);
        return;
    }
    if (!take_cursor(call, &cursor))
        return;
    if (!id_parse("wrk_", call->params[0], &id)) {
        not_found(call, "worker");
        return;
    }
    enum error code = proof_store_list(call->reactor->redis, call->params[0], cursor, (size_t)limit, on_proofs, call);
    if (code)
        fail(call, code);
}

/* -- a proof now ------------------------------------------------------------------------------------------------- */

static void on_prove(void *ctx, enum error code, const char *state)
{
    struct api_call *call = ctx;
    struct api_error error;
    if (code == ERR_NOT_FOUND) {
        not_found(call, "worker");
    } else if (code == ERR_BUSY) {
        api_error_set(&error, 409, "invalid_request_error", "not_now", "id",
                      "The worker cannot be asked for a proof now: it is %s.", state);
        api_reply_error(call, &error);
    } else if (code) {
        fail(call, code);
    } else {
        api_reply_json(call, 202,
                       json_pack("{s:s#, s:s}", "id", call->params[0].ptr, (int)call->params[0].len, "state", state));
    }
}

void route_prove(struct api_call *call)
{
    static const char *const known[] = {NULL};
    if (api_query_check(call, known))
        control_prove(call->reactor->gateway->control, call->reactor, call->params[0], on_prove, call);
}

/* -- bans -------------------------------------------------------------------------------------------------------- */

static const char *kind_name(enum identity_kind kind)
{
    return kind == IDENTITY_UUID ? "gpu" : kind == IDENTITY_KEY ? "key" : "host";
}

static void on_bans(void *ctx, enum error code, const struct identity_ban *bans, size_t count)
{
    struct api_call *call = ctx;
    json_t *rows = json_array();
    if (code) {
        json_decref(rows);
        fail(call, code);
        return;
    }
    for (size_t i = 0; rows && i < count; i++)
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i}", "id", bans[i].digest, "kind",
                                              kind_name(bans[i].kind), "worker", bans[i].worker, "reason",
                                              bans[i].reason, "at", (json_int_t)bans[i].at_ms, "until_at",
                                              (json_int_t)bans[i].until_ms, "bans", (int)bans[i].bans));
    api_reply_json(call, 200, json_pack("{s:s, s:o, s:n}", "object", "list", "data", rows, "next"));
}

void route_bans(struct api_call *call)
{
    static const char *const known[] = {NULL};
    if (!api_query_check(call, known))
        return;
    enum error code = identity_store_bans(call->reactor->redis, on_bans, call);
    if (code)
        fail(call, code);
}

/* A pardon: the identities are forgotten, and the worker that they were banned with starts anew. */
struct pardon {
    struct api_call *call;
    char worker[ID_TEXT_MAX]; /* "": none */
    struct identity identities[IDENTITIES_MAX];
    size_t count;
    bool is_found;
};

static void pardon_end(struct pardon *pardon, enum error code)
{
    struct api_call *call = pardon->call;
    bool is_found = pardon->is_found;
    free(pardon);
    if (code && code != ERR_NOT_FOUND)
        fail(call, code);
    else if (!is_found)
        not_found(call, "ban");
    else
        api_reply_empty(call, 204);
}

static void on_admitted_anew(void *ctx, enum error code)
{
    pardon_end(ctx, code);
}

static void on_worker(void *ctx, enum error code, const struct worker_record *record)
{
    struct pardon *pardon = ctx;
    if (code || record->admission.state != ADMISSION_SUSPENDED) {
        pardon_end(pardon, code);
        return;
    }
    const struct admission anew = {.token = record->admission.token + 1};
    pardon->is_found = true;
    code = worker_store_admit(pardon->call->reactor->redis, str_of(record->id), record->admission.token, &anew,
                              on_admitted_anew, pardon);
    if (code)
        pardon_end(pardon, code);
}

static void pardon_worker(struct pardon *pardon)
{
    enum error code = ERR_NOT_FOUND;
    if (pardon->worker[0])
        code = worker_store_get(pardon->call->reactor->redis, str_of(pardon->worker), on_worker, pardon);
    if (code)
        pardon_end(pardon, code);
}

static void on_lifted(void *ctx, enum error code, unsigned found)
{
    struct pardon *pardon = ctx;
    pardon->is_found |= found > 0;
    if (code)
        pardon_end(pardon, code);
    else
        pardon_worker(pardon);
}

static void on_bans_to_lift(void *ctx, enum error code, const struct identity_ban *bans, size_t count)
{
    struct pardon *pardon = ctx;
    struct str id = pardon->call->params[0];
    if (code) {
        pardon_end(pardon, code);
        return;
    }
    for (size_t i = 0; i < count && pardon->count < IDENTITIES_MAX; i++) {
        bool is_this = str_eq(id, str_of(bans[i].digest)), is_workers = str_eq(id, str_of(bans[i].worker));
        if (!is_this && !is_workers)
            continue;
        struct identity *identity = &pardon->identities[pardon->count++];
        identity->kind = bans[i].kind;
        memcpy(identity->digest, bans[i].digest, sizeof(identity->digest));
        memcpy(pardon->worker, bans[i].worker, sizeof(pardon->worker));
    }
    if (pardon->count == 0) {
        pardon_worker(pardon);
        return;
    }
    code = identity_store_lift(pardon->call->reactor->redis, pardon->identities, pardon->count, on_lifted, pardon);
    if (code)
        pardon_end(pardon, code);
}

void route_ban_delete(struct api_call *call)
{
    static const char *const known[] = {NULL};
    struct id id;
    if (!api_query_check(call, known))
        return;
    struct pardon *pardon = calloc(1, sizeof(*pardon));
    if (!pardon) {
        fail(call, ERR_NO_MEMORY);
        return;
    }
    pardon->call = call;
    if (id_parse("wrk_", call->params[0], &id))
        (void)str_copy(pardon->worker, sizeof(pardon->worker), call->params[0]);
    enum error code = identity_store_bans(call->reactor->redis, on_bans_to_lift, pardon);
    if (code)
        pardon_end(pardon, code);
}
