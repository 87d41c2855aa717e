#include "probes/stream.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are bytes as they lie in memory");

void stream_make(struct stream stream, uint32_t first, uint32_t count, void *ret)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t words[16];
        probe_chacha(stream.seed, first + i, stream.w13, stream.w14, stream.domain, stream.double_rounds, words);
        memcpy((uint8_t *)ret + (size_t)i * sizeof(words), words, sizeof(words));
    }
}
