#include "tests/unit/cmocka_all.h"

#include "core/crypto.h"
#include "probes/fingerprint.h"

#include <stdlib.h>
#include <string.h>

static struct fingerprint made;
static int8_t *rows; /* X_L by the book */

static size_t width(void)
{
    return (size_t)made.shape.n * made.shape.blocks;
}

static struct str row_of(uint32_t row)
{
    return (struct str){(const char *)rows + row * width(), width()};
}

static void prepare(struct chain_shape shape)
{
    assert_int_equal(fingerprint_make(shape, &made), ERR_NONE);
    assert_true(chain_shape_equal(made.shape, shape));
    rows = malloc(shape.n * width());
    assert_non_null(rows);
}

static void finish(void)
{
    free(rows);
    fingerprint_free(&made);
    assert_null(made.prints);
    assert_null(made.secret.bytes);
}

static void honest_rows_pass_and_others_do_not(void)
{
    const uint32_t n = made.shape.n;
    for (uint32_t i = 0; i < n; i++) {
        struct str row = row_of(i);
        int8_t *bytes = rows + i * width();
        assert_true(fingerprint_check(&made, i, row));
        size_t at = (i * 2654435761u) % width();
        int8_t before = bytes[at];
        bytes[at] = (int8_t)(before == 125 ? -125 : before + 1);
        assert_false(fingerprint_check(&made, i, row));
        bytes[at] = before;
        assert_true(fingerprint_check(&made, i, row));
    }
}

/* The same value in another form, or none of the field: refused wherever it stands. */
static void only_residues(void)
{
    static const int8_t outside[] = {126, 127, -126, -127, -128};
    const struct str row = row_of(1);
    for (size_t i = 0; i < sizeof(outside); i++) {
        size_t at = (i * 1000003) % width();
        int8_t *element = rows + width() + at, before = *element;
        *element = outside[i];
        assert_false(fingerprint_check(&made, 1, row));
        *element = before;
    }
    size_t at = 0; /* 125 is -126, -125 is 126, -124 is 127 modulo 251 */
    while (at < made.shape.n * width() - 1 && rows[at] != 125 && rows[at] != -125 && rows[at] != -124)
        at++;
    const uint32_t where = (uint32_t)(at / width());
    int8_t before = rows[at];
    rows[at] = (int8_t)(before > 0 ? before - 251 : before + 251);
    assert_false(fingerprint_check(&made, where, row_of(where)));
    rows[at] = before;
    assert_true(fingerprint_check(&made, where, row_of(where)));
}

static void wrong_lengths_and_rows(void)
{
    struct str row = row_of(2);
    assert_false(fingerprint_check(&made, 2, (struct str){row.ptr, row.len - 1}));
    assert_false(fingerprint_check(&made, 2, (struct str){row.ptr, row.len + 1}));
    assert_false(fingerprint_check(&made, 2, (struct str){NULL, 0}));
    assert_false(fingerprint_check(&made, made.shape.n, row));
    assert_false(fingerprint_check(&made, UINT32_MAX, row));
    assert_false(fingerprint_check(&made, 3, row));
    assert_false(fingerprint_check(&made, 1, row));
}

static void by_the_book(struct chain_shape shape)
{
    prepare(shape);
    assert_int_equal(chain_run(made.seed, shape.n, shape.blocks, shape.steps, rows), ERR_NONE);
    honest_rows_pass_and_others_do_not();
    only_residues();
    wrong_lengths_and_rows();
    finish();
}

static void every_form(void **state)
{
    (void)state;
    static const struct chain_shape shapes[] = {{64, 6, 1}, {64, 4, 3}, {128, 8, 5}, {192, 3, 4}, {64, 16, 2}};
    const enum probe_vector best = probe_vector_best();
    for (int form = 0; form <= (int)best; form++) {
        probe_vector_force((enum probe_vector)form);
        for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
            by_the_book(shapes[i]);
    }
    probe_vector_force(best);
}

/* What one form prepared, the others check: the numbers are the same, not only consistent. */
static void forms_agree(void **state)
{
    (void)state;
    const enum probe_vector best = probe_vector_best();
    for (int form = 0; form <= (int)best; form++) {
        probe_vector_force((enum probe_vector)form);
        const struct chain_shape shape = {64, form == 1 ? 1 : 5, 3};
        prepare(shape);
        assert_int_equal(chain_run(made.seed, shape.n, shape.blocks, shape.steps, rows), ERR_NONE);
        for (int other = 0; other <= (int)best; other++) {
            probe_vector_force((enum probe_vector)other);
            for (uint32_t i = 0; i < shape.n; i++)
                assert_true(fingerprint_check(&made, i, row_of(i)));
        }
        finish();
    }
    probe_vector_force(best);
}

