/* The usage journal: a memory-mapped ring of usage records, one file a reactor, in data_dir/journal/.
 *
 * A record is whole in the mapping before the last byte of its answer leaves, so a killed process loses none (the page
 * cache outlives it), and appending costs no system call. Records are settled in order and then released. What a dead
 * process left is found again by journal_open. One thread only. */
#ifndef SLUICE_PRICING_JOURNAL_H
#define SLUICE_PRICING_JOURNAL_H

#include "core/error.h"
#include "pricing/usage.h"
#include <stddef.h>

struct journal;

/* Opens or creates dir/usage-<name>.journal with room for `slots` records (an existing file keeps its own size). Torn
 * records (bad checksum) are counted in *ret_torn (may be NULL) and skipped. ERR_EXISTS when another process has it;
 * ERR_MISMATCH when the file is not a journal of this version; ERR_SYSTEM also when the disk has no room for it. */
MUST_CHECK enum error journal_open(const char *dir, const char *name, size_t slots, struct journal **ret,
                                   size_t *ret_torn);
struct journal *journal_close(struct journal *journal); /* keeps the file; accepts NULL; returns NULL */
/* Removes the file of a journal with nothing pending and closes it. */
struct journal *journal_remove(struct journal *journal);
/* Whose holds pay for the records that are appended from now on (settler_open sets it). Kept with each record, so that
 * what a dead gateway left is charged to the money that it had held. */
void journal_set_owner(struct journal *journal, const char *gateway_id);
/* ERR_BUSY when all slots wait for settling (Redis is down for long): the caller then refuses new calls. */
MUST_CHECK enum error journal_append(struct journal *journal, const struct usage_record *record);
bool journal_is_nearly_full(const struct journal *journal); /* under 1/8 free: stop admitting */
size_t journal_pending(const struct journal *journal);
/* The i-th oldest unsettled record (0 <= i < pending), and its owner ("" when none was set). Borrowed until
 * journal_release. */
const struct usage_record *journal_at(const struct journal *journal, size_t i);
const char *journal_owner_at(const struct journal *journal, size_t i);
void journal_release(struct journal *journal, size_t count); /* the oldest `count` are in Redis */

#endif
