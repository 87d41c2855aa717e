/* A reactor: one thread, one loop, and everything that its requests need. `struct gateway` is what all reactors share.
 */
#ifndef SLUICE_GATEWAY_REACTOR_H
#define SLUICE_GATEWAY_REACTOR_H

#include "adapters/native/hub.h"
#include "core/loop.h"
#include "core/redis.h"
#include "gateway/metrics.h"
#include "gateway/settings.h"
#include "gateway/snapshot.h"
#include "pricing/credit.h"
#include "pricing/settle.h"

struct bootstrap;
struct control;

#define GATEWAY_QUEUES 1024

/* Process-wide; written at start only. */
struct gateway {
    char id[ID_TEXT_MAX]; /* "gwy_...", new at each start */
    const struct settings *settings;
    uint8_t admin_key_sha256[SHA256_BYTES];
    struct reactor **reactors;
    size_t reactor_count;
    struct control *control;
    struct loop *control_loop;
    struct bootstrap *bootstrap; /* NULL: no machines are leased from here */
    char public_url[256];        /* of the gateways, as leased machines see it; "": not known */
    int64_t started_at_ms;
    /* Calls that wait for a slot, of all reactors, by the hash of their model: two models may share a place. */
    _Atomic int queued[GATEWAY_QUEUES];
};

struct reactor {
    struct loop *loop;
    unsigned index;
    struct gateway *gateway;
    struct redis *redis;
    struct hub_reactor *hub;
    struct credit_gate *credit_gate;
    struct journal *journal;
    struct settler *settler;
    struct snapshot *snapshot; /* current; borrowed for the turn; never NULL */
    struct metrics *metrics;
    struct httpd *httpd;
    struct front *front;   /* the door */
    struct openai *openai; /* the calls under way */
};

struct reactor_options {
    struct gateway *gateway;
    unsigned index;
    const char *redis_url, *journal_dir;
    int listen_fd; /* owned by the reactor from then on */
};
/* Makes the loop and all that is on it; nothing runs yet. Its journal is named for its index. */
MUST_CHECK enum error reactor_open(const struct reactor_options *options, struct reactor **ret);
/* The thread's work: runs until reactor_stop, then ends the calls, waits (bounded) for the journal to empty and frees
 * everything but the loop and the snapshot, which reactor_free does when no other thread posts to it any more. */
void reactor_run(struct reactor *reactor);
void reactor_stop(struct reactor *reactor);    /* from any thread */
void reactor_quiesce(struct reactor *reactor); /* from any thread: no new connections */
struct reactor *reactor_free(struct reactor *reactor);

#endif
