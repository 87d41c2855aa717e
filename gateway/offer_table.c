#include "gateway/offer_table.h"

#include "core/crypto.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 64
#define TEXTS 9 /* of an offer */
#define TERMS_MAX 2048
#define GPUS_MAX 65536

/* -- ids -- */

struct offer_digest offer_digest_of(struct str network, struct str id)
{
    char text[NETWORK_ID_MAX + SUPPLY_ID_MAX + 1];
    uint8_t sha256[SHA256_BYTES];
    struct offer_digest digest;
    size_t at = network.len < NETWORK_ID_MAX ? network.len : NETWORK_ID_MAX;
    size_t len = id.len < SUPPLY_ID_MAX ? id.len : SUPPLY_ID_MAX;
    memcpy(text, network.ptr, at);
    text[at++] = ' '; /* in no network's id */
    memcpy(text + at, id.ptr, len);
    crypto_sha256((struct str){text, at + len}, sha256);
    memcpy(digest.bytes, sha256, sizeof(digest.bytes));
    return digest;
}

void offer_digest_hex(const struct offer_digest *digest, char ret[static OFFER_DIGEST_HEX])
{
    crypto_hex(digest->bytes, OFFER_DIGEST_BYTES, ret);
}

bool offer_digest_parse(struct str hex, struct offer_digest *ret)
{
    return hex.len == 2 * OFFER_DIGEST_BYTES && crypto_unhex(hex, ret->bytes, OFFER_DIGEST_BYTES);
}

void offer_shown_id(const struct offer_digest *digest, char ret[static OFFER_SHOWN_MAX])
{
    memcpy(ret, OFFER_SHOWN_PREFIX, sizeof(OFFER_SHOWN_PREFIX) - 1);
    crypto_hex(digest->bytes, OFFER_DIGEST_BYTES, ret + sizeof(OFFER_SHOWN_PREFIX) - 1);
}

bool offer_shown_parse(struct str shown, struct offer_digest *ret)
{
    size_t skip = sizeof(OFFER_SHOWN_PREFIX) - 1;
    return str_starts(shown, STR(OFFER_SHOWN_PREFIX)) &&
           offer_digest_parse((struct str){shown.ptr + skip, shown.len - skip}, ret);
}

/* -- the table: open addressing, and what follows a removed one moves up -- */

void offer_table_init(struct offer_table *table)
{
    *table = (struct offer_table){.count = 0};
    crypto_random(&table->seed, sizeof(table->seed));
}

void offer_table_free(struct offer_table *table)
{
    for (size_t i = 0; i < table->slot_count; i++)
        free(table->slots[i]);
    free(table->slots);
    table->slots = NULL;
    table->count = table->slot_count = 0;
}

static size_t home_of(const struct offer_table *table, const struct offer_digest *digest)
{
    struct str bytes = {(const char *)digest->bytes, OFFER_DIGEST_BYTES};
    return (size_t)str_hash(bytes, table->seed) & (table->slot_count - 1);
}

/* Where it is, or where it belongs. */
static size_t slot_of(const struct offer_table *table, const struct offer_digest *digest)
{
    size_t at = home_of(table, digest);
    while (table->slots[at] && memcmp(table->slots[at]->digest.bytes, digest->bytes, OFFER_DIGEST_BYTES) != 0)
        at = (at + 1) & (table->slot_count - 1);
    return at;
}

struct offer_entry *offer_table_find(const struct offer_table *table, const struct offer_digest *digest)
{
    return table->slot_count ? table->slots[slot_of(table, digest)] : NULL;
}

static bool grow(struct offer_table *table)
{
    struct offer_table more = {.slot_count = table->slot_count ? table->slot_count * 2 : SLOTS_MIN,
                               .seed = table->seed};
    more.slots = calloc(more.slot_count, sizeof(struct offer_entry *));
    if (!more.slots)
        return false;
    for (size_t i = 0; i < table->slot_count; i++) {
        if (table->slots[i])
            more.slots[slot_of(&more, &table->slots[i]->digest)] = table->slots[i];
    }
    free(table->slots);
    table->slots = more.slots;
    table->slot_count = more.slot_count;
    return true;
}

