/* Reading rows of a market. */
#include "scheduler/market_columns.h"

#include <assert.h>

size_t market_count(const struct market *market)
{
    return market->count;
}

struct str market_id(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return (struct str){market->pool.ptr + market->id_at[row], market->id_at[row + 1] - market->id_at[row]};
}

struct worker *market_worker(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->worker[row];
}

struct str market_network(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->networks, market->network[row]);
}

struct str market_gpu(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->gpus_seen, market->gpu[row]);
}

struct str market_gpu_raw(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->gpu_raws, market->gpu_raw[row]);
}

struct str market_region(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->regions, market->region[row]);
}

struct str market_supplier(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->suppliers, market->supplier[row]);
}

int64_t market_price(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->price_usd_nano[row];
}

uint32_t market_gpus(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->gpus[row];
}

uint32_t market_slots(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->slots[row];
}

int32_t market_take_rate_bps(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->take_rate_bps[row];
}

uint64_t market_vram_bytes(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->vram_bytes[row];
}

bool market_is_interruptible(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->interruptible[row];
}

double market_reputation(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return 1.0 - (double)market->reputation_part[row];
}

double market_reputation_score(const struct market *market, uint32_t row, enum reputation_dimension dimension)
{
    assert(row < market->count && (unsigned)dimension < REPUTATION_DIMENSIONS);
    return (double)market->reputation_scores[row][dimension];
}

struct str market_claimed(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->claims, market->claimed[row]);
}

double market_performance(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return (double)market->performance[row];
}

int64_t market_effective_price(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    double price = (double)market->price_usd_nano[row] / (double)market->claimed_performance[row];
    return price < 9e18 ? (int64_t)price : INT64_MAX;
}

int64_t market_latency_ns(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->latency_ns[row];
}

static const struct sighting *sighting_of(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->sightings[market->network[row]];
}

int64_t market_observed_at_ms(const struct market *market, uint32_t row)
{
    const struct sighting *sighting = sighting_of(market, row);
    return sighting ? atomic_load_explicit(&sighting->at_ms, memory_order_relaxed) : market->observed_at_ms[row];
}

int64_t market_ttl_ms(const struct market *market, uint32_t row)
{
    const struct sighting *sighting = sighting_of(market, row);
    return sighting ? sighting->ttl_ms : 0;
}

unsigned market_marks(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->marks[row];
}

struct str market_country(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->countries, market->country[row]);
}

struct str market_terms(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->term_texts, market->terms[row]);
}

struct str market_also(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return intern_text(market, &market->also_texts, market->also[row]);
}

uint32_t market_available(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->available[row];
}

uint32_t market_fraction_ppm(const struct market *market, uint32_t row)
{
    assert(row < market->count);
    return market->fraction_ppm[row];
}

uint32_t market_model(const struct market *market, struct str name, struct str *ret_target)
{
    /* The operator's alias wins over a model of the same name, as long as somebody serves what it stands for. */
    uint32_t model = MARKET_NONE, alias = intern_find(market, &market->aliases, name);
    if (alias != MARKET_NONE)
        model = market->alias_target[alias];
    if (model == MARKET_NONE)
        model = intern_find(market, &market->models, name);
    if (model != MARKET_NONE && ret_target)
        *ret_target = intern_text(market, &market->models, model);
    return model;
}

size_t market_model_count(const struct market *market)
{
    return market->models.count;
}

struct str market_model_name(const struct market *market, uint32_t model)
{
    return intern_text(market, &market->models, model);
}

const uint32_t *market_replicas(const struct market *market, uint32_t model, size_t *ret_count)
{
    assert(model < market->models.count);
    *ret_count = market->replica_at[model + 1] - market->replica_at[model];
    return market->replica_rows + market->replica_at[model];
}
