/* Inside of lease.h: shared by lease*.c of this folder that move it. */
#ifndef SLUICE_SCHEDULER_LEASE_MOVES_H
#define SLUICE_SCHEDULER_LEASE_MOVES_H

#include "scheduler/lease.h"

#define LEASE_TEXT_OF(number) #number
#define LEASE_TEXT_OF_VALUE(number) LEASE_TEXT_OF(number)
#define LEASE_CANDIDATES_TEXT LEASE_TEXT_OF_VALUE(LEASE_CANDIDATES_MAX)
#define LEASE_SETTLE_MS 60000              /* where a network tells none */
#define LEASE_BOOT_MS (20 * 60 * 1000)     /* the same */
#define LEASE_DEADLINE_MS (30 * 60 * 1000) /* without a request's own */
#define LEASE_BACK_OFF_MS_MAX 60000
#define LEASE_FRUITLESS_MAX 8          /* machines that came to nothing: retry_until_up goes on no more */
#define LEASE_ASK_MS 3000              /* first pause after a failure of asking */
#define LEASE_ALIVE_MS 10000           /* alive so long after it was said to have ended: ended again */
#define LEASE_STILL_STOPPING_MS 120000 /* the same while it says that it is on its way */

bool lease_may_move(enum lease_state from, enum lease_state to);
void lease_move(struct lease *lease, enum lease_state to); /* asserts the table */
void lease_move_attempt(struct lease_attempt *attempt, enum attempt_state to);

struct lease_terms lease_terms_of(const struct lease_policy *policy, const struct lease_attempt *attempt);
/* From when on "not found" means that it is not there, for one that was created, and for one that may have been. */
int64_t lease_settled_ms(const struct lease_policy *policy, const struct lease_attempt *attempt);
int64_t lease_seek_end_ms(const struct lease_policy *policy, const struct lease_attempt *attempt);
int64_t lease_boot_end_ms(const struct lease_policy *policy, const struct lease_attempt *attempt);
int64_t lease_back_off_ms(int64_t first_ms, uint32_t tries); /* doubling, at most LEASE_BACK_OFF_MS_MAX */

/* When max_duration_s of being active is over, in this epoch; INT64_MAX: never. Nothing is billed beyond. */
int64_t lease_duration_end_ms(const struct lease *lease);
/* Is all of this epoch charged that will ever be? */
bool lease_is_charged(const struct lease *lease);
bool lease_is_cleared(const struct lease *lease); /* all attempts closed */
bool lease_has_room(const struct lease *lease);   /* for another attempt */

enum lease_stop_why {
    LEASE_STOP_NOT,
    LEASE_STOP_ASKED,
    LEASE_STOP_DURATION,
    LEASE_STOP_DEADLINE,
    LEASE_STOP_UNFUNDED,
};
struct lease_stop_due {
    int64_t at_ms; /* INT64_MAX: never */
    enum lease_stop_why why;
};
struct lease_stop_due lease_stop_due(const struct lease *lease, const struct lease_policy *policy);

/* One event being taken. */
struct lease_step {
    struct lease *lease;
    struct lease_attempt *attempt; /* the event's; NULL: none */
    const struct lease_event *event;
    const struct lease_policy *policy;
    int64_t now_ms;
};

/* lease_end.c */
void lease_tell(char *to, size_t size, struct str text); /* cut where it does not fit, between characters */
#define LEASE_TELL(to, text) lease_tell(to, sizeof(to), text)
int64_t lease_later_of(int64_t a, int64_t b);
void lease_close_attempt(struct lease_attempt *attempt, int64_t now_ms);
/* It exists, and is to be ended. */
void lease_end_instance(struct lease_attempt *attempt, struct str instance, int64_t now_ms);
void lease_blame(struct lease_attempt *attempt, enum supply_error error, struct str message);
bool lease_is_current(const struct lease_step *step); /* is the event's attempt the one that the lease is about? */
/* The current attempt came to nothing: the next candidate, unless there were enough. */
void lease_go_on(struct lease_step *step);
/* lease_blame, what it made is ended, lease_go_on. */
void lease_give_up(struct lease_step *step, enum supply_error error, struct str message);
/* The machine of an active lease is gone: billed to when it was last seen. */
void lease_lose(struct lease_step *step, struct str message);
/* This search found nothing: over, or after a pause a new one. */
void lease_end_search(struct lease_step *step, struct str what);
void lease_move_search_failed(struct lease_step *step, struct str what); /* with lease_why_nothing */
void lease_move_failed(struct lease_step *step, struct str reason);
/* At at_ms it was stopped; what ran unseen for long by then is billed to when it was seen. */
void lease_begin_stop(struct lease_step *step, int64_t at_ms, struct str reason);

/* lease_machine.c: what lease_apply does with these events. They have an attempt. */
enum error lease_on_intended(struct lease_step *step);
enum error lease_on_exists(struct lease_step *step); /* CREATED and FOUND */
enum error lease_on_create_failed(struct lease_step *step);
enum error lease_on_found_not(struct lease_step *step);
enum error lease_on_described(struct lease_step *step);
enum error lease_on_terminated(struct lease_step *step);
enum error lease_on_ask_failed(struct lease_step *step);
enum error lease_on_door(struct lease_step *step);
enum error lease_on_went(struct lease_step *step);

/* lease_why.c: why a search found nothing: which networks, what they answered, what to do. */
void lease_why_nothing(const struct lease *lease, struct str what, char ret[static SUPPLY_MESSAGE_MAX]);
/* Attempts of this search, in order: index of the first. */
size_t lease_search_begin(const struct lease *lease);
/* How many networks said in this search that the request itself is wrong. */
unsigned lease_refusals(const struct lease *lease);

#endif
