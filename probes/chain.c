#include "probes/chain.h"

#include "probes/chain_forms.h"
#include "probes/stream.h"
#include "probes/vector.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_BYTES = 4096 };

static void residues_portable(int8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = probe_residue_of_byte((uint8_t)bytes[i]);
}

static void pack_portable(const int8_t *x, uint32_t n, size_t columns, uint8_t *ret)
{
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t c = 0; c < CHAIN_STRIP; c++)
            ret[(size_t)(k / 4) * 4 * CHAIN_STRIP + 4 * c + k % 4] = (uint8_t)x[k * columns + c];
}

static void product_portable(const struct chain_step *step, uint32_t row, int8_t ret[CHAIN_ROWS][CHAIN_STRIP])
{
    for (uint32_t r = 0; r < CHAIN_ROWS; r++) {
        const int8_t *a = step->matrix + (size_t)(row + r) * step->n;
        int32_t sums[CHAIN_STRIP] = {0};
        for (uint32_t k = 0; k < step->n; k += 4) {
            const int8_t *x = (const int8_t *)step->strip + (size_t)k * CHAIN_STRIP;
            for (uint32_t c = 0; c < CHAIN_STRIP; c++)
                sums[c] +=
                    a[k] * x[4 * c] + a[k + 1] * x[4 * c + 1] + a[k + 2] * x[4 * c + 2] + a[k + 3] * x[4 * c + 3];
        }
        for (uint32_t c = 0; c < CHAIN_STRIP; c++)
            ret[r][c] = probe_chain_element(sums[c], step->scale[row + r]);
    }
}

const struct chain_form *chain_form_now(void)
{
    static const struct chain_form portable = {residues_portable, pack_portable, product_portable};
#if defined(__x86_64__)
    if (probe_vector_now() == PROBE_VECTOR_AVX512)
        return &chain_form_avx512;
    if (probe_vector_now() == PROBE_VECTOR_AVX2)
        return &chain_form_avx2;
#endif
    return &portable;
}

void chain_row_make(const uint32_t seed[8], uint32_t domain, uint32_t row, uint32_t columns, int8_t *ret)
{
    const struct chain_form *form = chain_form_now();
    struct stream stream = {seed, row, 0, domain, PROBE_CHAIN_DOUBLE_ROUNDS};
    assert(columns % 64 == 0);
    for (uint32_t at = 0; at < columns; at += RUN_BYTES) { /* while they are in the nearest cache */
        uint32_t bytes = columns - at < RUN_BYTES ? columns - at : RUN_BYTES;
        stream_make(stream, at / 64, bytes / 64, ret + at);
        form->residues(ret + at, bytes);
    }
}

void chain_step_make(const uint32_t seed[8], uint32_t step, uint32_t n, uint32_t blocks, uint8_t *ret_scale,
                     uint8_t *ret_shift)
{
    struct stream stream = {seed, step, 0, PROBE_DOMAIN_CHAIN_STEP, PROBE_CHAIN_DOUBLE_ROUNDS};
    for (uint32_t row = 0; row < n; row += 64) {
        uint32_t words[64];
        stream_make(stream, row / 16, 4, words);
        for (uint32_t i = 0; i < 64 && row + i < n; i++) {
            ret_scale[row + i] = (uint8_t)probe_chain_scale(words[i]);
            ret_shift[row + i] = (uint8_t)probe_chain_shift(words[i], blocks);
        }
    }
}

static void start_leaf(struct probe_hash *hash, uint32_t personal, const uint32_t context[8], uint32_t w8, uint32_t w9)
{
    uint32_t head[16] = {0};
    memcpy(head, context, PROBE_HASH_BYTES);
    head[8] = w8;
    head[9] = w9;
    probe_hash_init(hash, personal);
    probe_hash_update(hash, head, sizeof(head));
}

void chain_leaf(const uint32_t context[8], uint32_t row, const int8_t *bytes, uint32_t columns, uint32_t ret[8])
{
    uint32_t chunks = columns / PROBE_CHUNK_BYTES + (columns % PROBE_CHUNK_BYTES != 0);
    struct probe_hash leaf, chunk;
    start_leaf(&leaf, PROBE_HASH_ROW, context, row, chunks);
    for (uint32_t i = 0; i < chunks; i++) {
        uint32_t at = i * PROBE_CHUNK_BYTES, digest[8];
        uint32_t len = columns - at < PROBE_CHUNK_BYTES ? columns - at : PROBE_CHUNK_BYTES;
        start_leaf(&chunk, PROBE_HASH_CHUNK, context, row, i);
        probe_hash_update(&chunk, bytes + at, len);
        probe_hash_final(&chunk, digest);
        probe_hash_update(&leaf, digest, sizeof(digest));
    }
    probe_hash_final(&leaf, ret);
}

/* X_{t+1} from X_t, in x; packed has room for all of X. */
static void run_step(const struct chain_form *form, struct chain_step *step, uint32_t blocks, const uint8_t *shift,
                     uint8_t *packed, int8_t *x)
{
    const uint32_t n = step->n;
    const size_t columns = (size_t)n * blocks;
    for (size_t column = 0; column < columns; column += CHAIN_STRIP)
        form->pack(x + column, n, columns, packed + n * column);
    for (size_t column = 0; column < columns; column += CHAIN_STRIP) {
        step->strip = packed + n * column;
        for (uint32_t row = 0; row < n; row += CHAIN_ROWS) {
            int8_t done[CHAIN_ROWS][CHAIN_STRIP];
            form->product(step, row, done);
            for (uint32_t r = 0; r < CHAIN_ROWS; r++) {
                size_t to = (column / n + shift[row + r]) % blocks * n + column % n;
                memcpy(x + (row + r) * columns + to, done[r], CHAIN_STRIP);
            }
        }
    }
}

enum error chain_run(const uint32_t seed[8], uint32_t n, uint32_t blocks, uint32_t steps, int8_t *ret)
{
    const struct chain_form *form = chain_form_now();
    size_t columns = (size_t)n * blocks;
    int8_t *matrix = malloc((size_t)n * n);
    uint8_t *packed = malloc(n * columns), *scale = malloc(n), *shift = malloc(n);
    int32_t *row_sums = calloc(n, sizeof(*row_sums));
    enum error error = ERR_NO_MEMORY;
    if (!matrix || !packed || !scale || !shift || !row_sums)
        goto out;
    for (uint32_t i = 0; i < n; i++) {
        chain_row_make(seed, PROBE_DOMAIN_CHAIN_A, i, n, matrix + (size_t)i * n);
        chain_row_make(seed, PROBE_DOMAIN_CHAIN_X, i, (uint32_t)columns, ret + i * columns);
        for (uint32_t k = 0; k < n; k++)
            row_sums[i] += matrix[(size_t)i * n + k];
    }
    struct chain_step step = {.n = n, .matrix = matrix, .row_sums = row_sums, .scale = scale};
    for (uint32_t t = 0; t < steps; t++) {
        chain_step_make(seed, t, n, blocks, scale, shift);
        run_step(form, &step, blocks, shift, packed, ret);
    }
    error = ERR_NONE;
out:
    free(row_sums);
    free(shift);
    free(scale);
    free(packed);
    free(matrix);
    return error;
}
