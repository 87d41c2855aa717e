/* The embedded default: a real redis-server as our child, on a Unix socket in the data directory, append-only file on.
 */
#ifndef SLUICE_CORE_REDIS_CHILD_H
#define SLUICE_CORE_REDIS_CHILD_H

#include "core/str.h"

struct redis_child;

/* Starts redis-server under data_dir/redis and waits (at most 30 s, loading included) until it answers PING. The child
 * dies with us (PR_SET_PDEATHSIG) and runs noeviction, appendonly yes, appendfsync everysec (always if fsync_always),
 * port 0. A stale socket is removed; a live server of another sluiced on the same data_dir is ERR_EXISTS.
 * ret_url gets "unix:///...". Blocking; for start-up only. */
MUST_CHECK enum error redis_child_start(const char *data_dir, bool fsync_always, struct redis_child **ret,
                                        char *ret_url, size_t ret_url_size);
/* True once after the child has died by itself; restart with redis_child_restart (same options). */
bool redis_child_has_died(struct redis_child *child);
MUST_CHECK enum error redis_child_restart(struct redis_child *child);
struct redis_child *redis_child_stop(struct redis_child *child); /* SIGTERM, waits for it to save; accepts NULL */

#endif
