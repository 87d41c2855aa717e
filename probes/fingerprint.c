/* Notation as in fingerprint.h. "Rotated by o": block b of the rotated vector is block (b + o) % B of r. With the
 * products G[b][c] of block b of a row with block c of r, the row's fingerprint o is the sum of G[b][(b + o) % B]: the
 * same small product of B rows with B vectors serves X_0, and rows that come back. */
#include "probes/fingerprint.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "probes/dot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

bool chain_shape_equal(struct chain_shape a, struct chain_shape b)
{
    return a.n == b.n && a.blocks == b.blocks && a.steps == b.steps;
}

static size_t columns(struct chain_shape shape)
{
    return (size_t)shape.blocks * shape.n;
}

static uint8_t print_of_residue(int32_t residue) /* in -125 .. 125 */
{
    return (uint8_t)(residue < 0 ? residue + PROBE_FIELD : residue);
}

/* Uniform in the field: of a random byte, 251 and above are drawn again. */
static void random_residues(int8_t *ret, size_t count)
{
    uint8_t bytes[1024];
    for (size_t i = 0; i < count;) {
        crypto_random(bytes, sizeof(bytes));
        for (size_t j = 0; j < sizeof(bytes) && i < count; j++)
            if (bytes[j] < PROBE_FIELD)
                ret[i++] = probe_residue_of_byte(bytes[j]);
    }
    crypto_wipe(bytes, sizeof(bytes));
}

static enum error random_vectors(struct chain_shape shape, struct dot_vectors *ret)
{
    enum error error = dot_vectors_open(shape.n, shape.blocks, ret);
    if (error)
        return error;
    for (uint32_t b = 0; b < shape.blocks; b++)
        random_residues(ret->bytes + b * ret->stride, shape.n);
    dot_vectors_seal(ret);
    return ERR_NONE;
}

/* The B fingerprints, as residues, of a row of B blocks under the blocks of r. */
static void row_prints(const struct dot_vectors *secret, const int8_t *row, int8_t ret[DOT_VECTORS_MAX])
{
    const uint32_t blocks = secret->count, n = secret->length;
    int32_t products[DOT_ROWS][DOT_VECTORS_MAX];
    int64_t sums[DOT_VECTORS_MAX] = {0};
    for (uint32_t b = 0; b < blocks; b += DOT_ROWS) {
        const int8_t *rows[DOT_ROWS];
        const uint32_t count = blocks - b < DOT_ROWS ? blocks - b : DOT_ROWS;
        for (uint32_t i = 0; i < DOT_ROWS; i++)
            rows[i] = row + (size_t)(b + (i < count ? i : 0)) * n;
        dot_rows(secret, rows, products);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t o = 0; o < blocks; o++)
                sums[o] += products[i][(b + i + o) % blocks];
    }
    for (uint32_t o = 0; o < blocks; o++)
        ret[o] = (int8_t)probe_residue((int32_t)(sums[o] % PROBE_FIELD));
}

/* F_0, a row of X_0 at a time. */
static enum error first_prints(const struct fingerprint *fingerprint, struct dot_vectors *ret)
{
    const struct chain_shape shape = fingerprint->shape;
    int8_t prints[DOT_VECTORS_MAX];
    int8_t *row = malloc(columns(shape));
    if (!row)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < shape.n; i++) {
        chain_row_make(fingerprint->seed, PROBE_DOMAIN_CHAIN_X, i, (uint32_t)columns(shape), row);
        row_prints(&fingerprint->secret, row, prints);
        for (uint32_t o = 0; o < shape.blocks; o++)
            ret->bytes[o * ret->stride + i] = prints[o];
    }
    free(row);
    return ERR_NONE;
}

struct matrix { /* A, mapped apart so that its pages go back to the system at once */
    int8_t *bytes;
    size_t stride, size;
};

