#include "gateway/keyring.h"

#include "core/clock.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_PRESENTED_MAX 512 /* longer ones are not ours: no need to hash them */
#define WINDOW_MS 60000

/* -- limits of a key --
 *
 * The rate: a ring of the times of the last `rpm` calls. A call may come when the time in its slot is a minute old, so
 * no 60 s ever see more than rpm calls. A slot packs the lap of the ring in which it was written (high 24 bits) and the
 * time (low 40 bits, ms). Writing the slot is the decisive step, one compare-and-swap; `head` is the count of calls,
 * which whoever sees it behind its slot moves on. Laps take a minute at least, so 24 bits last for 31 years. */

struct key_limits {
    atomic_uint refs;
    atomic_int running; /* calls in flight with this key */
    atomic_ullong head;
    size_t slot_count;
    atomic_ullong slots[];
};

#define TIME_BITS 40
#define TIME_MASK ((UINT64_C(1) << TIME_BITS) - 1)

static struct key_limits *limits_new(int32_t rpm)
{
    size_t slots = rpm > 0 ? (size_t)rpm : 0;
    struct key_limits *limits = calloc(1, sizeof(*limits) + slots * sizeof(limits->slots[0]));
    if (!limits)
        return NULL;
    atomic_init(&limits->refs, 1);
    limits->slot_count = slots;
    return limits;
}

static void limits_unref(struct key_limits *limits)
{
    if (limits && atomic_fetch_sub_explicit(&limits->refs, 1, memory_order_acq_rel) == 1)
        free(limits);
}

bool key_concurrency_enter(const struct api_key *key)
{
    struct key_limits *limits = key->limits;
    int running = atomic_load_explicit(&limits->running, memory_order_relaxed);
    do {
        if (key->max_concurrency > 0 && running >= key->max_concurrency)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&limits->running, &running, running + 1, memory_order_acq_rel,
                                                    memory_order_relaxed));
    atomic_fetch_add_explicit(&limits->refs, 1, memory_order_relaxed);
    return true;
}

void key_concurrency_leave(struct key_limits *limits)
{
    int before = atomic_fetch_sub_explicit(&limits->running, 1, memory_order_acq_rel);
    assert(before > 0);
    (void)before;
    limits_unref(limits);
}

static uint64_t slot_at(const struct key_limits *limits, uint64_t position)
{
    return atomic_load_explicit(&limits->slots[position % limits->slot_count], memory_order_acquire);
}

static bool is_free(uint64_t slot, int64_t now_ms)
{
    return slot == 0 || now_ms - (int64_t)(slot & TIME_MASK) >= WINDOW_MS;
}

/* How many of the slots from position `next` on may be used now: times only grow along the ring. */
static int64_t count_free(const struct key_limits *limits, uint64_t next, int64_t now_ms)
{
    size_t low = 0, high = limits->slot_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_free(slot_at(limits, next + middle), now_ms))
            low = middle + 1;
        else
            high = middle;
    }
    return (int64_t)low;
}

static int64_t at_least_one(int64_t ms)
{
    return ms < 1 ? 1 : ms > WINDOW_MS ? WINDOW_MS : ms;
}

bool key_rate_take(const struct api_key *key, int64_t now_ns, int64_t *ret_retry_ms, int64_t *ret_left,
                   int64_t *ret_reset_ms)
{
    struct key_limits *limits = key->limits;
    if (limits->slot_count == 0) {
        *ret_left = -1;
        *ret_reset_ms = 0;
        return true;
    }
    int64_t now_ms = now_ns / NS_PER_MS;
    for (;;) {
        unsigned long long head = atomic_load_explicit(&limits->head, memory_order_acquire);
        uint64_t lap = (head / limits->slot_count + 1) & 0xffffff;
        unsigned long long slot = slot_at(limits, head);
        if (slot != 0 && slot >> TIME_BITS == lap) { /* taken by a thread that has not moved head yet: do it */
            atomic_compare_exchange_strong(&limits->head, &head, head + 1);
            continue;
        }
        if (!is_free(slot, now_ms)) {
            if (atomic_load_explicit(&limits->head, memory_order_acquire) != head)
                continue;
            uint64_t newest = slot_at(limits, head + limits->slot_count - 1);
            *ret_retry_ms = at_least_one((int64_t)(slot & TIME_MASK) + WINDOW_MS - now_ms);
            *ret_left = 0;
            *ret_reset_ms = at_least_one((int64_t)(newest & TIME_MASK) + WINDOW_MS - now_ms);
            return false;
        }
        unsigned long long taken = lap << TIME_BITS | ((uint64_t)now_ms & TIME_MASK);
        if (!atomic_compare_exchange_strong(&limits->slots[head % limits->slot_count], &slot, taken))
            continue;
        unsigned long long next = head;
        atomic_compare_exchange_strong(&limits->head, &next, head + 1);
        *ret_left = count_free(limits, head + 1, now_ms);
        *ret_reset_ms = WINDOW_MS;
        return true;
    }
}

