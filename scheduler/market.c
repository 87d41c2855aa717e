/* Building a market and reading rows of it. Texts live in one pool and are referred to by offset while it grows. */
#include "scheduler/market_columns.h"
#include "core/crypto.h"
#include "core/money.h"
#include "scheduler/exposure.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define POOL_MAX UINT32_MAX
#define INTERN_SLOTS_MIN 16
#define FRACTION_WHOLE 1000000
#define SHARE_MIN 0.01 /* of performance and completion, so that an effective price stays finite */

/* -- sightings -- */

struct sighting *sighting_new(int64_t ttl_ms)
{
    struct sighting *sighting = calloc(1, sizeof(*sighting));
    if (!sighting)
        return NULL;
    atomic_init(&sighting->refs, 1);
    sighting->ttl_ms = ttl_ms;
    return sighting;
}

struct sighting *sighting_ref(struct sighting *sighting)
{
    if (sighting)
        atomic_fetch_add_explicit(&sighting->refs, 1, memory_order_relaxed);
    return sighting;
}

struct sighting *sighting_unref(struct sighting *sighting)
{
    if (sighting && atomic_fetch_sub_explicit(&sighting->refs, 1, memory_order_acq_rel) == 1)
        free(sighting);
    return NULL;
}

/* -- interned texts -- */

