/* Drives leases: claims due ones, carries out what scheduler/lease.h decides, stores what came of it. On the control
 * thread; any number of gateways do this side by side. */
#ifndef SLUICE_GATEWAY_LEASE_DRIVE_H
#define SLUICE_GATEWAY_LEASE_DRIVE_H

#include "gateway/networks.h"
#include "scheduler/lease_store.h"

struct lease_driver;

MUST_CHECK enum error lease_driver_open(struct control *control, struct networks *networks, struct redis *redis,
                                        struct lease_driver **ret);
void lease_driver_shut(struct lease_driver *driver); /* claims no more; lets go of what it has */
bool lease_driver_is_idle(const struct lease_driver *driver);
struct lease_driver *lease_driver_free(struct lease_driver *driver);

/* -- for handlers on reactors; done runs on the reactor's loop -- */
/* What POST /api/v1/quotes and dry runs show: the candidates, best first, with our markup. json: {"data":[{offer,
 * network, gpu, gpu_raw, gpus, region, price_per_gpu_hour_usd, interruptible, score, parts}], "rejected":[{reason,
 * count}], "message"}; NULL: out of memory. request is copied before the call returns. */
void lease_candidates_json(struct control *control, struct reactor *reactor, const struct lease_request *request,
                           void (*done)(void *ctx, json_t *take_json), void *ctx);
/* Logs of a lease's current instance, from byte `from` on: from the door where the worker is linked to this gateway,
 * else from the network. on_end: ERR_NONE; ERR_NOT_FOUND: nothing runs; ERR_DENIED with the message: the network has no
 * logs. bytes are borrowed; next is the offset behind them. */
void lease_logs(struct control *control, struct reactor *reactor, struct lease *take_lease, int64_t from,
                void (*done)(void *ctx, enum error error, struct str bytes, int64_t next, const char *message),
                void *ctx);
/* Totals for /metrics. */
struct lease_counts {
    int64_t by_state[LEASE_STATE_COUNT], created, attempts_by_error[SUPPLY_ERROR_COUNT], active_gpus;
};
void lease_driver_counts(const struct lease_driver *driver, struct lease_counts *ret);

#endif
