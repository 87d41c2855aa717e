/* One full example of every frame, for the tests of the protocol. */
#ifndef SLUICE_TESTS_UNIT_PROBE_FRAMES_H
#define SLUICE_TESTS_UNIT_PROBE_FRAMES_H

#include "probes/protocol.h"

#include <string.h>

static inline void frame_bytes(uint8_t *to, size_t len, unsigned from)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(from + i);
}

static inline void frame_words(uint32_t *to, size_t count, uint32_t from)
{
    for (size_t i = 0; i < count; i++)
        to[i] = from + (uint32_t)i * 0x01010101u;
}

static inline void example_hello(struct probe_hello *hello)
{
    frame_bytes(hello->nonce, sizeof(hello->nonce), 1);
    frame_bytes(hello->worker_key, sizeof(hello->worker_key), 2);
    frame_bytes(hello->exchange_key, sizeof(hello->exchange_key), 3);
    frame_bytes(hello->host_id, sizeof(hello->host_id), 4);
    frame_bytes(hello->signature, sizeof(hello->signature), 5);
    hello->gpu_count = 2;
    hello->gpus[0] = (struct probe_claim){.name = "NVIDIA H200",
                                          .driver = "575.57.08",
                                          .uuid = {1, 2, 3},
                                          .pci_vendor = 0x10de,
                                          .pci_device = 0x2335,
                                          .pci_subsystem = 0x18be10de,
                                          .vram_bytes = UINT64_C(150754820096),
                                          .free_bytes = UINT64_C(150000000000),
                                          .l2_bytes = 62914560,
                                          .sms = 132,
                                          .smids_seen = 131,
                                          .bus_bits = 6144,
                                          .clock_sm_mhz = 1980,
                                          .clock_memory_mhz = 3201,
                                          .cc_major = 9,
                                          .cc_minor = 1,
                                          .ecc = true};
    hello->gpus[1] = (struct probe_claim){.name = "cpu", .mig = true};
}

static inline void example_challenge(struct probe_challenge *challenge, enum probe_kind kind)
{
    frame_bytes(challenge->id, sizeof(challenge->id), 0x40);
    challenge->kind = kind;
    challenge->gpu = 3;
    challenge->deadline_ms = 5000;
    switch (kind) {
    case PROBE_KIND_FILL:
        challenge->of.fill.tiles = UINT64_C(0x01020304);
        challenge->of.fill.double_rounds = 46;
        frame_words(challenge->of.fill.seed, 8, 7);
        break;
    case PROBE_KIND_PASS:
        challenge->of.pass.passes = 4;
        frame_words(challenge->of.pass.key, 8, 8);
        break;
    case PROBE_KIND_WALK:
        challenge->of.walk.walkers = 1056;
        challenge->of.walk.steps = 256;
        frame_words(challenge->of.walk.key, 8, 9);
        break;
    case PROBE_KIND_CHAIN:
        challenge->of.chain.n = 8192;
        challenge->of.chain.blocks = 8;
        challenge->of.chain.steps = 50;
        frame_words(challenge->of.chain.seed, 8, 10);
        break;
    }
}

static inline void example_commit(struct probe_commit *commit, enum probe_kind kind, uint32_t roots)
{
    frame_bytes(commit->id, sizeof(commit->id), 0x41);
    commit->kind = kind;
    commit->route = PROBE_ROUTE_CUBLASLT_S8;
    commit->root_count = roots;
    for (uint32_t i = 0; i < roots; i++)
        frame_bytes(commit->roots[i], PROBE_HASH_BYTES, i * 3);
    commit->items = kind == PROBE_KIND_FILL ? 17 : 0;
    commit->self_us = 530000;
    commit->clock_mhz = 1755;
    frame_bytes(commit->signature, sizeof(commit->signature), 6);
}

static inline void example_proof(struct probe_proof *proof)
{
    static const char path[96] = "path";
    frame_bytes(proof->id, sizeof(proof->id), 0x42);
    proof->count = 3;
    proof->items[0] = (struct probe_item){{5, 1}, {"", 0}, {path, 96}};
    proof->items[1] = (struct probe_item){{UINT64_C(0x100000002), 0}, {"row or trace", 12}, {path, 32}};
    proof->items[2] = (struct probe_item){{6, 2}, {"x", 1}, {"", 0}};
}

