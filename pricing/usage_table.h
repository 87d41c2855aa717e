/* Sums of usage by a text: what ledger_usage gathers from rows. */
#ifndef SLUICE_PRICING_USAGE_TABLE_H
#define SLUICE_PRICING_USAGE_TABLE_H

#include "core/str.h"
#include <jansson.h>

#define USAGE_GROUPS_MAX 100000

struct usage_sums {
    int64_t requests, gpu_ms, prompt_tokens, completion_tokens, cost_usd_nano;
};

struct usage_table;

struct usage_table *usage_table_new(void); /* NULL: out of memory */
struct usage_table *usage_table_free(struct usage_table *table);
/* ERR_TOO_LARGE past USAGE_GROUPS_MAX groups, ERR_OVERFLOW, ERR_NO_MEMORY. */
MUST_CHECK enum error usage_table_add(struct usage_table *table, struct str group, const struct usage_sums *sums);
/* Walks the groups in no order: *at starts at 0; false behind the last. The text is borrowed. */
bool usage_table_next(const struct usage_table *table, size_t *at, struct str *ret_group, struct usage_sums *ret_sums);
/* A list of {column: group, requests, ...}, ordered by group. NULL: out of memory. */
json_t *usage_table_json(struct usage_table *table, const char *column);

/* One row of the stream, as settle.lua writes it. */
struct usage_row {
    int64_t at_ms;
    struct str id, key, worker, network, model;
    struct usage_sums sums;
};
MUST_CHECK bool usage_row_parse(struct str text, struct usage_row *ret);

/* The sums of a day by key, worker, network and model together, and the place in the stream up to which they count, as
 * one text: what usage_keep_write appends, usage_keep_parse adds to an empty table. */
MUST_CHECK bool usage_keep_write(const struct usage_table *table, struct str place, struct buf *text);
MUST_CHECK bool usage_keep_parse(struct str text, struct usage_table *table, struct str *ret_place);
/* "key US worker US network US model" of a row or of such a group's text. */
MUST_CHECK bool usage_group_write(const struct usage_row *row, struct buf *text);
MUST_CHECK bool usage_group_parse(struct str group, struct usage_row *ret);

#endif