/* The texts in a fixed order, so that copying and comparing are loops. */
static void texts_of(struct network_offer *offer, struct str *ret[static TEXTS])
{
    struct str *const texts[TEXTS] = {&offer->id,      &offer->gpu_raw, &offer->region, &offer->country, &offer->zone,
                                      &offer->machine, &offer->origin,  &offer->tags,   &offer->terms};
    memcpy(ret, texts, sizeof(texts));
}

static bool is_same(const struct network_offer *a, const struct network_offer *b)
{
    struct network_offer left = *a, right = *b;
    struct str *of_left[TEXTS], *of_right[TEXTS];
    texts_of(&left, of_left);
    texts_of(&right, of_right);
    for (size_t i = 0; i < TEXTS; i++) {
        if (of_left[i]->len != of_right[i]->len ||
            (of_left[i]->len && memcmp(of_left[i]->ptr, of_right[i]->ptr, of_left[i]->len) != 0))
            return false;
    }
    return strcmp(a->gpu, b->gpu) == 0 && a->is_slice == b->is_slice && a->interruptible == b->interruptible &&
           a->is_estimate == b->is_estimate && a->is_arm == b->is_arm && a->gpus == b->gpus &&
           a->fraction_ppm == b->fraction_ppm && a->available == b->available && a->vram_bytes == b->vram_bytes &&
           a->price_usd_nano == b->price_usd_nano && a->reliability == b->reliability &&
           a->span_min_s == b->span_min_s && a->span_max_s == b->span_max_s;
}

static struct offer_entry *entry_new(const struct offer_digest *digest, const struct network_offer *offer)
{
    struct network_offer from = *offer;
    struct str *texts[TEXTS];
    size_t bytes = 0;
    texts_of(&from, texts);
    for (size_t i = 0; i < TEXTS; i++)
        bytes += texts[i]->len;
    struct offer_entry *entry = malloc(sizeof(*entry) + bytes);
    if (!entry)
        return NULL;
    char *at = (char *)(entry + 1);
    for (size_t i = 0; i < TEXTS; i++) {
        if (texts[i]->len)
            memcpy(at, texts[i]->ptr, texts[i]->len);
        *texts[i] = (struct str){at, texts[i]->len};
        at += texts[i]->len;
    }
    *entry = (struct offer_entry){.digest = *digest, .of = from};
    return entry;
}

enum offer_put offer_table_put(struct offer_table *table, const struct offer_digest *digest,
                               const struct network_offer *offer)
{
    if (table->count * 2 >= table->slot_count && !grow(table))
        return OFFER_NO_MEMORY;
    struct offer_entry **slot = &table->slots[slot_of(table, digest)];
    if (*slot && is_same(&(*slot)->of, offer)) {
        (*slot)->round = table->round;
        return OFFER_SAME;
    }
    struct offer_entry *entry = entry_new(digest, offer);
    if (!entry)
        return OFFER_NO_MEMORY;
    entry->round = table->round;
    table->count += !*slot;
    free(*slot);
    *slot = entry;
    return OFFER_CHANGED;
}

void offer_table_remove(struct offer_table *table, const struct offer_digest *digest)
{
    if (!table->slot_count)
        return;
    size_t mask = table->slot_count - 1, hole = slot_of(table, digest);
    if (!table->slots[hole])
        return;
    free(table->slots[hole]);
    table->slots[hole] = NULL;
    table->count--;
    for (size_t at = (hole + 1) & mask; table->slots[at]; at = (at + 1) & mask) {
        size_t home = home_of(table, &table->slots[at]->digest);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* it belongs between the hole and where it is */
        table->slots[hole] = table->slots[at];
        table->slots[at] = NULL;
        hole = at;
    }
}

struct offer_entry *offer_table_next(const struct offer_table *table, size_t *at)
{
    while (*at < table->slot_count) {
        struct offer_entry *entry = table->slots[(*at)++];
        if (entry)
            return entry;
    }
    return NULL;
}

void offer_table_sweep(struct offer_table *table, void (*gone)(void *ctx, const struct offer_digest *digest), void *ctx)
{
    size_t at = 0;
    while (at < table->slot_count) {
        const struct offer_entry *entry = table->slots[at];
        if (!entry || entry->round == table->round) {
            at++;
            continue;
        }
        struct offer_digest digest = entry->digest;
        offer_table_remove(table, &digest); /* another may now be here: look again */
        gone(ctx, &digest);
    }
}

