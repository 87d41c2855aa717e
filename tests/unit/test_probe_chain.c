#include "tests/unit/cmocka_all.h"

#include "probes/chain.h"
#include "probes/chain_forms.h"
#include "probes/vector.h"

#include <string.h>

static const uint32_t seed[8] = {1, 2, 3, 4, 5, 6, 7, 0xdeadbeef};

static uint8_t byte_of(const uint32_t block[16], uint32_t k)
{
    return (uint8_t)(block[k / 4] >> 8 * (k % 4));
}

static void rows_are_their_blocks(void **state)
{
    (void)state;
    static const uint32_t widths[] = {64, 128, 320, 1024, 4096 + 192};
    int8_t *row = malloc(8192);
    assert_non_null(row);
    for (size_t w = 0; w < sizeof(widths) / sizeof(*widths); w++)
        for (uint32_t i = 0; i < 3; i++)
            for (uint32_t domain = PROBE_DOMAIN_CHAIN_A; domain <= PROBE_DOMAIN_CHAIN_X; domain++) {
                size_t offset = i; /* any alignment will do */
                memset(row, 0x55, 8192);
                chain_row_make(seed, domain, 1000 * i, widths[w], row + offset);
                for (uint32_t c = 0; c < widths[w]; c++) {
                    uint32_t block[16];
                    if (c % 64 == 0 || c == 0)
                        probe_chain_block(seed, domain, 1000 * i, c / 64, block);
                    assert_int_equal(row[offset + c], probe_residue_of_byte(byte_of(block, c % 64)));
                }
                assert_int_equal(row[offset + widths[w]], 0x55);
            }
    free(row);
}

static void residues(void **state)
{
    (void)state;
    for (uint32_t byte = 0; byte < 256; byte++) {
        int8_t residue = probe_residue_of_byte(byte);
        assert_in_range(residue + 125, 0, 250);
        assert_int_equal((residue + 125) % 251, byte % 251);
    }
    for (int64_t x = -40000; x <= 40000; x++) {
        int32_t residue = probe_residue((int32_t)x);
        assert_in_range(residue + 125, 0, 250);
        assert_int_equal((x - residue) % 251, 0);
    }
    static const int32_t edges[] = {INT32_MAX, INT32_MIN, 512000000, -512000000};
    for (size_t i = 0; i < sizeof(edges) / sizeof(*edges); i++)
        assert_int_equal(((int64_t)edges[i] - probe_residue(edges[i])) % 251, 0);
}

static void steps_are_their_words(void **state)
{
    (void)state;
    uint8_t scale[200], shift[200];
    for (uint32_t n = 64; n <= 192; n += 64)
        for (uint32_t blocks = 1; blocks <= 16; blocks += 5) {
            memset(scale, 0xff, sizeof(scale));
            chain_step_make(seed, 7, n, blocks, scale, shift);
            assert_int_equal(scale[n], 0xff);
            for (uint32_t i = 0; i < n; i++) {
                uint32_t words[16];
                probe_chain_step_block(seed, 7, i / 16, words);
                assert_int_equal(scale[i], probe_chain_scale(words[i % 16]));
                assert_int_equal(shift[i], probe_chain_shift(words[i % 16], blocks));
                assert_in_range(scale[i], 1, 250);
                assert_in_range(shift[i], 0, blocks - 1);
            }
        }
}

static void leaves(void **state)
{
    (void)state;
    uint32_t context[8] = {9, 8, 7}, leaf[8], want[8], head[16] = {0};
    int8_t bytes[2048 + 64];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (int8_t)(i % 251 - 125);
    static const uint32_t widths[] = {64, 1024, 1088, 2048, 2112};
    for (size_t w = 0; w < sizeof(widths) / sizeof(*widths); w++) {
        struct probe_hash outer, inner;
        uint32_t chunks = (widths[w] + 1023) / 1024, digest[8];
        memcpy(head, context, 32);
        head[8] = 5;
        head[9] = chunks;
        probe_hash_init(&outer, PROBE_HASH_ROW);
        probe_hash_update(&outer, head, 64);
        for (uint32_t c = 0; c < chunks; c++) {
            head[9] = c;
            probe_hash_init(&inner, PROBE_HASH_CHUNK);
            probe_hash_update(&inner, head, 64);
            probe_hash_update(&inner, bytes + (size_t)c * 1024, c + 1 < chunks ? 1024 : widths[w] - c * 1024);
            probe_hash_final(&inner, digest);
            probe_hash_update(&outer, digest, 32);
        }
        probe_hash_final(&outer, want);
        chain_leaf(context, 5, bytes, widths[w], leaf);
        assert_memory_equal(leaf, want, 32);
        bytes[widths[w] - 1] ^= 1;
        chain_leaf(context, 5, bytes, widths[w], leaf);
        assert_memory_not_equal(leaf, want, 32);
        bytes[widths[w] - 1] ^= 1;
    }
}