#define EXAMPLE_FRAMES 23
/* The name of example i and the example. Views are of constants. */
static inline const char *example_frame(unsigned i, struct probe_frame *ret)
{
    static const struct {
        const char *name;
        enum probe_frame_type type;
        unsigned variant;
    } all[EXAMPLE_FRAMES] = {
        {"hello-ask", PROBE_HELLO_ASK, 0},
        {"hello", PROBE_HELLO, 0},
        {"ping", PROBE_PING, 0},
        {"pong", PROBE_PONG, 0},
        {"warm", PROBE_WARM, 0},
        {"ready", PROBE_READY, 250},
        {"release", PROBE_RELEASE, 0},
        {"challenge-fill", PROBE_CHALLENGE, PROBE_KIND_FILL},
        {"challenge-pass", PROBE_CHALLENGE, PROBE_KIND_PASS},
        {"challenge-walk", PROBE_CHALLENGE, PROBE_KIND_WALK},
        {"challenge-chain", PROBE_CHALLENGE, PROBE_KIND_CHAIN},
        {"commit-fill", PROBE_COMMIT, PROBE_KIND_FILL},
        {"commit-pass", PROBE_COMMIT, PROBE_KIND_PASS},
        {"commit-chain", PROBE_COMMIT, PROBE_KIND_CHAIN},
        {"open", PROBE_OPEN, 0},
        {"proof", PROBE_PROOF, 0},
        {"net", PROBE_NET, 0},
        {"net-answer", PROBE_NET_ANSWER, 0},
        {"bind", PROBE_BIND, 0},
        {"bound", PROBE_BOUND, 0},
        {"verdict", PROBE_VERDICT, 0},
        {"ack", PROBE_ACK, 0},
        {"error", PROBE_ERROR, 0},
    };
    static const char sealed[60] = "sealed";
    memset(ret, 0, sizeof(*ret));
    ret->type = all[i].type;
    switch (all[i].type) {
    case PROBE_HELLO_ASK:
        frame_bytes(ret->of.hello_ask.nonce, 32, 9);
        break;
    case PROBE_HELLO:
        example_hello(&ret->of.hello);
        break;
    case PROBE_PING:
    case PROBE_PONG:
        frame_bytes(ret->of.ping.nonce, 16, 0xa0);
        break;
    case PROBE_WARM:
    case PROBE_READY:
    case PROBE_RELEASE:
        ret->of.warm = (struct probe_warm){.gpu = 7, .self_ms = all[i].variant};
        break;
    case PROBE_CHALLENGE:
        example_challenge(&ret->of.challenge, (enum probe_kind)all[i].variant);
        break;
    case PROBE_COMMIT:
        example_commit(&ret->of.commit, (enum probe_kind)all[i].variant,
                       all[i].variant == PROBE_KIND_FILL   ? 0
                       : all[i].variant == PROBE_KIND_PASS ? 4
                                                           : 1);
        break;
    case PROBE_OPEN:
        frame_bytes(ret->of.open.id, 16, 0x43);
        ret->of.open.count = 2;
        ret->of.open.openings[0] = (struct probe_opening){UINT64_C(0x0a0b0c0d0e), 3};
        ret->of.open.openings[1] = (struct probe_opening){1, 0};
        break;
    case PROBE_PROOF:
        example_proof(&ret->of.proof);
        break;
    case PROBE_NET:
        frame_bytes(ret->of.net.id, 16, 0x44);
        ret->of.net.payload = STR("payload");
        break;
    case PROBE_NET_ANSWER:
        frame_bytes(ret->of.net_answer.id, 16, 0x45);
        frame_bytes(ret->of.net_answer.digest, 32, 0x50);
        break;
    case PROBE_BIND:
        frame_bytes(ret->of.bind.id, 16, 0x46);
        ret->of.bind.sealed = (struct str){sealed, sizeof(sealed)};
        break;
    case PROBE_BOUND:
        frame_bytes(ret->of.bound.id, 16, 0x47);
        frame_bytes(ret->of.bound.digest, 32, 0x51);
        break;
    case PROBE_VERDICT:
        ret->of.verdict = (struct probe_verdict_frame){true, STR("pass: fine"), STR("{\"a\":1}\n")};
        break;
    case PROBE_ERROR:
        ret->of.error = (struct probe_error_frame){PROBE_FAILURE_BUSY, STR("a challenge is under way")};
        break;
    case PROBE_ACK:
        break;
    }
    return all[i].name;
}

#endif
