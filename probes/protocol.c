/* The layout of every frame. All numbers are little-endian; "0" is reserved and must be zero.
 *
 * Head, 8 bytes: 'S', 'L', u8 version (1), u8 type, u32 length of the payload. A frame is at most PROBE_FRAME_MAX
 * bytes.
 *
 *   HELLO_ASK    nonce[32]
 *   HELLO        nonce[32], worker_key[32], exchange_key[32], host_id[32], u32 count (1..16), u32 0,
 *                count x {name[64], driver[32], uuid[16], u16 pci_vendor, u16 pci_device, u32 pci_subsystem,
 *                u64 vram_bytes, u64 free_bytes, u64 l2_bytes, u32 sms, u32 smids_seen, u32 bus_bits,
 *                u32 clock_sm_mhz, u32 clock_memory_mhz, u8 cc_major, u8 cc_minor, u8 flags (1 ECC, 2 MIG), u8 0},
 *                signature[64]
 *   PING, PONG   nonce[16]
 *   WARM         u32 gpu, u32 0           READY: u32 gpu, u32 self_ms           RELEASE: u32 gpu, u32 0
 *   CHALLENGE    id[16], u32 kind, u32 gpu, u32 deadline_ms, u32 0, and by kind
 *                FILL: seed[32], u64 tiles, u32 double_rounds, u32 0        PASS: key[32], u32 passes, u32 0
 *                WALK: key[32], u32 walkers, u32 steps                      CHAIN: seed[32], u32 n, u32 blocks,
 *                                                                           u32 steps, u32 0
 *   COMMIT       id[16], u32 kind, u32 route, u32 root_count, u32 0, u64 items (0 but for FILL), u32 self_us,
 *                u32 clock_mhz, root_count x root[32], signature[64]
 *   OPEN         id[16], u32 count (1..128), u32 0, count x {u64 index, u32 part, u32 0}
 *   PROOF        id[16], u32 count (1..128), u32 0, count x {u64 index, u32 part, u32 0, u32 data length,
 *                u32 path length (a multiple of 32), data, path}
 *   NET          id[16], payload (1 byte or more)                             NET_ANSWER: id[16], digest[32]
 *   BIND         id[16], sealed (more than SEAL_OVERHEAD bytes)               BOUND: id[16], digest[32]
 *   VERDICT      u32 passed (0 or 1), u32 reason length, u32 receipt length, u32 0, reason, receipt
 *   ACK          nothing
 *   ERROR        u32 code, u32 text length, text
 *
 * name and driver are filled up with zeros and end in one at least; they, reason and text are printable ASCII, a
 * receipt holds tabs and line feeds too. One set of functions reads and writes, so that both directions cannot differ.
 */
#include "probes/protocol.h"
#include "probes/hash.h"
#include "probes/identity.h"

#include <assert.h>
#include <string.h>

_Static_assert((uint64_t)PROBE_CHAIN_N_MAX *PROBE_FIELD_HALF *PROBE_FIELD_HALF < (uint64_t)1 << 31,
               "sums of CHAIN fit into int32");
_Static_assert(PROBE_CHAIN_ROW_MAX + MERKLE_DEPTH_MAX * PROBE_HASH_BYTES + 64 <= PROBE_FRAME_MAX, "a row fits");

#define FLAG_ECC 1
#define FLAG_MIG 2
#define PATH_MAX_BYTES (MERKLE_DEPTH_MAX * PROBE_HASH_BYTES)

/* Either reads from bytes or writes to a buffer. The first thing wrong makes it bad; it then reads zeros. */
struct wire {
    const uint8_t *at; /* reading */
    size_t left;
    struct buf *to; /* writing; NULL: reading */
    bool is_bad, is_full;
};

static void check(struct wire *wire, bool holds)
{
    if (!holds)
        wire->is_bad = true;
}

static const uint8_t *take(struct wire *wire, size_t len)
{
    if (wire->is_bad || len > wire->left) {
        wire->is_bad = true;
        return NULL;
    }
    const uint8_t *from = wire->at;
    wire->at += len;
    wire->left -= len;
    return from;
}

static void bytes(struct wire *wire, void *value, size_t len)
{
    if (wire->to) {
        if (!buf_append(wire->to, value, len))
            wire->is_full = true;
        return;
    }
    const uint8_t *from = take(wire, len);
    if (from)
        memcpy(value, from, len);
    else
        memset(value, 0, len);
}

