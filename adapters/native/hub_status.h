/* The status lines of a worker (README.md, "Streams"): cut from the stream, checked, decoded. */
#ifndef SLUICE_ADAPTERS_NATIVE_HUB_STATUS_H
#define SLUICE_ADAPTERS_NATIVE_HUB_STATUS_H

#include "adapters/native/hub.h"

#define STATUS_LINE_MAX 32768
#define STATUS_MODEL_NAME_MAX 128
#define STATUS_SLOTS_MAX 65536

typedef void status_fn(void *ctx, const struct worker_status *status); /* borrowed for the call */

/* One line, without its '\n'. ERR_PROTOCOL: `found` was not called. */
MUST_CHECK enum error status_parse(struct str line, status_fn *found, void *ctx);

/* Appends bytes to `line` ({0} at first) and parses each line that they end. ERR_PROTOCOL: a line is too long or wrong.
 * ERR_BUSY: a line came when *left, which counts down by lines, was 0. */
MUST_CHECK enum error status_feed(struct buf *line, struct str bytes, unsigned *left, status_fn *found, void *ctx);

#endif
