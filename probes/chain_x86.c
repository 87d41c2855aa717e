#if defined(__x86_64__)

#include "probes/chain_forms.h"

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

/* Reducing a sum in floats is exact. Sums are below 2^29 (n <= 32768), so the first quotient is off by less than 1/2 +
 * 3 * 2^-24 * 2^29 / 251 < 0.9 and what it leaves below 226; times d that is below 2^16, where the quotient's error of
 * 2^-14 is far less than its distance from a half, which is 1/502 at least as 251 is odd. */
static const float one_field_th = 1.0f / PROBE_FIELD;

/* The bytes of four rows in turn, 16 columns at a time. SSE2 is always there. */
static void pack_with_bias(const int8_t *x, uint32_t n, size_t columns, int8_t bias, uint8_t *ret)
{
    const __m128i biases = _mm_set1_epi8(bias);
    for (uint32_t k = 0; k < n; k += 4, x += 4 * columns)
        for (uint32_t c = 0; c < CHAIN_STRIP; c += 16, ret += 64) {
            __m128i rows[4];
            for (int i = 0; i < 4; i++)
                rows[i] = _mm_add_epi8(_mm_loadu_si128((const __m128i *)(x + (size_t)i * columns + c)), biases);
            __m128i low01 = _mm_unpacklo_epi8(rows[0], rows[1]), high01 = _mm_unpackhi_epi8(rows[0], rows[1]);
            __m128i low23 = _mm_unpacklo_epi8(rows[2], rows[3]), high23 = _mm_unpackhi_epi8(rows[2], rows[3]);
            _mm_storeu_si128((__m128i *)ret, _mm_unpacklo_epi16(low01, low23));
            _mm_storeu_si128((__m128i *)(ret + 16), _mm_unpackhi_epi16(low01, low23));
            _mm_storeu_si128((__m128i *)(ret + 32), _mm_unpacklo_epi16(high01, high23));
            _mm_storeu_si128((__m128i *)(ret + 48), _mm_unpackhi_epi16(high01, high23));
        }
}

static int32_t four_bytes(const int8_t *at)
{
    int32_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

AVX2 static void residues_avx2(int8_t *bytes, size_t count)
{
    const __m256i field = _mm256_set1_epi8((char)PROBE_FIELD), half = _mm256_set1_epi8(PROBE_FIELD_HALF);
    for (size_t i = 0; i < count; i += 32) {
        __m256i b = _mm256_loadu_si256((const __m256i *)(bytes + i));
        __m256i is_over = _mm256_cmpeq_epi8(_mm256_max_epu8(b, field), b);
        b = _mm256_sub_epi8(b, _mm256_and_si256(is_over, field));
        _mm256_storeu_si256((__m256i *)(bytes + i), _mm256_sub_epi8(b, half));
    }
}

static void pack_avx2(const int8_t *x, uint32_t n, size_t columns, uint8_t *ret)
{
    pack_with_bias(x, n, columns, 0, ret);
}

AVX2 static inline __m256i reduce_avx2(__m256i sums)
{
    __m256i quotients = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(one_field_th)));
    return _mm256_sub_epi32(sums, _mm256_mullo_epi32(quotients, _mm256_set1_epi32(PROBE_FIELD)));
}

/* 32 columns of one row. */
AVX2 static inline void finish_avx2(const __m256i sums[4], uint8_t scale, int8_t *ret)
{
    const __m256i scales = _mm256_set1_epi32(scale);
    __m256i done[4];
    for (int i = 0; i < 4; i++)
        done[i] = reduce_avx2(_mm256_mullo_epi32(reduce_avx2(sums[i]), scales));
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(done[0], done[1]), _mm256_packs_epi32(done[2], done[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)ret, bytes);
}

