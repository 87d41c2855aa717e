/* Whether a network is worth asking: a breaker over the outcomes of what was asked of it. Pure.
 *
 * Closed until three failures in a row, or one refused credential. Open for 5 s, doubled up to 5 min while it fails on
 * (a minute for a credential, or as long as the network itself said). Then half-open: one try goes through and decides.
 * A network that answers, be it "no", is well: only no answer, "too often" and "I do not know you" are failures. */
#ifndef SLUICE_GATEWAY_BREAKER_H
#define SLUICE_GATEWAY_BREAKER_H

#include "scheduler/supply.h"

#define BREAKER_FAILURES 3
#define BREAKER_LEAST_MS INT64_C(5000)
#define BREAKER_MOST_MS INT64_C(300000)
#define BREAKER_CREDENTIAL_MS INT64_C(60000)
#define BREAKER_TEXT_MAX 96

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_STATES };
const char *breaker_state_name(enum breaker_state state); /* "closed", "open", "half_open" */

struct breaker {
    enum breaker_state state;
    unsigned failures;        /* in a row */
    unsigned rounds;          /* how often it opened since it was closed */
    int64_t until_ms;         /* open: then one try goes through */
    enum supply_error reason; /* of the last opening */
};

/* An outcome. retry_after_ms: as the network told; 0: it did not. True: it opened or closed. */
bool breaker_note(struct breaker *breaker, enum supply_error error, int64_t retry_after_ms, int64_t now_ms);
/* May one ask now? An open one whose time has come becomes half-open for who asks; its outcome must be noted. */
bool breaker_try(struct breaker *breaker, int64_t now_ms);
/* As others see it, and back: open ones and closed ones alone are told. */
void breaker_text(const struct breaker *breaker, char ret[static BREAKER_TEXT_MAX]);
MUST_CHECK bool breaker_parse(struct str text, struct breaker *ret);

#endif
