#include "gateway/registry.h"

#include "core/clock.h"
#include "core/money.h"
#include "scheduler/exposure.h"

#include <stdlib.h>
#include <string.h>

#define GIB 1073741824.0

/* A worker that left the registry while calls or snapshots still hold it: its index is taken until they let go. */
struct gone {
    struct worker *worker;
    struct gone *next;
};

struct registry {
    size_t reactor_count;
    struct registry_entry **entries; /* by id */
    size_t count, cap;
    uint32_t *free_indexes;
    size_t free_count, free_cap;
    uint32_t next_index;
    struct gone *gone;
    uint32_t pass;
};

enum error registry_open(size_t reactor_count, struct registry **ret)
{
    struct registry *registry = calloc(1, sizeof(*registry));
    if (!registry)
        return ERR_NO_MEMORY;
    registry->reactor_count = reactor_count;
    *ret = registry;
    return ERR_NONE;
}

static void entry_free(struct registry_entry *entry)
{
    worker_unref(entry->worker);
    free(entry->links_of);
    free(entry->models);
    free(entry);
}

struct registry *registry_free(struct registry *registry)
{
    if (!registry)
        return NULL;
    for (size_t i = 0; i < registry->count; i++)
        entry_free(registry->entries[i]);
    for (struct gone *gone = registry->gone, *next; gone; gone = next) {
        next = gone->next;
        worker_unref(gone->worker);
        free(gone);
    }
    free(registry->entries);
    free(registry->free_indexes);
    free(registry);
    return NULL;
}

/* -- the table --------------------------------------------------------------------------------------------------- */

size_t registry_count(const struct registry *registry)
{
    return registry->count;
}

struct registry_entry *registry_at(const struct registry *registry, size_t i)
{
    return registry->entries[i];
}

