/* One connection to Redis: hiredis' async context on the loop. Part of core/redis.
 *
 * hiredis must not be asked to free its context while it is calling us. A link dropped within a callback therefore
 * forgets its owner at once, calls it no more, and frees itself when hiredis has returned. */
#ifndef SLUICE_CORE_REDIS_LINK_H
#define SLUICE_CORE_REDIS_LINK_H

#include "core/loop.h"
#include "core/redis_target.h"
#include <hiredis/hiredis.h>

#define REDIS_WHY_MAX 128

struct redis_link;

/* Any of these may drop the link. */
struct redis_link_owner {
    /* The answer to the oldest command that has none yet. */
    void (*on_reply)(void *ctx, const redisReply *reply);
    /* There is room for more, and hiredis is not on the stack. */
    void (*on_room)(void *ctx);
    /* Closed or never opened; the owner drops the link. Answers that are still out will not come. */
    void (*on_lost)(void *ctx, const char *why);
    void *ctx;
};

/* Starts to connect. On failure ret_why has a text for the log. */
MUST_CHECK enum error redis_link_open(struct loop *loop, const struct redis_target *target,
                                      const struct redis_link_owner *owner, struct redis_link **ret,
                                      char ret_why[static REDIS_WHY_MAX]);
struct redis_link *redis_link_drop(struct redis_link *link); /* accepts NULL, returns NULL */

/* Whole commands as Redis reads them; written at the end of the turn. Never calls the owner. */
void redis_link_send(struct redis_link *link, const char *bytes, size_t len);
/* So much is unwritten that more should wait for on_room. */
bool redis_link_is_full(const struct redis_link *link);

#endif