static uint64_t hash_text(const struct market *market, const struct intern *intern, struct str text)
{
    if (!intern->ignores_case)
        return str_hash(text, market->seed);
    char folded[256]; /* the rest of a longer text only matters to the comparison */
    size_t len = text.len < sizeof(folded) ? text.len : sizeof(folded);
    for (size_t i = 0; i < len; i++) {
        char c = text.ptr[i];
        folded[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return str_hash((struct str){folded, len}, market->seed);
}

struct str intern_text(const struct market *market, const struct intern *intern, uint32_t number)
{
    assert(number < intern->count);
    return (struct str){market->pool.ptr + intern->texts[number].at, intern->texts[number].len};
}

/* The slot that holds the text, or the free one where it belongs. */
static uint32_t *find_slot(const struct market *market, const struct intern *intern, struct str text)
{
    uint32_t at = (uint32_t)hash_text(market, intern, text) & (intern->slot_count - 1);
    while (intern->slots[at]) {
        struct str there = intern_text(market, intern, intern->slots[at] - 1);
        if (intern->ignores_case ? str_eq_nocase(there, text) : str_eq(there, text))
            break;
        at = (at + 1) & (intern->slot_count - 1);
    }
    return &intern->slots[at];
}

uint32_t intern_find(const struct market *market, const struct intern *intern, struct str text)
{
    return intern->slot_count ? *find_slot(market, intern, text) - 1 : MARKET_NONE; /* 0 - 1 is MARKET_NONE */
}

static bool intern_grow(const struct market *market, struct intern *intern)
{
    uint32_t cap = intern->cap ? intern->cap * 2 : INTERN_SLOTS_MIN / 2;
    if (cap > UINT32_MAX / 4)
        return false;
    struct intern_text *texts = realloc(intern->texts, cap * sizeof(*texts));
    if (!texts)
        return false;
    intern->texts = texts;
    uint32_t *slots = calloc((size_t)cap * 2, sizeof(*slots));
    if (!slots)
        return false;
    free(intern->slots);
    intern->slots = slots;
    intern->slot_count = cap * 2;
    intern->cap = cap;
    for (uint32_t i = 0; i < intern->count; i++)
        *find_slot(market, intern, intern_text(market, intern, i)) = i + 1;
    return true;
}

static bool intern_add(struct market *market, struct intern *intern, struct str text, uint32_t *ret)
{
    if (intern->count == intern->cap && !intern_grow(market, intern))
        return false;
    uint32_t *slot = find_slot(market, intern, text);
    if (!*slot) {
        size_t at = market->pool.len;
        if (!buf_append_str(&market->pool, text))
            return false;
        intern->texts[intern->count] = (struct intern_text){(uint32_t)at, (uint32_t)text.len};
        *slot = ++intern->count;
    }
    *ret = *slot - 1;
    return true;
}

static void intern_free(struct intern *intern)
{
    free(intern->texts);
    free(intern->slots);
}

/* -- tags -- */

/* Cuts the next tag off a comma-separated list; absent when none is left. */
static struct str next_tag(struct str *rest)
{
    for (;;) {
        struct str tag = str_next(rest, ',');
        if (!tag.ptr)
            return tag;
        tag = str_trim(tag);
        if (tag.len)
            return tag;
    }
}

static bool add_tags(struct market *market, uint32_t row, struct str tags)
{
    if (!intern_add(market, &market->tag_texts, tags, &market->tag_text[row]))
        return false;
    size_t count = 0;
    for (struct str tag = next_tag(&tags); tag.ptr && count < OFFER_TAGS_MAX; tag = next_tag(&tags), count++) {
        uint32_t number = intern_find(market, &market->tag_names, tag);
        if (number == MARKET_NONE) {
            if (market->tag_names.count == MARKET_TAGS_MAX) {
                market->tags_overflowed = true;
                continue;
            }
            if (!intern_add(market, &market->tag_names, tag, &number))
                return false;
        }
        market->tags[row] |= UINT64_C(1) << number;
    }
    return true;
}

void tag_filter_make(const struct market *market, struct str require, struct tag_filter *ret)
{
    *ret = (struct tag_filter){0};
    for (struct str tag = next_tag(&require); tag.ptr; tag = next_tag(&require)) {
        uint32_t number = intern_find(market, &market->tag_names, tag);
        if (number != MARKET_NONE)
            ret->mask |= UINT64_C(1) << number;
        else if (market->tags_overflowed && ret->text_count < OFFER_TAGS_MAX)
            ret->texts[ret->text_count++] = tag;
        else
            ret->impossible = true;
    }
}

static bool has_tag_text(struct str tags, struct str wanted)
{
    size_t count = 0;
    for (struct str tag = next_tag(&tags); tag.ptr && count < OFFER_TAGS_MAX; tag = next_tag(&tags), count++) {
        if (str_eq_nocase(tag, wanted))
            return true;
    }
    return false;
}

bool offer_has_tags(struct str tags, struct str require)
{
    for (struct str tag = next_tag(&require); tag.ptr; tag = next_tag(&require)) {
        if (!has_tag_text(tags, tag))
            return false;
    }
    return true;
}

bool tag_filter_fits(const struct market *market, const struct tag_filter *filter, uint32_t row)
{
    if (filter->impossible || (market->tags[row] & filter->mask) != filter->mask)
        return false;
    for (size_t i = 0; i < filter->text_count; i++) {
        if (!has_tag_text(intern_text(market, &market->tag_texts, market->tag_text[row]), filter->texts[i]))
            return false;
    }
    return true;
}

/* -- medians: the references of the price part -- */

/* The lower median; the order of values is lost. Expected linear: the pivots are random. */
static float median(float *values, size_t count, uint64_t seed)
{
    if (count == 0)
        return 0;
    size_t want = (count - 1) / 2, from = 0, to = count - 1;
    while (from < to) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        float pivot = values[from + (size_t)(seed >> 33) % (to - from + 1)];
        size_t less = from, at = from, more = to; /* [from, less) < pivot, [less, at) equal, (more, to] > pivot */
        while (at <= more) {
            float value = values[at];
            if (value < pivot) {
                values[at++] = values[less];
                values[less++] = value;
            } else if (value > pivot) {
                values[at] = values[more];
                values[more--] = value; /* more >= 0: the pivot itself lies at or before it */
            } else {
                at++;
            }
        }
        if (want < less)
            to = less - 1;
        else if (want > more)
            from = more + 1;
        else
            return pivot;
    }
    return values[want];
}

static bool add_medians(struct market *market)
{
    uint32_t classes = market->gpus_seen.count;
    market->gpu_rows = calloc((size_t)classes + 1, sizeof(*market->gpu_rows));
    market->gpu_price_median = calloc((size_t)classes + 1, sizeof(*market->gpu_price_median));
    size_t *end = calloc((size_t)classes + 1, sizeof(*end));
    float *values = calloc((size_t)market->count + 1, sizeof(*values));
    bool ok = market->gpu_rows && market->gpu_price_median && end && values;
    if (!ok)
        goto out;
    for (uint32_t row = 0; row < market->count; row++)
        market->gpu_rows[market->gpu[row]]++;
    for (uint32_t class = 0, at = 0; class < classes; class ++) {
        end[class] = at;
        at += market->gpu_rows[class];
    }
    for (uint32_t row = 0; row < market->count; row++)
        values[end[market->gpu[row]]++] = market->price_effective[row];
    for (uint32_t class = 0; class < classes; class ++) {
        uint32_t rows = market->gpu_rows[class];
        market->gpu_price_median[class] = median(values + end[class] - rows, rows, market->seed);
    }
    market->price_median = median(values, market->count, market->seed);
    for (uint32_t model = 0; model < market->models.count; model++) {
        const uint32_t *rows = market->replica_rows + market->replica_at[model];
        uint32_t count = market->replica_at[model + 1] - market->replica_at[model];
        for (uint32_t i = 0; i < count; i++)
            values[i] = market->price_effective[rows[i]];
        market->model_price_median[model] = median(values, count, market->seed);
    }
out:
    free(end);
    free(values);
    return ok;
}

/* -- building -- */

static double share(double value)
{
    return value >= SHARE_MIN ? value < 1.0 ? value : 1.0 : SHARE_MIN; /* NaN becomes the least */
}

static double probability(double value)
{
    return value > 0 ? value < 1 ? value : 1 : 0;
}

#define COLUMN(market, name) ((market)->name = calloc((market)->padded, sizeof(*(market)->name)))

static bool add_columns(struct market *m)
{
    m->id_at = calloc((size_t)m->count + 1, sizeof(*m->id_at));
    return m->id_at && COLUMN(m, valid) && COLUMN(m, interruptible) && COLUMN(m, marks) && COLUMN(m, gpu) &&
           COLUMN(m, claimed) && COLUMN(m, gpu_raw) && COLUMN(m, region) && COLUMN(m, network) && COLUMN(m, supplier) &&
           COLUMN(m, country) && COLUMN(m, terms) && COLUMN(m, also) && COLUMN(m, available) &&
           COLUMN(m, fraction_ppm) && COLUMN(m, tag_text) && COLUMN(m, tags) && COLUMN(m, gpus) && COLUMN(m, slots) &&
           COLUMN(m, calls_max) && COLUMN(m, performance) && COLUMN(m, claimed_performance) &&
           COLUMN(m, reputation_scores) && COLUMN(m, vram_bytes) && COLUMN(m, price_usd_nano) &&
           COLUMN(m, latency_ns) && COLUMN(m, observed_at_ms) && COLUMN(m, take_rate_bps) &&
           COLUMN(m, price_effective) && COLUMN(m, latency_part) && COLUMN(m, reputation_part) && COLUMN(m, worker) &&
           COLUMN(m, worker_hash);
}

static bool add_sighting(struct market *m, uint32_t network, struct sighting *sighting)
{
    if (network >= m->sighting_count) {
        struct sighting **more = realloc(m->sightings, ((size_t)network + 1) * sizeof(struct sighting *));
        if (!more)
            return false;
        while (m->sighting_count <= network)
            more[m->sighting_count++] = NULL;
        m->sightings = more;
    }
    if (!m->sightings[network])
        m->sightings[network] = sighting_ref(sighting);
    return true;
}

static bool add_row(struct market *m, uint32_t row, const struct offer *offer)
{
    if (!intern_add(m, &m->countries, offer->country, &m->country[row]) ||
        !intern_add(m, &m->term_texts, offer->terms, &m->terms[row]) ||
        !intern_add(m, &m->also_texts, offer->also, &m->also[row]))
        return false;
    if (!intern_add(m, &m->gpus_seen, offer->gpu, &m->gpu[row]) ||
        !intern_add(m, &m->claims, offer->claimed.ptr ? offer->claimed : offer->gpu, &m->claimed[row]) ||
        !intern_add(m, &m->gpu_raws, offer->gpu_raw, &m->gpu_raw[row]) ||
        !intern_add(m, &m->regions, offer->region, &m->region[row]) ||
        !intern_add(m, &m->networks, offer->network, &m->network[row]) ||
        !intern_add(m, &m->suppliers, offer->supplier, &m->supplier[row]) || !add_tags(m, row, offer->tags) ||
        !add_sighting(m, m->network[row], offer->sighting))
        return false;
    m->marks[row] = (uint8_t)offer->marks;
    m->marks_seen |= offer->marks;
    m->available[row] = offer->available;
    m->fraction_ppm[row] = offer->fraction_ppm ? offer->fraction_ppm : FRACTION_WHOLE;
    m->valid[row] = 1;
    m->interruptible[row] = offer->interruptible;
    m->gpus[row] = offer->gpus ? offer->gpus : 1;
    m->slots[row] = offer->slots ? offer->slots : 1;
    m->vram_bytes[row] = offer->vram_bytes;
    m->price_usd_nano[row] = offer->price_usd_nano > 0 ? offer->price_usd_nano : 0;
    m->latency_ns[row] = offer->latency_ns > 0 ? offer->latency_ns : 0;
    m->observed_at_ms[row] = offer->observed_at_ms;
    m->take_rate_bps[row] = offer->take_rate_bps;
    m->calls_max[row] = offer->calls_max ? offer->calls_max : EXPOSURE_ANY;
    m->performance[row] = (float)share(offer->performance);
    m->claimed_performance[row] =
        offer->claimed_performance > 0 ? (float)share(offer->claimed_performance) : m->performance[row];
    m->price_effective[row] = (float)((double)m->price_usd_nano[row] / (double)USD_NANO / share(offer->performance) /
                                      share(offer->completion));
    m->latency_part[row] = (float)part_of((double)m->latency_ns[row], LATENCY_REFERENCE_NS);
    m->reputation_part[row] = (float)(1.0 - probability(offer->reputation));
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        m->reputation_scores[row][i] = (float)probability(offer->reputation_scores[i]);
    m->worker[row] = worker_ref(offer->worker);
    m->worker_hash[row] = offer->worker ? str_hash(str_of(offer->worker->id), 0) : 0;
    return true;
}

static bool is_replica(const struct offer *offer)
{
    return offer->is_ready && offer->worker;
}

/* Two passes: count the replicas of each model, then place them. A name twice in one offer counts once. */
static bool add_models(struct market *m, const struct offer *offers)
{
    uint32_t cap = 0, number, total = 0;
    for (uint32_t row = 0; row < m->count; row++) {
        for (size_t i = 0; is_replica(&offers[row]) && i < offers[row].model_count; i++) {
            if (!intern_add(m, &m->models, offers[row].models[i], &number))
                return false;
        }
    }
    cap = m->models.count;
    uint32_t *last_row = malloc(((size_t)cap + 1) * sizeof(*last_row));
    m->replica_at = calloc((size_t)cap + 2, sizeof(*m->replica_at));
    m->model_price_median = calloc((size_t)cap + 1, sizeof(*m->model_price_median));
    bool ok = last_row && m->replica_at && m->model_price_median;
    for (int pass = 0; ok && pass < 2; pass++) {
        memset(last_row, 0xff, ((size_t)cap + 1) * sizeof(*last_row));
        for (uint32_t row = 0; row < m->count; row++) {
            for (size_t i = 0; is_replica(&offers[row]) && i < offers[row].model_count; i++) {
                number = intern_find(m, &m->models, offers[row].models[i]);
                if (last_row[number] == row)
                    continue;
                last_row[number] = row;
                if (pass == 0)
                    m->replica_at[number + 2]++;
                else
                    m->replica_rows[m->replica_at[number + 1]++] = row;
            }
        }
        if (pass == 0) { /* counts to starts, one place to the right: placing moves them to where they belong */
            for (uint32_t i = 0; i < cap; i++)
                m->replica_at[i + 2] += m->replica_at[i + 1];
            total = m->replica_at[cap + 1];
            m->replica_rows = calloc((size_t)total + 1, sizeof(*m->replica_rows));
            ok = m->replica_rows;
        }
    }
    free(last_row);
    return ok;
}

static bool add_aliases(struct market *m, const struct model_alias *aliases, size_t count)
{
    m->alias_target = calloc(count + 1, sizeof(*m->alias_target));
    if (!m->alias_target)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint32_t number;
        if (!intern_add(m, &m->aliases, aliases[i].name, &number))
            return false;
        m->alias_target[number] = intern_find(m, &m->models, aliases[i].target);
    }
    return true;
}

