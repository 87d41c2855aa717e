/* A batch of usage records as the arguments of settle.lua or budget.lua. */
#ifndef SLUICE_PRICING_SETTLE_ARGS_H
#define SLUICE_PRICING_SETTLE_ARGS_H

#include "core/str.h"
#include "pricing/usage.h"

#define SETTLE_BATCH 64 /* records a script call; settle.lua counts on it */
#define SETTLE_FIELDS 12
#define SETTLE_KEYS 9 /* and one more for a lease */
#define SETTLE_TEXT_MAX (SETTLE_BATCH * 1400 + 4096)

struct settle_args {
    struct str args[SETTLE_KEYS + 1 + 3 + SETTLE_BATCH * SETTLE_FIELDS];
    size_t count, key_count;
    size_t text_len;
    char text[SETTLE_TEXT_MAX];
};

/* False for a record that no ledger could take (no sound ids, amounts out of all reason): never one of ours. */
bool settle_record_is_good(const struct usage_record *record);
bool settle_counts_in_budget(const struct usage_record *record);

/* Starts a batch of what `first` belongs to: its tenant and UTC day, or its key and budget period. */
void settle_args_begin(struct settle_args *args, const struct usage_record *first, const char *owner);
void settle_args_add(struct settle_args *args, const struct usage_record *record);
/* A slice of a lease's run, in a call of its own: settled only if it is the lease's charge number n and the run was
 * charged up to from_ms, and the run is charged up to until_ms then. */
struct settle_slice {
    const char *lease;
    int64_t n, run, from_ms, until_ms;
};
void settle_args_lease(struct settle_args *args, const struct usage_record *record, const struct settle_slice *slice);
void settle_args_begin_budget(struct settle_args *args, const struct usage_record *first, const char *owner);
void settle_args_add_budget(struct settle_args *args, const struct usage_record *record);

#endif
