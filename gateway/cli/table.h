/* Aligned tables for people. Whatever a worker or a gateway wrote is made harmless on its way in: no control
 * characters, no marks that turn the direction of writing, nothing that is no UTF-8. */
#ifndef SLUICE_GATEWAY_CLI_TABLE_H
#define SLUICE_GATEWAY_CLI_TABLE_H

#include "core/str.h"

#include <stdio.h>

#define TABLE_COLUMNS_MAX 16

struct table; /* out of memory shows in table_print */
/* heads: as many as columns, or NULL for none; '>' in front of one sets its column to the right. width: of a cell, 0:
 * any. */
struct table *table_new(size_t columns, const char *const *heads, size_t width);
struct table *table_free(struct table *table);         /* accepts NULL */
void table_text(struct table *table, struct str text); /* the next cell; empty shows as "-" */
void table_printf(struct table *table, const char *format, ...) PRINTF_LIKE(2, 3);
/* Only whole rows. False: memory ran out, or to cannot be written. */
MUST_CHECK bool table_print(const struct table *table, FILE *to);

/* text made harmless, appended. */
MUST_CHECK bool text_safe(struct str text, struct buf *to);

#endif
