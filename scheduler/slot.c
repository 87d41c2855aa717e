#include "scheduler/slot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

uint64_t slot_key(struct str what)
{
    uint64_t key = what.len ? str_hash(what, 0) : 0;
    return key || !what.len ? key : 1;
}

/* -- groups ------------------------------------------------------------------------------------------------------- */

struct keyed {
    uint64_t key;
    uint32_t member;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *left = a, *right = b;
    return (left->key > right->key) - (left->key < right->key);
}

static uint32_t root_of(uint32_t *parent, uint32_t member)
{
    while (parent[member] != member) {
        parent[member] = parent[parent[member]];
        member = parent[member];
    }
    return member;
}

/* The lower index is the root, so that groups are numbered in the members' order. */
static void join(uint32_t *parent, uint32_t a, uint32_t b)
{
    a = root_of(parent, a);
    b = root_of(parent, b);
    if (a < b)
        parent[b] = a;
    else
        parent[a] = b;
}

static uint64_t key_at(const struct slot_member *member, unsigned kind)
{
    if (kind == 0)
        return member->uuid_key;
    if (member->is_cpu)
        return 0;
    return kind == 1 ? member->operator_key : member->block_key;
}

enum error slot_group(const struct slot_member *members, size_t count, uint32_t *ret_group, size_t *ret_groups)
{
    struct keyed *keyed = calloc(count + 1, sizeof(*keyed));
    uint32_t *parent = ret_group;
    if (!keyed)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        parent[i] = (uint32_t)i;
    for (unsigned kind = 0; kind < 3; kind++) {
        size_t with_key = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t key = key_at(&members[i], kind);
            if (key)
                keyed[with_key++] = (struct keyed){key, (uint32_t)i};
        }
        qsort(keyed, with_key, sizeof(*keyed), by_key);
        for (size_t i = 1; i < with_key; i++)
            if (keyed[i].key == keyed[i - 1].key)
                join(parent, keyed[i].member, keyed[i - 1].member);
    }
    free(keyed);
    /* Roots come before their members, so their numbers are known when these are reached. All paths are short first. */
    for (size_t i = 0; i < count; i++)
        parent[i] = root_of(parent, (uint32_t)i);
    size_t groups = 0;
    for (size_t i = 0; i < count; i++)
        ret_group[i] = parent[i] == i ? (uint32_t)groups++ : ret_group[parent[i]];
    *ret_groups = groups;
    return ERR_NONE;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

size_t slot_pick(const uint32_t *group, size_t count, size_t member, uint64_t random, size_t ret[SLOT_MEMBERS_MAX])
{
    size_t picked = 1, seen = 0;
    assert(member < count);
    ret[0] = member;
    for (size_t i = 0; i < count; i++) { /* reservoir sampling */
        if (i == member || group[i] != group[member])
            continue;
        seen++;
        if (picked < SLOT_MEMBERS_MAX) {
            ret[picked++] = i;
            continue;
        }
        uint64_t at = next_random(&random) % seen;
        if (at < SLOT_MEMBERS_MAX - 1)
            ret[1 + at] = i;
    }
    return picked;
}

/* -- the barrier -------------------------------------------------------------------------------------------------- */

enum { MEMBER_AWAY, MEMBER_WAITING, MEMBER_MISSED /* the barrier opened without it */, MEMBER_LEFT };

void slot_barrier_open(struct slot_barrier *slot)
{
    *slot = (struct slot_barrier){.count = 0};
}

unsigned slot_barrier_join(struct slot_barrier *slot)
{
    return slot->count < SLOT_MEMBERS_MAX ? slot->count++ : SLOT_MEMBERS_MAX; /* its state is MEMBER_AWAY */
}

static unsigned count_in(const struct slot_barrier *slot, int state)
{
    unsigned count = 0;
    for (unsigned i = 0; i < slot->count; i++)
        count += slot->states[i] == state;
    return count;
}

/* is_over: the time is. */
static enum slot_turn open_if(struct slot_barrier *slot, bool is_over, struct slot_go *ret)
{
    if (count_in(slot, MEMBER_WAITING) == 0 || (!is_over && count_in(slot, MEMBER_AWAY) > 0))
        return SLOT_WAIT;
    ret->count = 0;
    for (unsigned i = 0; i < slot->count; i++) {
        if (slot->states[i] == MEMBER_AWAY) {
            slot->states[i] = MEMBER_MISSED;
        } else if (slot->states[i] == MEMBER_WAITING) {
            slot->states[i] = MEMBER_AWAY;
            ret->members[ret->count++] = (uint8_t)i;
        }
    }
    return SLOT_GO;
}

static bool is_time_over(const struct slot_barrier *slot, int64_t now_ns)
{
    return now_ns >= slot_barrier_due_ns(slot);
}

enum slot_turn slot_barrier_arrive(struct slot_barrier *slot, unsigned member, int64_t now_ns, struct slot_go *ret)
{
    assert(member < slot->count);
    assert(slot->states[member] == MEMBER_AWAY || slot->states[member] == MEMBER_MISSED);
    if (slot->states[member] == MEMBER_MISSED) {
        slot->states[member] = MEMBER_LEFT;
        return SLOT_LATE;
    }
    if (count_in(slot, MEMBER_WAITING) == 0)
        slot->first_ns = now_ns;
    slot->states[member] = MEMBER_WAITING;
    return open_if(slot, is_time_over(slot, now_ns), ret);
}

enum slot_turn slot_barrier_leave(struct slot_barrier *slot, unsigned member, struct slot_go *ret)
{
    assert(member < slot->count);
    slot->states[member] = MEMBER_LEFT;
    return open_if(slot, false, ret);
}

enum slot_turn slot_barrier_tick(struct slot_barrier *slot, int64_t now_ns, struct slot_go *ret)
{
    return open_if(slot, is_time_over(slot, now_ns), ret);
}

void slot_barrier_put_off(struct slot_barrier *slot, int64_t now_ns)
{
    slot->first_ns = now_ns;
}

int64_t slot_barrier_due_ns(const struct slot_barrier *slot)
{
    return count_in(slot, MEMBER_WAITING) ? slot->first_ns + SLOT_WAIT_NS : INT64_MAX;
}

bool slot_barrier_is_over(const struct slot_barrier *slot)
{
    return count_in(slot, MEMBER_LEFT) == slot->count;
}