static void number(struct wire *wire, uint64_t *value, unsigned size)
{
    uint8_t raw[8] = {0};
    for (unsigned i = 0; wire->to && i < size; i++)
        raw[i] = (uint8_t)(*value >> (8 * i));
    bytes(wire, raw, size);
    if (wire->to)
        return;
    *value = 0;
    for (unsigned i = 0; i < size; i++)
        *value |= (uint64_t)raw[i] << (8 * i);
}

static void u8(struct wire *wire, uint8_t *value)
{
    bytes(wire, value, 1);
}

static void u16(struct wire *wire, uint16_t *value)
{
    uint64_t wide = *value;
    number(wire, &wide, 2);
    *value = (uint16_t)wide;
}

static void u32(struct wire *wire, uint32_t *value)
{
    uint64_t wide = *value;
    number(wire, &wide, 4);
    *value = (uint32_t)wide;
}

static void u32_within(struct wire *wire, uint32_t *value, uint32_t least, uint32_t most)
{
    u32(wire, value);
    check(wire, *value >= least && *value <= most);
}

static void u64(struct wire *wire, uint64_t *value)
{
    number(wire, value, 8);
}

static void reserved(struct wire *wire)
{
    uint32_t zero = 0;
    u32_within(wire, &zero, 0, 0);
}

static void words(struct wire *wire, uint32_t *value, size_t count)
{
    for (size_t i = 0; i < count; i++)
        u32(wire, &value[i]);
}

static void view(struct wire *wire, struct str *value, size_t len)
{
    if (wire->to) {
        if (len > 0)
            bytes(wire, (void *)(uintptr_t)value->ptr, len);
        return;
    }
    const uint8_t *from = take(wire, len);
    *value = from ? (struct str){(const char *)from, len} : (struct str){"", 0};
}

/* The rest of the payload. */
static void view_rest(struct wire *wire, struct str *value, size_t least, size_t most)
{
    view(wire, value, wire->to ? value->len : wire->left);
    check(wire, value->len >= least && value->len <= most);
}

static bool is_printable(struct str text, bool with_lines)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if ((c < ' ' || c > '~') && !(with_lines && (c == '\n' || c == '\t')))
            return false;
    }
    return true;
}

static void fixed_text(struct wire *wire, char *value, size_t size)
{
    bytes(wire, value, size);
    size_t len = strnlen(value, size);
    check(wire, len < size && is_printable((struct str){value, len}, false));
    for (size_t i = len; i < size; i++)
        check(wire, value[i] == '\0');
}

/* -- one function a frame -- */

static void claim_pass(struct wire *wire, struct probe_claim *claim)
{
    uint8_t flags = (uint8_t)((claim->ecc ? FLAG_ECC : 0) | (claim->mig ? FLAG_MIG : 0)), zero = 0;
    fixed_text(wire, claim->name, sizeof(claim->name));
    fixed_text(wire, claim->driver, sizeof(claim->driver));
    bytes(wire, claim->uuid, sizeof(claim->uuid));
    u16(wire, &claim->pci_vendor);
    u16(wire, &claim->pci_device);
    u32(wire, &claim->pci_subsystem);
    u64(wire, &claim->vram_bytes);
    u64(wire, &claim->free_bytes);
    u64(wire, &claim->l2_bytes);
    u32(wire, &claim->sms);
    u32(wire, &claim->smids_seen);
    u32(wire, &claim->bus_bits);
    u32(wire, &claim->clock_sm_mhz);
    u32(wire, &claim->clock_memory_mhz);
    u8(wire, &claim->cc_major);
    u8(wire, &claim->cc_minor);
    u8(wire, &flags);
    u8(wire, &zero);
    check(wire, flags <= (FLAG_ECC | FLAG_MIG) && zero == 0);
    claim->ecc = (flags & FLAG_ECC) != 0;
    claim->mig = (flags & FLAG_MIG) != 0;
}

