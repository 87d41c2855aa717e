/* One lease: GPUs held for a tenant by the hour, through as many attempts as it takes. Pure: lease_next tells what is
 * to be done now, lease_apply takes what came of it; whoever drives it (gateway/lease_drive.c) stores the lease between
 * the two, so that any gateway can go on where another died.
 *
 * States: requested -> reserved -> provisioning -> probing -> active -> stopping -> ended, from any of them failed with
 * a reason, and from reserved .. active back to requested for the next candidate (a new epoch after active). One table
 * of moves, lease.c; what is not in it is a bug and refused.
 *
 * What makes an attempt go wrong costs that attempt only: it is given up, which the tenant does not pay, and the next
 * candidate is picked, until LEASE_CANDIDATES_MAX or the deadline. An active lease is lost on evidence alone: its
 * network says twice that it is gone, failed, stopped or (1.5 settle_ms after its creation) not found, or once while
 * the door is silent, or that it is pending for silent_ms. A network or a door that tells nothing is no evidence.
 *
 * Crashes: the driver stores the lease after each event. An effect whose event was not stored is asked for again
 * (holding, charging, GO, ending are repeatable), but a create is not: from LEASE_INTENDED on the attempt is looked for
 * by its tag, until intended_ms + seek_ms + 1.5 settle_ms.
 *
 * Ending an attempt: TERMINATE, then DESCRIBE until it is gone; TERMINATE again when it is alive 10 s after the network
 * said that it ended; after failures again in 3 s .. 60 s, for ever.
 *
 * Beside the lease's own state each attempt has one, because what it made must be ended whatever became of the lease: a
 * lease has work until all its attempts are closed, also when it has failed. */
#ifndef SLUICE_SCHEDULER_LEASE_H
#define SLUICE_SCHEDULER_LEASE_H

#include "core/id.h"
#include "scheduler/supply.h"

#define LEASE_ID_PREFIX "lse_"
#define LEASE_ATTEMPTS_MAX 32 /* kept; the oldest closed ones give way */
#define LEASE_CANDIDATES_MAX 25
#define LEASE_ARGS_MAX 64
#define LEASE_ENV_MAX 64
#define LEASE_TEXT_MAX ((size_t)16384) /* image, command and environment together */
#define LEASE_RECOVERIES_MAX 8

#define LEASE_STATE_MAP(X)                \
    X(LEASE_REQUESTED, "requested")       \
    X(LEASE_RESERVED, "reserved")         \
    X(LEASE_PROVISIONING, "provisioning") \
    X(LEASE_PROBING, "probing")           \
    X(LEASE_ACTIVE, "active")             \
    X(LEASE_STOPPING, "stopping")         \
    X(LEASE_ENDED, "ended")               \
    X(LEASE_FAILED, "failed")
#define LEASE_STATE_CODE(code, text) code,
enum lease_state { LEASE_STATE_MAP(LEASE_STATE_CODE) LEASE_STATE_COUNT };
#undef LEASE_STATE_CODE
const char *lease_state_name(enum lease_state state);
MUST_CHECK bool lease_state_of(struct str name, enum lease_state *ret);

/* What was asked for. Texts lie in `pool`, owned by the lease; absent where not given. */
struct lease_request {
    struct str gpu, image, region, network, require, prefer, quote, offer; /* offer: a certain one, by its id */
    uint32_t gpus;
    struct str argv[LEASE_ARGS_MAX]; /* none: the image's own command */
    size_t argc;
    struct supply_pair env[LEASE_ENV_MAX];
    size_t env_count;
    uint16_t ports[SUPPLY_PORTS_MAX];
    size_t port_count;
    int64_t price_max_usd_nano;    /* per GPU-hour, with our markup; -1: no cap */
    int64_t price_quoted_usd_nano; /* of the quote; -1: none */
    int64_t tolerance_bps;         /* how far above the quote is still fine */
    int interruptible;             /* 1: may be; 0: must not be */
    int64_t max_duration_s;        /* of being active; 0: until it is ended */
    int64_t deadline_s;  /* from created_at to active, else it fails; 0: 30 min, or none with retry_until_up */
    bool retry_until_up; /* no candidate is no failure: wait and look again, unless machines come to nothing */
    bool recovers;       /* after a loss: another one, in a new epoch */
    int64_t disk_gib;
};