/* The largest sums that can be: every element at the end of its range. */
static void extremes_stay_exact(void **state)
{
    (void)state;
    enum { LENGTH = 32768 };
    const enum probe_vector best = probe_vector_best();
    int8_t *high = malloc(LENGTH), *low = malloc(LENGTH);
    struct dot_vectors vectors;
    assert_non_null(high);
    assert_non_null(low);
    memset(high, 125, LENGTH);
    memset(low, -125, LENGTH);
    assert_int_equal(dot_vectors_open(LENGTH, 2, &vectors), ERR_NONE);
    memset(vectors.bytes, 125, LENGTH);
    memset(vectors.bytes + vectors.stride, -125, LENGTH);
    dot_vectors_seal(&vectors);
    for (int form = 0; form <= (int)best; form++) {
        const int8_t *const given[DOT_ROWS] = {high, low, low, high};
        int32_t sums[DOT_ROWS][DOT_VECTORS_MAX];
        probe_vector_force((enum probe_vector)form);
        dot_rows(&vectors, given, sums);
        for (int r = 0; r < DOT_ROWS; r++) {
            assert_int_equal(sums[r][0], given[r] == high ? 512000000 : -512000000);
            assert_int_equal(sums[r][1], -sums[r][0]);
        }
    }
    probe_vector_force(best);
    dot_vectors_free(&vectors);
    free(high);
    free(low);
}

/* -- cheats: a chain of n = 128, B = 8, L = 5 with something left out -- */

enum { N = 128, B = 8, L = 5, WIDE = N * B };
enum cheat { HONEST, BLOCK_SKIPPED, ROW_WRONG, LAST_STEP_SHORT };

static bool is_skipped(enum cheat cheat, uint32_t t, uint32_t row, uint32_t block)
{
    switch (cheat) {
    case BLOCK_SKIPPED:
        return t == 2 && block == 3;
    case LAST_STEP_SHORT:
        return t == L - 1 && row < N / 4;
    default:
        return false;
    }
}

/* A step by the definition; what is skipped stays as it was. */
static void step_with(enum cheat cheat, uint32_t t, const int8_t *a, const int8_t *from, int8_t *to)
{
    uint8_t scale[N], shift[N];
    int32_t sums[WIDE];
    chain_step_make(made.seed, t, N, B, scale, shift);
    for (uint32_t i = 0; i < N; i++) {
        memset(sums, 0, sizeof(sums));
        for (uint32_t k = 0; k < N; k++)
            for (uint32_t c = 0; c < WIDE; c++)
                sums[c] += a[i * N + k] * from[k * WIDE + c];
        for (uint32_t c = 0; c < WIDE; c++) {
            const uint32_t block = c / N, at = (block + shift[i]) % B * N + c % N;
            to[i * WIDE + at] =
                is_skipped(cheat, t, i, block) ? from[i * WIDE + c] : probe_chain_element(sums[c], scale[i]);
        }
        if (cheat == ROW_WRONG && t == 2 && i == 77)
            for (uint32_t c = 0; c < WIDE; c++)
                to[i * WIDE + c] = (int8_t)-to[i * WIDE + c];
    }
}

static unsigned accepted(enum cheat cheat)
{
    static int8_t a[N * N], x[2][N * WIDE];
    unsigned count = 0;
    for (uint32_t i = 0; i < N; i++) {
        chain_row_make(made.seed, PROBE_DOMAIN_CHAIN_A, i, N, a + i * N);
        chain_row_make(made.seed, PROBE_DOMAIN_CHAIN_X, i, WIDE, x[0] + (size_t)i * WIDE);
    }
    for (uint32_t t = 0; t < L; t++)
        step_with(cheat, t, a, x[t % 2], x[(t + 1) % 2]);
    for (uint32_t i = 0; i < N; i++)
        count += fingerprint_check(&made, i, (struct str){(const char *)x[L % 2] + (size_t)i * WIDE, WIDE});
    return count;
}

static void a_wrong_chain_has_no_right_rows(void **state)
{
    (void)state;
    assert_int_equal(fingerprint_make((struct chain_shape){N, B, L}, &made), ERR_NONE);
    assert_int_equal(accepted(HONEST), N);
    assert_int_equal(accepted(BLOCK_SKIPPED), 0);
    assert_int_equal(accepted(ROW_WRONG), 0);
    /* only the last step can be shortened, and then just the rows left out are wrong */
    assert_int_equal(accepted(LAST_STEP_SHORT), N - N / 4);
    fingerprint_free(&made);
}

static void secrets_and_seeds_are_fresh(void **state)
{
    (void)state;
    struct fingerprint a, b;
    const struct chain_shape shape = {64, 2, 1};
    assert_int_equal(fingerprint_make(shape, &a), ERR_NONE);
    assert_int_equal(fingerprint_make(shape, &b), ERR_NONE);
    assert_true(memcmp(a.seed, b.seed, sizeof(a.seed)) != 0);
    assert_true(memcmp(a.secret.bytes, b.secret.bytes, 64) != 0);
    for (uint32_t i = 0; i < 64; i++)
        assert_true(a.secret.bytes[i] >= -125 && a.secret.bytes[i] <= 125);
    fingerprint_free(&a);
    fingerprint_free(&b);
    fingerprint_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form),
        cmocka_unit_test(forms_agree),
        cmocka_unit_test(extremes_stay_exact),
        cmocka_unit_test(a_wrong_chain_has_no_right_rows),
        cmocka_unit_test(secrets_and_seeds_are_fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
