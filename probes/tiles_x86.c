/* The two words of a pair share a 64-bit lane: products are of low words, so the high one is moved down for its own. */
#if defined(__x86_64__)

#include "probes/tiles_forms.h"

#include <immintrin.h>

__attribute__((target("avx2"))) void tile_nh_avx2(const uint32_t tile[PROBE_TILE_WORDS],
                                                  const uint32_t key[PROBE_PASS_KEY_WORDS], uint64_t ret[2])
{
    __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (uint32_t i = 0; i < PROBE_TILE_WORDS; i += 8) {
        __m256i words = _mm256_loadu_si256((const __m256i *)(tile + i));
        for (uint32_t k = 0; k < 2; k++) {
            __m256i keyed = _mm256_add_epi32(words, _mm256_loadu_si256((const __m256i *)(key + i + 4 * k)));
            sums[k] = _mm256_add_epi64(sums[k], _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32)));
        }
    }
    for (int k = 0; k < 2; k++) {
        uint64_t lanes[4];
        _mm256_storeu_si256((__m256i *)lanes, sums[k]);
        ret[k] = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    }
}

__attribute__((target("avx512f"))) void tile_nh_avx512(const uint32_t tile[PROBE_TILE_WORDS],
                                                       const uint32_t key[PROBE_PASS_KEY_WORDS], uint64_t ret[2])
{
    __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (uint32_t i = 0; i < PROBE_TILE_WORDS; i += 16) {
        __m512i words = _mm512_loadu_si512(tile + i);
        for (uint32_t k = 0; k < 2; k++) {
            __m512i keyed = _mm512_add_epi32(words, _mm512_loadu_si512(key + i + 4 * k));
            sums[k] = _mm512_add_epi64(sums[k], _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32)));
        }
    }
    for (int k = 0; k < 2; k++) {
        uint64_t lanes[8]; /* the reducing intrinsic of gcc adds signed, and these sums wrap */
        _mm512_storeu_si512(lanes, sums[k]);
        ret[k] = 0;
        for (int i = 0; i < 8; i++)
            ret[k] += lanes[i];
    }
}

#endif
