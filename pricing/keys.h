/* Names of the money keys in Redis. All keys of one tenant (or of one API key's budget) share a hash tag. */
#ifndef SLUICE_PRICING_KEYS_H
#define SLUICE_PRICING_KEYS_H

#include "core/str.h"

#define MONEY_KEY_MAX 160
#define MONEY_ID_MAX 64      /* of a tenant or an API key */
#define PURSE_NAME_MAX 96    /* "ten:<id>" or "key:<id>:<period start>" */
#define HOLD_LIFE_MS 45000   /* of a hold that is not kept alive; with a sweep every 5 s, back within 60 s */
#define DEDUP_S (41 * 86400) /* how long ids of records and transfers are remembered: 40 days and a margin */
#define HOLDS_DUE "sl:{holds}:due"
#define HOLDS_GEN "sl:{holds}:gen"
#define LEDGERS "sl:ledgers" /* set of tenants that ever had money, scored 0 */

/* Ids come into key names: 1 to MONEY_ID_MAX letters, digits, '_' and '-'. */
bool money_id_is_good(struct str id);

/* A purse is where holds are taken from: a tenant's balance or a budget's period. Its name is what HOLDS_DUE lists. */
struct purse {
    char name[PURSE_NAME_MAX];
    char prefix[PURSE_NAME_MAX + 8]; /* "sl:{ten:<id>}:" or "sl:{key:<id>}:<period start>:" */
    bool is_balance;                 /* has a ledger and its chain */
};
MUST_CHECK bool purse_of_tenant(struct str tenant, struct purse *ret);
MUST_CHECK bool purse_of_budget(struct str key, int64_t period_ms, struct purse *ret);
MUST_CHECK bool purse_parse(struct str name, struct purse *ret);
/* prefix + suffix; the view lies in ret. */
struct str purse_key(const struct purse *purse, const char *suffix, char ret[static MONEY_KEY_MAX]);

#endif
