/* Reading and moving money in Redis: credits from the operator, balances, usage reports, invoices, the ledger itself.
 *
 * Accounts: ten:<tenant>:avail, ten:<tenant>:held, sup:<supplier>:pending, plat:revenue, plat:loss, ext:psp. Each
 * transfer is balanced (entries sum to zero), idempotent by its id and appended to a hash-chained stream by the same
 * script. All calls are asynchronous; answers are given once, in a coming turn; JSON texts are ready to send. */
#ifndef SLUICE_PRICING_LEDGER_H
#define SLUICE_PRICING_LEDGER_H

#include "core/redis.h"

/* error: ERR_NONE; ERR_NOT_FOUND; ERR_MISMATCH (same id, other content); ERR_CLOSED / ERR_DEADLINE / ERR_BUSY: Redis
 * did not answer, nothing is known, repeat with the same id; ERR_OVERFLOW: all that was ever credited to a tenant would
 * not fit 64 bits of nano-dollars; ERR_TOO_LARGE: usage in more groups than a list may have. json is borrowed for the
 * call, absent on error. */
typedef void ledger_done_fn(void *ctx, enum error error, struct str json);

/* Operator's credit: ext:psp -> ten:<tenant>:avail. transfer_id makes it idempotent (40 days).
 * json: {"tenant":..., "available_usd":"..."}. */
MUST_CHECK enum error ledger_credit(struct redis *redis, struct str tenant, int64_t amount_usd_nano,
                                    struct str transfer_id, ledger_done_fn *done, void *ctx);
/* json: {"available_usd":"...","held_usd":"..."} */
MUST_CHECK enum error ledger_balance(struct redis *redis, struct str tenant, ledger_done_fn *done, void *ctx);

enum usage_group { USAGE_BY_DAY, USAGE_BY_MODEL, USAGE_BY_WORKER, USAGE_BY_KEY, USAGE_BY_NETWORK };
/* from <= t < to (Unix ms; 0 and INT64_MAX when open). json: {"object":"list","data":[rows],"next":null}. */
MUST_CHECK enum error ledger_usage(struct redis *redis, struct str tenant, int64_t from_ms, int64_t to_ms,
                                   enum usage_group group, ledger_done_fn *done, void *ctx);
/* month "yyyy-mm" UTC. as_csv: head row and lines, no total row. ERR_NOT_FOUND: no such month (nothing used in it, or
 * not a month). */
MUST_CHECK enum error ledger_invoice(struct redis *redis, struct str tenant, struct str month, bool as_csv,
                                     ledger_done_fn *done, void *ctx);
/* tenant absent: all accounts of all tenants. Oldest first; cursor absent: from the start. json: {"object":"list",
 * "data":[{id, at, kind, entries:[{account, amount_usd}]}],"next":cursor or null}. ERR_BAD_INPUT: not our cursor. */
MUST_CHECK enum error ledger_list(struct redis *redis, struct str tenant, struct str cursor, size_t limit,
                                  ledger_done_fn *done, void *ctx);

#endif
