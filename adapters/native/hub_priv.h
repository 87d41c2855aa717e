/* What the listener (hub_listen.c) and the reactors' side (hub_reactor.c) share. */
#ifndef SLUICE_ADAPTERS_NATIVE_HUB_PRIV_H
#define SLUICE_ADAPTERS_NATIVE_HUB_PRIV_H

#include "adapters/native/hub.h"

/* Which reactor has a link of one worker: numbers of links, 0 for none. The listener writes a number when it hands a
 * link over, the reactor takes it away when the link ends. Shared by reference. */
struct link_slots {
    atomic_uint refs;
    atomic_ullong number[];
};
struct link_slots *link_slots_unref(struct link_slots *slots);

/* A link on its way to a reactor; owns all it points to. With fd -1: no new link, only the old one is to end. */
struct handover {
    struct hub_reactor *reactor;
    int fd;
    SSL *ssl;
    struct worker *worker;
    struct link_slots *slots;
    uint64_t number;
};
void hub_reactor_take(void *handover); /* for loop_post; frees it */

#endif
