#include "probes/receipt.h"

#include "core/crypto.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One writer and one form: a text is a receipt only if it is what this dump gives of it. */
#define DUMP_FLAGS (JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(6))
#define RECEIPT_VERSION 1
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const purposes[] = {"admission", "spot", "lease"};
static const char *const results[] = {"open", "passed", "slow", "wrong", "late", "lost"};

/* -- writing ----------------------------------------------------------------------------------------------------- */

/* Builds an object; one failure fails all of it. */
struct object {
    json_t *root;
    bool is_good;
};

static void put(struct object *object, const char *name, json_t *value)
{
    object->is_good = value && json_object_set_new(object->root, name, value) == 0 && object->is_good;
}

static void put_real(struct object *object, const char *name, double value)
{
    put(object, name, json_real(isfinite(value) ? value : 0));
}

/* Workers' own texts too: what is not printable ASCII becomes '?', so that a receipt is one line that any terminal may
 * show. */
static void put_text(struct object *object, const char *name, struct str text)
{
    char safe[128];
    size_t len = text.len < sizeof(safe) ? text.len : sizeof(safe);
    for (size_t i = 0; i < len; i++)
        safe[i] = (char)(text.ptr[i] >= 0x20 && text.ptr[i] < 0x7f ? text.ptr[i] : '?');
    put(object, name, json_stringn(safe, len));
}

/* "" for zeros: there is none. */
static void put_hex(struct object *object, const char *name, const uint8_t *bytes, size_t len)
{
    char hex[2 * 64 + 1] = "";
    bool is_set = false;
    for (size_t i = 0; i < len; i++)
        is_set |= bytes[i] != 0;
    if (is_set)
        crypto_hex(bytes, len, hex);
    put(object, name, json_string(hex));
}

static void put_digest(struct object *object, const char *name, const uint8_t *bytes, size_t len)
{
    static const uint8_t zeros[32];
    uint8_t digest[SHA256_BYTES] = {0};
    if (memcmp(bytes, zeros, len) != 0)
        crypto_sha256((struct str){(const char *)bytes, len}, digest);
    put_hex(object, name, digest, sizeof(digest));
}

static json_t *steps_json(const struct verify_report *report)
{
    json_t *steps = json_array();
    for (unsigned i = 0; steps && i < report->step_count && i < VERIFY_STEPS_MAX; i++) {
        const struct verify_step_report *step = &report->steps[i];
        struct object object = {.root = json_object(), .is_good = true};
        put_text(&object, "kind", str_of(step->kind));
        put(&object, "passed", json_boolean(step->is_passed));
        put(&object, "took_us", json_integer(step->took_ns > 0 ? step->took_ns / 1000 : 0));
        put_real(&object, "rate", step->rate);
        put_text(&object, "unit", str_of(step->unit ? step->unit : ""));
        put_hex(&object, "id", step->id, sizeof(step->id));
        put_hex(&object, "seed", step->seed, sizeof(step->seed));
        put_hex(&object, "root", step->root, sizeof(step->root));
        if (!object.is_good || json_array_append(steps, object.root) != 0) {
            json_decref(steps);
            steps = NULL;
        }
        json_decref(object.root);
    }
    return steps;
}

static json_t *proven_json(const struct proven *proven)
{
    struct object object = {.root = json_object(), .is_good = true};
    put_real(&object, "vram_gib", proven->vram_gib);
    put_real(&object, "fill_gbps", proven->fill_gbps);
    put_real(&object, "pass_gbps", proven->pass_gbps);
    put_real(&object, "walk_gbps", proven->walk_gbps);
    put_real(&object, "chain_tops", proven->chain_tops);
    if (!object.is_good) {
        json_decref(object.root);
        return NULL;
    }
    return object.root;
}

