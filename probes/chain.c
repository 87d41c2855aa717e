#include "probes/chain.h"

#include "probes/chain_product.h"
#include "probes/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void chain_row_make(const uint32_t seed[8], uint32_t domain, uint32_t row, uint32_t columns, int8_t *ret)
{
    struct stream stream = {seed, row, 0, domain, PROBE_CHAIN_DOUBLE_ROUNDS};
    assert(columns % 64 == 0);
    stream_make(stream, 0, columns / 64, ret);
    for (uint32_t i = 0; i < columns; i++)
        ret[i] = probe_residue_of_byte((uint8_t)ret[i]);
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

static void product_portable(const struct chain_step *step, uint32_t row, int8_t ret[CHAIN_ROWS][CHAIN_STRIP])
{
    for (uint32_t r = 0; r < CHAIN_ROWS; r++) {
        const int8_t *a = step->matrix + (size_t)(row + r) * step->n;
        int32_t sums[CHAIN_STRIP] = {0};
        for (uint32_t k = 0; k < step->n; k += 4) {
            const int8_t *x = (const int8_t *)step->packed + (size_t)k * CHAIN_STRIP;
            for (uint32_t c = 0; c < CHAIN_STRIP; c++)
                sums[c] +=
                    a[k] * x[4 * c] + a[k + 1] * x[4 * c + 1] + a[k + 2] * x[4 * c + 2] + a[k + 3] * x[4 * c + 3];
        }
        for (uint32_t c = 0; c < CHAIN_STRIP; c++)
            ret[r][c] = probe_chain_element(sums[c], step->scale[row + r]);
    }
}

/* One strip of X (columns from `column` of rows of `columns`), see chain_product.h. */
static void pack_strip(const int8_t *x, uint32_t n, size_t columns, uint32_t bias, uint8_t *ret)
{
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t c = 0; c < CHAIN_STRIP; c++)
            ret[(size_t)(k / 4) * 4 * CHAIN_STRIP + 4 * c + k % 4] = (uint8_t)(x[k * columns + c] + (int)bias);
}

enum error chain_run(const uint32_t seed[8], uint32_t n, uint32_t blocks, uint32_t steps, int8_t *ret)
{
    size_t columns = (size_t)n * blocks;
    int8_t *matrix = malloc((size_t)n * n);
    uint8_t *packed = malloc(n * columns);
    uint8_t *scale = malloc(n), *shift = malloc(n);
    enum error error = ERR_NO_MEMORY;
    if (!matrix || !packed || !scale || !shift)
        goto out;
    for (uint32_t i = 0; i < n; i++) {
        chain_row_make(seed, PROBE_DOMAIN_CHAIN_A, i, n, matrix + (size_t)i * n);
        chain_row_make(seed, PROBE_DOMAIN_CHAIN_X, i, (uint32_t)columns, ret + i * columns);
    }
    for (uint32_t t = 0; t < steps; t++) {
        chain_step_make(seed, t, n, blocks, scale, shift);
        for (size_t column = 0; column < columns; column += CHAIN_STRIP)
            pack_strip(ret + column, n, columns, 0, packed + n * column);
        for (size_t column = 0; column < columns; column += CHAIN_STRIP) {
            struct chain_step step = {n, matrix, packed + n * column, scale};
            for (uint32_t row = 0; row < n; row += CHAIN_ROWS) {
                int8_t strip[CHAIN_ROWS][CHAIN_STRIP];
                product_portable(&step, row, strip);
                for (uint32_t r = 0; r < CHAIN_ROWS; r++) {
                    size_t to = (column / n + shift[row + r]) % blocks * n + column % n;
                    memcpy(ret + (row + r) * columns + to, strip[r], CHAIN_STRIP);
                }
            }
        }
    }
    error = ERR_NONE;
out:
    free(shift);
    free(scale);
    free(packed);
    free(matrix);
    return error;
}