static void hello_pass(struct wire *wire, struct probe_hello *hello)
{
    bytes(wire, hello->nonce, sizeof(hello->nonce));
    bytes(wire, hello->worker_key, sizeof(hello->worker_key));
    bytes(wire, hello->exchange_key, sizeof(hello->exchange_key));
    bytes(wire, hello->host_id, sizeof(hello->host_id));
    u32_within(wire, &hello->gpu_count, 1, PROBE_DEVICES_MAX);
    reserved(wire);
    for (uint32_t i = 0; i < hello->gpu_count && !wire->is_bad; i++)
        claim_pass(wire, &hello->gpus[i]);
    bytes(wire, hello->signature, sizeof(hello->signature));
}

static void warm_pass(struct wire *wire, struct probe_warm *warm, bool has_time)
{
    u32_within(wire, &warm->gpu, 0, PROBE_DEVICES_MAX - 1);
    u32_within(wire, &warm->self_ms, 0, has_time ? UINT32_MAX : 0);
}

static void kind_pass(struct wire *wire, enum probe_kind *kind)
{
    uint32_t value = *kind;
    u32_within(wire, &value, PROBE_KIND_FILL, PROBE_KIND_CHAIN);
    *kind = (enum probe_kind)value;
}

static void chain_pass(struct wire *wire, struct probe_chain *chain)
{
    words(wire, chain->seed, PROBE_SEED_WORDS);
    u32_within(wire, &chain->n, 64, PROBE_CHAIN_N_MAX);
    u32_within(wire, &chain->blocks, 1, PROBE_CHAIN_BLOCKS_MAX);
    u32_within(wire, &chain->steps, 1, PROBE_CHAIN_STEPS_MAX);
    reserved(wire);
    check(wire, chain->n % 64 == 0 && (uint64_t)chain->n * chain->blocks <= PROBE_CHAIN_ROW_MAX);
}

static void challenge_pass(struct wire *wire, struct probe_challenge *challenge)
{
    bytes(wire, challenge->id, sizeof(challenge->id));
    kind_pass(wire, &challenge->kind);
    u32_within(wire, &challenge->gpu, 0, PROBE_DEVICES_MAX - 1);
    u32(wire, &challenge->deadline_ms);
    reserved(wire);
    if (wire->is_bad)
        return;
    switch (challenge->kind) {
    case PROBE_KIND_FILL:
        words(wire, challenge->of.fill.seed, PROBE_SEED_WORDS);
        u64(wire, &challenge->of.fill.tiles);
        check(wire, challenge->of.fill.tiles >= 1 && challenge->of.fill.tiles <= PROBE_TILES_MAX);
        u32_within(wire, &challenge->of.fill.double_rounds, 1, PROBE_DOUBLE_ROUNDS_MAX);
        reserved(wire);
        return;
    case PROBE_KIND_PASS:
        words(wire, challenge->of.pass.key, PROBE_SEED_WORDS);
        u32_within(wire, &challenge->of.pass.passes, 1, PROBE_PASSES_MAX);
        reserved(wire);
        return;
    case PROBE_KIND_WALK:
        words(wire, challenge->of.walk.key, PROBE_SEED_WORDS);
        u32_within(wire, &challenge->of.walk.walkers, 1, PROBE_WALKERS_MAX);
        u32_within(wire, &challenge->of.walk.steps, 1, PROBE_STEPS_MAX);
        return;
    case PROBE_KIND_CHAIN:
        chain_pass(wire, &challenge->of.chain);
        return;
    }
}

static void commit_pass(struct wire *wire, struct probe_commit *commit)
{
    uint32_t route = commit->route;
    bytes(wire, commit->id, sizeof(commit->id));
    kind_pass(wire, &commit->kind);
    u32_within(wire, &route, 0, PROBE_ROUTE_COUNT - 1);
    commit->route = (enum probe_route)route;
    uint32_t least = commit->kind == PROBE_KIND_FILL ? 0 : 1;
    u32_within(wire, &commit->root_count, least, commit->kind == PROBE_KIND_PASS ? PROBE_PASSES_MAX : least);
    reserved(wire);
    u64(wire, &commit->items);
    check(wire, commit->items <= (commit->kind == PROBE_KIND_FILL ? PROBE_TILES_MAX : 0));
    u32(wire, &commit->self_us);
    u32(wire, &commit->clock_mhz);
    for (uint32_t i = 0; i < commit->root_count && !wire->is_bad; i++)
        bytes(wire, commit->roots[i], PROBE_HASH_BYTES);
    bytes(wire, commit->signature, sizeof(commit->signature));
}