enum lease_door { LEASE_DOOR_NONE, LEASE_DOOR_WAITING, LEASE_DOOR_PROVEN, LEASE_DOOR_REFUSED, LEASE_DOOR_EXITED };

#define ATTEMPT_STATE_MAP(X)                                                                     \
    X(ATTEMPT_CHOSEN, "chosen")     /* nothing was asked of the network yet */                   \
    X(ATTEMPT_CREATING, "creating") /* stored before the call; from here on something may run */ \
    X(ATTEMPT_BOOTING, "booting")   /* it exists: instance is known */                           \
    X(ATTEMPT_UP, "up")             /* the network says that it runs */                          \
    X(ATTEMPT_ENDING, "ending")     /* to be ended; instance is known */                         \
    X(ATTEMPT_SEEKING, "seeking")   /* to be ended, if it exists: looked for by its tag */       \
    X(ATTEMPT_CLOSED, "closed")     /* nothing is left of it */
#define ATTEMPT_STATE_CODE(code, text) code,
enum attempt_state { ATTEMPT_STATE_MAP(ATTEMPT_STATE_CODE) ATTEMPT_STATE_COUNT };
#undef ATTEMPT_STATE_CODE
const char *attempt_state_name(enum attempt_state state);

struct lease_candidate {
    char network[24], offer[SUPPLY_ID_MAX], shown_offer[64]; /* the network's id, and ours */
    char gpu[40], gpu_raw[64], region[48], zone[64], origin[64];
    uint32_t gpus;
    int64_t price_usd_nano;         /* per GPU-hour, what the tenant pays */
    int64_t network_price_usd_nano; /* what the network asks */
    bool interruptible;
};

struct lease_attempt {
    uint32_t number, epoch; /* number counts from 1 over all epochs */
    enum attempt_state state;
    struct lease_candidate of;
    char tag[SUPPLY_TAG_MAX];
    char instance[SUPPLY_ID_MAX]; /* "": not known */
    enum supply_error error;      /* why it was given up; SUPPLY_OK: it was not */
    char message[SUPPLY_MESSAGE_MAX];
    int64_t at_ms;         /* chosen */
    int64_t intended_ms;   /* create was about to be called; 0: not yet */
    int64_t known_ms;      /* its instance became known */
    int64_t up_ms;         /* the network said that it runs */
    int64_t ending_ms;     /* given up, or asked to end */
    int64_t said_ended_ms; /* the network said that it ended it; 0: not yet */
    uint32_t tries;        /* of ending it, or of looking for it, that failed in a row */
    int64_t look_ms;       /* not before this is the network asked about it again */
    int64_t door_ms;       /* not before this is its door looked at, or told to go */
    int64_t proven_ms;     /* the door let it through: GO is due; 0: not yet */
    uint32_t gone_looks;   /* in a row that said that it is gone */
    enum lease_door door;  /* what the last look at the door saw */
};

struct lease_endpoint {
    uint16_t port;
    char url[232];
};

struct lease {
    char id[ID_TEXT_MAX], tenant[ID_TEXT_MAX], key_id[ID_TEXT_MAX];
    char installation[SUPPLY_INSTALLATION_MAX];
    struct lease_request request;
    struct buf pool; /* of request */
    enum lease_state state;
    char reason[SUPPLY_MESSAGE_MAX];                   /* why it is where it is, for people; "" */
    int64_t created_at_ms, active_at_ms, ended_at_ms;  /* active: of the first epoch; 0: not yet */
    int64_t stop_asked_ms;                             /* 0: not asked */
    int64_t search_ms;                                 /* deadline_s counts from here: a loss; 0: created_at_ms */
    int64_t pick_ms;                                   /* not before this is a candidate looked for */
    uint32_t pauses;                                   /* of retry_until_up, in a row */
    uint32_t epoch;                                    /* recoveries so far */
    struct lease_attempt attempts[LEASE_ATTEMPTS_MAX]; /* in order of numbers; the last is the current one */
    size_t attempt_count;
    uint32_t attempts_made;      /* over all */
    uint32_t attempts_of_search; /* since it last was active, or gave up for a while */
    struct lease_endpoint endpoints[SUPPLY_PORTS_MAX];
    size_t endpoint_count;

