/* What was opened must be what was asked for, bit for bit. Indices are drawn after the commitment; the first wrong item
 * ends the check, so that garbage costs little. */
#include "core/crypto.h"
#include "probes/tiles.h"
#include "probes/verify_priv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define WALKERS_OPENED 32u
#define ROWS_OPENED 4u

/* -- drawing -- */

static uint64_t random_below(uint64_t n)
{
    uint64_t x;
    crypto_random(&x, sizeof(x));
    return (uint64_t)(((unsigned __int128)x * n) >> 64); /* the bias is n / 2^64 */
}

static bool is_drawn(const struct probe_open *open, struct probe_opening opening, bool with_part)
{
    for (uint32_t i = 0; i < open->count; i++)
        if (open->openings[i].index == opening.index && (!with_part || open->openings[i].part == opening.part))
            return true;
    return false;
}

/* Different ones: index below `indices`, part below `parts`. */
static void draw(struct verify_session *session, uint32_t count, uint64_t indices, uint32_t parts, bool is_pair)
{
    struct probe_open *open = &session->open;
    const uint64_t all = is_pair ? indices * parts : indices;
    open->count = 0;
    assert(count <= PROBE_OPENINGS_MAX);
    while (open->count < count && open->count < all) {
        const struct probe_opening opening = {random_below(indices), (uint32_t)random_below(parts)};
        if (!is_drawn(open, opening, is_pair))
            open->openings[open->count++] = opening;
    }
}

void verify_draw_tiles(struct verify_session *session, uint32_t count, uint32_t passes)
{
    draw(session, count, session->fill.tiles, passes, true);
}

void verify_draw_walkers(struct verify_session *session)
{
    draw(session, WALKERS_OPENED, session->walk.walkers, session->walk.steps, false);
}

/* Fewer of very long rows: they must fit into one frame. */
void verify_draw_rows(struct verify_session *session)
{
    const size_t row = (size_t)session->shape.n * session->shape.blocks + MERKLE_DEPTH_MAX * PROBE_HASH_BYTES + 64;
    const size_t fit = (PROBE_FRAME_MAX - 64) / row;
    draw(session, fit < ROWS_OPENED ? (uint32_t)fit : ROWS_OPENED, session->shape.n, 1, false);
}

bool verify_is_same_opening(const struct verify_session *session, const struct probe_proof *proof)
{
    const struct probe_open *open = &session->open;
    if (proof->count != open->count || memcmp(proof->id, open->id, sizeof(open->id)) != 0)
        return false;
    for (uint32_t i = 0; i < open->count; i++)
        if (proof->items[i].opening.index != open->openings[i].index ||
            proof->items[i].opening.part != open->openings[i].part)
            return false;
    return true;
}

/* -- PASS -- */

static bool is_right_tile(const struct verify_session *session, const struct probe_item *item,
                          const uint32_t context[8], const uint32_t key[PROBE_PASS_KEY_WORDS])
{
    uint32_t tile[PROBE_TILE_WORDS], leaf[8];
    uint64_t nh[2];
    const uint64_t index = item->opening.index;
    if (item->data.len != 0 ||
        item->path.len != (size_t)merkle_path_length(index, session->fill.tiles) * PROBE_HASH_BYTES)
        return false;
    tile_make(session->fill.seed, index, session->fill.double_rounds, tile);
    tile_nh(tile, key, nh);
    probe_tile_leaf(context, index, nh[0], nh[1], leaf);
    return merkle_check(leaf, index, session->fill.tiles, item->path, session->pass_roots[item->opening.part]);
}

enum verify_check verify_pass_proof(struct verify_session *session, const struct probe_proof *proof)
{
    uint32_t context[8], key[PROBE_PASS_KEY_WORDS];
    for (uint32_t pass = 0; pass < session->pass.passes; pass++) {
        bool is_made = false;
        for (uint32_t i = 0; i < proof->count; i++) {
            const struct probe_item *item = &proof->items[i];
            if (item->opening.part != pass)
                continue;
            if (!is_made) {
                pass_key_make(session->pass_keys[pass], key);
                probe_context(session->pass.challenge, session->worker_words, pass, context);
                is_made = true;
            }
            if (!is_right_tile(session, item, context, key))
                return verify_fail(session, VERIFY_WRONG, "tile %" PRIu64 " of pass %" PRIu32 " is not what was filled",
                                   item->opening.index, pass);
        }
    }
    return VERIFY_CHECK_NEXT;
}

/* -- NET, up: whole tiles -- */

