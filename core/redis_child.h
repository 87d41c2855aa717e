/* The embedded default: a real redis-server as our child, on a Unix socket in the data directory, append-only file on.
 *
 * Start and restart it from the main thread: the kernel binds "dies with us" to the thread that forked. A server that
 * outlives a killed owner for a moment is waited for: two servers never have one append-only file open. */
#ifndef SLUICE_CORE_REDIS_CHILD_H
#define SLUICE_CORE_REDIS_CHILD_H

#include "core/str.h"

struct redis_child;

/* Starts redis-server under data_dir/redis (both are made if missing) and waits (at most 30 s, loading included) until
 * it answers PING. The child dies with us (PR_SET_PDEATHSIG) and runs noeviction, appendonly yes, appendfsync everysec
 * (always if fsync_always), port 0, in its own process group, with its log in redis.log. A stale socket is removed.
 * ERR_EXISTS: another process of ours has this data_dir, or the server of one that was killed has not gone within 10 s.
 * ERR_UNREACHABLE: the server ended or is not installed; ERR_DEADLINE: it did not answer in time. ret_url gets
 * "unix:///..."; where data_dir is longer than a socket address holds it is good within this process only. Blocking;
 * for start-up only. */
MUST_CHECK enum error redis_child_start(const char *data_dir, bool fsync_always, struct redis_child **ret,
                                        char *ret_url, size_t ret_url_size);
/* True from when the child has died by itself until a restart has succeeded; cheap, for a timer. */
bool redis_child_has_died(struct redis_child *child);
/* Starts the server again, on the same socket, and does not wait for it to load: connections find it by themselves.
 * ERR_BUSY: something of the dead server is still there, try again a little later. */
MUST_CHECK enum error redis_child_restart(struct redis_child *child);
/* SIGTERM, waits for it to save (at most 10 s, then SIGKILL: the append-only file loses nothing that was written);
 * accepts NULL, returns NULL. */
struct redis_child *redis_child_stop(struct redis_child *child);

#endif
