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
/* The one form of a receipt that was indented or kept within another text: appends it. ERR_BAD_INPUT: no JSON object.
 */
MUST_CHECK enum error receipt_canonical(struct str json, struct buf *to);
/* One receipt. ERR_BAD_INPUT: no receipt (or a field that is no receipt's); ERR_DENIED: the signature is not its key's.
 * gateway_key: the only one to accept, or NULL for the receipt's own. */
struct receipt_view {
    char worker[40], gateway[40], class_name[40], result[16], previous[65], sha256[65];
    uint8_t gateway_key[32], worker_key[32];
    int64_t at_ms;
};
MUST_CHECK enum error receipt_check(struct str text, const uint8_t *gateway_key, struct receipt_view *ret);

/* Where a receipt stands among those of its worker in a list. */
enum receipt_link {
    RECEIPT_UNKNOWN, /* it does not verify */
    RECEIPT_FIRST,   /* of the log: it follows none */
    RECEIPT_START,   /* the oldest in the list: what it follows is not in it */
    RECEIPT_LINKED,  /* follows another one in the list */
    RECEIPT_GAP,     /* not the oldest, and yet what it follows is missing */
    RECEIPT_FORK,    /* another one follows the same: the log was told in two ways */
};
const char *receipt_link_name(enum receipt_link link);
#define RECEIPT_LOG_MAX 4096
struct receipt_row {
    enum error error; /* receipt_check's; the view counts only without one */
    enum receipt_link link;
    struct receipt_view view;
};
/* Checks texts, at most RECEIPT_LOG_MAX of any workers in any order, one row each; how many do not stand (unknown, gap
 * or fork). Time grows with the square of count. */
size_t receipt_log_check(const struct str *texts, size_t count, const uint8_t *gateway_key, struct receipt_row *ret);

#endif
