/* Hellos, answers and status lines of a worker link. */
#include "adapters/native/hub_status.h"
#include "adapters/native/link_hello.h"

#include <stdlib.h>
#include <string.h>

static void on_status(void *ctx, const struct worker_status *status)
{
    (void)ctx;
    if (status->slots < 1 || status->slots > STATUS_SLOTS_MAX || status->in_flight < 0 ||
        status->model_count > STATUS_MODELS_MAX)
        abort();
    for (size_t i = 0; i < status->model_count; i++)
        if (status->models[i].len == 0 || status->models[i].len > STATUS_MODEL_NAME_MAX)
            abort();
}

/* What was parsed is written again the same. */
static void check_hello(struct str line)
{
    struct link_hello hello;
    char again[LINK_HELLO_MAX];
    size_t len = 0;
    if (!link_hello_parse(line, &hello))
        return;
    if (!link_hello_write(&hello, again, &len) || len != line.len + 1 || memcmp(again, line.ptr, line.len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str bytes = {(const char *)data, size};
    struct link_answer answer;
    struct buf line = {0};
    unsigned left = 64;
    check_hello(bytes);
    if (link_answer_parse(bytes, &answer) && !answer.is_taken && answer.reason.len == 0)
        abort();
    size_t half = size / 2;
    if (status_feed(&line, (struct str){bytes.ptr, half}, &left, on_status, NULL) == ERR_NONE &&
        status_feed(&line, (struct str){bytes.ptr + half, size - half}, &left, on_status, NULL) == ERR_NONE &&
        line.len > STATUS_LINE_MAX)
        abort();
    buf_free(&line);
    return 0;
}
