/* Embeddings answers between arrays of numbers and base64 of little-endian float32. */
#ifndef SLUICE_GATEWAY_EMBEDDINGS_H
#define SLUICE_GATEWAY_EMBEDDINGS_H

#include "core/str.h"

/* Writes `answer` (JSON that was found valid) to `to` with every data[].embedding in the form asked for; all other
 * bytes stay. *ret_changed false: all had that form already (or there are none), `to` is empty and the answer can go as
 * it is. ERR_PROTOCOL: an embedding is no array of numbers nor base64 of whole finite float32s. ERR_TOO_LARGE or
 * ERR_NO_MEMORY: `to` would grow past its limit. On error `to` is empty. */
MUST_CHECK enum error embeddings_convert(struct str answer, bool base64, struct buf *to, bool *ret_changed);

#endif