static void put_report(struct object *object, const struct verify_report *report)
{
    put_hex(object, "worker_key", report->worker_key, sizeof(report->worker_key));
    put_hex(object, "exchange_key", report->exchange_key, sizeof(report->exchange_key));
    put_digest(object, "host_sha256", report->host_id, sizeof(report->host_id));
    put_digest(object, "uuid_sha256", report->claim.uuid, sizeof(report->claim.uuid));
    put_text(object, "driver", str_of(report->claim.driver));
    put_text(object, "claimed", str_of(report->claimed ? report->claimed->name : report->claim.name));
    put_text(object, "class", str_of(report->proven_class ? report->proven_class->name : ""));
    put(object, "result", json_string(results[report->result]));
    put_text(object, "reason", str_of(report->reason));
    put(object, "proven", proven_json(&report->proven));
    put_real(object, "ratio", report->ratio);
    put_real(object, "performance", report->performance);
    put(object, "rtt_us", json_integer(report->rtt_ns > 0 ? report->rtt_ns / 1000 : 0));
    put(object, "steps", steps_json(report));
}

/* What is signed: the object without "signature". Six digits survive a double, so reading it gives the same text again.
 */
static bool dump_append(const json_t *root, struct buf *to)
{
    char *text = json_dumps(root, DUMP_FLAGS);
    bool is_good = text && buf_append_str(to, str_of(text));
    free(text);
    return is_good;
}

enum error receipt_make(const struct receipt_facts *facts, const struct verify_report *report,
                        const struct signing_key *key, struct buf *to)
{
    uint8_t public_key[ED25519_BYTES], signature[ED25519_SIGNATURE];
    struct object object = {.root = json_object(), .is_good = true};
    struct buf text;
    enum error error = ERR_NO_MEMORY;
    buf_init(&text, RECEIPT_MAX);
    signing_key_public(key, public_key);
    put(&object, "version", json_integer(RECEIPT_VERSION));
    put_text(&object, "worker", facts->worker);
    put_text(&object, "gateway", facts->gateway);
    put(&object, "gpu", json_integer(facts->gpu));
    put(&object, "purpose", json_string(purposes[facts->purpose]));
    put(&object, "at", json_integer(facts->at_ms));
    put_text(&object, "previous", str_of(facts->previous));
    put_hex(&object, "gateway_key", public_key, sizeof(public_key));
    put_report(&object, report);
    if (!object.is_good || !dump_append(object.root, &text))
        goto out;
    error = signing_key_sign(key, buf_str(&text), signature);
    if (error)
        goto out;
    put_hex(&object, "signature", signature, sizeof(signature));
    buf_clear(&text);
    bool is_good = object.is_good && dump_append(object.root, &text) && buf_append_str(to, buf_str(&text));
    error = is_good ? ERR_NONE : ERR_NO_MEMORY;
out:
    json_decref(object.root);
    buf_free(&text);
    return error;
}

/* -- reading ----------------------------------------------------------------------------------------------------- */

enum field_kind { FIELD_TEXT, FIELD_HEX, FIELD_INT, FIELD_REAL, FIELD_BOOL, FIELD_STEPS, FIELD_PROVEN };
struct field {
    const char *name;
    enum field_kind kind;
    size_t max; /* TEXT: bytes; HEX: bytes that it stands for */
};

static const struct field receipt_fields[] = {
    {"at", FIELD_INT, 0},           {"claimed", FIELD_TEXT, 64},     {"class", FIELD_TEXT, CATALOGUE_NAME_MAX - 1},
    {"driver", FIELD_TEXT, 32},     {"exchange_key", FIELD_HEX, 32}, {"gateway", FIELD_TEXT, 39},
    {"gateway_key", FIELD_HEX, 32}, {"gpu", FIELD_INT, 0},           {"host_sha256", FIELD_HEX, 32},
    {"performance", FIELD_REAL, 0}, {"previous", FIELD_HEX, 32},     {"proven", FIELD_PROVEN, 0},
    {"purpose", FIELD_TEXT, 16},    {"ratio", FIELD_REAL, 0},        {"reason", FIELD_TEXT, 96},
    {"result", FIELD_TEXT, 15},     {"rtt_us", FIELD_INT, 0},        {"signature", FIELD_HEX, 64},
    {"steps", FIELD_STEPS, 0},      {"uuid_sha256", FIELD_HEX, 32},  {"version", FIELD_INT, 0},
    {"worker", FIELD_TEXT, 39},     {"worker_key", FIELD_HEX, 32},
};
static const struct field proven_fields[] = {{"chain_tops", FIELD_REAL, 0},
                                             {"fill_gbps", FIELD_REAL, 0},
                                             {"pass_gbps", FIELD_REAL, 0},
                                             {"vram_gib", FIELD_REAL, 0},
                                             {"walk_gbps", FIELD_REAL, 0}};
