/* The gateway's end of the protocol: one session proves one device. A pure state machine over frames and times that
 * somebody else measured; what it computes is CPU-bound, so it runs on a verify thread and never on a loop.
 *
 * Use: verify_start gives the first frame to send. Each answer goes to verify_answer with the time from the first byte
 * sent to the last byte received; what comes back says what to send next, or that the session is done. A session
 * belongs to one thread at a time. Limits and sizes of answers are protocol.h's; anything else is a failed session,
 * never a crash. */
#ifndef SLUICE_PROBES_VERIFIER_H
#define SLUICE_PROBES_VERIFIER_H

#include "probes/catalogue.h"
#include "probes/chain_pool.h"
#include "probes/protocol.h"

enum verify_purpose {
    VERIFY_ADMISSION, /* all challenges, all of the memory; the network with device 0 only */
    VERIFY_SPOT,      /* CHAIN and PASS over a few GiB of an idle device */
    VERIFY_LEASE,     /* beside a running job: small, judged against itself */
};

enum verify_result {
    VERIFY_OPEN,   /* not done */
    VERIFY_PASSED, /* proven; see class and ratio */
    VERIFY_SLOW,   /* every answer right, a rate under the floor of its class and every other: evidence */
    VERIFY_WRONG,  /* a wrong answer, a contradiction, a broken protocol: fraud or broken hardware */
    VERIFY_LATE,   /* no answer within its deadline */
    VERIFY_LOST,   /* the link went, or the gateway could not go on: says nothing */
};
const char *verify_result_name(enum verify_result result);

struct verify_step_report { /* one challenge's */
    char kind[8];           /* "hello", "net", "fill", "pass", "walk", "chain", "bind" */
    bool is_passed;
    int64_t took_ns;                                /* by the gateway's clock; 0 where no time counts */
    double rate;                                    /* in unit; 0: none */
    const char *unit;                               /* "GB/s", "TOPS", "Mb/s", "" */
    uint8_t id[PROBE_ID_BYTES], seed[32], root[32]; /* zero where there is none; the last root of PASS */
};
#define VERIFY_STEPS_MAX 8

struct verify_report {
    enum verify_result result;
    enum verify_purpose purpose; /* less than was asked for when the device's memory is in use: see verify_options */
    bool is_occupied;            /* lost, because a first proof wants memory that is in use, as the worker says */
    char reason[96]; /* "" when passed; what failed, for people: "pass: tile 17 of pass 2 is not what was asked for" */
    uint8_t worker_key[32], exchange_key[32], host_id[32];
    bool has_hello;
    uint32_t gpu_count; /* that the hello lists */
    struct probe_claim claim;
    const struct gpu_class *claimed, *proven_class; /* of the catalogue; NULL: unknown */
    struct proven proven;
    double ratio;           /* the worst rate against proven_class's reference */
    double credit;          /* proven_credit(ratio) */
    double performance;     /* against the datasheet */
    int64_t rtt_ns;         /* median of the pings; only ever used to size work */
    uint8_t chain_root[32]; /* what secrets are sealed with; zero without CHAIN */
    enum probe_route route;
    struct verify_step_report steps[VERIFY_STEPS_MAX];
    unsigned step_count;
    int64_t cpu_ns; /* spent in this session's calls */
};

/* A worker tells how much memory is free. A first proof wants all of it; one of a device that has proven itself before
 * (proven_gpu) takes what there is: from an admission it shrinks to a spot check, from that to a check beside a lease.
 */
struct verify_options {
    enum verify_purpose purpose;
    unsigned gpu;
    const struct catalogue *catalogue;
    struct chain_pool *pool;
    struct str proven_gpu;     /* what it proved to be before, under the same key, device and driver; absent: nothing */
    struct str claimed_gpu;    /* what the worker registered as; "" for none. Sizes only: the numbers decide */
    const uint8_t *expect_key; /* 32 bytes: the key that this worker proved with before; NULL: any */
    uint64_t free_bytes;       /* VERIFY_LEASE: at most that much memory; 0: the device's own claim */
    struct proven self;        /* VERIFY_LEASE: its own earlier rates under like load; zeros: none */
};

struct verify_send {
    struct str frame;    /* the session's; until its next call */
    int64_t deadline_ns; /* the whole answer must be there within this time of sending */
    bool is_slotted;     /* to be sent in the same 20 ms as those of the other devices of the slot */
};
enum verify_next { VERIFY_SEND, VERIFY_WAIT /* call verify_resume after 20 ms or so */, VERIFY_DONE };

struct verify_session;
MUST_CHECK enum error verify_open(const struct verify_options *options, struct verify_session **ret);
struct verify_session *verify_free(struct verify_session *session); /* wipes; accepts NULL */
enum verify_next verify_start(struct verify_session *session, struct verify_send *ret);
/* answer: a whole frame. took_ns < 0: none came in time (VERIFY_LATE). After a failure a last RELEASE may be sent, with
 * the result known already; its answer does not matter. */
enum verify_next verify_answer(struct verify_session *session, struct str answer, int64_t took_ns,
                               struct verify_send *ret);
enum verify_next verify_resume(struct verify_session *session, struct verify_send *ret);
void verify_lose(struct verify_session *session); /* the link went: result VERIFY_LOST unless it is done */
const struct verify_report *verify_report(const struct verify_session *session);
/* After it is done: the VERDICT frame for the worker. receipt: JSON or "". */
MUST_CHECK enum error verify_verdict_frame(struct verify_session *session, struct str receipt, struct buf *to);

#endif
