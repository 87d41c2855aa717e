#include "scheduler/worker_record.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GPUS_MAX 4096
#define SLOTS_MAX 65536
#define PROVEN_MAX 1e12                              /* of any rate */
#define PRICE_MAX_USD_NANO INT64_C(1000000000000000) /* a million dollars an hour */

/* -- checking -- */

static bool is_text(const char *text, size_t size)
{
    const char *end = memchr(text, 0, size);
    for (const char *at = text; end && at < end; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return false;
    }
    return end;
}

static bool is_sha256(const char text[65])
{
    for (size_t i = 0; i < 64; i++) {
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    }
    return text[64] == 0;
}

static bool is_hex_or_empty(const char text[65])
{
    return text[0] == 0 || is_sha256(text);
}

static bool is_within(double value, double most)
{
    return value >= 0 && value <= most; /* not NaN */
}

bool proof_is_storable(const struct worker_proof *p)
{
    const struct proven *rates = &p->proven;
    return p->at_ms >= 0 && (unsigned)p->purpose <= VERIFY_LEASE && is_text(p->gpu, sizeof(p->gpu)) &&
           is_text(p->driver, sizeof(p->driver)) && is_within(rates->vram_gib, PROVEN_MAX) &&
           is_within(rates->fill_gbps, PROVEN_MAX) && is_within(rates->pass_gbps, PROVEN_MAX) &&
           is_within(rates->walk_gbps, PROVEN_MAX) && is_within(rates->chain_tops, PROVEN_MAX) &&
           is_within(p->class_vram_gib, PROVEN_MAX) && is_within(p->ratio, PROVEN_MAX) &&
           is_within(p->performance, 1) && is_within(p->claimed_performance, 1) && is_hex_or_empty(p->worker_key) &&
           is_hex_or_empty(p->exchange_key) && is_hex_or_empty(p->chain_root) && is_hex_or_empty(p->uuid_sha256) &&
           is_hex_or_empty(p->receipt_sha256);
}

static bool reputation_is_storable(const struct reputation *reputation)
{
    bool is_good = reputation->at_ms >= 0;
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        is_good &= is_within(reputation->good[i], 1e15) && is_within(reputation->bad[i], 1e15);
    return is_good;
}

bool admission_is_storable(const struct admission *admission)
{
    return (unsigned)admission->state < ADMISSION_STATE_COUNT &&
           is_text(admission->reason, sizeof(admission->reason)) && admission->next_probe_at_ms >= 0 &&
           admission->last_probe_at_ms >= 0 && admission->last_probe_took_ms >= 0 && admission->token <= INT64_MAX &&
           admission->claimed_at_ms >= 0 && admission->admitted_at_ms >= 0 &&
           (unsigned)admission->next_purpose <= VERIFY_LEASE && admission->banned_until_ms >= 0;
}

bool worker_record_is_valid(const struct worker_record *r)
{
    struct id id;
    return memchr(r->id, 0, sizeof(r->id)) && id_parse("wrk_", str_of(r->id), &id) && is_sha256(r->secret_sha256) &&
           is_text(r->name, sizeof(r->name)) && is_text(r->supplier, sizeof(r->supplier)) &&
           is_text(r->gpu, sizeof(r->gpu)) && is_text(r->gpu_raw, sizeof(r->gpu_raw)) &&
           is_text(r->region, sizeof(r->region)) && is_text(r->tags, sizeof(r->tags)) &&
           is_text(r->lease, sizeof(r->lease)) && r->gpus >= 1 && r->gpus <= GPUS_MAX && r->slots >= 1 &&
           r->slots <= SLOTS_MAX && r->price_usd_nano >= 0 && r->price_usd_nano <= PRICE_MAX_USD_NANO &&
           r->vram_bytes <= INT64_MAX && r->enrolled_at_ms >= 0 && admission_is_storable(&r->admission) &&
           reputation_is_storable(&r->reputation) && r->earned_usd_nano >= 0 && proof_is_storable(&r->proof);
}

/* -- writing -- */

