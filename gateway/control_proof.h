/* Of control_probe.c (a run: claim, sessions, end), control_verdict.c (what it means, what is stored of it) and
 * control_slot.c (who is challenged at the same time). Everything here belongs to the control thread. */
#ifndef SLUICE_GATEWAY_CONTROL_PROOF_H
#define SLUICE_GATEWAY_CONTROL_PROOF_H

#include "gateway/control_priv.h"
#include "gateway/proof_session.h"
#include "scheduler/identity_store.h"

struct proof_device {
    struct probe_run *run;
    struct proof_session *session; /* NULL: could not be opened */
    unsigned gpu, seat;            /* in the slot */
    enum { DEVICE_RUNS, DEVICE_HELD_HELLO, DEVICE_HELD_SLOT, DEVICE_DONE, DEVICE_TOLD } state;
};

/* A worker's proof: all its devices at once. */
struct probe_run {
    struct probe_run *next, **link; /* of control->runs */
    struct control *control;
    struct worker *worker;  /* a reference */
    struct admission claim; /* as it is stored */
    enum verify_purpose purpose;
    char declared_gpu[sizeof(((struct worker_record *)0)->gpu)]; /* as it was registered when the run began */
    uint32_t declared_gpus;
    struct reactor *reactor;
    int64_t started_ns;
    struct timer renew;
    unsigned holds;           /* by questions to Redis that come back to it, and loops over its sessions */
    bool has_ended;           /* its end is being stored, or waits for is_renewing */
    bool is_renewing;         /* the claim: its end cannot be stored before that is known to be */
    bool is_lost;             /* must end without a verdict */
    bool was_learned;         /* who it is was looked up */
    bool has_changed;         /* key, UUID or driver are not those that were proven */
    char refusal[128];        /* why it cannot be admitted whatever it proves; "" */
    struct slot_place *place; /* control_slot.c; NULL: alone */
    struct control_verdict *verdict;
    bool is_spread; /* how many devices there are is known, and each has its session */
    unsigned device_count, device_max;
    struct proof_device devices[];
};

/* -- control_probe.c -- */
struct registry_entry *run_entry(const struct probe_run *run); /* NULL: gone, or another run's by now */
const struct verify_report *run_report(const struct probe_run *run, unsigned device); /* NULL: none */
void run_free(struct probe_run *run);
void run_hold(struct probe_run *run);
void run_release(struct probe_run *run); /* frees it when it has ended and this was the last hold */

/* -- control_verdict.c -- */
/* All devices are done: decides, stores, tells; the run is freed when that is through. */
void control_verdict(struct probe_run *run);
void control_verdict_free(struct control_verdict *verdict);
/* Of two devices of one worker, which tells of it: the worse result, or the weaker class, for all are sold as that;
 * within a class the slower. */
bool control_is_worse(const struct verify_report *report, const struct verify_report *than);
/* What a passed proof adds to the reputation. */
struct reputation_evidence control_good_evidence(const struct verify_report *report, int64_t admitted_at_ms,
                                                 int64_t now_ms);
/* What the hellos tell of who it is; how many. to_learn: but for a device that is known to be the worker's. */
size_t control_identities(const struct probe_run *run, bool to_learn, struct identity ret[static IDENTITIES_MAX]);
/* What is known of those: sets the run's refusal or has_changed. */
void control_identified(struct probe_run *run, const struct identity_memory *memory);

/* -- control_slot.c -- */
/* A worker with several devices and without mates: a slot for its own, or one device could answer for all of them, one
 * after another. False: no memory. */
bool control_slot_alone(struct probe_run *run);
/* Gives the run a slot, and starts runs of the others that could be the same devices. */
void control_slot_open(struct probe_run *run);
void control_slot_arrive(struct proof_device *device); /* held: goes on when the slot opens */
void control_slot_leave(struct proof_device *device);  /* it sends no more */
void control_slot_join(struct proof_device *device);   /* of a run in a slot: waited for from now on */
void control_slot_close(struct probe_run *run);

#endif
