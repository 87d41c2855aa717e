/* The hub: the gateway's end of the worker links. The listener lives on the control thread, each link on a reactor.
 * The wire format is in README.md beside this file. */
#ifndef SLUICE_ADAPTERS_NATIVE_HUB_H
#define SLUICE_ADAPTERS_NATIVE_HUB_H

#include "core/crypto.h"
#include "core/h2.h"
#include "scheduler/worker.h"

#define STATUS_MODELS_MAX 64

/* Of a lease's worker: its tenant's command. */
enum worker_command { COMMAND_NONE, COMMAND_WAITING, COMMAND_RUNNING, COMMAND_STOPPING, COMMAND_EXITED };

/* What a worker tells once a second and on change. Texts borrowed for the call. */
struct worker_status {
    int in_flight, slots;
    bool draining, upstream_ok;
    const struct str *models;
    size_t model_count;
    enum worker_command command; /* COMMAND_NONE: no lease's worker */
    int exit_code;               /* COMMAND_EXITED: 0 .. 255 */
};

/* -- a reactor's side -- */
struct hub_reactor;
/* Besides these calls the hub keeps the worker's own atomics up: reported, slots, draining, upstream_ok, heard_ns,
 * rtt_ns. A link whose status is silent for 15 s is closed. Each status line calls on_status, changed or not. */
struct hub_events {                                                /* on the reactor's loop */
    void (*on_link)(void *ctx, struct worker *worker, bool is_up); /* once for up, once for down, each link */
    void (*on_status)(void *ctx, struct worker *worker, const struct worker_status *status);
};
MUST_CHECK enum error hub_reactor_open(struct loop *loop, unsigned index, const struct hub_events *events, void *ctx,
                                       struct hub_reactor **ret);
/* Ends all links (with their on_link). After hub_free, and when its loop runs no more or from within it. */
struct hub_reactor *hub_reactor_free(struct hub_reactor *reactor);
/* By worker index: non-NULL when this reactor has an open link to it. Changes only between callbacks. */
void *const *hub_links(const struct hub_reactor *reactor, size_t *ret_count);
/* A stream to the worker. ERR_CLOSED: no link (any more); ERR_BUSY: too many streams. See core/h2.h. */
MUST_CHECK enum error hub_request(struct hub_reactor *reactor, const struct worker *worker,
                                  const struct h2_request *request, const struct h2_stream_ops *ops, void *ctx,
                                  struct h2_stream **ret);
/* Closes the worker's link on this reactor, if any (secret revoked, worker removed). */
void hub_drop(struct hub_reactor *reactor, const struct worker *worker);
/* The list of all gateways, as JSON ready to send, for every link now and to come. Copied. */
void hub_set_gateways(struct hub_reactor *reactor, struct str json);

/* -- the listener, on the control thread -- */
struct hub;
struct hub_options {
    const char *listen;            /* "host:port", port 0: any */
    SSL_CTX *tls;                  /* NULL: plain, loopback only (ERR_DENIED elsewhere) */
    struct hub_reactor **reactors; /* their loops get accepted links by loop_post */
    struct loop **loops;
    size_t reactor_count;
    /* The worker of a hello with the SHA-256 of its secret, a new reference, or NULL when unknown. */
    struct worker *(*find)(void *ctx, struct str worker_id, uint8_t ret_secret_sha256[SHA256_BYTES]);
    void *ctx;
};
MUST_CHECK enum error hub_open(struct loop *loop, const struct hub_options *options, struct hub **ret);
struct hub *hub_free(struct hub *hub);
uint16_t hub_port(const struct hub *hub);

#endif
