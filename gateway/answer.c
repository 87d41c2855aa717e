#include "gateway/answer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static const char exposed[] =
    "x-request-id, retry-after, retry-after-ms, x-should-retry, openai-processing-ms, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-sluice-worker, x-sluice-network, x-sluice-gpu, "
    "x-sluice-price-per-gpu-hour-usd, x-sluice-cost-usd, x-sluice-gpu-ms";

void answer_init(struct answer *answer, const char *request_id, bool has_origin)
{
    answer->count = answer->arena_len = 0;
    answer_add(answer, "x-request-id", request_id);
    answer_add(answer, "access-control-allow-origin", "*");
    if (has_origin)
        answer_add(answer, "access-control-expose-headers", exposed);
}

void answer_add(struct answer *answer, const char *name, const char *value)
{
    assert(answer->count < ANSWER_FIELDS_MAX);
    answer->fields[answer->count++] = (struct httpd_field){name, value};
}

void answer_addf(struct answer *answer, const char *name, const char *format, ...)
{
    va_list args;
    size_t room = sizeof(answer->arena) - answer->arena_len;
    char *to = answer->arena + answer->arena_len;
    va_start(args, format);
    int len = vsnprintf(to, room, format, args);
    va_end(args);
    assert(len >= 0 && (size_t)len < room);
    answer->arena_len += (size_t)len + 1;
    answer_add(answer, name, to);
}

bool answer_error(struct answer *answer, const struct api_error *error, struct buf *ret_body)
{
    buf_init(ret_body, 0);
    if (!api_error_json(error, ret_body)) {
        buf_free(ret_body);
        return false;
    }
    answer_add(answer, "content-type", "application/json");
    if (error->retry_after_ms > 0) {
        answer_addf(answer, "retry-after-ms", "%" PRId64, error->retry_after_ms);
        answer_addf(answer, "retry-after", "%" PRId64, (error->retry_after_ms + 999) / 1000);
    }
    if (error->no_retry)
        answer_add(answer, "x-should-retry", "false");
    return true;
}