static const struct field step_fields[] = {
    {"id", FIELD_HEX, 16},   {"kind", FIELD_TEXT, 8}, {"passed", FIELD_BOOL, 0}, {"rate", FIELD_REAL, 0},
    {"root", FIELD_HEX, 32}, {"seed", FIELD_HEX, 32}, {"took_us", FIELD_INT, 0}, {"unit", FIELD_TEXT, 8},
};

static bool text_is_good(const json_t *value, size_t max)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x20 || text[i] >= 0x7f)
            return false;
    return len <= max;
}

/* Small letters, and of the one length or none at all. */
static bool hex_is_good(const json_t *value, size_t bytes)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    return len == 0 || len == 2 * bytes;
}

static bool fields_are(const json_t *object, const struct field *fields, size_t count);

static bool field_is_good(const json_t *value, const struct field *field)
{
    switch (field->kind) {
    case FIELD_TEXT:
        return json_is_string(value) && text_is_good(value, field->max);
    case FIELD_HEX:
        return json_is_string(value) && hex_is_good(value, field->max);
    case FIELD_INT:
        return json_is_integer(value) && json_integer_value(value) >= 0;
    case FIELD_REAL:
        return json_is_real(value);
    case FIELD_BOOL:
        return json_is_boolean(value);
    case FIELD_PROVEN:
        return fields_are(value, proven_fields, COUNT(proven_fields));
    case FIELD_STEPS:
        for (size_t i = 0; i < json_array_size(value); i++)
            if (!fields_are(json_array_get(value, i), step_fields, COUNT(step_fields)))
                return false;
        return json_is_array(value) && json_array_size(value) <= VERIFY_STEPS_MAX;
    }
    return false;
}

/* Exactly these fields. */
static bool fields_are(const json_t *object, const struct field *fields, size_t count)
{
    if (!json_is_object(object) || json_object_size(object) != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!field_is_good(json_object_get(object, fields[i].name), &fields[i]))
            return false;
    return true;
}

static bool is_one_of(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(text, words[i]))
            return true;
    return false;
}

static struct str field_str(const json_t *root, const char *name)
{
    return str_of(json_string_value(json_object_get(root, name)));
}

static bool hex_of(const json_t *root, const char *name, uint8_t *ret, size_t len)
{
    struct str hex = field_str(root, name);
    return hex.len == 0 || crypto_unhex(hex, ret, len);
}

static bool view_fill(const json_t *root, struct str text, struct receipt_view *ret)
{
    crypto_sha256_hex(text, ret->sha256);
    ret->at_ms = json_integer_value(json_object_get(root, "at"));
    return str_copy(ret->worker, sizeof(ret->worker), field_str(root, "worker")) &&
           str_copy(ret->gateway, sizeof(ret->gateway), field_str(root, "gateway")) &&
           str_copy(ret->class_name, sizeof(ret->class_name), field_str(root, "class")) &&
           str_copy(ret->result, sizeof(ret->result), field_str(root, "result")) &&
           str_copy(ret->previous, sizeof(ret->previous), field_str(root, "previous")) &&
           hex_of(root, "gateway_key", ret->gateway_key, sizeof(ret->gateway_key)) &&
           hex_of(root, "worker_key", ret->worker_key, sizeof(ret->worker_key));
}

static bool is_receipt(const json_t *root, struct str text)
{
    if (!fields_are(root, receipt_fields, COUNT(receipt_fields)) ||
        json_integer_value(json_object_get(root, "version")) != RECEIPT_VERSION ||
        !is_one_of(json_string_value(json_object_get(root, "purpose")), purposes, COUNT(purposes)) ||
        !is_one_of(json_string_value(json_object_get(root, "result")), results, COUNT(results)) ||
        field_str(root, "gateway_key").len == 0 || field_str(root, "signature").len == 0)
        return false;
    char *again = json_dumps(root, DUMP_FLAGS);
    bool is_same = again && str_eq(str_of(again), text);
    free(again);
    return is_same;
}

