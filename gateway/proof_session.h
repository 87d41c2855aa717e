/* One device's proof over a worker's link: moves frames between a verify_session, which computes on a verify thread,
 * and a reactor, which sends and takes the time. Belongs to the control thread; all events come on its loop. */
#ifndef SLUICE_GATEWAY_PROOF_SESSION_H
#define SLUICE_GATEWAY_PROOF_SESSION_H

#include "gateway/reactor.h"
#include "gateway/verify_pool.h"
#include "probes/verifier.h"

struct proof_session;

struct proof_events {
    /* The worker said who it is: once, before anything heavy is asked of it. Held until proof_session_go_on. */
    void (*on_hello)(void *ctx, struct proof_session *session);
    /* A challenge of the slot is ready to be sent. Held until proof_session_go_on. */
    void (*on_slotted)(void *ctx, struct proof_session *session);
    void (*on_done)(void *ctx, struct proof_session *session); /* once; the report is final */
    void (*on_told)(void *ctx, struct proof_session *session); /* of proof_session_tell, perhaps within it */
};

struct proof_session_options {
    struct loop *loop; /* the control thread's */
    struct verify_pool *pool;
    struct reactor *reactor; /* has a link to the worker */
    struct worker *worker;
    const struct verify_options *verify;
    const bool *is_over; /* once set nothing more is given to the reactor, which may be ending */
    const struct proof_events *events;
    void *ctx;
};
/* Starts it; events come in later turns. */
MUST_CHECK enum error proof_session_open(const struct proof_session_options *options, struct proof_session **ret);
void proof_session_go_on(struct proof_session *session);
/* Ends it: on_done comes with VERIFY_LOST unless it was done before. Only while it is held. */
void proof_session_lose(struct proof_session *session);
/* It waits for the worker; else for its gateway, or is held. */
bool proof_session_is_asking(const struct proof_session *session);
const struct verify_report *proof_session_report(const struct proof_session *session);
/* After on_done: tells the worker the verdict; receipt "" for none. Then on_told, whether it came through or not. */
void proof_session_tell(struct proof_session *session, struct str receipt);
/* After on_done and with nothing under way, or when neither the pool nor the reactor runs any more. Accepts NULL;
 * returns NULL. */
struct proof_session *proof_session_free(struct proof_session *session);

#endif
