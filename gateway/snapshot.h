/* What a reactor needs to know of the world: keys and market. Immutable; the control thread posts a new one to every
 * reactor, which drops the old between two turns. */
#ifndef SLUICE_GATEWAY_SNAPSHOT_H
#define SLUICE_GATEWAY_SNAPSHOT_H

#include "gateway/keyring.h"
#include "scheduler/market.h"

struct snapshot {
    atomic_uint refs;
    struct market *market;   /* never NULL */
    struct keyring *keyring; /* never NULL once the gateway is ready */
    bool is_complete;        /* both were read from Redis at least once */
};

/* Takes both references, also when it fails (NULL: out of memory). keyring may be NULL before the first read. */
struct snapshot *snapshot_new(struct market *market, struct keyring *keyring, bool is_complete);
struct snapshot *snapshot_ref(struct snapshot *snapshot);
struct snapshot *snapshot_unref(struct snapshot *snapshot);

#endif
