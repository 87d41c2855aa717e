/* The arithmetic of the challenges on one core, in each vector form that this CPU has: the best of some rounds. */
#include "core/clock.h"
#include "probes/chain.h"
#include "probes/tiles.h"
#include "probes/vector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 7, N = 256, BLOCKS = 4, ROW_COLUMNS = 65536 };

static const uint32_t seed[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static uint32_t tile[PROBE_TILE_WORDS], key[PROBE_PASS_KEY_WORDS], line[PROBE_LINE_WORDS];
static int8_t row[ROW_COLUMNS], rows[N * N * BLOCKS];
static uint64_t nh[2];
static uint32_t digest[8];

static void make_tile(uint32_t i)
{
    tile_make(seed, i, 64, tile);
}
static void make_line(uint32_t i)
{
    tile_line_make(seed, i, i % PROBE_TILE_LINES, 64, line);
}
static void hash_tile(uint32_t i)
{
    tile[0] = i;
    tile_nh(tile, key, nh);
}
static void check_tile(uint32_t i) /* all that the verifier does for one tile but for the path */
{
    tile_make(seed, i, 64, tile);
    tile_nh(tile, key, nh);
    probe_tile_leaf(seed, i, nh[0], nh[1], digest);
}
static void make_key(uint32_t i)
{
    uint32_t from[8] = {i};
    pass_key_make(from, key);
}
static void make_row(uint32_t i)
{
    chain_row_make(seed, PROBE_DOMAIN_CHAIN_A, i, ROW_COLUMNS, row);
}
static void hash_row(uint32_t i)
{
    chain_leaf(seed, i, row, ROW_COLUMNS, digest);
}
static void hash_node(uint32_t i)
{
    digest[0] = i;
    probe_node(digest, digest, digest);
}
static void no_steps(uint32_t i)
{
    uint32_t from[8] = {i};
    if (chain_run(from, N, BLOCKS, 0, rows) != ERR_NONE)
        abort();
}
static void eight_steps(uint32_t i)
{
    uint32_t from[8] = {i};
    if (chain_run(from, N, BLOCKS, 8, rows) != ERR_NONE)
        abort();
}

static double best_ns(void (*work)(uint32_t), uint32_t times)
{
    int64_t best = INT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start_ns = clock_mono_ns();
        for (uint32_t i = 0; i < times; i++)
            work(i);
        int64_t took_ns = clock_mono_ns() - start_ns;
        best = took_ns < best ? took_ns : best;
    }
    return (double)best / times;
}

int main(void)
{
    static const char *const names[] = {"portable", "AVX2", "AVX-512"};
    for (enum probe_vector vector = PROBE_VECTOR_PORTABLE; vector <= probe_vector_best(); vector++) {
        probe_vector_force(vector);
        printf("%s\n", names[vector]);
        double ns = best_ns(make_tile, 100);
        printf("  tile of 64 double rounds     %9.2f us   %7.2f GB/s\n", ns / 1e3, PROBE_TILE_BYTES / ns);
        ns = best_ns(hash_tile, 1000);
        printf("  NH of a tile                 %9.2f us   %7.2f GB/s\n", ns / 1e3, PROBE_TILE_BYTES / ns);
        printf("  tile made and hashed, leaf   %9.2f us\n", best_ns(check_tile, 100) / 1e3);
        printf("  line of 64 double rounds     %9.2f us\n", best_ns(make_line, 1000) / 1e3);
        printf("  key of a pass                %9.2f us\n", best_ns(make_key, 100) / 1e3);
        ns = best_ns(make_row, 100);
        printf("  row of A                     %9.2f us   %7.2f GB/s\n", ns / 1e3, ROW_COLUMNS / ns);
        ns = best_ns(hash_row, 20);
        printf("  leaf of a row of 64 KiB      %9.2f us   %7.2f GB/s\n", ns / 1e3, ROW_COLUMNS / ns);
        printf("  node of a tree               %9.2f us\n", best_ns(hash_node, 10000) / 1e3);
        double none_ns = best_ns(no_steps, 2);
        ns = (best_ns(eight_steps, 1) - none_ns) / 8;
        printf("  chain's step, n = %d, B = %d  %9.3f ms   %7.3f TOPS\n", N, BLOCKS, ns / 1e6,
               2.0 * N * N * N * BLOCKS / ns / 1e3);
        printf("  chain's A and X_0            %9.3f ms\n", none_ns / 1e6);
    }
    return 0;
}
