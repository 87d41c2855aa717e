#include "gateway/routes_worker.h"

#include "core/clock.h"
#include "core/log.h"
#include "gateway/control.h"
#include "gateway/enrolment.h"
#include "gateway/gateways.h"
#include "gateway/routes.h"
#include "gateway/worker_declare.h"

#include <stdlib.h>
#include <string.h>

#define WORKER_ID_PREFIX "wrk_"
#define WORKER_SECRET_PREFIX "sls-"
#define EXPIRY_MAX_MS INT64_C(253402300800000) /* the year 10000 */
#define REDECLARE_TRIES 4

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

/* -- the list of workers ----------------------------------------------------------------------------------------- */

static void on_workers(void *ctx, json_t *take_list)
{
    if (take_list)
        reply_page(ctx, take_list);
    else
        fail(ctx, ERR_NO_MEMORY);
}

void routes_worker_list(struct api_call *call)
{
    static const char *const known[] = {"limit", "cursor", "supplier", NULL};
    if (api_query_check(call, known))
        control_workers_json(call->reactor->gateway->control, call->reactor, api_query(call, "supplier"), on_workers,
                             call);
}

/* -- enrolments -------------------------------------------------------------------------------------------------- */

static void on_enrolment_put(void *ctx, enum error code)
{
    struct post *post = ctx;
    struct api_error error;
    if (code && code != ERR_EXISTS) {
        api_error_from(&error, code);
        post_fail(post, &error);
        return;
    }
    json_t *answer = json_incref(post->object);
    /* There already: an earlier answer to the same request was lost, and with it its token. */
    post_answer(post, 200, answer, code == ERR_EXISTS ? NULL : "token");
}

static void enrolment_make(struct post *post)
{
    const char *supplier = json_string_value(json_object_get(post->object, "supplier"));
    struct enrolment enrolment = {.created_at_ms = clock_wall_ms(),
                                  .expires_at_ms = json_integer_value(json_object_get(post->object, "expires_at"))};
    id_text(ENROLMENT_ID_PREFIX, &post->seed, enrolment.id);
    crypto_secret(ENROLMENT_TOKEN_PREFIX, post->secret);
    bool is_good = supplier && str_copy(enrolment.supplier, sizeof(enrolment.supplier), str_of(supplier)) &&
                   json_object_set_new(post->object, "id", json_string(enrolment.id)) == 0;
    enum error code =
        is_good ? enrolment_put(post->call->reactor->redis, &enrolment, str_of(post->secret), on_enrolment_put, post)
                : ERR_NO_MEMORY;
    if (code) {
        struct api_error error;
        api_error_from(&error, code);
        post_fail(post, &error);
    }
}

void routes_enrolment_create(struct api_call *call)
{
    static const char *const known[] = {"supplier", "expires_at", NULL};
    struct api_error error;
    struct str supplier;
    int64_t expires_at = 0;
    json_t *object = NULL, *body = api_body(call);
    if (!body)
        return;
    bool is_good = body_check(body, known, &error) &&
                   body_text(body, "supplier", ENROLMENT_SUPPLIER_MAX, true, &supplier, &error) &&
                   body_int(body, "expires_at", 1, EXPIRY_MAX_MS, &expires_at, &error);
    if (is_good && supplier.len >= ENROLMENT_SUPPLIER_MAX) {
        api_error_bad_request(&error, "supplier", "supplier must have at most %d bytes.", ENROLMENT_SUPPLIER_MAX - 1);
        is_good = false;
    }
    if (is_good)
        object = json_pack("{s:n, s:s%, s:o}", "id", "supplier", supplier.ptr, supplier.len, "expires_at",
                           expires_at ? json_integer(expires_at) : json_null());
    if (!is_good)
        api_reply_error(call, &error);
    json_decref(body);
    if (is_good && object)
        post_begin(call, IDEMPOTENCY_DAY_MS, object, 0, enrolment_make);
    else if (is_good)
        fail(call, ERR_NO_MEMORY);
}

static void on_enrolments(void *ctx, enum error code, json_t *take_array)
{
    if (code)
        fail(ctx, code);
    else
        reply_page(ctx, take_array);
}

void routes_enrolment_list(struct api_call *call)
{
    static const char *const known[] = {"limit", "cursor", NULL};
    if (!api_query_check(call, known))
        return;
    enum error code = enrolment_list(call->reactor->redis, on_enrolments, call);
    if (code)
        fail(call, code);
}

static void on_enrolment_deleted(void *ctx, enum error code)
{
    struct api_call *call = ctx;
    struct api_error error;
    if (code == ERR_NOT_FOUND) {
        api_error_not_found(&error, "enrolment");
        api_reply_error(call, &error);
    } else if (code) {
        fail(call, code);
    } else {
        api_reply_empty(call, 204);
    }
}

void routes_enrolment_delete(struct api_call *call)
{
    enum error code = enrolment_delete(call->reactor->redis, call->params[0], on_enrolment_deleted, call);
    if (code)
        fail(call, code);
}

