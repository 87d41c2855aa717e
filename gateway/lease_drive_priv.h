/* Of the files of the lease driver: lease_drive.c (claims, the step from one action to the next, saving), lease_act.c
 * (money and the network's calls), lease_find.c (listings), lease_door.c (the door), lease_ask.c (what handlers ask).
 * Control thread only. */
#ifndef SLUICE_GATEWAY_LEASE_DRIVE_PRIV_H
#define SLUICE_GATEWAY_LEASE_DRIVE_PRIV_H

#include "gateway/control_priv.h"
#include "gateway/door.h"
#include "gateway/lease_drive.h"
#include "pricing/lease_money.h"

#define LEASE_DRIVES_MAX 256 /* at a time; others stay due */

struct find;

struct lease_driver {
    struct control *control;
    struct networks *networks;
    struct loop *loop;
    struct redis *redis;
    struct capacity_memory *memory;
    struct lease_policy policy;
    struct timer tick;
    uint64_t ticks;
    unsigned next_shard;
    bool is_claiming[LEASE_SHARDS];
    bool is_shut;
    unsigned claims_open; /* questions whose answers come back here */
    struct drive *drives;
    struct find *finds; /* listings by network */
    size_t drive_count;
    struct lease_counts counts;
};

/* One lease that this gateway has claimed, from its claim to its last save. */
struct drive {
    struct lease_driver *driver;
    struct lease *lease;
    struct lease_action action; /* under way */
    struct adapter_call *call;  /* of the network; NULL: none */
    struct timer keep;          /* the claim is renewed while something is under way */
    struct timer again;         /* a save that Redis did not answer */
    struct task step;
    bool is_lost;     /* another gateway has it: nothing is written any more */
    bool is_over;     /* freed when the question about its claim is answered */
    bool is_intended; /* LEASE_INTENDED is being saved; create comes next */
    bool is_last;     /* this save lets it go */
    bool is_keeping;
    struct drive *find_next, **find_link; /* of those that wait for a listing; link NULL: it does not */
    bool is_found;                        /* FIND: by that listing */
    char found[SUPPLY_ID_MAX];
    enum instance_state found_state;
    unsigned save_tries;
    struct drive *next, **link;
};

/* Takes the event and saves what came of it; the next action follows. An event that does not fit is logged, and the
 * lease let go for a while. */
void drive_apply(struct drive *drive, const struct lease_event *event);
/* Lets the lease go until due_ms without a change. */
void drive_put_off(struct drive *drive, int64_t after_ms);
void drive_free(struct drive *drive);

/* -- lease_act.c: each asks and applies what is answered, or applies at once -- */
void drive_pick(struct drive *drive);
void drive_hold(struct drive *drive);
void drive_create(struct drive *drive); /* LEASE_INTENDED is saved */
void drive_describe(struct drive *drive);
void drive_capture(struct drive *drive);
void drive_terminate(struct drive *drive);
void drive_release(struct drive *drive);
const struct lease_attempt *drive_attempt(const struct drive *drive); /* that the action is about */
void drive_ask_failed(struct drive *drive, const struct network_result *result);
/* What a request may choose from, best first. ret: LEASE_RANKED_MAX places. */
#define LEASE_RANKED_MAX 64
size_t drive_candidates(struct lease_driver *driver, const struct lease_request *request, struct lease_ranked *ret,
                        size_t *ret_considered);

/* -- lease_find.c -- */
void drive_find(struct drive *drive);
void drive_find_leave(struct drive *drive); /* harmless if it does not wait */
void drive_finds_free(struct lease_driver *driver);

/* -- lease_door.c -- */
struct lease_terms drive_terms(void *ctx, const char *network); /* of lease_policy; ctx: the driver */
bool drive_has_door(struct drive *drive, const struct lease_attempt *attempt);
/* The start of the attempt at the door, or without one the tenant's own command; then send(drive, start). start is NULL
 * without a door. */
void drive_open_door(struct drive *drive, void (*send)(struct drive *drive, const struct door_start *start));
void drive_door(struct drive *drive);
void drive_go(struct drive *drive);
void drive_close_door(struct drive *drive, const struct lease_attempt *attempt);

#endif