static enum error matrix_make(const uint32_t seed[8], uint32_t n, struct matrix *ret)
{
    struct matrix a = {.stride = (size_t)n + DOT_GAP};
    a.size = a.stride * n;
    void *at = mmap(NULL, a.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return ERR_NO_MEMORY;
    (void)madvise(at, a.size, MADV_HUGEPAGE); /* faster where it is granted */
    a.bytes = at;
    for (uint32_t i = 0; i < n; i++)
        chain_row_make(seed, PROBE_DOMAIN_CHAIN_A, i, n, a.bytes + i * a.stride);
    *ret = a;
    return ERR_NONE;
}

static void one_step(const struct matrix *a, struct chain_shape shape, const struct dot_vectors *from,
                     const uint8_t *scale, const uint8_t *shift, struct dot_vectors *to)
{
    int32_t products[DOT_ROWS][DOT_VECTORS_MAX];
    for (uint32_t i = 0; i < shape.n; i += DOT_ROWS) { /* n is a multiple of 64 */
        const int8_t *rows[DOT_ROWS];
        for (uint32_t r = 0; r < DOT_ROWS; r++)
            rows[r] = a->bytes + (i + r) * a->stride;
        dot_rows(from, rows, products);
        for (uint32_t r = 0; r < DOT_ROWS; r++)
            for (uint32_t o = 0; o < shape.blocks; o++)
                to->bytes[o * to->stride + i + r] =
                    probe_chain_element(products[r][(o + shift[i + r]) % shape.blocks], scale[i + r]);
    }
    dot_vectors_seal(to);
}

static enum error all_steps(const struct fingerprint *fingerprint, struct dot_vectors prints[2], unsigned *ret_last)
{
    const struct chain_shape shape = fingerprint->shape;
    struct matrix a;
    uint8_t *per_row = malloc((size_t)shape.n * 2);
    if (!per_row)
        return ERR_NO_MEMORY;
    enum error error = matrix_make(fingerprint->seed, shape.n, &a);
    if (error)
        goto out;
    dot_vectors_seal(&prints[0]);
    for (uint32_t t = 0; t < shape.steps; t++) {
        chain_step_make(fingerprint->seed, t, shape.n, shape.blocks, per_row, per_row + shape.n);
        one_step(&a, shape, &prints[t % 2], per_row, per_row + shape.n, &prints[(t + 1) % 2]);
    }
    *ret_last = shape.steps % 2;
    munmap(a.bytes, a.size);
out:
    free(per_row);
    return error;
}

enum error fingerprint_make(struct chain_shape shape, struct fingerprint *ret)
{
    assert(shape.n > 0 && shape.n % 64 == 0 && shape.n <= 32768 && shape.blocks > 0 &&
           shape.blocks <= DOT_VECTORS_MAX && shape.steps > 0);
    struct fingerprint made = {.shape = shape, .made_ns = clock_mono_ns()};
    struct dot_vectors prints[2] = {{.bytes = NULL}, {.bytes = NULL}};
    unsigned last = 0;
    enum error error = ERR_NO_MEMORY;
    made.prints = malloc(columns(shape));
    if (!made.prints)
        goto out;
    crypto_random(made.seed, sizeof(made.seed));
    error = random_vectors(shape, &made.secret);
    if (!error)
        error = dot_vectors_open(shape.n, shape.blocks, &prints[0]);
    if (!error)
        error = dot_vectors_open(shape.n, shape.blocks, &prints[1]);
    if (!error)
        error = first_prints(&made, &prints[0]);
    if (!error)
        error = all_steps(&made, prints, &last);
    if (error)
        goto out;
    for (uint32_t i = 0; i < shape.n; i++)
        for (uint32_t o = 0; o < shape.blocks; o++)
            made.prints[(size_t)i * shape.blocks + o] =
                print_of_residue(prints[last].bytes[o * prints[last].stride + i]);
out:
    dot_vectors_free(&prints[0]);
    dot_vectors_free(&prints[1]);
    if (error)
        fingerprint_free(&made);
    else
        *ret = made;
    return error;
}

void fingerprint_free(struct fingerprint *fingerprint)
{
    if (!fingerprint)
        return;
    dot_vectors_free(&fingerprint->secret);
    free(fingerprint->prints);
    *fingerprint = (struct fingerprint){.prints = NULL};
}

static bool in_range(const int8_t *bytes, size_t count) /* a multiple of 64 */
{
    uint8_t wrong = 0;
    for (size_t i = 0; i < count; i += 64)
        for (size_t j = 0; j < 64; j++)
            wrong |= (uint8_t)((uint8_t)(bytes[i + j] + PROBE_FIELD_HALF) > 2 * PROBE_FIELD_HALF);
    return wrong == 0;
}

/* Asks nothing of the heap: a gateway short of memory must not call an honest worker wrong. */
bool fingerprint_check(const struct fingerprint *fingerprint, uint32_t row, struct str bytes)
{
    const struct chain_shape shape = fingerprint->shape;
    int8_t residues[DOT_VECTORS_MAX];
    const int8_t *elements = (const int8_t *)bytes.ptr;
    if (row >= shape.n || bytes.len != columns(shape) || !in_range(elements, bytes.len))
        return false;
    row_prints(&fingerprint->secret, elements, residues);
    bool same = true;
    for (uint32_t o = 0; o < shape.blocks; o++)
        same &= print_of_residue(residues[o]) == fingerprint->prints[(size_t)row * shape.blocks + o];
    return same;
}
