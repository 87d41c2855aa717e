/* The frames between a gateway (verifier) and a worker's probe (prover): fixed binary, little-endian, hard limits.
 *
 * Every frame is an 8-byte head {'S', 'L', version 1, type, u32 length of the rest} and its payload. The gateway asks,
 * the worker answers each frame with exactly one: the pairs are in the table below, ERROR answers anything. On the
 * worker link a frame is the body of POST /sluice/probe and its answer (adapters/native/README.md). Decoding checks
 * every length, count and reserved byte; what is not understood is refused (ERR_PROTOCOL). */
#ifndef SLUICE_PROBES_PROTOCOL_H
#define SLUICE_PROBES_PROTOCOL_H

#include "probes/backend.h"

#define PROBE_FRAME_MAX ((size_t)1 << 20)
#define PROBE_FRAME_HEAD 8
#define PROBE_PROTOCOL_VERSION 1
#define PROBE_ID_BYTES 16
#define PROBE_KEY_BYTES 32
#define PROBE_SIGNATURE_BYTES 64
#define PROBE_OPENINGS_MAX 128
#define PROBE_TILES_MAX ((uint64_t)1 << 27) /* 1 TiB */
#define PROBE_DOUBLE_ROUNDS_MAX 1024
#define PROBE_WALKERS_MAX 65536
#define PROBE_STEPS_MAX 1024 /* of WALK */
#define PROBE_CHAIN_N_MAX 32768
#define PROBE_CHAIN_BLOCKS_MAX 16
#define PROBE_CHAIN_STEPS_MAX 1024
#define PROBE_CHAIN_ROW_MAX ((uint32_t)1 << 18) /* n * blocks */
#define PROBE_NET_MAX (PROBE_FRAME_MAX - 64)
#define PROBE_SEALED_MAX 4096
#define PROBE_TEXT_MAX 256
#define PROBE_RECEIPT_MAX 16384

enum probe_frame_type { /* ask -> answer */
                        PROBE_HELLO_ASK = 1,
                        PROBE_HELLO = 2,
                        PROBE_PING = 3,
                        PROBE_PONG = 4,
                        PROBE_WARM = 5,
                        PROBE_READY = 6,
                        PROBE_CHALLENGE = 7,
                        PROBE_COMMIT = 8,
                        PROBE_OPEN = 9,
                        PROBE_PROOF = 10,
                        PROBE_NET = 11,
                        PROBE_NET_ANSWER = 12,
                        PROBE_BIND = 13,
                        PROBE_BOUND = 14,
                        PROBE_VERDICT = 15, /* ... and RELEASE -> ACK */
                        PROBE_RELEASE = 16,
                        PROBE_ACK = 17,
                        PROBE_ERROR = 18,
};

enum probe_kind { PROBE_KIND_FILL = 1, PROBE_KIND_PASS = 2, PROBE_KIND_WALK = 3, PROBE_KIND_CHAIN = 4 };
const char *probe_kind_name(enum probe_kind kind); /* "fill", ... */

enum probe_failure { /* of an ERROR frame */
                     PROBE_FAILURE_BAD_FRAME = 1,
                     PROBE_FAILURE_BUSY = 2,      /* a challenge is under way on this GPU */
                     PROBE_FAILURE_NO_MEMORY = 3, /* cannot fill that much now */
                     PROBE_FAILURE_UNKNOWN = 4,   /* no such GPU, challenge or opening */
                     PROBE_FAILURE_DEVICE = 5,    /* the device failed */
};

