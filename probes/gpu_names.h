/* GPU names: every network's spelling to the catalogue's name. What is not certainly known stays unknown: a name that
 * exists with several memories or forms says nothing until one of them is told, and words that are not understood
 * ("Laptop", "D") make another model of it. */
#ifndef SLUICE_PROBES_GPU_NAMES_H
#define SLUICE_PROBES_GPU_NAMES_H

#include "core/str.h"

#define GPU_RAW_MAX 127 /* longer ones are unknown */
#define GPU_WHOLE_PPM 1000000

struct gpu_identity {
    char name[40];         /* of the built-in catalogue, "nvidia/h100-sxm-80", "cpu"; "": unknown */
    bool is_slice;         /* a part of a device: name is its parent's, and it is never sold as that */
    uint32_t fraction_ppm; /* of a whole device; GPU_WHOLE_PPM: whole; 0: a slice of unknown size */
    /* the whole device's datasheet; 0: not known */
    double vram_gib, memory_gbps, bf16_tflops, fp32_tflops, int8_tops;
    bool is_arm_host; /* comes with an ARM processor only */
};

/* raw: as the network spells it, case does not matter: a driver's name, "RTX 4090", "gpu_8x_h100_sxm5",
 * "p5.48xlarge", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "vendor/nvidia/model/h100/ram/80Gi/interface/sxm", a canonical
 * name, "cpu".
 * form: the interface where the network tells it apart ("SXM5", "PCIe", "NVL"), or absent; what is no form ("NVLink")
 * says nothing. "HGX": as large clouds have it, SXM wherever the model comes as SXM and nothing otherwise (for AWS and
 * GKE, whose "H100" is SXM).
 * vram_bytes: of one GPU, in bytes of whatever the network takes for a GB (7 % either way are the same); 0: not told.
 * A slice's own memory is not held against its parent.
 * False: unknown; then *ret has name "", and is_slice all the same if that could be told. */
bool gpu_identify(struct str raw, struct str form, uint64_t vram_bytes, struct gpu_identity *ret);

#endif