enum error market_build(const struct offer *offers, size_t offer_count, const struct model_alias *aliases,
                        size_t alias_count, struct market **ret)
{
    if (offer_count > UINT32_MAX / 4 || alias_count > UINT32_MAX / 4)
        return ERR_TOO_LARGE;
    struct market *market = calloc(1, sizeof(*market));
    if (!market)
        return ERR_NO_MEMORY;
    atomic_init(&market->refs, 1);
    buf_init(&market->pool, POOL_MAX);
    crypto_random(&market->seed, sizeof(market->seed));
    market->count = (uint32_t)offer_count;
    market->padded = (market->count / MARKET_BLOCK + 1) * MARKET_BLOCK;
    market->gpus_seen.ignores_case = market->regions.ignores_case = market->claims.ignores_case = true;
    market->countries.ignores_case = market->networks.ignores_case = market->tag_names.ignores_case = true;
    /* The first byte is nobody's: it gives even the empty texts an address. */
    bool ok = add_columns(market) && buf_append(&market->pool, "", 1);
    if (ok)
        market->id_at[0] = 1;
    for (uint32_t row = 0; ok && row < market->count; row++) {
        ok = buf_append_str(&market->pool, offers[row].id);
        market->id_at[row + 1] = (uint32_t)market->pool.len;
    }
    for (uint32_t row = 0; ok && row < market->count; row++)
        ok = add_row(market, row, &offers[row]);
    if (!ok || !add_models(market, offers) || !add_aliases(market, aliases, alias_count) || !add_medians(market)) {
        market_unref(market);
        return ERR_NO_MEMORY;
    }
    market->gpu_unknown = intern_find(market, &market->gpus_seen, STR(OFFER_GPU_UNKNOWN));
    *ret = market;
    return ERR_NONE;
}

