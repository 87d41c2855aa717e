/* One transfer of the ledger stream: its text as the scripts write it, and as JSON. */
#ifndef SLUICE_PRICING_LEDGER_ENTRY_H
#define SLUICE_PRICING_LEDGER_ENTRY_H

#include "core/str.h"
#include <jansson.h>

/* "id US at_ms US kind (US account US amount)*", US being \x1f. {id, at, kind, entries:[{account, amount_usd}]}; NULL
 * if the text is not one, or out of memory. Accounts avail and held become ten:<tenant>:avail and ten:<tenant>:held. */
json_t *ledger_entry_json(struct str content, struct str tenant);
json_t *ledger_text_json(struct str text);    /* a JSON string; what is not UTF-8 becomes "?" */
json_t *ledger_amount_json(int64_t usd_nano); /* a decimal string */

#endif