void ratelimit_duration_text(int64_t span_ms, char ret[static DURATION_TEXT_MAX])
{
    if (span_ms == WINDOW_MS) { /* by far the most frequent */
        memcpy(ret, "1m0s", 5);
        return;
    }
    if (span_ms < 1000) {
        snprintf(ret, DURATION_TEXT_MAX, "%" PRId64 "ms", span_ms < 0 ? 0 : span_ms);
        return;
    }
    int64_t hours = span_ms / 3600000, minutes = span_ms / 60000 % 60, ms = span_ms % 60000;
    int at = 0;
    if (hours > 0)
        at += snprintf(ret, DURATION_TEXT_MAX, "%" PRId64 "h", hours);
    if (hours > 0 || minutes > 0)
        at += snprintf(ret + at, DURATION_TEXT_MAX - (size_t)at, "%" PRId64 "m", minutes);
    char fraction[8] = "";
    if (ms % 1000 > 0) {
        snprintf(fraction, sizeof(fraction), ".%03d", (int)(ms % 1000));
        for (size_t end = strlen(fraction); fraction[end - 1] == '0'; end--)
            fraction[end - 1] = '\0';
    }
    snprintf(ret + at, DURATION_TEXT_MAX - (size_t)at, "%d%ss", (int)(ms / 1000), fraction);
}

/* -- keys -- */

struct api_key *api_key_new(const struct api_key *fields)
{
    size_t text_len = 0;
    for (size_t i = 0; i < fields->model_count; i++)
        text_len += fields->models[i].len;
    size_t list_len = fields->model_count * sizeof(struct str);
    struct api_key *key = malloc(sizeof(*key) + list_len + text_len);
    struct key_limits *limits = limits_new(fields->rpm);
    if (!key || !limits) {
        free(key);
        limits_unref(limits);
        return NULL;
    }
    memcpy(key, fields, sizeof(*key));
    struct str *models = (struct str *)(void *)(key + 1);
    char *text = (char *)(models + fields->model_count);
    for (size_t i = 0; i < fields->model_count; i++) {
        memcpy(text, fields->models[i].ptr, fields->models[i].len);
        models[i] = (struct str){text, fields->models[i].len};
        text += fields->models[i].len;
    }
    key->models = models;
    key->limits = limits;
    key->balance = fields->balance ? credit_ref(fields->balance) : NULL;
    key->budget = fields->budget ? credit_ref(fields->budget) : NULL;
    atomic_init(&key->refs, 1);
    return key;
}

struct api_key *api_key_ref(struct api_key *key)
{
    atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    return key;
}

struct api_key *api_key_unref(struct api_key *key)
{
    if (!key || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) > 1)
        return NULL;
    limits_unref(key->limits);
    if (key->balance)
        credit_unref(key->balance);
    if (key->budget)
        credit_unref(key->budget);
    free(key);
    return NULL;
}

bool api_key_allows_model(const struct api_key *key, struct str model)
{
    if (!key->has_models)
        return true;
    for (size_t i = 0; i < key->model_count; i++) {
        if (str_eq(key->models[i], model))
            return true;
    }
    return false;
}

/* -- the table: open addressing by the digest's first bytes, at most half full -- */

struct keyring {
    atomic_uint refs;
    size_t count, mask;
    struct api_key *slots[];
};

static size_t home_of(const struct keyring *keyring, const uint8_t *sha256)
{
    uint64_t bits;
    memcpy(&bits, sha256, sizeof(bits));
    return (size_t)bits & keyring->mask;
}

struct keyring *keyring_new(struct api_key *const *keys, size_t count)
{
    size_t size = 8;
    while (size < count * 2)
        size *= 2;
    struct keyring *keyring = calloc(1, sizeof(*keyring) + size * sizeof(keyring->slots[0]));
    if (!keyring)
        return NULL;
    atomic_init(&keyring->refs, 1);
    keyring->count = count;
    keyring->mask = size - 1;
    for (size_t i = 0; i < count; i++) {
        size_t at = home_of(keyring, keys[i]->sha256);
        while (keyring->slots[at])
            at = (at + 1) & keyring->mask;
        keyring->slots[at] = api_key_ref(keys[i]);
    }
    return keyring;
}

struct keyring *keyring_ref(struct keyring *keyring)
{
    atomic_fetch_add_explicit(&keyring->refs, 1, memory_order_relaxed);
    return keyring;
}

struct keyring *keyring_unref(struct keyring *keyring)
{
    if (!keyring || atomic_fetch_sub_explicit(&keyring->refs, 1, memory_order_acq_rel) > 1)
        return NULL;
    for (size_t i = 0; i <= keyring->mask; i++)
        api_key_unref(keyring->slots[i]);
    free(keyring);
    return NULL;
}

size_t keyring_count(const struct keyring *keyring)
{
    return keyring->count;
}

const struct api_key *keyring_find(const struct keyring *keyring, struct str secret)
{
    if (secret.len == 0 || secret.len > SECRET_PRESENTED_MAX)
        return NULL;
    uint8_t sha256[SHA256_BYTES];
    crypto_sha256(secret, sha256);
    for (size_t at = home_of(keyring, sha256); keyring->slots[at]; at = (at + 1) & keyring->mask) {
        if (crypto_equal(keyring->slots[at]->sha256, sha256, SHA256_BYTES))
            return keyring->slots[at];
    }
    return NULL;
}