struct market *market_ref(struct market *market)
{
    if (market)
        atomic_fetch_add_explicit(&market->refs, 1, memory_order_relaxed);
    return market;
}

static void market_free(struct market *m)
{
    for (uint32_t row = 0; m->worker && row < m->count; row++)
        worker_unref(m->worker[row]);
    for (uint32_t i = 0; i < m->sighting_count; i++)
        sighting_unref(m->sightings[i]);
    void *const columns[] = {m->id_at,
                             m->valid,
                             m->interruptible,
                             m->marks,
                             m->sightings,
                             m->country,
                             m->terms,
                             m->also,
                             m->available,
                             m->fraction_ppm,
                             m->gpu,
                             m->claimed,
                             m->gpu_raw,
                             m->region,
                             m->network,
                             m->supplier,
                             m->tag_text,
                             m->tags,
                             m->gpus,
                             m->slots,
                             m->calls_max,
                             m->performance,
                             m->claimed_performance,
                             m->reputation_scores,
                             m->vram_bytes,
                             m->price_usd_nano,
                             m->latency_ns,
                             m->observed_at_ms,
                             m->take_rate_bps,
                             m->price_effective,
                             m->latency_part,
                             m->reputation_part,
                             m->worker,
                             m->worker_hash,
                             m->gpu_price_median,
                             m->gpu_rows,
                             m->replica_at,
                             m->replica_rows,
                             m->model_price_median,
                             m->alias_target};
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        free(columns[i]);
    struct intern *const interns[] = {&m->countries, &m->term_texts, &m->also_texts, &m->gpus_seen, &m->claims,
                                      &m->gpu_raws,  &m->regions,    &m->networks,   &m->suppliers, &m->tag_texts,
                                      &m->tag_names, &m->models,     &m->aliases};
    for (size_t i = 0; i < sizeof(interns) / sizeof(interns[0]); i++)
        intern_free(interns[i]);
    buf_free(&m->pool);
    free(m);
}

struct market *market_unref(struct market *market)
{
    if (market && atomic_fetch_sub_explicit(&market->refs, 1, memory_order_acq_rel) == 1)
        market_free(market);
    return NULL;
}