static const char *const good_fields[REPUTATION_DIMENSIONS] = {
    [REPUTATION_HARDWARE] = "good_hardware",
    [REPUTATION_CORRECTNESS] = "good_correctness",
    [REPUTATION_AVAILABILITY] = "good_availability",
    [REPUTATION_NETWORK] = "good_network",
};
static const char *const bad_fields[REPUTATION_DIMENSIONS] = {
    [REPUTATION_HARDWARE] = "bad_hardware",
    [REPUTATION_CORRECTNESS] = "bad_correctness",
    [REPUTATION_AVAILABILITY] = "bad_availability",
    [REPUTATION_NETWORK] = "bad_network",
};

static void put(struct record_words *words, const char *name, struct str value)
{
    assert(words->count + 2 <= RECORD_WORDS_MAX);
    if (name)
        words->words[words->count++] = str_of(name);
    words->words[words->count++] = value;
}

static char *next_number(struct record_words *words)
{
    assert(words->number_count < RECORD_WORDS_MAX / 2);
    return words->numbers[words->number_count++];
}

void record_put_u64(struct record_words *words, const char *name, uint64_t value)
{
    char *text = next_number(words);
    snprintf(text, sizeof(words->numbers[0]), "%" PRIu64, value);
    put(words, name, str_of(text));
}

static void put_i64(struct record_words *words, const char *name, int64_t value)
{
    char *text = next_number(words);
    snprintf(text, sizeof(words->numbers[0]), "%" PRId64, value);
    put(words, name, str_of(text));
}

void record_put_double(struct record_words *words, const char *name, double value)
{
    char *text = next_number(words);
    snprintf(text, sizeof(words->numbers[0]), "%.17g", value);
    put(words, name, str_of(text));
}

void record_put_declared(struct record_words *words, const struct worker_record *record)
{
    put(words, "name", str_of(record->name));
    put(words, "supplier", str_of(record->supplier));
    put(words, "gpu", str_of(record->gpu));
    put(words, "gpu_raw", str_of(record->gpu_raw));
    put(words, "region", str_of(record->region));
    put(words, "tags", str_of(record->tags));
    record_put_u64(words, "gpus", record->gpus);
    record_put_u64(words, "slots", record->slots);
    put_i64(words, "price_usd_nano", record->price_usd_nano);
    record_put_u64(words, "vram_bytes", record->vram_bytes);
}

void record_put_admission(struct record_words *words, const struct admission *admission)
{
    put(words, "state", str_of(admission_state_name(admission->state)));
    put(words, "reason", str_of(admission->reason));
    put_i64(words, "next_probe_at_ms", admission->next_probe_at_ms);
    put_i64(words, "last_probe_at_ms", admission->last_probe_at_ms);
    put_i64(words, "last_probe_took_ms", admission->last_probe_took_ms);
    record_put_u64(words, "suspensions", admission->suspensions);
    put_i64(words, "claimed_at_ms", admission->claimed_at_ms);
    put_i64(words, "admitted_at_ms", admission->admitted_at_ms);
    record_put_u64(words, "next_purpose", (uint64_t)admission->next_purpose);
    record_put_u64(words, "slow_in_row", admission->slow_in_row);
    record_put_u64(words, "retests", admission->retests);
    record_put_u64(words, "failed_gateway", admission->failed_gateway);
    record_put_u64(words, "bans", admission->bans);
    put_i64(words, "banned_until_ms", admission->banned_until_ms);
}

void record_put_proof(struct record_words *words, const struct worker_proof *proof)
{
    put_i64(words, "proof_at_ms", proof->at_ms);
    record_put_u64(words, "proof_purpose", (uint64_t)proof->purpose);
    record_put_u64(words, "proof_devices", proof->devices);
    put(words, "proof_gpu", str_of(proof->gpu));
    record_put_double(words, "proof_vram_gib", proof->proven.vram_gib);
    record_put_double(words, "proof_fill_gbps", proof->proven.fill_gbps);
    record_put_double(words, "proof_pass_gbps", proof->proven.pass_gbps);
    record_put_double(words, "proof_walk_gbps", proof->proven.walk_gbps);
    record_put_double(words, "proof_chain_tops", proof->proven.chain_tops);
    record_put_double(words, "proof_class_vram_gib", proof->class_vram_gib);
    record_put_double(words, "proof_ratio", proof->ratio);
    record_put_double(words, "proof_performance", proof->performance);
    record_put_double(words, "proof_claimed_performance", proof->claimed_performance);
    put(words, "proof_driver", str_of(proof->driver));
    put(words, "proof_worker_key", str_of(proof->worker_key));
    put(words, "proof_exchange_key", str_of(proof->exchange_key));
    put(words, "proof_chain_root", str_of(proof->chain_root));
    put(words, "proof_uuid_sha256", str_of(proof->uuid_sha256));
}