static void opening_pass(struct wire *wire, struct probe_opening *opening)
{
    u64(wire, &opening->index);
    u32(wire, &opening->part);
    reserved(wire);
}

static void open_pass(struct wire *wire, struct probe_open *open)
{
    bytes(wire, open->id, sizeof(open->id));
    u32_within(wire, &open->count, 1, PROBE_OPENINGS_MAX);
    reserved(wire);
    for (uint32_t i = 0; i < open->count && !wire->is_bad; i++)
        opening_pass(wire, &open->openings[i]);
}

static void proof_pass(struct wire *wire, struct probe_proof *proof)
{
    bytes(wire, proof->id, sizeof(proof->id));
    u32_within(wire, &proof->count, 1, PROBE_OPENINGS_MAX);
    reserved(wire);
    for (uint32_t i = 0; i < proof->count && !wire->is_bad; i++) {
        struct probe_item *item = &proof->items[i];
        uint32_t data_len = (uint32_t)item->data.len, path_len = (uint32_t)item->path.len;
        opening_pass(wire, &item->opening);
        u32_within(wire, &data_len, 0, PROBE_CHAIN_ROW_MAX);
        u32_within(wire, &path_len, 0, PATH_MAX_BYTES);
        check(wire, path_len % PROBE_HASH_BYTES == 0);
        view(wire, &item->data, data_len);
        view(wire, &item->path, path_len);
    }
}

static void verdict_pass(struct wire *wire, struct probe_verdict_frame *verdict)
{
    uint32_t passed = verdict->is_passed, reason_len = (uint32_t)verdict->reason.len;
    uint32_t receipt_len = (uint32_t)verdict->receipt.len;
    u32_within(wire, &passed, 0, 1);
    verdict->is_passed = passed == 1;
    u32_within(wire, &reason_len, 0, PROBE_TEXT_MAX);
    u32_within(wire, &receipt_len, 0, PROBE_RECEIPT_MAX);
    reserved(wire);
    view(wire, &verdict->reason, reason_len);
    view(wire, &verdict->receipt, receipt_len);
    check(wire, is_printable(verdict->reason, false) && is_printable(verdict->receipt, true));
}

static void error_pass(struct wire *wire, struct probe_error_frame *error)
{
    uint32_t code = error->code, len = (uint32_t)error->text.len;
    u32_within(wire, &code, PROBE_FAILURE_BAD_FRAME, PROBE_FAILURE_DEVICE);
    error->code = (enum probe_failure)code;
    u32_within(wire, &len, 0, PROBE_TEXT_MAX);
    view(wire, &error->text, len);
    check(wire, is_printable(error->text, false));
}

static void id_and_digest(struct wire *wire, uint8_t *id, uint8_t *digest)
{
    bytes(wire, id, PROBE_ID_BYTES);
    bytes(wire, digest, PROBE_HASH_BYTES);
}

static void payload_pass(struct wire *wire, struct probe_frame *frame)
{
    switch (frame->type) {
    case PROBE_HELLO_ASK:
        bytes(wire, frame->of.hello_ask.nonce, sizeof(frame->of.hello_ask.nonce));
        return;
    case PROBE_HELLO:
        hello_pass(wire, &frame->of.hello);
        return;
    case PROBE_PING:
    case PROBE_PONG:
        bytes(wire, frame->of.ping.nonce, sizeof(frame->of.ping.nonce));
        return;
    case PROBE_WARM:
    case PROBE_READY:
    case PROBE_RELEASE:
        warm_pass(wire, &frame->of.warm, frame->type == PROBE_READY);
        return;
    case PROBE_CHALLENGE:
        challenge_pass(wire, &frame->of.challenge);
        return;
    case PROBE_COMMIT:
        commit_pass(wire, &frame->of.commit);
        return;
    case PROBE_OPEN:
        open_pass(wire, &frame->of.open);
        return;
    case PROBE_PROOF:
        proof_pass(wire, &frame->of.proof);
        return;
    case PROBE_NET:
        bytes(wire, frame->of.net.id, PROBE_ID_BYTES);
        view_rest(wire, &frame->of.net.payload, 1, PROBE_NET_MAX);
        return;
    case PROBE_NET_ANSWER:
        id_and_digest(wire, frame->of.net_answer.id, frame->of.net_answer.digest);
        return;
    case PROBE_BIND:
        bytes(wire, frame->of.bind.id, PROBE_ID_BYTES);
        view_rest(wire, &frame->of.bind.sealed, SEAL_OVERHEAD + 1, PROBE_SEALED_MAX);
        return;
    case PROBE_BOUND:
        id_and_digest(wire, frame->of.bound.id, frame->of.bound.digest);
        return;
    case PROBE_VERDICT:
        verdict_pass(wire, &frame->of.verdict);
        return;
    case PROBE_ERROR:
        error_pass(wire, &frame->of.error);
        return;
    case PROBE_ACK:
        return;
    }
    wire->is_bad = true; /* no type of ours */
}

