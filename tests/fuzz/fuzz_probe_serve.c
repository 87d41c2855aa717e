/* The agent's own requests to `sluice-probe serve`: any bytes get one JSON object, an error but for what is known. */
#include "probes/serve.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct prover *prover;
    struct buf answer;
    if (!prover) {
        struct prover_options options = {.backend = &probe_backend_cpu, .devices = 1};
        struct signing_key *key = NULL;
        CHECK(signing_key_new(&key) == ERR_NONE);
        options.key = key; /* lives as long as the process */
        CHECK(prover_open(&options, &prover) == ERR_NONE);
    }
    buf_init(&answer, PROBE_FRAME_MAX);
    CHECK(serve_local(prover, (struct str){(const char *)data, size}, &answer) == ERR_NONE);
    json_t *json = json_loadb(answer.ptr, answer.len, JSON_REJECT_DUPLICATES, NULL);
    CHECK(json_object_size(json) == 1);
    CHECK(json_object_get(json, "error") || json_object_get(json, "claims"));
    json_decref(json);
    buf_free(&answer);
    return 0;
}