void record_put_receipt(struct record_words *words, const char *sha256)
{
    put(words, "proof_receipt_sha256", str_of(sha256));
}

void record_put_initial(struct record_words *words, const struct worker_record *record)
{
    put_i64(words, "enrolled_at_ms", record->enrolled_at_ms);
    put(words, "lease", str_of(record->lease));
    record_put_admission(words, &record->admission);
    record_put_u64(words, "token", record->admission.token);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        record_put_double(words, good_fields[i], record->reputation.good[i]);
        record_put_double(words, bad_fields[i], record->reputation.bad[i]);
    }
    put_i64(words, "reputation_at_ms", record->reputation.at_ms);
    put_i64(words, "earned_usd_nano", record->earned_usd_nano);
    record_put_proof(words, &record->proof);
    record_put_receipt(words, record->proof.receipt_sha256);
}

/* -- reading -- */

/* One pass per field over some twenty pairs: what is stored is small, and its order is Redis' affair. */
static struct str field(const redisReply *reply, const char *name)
{
    for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        const redisReply *key = reply->element[i], *value = reply->element[i + 1];
        if (key->type == REDIS_REPLY_STRING && value->type == REDIS_REPLY_STRING &&
            str_eq((struct str){key->str, key->len}, str_of(name)))
            return (struct str){value->str, value->len};
    }
    return (struct str){NULL, 0};
}

/* A field may be missing, in a record of before it was: what *ret holds then stays. Those that must not be are looked
 * for by worker_record_read, or have no valid default. */
static bool read_text(const redisReply *reply, const char *name, char *ret, size_t size)
{
    struct str value = field(reply, name);
    return !value.ptr || (!memchr(value.ptr, 0, value.len) && str_copy(ret, size, value));
}

static bool read_i64(const redisReply *reply, const char *name, int64_t *ret)
{
    struct str value = field(reply, name);
    return !value.ptr || str_to_i64(value, ret);
}

