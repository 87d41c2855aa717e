#include "scheduler/worker_record.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GPUS_MAX 4096
#define SLOTS_MAX 65536
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

bool admission_is_storable(const struct admission *admission)
{
    return (unsigned)admission->state < ADMISSION_STATE_COUNT &&
           is_text(admission->reason, sizeof(admission->reason)) && admission->next_probe_at_ms >= 0 &&
           admission->last_probe_at_ms >= 0 && admission->last_probe_took_ms >= 0 && admission->token <= INT64_MAX;
}

bool worker_record_is_valid(const struct worker_record *r)
{
    struct id id;
    return memchr(r->id, 0, sizeof(r->id)) && id_parse("wrk_", str_of(r->id), &id) && is_sha256(r->secret_sha256) &&
           is_text(r->name, sizeof(r->name)) && is_text(r->supplier, sizeof(r->supplier)) &&
           is_text(r->gpu, sizeof(r->gpu)) && is_text(r->gpu_raw, sizeof(r->gpu_raw)) &&
           is_text(r->region, sizeof(r->region)) && is_text(r->tags, sizeof(r->tags)) && r->gpus >= 1 &&
           r->gpus <= GPUS_MAX && r->slots >= 1 && r->slots <= SLOTS_MAX && r->price_usd_nano >= 0 &&
           r->price_usd_nano <= PRICE_MAX_USD_NANO && r->vram_bytes <= INT64_MAX && r->enrolled_at_ms >= 0 &&
           admission_is_storable(&r->admission) && r->reputation.good >= 0 && r->reputation.good < 1e15 &&
           r->reputation.bad >= 0 && r->reputation.bad < 1e15 && r->reputation.at_ms >= 0;
}

/* -- writing -- */

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

static void put_double(struct record_words *words, const char *name, double value)
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
}

void record_put_initial(struct record_words *words, const struct worker_record *record)
{
    put_i64(words, "enrolled_at_ms", record->enrolled_at_ms);
    record_put_admission(words, &record->admission);
    record_put_u64(words, "token", record->admission.token);
    put_double(words, "good", record->reputation.good);
    put_double(words, "bad", record->reputation.bad);
    put_i64(words, "reputation_at_ms", record->reputation.at_ms);
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

static bool read_text(const redisReply *reply, const char *name, char *ret, size_t size)
{
    struct str value = field(reply, name);
    return value.ptr && !memchr(value.ptr, 0, value.len) && str_copy(ret, size, value);
}

static bool read_i64(const redisReply *reply, const char *name, int64_t *ret)
{
    struct str value = field(reply, name);
    return value.ptr && str_to_i64(value, ret);
}

static bool read_u32(const redisReply *reply, const char *name, uint32_t *ret)
{
    int64_t value;
    if (!read_i64(reply, name, &value) || value < 0 || value > UINT32_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

static bool read_u64(const redisReply *reply, const char *name, uint64_t *ret)
{
    int64_t value;
    if (!read_i64(reply, name, &value) || value < 0)
        return false;
    *ret = (uint64_t)value;
    return true;
}

static bool read_double(const redisReply *reply, const char *name, double *ret)
{
    struct str value = field(reply, name);
    return value.ptr && str_to_double(value, ret);
}

enum error worker_record_read(struct str id, const redisReply *reply, struct worker_record *ret)
{
    if (reply->type != REDIS_REPLY_ARRAY)
        return ERR_PROTOCOL;
    if (reply->elements == 0)
        return ERR_NOT_FOUND;
    struct worker_record r;
    memset(&r, 0, sizeof(r));
    struct admission *a = &r.admission;
    bool ok = str_copy(r.id, sizeof(r.id), id) &&
              read_text(reply, "secret_sha256", r.secret_sha256, sizeof(r.secret_sha256)) &&
              read_text(reply, "name", r.name, sizeof(r.name)) &&
              read_text(reply, "supplier", r.supplier, sizeof(r.supplier)) &&
              read_text(reply, "gpu", r.gpu, sizeof(r.gpu)) &&
              read_text(reply, "gpu_raw", r.gpu_raw, sizeof(r.gpu_raw)) &&
              read_text(reply, "region", r.region, sizeof(r.region)) &&
              read_text(reply, "tags", r.tags, sizeof(r.tags)) && read_u32(reply, "gpus", &r.gpus) &&
              read_u32(reply, "slots", &r.slots) && read_i64(reply, "price_usd_nano", &r.price_usd_nano) &&
              read_u64(reply, "vram_bytes", &r.vram_bytes) && read_i64(reply, "enrolled_at_ms", &r.enrolled_at_ms) &&
              admission_state_parse(field(reply, "state"), &a->state) &&
              read_text(reply, "reason", a->reason, sizeof(a->reason)) &&
              read_i64(reply, "next_probe_at_ms", &a->next_probe_at_ms) &&
              read_i64(reply, "last_probe_at_ms", &a->last_probe_at_ms) &&
              read_i64(reply, "last_probe_took_ms", &a->last_probe_took_ms) &&
              read_u32(reply, "suspensions", &a->suspensions) && read_u64(reply, "token", &a->token) &&
              read_double(reply, "good", &r.reputation.good) && read_double(reply, "bad", &r.reputation.bad) &&
              read_i64(reply, "reputation_at_ms", &r.reputation.at_ms);
    if (!ok || !worker_record_is_valid(&r))
        return ERR_PROTOCOL;
    *ret = r;
    return ERR_NONE;
}