struct probe_hello_ask {
    uint8_t nonce[32];
};
struct probe_hello {
    uint8_t nonce[32];
    uint8_t worker_key[PROBE_KEY_BYTES];   /* Ed25519, kept in the worker's state directory */
    uint8_t exchange_key[PROBE_KEY_BYTES]; /* X25519, new at each start of the probe */
    uint8_t host_id[32];                   /* SHA-256 of the machine's id and a fixed text */
    uint32_t gpu_count;
    struct probe_claim gpus[PROBE_DEVICES_MAX];
    uint8_t signature[PROBE_SIGNATURE_BYTES]; /* Ed25519 by worker_key over the head and all payload before it */
};
struct probe_ping { /* PING and PONG */
    uint8_t nonce[16];
};
struct probe_warm { /* WARM, READY, RELEASE */
    uint32_t gpu;
    uint32_t self_ms; /* READY: how long it took, by the worker's clock */
};
struct probe_challenge {
    uint8_t id[PROBE_ID_BYTES];
    enum probe_kind kind;
    uint32_t gpu;
    uint32_t deadline_ms;
    union { /* without challenge and worker_key, which the frame need not carry twice: decode leaves them zero */
        struct probe_fill fill;
        struct probe_pass pass;
        struct probe_walk walk;
        struct probe_chain chain;
    } of;
};
struct probe_commit {
    uint8_t id[PROBE_ID_BYTES];
    enum probe_kind kind;
    enum probe_route route;
    uint32_t root_count; /* FILL 0, PASS the passes, WALK and CHAIN 1 */
    uint8_t roots[PROBE_PASSES_MAX][PROBE_HASH_BYTES];
    uint64_t items;                           /* FILL: tiles written */
    uint32_t self_us, clock_mhz;              /* advisory */
    uint8_t signature[PROBE_SIGNATURE_BYTES]; /* as HELLO's */
};
struct probe_opening {
    uint64_t index; /* PASS and FILL: tile; WALK: walker; CHAIN: row */
    uint32_t part;  /* PASS: the pass; WALK: the step that will be looked at; else 0 */
};
struct probe_open {
    uint8_t id[PROBE_ID_BYTES];
    uint32_t count; /* 1 .. PROBE_OPENINGS_MAX */
    struct probe_opening openings[PROBE_OPENINGS_MAX];
};
struct probe_item { /* views into the frame */
    struct probe_opening opening;
    struct str data; /* PASS: none; FILL: the tile; WALK: the trace; CHAIN: the row */
    struct str path; /* siblings from the leaf up; FILL: none */
};
struct probe_proof {
    uint8_t id[PROBE_ID_BYTES];
    uint32_t count;
    struct probe_item items[PROBE_OPENINGS_MAX];
};
struct probe_net { /* payload: a view into the frame; the answer is BLAKE2s (PROBE_HASH_NET) of it */
    uint8_t id[PROBE_ID_BYTES];
    struct str payload;
};
struct probe_net_answer {
    uint8_t id[PROBE_ID_BYTES];
    uint8_t digest[PROBE_HASH_BYTES];
};
struct probe_bind { /* sealed: see identity.h; a view; context: the id. The answer is the SHA-256 of the opened text */
    uint8_t id[PROBE_ID_BYTES];
    struct str sealed;
};
struct probe_bound {
    uint8_t id[PROBE_ID_BYTES];
    uint8_t digest[32];
};
struct probe_verdict_frame {
    bool is_passed;
    struct str reason;  /* <= PROBE_TEXT_MAX, printable */
    struct str receipt; /* JSON, <= PROBE_RECEIPT_MAX; "" for none */
};
struct probe_error_frame {
    enum probe_failure code;
    struct str text; /* printable, <= PROBE_TEXT_MAX */
};

struct probe_frame { /* a decoded frame; views live as long as the bytes do */
    enum probe_frame_type type;
    union {
        struct probe_hello_ask hello_ask;
        struct probe_hello hello;
        struct probe_ping ping;
        struct probe_warm warm;
        struct probe_challenge challenge;
        struct probe_commit commit;
        struct probe_open open;
        struct probe_proof proof;
        struct probe_net net;
        struct probe_net_answer net_answer;
        struct probe_bind bind;
        struct probe_bound bound;
        struct probe_verdict_frame verdict;
        struct probe_error_frame error;
    } of;
};

/* The whole of bytes is one frame. ERR_PROTOCOL: it is none; *ret is untouched. */
MUST_CHECK enum error probe_frame_decode(struct str bytes, struct probe_frame *ret);
/* Appends the frame; the caller keeps to the limits (assert). Signatures are written as they stand: see probe_sign. */
MUST_CHECK bool probe_frame_encode(const struct probe_frame *frame, struct buf *to);
/* For HELLO and COMMIT as encoded: what the signature covers, and where in the frame it lies (the last 64 bytes). */
struct str probe_signed_part(struct str frame);

void probe_words_of_bytes(const uint8_t *bytes, size_t words, uint32_t *ret); /* little-endian */
void probe_bytes_of_words(const uint32_t *words, size_t count, uint8_t *ret);

#endif
