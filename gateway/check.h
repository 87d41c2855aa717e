/* Inside of the checks of answers: a check and the questions that it puts. Included by gateway/openai_check.c,
 * check_*.c and canary.c only. */
#ifndef SLUICE_GATEWAY_CHECK_H
#define SLUICE_GATEWAY_CHECK_H

#include "core/json_scan.h"
#include "gateway/openai_check.h"
#include "gateway/reactor.h"
#include "scheduler/answer_check.h"

#define CHECKS_MAX 32                      /* under way in a reactor, those of running calls too */
#define CHECK_BYTES_MAX ((size_t)32 << 20) /* that all of them hold */
#define CHECK_WAIT_NS (60 * NS_PER_S)      /* for a slot and an answer, each time */
#define CHECK_LOOK_NS (250 * NS_PER_MS)    /* how often a slot is looked for */

#define CHECK_FAILED_MAX 2

/* One question to one worker. */
struct check_ask {
    struct answer_check *check;
    struct worker *worker; /* a reference; NULL: nobody was asked yet, or the answer was stored */
    struct h2_stream *stream;
    struct usage_record record; /* of a call's original: what it paid; else what the worker gets for it */
    struct buf answer;          /* whole, JSON, of a 200 */
    struct json_scan scan;
    int64_t sent_ns;
    uint32_t gpus, slots;
    int status;
    bool is_refused, is_good; /* for want of a slot; whole and sound */
};

enum check_party { CHECK_ORIGINAL, CHECK_PEER, CHECK_REFEREE, CHECK_PARTIES };

enum check_result { CHECK_AGREED, CHECK_ORIGINAL_WRONG, CHECK_PEER_WRONG, CHECK_INCONCLUSIVE };

struct answer_check {
    struct openai_checks *checks;
    struct answer_check *next, **link; /* of checks->running, when it is on its own */
    enum answer_kind kind;
    const char *path;
    char model[OPENAI_MODEL_MAX + 1]; /* as the market knows it */
    bool is_metered, is_over;         /* over: freed when its stream has ended */
    size_t bytes;                     /* counted in checks->bytes */
    struct buf question;              /* as it is asked again */
    struct buf plain;                 /* of a canary: as its original is asked */
    struct buf text;                  /* what the original said */
    struct check_ask asks[CHECK_PARTIES];
    char failed[CHECK_FAILED_MAX][ID_TEXT_MAX]; /* workers that gave no answer: not asked again */
    size_t failed_count;
    enum check_party asking;
    struct timer timer;
    int64_t deadline_ns;
    struct canary *canary; /* NULL: of a tenant's call */
};

struct openai_checks {
    struct reactor *reactor;
    uint64_t random;
    uint32_t share; /* of 2^32 */
    size_t count, bytes;
    struct answer_check *running;
    struct canaries *canaries; /* NULL: off */
};

uint64_t checks_random(struct openai_checks *checks);

/* -- openai_check.c -- */
struct answer_check *check_new(struct openai_checks *checks, enum answer_kind kind); /* NULL: too many, no memory */
void check_free(struct answer_check *check);
/* Counts what the check is going to hold. False: too much is held already. */
MUST_CHECK bool check_may_hold(struct answer_check *check, size_t bytes);
/* The check is on its own from now on. */
void check_enter(struct answer_check *check);
/* After wait_ns at the earliest somebody is asked. */
void check_begin(struct answer_check *check, enum check_party party, int64_t wait_ns);
void check_answered(struct answer_check *check); /* the worker that was asked is through; may free the check */

/* -- check_ask.c -- */
/* Could another one be asked, when a slot is free? No party's worker, supplier or address block counts. */
bool check_has_other(const struct answer_check *check);
/* Asks somebody now; check_answered follows. False: nobody has a slot to spare. */
MUST_CHECK bool check_ask(struct answer_check *check);
/* Asks this one. */
MUST_CHECK bool check_ask_row(struct answer_check *check, const struct market *market, uint32_t row);
/* Callers come first: no call waits, and the journal has room. False also when the gateway ends. */
bool checks_may_ask(const struct openai_checks *checks);
bool check_has_slot(const struct openai_checks *checks, const struct worker *worker);
void check_ask_free(struct check_ask *ask);

/* -- check_verdict.c -- */
/* What follows of it; frees the check. */
void check_verdict(struct answer_check *check, enum check_result result);

#endif