enum error receipt_canonical(struct str json, struct buf *to)
{
    json_t *root = json_loadb(json.ptr ? json.ptr : "", json.len, JSON_REJECT_DUPLICATES, NULL);
    enum error error = !json_is_object(root) ? ERR_BAD_INPUT : dump_append(root, to) ? ERR_NONE : ERR_TOO_LARGE;
    json_decref(root);
    return error;
}

enum error receipt_check(struct str text, const uint8_t *gateway_key, struct receipt_view *ret)
{
    struct receipt_view view = {.at_ms = 0};
    uint8_t signature[ED25519_SIGNATURE];
    struct buf part;
    if (text.len == 0 || text.len > RECEIPT_MAX || text.ptr[0] != '{')
        return ERR_BAD_INPUT;
    json_t *root = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    buf_init(&part, RECEIPT_MAX);
    enum error error = ERR_BAD_INPUT;
    if (!root || !is_receipt(root, text) || !view_fill(root, text, &view) ||
        !hex_of(root, "signature", signature, sizeof(signature)))
        goto out;
    error = ERR_NO_MEMORY;
    if (json_object_del(root, "signature") != 0 || !dump_append(root, &part))
        goto out;
    error = ERR_DENIED;
    if (gateway_key && !crypto_equal(gateway_key, view.gateway_key, sizeof(view.gateway_key)))
        goto out;
    if (!signature_check(view.gateway_key, buf_str(&part), signature))
        goto out;
    *ret = view;
    error = ERR_NONE;
out:
    json_decref(root);
    buf_free(&part);
    return error;
}

/* -- logs -------------------------------------------------------------------------------------------------------- */

const char *receipt_link_name(enum receipt_link link)
{
    static const char *const names[] = {"unknown", "first", "start", "linked", "gap", "fork"};
    return names[link];
}

static enum receipt_link link_of(const struct receipt_row *rows, size_t count, size_t at)
{
    const struct receipt_view *view = &rows[at].view;
    bool is_forked = false, is_linked = false;
    if (rows[at].error)
        return RECEIPT_UNKNOWN;
    for (size_t i = 0; i < count; i++) {
        const struct receipt_view *other = &rows[i].view;
        if (rows[i].error || strcmp(other->worker, view->worker) != 0 || !strcmp(other->sha256, view->sha256))
            continue;
        is_forked |= !strcmp(other->previous, view->previous);
        is_linked |= !strcmp(other->sha256, view->previous);
    }
    if (is_forked)
        return RECEIPT_FORK;
    if (is_linked)
        return RECEIPT_LINKED;
    return view->previous[0] ? RECEIPT_START : RECEIPT_FIRST;
}

/* A log has one beginning, the oldest receipt: another one that follows nothing in the list has lost what it follows.
 */
static bool is_gap(const struct receipt_row *rows, size_t count, size_t at)
{
    const struct receipt_view *view = &rows[at].view;
    for (size_t i = 0; i < count; i++) {
        const struct receipt_view *other = &rows[i].view;
        if ((rows[i].link == RECEIPT_FIRST || rows[i].link == RECEIPT_START || rows[i].link == RECEIPT_GAP) &&
            !strcmp(other->worker, view->worker) && strcmp(other->sha256, view->sha256) != 0 &&
            other->at_ms <= view->at_ms)
            return true;
    }
    return false;
}

size_t receipt_log_check(const struct str *texts, size_t count, const uint8_t *gateway_key, struct receipt_row *ret)
{
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        ret[i] = (struct receipt_row){.link = RECEIPT_UNKNOWN};
        ret[i].error = receipt_check(texts[i], gateway_key, &ret[i].view);
    }
    for (size_t i = 0; i < count; i++)
        ret[i].link = link_of(ret, count, i);
    for (size_t i = 0; i < count; i++)
        if ((ret[i].link == RECEIPT_FIRST || ret[i].link == RECEIPT_START) && is_gap(ret, count, i))
            ret[i].link = RECEIPT_GAP;
    for (size_t i = 0; i < count; i++)
        wrong += ret[i].link == RECEIPT_UNKNOWN || ret[i].link == RECEIPT_GAP || ret[i].link == RECEIPT_FORK;
    return wrong;
}
