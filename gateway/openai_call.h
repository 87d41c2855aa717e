/* Inside of the OpenAI path: a call and its attempts. Included by gateway/openai_*.c only. */
#ifndef SLUICE_GATEWAY_OPENAI_CALL_H
#define SLUICE_GATEWAY_OPENAI_CALL_H

#include "core/money.h"
#include "gateway/openai.h"
#include "gateway/openai_body.h"
#include "gateway/sse_scan.h"
#include "gateway/usage_scan.h"
#include "scheduler/dispatch.h"

#define OPENAI_ANSWER_MAX ((size_t)256 << 20) /* of a plain answer */
#define OPENAI_ERROR_MAX ((size_t)1 << 20)    /* of an error answer that is handed on */
#define OPENAI_HELD_MAX ((size_t)1 << 20)     /* of a stream's events before it commits */
#define OPENAI_HOLD_NS (2 * NS_PER_S)         /* money is held for this much of a call beyond what it has used */
#define OPENAI_WAIT_DEFAULT_NS \
    (INT64_C(600) * NS_PER_S) /* first byte, when the client names no deadline: its own default */

/* Which body and which answers a path has. */
struct openai_endpoint {
    const char *path;
    enum openai_kind kind;
    bool is_pass_through; /* audio, images, rerank: any content type in and out */
};
const struct openai_endpoint *openai_endpoint(struct str path); /* NULL: not one of ours */
/* The model of a multipart/form-data body; absent when it names none. */
struct str multipart_model(struct str content_type, struct str body);
/* Puts another name in its place. False: out of memory, *body as it was. */
MUST_CHECK bool multipart_set_model(struct str content_type, struct buf *body, struct str model);

enum openai_state {
    CALL_READING,   /* the request's body */
    CALL_CREDIT,    /* waits for money to be held */
    CALL_QUEUED,    /* waits for a slot */
    CALL_SENT,      /* an attempt runs, nothing was sent to the caller */
    CALL_STREAMING, /* the answer is on its way */
    CALL_SETTLING,  /* settle: redis: the ledger's word is awaited before the last byte */
    CALL_ANSWERED   /* all was said */
};

enum attempt_failure {
    FAILURE_TRANSIENT,  /* broken, 5xx, nonsense */
    FAILURE_CREDENTIAL, /* 401, 402, 403 of the upstream */
    FAILURE_RATE,       /* 408, 429 of the upstream */
    FAILURE_SLOTS       /* the worker's slots are full or it drains: no attempt at all */
};

enum attempt_mode {
    MODE_HEAD,   /* the answer's head has not come */
    MODE_PLAIN,  /* JSON, gathered whole */
    MODE_FAULT,  /* the caller's own fault: gathered, handed on */
    MODE_REFUSE, /* a failure: its body is let pass unread */
    MODE_SSE,
    MODE_RAW /* bytes that pass as they come (audio) */
};

/* One try of a call on one worker. Lives until its stream has ended, past its call's answer if need be. */
struct attempt {
    struct openai_call *call;
    struct h2_stream *stream;
    struct worker *worker; /* a reference */
    int64_t sent_ns, first_byte_ns;
    enum attempt_mode mode;
    int status;
    enum attempt_failure failure;
    int64_t retry_after_ms;
    size_t unconsumed;   /* bytes whose window is kept shut while the caller is slow */
    bool is_over;        /* its outcome is known: the worker was released */
    struct timer linger; /* after [DONE]: the worker's end of stream must follow */
};

/* Where the call went, copied at the choice: the answer's headers and the usage record. */
struct target {
    char worker[ID_TEXT_MAX], network[USAGE_NETWORK_MAX], gpu[USAGE_GPU_MAX], supplier[USAGE_SUPPLIER_MAX];
    int64_t price_usd_nano;
    uint32_t gpus, slots;
    int32_t take_rate_bps;
    double reputation;
};

struct openai_call {
    struct reactor *reactor;
    struct front_call *front; /* NULL once the HTTP side is over */
    const struct openai_endpoint *endpoint;
    enum openai_state state;
    struct snapshot *snapshot; /* keeps key */
    const struct api_key *key;
    bool is_running;          /* counted against the key's concurrency */
    struct api_error refusal; /* of the head or body, said when the body is whole */
    bool is_refused;
    struct openai_body parsed;
    struct buf body;  /* as it goes to the worker */
    struct str model; /* as the caller names it */
    char multipart_model[OPENAI_MODEL_MAX + 1];
    bool wants_usage, is_spliced;
    int64_t rate_left, rate_reset_ms;

