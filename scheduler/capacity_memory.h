/* What is remembered of capacity failures: a score by class of offer (network, GPU, count, interruptible) and zone
 * (where none is told: region) that every "no capacity" raises by 1 and that halves in 10 minutes, shared by all
 * gateways through Redis. One failure says little (another was faster); from two on the class is closed: none of its
 * offers is tried for some 40 s, doubled with each further failure up to 15 minutes. After that one try goes through
 * (half-open), and decides: had it capacity, all is forgotten. A try that tells nothing lets the next one through after
 * 2 minutes. */
#ifndef SLUICE_SCHEDULER_CAPACITY_MEMORY_H
#define SLUICE_SCHEDULER_CAPACITY_MEMORY_H

#include "core/redis.h"
#include "scheduler/lease.h"

struct capacity_memory; /* the control thread's copy */
MUST_CHECK enum error capacity_memory_open(struct capacity_memory **ret);
/* Answers of Redis that are still to come find it gone. */
struct capacity_memory *capacity_memory_free(struct capacity_memory *memory);

enum capacity_verdict { CAPACITY_OPEN, CAPACITY_CLOSED, CAPACITY_HALF_OPEN };
/* May an offer of that class be tried at now? *ret_until_ms (may be NULL): when it is looked at again. */
enum capacity_verdict capacity_ask(const struct capacity_memory *memory, const struct lease_candidate *candidate,
                                   int64_t now_ms, int64_t *ret_until_ms);
/* A try goes through; where the class is half-open, the others wait for its outcome. Other gateways learn of it with
 * the next refresh: a few may try at the same time. */
void capacity_try(struct capacity_memory *memory, const struct lease_candidate *candidate, int64_t now_ms);
/* An outcome: also written to Redis (sl:{cap}:<digest>, decayed by its clock, with a TTL), best effort. */
void capacity_note(struct capacity_memory *memory, struct redis *redis, const struct lease_candidate *candidate,
                   bool had_capacity, int64_t now_ms);
/* Reads what others noted (index sl:{cap}), every few seconds by the control thread. */
void capacity_refresh(struct capacity_memory *memory, struct redis *redis);

#endif
