/* RunPod's two interfaces: REST v2 (runpod.c) and what GraphQL alone has, interruptible pods (runpod_bids.c). */
#ifndef SLUICE_ADAPTERS_RUNPOD_H
#define SLUICE_ADAPTERS_RUNPOD_H

#include "adapters/shorthand.h"

#define RUNPOD_CLOUDS 2
#define RUNPOD_COUNTS 4
#define RUNPOD_ROWS_MAX 50000 /* of a list in an answer: what comes after is not read */

struct runpod_cloud {
    char kind; /* in an offer's id; small: interruptible */
    const char *name, *offered, *price;
};
extern const struct runpod_cloud runpod_clouds[RUNPOD_CLOUDS];
extern const uint32_t runpod_counts[RUNPOD_COUNTS]; /* of GPUs: stock is told for a number of them */

/* An offer's id: kind, GPUs, data centre ("" any), GPU type, all that create needs. */
struct runpod_wish {
    const struct runpod_cloud *cloud;
    bool is_bid;
    int64_t gpus;
    struct str center, gpu;
};
void runpod_offer(struct offer_batch *batch, const json_t *gpu, char kind, uint32_t gpus, struct str center,
                  struct str price);

json_t *runpod_args(const struct supply_order *order); /* instead of the image's command and entrypoint; "": none */
const char *runpod_port_kind(struct adapter_call *call, uint16_t port); /* "tcp" or "http" */

void runpod_ask_bids(struct adapter_call *call);                            /* the end of OFFERS */
void runpod_bid(struct adapter_call *call, const struct runpod_wish *wish); /* CREATE */

#endif