    /* money; see pricing/lease_money.h */
    int64_t budget_usd_nano; /* of the key that it was made with; 0: it has none */
    char budget_period[8];   /* "day" | "month" */
    bool is_held;            /* what should be held now is held; false: HOLD is due */
    bool is_released;
    int64_t hold_ms;                      /* not before this is a hold asked for */
    int64_t former_ms;                    /* wall time of being active in former epochs */
    int64_t price_usd_nano;               /* of this epoch; 0: none yet */
    int64_t since_ms;                     /* billed from; 0: not billing */
    int64_t until_ms;                     /* billing stopped here; 0: it runs on */
    int64_t seen_ms;                      /* last known to run: nothing is billed beyond it but by a stop */
    int64_t epoch_billed_ms;              /* wall time of this epoch that is captured */
    int64_t billed_gpu_ms, cost_usd_nano; /* of all epochs, captured */
    uint32_t captures;                    /* how many slices were captured */
    int64_t capture_intent_ms;            /* epoch time up to which slice captures + 1 goes; 0: none under way */
    int64_t unfunded_ms;                  /* since when its hold could not be extended; 0: it could */

    uint64_t token;   /* the fencing token it was claimed with */
    uint64_t version; /* of the stored record */
    int64_t due_ms;   /* when somebody must look again */
};

/* -- what is to be done -- */
enum lease_do {
    LEASE_DO_NOTHING,        /* terminal, and nothing is left: leaves the set of due leases */
    LEASE_DO_WAIT,           /* until .until_ms */
    LEASE_DO_STOP,           /* asked for, or a time is over -> LEASE_STOP; the machine knows why */
    LEASE_DO_PICK,           /* -> LEASE_PICKED or LEASE_NO_CANDIDATE */
    LEASE_DO_HOLD,           /* money: price_usd_nano -> LEASE_HELD or LEASE_UNFUNDED */
    LEASE_DO_CREATE,         /* store LEASE_INTENDED first, then ask -> LEASE_CREATED, LEASE_CREATE_FAILED */
    LEASE_DO_FIND,           /* list by tag -> LEASE_FOUND or LEASE_FOUND_NOT, or LEASE_ASK_FAILED */
    LEASE_DO_DESCRIBE,       /* -> LEASE_DESCRIBED or LEASE_ASK_FAILED */
    LEASE_DO_DOOR,           /* look at the door -> LEASE_DOOR */
    LEASE_DO_GO,             /* the user's command may start -> LEASE_WENT or LEASE_ASK_FAILED */
    LEASE_DO_INTEND_CAPTURE, /* to lease_epoch_ms, stored before the charge -> LEASE_CAPTURE_INTENDED */
    LEASE_DO_CAPTURE,        /* the slice that was stored -> LEASE_CAPTURED */
    LEASE_DO_TERMINATE,      /* -> LEASE_TERMINATED or LEASE_ASK_FAILED */
    LEASE_DO_RELEASE,        /* what is left of the hold returns -> LEASE_RELEASED */
};
struct lease_action {
    enum lease_do what;
    size_t attempt; /* index; FIND, DESCRIBE, CREATE, DOOR, GO, TERMINATE */
    int64_t until_ms;
};

/* report: a refused or missing proof is noted and the command starts all the same. What never comes to the door cannot
 * start it and is given up either way. off: no door; active when the network says that it runs. */
