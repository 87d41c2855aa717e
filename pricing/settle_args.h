/* A batch of usage records as the arguments of settle.lua or budget.lua. */
#ifndef SLUICE_PRICING_SETTLE_ARGS_H
#define SLUICE_PRICING_SETTLE_ARGS_H

#include "core/str.h"
#include "pricing/usage.h"

#define SETTLE_BATCH 64 /* records a script call; settle.lua counts on it */
#define SETTLE_FIELDS 12
#define SETTLE_KEYS 9
#define SETTLE_TEXT_MAX (SETTLE_BATCH * 1400 + 4096)

struct settle_args {
    struct str args[SETTLE_KEYS + 3 + SETTLE_BATCH * SETTLE_FIELDS];
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
void settle_args_begin_budget(struct settle_args *args, const struct usage_record *first, const char *owner);
void settle_args_add_budget(struct settle_args *args, const struct usage_record *record);

#endif
