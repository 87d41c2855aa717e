/* GPU classes: what a device of each name is known to reach, how its challenges are sized, and which class proven
 * numbers belong to. Names are canonical ("nvidia/h100-sxm-80", "cpu"). Built-in rows, which a YAML file may add to or
 * replace (configuration key probes.catalogue). */
#ifndef SLUICE_PROBES_CATALOGUE_H
#define SLUICE_PROBES_CATALOGUE_H

#include "probes/fingerprint.h"

#define CATALOGUE_NAME_MAX 40

struct gpu_class {
    char name[CATALOGUE_NAME_MAX];
    /* the datasheet; 0: not known */
    double vram_gib, memory_gbps, bf16_tflops, fp32_tflops, int8_tops;
    uint8_t cc_major, cc_minor;
    uint32_t sms;
    uint64_t l2_bytes;
    uint16_t pci_devices[8]; /* of vendor 10de; 0 ends the list */
    /* references: what challenges measure on an honest one (GB/s, TOPS); bootstrap until a fleet's median stands in,
     * which may happen while others read */
    _Atomic double fill_gbps, pass_gbps, walk_gbps, chain_tops;
    bool is_measured; /* references come of a run on that model, not of an estimate */
    /* sizing */
    uint32_t double_rounds; /* D of FILL */
    uint32_t passes;        /* of an admission */
    uint32_t walkers, walk_steps;
    struct chain_shape admission_chain, spot_chain, lease_chain; /* lease: beside a running job */
    uint64_t admission_fill_bytes;                               /* 0: 97 % of the claimed memory */
    uint64_t spot_fill_bytes;
    uint32_t net_frames;   /* of 1 MiB each way; 0: none */
    double net_floor_mbps; /* megabits a second; 0: not judged */
    bool has_floor;        /* rates are judged; not so for "cpu", whose speed anybody may have */
};

struct catalogue;
/* path "" or NULL: built-in rows only. A line of why into error (CONFIG_ERROR_MAX bytes). Rows stay where
 * they are until catalogue_free; any number of threads may read.
 *
 * The file: `classes:` and a list of maps. `name` is the class's; the other keys are the fields of struct gpu_class,
 * and what is not given stays as it was, or is derived from the datasheet where the class is new. Their forms:
 * compute_capability 9.0; pci_devices 2330 2331; chains as NxBLOCKSxSTEPS (8192x8x50); driver_names without brands,
 * with
 * '|' between them (H100 80GB HBM3|H100 SXM5 80GB). */
MUST_CHECK enum error catalogue_open(const char *path, struct catalogue **ret, char *error);
struct catalogue *catalogue_free(struct catalogue *catalogue); /* accepts NULL */
size_t catalogue_count(const struct catalogue *catalogue);
const struct gpu_class *catalogue_at(const struct catalogue *catalogue, size_t i);
const struct gpu_class *catalogue_find(const struct catalogue *catalogue, struct str name); /* NULL: unknown */
/* The class of a driver's name and its memory ("NVIDIA H100 80GB HBM3"); NULL: unknown, never a guess. vram_bytes 0:
 * not known; then a name that comes with several sizes is unknown too. */
const struct gpu_class *catalogue_of_driver_name(const struct catalogue *catalogue, struct str driver_name,
                                                 uint64_t vram_bytes);

/* What challenges proved of one device. 0: not measured. Lower bounds, by the gateway's clock. */
struct proven {
    double vram_gib, fill_gbps, pass_gbps, walk_gbps, chain_tops;
};
/* The nearest class in log space over VRAM, PASS, CHAIN and FILL; VRAM above the class's (by more than 7 %) or far
 * below excludes it, and so does a missing reference. Numbers that are none (NaN, infinite, negative) count as not
 * measured. *ret_distance (may be NULL): 0 is equal, 0.1 some 10 % away. NULL: nothing was measured, or no class can be
 * it. */
const struct gpu_class *catalogue_classify(const struct catalogue *catalogue, const struct proven *proven,
                                           double *ret_distance);

/* Fleet medians replace a class's references (R5), bounded to 0.8 .. 1.25 of the built-in or measured row, so that no
 * fleet of slow workers lowers the floor for itself. */
void catalogue_set_fleet(struct catalogue *catalogue, const char *class_name, const struct proven *median);

/* Thresholds, section 6 of the protocol's page: x = rate / reference. */
#define PROBE_FLOOR 0.75 /* below: not this class */
#define PROBE_FULL 0.88  /* at or above: full credit, linear between */
#define PROBE_ABOVE 1.15 /* more than it should be able to: looked at again, re-classed */
/* The worst of the ratios over the rates that were measured; 0 when none was; 1 for a class without floors. WALK lasts
 * less than a round trip and is not judged; FILL only against a reference that was measured. */
double proven_ratio(const struct gpu_class *class, const struct proven *proven);
/* Credit in [0, 1] of that ratio: clip((x - 0.75) / 0.13). */
double proven_credit(double ratio);
/* Share of the datasheet's performance, (0, 1]: the geometric mean of the measured shares of memory and int8 rate; 1
 * when unknown. */
double proven_performance(const struct gpu_class *class, const struct proven *proven);

/* Do the static claims contradict each other or the class (compute capability, SMs, memory, PCI id, MIG)? NULL: no;
 * else a fixed text of what does. Consistency earns nothing. */
struct probe_claim;
const char *claim_contradiction(const struct catalogue *catalogue, const struct probe_claim *claim);

#endif
