/* The market: an immutable snapshot of offers, ready workers, models and prices, in columns. Built by the control
 * thread, handed to every reactor, freed when the last one has dropped it. */
#ifndef SLUICE_SCHEDULER_MARKET_H
#define SLUICE_SCHEDULER_MARKET_H

#include "core/str.h"
#include "scheduler/reputation.h"
#include "scheduler/worker.h"

#define OFFER_TAGS_MAX 16
#define OFFER_GPU_UNKNOWN "unknown" /* its class where the name is not known: only who asks for it sees it */

/* When the offers of a network were last seen: one for all markets that hold them. Written by whoever looks, read by
 * any thread. */
struct sighting {
    atomic_uint refs;
    atomic_llong at_ms;  /* Unix */
    int64_t ttl_ms;      /* for how long they count after that */
    atomic_bool is_down; /* nothing of it can be had now */
};
struct sighting *sighting_new(int64_t ttl_ms); /* NULL: out of memory */
struct sighting *sighting_ref(struct sighting *sighting);
struct sighting *sighting_unref(struct sighting *sighting);

/* What sets an offer apart. */
enum offer_mark {
    OFFER_SLICE = 1 << 0,    /* a part of a GPU */
    OFFER_ESTIMATE = 1 << 1, /* its price is known only when it is taken */
    OFFER_UNPROVEN = 1 << 2, /* its machines are not proven at the door, or it does not matter */
    OFFER_DOUBLE = 1 << 3,   /* another network lists the same machine, cheaper */
    OFFER_ARM = 1 << 4,
};

/* One offer as the control thread knows it; texts are borrowed by market_build for the call. */
struct offer {
    struct str id, network, region, supplier;
    struct str gpu;           /* canonical name of what it is sold as: what was proven, once it was */
    struct str claimed;       /* canonical name of what it says it is; absent: as gpu */
    struct str gpu_raw;       /* as the supplier spells it */
    struct str tags;          /* "gdpr,hipaa" */
    const struct str *models; /* what its upstream serves; none for an offer that is not a ready worker */
    size_t model_count;
    struct worker *worker;  /* native worker; NULL for an offer that is no worker yet; the market takes a reference */
    bool is_ready;          /* passed its probe and not suspended: may take calls */
    uint32_t gpus, slots;   /* >= 1 */
    int64_t price_usd_nano; /* GPU-hour, what the caller pays */
    int32_t take_rate_bps;
    uint64_t vram_bytes; /* a GPU's */
    bool interruptible;
    double reputation; /* lower confidence bound, [0, 1] */
    double reputation_scores[REPUTATION_DIMENSIONS];
    double performance;         /* measured share of the datasheet's performance, (0, 1]; 1 when unknown */
    double claimed_performance; /* the same of the claimed class's; 0: as performance */
    double completion;          /* probability of completing, (0, 1] */
    uint32_t calls_max;         /* at once, by what it has earned (exposure.h); 0: no bound */
    int64_t latency_ns;         /* prior: round trip */
    int64_t observed_at_ms;

    /* what other networks tell besides */
    unsigned marks; /* of enum offer_mark */
    struct sighting
        *sighting;         /* of its network, in place of observed_at_ms; the market takes a reference; may be NULL */
    struct str country;    /* ISO 3166 alpha-2 */
    struct str terms;      /* what is asked for it, in the network's own words: JSON */
    struct str also;       /* networks that list the same machine: "b,c" */
    uint32_t available;    /* how many such; 0: not told */
    uint32_t fraction_ppm; /* of each GPU; 0: whole */
};

/* Are all tags of `require` among an offer's? Both are comma-separated, as queries compare them: case ignored, the
 * offer's past OFFER_TAGS_MAX not counted. */
bool offer_has_tags(struct str tags, struct str require);

struct model_alias {
    struct str name, target;
};

/* A tag, region, network or GPU is compared with case ignored; each is shown as its first offer spells it. Tags past
 * OFFER_TAGS_MAX of an offer are ignored. */
struct market; /* atomically reference-counted */

MUST_CHECK enum error market_build(const struct offer *offers, size_t offer_count, const struct model_alias *aliases,
                                   size_t alias_count, struct market **ret);
struct market *market_ref(struct market *market);
struct market *market_unref(struct market *market);

#define MARKET_NONE UINT32_MAX
size_t market_count(const struct market *market);
/* Row -> what it is. Views live as long as the market. */
struct str market_id(const struct market *market, uint32_t row);
struct worker *market_worker(const struct market *market, uint32_t row);
struct str market_network(const struct market *market, uint32_t row);
struct str market_gpu(const struct market *market, uint32_t row);
struct str market_region(const struct market *market, uint32_t row);
struct str market_supplier(const struct market *market, uint32_t row);
int64_t market_price(const struct market *market, uint32_t row);
uint32_t market_gpus(const struct market *market, uint32_t row);
uint32_t market_slots(const struct market *market, uint32_t row);
int32_t market_take_rate_bps(const struct market *market, uint32_t row);
struct str market_gpu_raw(const struct market *market, uint32_t row);
uint64_t market_vram_bytes(const struct market *market, uint32_t row); /* of one GPU */
bool market_is_interruptible(const struct market *market, uint32_t row);
double market_reputation(const struct market *market, uint32_t row);
double market_reputation_score(const struct market *market, uint32_t row, enum reputation_dimension dimension);
struct str market_claimed(const struct market *market, uint32_t row);
double market_performance(const struct market *market, uint32_t row); /* of what it is sold as, (0, 1] */
/* The price of as much as the claimed class's datasheet promises, as far as was measured: a figure to compare by, by
 * which nobody is billed. */
int64_t market_effective_price(const struct market *market, uint32_t row);
int64_t market_latency_ns(const struct market *market, uint32_t row);
int64_t market_observed_at_ms(const struct market *market, uint32_t row);
unsigned market_marks(const struct market *market, uint32_t row);
struct str market_country(const struct market *market, uint32_t row);
struct str market_terms(const struct market *market, uint32_t row);
struct str market_also(const struct market *market, uint32_t row);
uint32_t market_available(const struct market *market, uint32_t row);
uint32_t market_fraction_ppm(const struct market *market, uint32_t row); /* 1000000: whole */
int64_t market_ttl_ms(const struct market *market, uint32_t row);        /* 0: it does not grow old */

/* A model by its name or alias; MARKET_NONE when no ready worker serves it. *ret_target gets the name that workers know
 * (differs from name for an alias). */
uint32_t market_model(const struct market *market, struct str name, struct str *ret_target);
size_t market_model_count(const struct market *market);
struct str market_model_name(const struct market *market, uint32_t model);
/* The rows of ready workers that serve the model. */
const uint32_t *market_replicas(const struct market *market, uint32_t model, size_t *ret_count);

#endif
