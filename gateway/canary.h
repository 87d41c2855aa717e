/* Canaries: questions of the gateway's own among the calls, which look like calls. Their answers are known: two
 * operators' workers agreed on them once, which is kept in Redis with the model. A worker that says something else has
 * it judged by a third operator's as any checked answer (openai_check.h). So a worker is watched also where callers ask
 * only what cannot be compared.
 *
 * They come as often as checks do: the draw that takes a call for a check also sends a canary, some random time later,
 * to a random worker of that model; at most one a minute to each worker, however many gateways there are. */
#ifndef SLUICE_GATEWAY_CANARY_H
#define SLUICE_GATEWAY_CANARY_H

#include "gateway/check.h"

struct canaries; /* one a reactor */
struct canary;   /* a question under way; owned by its check once that runs */

struct canaries *canaries_open(struct openai_checks *checks);     /* NULL: out of memory */
struct canaries *canaries_free(struct canaries *canaries);        /* accepts NULL */
void canary_call(struct openai_checks *checks, struct str model); /* a call of that model was drawn */
void canary_verdict(const struct answer_check *check, enum check_result result);
struct canary *canary_free(struct canary *canary); /* accepts NULL */

/* A question as any caller might put it, by these random bits. False: out of memory. */
MUST_CHECK bool canary_question(struct str model, uint64_t random, struct buf *ret);
/* What is kept: the question, the whole answer with its log-probabilities, and who gave it. */
MUST_CHECK bool canary_write(struct str question, struct str answer, struct str worker, struct str supplier,
                             struct buf *ret);
/* Fills the check's question and its peer's answer. False: nothing sound; the check is as it was or may be freed. */
MUST_CHECK bool canary_read(struct str text, struct answer_check *check);

#endif