    struct dispatch_query query;
    int tries;               /* attempts that failed */
    int attempts;            /* attempts begun, refusals for want of a slot left out */
    bool had_second_try;     /* the lone replica's one more */
    struct attempt *attempt; /* the running one */
    size_t open_streams;
    struct target target;
    bool was_answered_by_worker; /* target is good: x-sluice-* headers */
    enum attempt_failure last_failure;
    bool last_had_no_byte;
    int64_t last_retry_after_ms;

    struct credit_waiter credit_waiter;
    struct credit *waits_for;
    int credit_rounds;
    int64_t held_balance, held_budget;
    struct openai_call *running_next, **running_link; /* in openai.running while money may be held for it */
    int64_t told_ns;                                  /* when something last went to the caller of a stream */

    struct timer timer;  /* the deadline, or the longest wait in the queue */
    int64_t upstream_ns; /* of the answering attempt */
    int64_t request_ns, deadline_ns, queue_from_ns, queued_ns, not_before_ns;
    struct openai_call *queue_next, *queue_prev;

    struct sse_scan sse;
    bool has_sse, is_committed;
    struct buf held; /* events before the commit */
    struct usage_scan scan;
    bool has_scan;
    struct buf answer;
    char content_type[96];

    struct usage_record record;
    bool has_record;
    struct settle_waiter settle_waiter;
    void (*after_settle)(struct openai_call *call);
    bool is_gone;
    struct answer_check *check; /* its answer is kept for a check; NULL: nearly always */
};

struct openai {
    struct reactor *reactor;
    struct openai_call *queue_head, *queue_tail;
    size_t queued;
    struct task wake;
    struct timer poll; /* other reactors free slots too */
    struct openai_call *running;
    struct timer tick; /* every second, while calls run */
    struct openai_checks *checks;
};

/* openai_admit.c */
void call_dispatch(struct openai_call *call);
void call_error(struct openai_call *call, struct api_error *error); /* answers, frees the holds */
void call_release_holds(struct openai_call *call);
void call_free_if_over(struct openai_call *call);
void call_watch_deadline(struct openai_call *call);

/* openai_queue.c */
void queue_enter(struct openai_call *call);
void queue_leave(struct openai_call *call); /* harmless when not in it */

/* openai_running.c: what a call that lasts needs from time to time */
void running_enter(struct openai_call *call); /* harmless when it is there */
void running_leave(struct openai_call *call); /* the same when it is not */
void running_tick(struct timer *timer);       /* openai.tick */
/* What a call of this price costs in span_ns: at least 1 for any price above 0. */
int64_t hold_wanted(int64_t price_usd_nano, int64_t span_ns, uint32_t gpus, uint32_t slots);

/* openai_attempt.c */
void attempt_start(struct openai_call *call, const struct market *market, uint32_t row);
/* Gives the worker back with this outcome, once. The stream may still run on. */
void attempt_over(struct attempt *attempt, enum worker_outcome outcome);
void attempt_cancel(struct attempt *attempt);
/* The attempt failed before anything went to the caller: the next replica, or the error at last. */
void attempt_failed(struct attempt *attempt, enum attempt_failure failure);
void attempt_consumed(struct attempt *attempt);

/* openai_answer.c: what an attempt's answer does */
bool answer_begin(struct attempt *attempt, int status, struct str content_type); /* false: it has failed */
void answer_bytes(struct attempt *attempt, struct str bytes);
void answer_finished(struct attempt *attempt);
void answer_broken(struct attempt *attempt); /* the stream died */

/* openai_meter.c */
void call_meter(struct openai_call *call, struct attempt *attempt, enum usage_outcome outcome);
/* Runs then(call) when the record is as safe as the settings ask: at once, or when Redis has it. */
void call_settle(struct openai_call *call, void (*then)(struct openai_call *call));
void call_answer_headers(struct openai_call *call, struct answer *answer, bool with_cost);
void call_observe(struct openai_call *call, int status);

#endif
