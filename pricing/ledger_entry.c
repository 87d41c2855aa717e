#include "pricing/ledger_entry.h"

#include "core/money.h"
#include "pricing/keys.h"

#include <stdio.h>

json_t *ledger_text_json(struct str text)
{
    json_t *json = json_stringn(text.ptr, text.len);
    return json ? json : json_string("?");
}

json_t *ledger_amount_json(int64_t usd_nano)
{
    char text[MONEY_TEXT_MAX];
    money_text(usd_nano, text);
    return json_string(text);
}

static json_t *account_json(struct str account, struct str tenant)
{
    char name[MONEY_KEY_MAX];

    if (!str_eq(account, STR("avail")) && !str_eq(account, STR("held")))
        return ledger_text_json(account);
    snprintf(name, sizeof(name), "ten:" STR_FMT ":" STR_FMT, STR_ARG(tenant), STR_ARG(account));
    return json_string(name);
}

json_t *ledger_entry_json(struct str content, struct str tenant)
{
    struct str id = str_next(&content, '\x1f'), at = str_next(&content, '\x1f'), kind = str_next(&content, '\x1f');
    json_t *entries = json_array();
    int64_t at_ms, amount;

    if (!entries || !kind.ptr || !str_to_i64(at, &at_ms))
        goto bad;
    while (content.ptr) {
        struct str account = str_next(&content, '\x1f'), text = str_next(&content, '\x1f');
        if (!text.ptr || !str_to_i64(text, &amount) ||
            json_array_append_new(entries, json_pack("{s:o, s:o}", "account", account_json(account, tenant),
                                                     "amount_usd", ledger_amount_json(amount))))
            goto bad;
    }
    return json_pack("{s:o, s:I, s:o, s:o}", "id", ledger_text_json(id), "at", (json_int_t)at_ms, "kind",
                     ledger_text_json(kind), "entries", entries);
bad:
    json_decref(entries);
    return NULL;
}