static bool read_u32(const redisReply *reply, const char *name, uint32_t *ret)
{
    int64_t value = *ret;
    if (!read_i64(reply, name, &value) || value < 0 || value > UINT32_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

static bool read_u64(const redisReply *reply, const char *name, uint64_t *ret)
{
    int64_t value = (int64_t)*ret;
    if (!read_i64(reply, name, &value) || value < 0)
        return false;
    *ret = (uint64_t)value;
    return true;
}

static bool read_double(const redisReply *reply, const char *name, double *ret)
{
    struct str value = field(reply, name);
    return !value.ptr || str_to_double(value, ret);
}

static bool read_purpose(const redisReply *reply, const char *name, enum verify_purpose *ret)
{
    uint32_t value = (uint32_t)*ret;
    if (!read_u32(reply, name, &value) || value > VERIFY_LEASE)
        return false;
    *ret = (enum verify_purpose)value;
    return true;
}

static bool read_admission(const redisReply *reply, struct admission *a)
{
    return admission_state_parse(field(reply, "state"), &a->state) &&
           read_text(reply, "reason", a->reason, sizeof(a->reason)) &&
           read_i64(reply, "next_probe_at_ms", &a->next_probe_at_ms) &&
           read_i64(reply, "last_probe_at_ms", &a->last_probe_at_ms) &&
           read_i64(reply, "last_probe_took_ms", &a->last_probe_took_ms) &&
           read_u32(reply, "suspensions", &a->suspensions) && read_u64(reply, "token", &a->token) &&
           read_i64(reply, "claimed_at_ms", &a->claimed_at_ms) &&
           read_i64(reply, "admitted_at_ms", &a->admitted_at_ms) &&
           read_purpose(reply, "next_purpose", &a->next_purpose) && read_u32(reply, "slow_in_row", &a->slow_in_row) &&
           read_u32(reply, "retests", &a->retests) && read_u32(reply, "failed_gateway", &a->failed_gateway) &&
           read_u32(reply, "bans", &a->bans) && read_i64(reply, "banned_until_ms", &a->banned_until_ms);
}

static bool read_reputation(const redisReply *reply, struct reputation *ret)
{
    bool ok = read_i64(reply, "reputation_at_ms", &ret->at_ms);
    for (unsigned i = 0; ok && i < REPUTATION_DIMENSIONS; i++)
        ok = read_double(reply, good_fields[i], &ret->good[i]) && read_double(reply, bad_fields[i], &ret->bad[i]);
    return ok;
}

static bool read_proof(const redisReply *reply, struct worker_proof *p)
{
    return read_i64(reply, "proof_at_ms", &p->at_ms) && read_purpose(reply, "proof_purpose", &p->purpose) &&
           read_u32(reply, "proof_devices", &p->devices) && read_text(reply, "proof_gpu", p->gpu, sizeof(p->gpu)) &&
           read_double(reply, "proof_vram_gib", &p->proven.vram_gib) &&
           read_double(reply, "proof_fill_gbps", &p->proven.fill_gbps) &&
           read_double(reply, "proof_pass_gbps", &p->proven.pass_gbps) &&
           read_double(reply, "proof_walk_gbps", &p->proven.walk_gbps) &&
           read_double(reply, "proof_chain_tops", &p->proven.chain_tops) &&
           read_double(reply, "proof_class_vram_gib", &p->class_vram_gib) &&
           read_double(reply, "proof_ratio", &p->ratio) && read_double(reply, "proof_performance", &p->performance) &&
           read_double(reply, "proof_claimed_performance", &p->claimed_performance) &&
           read_text(reply, "proof_driver", p->driver, sizeof(p->driver)) &&
           read_text(reply, "proof_worker_key", p->worker_key, sizeof(p->worker_key)) &&
           read_text(reply, "proof_exchange_key", p->exchange_key, sizeof(p->exchange_key)) &&
           read_text(reply, "proof_chain_root", p->chain_root, sizeof(p->chain_root)) &&
           read_text(reply, "proof_uuid_sha256", p->uuid_sha256, sizeof(p->uuid_sha256)) &&
           read_text(reply, "proof_receipt_sha256", p->receipt_sha256, sizeof(p->receipt_sha256));
}

enum error worker_record_read(struct str id, const redisReply *reply, struct worker_record *ret)
{
    if (reply->type != REDIS_REPLY_ARRAY)
        return ERR_PROTOCOL;
    if (reply->elements == 0)
        return ERR_NOT_FOUND;
    struct worker_record r;
    memset(&r, 0, sizeof(r));
    bool ok =
        field(reply, "price_usd_nano").ptr && field(reply, "token").ptr && str_copy(r.id, sizeof(r.id), id) &&
        read_text(reply, "secret_sha256", r.secret_sha256, sizeof(r.secret_sha256)) &&
        read_text(reply, "name", r.name, sizeof(r.name)) &&
        read_text(reply, "supplier", r.supplier, sizeof(r.supplier)) && read_text(reply, "gpu", r.gpu, sizeof(r.gpu)) &&
        read_text(reply, "gpu_raw", r.gpu_raw, sizeof(r.gpu_raw)) &&
        read_text(reply, "region", r.region, sizeof(r.region)) && read_text(reply, "tags", r.tags, sizeof(r.tags)) &&
        read_u32(reply, "gpus", &r.gpus) && read_u32(reply, "slots", &r.slots) &&
        read_i64(reply, "price_usd_nano", &r.price_usd_nano) && read_u64(reply, "vram_bytes", &r.vram_bytes) &&
        read_i64(reply, "enrolled_at_ms", &r.enrolled_at_ms) && read_text(reply, "lease", r.lease, sizeof(r.lease)) &&
        read_admission(reply, &r.admission) && read_reputation(reply, &r.reputation) &&
        read_i64(reply, "earned_usd_nano", &r.earned_usd_nano) && read_proof(reply, &r.proof);
    if (!ok || !worker_record_is_valid(&r))
        return ERR_PROTOCOL;
    *ret = r;
    return ERR_NONE;
}