enum lease_probe { LEASE_PROBE_REQUIRED, LEASE_PROBE_REPORT, LEASE_PROBE_OFF };
/* Of an attempt's network, as far as the machine must know it. */
struct lease_terms {
    bool is_known; /* false: no longer configured; nothing can be asked, its attempts wait */
    enum lease_probe probe;
    int64_t settle_ms, boot_ms; /* 0: 60 s, 20 min */
};
struct lease_policy {
    int64_t slice_ms;    /* captured and extended by; 15 min */
    int64_t describe_ms; /* between two looks at what boots (2 s) */
    int64_t watch_ms;    /* at what is active (15 s) */
    int64_t probing_ms;  /* from up to proven (5 min) */
    int64_t grace_ms;    /* unfunded: how long after the warning it is stopped (60 s) */
    int64_t retry_ms;    /* first pause of retry_until_up, doubled to 16 times it; (15 s) */
    int64_t
        seek_ms; /* what a lost answer may have made is looked for so long, beside the network's settle_ms (2 min) */
    int64_t silent_ms; /* active, but neither network nor door tell of it: warned, and not billed (3 min) */
    struct lease_terms (*terms)(void *ctx, const char *network);
    void *ctx;
};
extern const struct lease_policy lease_policy_default; /* without terms */

/* Deterministic in lease, now and policy. */
struct lease_action lease_next(const struct lease *lease, int64_t now_ms, const struct lease_policy *policy);

/* -- what came of it -- */
enum lease_event_kind {
    LEASE_PICKED,       /* candidate */
    LEASE_NO_CANDIDATE, /* message: why none fits, with the counts */
    LEASE_HELD,
    LEASE_UNFUNDED,      /* message */
    LEASE_INTENDED,      /* create is about to be called */
    LEASE_CREATED,       /* instance */
    LEASE_CREATE_FAILED, /* error, is_uncertain, leftover, message */
    LEASE_FOUND,         /* instance */
    LEASE_FOUND_NOT,     /* the listing was whole, and it was not in it */
    LEASE_DESCRIBED,     /* instance */
    LEASE_ASK_FAILED,    /* error, message, retry_after_ms: of FIND, DESCRIBE, TERMINATE, GO */
    LEASE_DOOR,          /* door */
    LEASE_WENT,
    LEASE_CAPTURE_INTENDED, /* to_ms */
    LEASE_CAPTURED,         /* gpu_ms, cost: of this slice */
    LEASE_TERMINATED,
    LEASE_RELEASED,
    LEASE_STOP, /* the tenant, or its time is over. message: why; absent: as the machine knows. Again: harmless */
};
struct lease_event {
    enum lease_event_kind kind;
    size_t attempt; /* index, where the action had one */
    const struct lease_candidate *candidate;
    const struct supply_instance *instance; /* the id counts for CREATED and FOUND, all for DESCRIBED */
    enum supply_error error;
    bool is_uncertain;
    struct str leftover, message;
    int64_t retry_after_ms;
    enum lease_door door;
    int exit_code; /* DOOR_EXITED: of the user's command */
    int64_t to_ms; /* epoch time in ms */
    int64_t gpu_ms, cost_usd_nano;
};
/* Takes the event at now_ms. ERR_MISMATCH: it does not fit the state (nothing changed). */
MUST_CHECK enum error lease_apply(struct lease *lease, const struct lease_event *event, int64_t now_ms,
                                  const struct lease_policy *policy);

/* The attempt that the lease is about now; NULL: none. */
struct lease_attempt *lease_current(struct lease *lease);
const struct lease_attempt *lease_current_const(const struct lease *lease);
bool lease_is_over(const struct lease *lease); /* ended or failed */
/* Does a tag's attempt still count, so that what runs under it is not an orphan? (CREATING, BOOTING, UP, or on its way
 * out by the lease's own hand.) */
bool lease_owns(const struct lease *lease, uint32_t attempt_number);
/* Wall time of this epoch to bill at now_ms: from since to until; while it runs, to when it was last seen. Never less
 * than what was captured or intended. */
int64_t lease_epoch_ms(const struct lease *lease, int64_t now_ms);

/* Memory: a zeroed lease is empty. Texts of a request are copied into the lease's pool. */
MUST_CHECK struct lease *lease_new(void);
struct lease *lease_free(struct lease *lease); /* accepts NULL; wipes the environment */
/* All of request's texts, copied. False: out of memory or over LEASE_TEXT_MAX. */
MUST_CHECK bool lease_request_copy(struct lease *lease, const struct lease_request *request);

#endif
