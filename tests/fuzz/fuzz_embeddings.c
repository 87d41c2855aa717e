/* What is converted is valid JSON, and base64 to floats to base64 is where it began. */
#include "tests/fuzz/fuzz.h"

#include "core/json_scan.h"
#include "gateway/embeddings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str answer = {(const char *)data, size};
    struct buf coded, floats, again;
    bool changed;
    if (json_scan_all(answer, NULL, NULL))
        return 0;
    buf_init(&coded, 0);
    buf_init(&floats, 0);
    buf_init(&again, 0);
    if (embeddings_convert(answer, true, &coded, &changed) == ERR_NONE) {
        struct str source = changed ? buf_str(&coded) : answer;
        CHECK(json_scan_all(source, NULL, NULL) == ERR_NONE);
        if (embeddings_convert(source, false, &floats, &changed) == ERR_NONE && changed) {
            CHECK(json_scan_all(buf_str(&floats), NULL, NULL) == ERR_NONE);
            CHECK(embeddings_convert(buf_str(&floats), true, &again, &changed) == ERR_NONE && changed);
            struct str back = buf_str(&again);
            CHECK(embeddings_convert(back, false, &coded, &changed) == ERR_NONE && changed);
            CHECK(str_eq(buf_str(&coded), buf_str(&floats)));
        }
    }
    buf_free(&coded);
    buf_free(&floats);
    buf_free(&again);
    return 0;
}
