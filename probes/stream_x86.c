/* A lane is a block: word i of eight or sixteen blocks in one register, turned into bytes of blocks at the end. */
#if defined(__x86_64__)

#include "probes/stream_forms.h"

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

/* One quarter round over the rows a, b, c, d of x: ADD, XOR and the four rotations are the form's own. */
#define QUARTER(a, b, c, d)                 \
    do {                                    \
        x[a] = ADD(x[a], x[b]);             \
        x[d] = ROTATE16(XOR(x[d], x[a]));   \
        x[c] = ADD(x[c], x[d]);             \
        x[b] = ROTATE(XOR(x[b], x[c]), 12); \
        x[a] = ADD(x[a], x[b]);             \
        x[d] = ROTATE8(XOR(x[d], x[a]));    \
        x[c] = ADD(x[c], x[d]);             \
        x[b] = ROTATE(XOR(x[b], x[c]), 7);  \
    } while (0)
#define DOUBLE_ROUND()         \
    do {                       \
        QUARTER(0, 4, 8, 12);  \
        QUARTER(1, 5, 9, 13);  \
        QUARTER(2, 6, 10, 14); \
        QUARTER(3, 7, 11, 15); \
        QUARTER(0, 5, 10, 15); \
        QUARTER(1, 6, 11, 12); \
        QUARTER(2, 7, 8, 13);  \
        QUARTER(3, 4, 9, 14);  \
    } while (0)

static void first_words(const struct stream *stream, uint32_t first, uint32_t ret[16])
{
    static const uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    for (int i = 0; i < 4; i++)
        ret[i] = constants[i];
    for (int i = 0; i < 8; i++)
        ret[4 + i] = stream->seed[i];
    ret[12] = first;
    ret[13] = stream->w13;
    ret[14] = stream->w14;
    ret[15] = stream->domain << 24 | stream->double_rounds;
}

#define ADD _mm256_add_epi32
#define XOR _mm256_xor_si256
#define ROTATE(v, n) _mm256_or_si256(_mm256_slli_epi32(v, n), _mm256_srli_epi32(v, 32 - (n)))
#define ROTATE16(v) _mm256_shuffle_epi8(v, by16)
#define ROTATE8(v) _mm256_shuffle_epi8(v, by8)

/* x[i] holds word i of eight blocks; ret + 64 * b gets the eight words of block b. */
AVX2 static inline void turn_8x8(const __m256i x[8], uint8_t *ret)
{
    __m256i pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_si256((__m256i *)(ret + 64 * i), _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20));
        _mm256_storeu_si256((__m256i *)(ret + 64 * (i + 4)), _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31));
    }
}

AVX2 void stream_make_avx2(const struct stream *stream, uint32_t first, uint8_t *ret)
{
    const __m256i by16 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    const __m256i by8 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14));
    const __m256i counts = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    uint32_t words[16];
    __m256i x[16];
    first_words(stream, first, words);
    for (int i = 0; i < 16; i++)
        x[i] = _mm256_set1_epi32((int)words[i]);
    x[12] = ADD(x[12], counts);
    for (uint32_t i = 0; i < stream->double_rounds; i++)
        DOUBLE_ROUND();
    for (int i = 0; i < 16; i++)
        x[i] = ADD(x[i], _mm256_set1_epi32((int)words[i]));
    x[12] = ADD(x[12], counts);
    turn_8x8(x, ret);
    turn_8x8(x + 8, ret + 32);
}

#undef ADD
#undef XOR
#undef ROTATE
#undef ROTATE16
#undef ROTATE8
#define ADD _mm512_add_epi32
#define XOR _mm512_xor_si512
#define ROTATE(v, n) _mm512_rol_epi32(v, n)
#define ROTATE16(v) _mm512_rol_epi32(v, 16)
#define ROTATE8(v) _mm512_rol_epi32(v, 8)

/* x[i] holds word i of sixteen blocks; ret gets the blocks. */
AVX512 static inline void turn_16x16(const __m512i x[16], uint8_t *ret)
{
    __m512i pairs[16], fours[16];
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* 128-bit lane l of fours[i + b]: words i .. i + 3 of block 4 l + b */
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for (int b = 0; b < 4; b++) { /* and now the lanes, as a 4 x 4 matrix */
        __m512i low02 = _mm512_shuffle_i32x4(fours[b], fours[b + 4], 0x88);
        __m512i low13 = _mm512_shuffle_i32x4(fours[b], fours[b + 4], 0xdd);
        __m512i high02 = _mm512_shuffle_i32x4(fours[b + 8], fours[b + 12], 0x88);
        __m512i high13 = _mm512_shuffle_i32x4(fours[b + 8], fours[b + 12], 0xdd);
        _mm512_storeu_si512(ret + 64 * b, _mm512_shuffle_i32x4(low02, high02, 0x88));
        _mm512_storeu_si512(ret + 64 * (b + 4), _mm512_shuffle_i32x4(low13, high13, 0x88));
        _mm512_storeu_si512(ret + 64 * (b + 8), _mm512_shuffle_i32x4(low02, high02, 0xdd));
        _mm512_storeu_si512(ret + 64 * (b + 12), _mm512_shuffle_i32x4(low13, high13, 0xdd));
    }
}

AVX512 void stream_make_avx512(const struct stream *stream, uint32_t first, uint8_t *ret)
{
    const __m512i counts = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t words[16];
    __m512i x[16];
    first_words(stream, first, words);
    for (int i = 0; i < 16; i++)
        x[i] = _mm512_set1_epi32((int)words[i]);
    x[12] = ADD(x[12], counts);
    for (uint32_t i = 0; i < stream->double_rounds; i++)
        DOUBLE_ROUND();
    for (int i = 0; i < 16; i++)
        x[i] = ADD(x[i], _mm512_set1_epi32((int)words[i]));
    x[12] = ADD(x[12], counts);
    turn_16x16(x, ret);
}

#endif
