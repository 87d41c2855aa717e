/* The first form of the admission challenge: an exact integer computation on a CPU, checked without repeating it.
 *
 * Wire: little-endian binary, fixed sizes, versioned; the layout is at the top of challenge.c. The worker answers with
 * challenge_answer; the gateway checks with challenge_check. The CUDA probe replaces the inside behind this header. */
#ifndef SLUICE_PROBES_CHALLENGE_H
#define SLUICE_PROBES_CHALLENGE_H

#include "core/str.h"

#define CHALLENGE_QUESTION_MAX 256
#define CHALLENGE_ANSWER_MAX ((size_t)1 << 20)

struct challenge {
    uint8_t question[CHALLENGE_QUESTION_MAX];
    size_t question_len;
    int64_t deadline_ns; /* the answer must be whole within this time of sending (round trip included) */
};

void challenge_make(struct challenge *ret); /* fresh seed from the system's randomness */
/* The worker's side. ERR_BAD_INPUT on a malformed question. Bounded time (well under a second on one core). */
MUST_CHECK enum error challenge_answer(struct str question, struct buf *ret_answer);
/* The gateway's side: true only for the right answer. Cheap against challenge_answer; CPU-bound: verify pool. */
bool challenge_check(const struct challenge *challenge, struct str answer);

#endif
