#!/usr/bin/env python3
"""Writes probe.json: answers to challenges, computed from the definitions in probes/primitives.h a second time.

Plain Python and its own BLAKE2s, nothing of Sluice's C code, so that a mistake there does not repeat itself here.
Usage: python3 tests/vectors/make.py > tests/vectors/probe.json  (some seconds)
"""
import hashlib
import json
import struct

M32, M64 = 2**32 - 1, 2**64 - 1
FILL, PASS_KEY, WALK_KEY, WALK_START, CHAIN_A, CHAIN_X, CHAIN_STEP, NET = range(1, 9)


def rotl(x, n):
    return (x << n | x >> (32 - n)) & M32


def chacha(seed, w12, w13, w14, domain, double_rounds):
    """16 words; seed: 8 words. RFC 8439 with a free number of double rounds."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *seed, w12, w13, w14, domain << 24 | double_rounds]
    x = list(start)

    def quarter(a, b, c, d):
        x[a] = (x[a] + x[b]) & M32
        x[d] = rotl(x[d] ^ x[a], 16)
        x[c] = (x[c] + x[d]) & M32
        x[b] = rotl(x[b] ^ x[c], 12)
        x[a] = (x[a] + x[b]) & M32
        x[d] = rotl(x[d] ^ x[a], 8)
        x[c] = (x[c] + x[d]) & M32
        x[b] = rotl(x[b] ^ x[c], 7)

    for _ in range(double_rounds):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & M32 for a, b in zip(x, start)]


def to_bytes(words):
    return struct.pack(f"<{len(words)}I", *words)


def to_words(data):
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def blake(kind, data):
    return hashlib.blake2s(data, person=kind + b"slc2").digest()


def context(challenge, worker_key, index):
    return blake(b"ctx1", to_bytes([*challenge, *worker_key, index, 0, 0, 0]))


def levels_of(leaves):
    levels = [leaves]
    while len(levels[-1]) > 1:
        level = levels[-1]
        levels.append([blake(b"nde1", level[i] + level[i + 1]) if i + 1 < len(level) else level[i]
                       for i in range(0, len(level), 2)])
    return levels


def path_of(levels, index):
    path = b""
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            path += level[index ^ 1]
        index //= 2
    return path


def nh(words, key):
    return sum(((words[i] + key[i]) & M32) * ((words[i + 1] + key[i + 1]) & M32)
               for i in range(0, len(words), 2)) & M64


def words_from(text, count):
    """Seeds, keys and the like: anything will do, as long as no two are alike."""
    return to_words(hashlib.sha256(text.encode()).digest())[:count]


def hex_words(words):
    return to_bytes(words).hex()


def make_memory(name, tiles, double_rounds, passes, walkers, steps):
    seed = words_from(name + " seed", 8)
    memory = [[w for block in range(128) for w in chacha(seed, block, tile, 0, FILL, double_rounds)]
              for tile in range(tiles)]
    worker_key = words_from("worker", 8)
    challenge, first_key = words_from(name + " pass", 4), words_from(name + " key", 8)
    key, roots, openings = first_key, [], []
    for index in range(passes):
        stream = [w for block in range(129) for w in chacha(key, block, 0, 0, PASS_KEY, 10)]
        bind = context(challenge, worker_key, index)
        leaves = [blake(b"til1", bind + struct.pack("<QQQQ", i, nh(t, stream), nh(t, stream[4:]), 0))
                  for i, t in enumerate(memory)]
        levels = levels_of(leaves)
        roots.append(levels[-1][0])
        for tile in sorted({0, tiles - 1, (index * 7 + 3) % tiles}):
            openings.append({"pass": index, "tile": tile, "leaf": leaves[tile].hex(),
                             "path": path_of(levels, tile).hex()})
        key = to_words(blake(b"key1", to_bytes(key) + roots[-1]))
    of_pass = {"challenge": hex_words(challenge), "worker_key": hex_words(worker_key), "key": hex_words(first_key),
               "passes": passes, "roots": [root.hex() for root in roots], "openings": openings}

    challenge, key = words_from(name + " walk", 4), words_from(name + " walk key", 8)
    stream = chacha(key, 0, 0, 0, WALK_KEY, 10) + chacha(key, 1, 0, 0, WALK_KEY, 10)
    bind, leaves, traces = context(challenge, worker_key, 0), [], []
    for walker in range(walkers):
        block = chacha(key, walker, 0, 0, WALK_START, 10)
        x = block[1] << 32 | block[0]
        trace = [x]
        for _ in range(steps):
            line = x % 64 * 32
            x = (x + nh(memory[x * tiles >> 64][line:line + 32], stream)) & M64
            x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & M64
            x = (x ^ x >> 27) * 0x94D049BB133111EB & M64
            x ^= x >> 31
            trace.append(x)
        traces.append(struct.pack(f"<{steps + 1}Q", *trace))
        leaves.append(blake(b"wlk1", bind + to_bytes([walker, 0, 0, 0, 0, 0, 0, 0]) + traces[-1]))
    levels = levels_of(leaves)
    of_walk = {"challenge": hex_words(challenge), "worker_key": hex_words(worker_key), "key": hex_words(key),
               "walkers": walkers, "steps": steps, "root": levels[-1][0].hex(),
               "openings": [{"walker": w, "trace": traces[w].hex(), "path": path_of(levels, w).hex()}
                            for w in sorted({0, walkers - 1, walkers // 2})]}
    return {"name": name, "seed": hex_words(seed), "tiles": tiles, "double_rounds": double_rounds,
            "tile_sha256": [hashlib.sha256(to_bytes(memory[t])).hexdigest() for t in (0, tiles - 1)],
            "pass": of_pass, "walk": of_walk}


def residues(seed, domain, row, columns):
    """In 0 .. 250; a byte b stands for the residue b - 125, bytes from 251 on for what is 251 less."""
    data = b"".join(to_bytes(chacha(seed, block, row, 0, domain, 4)) for block in range(columns // 64))
    return [(byte % 251 - 125) % 251 for byte in data]


def make_chain(name, n, blocks, steps):
    seed, columns = words_from(name + " seed", 8), n * blocks
    matrix = [residues(seed, CHAIN_A, i, n) for i in range(n)]
    x = [residues(seed, CHAIN_X, i, columns) for i in range(n)]
    for step in range(steps):
        # A row of X is one large number with 32 bits for each column: n * 250^2 does not overflow them.
        packed = [int.from_bytes(to_bytes(row), "little") for row in x]
        x = []
        for i in range(n):
            word = chacha(seed, i // 16, step, 0, CHAIN_STEP, 4)[i % 16]
            scale, shift = 1 + (word & 0xFFFF) % 250, (word >> 16) % blocks
            row = to_words(sum(a * p for a, p in zip(matrix[i], packed)).to_bytes(columns * 4, "little"))
            row = [value * scale % 251 for value in row]
            x.append(row[columns - shift * n:] + row[:columns - shift * n])  # block b goes to b + shift
    rows = [bytes((value if value <= 125 else value - 251) & 0xFF for value in row) for row in x]
    challenge, worker_key = words_from(name, 4), words_from("worker", 8)
    bind, leaves = context(challenge, worker_key, 0), []
    for i, row in enumerate(rows):
        chunks = [row[at:at + 1024] for at in range(0, columns, 1024)]
        digests = [blake(b"chk1", bind + to_bytes([i, k, 0, 0, 0, 0, 0, 0]) + c) for k, c in enumerate(chunks)]
        leaves.append(blake(b"row1", bind + to_bytes([i, len(chunks), 0, 0, 0, 0, 0, 0]) + b"".join(digests)))
    levels = levels_of(leaves)
    return {"name": name, "challenge": hex_words(challenge), "worker_key": hex_words(worker_key),
            "seed": hex_words(seed), "n": n, "blocks": blocks, "steps": steps, "root": levels[-1][0].hex(),
            "openings": [{"row": i, "head": rows[i][:32].hex(), "sha256": hashlib.sha256(rows[i]).hexdigest(),
                          "leaf": leaves[i].hex(), "path": path_of(levels, i).hex()} for i in sorted({0, n // 3, n - 1})]}


def main():
    vectors = {
        "memory": [
            make_memory("one tile", 1, 64, 2, 1, 1),
            make_memory("two tiles", 2, 1, 1, 2, 3),
            make_memory("thirteen tiles", 13, 3, 3, 33, 9),
            make_memory("a hundred and one tiles", 101, 2, 2, 64, 32),
            make_memory("two hundred and fifty-seven tiles", 257, 1, 4, 257, 17),
        ],
        "chain": [
            make_chain("no steps", 64, 2, 0),
            make_chain("one block", 64, 1, 2),
            make_chain("an odd count of blocks", 64, 3, 5),
            make_chain("a full chunk a row", 64, 16, 3),
            make_chain("a short last chunk", 192, 7, 2),
            make_chain("as admission of a machine without a GPU", 256, 4, 6),
        ],
    }
    print(json.dumps(vectors, indent=1))


main()
