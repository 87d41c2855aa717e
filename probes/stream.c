#include "probes/stream.h"

#include "probes/stream_forms.h"
#include "probes/vector.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are bytes as they lie in memory");

enum { BLOCK_BYTES = 64 };

void stream_make(struct stream stream, uint32_t first, uint32_t count, void *ret)
{
    uint8_t *at = ret;
#if defined(__x86_64__)
    enum probe_vector vector = probe_vector_now();
    if (vector == PROBE_VECTOR_AVX512)
        for (; count >= STREAM_AVX512_BLOCKS; count -= STREAM_AVX512_BLOCKS) {
            stream_make_avx512(&stream, first, at);
            first += STREAM_AVX512_BLOCKS;
            at += STREAM_AVX512_BLOCKS * BLOCK_BYTES;
        }
    if (vector >= PROBE_VECTOR_AVX2) {
        for (; count >= STREAM_AVX2_BLOCKS; count -= STREAM_AVX2_BLOCKS) {
            stream_make_avx2(&stream, first, at);
            first += STREAM_AVX2_BLOCKS;
            at += STREAM_AVX2_BLOCKS * BLOCK_BYTES;
        }
        if (count > 2) { /* one or two by themselves are as quick as a group */
            uint8_t group[STREAM_AVX2_BLOCKS * BLOCK_BYTES];
            stream_make_avx2(&stream, first, group);
            memcpy(at, group, (size_t)count * BLOCK_BYTES);
            return;
        }
    }
#endif
    for (uint32_t i = 0; i < count; i++) {
        uint32_t words[16];
        probe_chacha(stream.seed, first + i, stream.w13, stream.w14, stream.domain, stream.double_rounds, words);
        memcpy(at + (size_t)i * BLOCK_BYTES, words, BLOCK_BYTES);
    }
}
