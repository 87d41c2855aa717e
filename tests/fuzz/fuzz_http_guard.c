/* The framing guard: never reads past its input, and its verdict does not depend on how the bytes are cut. */
#include "core/http_guard.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_guard_limits limits = {.head_bytes = 512, .body_bytes = 1024};
    const char *bytes = (const char *)data;
    struct http_guard whole, cut;
    enum http_guard_verdict at_once, in_two;
    http_guard_init(&whole, &limits);
    http_guard_init(&cut, &limits);
    size_t kept = http_guard_feed(&whole, bytes, size, &at_once);
    if (kept > size || (at_once == HTTP_GUARD_OK && kept != size))
        abort();
    size_t at = size ? data[size - 1] % size : 0;
    http_guard_feed(&cut, bytes, at, &in_two);
    if (in_two == HTTP_GUARD_OK)
        http_guard_feed(&cut, bytes + at, size - at, &in_two);
    if (in_two != at_once)
        abort();
    return 0;
}
