/* The inside of a network and its calls: shared by network.c, call.c, request.c, message.c and normalise.c. Adapters do
 * not include it.
 *
 * Life of a call: network_*() makes it; its task starts the adapter's function in a coming turn; the adapter sends,
 * waits, and ends it (call_end); the task then completes it. Its memory lives until the HTTP client has let go of its
 * last request too, after the network perhaps. */
#ifndef SLUICE_ADAPTERS_NETWORK_PRIV_H
#define SLUICE_ADAPTERS_NETWORK_PRIV_H

#include "adapters/network.h"
#include "core/clock.h"

#define CALL_HEADERS_MAX 24
#define ANSWER_HEADERS_MAX 64
#define ANSWER_BODY_MAX ((size_t)8 << 20)
#define WALK_RETRIES_MAX 4 /* of one request of a walk through many */
#define RATE_RETRIES_MAX 4 /* of one request, within the call's deadline */

struct arena_block;

struct gpu_seen;

struct network {
    struct loop *loop;
    struct http_client *http;
    const struct adapter *adapter;
    char id[NETWORK_ID_MAX];
    char base_url[512];
    char installation[SUPPLY_INSTALLATION_MAX];
    char tag_prefix[SUPPLY_INSTALLATION_MAX + 16];
    const struct config_map *credential, *options;
    struct rates *rates;
    void *state;
    struct adapter_call *open;
    size_t open_count;
    int64_t next_ns[ADAPTER_OPS], any_next_ns; /* when the next request may go, by pace: from when one was sent, */
    int64_t seen_ns[ADAPTER_OPS], any_seen_ns; /* and by when the network has seen it: from when it answered */
    int64_t hold_ns[ADAPTER_OPS];              /* none before that: the network said so */
    unsigned strikes[ADAPTER_OPS];             /* refusals for asking too often, in a row */
    int64_t pace_percent, deadline_ms, settle_ms, boot_ms;
    struct gpu_seen *gpus; /* normalise.c: spellings that were looked up */
};

/* What is being sent, kept until it is answered: it may be sent again when the network asks for a pause. */
struct call_request {
    const char *method, *content_type, *accept, *aws_sigv4;
    struct str url, body;
    char *json_body; /* of jansson's */
    bool creates, takes_errors, is_sent;
    unsigned retries, again; /* after a pause that was asked for; after a failure within a longer walk */
    size_t body_max;
    adapter_answer_fn *on_answer;
    void (*on_data)(struct adapter_call *call, struct str bytes);
    struct http_header headers[CALL_HEADERS_MAX];
    size_t header_count;
};

struct adapter_call {
    struct network *network; /* NULL: the network has gone, only the open request keeps the call */
    struct adapter_call *next, **link;
    enum adapter_op op;    /* whose function runs */
    enum adapter_op asked; /* CHECK may be served by another */
    bool is_started, is_over, is_told;
    struct network_result result;
    struct supply_instance instance;
    network_done_fn *done;
    network_offers_fn *on_offers;
    network_instances_fn *on_instances;
    network_logs_fn *on_logs;
    void *ctx;
    struct supply_order order;
    struct str target, tag;
    int64_t log_from;
    int64_t due_ns;
    struct task task;
    struct timer deadline, wake; /* wake: for the pace, or for then */
    void (*then)(struct adapter_call *call);
    struct arena_block *arena;
    size_t arena_bytes;
    void *memory;
    bool is_uncertain;
    unsigned answers; /* good ones so far */
    struct call_request request;
    struct http_header pending[CALL_HEADERS_MAX]; /* of the next request */
    size_t pending_count;
    struct http_fetch *fetch;
    /* the answer that is coming in */
    int status;
    struct buf body;
    struct http_header head[ANSWER_HEADERS_MAX];
    size_t head_count;
    struct buf head_bytes;
};

/* -- call.c -- */
struct adapter_call *call_make(struct network *network, enum adapter_op op, network_done_fn *done, void *ctx);
void call_release(struct adapter_call *call);                /* frees it once it was told and no request is open */
void call_end(struct adapter_call *call);                    /* the result stands: completes in a coming turn */
void call_close(struct adapter_call *call, const char *why); /* completes now with SUPPLY_TRANSIENT */
void *call_alloc(struct adapter_call *call, size_t size);    /* zeroed; NULL: the call was failed */
struct str call_copy(struct adapter_call *call, struct str text);
bool call_copy_order(struct adapter_call *call, const struct supply_order *order);
bool call_copy_instance(struct adapter_call *call, const struct supply_instance *from, struct supply_instance *to);

/* -- request.c -- */
void request_drop(struct adapter_call *call); /* what is under way is of no interest any more */

/* -- message.c -- */
/* "<title> (<id>): <what it answered>; <what to do>", harmless and cut. */
void message_write(const struct network *network, enum supply_error error, int http_status, struct str said,
                   char ret[static SUPPLY_MESSAGE_MAX]);
void message_explain(const struct adapter *adapter, const struct adapter_answer *answer, struct str *ret_code,
                     struct str *ret_said);

#endif
