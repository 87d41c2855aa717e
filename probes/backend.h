/* What a device must be able to do to answer challenges: one struct of functions, one CPU and one CUDA implementation.
 *
 * A backend belongs to one thread at a time. It gives answers, never judgements, and takes no time itself: only the
 * gateway's clock counts. All parameters were checked against protocol.h's limits before they come here. */
#ifndef SLUICE_PROBES_BACKEND_H
#define SLUICE_PROBES_BACKEND_H

#include "core/str.h"
#include "probes/primitives.h"

#define PROBE_DEVICES_MAX 16
#define PROBE_PASSES_MAX 64
#define PROBE_NAME_MAX 64

enum probe_route { /* how CHAIN's products were computed; told, not proven */
                   PROBE_ROUTE_CPU = 0,
                   PROBE_ROUTE_DP4A = 1,
                   PROBE_ROUTE_MMA_S8 = 2,
                   PROBE_ROUTE_CUBLASLT_S8 = 3,
                   PROBE_ROUTE_BF16 = 4,
                   PROBE_ROUTE_COUNT
};
const char *probe_route_name(enum probe_route route); /* "cpu", "dp4a", ... */

/* What a device says of itself. Claims, never proof. 0 or "": not known. */
struct probe_claim {
    char name[PROBE_NAME_MAX]; /* the driver's: "NVIDIA H200"; "cpu" for a machine without a GPU */
    char driver[32];
    uint8_t uuid[16];
    uint16_t pci_vendor, pci_device; /* 0x10de, 0x2335 */
    uint32_t pci_subsystem;
    uint64_t vram_bytes, free_bytes; /* of device memory; cpu: what it offers to prove */
    uint64_t l2_bytes;
    uint32_t sms, smids_seen, bus_bits, clock_sm_mhz, clock_memory_mhz;
    uint8_t cc_major, cc_minor;
    bool ecc, mig;
};

struct probe_fill {
    uint32_t seed[8];
    uint64_t tiles; /* >= 1, < 2^32 */
    uint32_t double_rounds;
};
struct probe_pass {
    uint32_t challenge[4], worker_key[8], key[8];
    uint32_t passes;
};
struct probe_walk {
    uint32_t challenge[4], worker_key[8], key[8];
    uint32_t walkers, steps;
};
struct probe_chain {
    uint32_t challenge[4], worker_key[8], seed[8];
    uint32_t n, blocks, steps; /* n a multiple of 64 */
};

struct probe_backend;
struct probe_backend_ops {
    const char *name; /* "cpu", "cuda" */
    /* How many devices there are; 0 when the machine has none of this kind (no driver, no library). */
    unsigned (*count)(void);
    MUST_CHECK enum error (*open)(unsigned index, struct probe_backend **ret);
    struct probe_backend *(*close)(struct probe_backend *backend); /* accepts NULL; returns NULL */
    void (*claim)(struct probe_backend *backend, struct probe_claim *ret);
    /* A fifth of a second of full load, and all handles made, so that clocks are up and nothing is set up later. */
    MUST_CHECK enum error (*warm)(struct probe_backend *backend);

    /* Allocates and writes the tiles; frees earlier ones. ERR_NO_MEMORY: they do not fit. Returns when they lie there.
     */
    MUST_CHECK enum error (*fill)(struct probe_backend *backend, const struct probe_fill *fill);
    /* Roots of all passes. Keeps what pass_open needs until release, the next pass or fill. */
    MUST_CHECK enum error (*pass)(struct probe_backend *backend, const struct probe_pass *pass,
                                  uint32_t ret_roots[PROBE_PASSES_MAX][8]);
    /* Appends the Merkle path (siblings from the leaf up, 32 bytes each) of that tile in that pass. */
    MUST_CHECK enum error (*pass_open)(struct probe_backend *backend, uint32_t pass, uint64_t tile, struct buf *to);
    MUST_CHECK enum error (*walk)(struct probe_backend *backend, const struct probe_walk *walk, uint32_t ret_root[8]);
    /* Appends the walker's trace (steps + 1 words of 8 bytes) to trace, its path to path. */
    MUST_CHECK enum error (*walk_open)(struct probe_backend *backend, uint32_t walker, struct buf *trace,
                                       struct buf *path);
    MUST_CHECK enum error (*tile_read)(struct probe_backend *backend, uint64_t tile, struct buf *to);
    /* Frees the tiles first when both do not fit. Keeps X_L until release, the next chain or fill. */
    MUST_CHECK enum error (*chain)(struct probe_backend *backend, const struct probe_chain *chain, uint32_t ret_root[8],
                                   enum probe_route *ret_route);
    MUST_CHECK enum error (*chain_open)(struct probe_backend *backend, uint32_t row, struct buf *bytes,
                                        struct buf *path);
    void (*release)(struct probe_backend *backend);       /* frees what fill, pass, walk and chain hold */
    uint32_t (*clock_mhz)(struct probe_backend *backend); /* of the SMs now; 0: not known */

    /* For `sluice-probe bench`: rates measured on the spot, by the device's own clock. 0: it cannot be measured here.
     */
    struct probe_bench {
        double memory_gbps, int8_tops, bf16_tflops, h2d_gbps, d2h_gbps; /* 10^9 bytes, 10^12 operations a second */
        uint64_t free_bytes;
        uint32_t clock_idle_mhz, clock_load_mhz;
        char route[16];
    } (*bench)(struct probe_backend *backend);
};

extern const struct probe_backend_ops probe_backend_cpu;
extern const struct probe_backend_ops
    probe_backend_cuda; /* count() is 0 where no driver is, or no kernels are built in */

#endif