/* -- registration ------------------------------------------------------------------------------------------------ */

struct registration {
    struct api_call *call;
    struct redis *redis;
    struct worker_record record;
    char secret[SECRET_TEXT_MAX]; /* presented, or the new worker's */
    char token[SECRET_TEXT_MAX];  /* of a lease; "" */
    bool is_new, is_known;        /* is_known: its record was read */
    bool is_described;            /* else error says what is wrong with the description; told only to who is known */
    struct api_error error;
    unsigned tries;
    json_t *gateways;
};

static void registration_free(struct registration *registration)
{
    crypto_wipe(registration->secret, sizeof(registration->secret));
    crypto_wipe(registration->token, sizeof(registration->token));
    json_decref(registration->gateways);
    free(registration);
}

static void registration_fail(struct registration *registration, enum error code)
{
    struct api_call *call = registration->call;
    registration_free(registration);
    fail(call, code);
}

/* Says no more than that: which part was wrong is nobody's business. */
static void deny(struct api_call *call, const char *param)
{
    struct api_error error;
    api_error_set(&error, 401, "invalid_request_error", "invalid_api_key", param,
                  "The enrolment token, or this worker's id and secret, is not known, has expired or was revoked.");
    api_reply_error(call, &error);
}

static void registration_deny(struct registration *registration)
{
    struct api_call *call = registration->call;
    const char *param = registration->is_new ? "token" : "secret";
    registration_free(registration);
    deny(call, param);
}

static void registration_refuse(struct registration *registration)
{
    struct api_call *call = registration->call;
    struct api_error error = registration->error;
    registration_free(registration);
    api_reply_error(call, &error);
}

static void on_learned(void *ctx)
{
    struct registration *registration = ctx;
    const struct worker_record *record = &registration->record;
    json_t *answer = json_pack("{s:s, s:O}", "worker_id", record->id, "gateways", registration->gateways);
    if (answer && registration->is_new)
        json_object_set_new(answer, "secret", json_string(registration->secret));
    struct log_ctx log = {.worker = record->id};
    if (registration->is_new)
        log_info(&log, "enrolled: %s of %s, %s", record->name, record->supplier, record->gpu);
    else
        log_debug(&log, "registered again: %s", record->name);
    struct api_call *call = registration->call;
    registration_free(registration);
    api_reply_json(call, 200, answer);
}

static void registration_learn(struct registration *registration)
{
    struct reactor *reactor = registration->call->reactor;
    control_worker_registered(reactor->gateway->control, reactor, registration->record.id, on_learned, registration);
}

static void on_taken_back(void *ctx, enum error code)
{
    if (code)
        registration_fail(ctx, code);
    else
        registration_deny(ctx);
}

/* The attempt may have been closed (door.c), and its worker removed, before we stored it: then the token is gone. */
static void on_still_there(void *ctx, enum error code, const struct enrolment *enrolment)
{
    struct registration *registration = ctx;
    (void)enrolment;
    if (code == ERR_NOT_FOUND)
        code = worker_store_remove(registration->redis, str_of(registration->record.id), on_taken_back, registration);
    else if (!code)
        registration_learn(registration);
    if (code)
        registration_fail(registration, code);
}

static void on_stored(void *ctx, enum error code)
{
    struct registration *registration = ctx;
    if (code == ERR_NOT_FOUND)
        registration_deny(registration);
    else if (!code && registration->token[0])
        code = enrolment_find(registration->redis, str_of(registration->token), on_still_there, registration);
    else if (!code)
        registration_learn(registration);
    if (code && code != ERR_NOT_FOUND)
        registration_fail(registration, code);
}

static void on_gateways(void *ctx, enum error code, struct str json)
{
    struct registration *registration = ctx;
    if (!code)
        registration->gateways = json_loadb(json.ptr, json.len, 0, NULL);
    /* An empty list: this gateway has only started and is not on it yet; the agent comes again. */
    if (!code && json_array_size(registration->gateways) == 0)
        code = ERR_UNREACHABLE;
    if (!code)
        code = registration->is_known
                   ? worker_store_redeclare(registration->redis, &registration->record, on_stored, registration)
                   : worker_store_put(registration->redis, &registration->record, on_stored, registration);
    if (code)
        registration_fail(registration, code);
}

static void registration_go_on(struct registration *registration)
{
    enum error code = gateways_read(registration->redis, on_gateways, registration);
    if (code)
        registration_fail(registration, code);
}

/* -- by token -- */

static void identity_check(struct registration *registration);

static void registration_enrol(struct registration *registration)
{
    struct worker_record *record = &registration->record;
    crypto_sha256_hex(str_of(registration->secret), record->secret_sha256);
    record->enrolled_at_ms = record->reputation.at_ms = clock_wall_ms();
    registration_go_on(registration);
}

