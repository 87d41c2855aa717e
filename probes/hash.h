/* BLAKE2s-256 of any length and Merkle trees, for both ends. Definitions in primitives.h. */
#ifndef SLUICE_PROBES_HASH_H
#define SLUICE_PROBES_HASH_H

#include "core/str.h"
#include "probes/primitives.h"

struct probe_hash {
    uint32_t h[8];
    uint64_t length;
    uint32_t held; /* bytes in block, 1..64 after the first update: the last block must be marked */
    uint8_t block[64];
};
void probe_hash_init(struct probe_hash *hash, uint32_t personal);
void probe_hash_update(struct probe_hash *hash, const void *bytes, size_t len);
void probe_hash_final(struct probe_hash *hash, uint32_t ret[8]);

#define MERKLE_DEPTH_MAX 40
/* Levels of a tree over `leaves` leaves: nodes at level k. */
uint64_t merkle_width(uint64_t leaves, unsigned level);
/* Reduces leaves (8 words each) in place to the root; count >= 1. */
void merkle_root(uint32_t (*leaves)[8], uint64_t count, uint32_t ret[8]);
/* Appends the path of leaf index: siblings from the leaf's level up, 32 bytes each, none where there is no sibling.
 * Hashes all leaves, and needs no memory; merkle_tree_path is for many paths. ERR_BAD_INPUT: no such leaf;
 * ERR_NO_MEMORY: it does not fit into *to, which is left as it was. */
MUST_CHECK enum error merkle_path(const uint32_t (*leaves)[8], uint64_t count, uint64_t index, struct buf *to);

/* A whole tree in memory: the leaves, then each level behind the one below it, the root last. */
uint64_t merkle_tree_nodes(uint64_t leaves);                  /* how many nodes that is */
void merkle_tree_grow(uint32_t (*nodes)[8], uint64_t leaves); /* all above the leaves, which stand at its front */
MUST_CHECK enum error merkle_tree_path(const uint32_t (*nodes)[8], uint64_t leaves, uint64_t index,
                                       struct buf *to); /* as merkle_path */

/* Does the path lead from the leaf to the root, in a tree of that many leaves? Wrong lengths are no. */
bool merkle_check(const uint32_t leaf[8], uint64_t index, uint64_t leaves, struct str path, const uint32_t root[8]);
unsigned merkle_path_length(uint64_t index, uint64_t leaves); /* siblings */

#endif
