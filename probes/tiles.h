/* FILL, PASS and WALK on a CPU: recomputing what a device holds, for the verifier (parts) and the CPU backend (all).
 *
 * Vector forms are chosen at run time (AVX-512, AVX2, portable) and give the same bits. */
#ifndef SLUICE_PROBES_TILES_H
#define SLUICE_PROBES_TILES_H

#include "probes/hash.h"

void tile_make(const uint32_t seed[8], uint64_t tile, uint32_t double_rounds, uint32_t ret[PROBE_TILE_WORDS]);
/* One line (128 bytes) of a tile, without the rest. */
void tile_line_make(const uint32_t seed[8], uint64_t tile, uint32_t line, uint32_t double_rounds,
                    uint32_t ret[PROBE_LINE_WORDS]);
void pass_key_make(const uint32_t key[8], uint32_t ret[PROBE_PASS_KEY_WORDS]);
void tile_nh(const uint32_t tile[PROBE_TILE_WORDS], const uint32_t key[PROBE_PASS_KEY_WORDS], uint64_t ret[2]);
void walk_key_make(const uint32_t key[8], uint32_t ret[PROBE_WALK_KEY_WORDS]);
uint64_t line_nh(const uint32_t line[PROBE_LINE_WORDS], const uint32_t key[PROBE_WALK_KEY_WORDS]);
void walk_leaf(const uint32_t context[8], uint32_t walker, const uint64_t *trace, uint32_t steps, uint32_t ret[8]);

#endif
