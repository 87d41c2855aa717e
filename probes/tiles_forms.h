/* The vector forms of tile_nh: inside tiles.c. */
#ifndef SLUICE_PROBES_TILES_FORMS_H
#define SLUICE_PROBES_TILES_FORMS_H

#include "probes/tiles.h"

#if defined(__x86_64__)
void tile_nh_avx2(const uint32_t tile[PROBE_TILE_WORDS], const uint32_t key[PROBE_PASS_KEY_WORDS], uint64_t ret[2]);
void tile_nh_avx512(const uint32_t tile[PROBE_TILE_WORDS], const uint32_t key[PROBE_PASS_KEY_WORDS], uint64_t ret[2]);
#endif

#endif
