/* Which devices are challenged at the same moment, and the barrier that makes it one moment.
 *
 * One device cannot answer two full-rate challenges over all of its memory at once, so devices that could be the same
 * one (an operator's, of one UUID, in one block of addresses) are challenged within 20 ms of each other. Pure: members,
 * events and times in, lists out. Not thread-safe; one thread owns a slot. */
#ifndef SLUICE_SCHEDULER_SLOT_H
#define SLUICE_SCHEDULER_SLOT_H

#include "core/str.h"

#define SLOT_MEMBERS_MAX 64
#define SLOT_WAIT_NS INT64_C(3000000000) /* how long the first to arrive waits for the others */

/* -- who belongs together -- */

/* What devices may share; 0: not known, shared with nobody. */
struct slot_member {
    bool is_cpu;                                /* a machine without a GPU: together only with one of its UUID */
    uint64_t operator_key, uuid_key, block_key; /* block: struct worker's address_block */
};
uint64_t slot_key(struct str what); /* of a supplier's name, a UUID...; 0 for nothing */

/* Numbers the groups from 0 in ret_group[count]: members are in one when they share a key, or each shares one with a
 * third (and so on). *ret_groups: how many. ERR_NO_MEMORY. */
MUST_CHECK enum error slot_group(const struct slot_member *members, size_t count, uint32_t *ret_group,
                                 size_t *ret_groups);
/* Who is challenged together with `member`: itself first, then all others of its group, or a random choice of them
 * where there are more than a slot holds. Returns how many. */
size_t slot_pick(const uint32_t *group, size_t count, size_t member, uint64_t random, size_t ret[SLOT_MEMBERS_MAX]);

/* -- the barrier -- */

/* Each member goes its own way between slotted frames: it arrives when it has one to send, and all that arrived are
 * sent when the last has come, or SLOT_WAIT_NS after the first came. Then the next frames gather in the same way. */
struct slot_barrier {
    unsigned count;
    int64_t first_ns;                 /* when the first that waits arrived */
    uint8_t states[SLOT_MEMBERS_MAX]; /* slot.c's */
};

enum slot_turn {
    SLOT_WAIT, /* nothing to send yet */
    SLOT_GO,   /* send the frames of all that are listed */
    SLOT_LATE, /* it was gone without: this member is out of the slot, and must not be challenged alone instead */
};
struct slot_go {
    unsigned count;
    uint8_t members[SLOT_MEMBERS_MAX];
};

void slot_barrier_open(struct slot_barrier *slot);
/* A further member, at any time: it is waited for from now on. Returns its number; SLOT_MEMBERS_MAX: the
 * slot is full. */
unsigned slot_barrier_join(struct slot_barrier *slot);
/* ret is set with SLOT_GO only. A member arrives once, then not before it was listed. */
enum slot_turn slot_barrier_arrive(struct slot_barrier *slot, unsigned member, int64_t now_ns, struct slot_go *ret);
/* It has ended, or will send no more slotted frame; others may have waited for it alone. Twice does no harm. */
enum slot_turn slot_barrier_leave(struct slot_barrier *slot, unsigned member, struct slot_go *ret);
enum slot_turn slot_barrier_tick(struct slot_barrier *slot, int64_t now_ns, struct slot_go *ret);
/* Starts the wait afresh, if anybody waits: who is away cannot be blamed for it. */
void slot_barrier_put_off(struct slot_barrier *slot, int64_t now_ns);
int64_t slot_barrier_due_ns(const struct slot_barrier *slot); /* when to tick; INT64_MAX: nobody waits */
bool slot_barrier_is_over(const struct slot_barrier *slot);   /* all have left */

#endif
