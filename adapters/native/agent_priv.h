/* The inside of the agent, shared by its files. Nobody else includes it. */
#ifndef SLUICE_ADAPTERS_NATIVE_AGENT_PRIV_H
#define SLUICE_ADAPTERS_NATIVE_AGENT_PRIV_H

#include "adapters/native/agent.h"
#include "adapters/native/agent_state.h"
#include "core/h2.h"
#include "core/http_client.h"
#include "core/log.h"
#include "core/tls.h"
#include "probes/protocol.h"

#include <jansson.h>
#include <nghttp2/nghttp2.h> /* the error codes */

#define AGENT_GATEWAYS_MAX 256
#define AGENT_LINKS_MAX 64 /* to one gateway */
#define AGENT_MODELS_MAX 64
#define AGENT_MODEL_TEXT_MAX 129
#define AGENT_BODY_MAX ((size_t)64 << 20) /* of a call's request */

/* Jittered exponential back-off, 200 ms to 5 s. */
struct backoff {
    int64_t span_ns;
};
int64_t backoff_next(struct backoff *backoff); /* how long to wait now */
void backoff_reset(struct backoff *backoff);

/* Work off the loop, on the helper thread: run there, then done on the loop, exactly once (cancelled when the helper
 * stops before). Embedded in its owner. */
struct job {
    void (*run)(struct job *job);
    void (*done)(struct job *job, bool cancelled);
    struct job *next;
};
struct helper;
MUST_CHECK enum error helper_open(struct loop *loop, struct helper **ret);
struct helper *helper_free(struct helper *helper);                         /* waits for the job in progress */
MUST_CHECK enum error helper_give(struct helper *helper, struct job *job); /* ERR_BUSY: too many waiting */

/* agent_child.c: the process of the probe. */
struct agent_child {
    pid_t pid;        /* 0: none */
    int in, out, err; /* the caller's: to its stdin, from its stdout and stderr */
};
MUST_CHECK enum error agent_child_start(const struct agent_options *options, const char *state_dir,
                                        struct agent_child *ret);
void agent_child_kill(const struct agent_child *child);
/* Never waits. True: there is no process any more; ret_how tells how it ended. */
MUST_CHECK bool agent_child_reap(struct agent_child *child, char *ret_how, size_t size);

/* A stream that is no call: status, probe, gateways. In agent_serve.c. */
struct agent_aux;

/* One link to a gateway, dialled again for as long as the gateway is listed. */
enum link_state { LINK_WAITING, LINK_RESOLVING, LINK_CONNECTING, LINK_HANDSHAKE, LINK_HELLO, LINK_UP };

struct agent_gateway;
struct agent_link {
    struct agent *agent;
    struct agent_gateway *gateway;
    enum link_state state;
    struct io_source io;
    SSL *tls;
    struct tls_client *tls_client;
    struct tls_handshake *handshake;
    struct h2 *h2;
    struct timer timer; /* next dial; limit of connecting */
    struct backoff backoff;
    int64_t up_ns;
    char in[256], out[256]; /* the hello and its answer */
    size_t in_len, out_len, out_at;
    struct agent_aux *status; /* streams of GET /sluice/status, a list */
    struct lookup *lookup;
    unsigned tries; /* of addresses of its name */
};

struct agent_gateway {
    char id[64], host[256], port[8];
    bool is_listed, tls;
    uint8_t pin[SHA256_BYTES];
    size_t link_count; /* wanted */
    struct agent_link *links[AGENT_LINKS_MAX];
};

struct agent {
    struct loop *loop;
    struct agent_options options;
    struct agent_state state;
    struct http_client *http;
    struct helper *helper;
    char boot_id[33];
    void (*on_done)(void *ctx, enum agent_exit code);
    void *ctx;
    bool is_draining, is_leaving, is_done, is_freeing;
    enum agent_exit exit_code;
    struct timer drain_timer;
    struct task done_task;

    /* registration (agent_register.c) */
    struct http_fetch *register_fetch;
    struct timer register_timer;
    struct backoff register_backoff;
    struct buf register_body, register_answer;
    size_t register_url; /* of options.gateways; the next to try */
    int register_status;
    bool is_registered, use_token, register_silent;
    char gateway_host[256]; /* in place of a wildcard address */

    /* links (agent_link.c) */
    struct agent_gateway *gateways[AGENT_GATEWAYS_MAX];
    size_t gateway_count;
    struct timer watch_timer;

    /* what the upstream serves (agent_upstream.c) */
    struct http_fetch *models_fetch;
    struct timer models_timer;
    struct buf models_answer;
    int models_status;
    unsigned models_failures;
    bool upstream_ok, upstream_seen;
    char models[AGENT_MODELS_MAX][AGENT_MODEL_TEXT_MAX];
    size_t model_count;

    /* status (agent_serve.c) */
    struct timer status_timer;
    struct task status_task;
    int64_t status_sent_ns;
    unsigned probe_streams;
    struct agent_probe *probe;

    struct agent_lease *lease; /* NULL: none */
    struct agent_lease_ask *log_waiters;
    unsigned log_asks;

    /* calls (agent_forward.c) */
    struct agent_call *calls;
    int in_flight;
};

/* agent.c */
void agent_finish(struct agent *agent, enum agent_exit code); /* on_done comes in a coming turn */
void agent_call_ended(struct agent *agent);                   /* draining may be complete */
void agent_link_closed(struct agent *agent);
struct log_ctx agent_log(const struct agent *agent);

