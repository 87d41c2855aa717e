/* Admission of a worker: no call before it has proven itself; proven again at random times. Pure: news and time in, new
 * state and action out. States and the moves between them are one table in admission.c.
 *
 * A wrong answer is fraud or broken hardware: the worker is in quarantine at once, and two re-tests a second apart, by
 * another gateway where there is one, decide between ready again and a ban of 30 days that doubles each time. A slow
 * answer is evidence and no more: the third in a row suspends. */
#ifndef SLUICE_SCHEDULER_ADMISSION_H
#define SLUICE_SCHEDULER_ADMISSION_H

#include "probes/verifier.h"

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
    ADMISSION_LINKED,         /* a link came up */
    ADMISSION_PROBE_GOOD,     /* everything right, fast enough for its class */
    ADMISSION_PROBE_SLOW,     /* everything right, slower than its class */
    ADMISSION_PROBE_WRONG,    /* a wrong answer, a contradiction, a broken protocol */
    ADMISSION_PROBE_LATE,     /* no answer, or too late */
    ADMISSION_PROBE_LOST,     /* the link broke meanwhile: says nothing, try again */
    ADMISSION_PROBE_GOING_ON, /* still at it: tell every 10 s or so, or another gateway takes over after 30 s */
    ADMISSION_CHANGED,        /* key, UUID or driver are others than those that were proven: a newcomer again; ends the
                                 probe that showed it */
    ADMISSION_WANTED,         /* a ready worker is to be looked at now, as before a long lease */
    ADMISSION_TICK,           /* time passed */
    ADMISSION_EVENT_COUNT
};

struct admission {
    enum admission_state state;
    char reason[128];                 /* why suspended; kept until a probe is passed, else "" */
    int64_t next_probe_at_ms;         /* Unix ms; while one is under way: when it counts as lost */
    int64_t last_probe_at_ms;         /* 0: never */
    int64_t last_probe_took_ms;       /* of the last good answer */
    uint32_t suspensions;             /* in a row: the pause before the next try doubles, 10 s .. 10 min */
    uint64_t token;                   /* fencing token: grows with every change */
    int64_t claimed_at_ms;            /* since when a probe is under way; 0: none is */
    int64_t admitted_at_ms;           /* when it last passed all challenges (VERIFY_ADMISSION); 0: never */
    enum verify_purpose next_purpose; /* of the next probe, or of the one under way: ADMISSION or SPOT */
    uint32_t slow_in_row;
    uint32_t retests;        /* still to be passed in quarantine; 0: not in quarantine */
    uint32_t failed_gateway; /* who saw the failure, or made the last re-test: others go first; 0: nobody */
    uint32_t bans;           /* so far */
    int64_t banned_until_ms; /* 0: never was */
};

enum admission_action { ADMISSION_NOTHING, ADMISSION_SEND_PROBE };

struct admission_policy {
    int64_t reprobe_min_ms, reprobe_max_ms; /* mean times between two probes: at a low and at a high score */
};

struct admission_news {
    enum admission_event event;
    int64_t now_ms;
    uint64_t random;  /* fresh bits */
    uint32_t gateway; /* who asks: any hash of its id but 0 */
    unsigned lost;    /* PROBE_LOST: how often in a row: the next try waits 1 s, then twice as long each time */
    double score;     /* PROBE_GOOD, PROBE_SLOW: the worker's reputation, [0, 1]: sets when the next probe comes */
    enum verify_purpose purpose; /* PROBE_GOOD: what was proven, perhaps less than what was due */
    struct str reason; /* PROBE_WRONG, _LATE, _SLOW: what people are told, printable; absent: a standard text */
};

/* Applies the news; *admission is changed, and token grew, or neither. A READY worker stays ready while it is probed
 * again. SEND_PROBE comes of LINKED, TICK and WANTED when a probe is due: store the change first (the token lets one
 * gateway win), then send a probe of next_purpose. Results without a probe under way change nothing. Ticks are for
 * workers with a link; a new admission is {0}. */
enum admission_action admission_step(struct admission *admission, const struct admission_news *news,
                                     const struct admission_policy *policy);
/* May it take calls? READY, and no re-probe failed. */
bool admission_is_ready(const struct admission *admission);

#define ADMISSION_SCORE_LOW 0.45  /* a newcomer's: probes come at reprobe_min on average */
#define ADMISSION_SCORE_HIGH 0.90 /* at reprobe_max; linear between */
/* Time to the next probe: exponential (so that no past probe tells of it) around the score's mean, within half the
 * least and twice the most. */
int64_t admission_interval_ms(const struct admission_policy *policy, double score, uint64_t random);

#endif
