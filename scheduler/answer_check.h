/* Is the answer that a worker gave the one that the model gives? Pure: reads what the caller was told, and what other
 * operators' workers say to the same question, and decides.
 *
 * Only questions whose answer is determined are asked twice: greedy decoding, one choice. Even then two honest workers
 * may differ: GPUs and engines round differently, and where two tokens are nearly equally likely either may come first.
 * So the one who is asked again also tells the log-probabilities of its tokens and of their rivals, and at the first
 * place where the texts part, the other text must go on with a rival that was about as likely as the chosen token.
 * What follows behind that place has another prefix and says nothing. A text is never judged without such evidence:
 * when the evidence is missing or contradicts itself, nobody was wrong. */
#ifndef SLUICE_SCHEDULER_ANSWER_CHECK_H
#define SLUICE_SCHEDULER_ANSWER_CHECK_H

#include "core/str.h"

/* All thresholds of a check. */
struct answer_limits {
    size_t body_max;   /* bytes of a request that is asked again */
    size_t text_max;   /* bytes of a text that is compared */
    size_t replay_max; /* bytes of a whole answer with its log-probabilities */
    double margin;     /* natural log: how much less likely a rival may be than the chosen token. 1: at least a share of
                          0.37 of it, several times what bf16 or fp8 rounding moves, far from what another model says */
};
struct answer_limits answer_limits_default(void);

enum answer_kind { ANSWER_CHAT, ANSWER_COMPLETION };

/* May the answer to this request, a valid JSON object, be compared? temperature 0 or top_k 1; one choice; no tools, no
 * sound. A member that is given twice makes it unfit. */
bool answer_is_determined(enum answer_kind kind, struct str body);
/* Appends the request as it is asked again: the same, not streamed, and with_logprobs. False: out of memory. */
MUST_CHECK bool answer_replay(enum answer_kind kind, struct str body, bool with_logprobs, struct buf *ret);

/* Appends what was said: of a whole answer, or of an event of a stream; both valid JSON. ERR_NOT_FOUND: something that
 * cannot be compared (no text, several choices, calls of tools, thoughts); ERR_TOO_LARGE, ERR_NO_MEMORY: *ret's. */
MUST_CHECK enum error answer_text(enum answer_kind kind, struct str answer, struct buf *ret);
MUST_CHECK enum error answer_event_text(enum answer_kind kind, struct str event, struct buf *ret);

enum answer_match {
    ANSWER_UNKNOWN, /* no evidence */
    ANSWER_AGREES,
    ANSWER_DIFFERS
};
/* Might the worker behind this whole answer with log-probabilities (valid JSON) have said text as well? */
enum answer_match answer_compare(enum answer_kind kind, struct str text, struct str answer);
/* Two such answers, each by the other's log-probabilities: one agreement is enough. */
enum answer_match answer_compare_both(enum answer_kind kind, struct str one, struct str other);

enum answer_verdict { ANSWER_NOBODY, ANSWER_ORIGINAL_WRONG, ANSWER_PEER_WRONG };
/* Whoever disagrees with both others while these agree was wrong. */
enum answer_verdict answer_judge(enum answer_match original_peer, enum answer_match original_referee,
                                 enum answer_match peer_referee);

#endif