/* -- whole frames -- */

enum error probe_frame_decode(struct str text, struct probe_frame *ret)
{
    const uint8_t *raw = (const uint8_t *)text.ptr;
    if (text.len < PROBE_FRAME_HEAD || text.len > PROBE_FRAME_MAX || raw[0] != 'S' || raw[1] != 'L' ||
        raw[2] != PROBE_PROTOCOL_VERSION || raw[3] < PROBE_HELLO_ASK || raw[3] > PROBE_ERROR)
        return ERR_PROTOCOL;
    struct wire wire = {.at = raw + 4, .left = text.len - 4};
    uint32_t length = 0;
    u32(&wire, &length);
    if (length != wire.left)
        return ERR_PROTOCOL;
    struct probe_frame frame;
    memset(&frame, 0, sizeof(frame));
    frame.type = (enum probe_frame_type)raw[3];
    payload_pass(&wire, &frame);
    if (wire.is_bad || wire.left > 0)
        return ERR_PROTOCOL;
    *ret = frame;
    return ERR_NONE;
}

bool probe_frame_encode(const struct probe_frame *frame, struct buf *to)
{
    struct probe_frame copy = *frame; /* the functions above take what they may change; writing changes nothing */
    size_t start = to->len;
    const uint8_t head[PROBE_FRAME_HEAD] = {'S', 'L', PROBE_PROTOCOL_VERSION, (uint8_t)frame->type};
    struct wire wire = {.to = to};
    if (!buf_append(to, head, sizeof(head)))
        return false;
    payload_pass(&wire, &copy);
    assert(!wire.is_bad);
    size_t length = to->len - start - PROBE_FRAME_HEAD;
    if (wire.is_full || wire.is_bad || length > PROBE_FRAME_MAX - PROBE_FRAME_HEAD) {
        to->len = start;
        return false;
    }
    for (unsigned i = 0; i < 4; i++)
        to->ptr[start + 4 + i] = (char)(uint8_t)(length >> (8 * i));
    return true;
}

struct str probe_signed_part(struct str frame)
{
    assert(frame.len > PROBE_FRAME_HEAD + PROBE_SIGNATURE_BYTES);
    return (struct str){frame.ptr, frame.len - PROBE_SIGNATURE_BYTES};
}

/* -- names and words -- */

const char *probe_kind_name(enum probe_kind kind)
{
    static const char *const names[] = {[PROBE_KIND_FILL] = "fill",
                                        [PROBE_KIND_PASS] = "pass",
                                        [PROBE_KIND_WALK] = "walk",
                                        [PROBE_KIND_CHAIN] = "chain"};
    assert(kind >= PROBE_KIND_FILL && kind <= PROBE_KIND_CHAIN);
    return names[kind];
}

void probe_words_of_bytes(const uint8_t *from, size_t count, uint32_t *ret)
{
    for (size_t i = 0; i < count; i++)
        ret[i] = (uint32_t)from[4 * i] | (uint32_t)from[4 * i + 1] << 8 | (uint32_t)from[4 * i + 2] << 16 |
                 (uint32_t)from[4 * i + 3] << 24;
}

void probe_bytes_of_words(const uint32_t *from, size_t count, uint8_t *ret)
{
    for (size_t i = 0; i < count; i++)
        for (unsigned j = 0; j < 4; j++)
            ret[4 * i + j] = (uint8_t)(from[i] >> (8 * j));
}
