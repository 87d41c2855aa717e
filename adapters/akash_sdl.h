/* The SDL of an order: Akash's YAML of what shall run and what it may cost at most. */
#ifndef SLUICE_ADAPTERS_AKASH_SDL_H
#define SLUICE_ADAPTERS_AKASH_SDL_H

#include "scheduler/supply.h"

#define AKASH_SDL_MAX ((size_t)256 << 10) /* the API takes 512 KB of JSON around it */
#define AKASH_HTTP_PORT 80    /* exposed as this a port becomes a host name of the provider's HTTP ingress */
#define AKASH_IDLE_PORT 65535 /* exposed where nothing was asked for: a deployment must expose something */
/* The rest of the tag under which deployments without a lease are listed: of a lease that nobody has. */
#define AKASH_NO_LEASE "00000000000000000000000000-1"

struct akash_ask {
    const struct supply_order *order;
    struct str vendor, model, ram, interface; /* ram, interface: empty for any */
    int64_t uact_per_block;                   /* at most, for the whole deployment */
    int64_t cpu_units, memory_gib;            /* of the whole deployment */
};

/* Appends ASCII text. NULL, or what is wrong with the order (a fixed text; then *to holds rubbish). Whatever image,
 * command and environment hold, it stays inside their quotes. */
MUST_CHECK const char *akash_sdl_write(const struct akash_ask *ask, struct buf *to);

#endif
