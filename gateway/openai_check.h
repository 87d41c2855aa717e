/* Answers are checked: some calls whose answer is determined are asked again of another operator's worker when the
 * caller has its answer, and compared; a third operator's worker referees (scheduler/answer_check.h). Whoever was wrong
 * loses reputation; if it was the worker that the tenant paid, the tenant gets its money back (pricing/refund.h).
 *
 * Which calls are checked is drawn for each attempt when its answer begins, so that only their text is kept. A question
 * asked again never takes a worker's last free slot, is put while no call waits, and carries what a call carries. */
#ifndef SLUICE_GATEWAY_OPENAI_CHECK_H
#define SLUICE_GATEWAY_OPENAI_CHECK_H

#include "gateway/openai_call.h"

struct openai_checks; /* one a reactor */
struct answer_check;  /* one under way: at first of a call, then by itself */

struct openai_checks *checks_open(struct reactor *reactor); /* NULL: out of memory */
/* The hub of the reactor is gone, so nothing is being asked. */
struct openai_checks *checks_free(struct openai_checks *checks);
/* Is the answer that begins now to be checked? */
bool checks_draw(struct openai_checks *checks, double reputation);

/* -- of a call; call->check may be NULL for all but the first three -- */
void check_hold(struct attempt *attempt); /* the draw said so: sets call->check if the call is fit for it */
void check_event(struct openai_call *call, struct str data); /* an event of its stream that has content */
void check_plain(struct openai_call *call);                  /* its whole answer lies in call->answer */
void check_metered(struct openai_call *call, bool is_paid);  /* is_paid: it completed, and its record is safe */
void check_drop(struct openai_call *call);                   /* it is not to be checked after all */
void check_start(struct openai_call *call);                  /* the call is over: takes its body */

#endif
