/* What a reactor needs to know of the world: keys and market. Immutable; the control thread posts a new one to every
 * reactor, which drops the old between two turns. */
#ifndef SLUICE_GATEWAY_SNAPSHOT_H
#define SLUICE_GATEWAY_SNAPSHOT_H

#include "gateway/keyring.h"
#include "scheduler/market.h"

struct snapshot {
    atomic_uint refs;
    struct market *market;   /* our workers; never NULL */
    struct market *foreign;  /* what other networks offer; NULL before it is known */
    struct keyring *keyring; /* never NULL once the gateway is ready */
    bool is_complete;        /* both were read from Redis at least once */
};

/* Takes the references, also when it fails (NULL: out of memory). foreign and keyring may be NULL. */
struct snapshot *snapshot_new(struct market *market, struct market *foreign, struct keyring *keyring, bool is_complete);
/* Both for rank_offers; the count. */
size_t snapshot_markets(const struct snapshot *snapshot, const struct market *ret[static 2]);
struct snapshot *snapshot_ref(struct snapshot *snapshot);
struct snapshot *snapshot_unref(struct snapshot *snapshot);

#endif
