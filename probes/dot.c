#include "probes/dot.h"
#include "core/crypto.h"
#include "probes/vector.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define GROUP 4u /* vectors at a time: with four rows, as many sums as there are registers for */

static uint32_t padded(uint32_t count)
{
    return (count + GROUP - 1) / GROUP * GROUP;
}

enum error dot_vectors_open(uint32_t length, uint32_t count, struct dot_vectors *ret)
{
    assert(length > 0 && length % 64 == 0 && count > 0 && count <= DOT_VECTORS_MAX);
    struct dot_vectors vectors = {.length = length, .count = count, .stride = (size_t)length + DOT_GAP};
    size_t size = vectors.stride * padded(count);
    vectors.bytes = aligned_alloc(64, size);
    if (!vectors.bytes)
        return ERR_NO_MEMORY;
    memset(vectors.bytes, 0, size);
    *ret = vectors;
    return ERR_NONE;
}

void dot_vectors_free(struct dot_vectors *vectors)
{
    if (vectors->bytes)
        crypto_wipe(vectors->bytes, vectors->stride * padded(vectors->count));
    free(vectors->bytes);
    *vectors = (struct dot_vectors){.bytes = NULL};
}

void dot_vectors_seal(struct dot_vectors *vectors)
{
    for (uint32_t v = 0; v < vectors->count; v++) {
        const int8_t *from = vectors->bytes + v * vectors->stride;
        int32_t sum = 0;
        for (uint32_t k = 0; k < vectors->length; k++)
            sum += from[k];
        vectors->sums[v] = sum;
    }
}

typedef void rows_fn(const struct dot_vectors *vectors, const int8_t *const rows[DOT_ROWS],
                     int32_t ret[DOT_ROWS][DOT_VECTORS_MAX]);

static void rows_portable(const struct dot_vectors *vectors, const int8_t *const rows[DOT_ROWS],
                          int32_t ret[DOT_ROWS][DOT_VECTORS_MAX])
{
    for (uint32_t r = 0; r < DOT_ROWS; r++) {
        for (uint32_t v = 0; v < vectors->count; v++) {
            const int8_t *a = rows[r], *f = vectors->bytes + v * vectors->stride;
            int32_t sum = 0;
            for (uint32_t k = 0; k < vectors->length; k += 64)
                for (uint32_t j = 0; j < 64; j++) /* a fixed length, so that the compiler makes vectors of it */
                    sum += a[k + j] * f[k + j];
            ret[r][v] = sum;
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int32_t sum_of_8(__m256i x)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

/* |a| times (f with a's sign), bytes to 16 bits in pairs: 2 * 125 * 125 = 31250 stays below saturation. */
__attribute__((target("avx2"))) static void
rows_avx2(const struct dot_vectors *vectors, const int8_t *const rows[DOT_ROWS], int32_t ret[DOT_ROWS][DOT_VECTORS_MAX])
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (uint32_t r = 0; r < DOT_ROWS; r += 2) {
        for (uint32_t v = 0; v < vectors->count; v += GROUP) {
            const int8_t *f = vectors->bytes + v * vectors->stride;
            __m256i sums[2][GROUP];
            for (uint32_t i = 0; i < GROUP; i++)
                sums[0][i] = sums[1][i] = _mm256_setzero_si256();
            for (uint32_t k = 0; k < vectors->length; k += 32) {
                const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(rows[r] + k));
                const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(rows[r + 1] + k));
                const __m256i a_abs = _mm256_abs_epi8(a), b_abs = _mm256_abs_epi8(b);
#pragma GCC unroll 4
                for (uint32_t i = 0; i < GROUP; i++) {
                    const __m256i x = _mm256_load_si256((const __m256i *)(const void *)(f + i * vectors->stride + k));
                    const __m256i ax = _mm256_maddubs_epi16(a_abs, _mm256_sign_epi8(x, a));
                    const __m256i bx = _mm256_maddubs_epi16(b_abs, _mm256_sign_epi8(x, b));
                    sums[0][i] = _mm256_add_epi32(sums[0][i], _mm256_madd_epi16(ax, ones));
                    sums[1][i] = _mm256_add_epi32(sums[1][i], _mm256_madd_epi16(bx, ones));
                }
            }
            for (uint32_t i = 0; i < GROUP; i++) {
                ret[r][v + i] = sum_of_8(sums[0][i]);
                ret[r + 1][v + i] = sum_of_8(sums[1][i]);
            }
        }
    }
}

/* VNNI multiplies unsigned by signed: a + 128 (the sign bit turned), and 128 times the vector's sum off at the end. */
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static void
rows_vnni(const struct dot_vectors *vectors, const int8_t *const rows[DOT_ROWS], int32_t ret[DOT_ROWS][DOT_VECTORS_MAX])
{
    const __m512i turn = _mm512_set1_epi8((char)0x80);
    for (uint32_t v = 0; v < vectors->count; v += GROUP) {
        const int8_t *f = vectors->bytes + v * vectors->stride;
        __m512i sums[DOT_ROWS][GROUP];
#pragma GCC unroll 4
        for (uint32_t r = 0; r < DOT_ROWS; r++)
#pragma GCC unroll 4
            for (uint32_t i = 0; i < GROUP; i++)
                sums[r][i] = _mm512_setzero_si512();
        for (uint32_t k = 0; k < vectors->length; k += 64) {
            __m512i x[GROUP];
#pragma GCC unroll 4
            for (uint32_t i = 0; i < GROUP; i++)
                x[i] = _mm512_load_si512(f + i * vectors->stride + k);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < DOT_ROWS; r++) {
                const __m512i a = _mm512_xor_si512(_mm512_loadu_si512(rows[r] + k), turn);
#pragma GCC unroll 4
                for (uint32_t i = 0; i < GROUP; i++)
                    sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], a, x[i]);
            }
        }
        for (uint32_t r = 0; r < DOT_ROWS; r++)
            for (uint32_t i = 0; i < GROUP; i++)
                ret[r][v + i] = _mm512_reduce_add_epi32(sums[r][i]) - 128 * vectors->sums[v + i];
    }
}
#endif

static rows_fn *chosen(void)
{
#if defined(__x86_64__)
    if (probe_vector_now() == PROBE_VECTOR_AVX512)
        return rows_vnni;
    if (probe_vector_now() == PROBE_VECTOR_AVX2)
        return rows_avx2;
#endif
    return rows_portable;
}

void dot_rows(const struct dot_vectors *vectors, const int8_t *const rows[DOT_ROWS],
              int32_t ret[DOT_ROWS][DOT_VECTORS_MAX])
{
    chosen()(vectors, rows, ret);
}