/* agent_register.c */
void agent_register_start(struct agent *agent);
void agent_register_soon(struct agent *agent); /* harmless while one is under way */
void agent_register_stop(struct agent *agent);

/* agent_probe.c */
struct agent_probe;
struct agent_ask;
MUST_CHECK enum error agent_probe_open(struct agent *agent); /* sets agent->probe */
void agent_probe_close(struct agent_probe *probe);           /* nothing is asked any more; accepts NULL */
struct agent_probe *agent_probe_free(struct agent_probe *probe);
/* Hands a frame (1 to PROBE_FRAME_MAX bytes, taken out of the buffer) to the probe. done comes once, from the loop,
 * with the answer, borrowed, or with an absent one when the probe was lost. ERR_BUSY: it is down or has enough to do.
 * gateway: its id, so that the probe can keep two gateways' proofs apart. */
MUST_CHECK enum error agent_probe_ask(struct agent_probe *probe, struct str gateway, struct buf *frame,
                                      void (*done)(void *ctx, struct str answer), void *ctx, struct agent_ask **ret);
void agent_ask_cancel(struct agent_ask *ask); /* before done: it does not come; the answer is dropped */
/* After agent_probe_close: its process has ended and holds no device any more. NULL too. */
bool agent_probe_is_gone(struct agent_probe *probe);
bool agent_probe_is(const struct agent_probe *probe, pid_t pid); /* its process */
/* The agent's own question to the probe, a JSON text (README.md). As agent_probe_ask. */
MUST_CHECK enum error agent_probe_local(struct agent *agent, struct str text,
                                        void (*done)(void *ctx, struct str answer), void *ctx);

/* agent_link.c */
struct agent_link *agent_link_new(struct agent *agent, struct agent_gateway *gateway);
struct agent_link *agent_link_free(struct agent_link *link); /* closes at once; accepts NULL, returns NULL */
void agent_link_dial(struct agent_link *link);               /* if it waits */
void agent_link_watch(struct agent_link *link);              /* pings; gives up a silent one */

/* agent_gateways.c */
/* Takes the list of gateways: {"id", "address", "links", "tls", "pin"} each. False: malformed, nothing changed. */
MUST_CHECK bool agent_gateways_set(struct agent *agent, const json_t *list);
void agent_links_dial(struct agent *agent);     /* every one that waits, now: the identity or the addresses are new */
void agent_links_watch(struct agent *agent);    /* once a second; drops what is no longer listed */
void agent_links_renew(struct agent *agent);    /* ends the links of an earlier identity, which are dialled again */
void agent_links_shutdown(struct agent *agent); /* ends the streams of ours, GOAWAY; closes those not up */
size_t agent_links_open(const struct agent *agent);
void agent_links_free(struct agent *agent);

/* agent_upstream.c */
void agent_models_soon(struct agent *agent);
void agent_upstream_free(struct agent *agent);

/* agent_lease.c: the tenant's command of a leased machine, and its output */
struct agent_lease;
struct agent_output {
    int64_t start, end;  /* offsets in all that was written */
    struct str parts[2]; /* borrowed until the loop's next turn */
    bool is_over;
};
MUST_CHECK enum error agent_lease_open(struct agent *agent, struct agent_lease **ret);
struct agent_lease *agent_lease_free(struct agent_lease *lease); /* kills the command */
void agent_lease_run(struct agent_lease *lease);                 /* once; again: nothing */
void agent_lease_stop(struct agent_lease *lease); /* SIGTERM, after 10 s SIGKILL; before the start: it never starts */
bool agent_lease_has_ended(const struct agent_lease *lease);
void agent_lease_each_second(struct agent_lease *lease, bool has_gateway);
const char *agent_lease_state(const struct agent_lease *lease, int *ret_exit_code); /* as the status tells it */
/* What is kept of the output from the offset on, at most `most` bytes. */
void agent_lease_output(const struct agent_lease *lease, int64_t from, size_t most, struct agent_output *ret);
/* agent_lease_serve.c: what gateways ask of it */
bool agent_lease_request(struct agent *agent, struct h2_stream *stream, struct str method, struct str path,
                         const struct h2_stream_ops **ret_ops, void **ret_ctx);
void agent_output_came(struct agent *agent); /* or time passed: answers who waits for output */

/* agent_serve.c: a request has come on a link */
bool agent_on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                      const struct h2_stream_ops **ret_ops, void **ret_ctx);
void agent_status_changed(struct agent *agent); /* tells the gateways at the end of this turn */
void agent_load_changed(struct agent *agent);   /* calls in flight: soon, not at each */
void agent_status_start(struct agent *agent);
/* Tells every gateway once more, and then no more: one that hears of the drain counts on us no longer. */
void agent_status_last(struct agent *agent);
void agent_status_stop(struct agent *agent);
void agent_status_end(struct agent_link *link); /* ends the status streams of the link cleanly */
/* Answers with an error object and ends the answer. fault: x-sluice-fault, NULL for none. */
void agent_answer_error(struct h2_stream *stream, int status, const char *fault, const char *code, const char *message);
/* For a stream that was answered at once: takes and drops what else comes. */
extern const struct h2_stream_ops agent_drop_ops;

/* agent_forward.c */
bool agent_call_open(struct agent *agent, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                     const struct h2_stream_ops **ret_ops, void **ret_ctx);
void agent_calls_cancel(struct agent *agent); /* resets every stream, drops every fetch */

#endif