/* |a| times x with a's sign: two products are 2 * 125^2 < 2^15 at most, so nothing saturates. */
AVX2 static void product_avx2(const struct chain_step *step, uint32_t row, int8_t ret[CHAIN_ROWS][CHAIN_STRIP])
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (uint32_t r = 0; r < CHAIN_ROWS; r += 2)
        for (uint32_t half = 0; half < CHAIN_STRIP; half += 32) {
            const int8_t *a = step->matrix + (size_t)(row + r) * step->n, *b = a + step->n;
            const uint8_t *x = step->strip + (size_t)half * 4;
            __m256i sums[2][4];
            for (int i = 0; i < 4; i++)
                sums[0][i] = sums[1][i] = _mm256_setzero_si256();
            for (uint32_t k = 0; k < step->n; k += 4, x += 4 * CHAIN_STRIP) {
                __m256i a4 = _mm256_set1_epi32(four_bytes(a + k)), abs_a4 = _mm256_abs_epi8(a4);
                __m256i b4 = _mm256_set1_epi32(four_bytes(b + k)), abs_b4 = _mm256_abs_epi8(b4);
                for (int i = 0; i < 4; i++) {
                    __m256i x4 = _mm256_loadu_si256((const __m256i *)(x + 32 * i));
                    __m256i pairs = _mm256_maddubs_epi16(abs_a4, _mm256_sign_epi8(x4, a4));
                    sums[0][i] = _mm256_add_epi32(sums[0][i], _mm256_madd_epi16(pairs, ones));
                    pairs = _mm256_maddubs_epi16(abs_b4, _mm256_sign_epi8(x4, b4));
                    sums[1][i] = _mm256_add_epi32(sums[1][i], _mm256_madd_epi16(pairs, ones));
                }
            }
            for (uint32_t i = 0; i < 2; i++)
                finish_avx2(sums[i], step->scale[row + r + i], ret[r + i] + half);
        }
}

const struct chain_form chain_form_avx2 = {residues_avx2, pack_avx2, product_avx2};

AVX512 static void residues_avx512(int8_t *bytes, size_t count)
{
    const __m512i field = _mm512_set1_epi8((char)PROBE_FIELD), half = _mm512_set1_epi8(PROBE_FIELD_HALF);
    for (size_t i = 0; i < count; i += 64) {
        __m512i b = _mm512_loadu_si512(bytes + i);
        b = _mm512_mask_sub_epi8(b, _mm512_cmpge_epu8_mask(b, field), b, field);
        _mm512_storeu_si512(bytes + i, _mm512_sub_epi8(b, half));
    }
}

/* The instruction multiplies unsigned by signed bytes: X is shifted to 0 .. 250 and 125 of each row's sum taken off. */
static void pack_avx512(const int8_t *x, uint32_t n, size_t columns, uint8_t *ret)
{
    pack_with_bias(x, n, columns, PROBE_FIELD_HALF, ret);
}

AVX512 static inline __m512i reduce_avx512(__m512i sums)
{
    __m512i quotients = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(one_field_th)));
    return _mm512_sub_epi32(sums, _mm512_mullo_epi32(quotients, _mm512_set1_epi32(PROBE_FIELD)));
}

AVX512 static void product_avx512(const struct chain_step *step, uint32_t row, int8_t ret[CHAIN_ROWS][CHAIN_STRIP])
{
    const int8_t *a = step->matrix + (size_t)row * step->n;
    const uint8_t *x = step->strip;
    const uint32_t n = step->n;
    __m512i sums[CHAIN_ROWS][4];
    for (int r = 0; r < CHAIN_ROWS; r++)
        for (int i = 0; i < 4; i++)
            sums[r][i] = _mm512_set1_epi32(-PROBE_FIELD_HALF * step->row_sums[row + (uint32_t)r]);
    for (uint32_t k = 0; k < n; k += 4, x += 4 * CHAIN_STRIP) {
        __m512i x4[4];
        for (int i = 0; i < 4; i++)
            x4[i] = _mm512_loadu_si512(x + 64 * i);
        for (int r = 0; r < CHAIN_ROWS; r++) {
            __m512i a4 = _mm512_set1_epi32(four_bytes(a + (size_t)r * n + k));
            for (int i = 0; i < 4; i++)
                sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], x4[i], a4);
        }
    }
    for (int r = 0; r < CHAIN_ROWS; r++) {
        const __m512i scales = _mm512_set1_epi32(step->scale[row + (uint32_t)r]);
        for (int i = 0; i < 4; i++) {
            __m512i done = reduce_avx512(_mm512_mullo_epi32(reduce_avx512(sums[r][i]), scales));
            _mm_storeu_si128((__m128i *)(ret[r] + 16 * i), _mm512_cvtepi32_epi8(done));
        }
    }
}

const struct chain_form chain_form_avx512 = {residues_avx512, pack_avx512, product_avx512};

#endif