enum verify_check verify_tiles_read(struct verify_session *session, const struct probe_proof *proof, uint32_t samples)
{
    uint32_t tile[PROBE_TILE_WORDS];
    uint8_t bytes[PROBE_TILE_BYTES];
    for (uint32_t i = 0; i < proof->count; i++)
        if (proof->items[i].data.len != PROBE_TILE_BYTES || proof->items[i].path.len != 0)
            return verify_fail(session, VERIFY_WRONG, "tile %" PRIu64 " has a wrong length",
                               proof->items[i].opening.index);
    for (uint32_t i = 0; i < samples; i++) {
        const struct probe_item *item = &proof->items[random_below(proof->count)];
        tile_make(session->fill.seed, item->opening.index, session->fill.double_rounds, tile);
        probe_bytes_of_words(tile, PROBE_TILE_WORDS, bytes);
        if (memcmp(bytes, item->data.ptr, sizeof(bytes)) != 0)
            return verify_fail(session, VERIFY_WRONG, "tile %" PRIu64 " is not what was filled", item->opening.index);
    }
    return VERIFY_CHECK_NEXT;
}

/* -- WALK -- */

static uint64_t word64(const char *bytes)
{
    uint32_t words[2];
    probe_words_of_bytes((const uint8_t *)bytes, 2, words);
    return (uint64_t)words[1] << 32 | words[0];
}

static bool is_right_walk(const struct verify_session *session, const struct probe_item *item,
                          const uint32_t context[8], const uint32_t key[PROBE_WALK_KEY_WORDS])
{
    uint64_t trace[PROBE_STEPS_MAX + 1];
    uint32_t line[PROBE_LINE_WORDS], leaf[8];
    const uint32_t steps = session->walk.steps, walker = (uint32_t)item->opening.index, step = item->opening.part;
    if (item->data.len != ((size_t)steps + 1) * 8 ||
        item->path.len != (size_t)merkle_path_length(walker, session->walk.walkers) * PROBE_HASH_BYTES)
        return false;
    for (uint32_t i = 0; i <= steps; i++)
        trace[i] = word64(item->data.ptr + (size_t)i * 8);
    if (trace[0] != probe_walk_start(session->walk.key, walker))
        return false;
    const uint64_t x = trace[step];
    tile_line_make(session->fill.seed, probe_walk_tile(x, session->fill.tiles), probe_walk_line(x),
                   session->fill.double_rounds, line);
    if (trace[step + 1] != probe_walk_next(x, line_nh(line, key)))
        return false;
    walk_leaf(context, walker, trace, steps, leaf);
    return merkle_check(leaf, walker, session->walk.walkers, item->path, session->walk_root);
}

enum verify_check verify_walk_proof(struct verify_session *session, const struct probe_proof *proof)
{
    uint32_t context[8], key[PROBE_WALK_KEY_WORDS];
    probe_context(session->walk.challenge, session->worker_words, 0, context);
    walk_key_make(session->walk.key, key);
    for (uint32_t i = 0; i < proof->count; i++) {
        const struct probe_item *item = &proof->items[i];
        if (!is_right_walk(session, item, context, key))
            return verify_fail(session, VERIFY_WRONG, "walker %" PRIu64 " did not go that way at step %" PRIu32,
                               item->opening.index, item->opening.part);
    }
    return VERIFY_CHECK_NEXT;
}

/* -- CHAIN -- */

static bool is_right_row(const struct verify_session *session, const struct probe_item *item, const uint32_t context[8])
{
    const uint32_t n = session->shape.n, row = (uint32_t)item->opening.index;
    uint32_t leaf[8];
    if (item->data.len != (size_t)n * session->shape.blocks ||
        item->path.len != (size_t)merkle_path_length(row, n) * PROBE_HASH_BYTES ||
        !fingerprint_check(&session->print, row, item->data))
        return false;
    chain_leaf(context, row, (const int8_t *)item->data.ptr, n * session->shape.blocks, leaf);
    return merkle_check(leaf, row, n, item->path, session->chain_root);
}

enum verify_check verify_chain_proof(struct verify_session *session, const struct probe_proof *proof)
{
    uint32_t context[8], challenge[4];
    probe_words_of_bytes(session->now.id, 4, challenge);
    probe_context(challenge, session->worker_words, 0, context);
    for (uint32_t i = 0; i < proof->count; i++)
        if (!is_right_row(session, &proof->items[i], context))
            return verify_fail(session, VERIFY_WRONG, "row %" PRIu64 " is not what was asked for",
                               proof->items[i].opening.index);
    return VERIFY_CHECK_NEXT;
}
