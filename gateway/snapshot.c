#include "gateway/snapshot.h"

#include <stdlib.h>

struct snapshot *snapshot_new(struct market *market, struct market *foreign, struct keyring *keyring, bool is_complete)
{
    struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (!snapshot) {
        market_unref(market);
        market_unref(foreign);
        keyring_unref(keyring);
        return NULL;
    }
    atomic_init(&snapshot->refs, 1);
    snapshot->market = market;
    snapshot->foreign = foreign;
    snapshot->keyring = keyring;
    snapshot->is_complete = is_complete;
    return snapshot;
}

size_t snapshot_markets(const struct snapshot *snapshot, const struct market *ret[static 2])
{
    ret[0] = snapshot->market;
    ret[1] = snapshot->foreign;
    return snapshot->foreign ? 2 : 1;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot)
{
    atomic_fetch_add_explicit(&snapshot->refs, 1, memory_order_relaxed);
    return snapshot;
}

struct snapshot *snapshot_unref(struct snapshot *snapshot)
{
    if (!snapshot || atomic_fetch_sub_explicit(&snapshot->refs, 1, memory_order_acq_rel) > 1)
        return NULL;
    market_unref(snapshot->market);
    market_unref(snapshot->foreign);
    keyring_unref(snapshot->keyring);
    free(snapshot);
    return NULL;
}