static int order_of(struct str a, struct str b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Where the id is, or would be. */
static size_t place_of(const struct registry *registry, struct str id, bool *ret_found)
{
    size_t low = 0, high = registry->count;
    *ret_found = false;
    while (low < high && id.len > 0) {
        size_t middle = low + (high - low) / 2;
        int order = order_of(str_of(registry->entries[middle]->record.id), id);
        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct registry_entry *registry_find(const struct registry *registry, struct str id)
{
    bool found;
    size_t at = place_of(registry, id, &found);
    return found ? registry->entries[at] : NULL;
}

/* Room for one more entry, and for the index of each that there may be, so that giving one back never fails. */
static bool reserve(struct registry *registry)
{
    size_t cap = registry->cap ? registry->cap * 2 : 64;
    if (registry->count < registry->cap && registry->next_index < registry->free_cap)
        return true;
    if (registry->count == registry->cap) {
        void *entries = realloc(registry->entries, cap * sizeof(registry->entries[0]));
        if (!entries)
            return false;
        registry->entries = entries;
        registry->cap = cap;
    }
    if (registry->next_index == registry->free_cap) {
        size_t free_cap = registry->free_cap ? registry->free_cap * 2 : 64;
        void *indexes = realloc(registry->free_indexes, free_cap * sizeof(registry->free_indexes[0]));
        if (!indexes)
            return false;
        registry->free_indexes = indexes;
        registry->free_cap = free_cap;
    }
    return true;
}

static struct registry_entry *entry_new(struct registry *registry, const char *id)
{
    struct registry_entry *entry = calloc(1, sizeof(*entry));
    bool is_reused = registry->free_count > 0;
    uint32_t index = is_reused ? registry->free_indexes[registry->free_count - 1] : registry->next_index;
    if (!entry)
        return NULL;
    entry->links_of = calloc(registry->reactor_count ? registry->reactor_count : 1, 1);
    entry->worker = entry->links_of ? worker_new(id, index) : NULL;
    if (!entry->worker) {
        free(entry->links_of);
        free(entry);
        return NULL;
    }
    if (is_reused)
        registry->free_count--;
    else
        registry->next_index++;
    return entry;
}

/* -- records ----------------------------------------------------------------------------------------------------- */

static enum registry_change compare(const struct worker_record *old, const struct worker_record *new)
{
    bool is_same = old->admission.state == new->admission.state &&admission_is_ready(&old->admission) ==
                       admission_is_ready(&new->admission) &&
                   old->gpus == new->gpus && old->slots == new->slots && old->price_usd_nano == new->price_usd_nano &&
                   old->vram_bytes == new->vram_bytes && !strcmp(old->gpu, new->gpu) &&
                   !strcmp(old->gpu_raw, new->gpu_raw) && !strcmp(old->region, new->region) &&
                   !strcmp(old->tags, new->tags) && !strcmp(old->supplier, new->supplier) &&
                   !strcmp(old->proof.gpu, new->proof.gpu) && !old->proof.at_ms == !new->proof.at_ms &&
                   old->proof.devices == new->proof.devices;
    if (!is_same)
        return REGISTRY_NOW;
    bool is_same_score = old->reputation.at_ms == new->reputation.at_ms && old->proof.at_ms == new->proof.at_ms;
    return is_same_score ? REGISTRY_SAME : REGISTRY_SLOW;
}

enum error registry_put(struct registry *registry, const struct worker_record *record, enum registry_change *ret_change,
                        struct registry_entry **ret_entry)
{
    bool found;
    size_t at = place_of(registry, str_of(record->id), &found);
    enum registry_change change = REGISTRY_NOW;
    if (found) {
        change = compare(&registry->entries[at]->record, record);
    } else {
        struct registry_entry *entry = reserve(registry) ? entry_new(registry, record->id) : NULL;
        if (!entry)
            return ERR_NO_MEMORY;
        memmove(&registry->entries[at + 1], &registry->entries[at],
                (registry->count - at) * sizeof(registry->entries[0]));
        registry->entries[at] = entry;
        registry->count++;
    }
    struct registry_entry *entry = registry->entries[at];
    entry->record = *record;
    entry->pass = registry->pass;
    *ret_change = change;
    if (ret_entry)
        *ret_entry = entry;
    return ERR_NONE;
}

void registry_pass_begin(struct registry *registry)
{
    registry->pass++;
}

/* Keeps the index back until nobody holds the worker. Out of memory: the index is lost, which is harmless. */
static void let_go(struct registry *registry, struct worker *worker)
{
    struct gone *gone = malloc(sizeof(*gone));
    if (!gone) {
        worker_unref(worker);
        return;
    }
    *gone = (struct gone){worker, registry->gone};
    registry->gone = gone;
}

void registry_pass_end(struct registry *registry, void (*on_gone)(void *ctx, struct registry_entry *entry), void *ctx)
{
    size_t kept = 0;
    for (size_t i = 0; i < registry->count; i++) {
        struct registry_entry *entry = registry->entries[i];
        if (entry->pass == registry->pass) {
            registry->entries[kept++] = entry;
            continue;
        }
        on_gone(ctx, entry);
        let_go(registry, worker_ref(entry->worker));
        entry_free(entry);
    }
    registry->count = kept;
}

void registry_remove(struct registry *registry, struct registry_entry *entry,
                     void (*on_gone)(void *ctx, struct registry_entry *entry), void *ctx)
{
    bool found;
    size_t at = place_of(registry, str_of(entry->record.id), &found);
    if (!found)
        return;
    on_gone(ctx, entry);
    memmove(&registry->entries[at], &registry->entries[at + 1],
            (registry->count - at - 1) * sizeof(registry->entries[0]));
    registry->count--;
    let_go(registry, worker_ref(entry->worker));
    entry_free(entry);
}

void registry_sweep(struct registry *registry)
{
    for (struct gone **at = &registry->gone; *at;) {
        struct gone *gone = *at;
        if (atomic_load(&gone->worker->refs) > 1) {
            at = &gone->next;
            continue;
        }
        *at = gone->next;
        registry->free_indexes[registry->free_count++] = gone->worker->index;
        worker_unref(gone->worker);
        free(gone);
    }
}

/* -- links and status -------------------------------------------------------------------------------------------- */

bool registry_link(struct registry *registry, struct registry_entry *entry, unsigned reactor, bool is_up,
                   int64_t now_ns)
{
    unsigned before = entry->links;
    if (reactor >= registry->reactor_count)
        return false;
    if (is_up && entry->links_of[reactor] < UINT8_MAX) {
        entry->links_of[reactor]++;
        entry->links++;
    } else if (!is_up && entry->links_of[reactor] > 0) {
        entry->links_of[reactor]--;
        entry->links--;
        if (entry->links == 0)
            entry->unlinked_ns = now_ns;
    }
    return (before == 0) != (entry->links == 0);
}

static bool models_equal(const struct registry_entry *entry, const struct str *models, size_t count)
{
    if (count != entry->model_count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!str_eq(entry->models[i], models[i]))
            return false;
    return true;
}

enum error registry_models(struct registry_entry *entry, const struct str *models, size_t count, bool *ret_changed)
{
    size_t bytes = (count ? count : 1) * sizeof(struct str);
    *ret_changed = !entry->is_models_known || !models_equal(entry, models, count);
    if (!*ret_changed)
        return ERR_NONE;
    for (size_t i = 0; i < count; i++)
        bytes += models[i].len;
    struct str *copy = malloc(bytes);
    if (!copy)
        return ERR_NO_MEMORY;
    char *text = (char *)(copy + (count ? count : 1));
    for (size_t i = 0; i < count; i++) {
        memcpy(text, models[i].ptr, models[i].len);
        copy[i] = (struct str){text, models[i].len};
        text += models[i].len;
    }
    free(entry->models);
    entry->models = copy;
    entry->model_count = count;
    entry->is_models_known = true;
    entry->is_models_stored = false;
    return ERR_NONE;
}

/* -- what others see of it --------------------------------------------------------------------------------------- */

bool registry_serves(const struct registry_entry *entry, int admission, int64_t now_ns)
{
    if (entry->record.lease[0]) /* somebody's own, and not for calls */
        return false;
    bool is_admitted = admission != PROBE_REQUIRED || admission_is_ready(&entry->record.admission);
    bool is_near = entry->links > 0 || (entry->unlinked_ns && now_ns - entry->unlinked_ns < REGISTRY_UNLINKED_NS);
    return is_admitted && is_near && entry->is_models_known && !entry->draining;
}

/* -- what was proven ------------------------------------------------------------------------------------------------
 */

/* What it is sold as: by the proven numbers, once there are any. */
static struct str sold_gpu(const struct worker_record *record)
{
    const struct worker_proof *proof = &record->proof;
    if (!proof->at_ms)
        return str_of(record->gpu);
    return proof->gpu[0] ? str_of(proof->gpu) : STR("unknown");
}

/* Of a GPU. The class's whole memory, for a challenge fills a little less than all; without one no more than proven. */
static uint64_t sold_vram(const struct worker_record *record)
{
    const struct worker_proof *proof = &record->proof;
    double proven = proof->proven.vram_gib * GIB;
    if (!proof->at_ms)
        return record->vram_bytes;
    if (proof->class_vram_gib > 0)
        return (uint64_t)(proof->class_vram_gib * GIB);
    return proven < (double)record->vram_bytes ? (uint64_t)proven : record->vram_bytes;
}

static double share_or_1(double share, int64_t proven_at_ms)
{
    return proven_at_ms && share > 0 ? share : 1;
}

/* GPUs that were not proven are not sold. A machine without one counts as its supplier says; what it says of itself is
 * not enough for that, or a proven GPU could be sold many times under the name of none. */
static uint32_t sold_gpus(const struct worker_record *record)
{
    const struct worker_proof *proof = &record->proof;
    uint32_t gpus = record->gpus ? record->gpus : 1;
    bool is_cpu = !strcmp(record->gpu, "cpu") && str_eq(sold_gpu(record), STR("cpu"));
    if (!proof->at_ms || !proof->devices || is_cpu)
        return gpus;
    return gpus < proof->devices ? gpus : proof->devices;
}

static uint32_t calls_max(const struct worker_record *record, int64_t start_usd_nano, int64_t now_ms)
{
    int64_t earned = exposure_earned_usd_nano(record->earned_usd_nano, record->reputation.at_ms, now_ms);
    int64_t call = exposure_call_usd_nano(record->price_usd_nano, sold_gpus(record), record->slots);
    return exposure_calls(exposure_cap_usd_nano(start_usd_nano, earned), call);
}

size_t registry_offers(struct registry *registry, const struct settings *settings, int64_t now_ns, int64_t now_ms,
                       struct offer *offers)
{
    size_t count = 0;
    for (size_t i = 0; i < registry->count; i++) {
        struct registry_entry *entry = registry->entries[i];
        const struct worker_record *record = &entry->record;
        int64_t heard_ns = atomic_load(&entry->worker->heard_ns);
        bool serves = registry_serves(entry, settings->probes.admission, now_ns);
        entry->was_served = serves;
        if (!serves) /* cannot be had now: no offer */
            continue;
        struct offer *offer = &offers[count++];
        *offer = (struct offer){
            .id = str_of(record->id),
            .network = STR("native"),
            .gpu = sold_gpu(record),
            .claimed = str_of(record->gpu),
            .gpu_raw = str_of(record->gpu_raw),
            .region = str_of(record->region),
            .supplier = str_of(record->supplier),
            .tags = str_of(record->tags),
            .models = entry->models,
            .model_count = entry->is_models_known ? entry->model_count : 0,
            .worker = entry->worker,
            .is_ready = true,
            .gpus = sold_gpus(record),
            .slots = record->slots ? record->slots : 1,
            .price_usd_nano = record->price_usd_nano,
            .take_rate_bps = (int32_t)settings_take_bps(settings, str_of(record->supplier)),
            .vram_bytes = sold_vram(record),
            .reputation = reputation_bound(&record->reputation, now_ms),
            .performance = share_or_1(record->proof.performance, record->proof.at_ms),
            .claimed_performance = share_or_1(record->proof.claimed_performance, record->proof.at_ms),
            .calls_max = calls_max(record, settings->probes.newcomer_exposure_usd_nano, now_ms),
            .completion = 1,
            .latency_ns = atomic_load(&entry->worker->rtt_ns),
            .observed_at_ms = heard_ns ? now_ms - (now_ns - heard_ns) / NS_PER_MS : record->enrolled_at_ms,
        };
        for (unsigned d = 0; d < REPUTATION_DIMENSIONS; d++)
            offer->reputation_scores[d] = reputation_score(&record->reputation, d, now_ms);
    }
    return count;
}

static json_t *words_of(struct str words)
{
    json_t *list = json_array();
    for (struct str word; list && (word = str_next(&words, ',')).ptr;)
        if (word.len > 0)
            json_array_append_new(list, json_stringn(word.ptr, word.len));
    return list;
}

static json_t *at_or_null(int64_t at_ms)
{
    return at_ms ? json_integer(at_ms) : json_null();
}

/* What keeps an admitted worker from taking calls now; NULL: nothing. */
static const char *absence(const struct registry_entry *entry, const char **ret_state)
{
    const struct worker *worker = entry->worker;
    *ret_state = "offline";
    if (entry->links == 0)
        return "no link";
    if (entry->draining) {
        *ret_state = "draining";
        return "it ends its running calls";
    }
    if (!atomic_load(&worker->upstream_ok))
        return "its model server is down";
    return worker_is_live(worker, clock_mono_ns()) ? NULL : "no heartbeat";
}

static json_t *reputation_parts(const struct reputation *reputation, int64_t now_ms)
{
    const struct reputation now = reputation_at(reputation, now_ms);
    json_t *parts = json_object();
    for (unsigned d = 0; parts && d < REPUTATION_DIMENSIONS; d++)
        json_object_set_new(parts, reputation_dimension_name(d),
                            json_pack("{s:f, s:f, s:f}", "score", reputation_score(&now, d, now_ms), "good",
                                      now.good[d], "bad", now.bad[d]));
    return parts;
}

/* What a proof showed, beside what was claimed; true: all of it fits in. */
static bool add_proof(json_t *row, const struct worker_record *record, int64_t now_ms)
{
    const struct worker_proof *proof = &record->proof;
    bool is_proven = proof->at_ms != 0;
    struct str sold = sold_gpu(record);
    int64_t banned_until = record->admission.banned_until_ms;
    json_t *more = json_pack("{s:s%, s:s, s:o, s:f, s:o, s:o, s:o, s:o}", "gpu", sold.ptr, sold.len, "gpu_claimed",
                             record->gpu, "gpu_proven", is_proven ? json_stringn(sold.ptr, sold.len) : json_null(),
                             "performance", share_or_1(proof->performance, proof->at_ms), "reputation_parts",
                             reputation_parts(&record->reputation, now_ms), "proven_at", at_or_null(proof->at_ms),
                             "driver", proof->driver[0] ? json_string(proof->driver) : json_null(), "banned_until",
                             at_or_null(banned_until > now_ms ? banned_until : 0));
    bool fits = more && json_object_update(row, more) == 0;
    json_decref(more);
    return fits;
}

json_t *registry_row(const struct registry_entry *entry, int64_t now_ms)
{
    const struct worker_record *record = &entry->record;
    const struct admission *admission = &record->admission;
    int ours = atomic_load(&entry->worker->in_flight), reported = atomic_load(&entry->worker->reported);
    char price[MONEY_TEXT_MAX];
    money_text(record->price_usd_nano, price);
    json_t *models = json_array();
    for (size_t i = 0; models && i < entry->model_count; i++)
        json_array_append_new(models, json_stringn(entry->models[i].ptr, entry->models[i].len));
    const char *state = admission_state_name(admission->state), *absent_state;
    const char *why = admission->reason[0] ? admission->reason : NULL;
    const char *why_absent = admission->state == ADMISSION_READY ? absence(entry, &absent_state) : NULL;
    if (why_absent) {
        state = absent_state;
        why = why_absent;
    }
    json_t *reason = why ? json_string(why) : json_null();
    json_t *row = json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:o, s:s, s:s, s:i, s:s, s:i, s:i, s:s, s:o, s:f, s:o, s:o, s:o, s:b, s:b, s:I}",
        "id", record->id, "name", record->name, "supplier", record->supplier, "state", state, "reason", reason,
        "models", models, "gpu", record->gpu, "gpu_raw", record->gpu_raw, "gpus", (int)record->gpus,
        "price_per_gpu_hour_usd", price, "slots", (int)record->slots, "in_flight",
        entry->links && reported > ours ? reported : ours, "region", record->region, "tags",
        words_of(str_of(record->tags)), "reputation", reputation_bound(&record->reputation, now_ms), "last_probe_at",
        at_or_null(admission->last_probe_at_ms), "last_probe_took_ms",
        admission->last_probe_took_ms ? json_integer(admission->last_probe_took_ms) : json_null(), "next_probe_at",
        at_or_null(admission->next_probe_at_ms), "linked", entry->links > 0, "draining", (int)entry->draining,
        "enrolled_at", (json_int_t)record->enrolled_at_ms);
    if (row && record->lease[0])
        json_object_set_new(row, "lease", json_string(record->lease));
    if (row && !add_proof(row, record, now_ms)) {
        json_decref(row);
        return NULL;
    }
    return row;
}
