/* The usage record: what one call used and what it cost. Written once to the journal, settled once into the ledger. */
#ifndef SLUICE_PRICING_USAGE_H
#define SLUICE_PRICING_USAGE_H

#include "core/id.h"
#include <stdint.h>

enum usage_outcome {
    USAGE_COMPLETED = 1, /* answered with a 2xx to its end */
    USAGE_CANCELLED,     /* the caller hung up: pays its time to the hang-up */
    USAGE_BROKEN,        /* the worker's side broke the stream: cost 0 */
    USAGE_REFUNDED,      /* takes a call back: see refund.h */
    USAGE_CHECKED,       /* asked by the platform itself to check an answer: see refund.h */
    USAGE_LEASED,        /* a slice of a lease: see lease_money.h; never in a journal */
};

#define USAGE_MODEL_MAX 160
#define USAGE_SUPPLIER_MAX 64
#define USAGE_NETWORK_MAX 24
#define USAGE_GPU_MAX 40

/* Plain data of fixed size: it lies in the mapped journal as it is. Texts are NUL-terminated. */
struct usage_record {
    /* "use_...", "refund:use_...", "check:..." or "lse_...:<number>": the identity of the charge; settling it twice
     * moves money once. */
    char id[ID_TEXT_MAX];
    char tenant[ID_TEXT_MAX], key[ID_TEXT_MAX], worker[ID_TEXT_MAX];
    char supplier[USAGE_SUPPLIER_MAX], network[USAGE_NETWORK_MAX], gpu[USAGE_GPU_MAX], model[USAGE_MODEL_MAX];
    int64_t at_ms;            /* Unix ms, the end of the call */
    int64_t price_usd_nano;   /* a GPU-hour */
    int64_t gpu_ms;           /* see money_gpu_ms */
    int64_t cost_usd_nano;    /* charged to the tenant: the metered cost less loss_usd_nano */
    int64_t loss_usd_nano;    /* cost beyond what the tenant's credit could cover: the operator's loss */
    int64_t budget_period_ms; /* start (Unix ms) of the key's budget period that the cost counts in; 0: no budget */
    int32_t take_rate_bps;    /* the operator's part of the supplier's income */
    int32_t outcome;          /* enum usage_outcome */
    int64_t prompt_tokens, completion_tokens; /* 0 when unknown */
};

#endif
