#include "probes/tiles.h"

#include "probes/stream.h"
#include "probes/tiles_forms.h"
#include "probes/vector.h"

#include <string.h>

void tile_make(const uint32_t seed[8], uint64_t tile, uint32_t double_rounds, uint32_t ret[PROBE_TILE_WORDS])
{
    struct stream stream = {seed, (uint32_t)tile, (uint32_t)(tile >> 32), PROBE_DOMAIN_FILL, double_rounds};
    stream_make(stream, 0, PROBE_TILE_BLOCKS, ret);
}

void tile_line_make(const uint32_t seed[8], uint64_t tile, uint32_t line, uint32_t double_rounds,
                    uint32_t ret[PROBE_LINE_WORDS])
{
    struct stream stream = {seed, (uint32_t)tile, (uint32_t)(tile >> 32), PROBE_DOMAIN_FILL, double_rounds};
    stream_make(stream, line * (PROBE_LINE_WORDS / 16), PROBE_LINE_WORDS / 16, ret);
}

void pass_key_make(const uint32_t key[8], uint32_t ret[PROBE_PASS_KEY_WORDS])
{
    struct stream stream = {key, 0, 0, PROBE_DOMAIN_PASS_KEY, PROBE_KEY_DOUBLE_ROUNDS};
    uint32_t rest[16];
    stream_make(stream, 0, PROBE_TILE_BLOCKS, ret);
    stream_make(stream, PROBE_TILE_BLOCKS, 1, rest);
    memcpy(ret + PROBE_TILE_WORDS, rest, (PROBE_PASS_KEY_WORDS - PROBE_TILE_WORDS) * sizeof(*ret));
}

static void tile_nh_portable(const uint32_t tile[PROBE_TILE_WORDS], const uint32_t key[PROBE_PASS_KEY_WORDS],
                             uint64_t ret[2])
{
    uint64_t sum0 = 0, sum1 = 0;
    for (uint32_t i = 0; i < PROBE_TILE_WORDS; i += 2) {
        sum0 += probe_nh_pair(tile[i], tile[i + 1], key[i], key[i + 1]);
        sum1 += probe_nh_pair(tile[i], tile[i + 1], key[i + 4], key[i + 5]);
    }
    ret[0] = sum0;
    ret[1] = sum1;
}

void tile_nh(const uint32_t tile[PROBE_TILE_WORDS], const uint32_t key[PROBE_PASS_KEY_WORDS], uint64_t ret[2])
{
    switch (probe_vector_now()) {
#if defined(__x86_64__)
    case PROBE_VECTOR_AVX512:
        tile_nh_avx512(tile, key, ret);
        return;
    case PROBE_VECTOR_AVX2:
        tile_nh_avx2(tile, key, ret);
        return;
#endif
    default:
        tile_nh_portable(tile, key, ret);
    }
}

void walk_key_make(const uint32_t key[8], uint32_t ret[PROBE_WALK_KEY_WORDS])
{
    struct stream stream = {key, 0, 0, PROBE_DOMAIN_WALK_KEY, PROBE_KEY_DOUBLE_ROUNDS};
    stream_make(stream, 0, PROBE_WALK_KEY_WORDS / 16, ret);
}

uint64_t line_nh(const uint32_t line[PROBE_LINE_WORDS], const uint32_t key[PROBE_WALK_KEY_WORDS])
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < PROBE_LINE_WORDS; i += 2)
        sum += probe_nh_pair(line[i], line[i + 1], key[i], key[i + 1]);
    return sum;
}

void walk_leaf(const uint32_t context[8], uint32_t walker, const uint64_t *trace, uint32_t steps, uint32_t ret[8])
{
    uint32_t head[16] = {0};
    struct probe_hash hash;
    memcpy(head, context, PROBE_HASH_BYTES);
    head[8] = walker;
    probe_hash_init(&hash, PROBE_HASH_WALK);
    probe_hash_update(&hash, head, sizeof(head));
    probe_hash_update(&hash, trace, ((size_t)steps + 1) * sizeof(*trace));
    probe_hash_final(&hash, ret);
}