/* -- records -- */

static json_t *text_json(struct str text)
{
    return json_stringn(text.ptr ? text.ptr : "", text.len);
}

bool offer_record_write(const struct network_offer *offer, struct buf *to)
{
    json_t *root = json_pack(
        "{s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:f,s:I,s:I,s:i}", "id", text_json(offer->id),
        "gpu", offer->gpu, "raw", text_json(offer->gpu_raw), "region", text_json(offer->region), "country",
        text_json(offer->country), "zone", text_json(offer->zone), "machine", text_json(offer->machine), "origin",
        text_json(offer->origin), "tags", text_json(offer->tags), "terms", text_json(offer->terms), "gpus",
        (json_int_t)offer->gpus, "fraction", (json_int_t)offer->fraction_ppm, "available", (json_int_t)offer->available,
        "vram", (json_int_t)offer->vram_bytes, "price", (json_int_t)offer->price_usd_nano, "reliability",
        offer->reliability, "span_min", (json_int_t)offer->span_min_s, "span_max", (json_int_t)offer->span_max_s, "is",
        (int)(offer->is_slice | offer->interruptible << 1 | offer->is_estimate << 2 | offer->is_arm << 3));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    bool ok = text && buf_append_str(to, str_of(text));
    free(text);
    json_decref(root);
    return ok;
}

static bool take_text(const json_t *root, const char *name, size_t max, struct str *ret)
{
    const json_t *value = json_object_get(root, name);
    *ret = (struct str){json_string_value(value), json_string_length(value)};
    return json_is_string(value) && ret->len <= max;
}

static bool take_number(const json_t *root, const char *name, int64_t most, int64_t *ret)
{
    const json_t *value = json_object_get(root, name);
    *ret = (int64_t)json_integer_value(value);
    return json_is_integer(value) && *ret >= 0 && *ret <= most;
}

bool offer_record_read(struct str json, void (*take)(void *ctx, const struct network_offer *offer), void *ctx)
{
    static const size_t text_max = 255;
    json_t *root = json_loadb(json.ptr, json.len, 0, NULL);
    struct network_offer offer = {.gpu = ""};
    struct str gpu;
    int64_t gpus, fraction, available, vram, is;
    bool ok = take_text(root, "id", SUPPLY_ID_MAX - 1, &offer.id) && offer.id.len &&
              take_text(root, "gpu", sizeof(offer.gpu) - 1, &gpu) && str_copy(offer.gpu, sizeof(offer.gpu), gpu) &&
              take_text(root, "raw", text_max, &offer.gpu_raw) && take_text(root, "region", text_max, &offer.region) &&
              take_text(root, "country", text_max, &offer.country) && take_text(root, "zone", text_max, &offer.zone) &&
              take_text(root, "machine", text_max, &offer.machine) &&
              take_text(root, "origin", text_max, &offer.origin) && take_text(root, "tags", text_max, &offer.tags) &&
              take_text(root, "terms", TERMS_MAX, &offer.terms) && take_number(root, "gpus", GPUS_MAX, &gpus) && gpus &&
              take_number(root, "fraction", 1000000, &fraction) &&
              take_number(root, "available", UINT32_MAX, &available) && take_number(root, "vram", INT64_MAX, &vram) &&
              take_number(root, "price", INT64_MAX, &offer.price_usd_nano) &&
              take_number(root, "span_min", INT64_MAX, &offer.span_min_s) &&
              take_number(root, "span_max", INT64_MAX, &offer.span_max_s) && take_number(root, "is", 15, &is) &&
              json_is_number(json_object_get(root, "reliability"));
    if (ok) {
        offer.gpus = (uint32_t)gpus;
        offer.fraction_ppm = (uint32_t)fraction;
        offer.available = (uint32_t)available;
        offer.vram_bytes = (uint64_t)vram;
        offer.reliability = json_number_value(json_object_get(root, "reliability"));
        offer.is_slice = is & 1;
        offer.interruptible = is & 2;
        offer.is_estimate = is & 4;
        offer.is_arm = is & 8;
        take(ctx, &offer);
    }
    json_decref(root);
    return ok;
}
