/* A lease's record as Redis might give it back after anybody has written to it. What is read must write and read back
 * the same, and the machine must take it: an action, and a stop, without stumbling. */
#include "tests/fuzz/fuzz.h"

#include "scheduler/lease_record.h"

#include <string.h>

#define NOW INT64_C(1764000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lease *lease = NULL, *again = NULL;
    struct buf first, second;
    const struct str text = {(const char *)data, size};
    if (lease_record_read(text, &lease) != ERR_NONE)
        return 0;
    buf_init(&first, 0);
    buf_init(&second, 0);
    CHECK(lease_record_write(lease, &first));
    CHECK(lease_record_read(buf_str(&first), &again) == ERR_NONE);
    CHECK(lease_record_write(again, &second));
    CHECK(first.len == second.len && memcmp(first.ptr, second.ptr, first.len) == 0);
    json_t *view = lease_view(lease, NOW);
    CHECK(view);
    json_decref(view);
    struct lease_action action = lease_next(lease, NOW, &lease_policy_default);
    CHECK(action.attempt == 0 || action.attempt < lease->attempt_count);
    const struct lease_event stop = {.kind = LEASE_STOP};
    CHECK(lease_apply(lease, &stop, NOW, &lease_policy_default) == ERR_NONE);
    CHECK(lease->state >= LEASE_STOPPING);
    buf_free(&first);
    buf_free(&second);
    lease_free(lease);
    lease_free(again);
    return 0;
}