static void on_token(void *ctx, enum error code, const struct enrolment *enrolment)
{
    struct registration *registration = ctx;
    struct worker_record *record = &registration->record;
    if (code == ERR_NOT_FOUND) {
        registration_deny(registration);
        return;
    }
    if (code) {
        registration_fail(registration, code);
        return;
    }
    if (!registration->is_described) {
        registration_refuse(registration);
        return;
    }
    (void)str_copy(record->supplier, sizeof(record->supplier), str_of(enrolment->supplier));
    (void)str_copy(record->lease, sizeof(record->lease), str_of(enrolment->lease));
    if (enrolment->lease[0]) {
        /* One worker an attempt, whose id and secret follow from it: coming again is nobody new. */
        enrolment_lease_worker(str_of(enrolment->lease), record->id);
        record->price_usd_nano = 0;
        identity_check(registration);
        return;
    }
    id_new(WORKER_ID_PREFIX, record->id);
    crypto_secret(WORKER_SECRET_PREFIX, registration->secret);
    registration_enrol(registration);
}

/* -- by identity -- */

static void on_redeclared(void *ctx, enum error code)
{
    struct registration *registration = ctx;
    if (code == ERR_MISMATCH && registration->tries < REDECLARE_TRIES)
        identity_check(registration); /* a probe ended meanwhile */
    else if (code)
        registration_fail(registration, code);
    else
        registration_go_on(registration);
}

static void on_known(void *ctx, enum error code, const struct worker_record *stored)
{
    struct registration *registration = ctx;
    struct worker_record *record = &registration->record;
    char digest[SHA256_HEX];
    struct admission admission;
    if (code && code != ERR_NOT_FOUND) {
        registration_fail(registration, code);
        return;
    }
    if (code == ERR_NOT_FOUND && registration->is_new) { /* the first time that a lease's token is used */
        registration_enrol(registration);
        return;
    }
    crypto_sha256_hex(str_of(registration->secret), digest);
    if (code == ERR_NOT_FOUND || !crypto_equal(digest, stored->secret_sha256, SHA256_HEX - 1)) {
        registration_deny(registration);
        return;
    }
    if (!registration->is_described) {
        registration_refuse(registration);
        return;
    }
    registration->is_known = true;
    memcpy(record->secret_sha256, stored->secret_sha256, sizeof(record->secret_sha256));
    memcpy(record->supplier, stored->supplier, sizeof(record->supplier));
    record->enrolled_at_ms = stored->enrolled_at_ms;
    memcpy(record->lease, stored->lease, sizeof(record->lease));
    if (record->lease[0])
        record->price_usd_nano = 0;
    record->reputation = stored->reputation;
    record->admission = stored->admission;
    if (!worker_redeclared(stored, record, &admission)) {
        registration_go_on(registration);
        return;
    }
    /* Before the new description: after a crash in between the next registration still finds a difference. */
    code = worker_store_admit(registration->redis, str_of(record->id), stored->admission.token, &admission,
                              on_redeclared, registration);
    if (code)
        registration_fail(registration, code);
}

static void identity_check(struct registration *registration)
{
    registration->tries++;
    enum error code = worker_store_get(registration->redis, str_of(registration->record.id), on_known, registration);
    if (code)
        registration_fail(registration, code);
}

/* -- the request -- */

static struct str text_field(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return (struct str){json_string_value(value), json_string_length(value)};
}

static enum error registration_start(struct registration *registration, const json_t *body)
{
    struct str token = text_field(body, "token"), id = text_field(body, "worker_id");
    struct str secret = text_field(body, "secret");
    struct id parsed;
    if (registration->is_new && !enrolment_token_is_formed(token))
        return ERR_DENIED;
    if (registration->is_new) {
        if (str_starts(token, STR(ENROLMENT_LEASE_PREFIX))) {
            enrolment_lease_secret(token, registration->secret);
            (void)str_copy(registration->token, sizeof(registration->token), token);
        }
        return enrolment_find(registration->redis, token, on_token, registration);
    }
    if (!id_parse(WORKER_ID_PREFIX, id, &parsed) ||
        !str_copy(registration->record.id, sizeof(registration->record.id), id) || secret.len == 0 ||
        !str_copy(registration->secret, sizeof(registration->secret), secret))
        return ERR_DENIED;
    identity_check(registration);
    return ERR_NONE;
}

void routes_worker_register(struct api_call *call)
{
    json_t *body = api_body(call);
    if (!body)
        return;
    struct registration *registration = calloc(1, sizeof(*registration));
    if (!registration) {
        json_decref(body);
        fail(call, ERR_NO_MEMORY);
        return;
    }
    registration->call = call;
    registration->redis = call->reactor->redis;
    registration->is_new = json_object_get(body, "token") != NULL;
    registration->is_described = worker_declare(body, &registration->record, &registration->error);
    enum error code = registration_start(registration, body);
    json_decref(body);
    if (code == ERR_DENIED)
        registration_deny(registration);
    else if (code)
        registration_fail(registration, code);
}
