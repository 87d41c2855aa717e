#include "gateway/answer.h"

#include <assert.h>
#include <string.h>

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

/* Room in the arena for a value of that length and its NUL. */
static char *room(struct answer *answer, size_t len)
{
    char *to = answer->arena + answer->arena_len;
    assert(len < sizeof(answer->arena) - answer->arena_len);
    answer->arena_len += len + 1;
    to[len] = '\0';
    return to;
}

void answer_add_copy(struct answer *answer, const char *name, const char *value)
{
    size_t len = strlen(value);
    answer_add(answer, name, memcpy(room(answer, len), value, len));
}

void answer_add_number(struct answer *answer, const char *name, int64_t value)
{
    char digits[STR_U64_MAX];
    assert(value >= 0);
    size_t len = str_put_u64(digits, (uint64_t)value);
    answer_add(answer, name, memcpy(room(answer, len), digits, len));
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
        answer_add_number(answer, "retry-after-ms", error->retry_after_ms);
        answer_add_number(answer, "retry-after", (error->retry_after_ms + 999) / 1000);
    }
    if (error->no_retry)
        answer_add(answer, "x-should-retry", "false");
    return true;
}
