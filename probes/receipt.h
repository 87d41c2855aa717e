/* Receipts: what a gateway saw a worker prove, signed, so that anybody can check it offline.
 *
 * JSON with sorted keys and no blanks; "signature" is Ed25519 by "gateway_key" over the same text without the field
 * "signature". "previous" is the SHA-256 of the worker's receipt before this one ("" for the first), so that a log with
 * a receipt left out or changed shows. Fields are listed in README.md. */
#ifndef SLUICE_PROBES_RECEIPT_H
#define SLUICE_PROBES_RECEIPT_H

#include "probes/identity.h"
#include "probes/verifier.h"

#define RECEIPT_MAX ((size_t)PROBE_RECEIPT_MAX)

struct receipt_facts {
    struct str worker, gateway; /* ids */
    unsigned gpu;
    enum verify_purpose purpose;
    int64_t at_ms;
    char previous[65]; /* hex or "" */
};
MUST_CHECK enum error receipt_make(const struct receipt_facts *facts, const struct verify_report *report,
                                   const struct signing_key *key, struct buf *to);
/* One receipt. ERR_BAD_INPUT: no receipt (or a field that is no receipt's); ERR_DENIED: the signature is not its key's.
 * gateway_key: the only one to accept, or NULL for the receipt's own. */
struct receipt_view {
    char worker[40], gateway[40], class_name[40], result[16], previous[65], sha256[65];
    uint8_t gateway_key[32], worker_key[32];
    int64_t at_ms;
};
MUST_CHECK enum error receipt_check(struct str text, const uint8_t *gateway_key, struct receipt_view *ret);

#endif
