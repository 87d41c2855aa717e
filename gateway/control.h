/* The control thread: everything that is not a request. Reads and follows the shared state, admits workers, keeps the
 * credits alive, tells the workers where the gateways are, and publishes snapshots to the reactors. */
#ifndef SLUICE_GATEWAY_CONTROL_H
#define SLUICE_GATEWAY_CONTROL_H

#include "gateway/reactor.h"
#include <jansson.h>

struct control;

struct control_options {
    struct gateway *gateway; /* reactors made, each with its loop and hub; they may not run yet */
    struct loop *loop;       /* the control thread's */
    struct redis *redis;     /* on that loop: for settling, which may outlive the control */
    const char *redis_url;   /* for connections of its own */
    const char *journal_dir; /* where the reactors' journals lie */
};

/* On the control thread, or before it runs. Starts to listen for links. Sets gateway->control. */
MUST_CHECK enum error control_open(const struct control_options *options, struct control **ret);
uint16_t control_link_port(const struct control *control);
/* At exit, on the control thread, in this order: control_shut; the reactors stop and free their hubs; turn the loop
 * until control_is_idle (for a bounded time); control_free. Loops are freed after that. */
void control_shut(struct control *control); /* no new links; off the list of gateways */
/* When the journals are as empty as they will be: what credits hold goes back. */
void control_give_back(struct control *control);
bool control_is_idle(const struct control *control); /* nothing is open that control_shut or _give_back asked */
struct control *control_free(struct control *control);

/* -- from reactors (posted to the control loop inside) -- */
void control_link_changed(struct control *control, unsigned reactor, struct worker *worker, bool is_up);
void control_status(struct control *control, unsigned reactor, struct worker *worker,
                    const struct worker_status *status);

/* -- for handlers on reactors: a copy of what the control thread knows, asynchronous; done comes inside the call only
 * when there is no memory to ask -- */
/* GET /api/v1/workers: json_t array in order of ids; supplier absent: all. done runs on the reactor's loop with a new
 * reference (NULL: out of memory). */
void control_workers_json(struct control *control, struct reactor *reactor, struct str supplier,
                          void (*done)(void *ctx, json_t *take_list), void *ctx);
void control_extra(struct control *control, struct reactor *reactor,
                   void (*done)(void *ctx, const struct metrics_extra *extra), void *ctx);
/* A worker has registered over this gateway: done comes when its record is known here, or could not be read, so that
 * the links that it dials next are not refused. */
void control_worker_registered(struct control *control, struct reactor *reactor, const char *id,
                               void (*done)(void *ctx), void *ctx);
/* Asks a ready worker for a proof now. done runs on the reactor's loop: ERR_NOT_FOUND: no such worker; ERR_BUSY: not
 * now (state says why: "suspended", "not linked here"). */
void control_prove(struct control *control, struct reactor *reactor, struct str id,
                   void (*done)(void *ctx, enum error error, const char *state), void *ctx);
/* From any thread. Redis answers, and the first snapshot is published. */
bool control_is_ready(const struct control *control);

/* -- of the reactor: takes the new snapshot between two turns, on its own thread (reactor.c) -- */
void reactor_adopt(struct reactor *reactor, struct snapshot *take);

/* POST /worker/v1/register and the enrolment tokens' handlers live in routes_worker.c and use the stores directly. */

#endif
