#include "pricing/refund.h"

#include "core/money.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void refund_record(const struct usage_record *call, struct usage_record *ret)
{
    *ret = *call;
    assert(strlen(call->id) + sizeof("refund:") <= sizeof(ret->id));
    snprintf(ret->id, sizeof(ret->id), "refund:%.*s", (int)(sizeof(ret->id) - sizeof("refund:")), call->id);
    ret->outcome = USAGE_REFUNDED;
    ret->gpu_ms = ret->prompt_tokens = ret->completion_tokens = 0;
    ret->budget_period_ms = 0;
}

bool check_record(int64_t gpu_ms, int64_t at_ms, struct usage_record *ret)
{
    int64_t cost;
    if (!money_cost(ret->price_usd_nano, gpu_ms, &cost) || cost == 0)
        return false;
    id_new("check:", ret->id);
    (void)!str_copy(ret->tenant, sizeof(ret->tenant), STR(REFUND_PLATFORM));
    (void)!str_copy(ret->key, sizeof(ret->key), STR("check"));
    ret->at_ms = at_ms;
    ret->gpu_ms = gpu_ms;
    ret->cost_usd_nano = 0;
    ret->loss_usd_nano = cost;
    ret->budget_period_ms = 0;
    ret->outcome = USAGE_CHECKED;
    ret->prompt_tokens = ret->completion_tokens = 0;
    return true;
}