/* The chain by its definition, in residues 0 .. 250 and 64 bits. */
static void run_by_definition(uint32_t n, uint32_t blocks, uint32_t steps, int8_t *ret)
{
    uint32_t columns = n * blocks, words[16];
    int64_t *a = calloc((size_t)n * n, sizeof(*a)), *x = calloc((size_t)n * columns, sizeof(*x));
    int64_t *next = calloc((size_t)n * columns, sizeof(*next));
    assert_true(a && x && next);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < n; k++) {
            probe_chain_block(seed, PROBE_DOMAIN_CHAIN_A, i, k / 64, words);
            a[i * n + k] = (byte_of(words, k % 64) % 251 + 251 - 125) % 251;
        }
        for (uint32_t k = 0; k < columns; k++) {
            probe_chain_block(seed, PROBE_DOMAIN_CHAIN_X, i, k / 64, words);
            x[i * columns + k] = (byte_of(words, k % 64) % 251 + 251 - 125) % 251;
        }
    }
    for (uint32_t t = 0; t < steps; t++) {
        for (uint32_t i = 0; i < n; i++) {
            probe_chain_step_block(seed, t, i / 16, words);
            int64_t d = 1 + words[i % 16] % 65536 % 250, o = words[i % 16] / 65536 % blocks;
            for (uint32_t b = 0; b < blocks; b++)
                for (uint32_t c = 0; c < n; c++) {
                    int64_t sum = 0;
                    for (uint32_t k = 0; k < n; k++)
                        sum += a[i * n + k] * x[k * columns + b * n + c];
                    next[i * columns + (b + (uint32_t)o) % blocks * n + c] = sum % 251 * d % 251;
                }
        }
        memcpy(x, next, (size_t)n * columns * sizeof(*x));
    }
    for (uint32_t i = 0; i < n * columns; i++)
        ret[i] = (int8_t)(x[i] > 125 ? x[i] - 251 : x[i]);
    free(a);
    free(x);
    free(next);
}

static void chains_are_by_definition(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, blocks, steps;
    } shapes[] = {{64, 1, 1}, {64, 4, 3}, {64, 3, 0}, {128, 2, 2}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++) {
        size_t bytes = (size_t)shapes[s].n * shapes[s].n * shapes[s].blocks;
        int8_t *want = malloc(bytes), *got = malloc(bytes);
        assert_true(want && got);
        run_by_definition(shapes[s].n, shapes[s].blocks, shapes[s].steps, want);
        assert_int_equal(chain_run(seed, shapes[s].n, shapes[s].blocks, shapes[s].steps, got), ERR_NONE);
        assert_memory_equal(want, got, bytes);
        free(want);
        free(got);
    }
}

/* Sums as large as they get, of either sign, and all that is between, in every form that this CPU has. */
static void products_at_the_edges(void **state)
{
    (void)state;
    enum { N_MAX = 32768 };
    int8_t *matrix = malloc((size_t)CHAIN_ROWS * N_MAX), *x = malloc((size_t)CHAIN_STRIP * N_MAX);
    uint8_t *strip = malloc((size_t)CHAIN_STRIP * N_MAX);
    uint64_t random = 88172645463325252;
    assert_true(matrix && x && strip);
    const struct chain_form *form = chain_form_now();
    static const uint32_t sizes[] = {64, 192, 4096, N_MAX};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++)
        for (int kind = 0; kind < 6; kind++) {
            uint32_t n = sizes[s];
            uint8_t scale[CHAIN_ROWS] = {1, 250, 125, (uint8_t)(2 + 40 * kind)};
            int32_t row_sums[CHAIN_ROWS] = {0};
            int8_t done[CHAIN_ROWS][CHAIN_STRIP];
            for (uint32_t k = 0; k < n; k++) {
                for (uint32_t i = 0; i < CHAIN_ROWS + CHAIN_STRIP; i++) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    int value = (int)(random % 251) - 125;
                    if (kind < 4) /* all at one edge or the other; then signs at random */
                        value = (i < CHAIN_ROWS ? kind & 1 : kind & 2) ? 125 : -125;
                    else if (kind == 4)
                        value = value < 0 ? -125 : 125;
                    if (kind < 4 && i >= CHAIN_ROWS && k < i) /* ... with other sums in each column */
                        value = 0;
                    if (i < CHAIN_ROWS) {
                        matrix[i * n + k] = (int8_t)value;
                        row_sums[i] += value;
                    } else {
                        x[(size_t)k * CHAIN_STRIP + i - CHAIN_ROWS] = (int8_t)value;
                    }
                }
            }
            form->pack(x, n, CHAIN_STRIP, strip);
            struct chain_step step = {n, matrix, row_sums, scale, strip};
            form->product(&step, 0, done);
            for (uint32_t r = 0; r < CHAIN_ROWS; r++)
                for (uint32_t c = 0; c < CHAIN_STRIP; c++) {
                    int64_t sum = 0;
                    for (uint32_t k = 0; k < n; k++)
                        sum += matrix[r * n + k] * x[(size_t)k * CHAIN_STRIP + c];
                    assert_in_range(sum + INT32_MAX, 0, 2 * (int64_t)INT32_MAX);
                    assert_int_equal(done[r][c], probe_chain_element((int32_t)sum, scale[r]));
                }
        }
    free(strip);
    free(x);
    free(matrix);
}

static const char *const vector_names[] = {"portable", "AVX2", "AVX-512"};

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_their_blocks),    cmocka_unit_test(residues),
        cmocka_unit_test(steps_are_their_words),    cmocka_unit_test(leaves),
        cmocka_unit_test(chains_are_by_definition), cmocka_unit_test(products_at_the_edges),
    };
    int failed = 0;
    for (enum probe_vector vector = PROBE_VECTOR_PORTABLE; vector <= probe_vector_best(); vector++) {
        probe_vector_force(vector);
        failed += cmocka_run_group_tests_name(vector_names[vector], tests, NULL, NULL);
    }
    return failed;
}
