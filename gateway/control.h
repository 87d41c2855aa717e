/* The control thread: everything that is not a request. Reads and follows the shared state, admits workers, keeps the
 * credits alive, tells the workers where the gateways are, and publishes snapshots to the reactors. */
#ifndef SLUICE_GATEWAY_CONTROL_H
#define SLUICE_GATEWAY_CONTROL_H

#include "gateway/reactor.h"
#include <jansson.h>

struct control;

/* On the calling (control) thread's loop; gateway->reactors are made but may not run yet. */
MUST_CHECK enum error control_open(struct gateway *gateway, struct loop *loop, struct redis *redis,
                                   struct control **ret);
struct control *control_free(struct control *control);

/* -- from reactors (posted to the control loop inside) -- */
void control_link_changed(struct control *control, unsigned reactor, struct worker *worker, bool is_up);
void control_status(struct control *control, unsigned reactor, struct worker *worker,
                    const struct worker_status *status);

/* -- for handlers on reactors: a copy of what the control thread knows, as JSON, asynchronous -- */
/* GET /api/v1/workers: json_t array; supplier absent: all. done runs on the reactor's loop with a new reference. */
void control_workers_json(struct control *control, struct reactor *reactor, struct str supplier,
                          void (*done)(void *ctx, json_t *take_list), void *ctx);
void control_extra(struct control *control, struct reactor *reactor,
                   void (*done)(void *ctx, const struct metrics_extra *extra), void *ctx);
bool control_is_ready(const struct control *control); /* atomics; Redis connected and the first snapshot published */

/* POST /worker/v1/register and the enrolment tokens' handlers live in routes_worker.c and use the stores directly. */

#endif
