/* Admission of a worker: no call before it has passed a challenge; probed again at random times. Pure: event and time
 * in, new state and action out. States and the moves between them are one table in admission.c. */
#ifndef SLUICE_SCHEDULER_ADMISSION_H
#define SLUICE_SCHEDULER_ADMISSION_H

#include "core/str.h"

enum admission_state {
    ADMISSION_ENROLLED,
    ADMISSION_PROBING,
    ADMISSION_READY,
    ADMISSION_SUSPENDED,
    ADMISSION_STATE_COUNT
};
const char *admission_state_name(enum admission_state state); /* "enrolled", ... */
bool admission_state_parse(struct str name, enum admission_state *ret);

enum admission_event {
    ADMISSION_LINKED,     /* a link came up */
    ADMISSION_PROBE_GOOD, /* the right answer in time */
    ADMISSION_PROBE_WRONG,
    ADMISSION_PROBE_LATE, /* no answer, or too late */
    ADMISSION_PROBE_LOST, /* the link broke meanwhile: says nothing, try again */
    ADMISSION_TICK,       /* time passed */
};

struct admission {
    enum admission_state state;
    char reason[64]; /* why suspended: "wrong answer", "answer too late"; kept until a probe is passed, else "" */
    int64_t next_probe_at_ms;   /* Unix ms; while one is under way: when it counts as lost */
    int64_t last_probe_at_ms;   /* 0: never */
    int64_t last_probe_took_ms; /* of the last good answer */
    uint32_t suspensions;       /* in a row: the pause before the next try doubles, 10 s .. 10 min */
    uint64_t token;             /* fencing token: grows with every change */
};

enum admission_action { ADMISSION_NOTHING, ADMISSION_SEND_PROBE };

struct admission_policy {
    int64_t reprobe_min_ms, reprobe_max_ms; /* a ready worker is probed again at a random time between */
};

/* Applies the event; *admission is changed, and token grew, or neither. random: fresh bits. A READY worker stays ready
 * while it is probed again. SEND_PROBE comes of LINKED and TICK when a probe is due: store the change first (the token
 * lets one gateway win), then send. Ticks are for workers with a link; a new admission is {0}. */
enum admission_action admission_step(struct admission *admission, enum admission_event event, int64_t now_ms,
                                     const struct admission_policy *policy, uint64_t random);
/* May it take calls? READY, and no re-probe failed. */
bool admission_is_ready(const struct admission *admission);

#endif
