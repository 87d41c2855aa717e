/* What a worker's whole JSON answer says about itself: is it a JSON object, is it an error, how many tokens. No tree:
 * embeddings answers are large. Feed it while the answer arrives; the last step looks only at `usage`. */
#ifndef SLUICE_GATEWAY_USAGE_SCAN_H
#define SLUICE_GATEWAY_USAGE_SCAN_H

#include "core/json_walk.h"

/* Token counts, as OpenAI names them or as /v1/responses does (input, output). Counts not given are 0. */
struct usage {
    bool known;
    int64_t prompt_tokens, completion_tokens;
};

struct usage_scan {
    struct usage usage; /* good after usage_scan_end */
    bool is_error;      /* a top-level `error` that is not null */
    struct json_scan scan;
    size_t usage_start, usage_end;
};

void usage_scan_init(struct usage_scan *usage_scan);
/* ERR_PROTOCOL as soon as it can be no JSON object. */
MUST_CHECK enum error usage_scan_feed(struct usage_scan *usage_scan, struct str bytes);
/* text is all that was fed. ERR_PROTOCOL unless it is one JSON object. */
MUST_CHECK enum error usage_scan_end(struct usage_scan *usage_scan, struct str text);
/* Reads a `usage` object; known stays as it was when it is none. */
void usage_read(struct json_value value, struct usage *ret);

#endif
