#include "pricing/keys.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool money_id_is_good(struct str id)
{
    if (id.len < 1 || id.len > MONEY_ID_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool purse_of_tenant(struct str tenant, struct purse *ret)
{
    if (!money_id_is_good(tenant))
        return false;
    snprintf(ret->name, sizeof(ret->name), "ten:" STR_FMT, STR_ARG(tenant));
    snprintf(ret->prefix, sizeof(ret->prefix), "sl:{ten:" STR_FMT "}:", STR_ARG(tenant));
    ret->is_balance = true;
    return true;
}

bool purse_of_budget(struct str key, int64_t period_ms, struct purse *ret)
{
    if (!money_id_is_good(key))
        return false;
    snprintf(ret->name, sizeof(ret->name), "key:" STR_FMT ":%" PRId64, STR_ARG(key), period_ms);
    snprintf(ret->prefix, sizeof(ret->prefix), "sl:{key:" STR_FMT "}:%" PRId64 ":", STR_ARG(key), period_ms);
    ret->is_balance = false;
    return true;
}

bool purse_parse(struct str name, struct purse *ret)
{
    struct str rest = name, kind = str_next(&rest, ':'), id = str_next(&rest, ':'), period = str_next(&rest, ':');
    int64_t period_ms;

    if (!kind.ptr || !id.ptr)
        return false;
    if (str_eq(kind, STR("ten")) && !period.ptr)
        return purse_of_tenant(id, ret);
    return str_eq(kind, STR("key")) && period.ptr && !rest.len && str_to_i64(period, &period_ms) &&
           purse_of_budget(id, period_ms, ret);
}

struct str purse_key(const struct purse *purse, const char *suffix, char ret[static MONEY_KEY_MAX])
{
    int len = snprintf(ret, MONEY_KEY_MAX, "%s%s", purse->prefix, suffix);
    assert(len > 0 && len < MONEY_KEY_MAX);
    return (struct str){ret, (size_t)len};
}
