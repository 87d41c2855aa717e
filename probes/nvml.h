/* NVIDIA's management library (libnvidia-ml.so.1), opened at run time: what CUDA itself does not tell of a device. All
 * of it is optional and only ever a claim. */
#ifndef SLUICE_PROBES_NVML_H
#define SLUICE_PROBES_NVML_H

#include <stdbool.h>
#include <stdint.h>

struct nvml;
/* NULL: the machine has none. The library is $SLUICE_LIBNVML if set (never in a set-user-id process), else
 * libnvidia-ml.so.1. */
struct nvml *nvml_open(void);
struct nvml *nvml_close(struct nvml *nvml); /* accepts NULL; returns NULL */

struct nvml_device; /* borrowed of the struct nvml; NULL: not found */
struct nvml_device *nvml_find(struct nvml *nvml, const char *pci_bus_id); /* "0000:1b:00.0" */

struct nvml_facts { /* 0 or "": not known */
    char driver[80];
    uint16_t pci_vendor, pci_device;
    uint32_t pci_subsystem, clock_sm_max_mhz, clock_memory_max_mhz, bus_bits;
    bool has_ecc, ecc, mig;
};
void nvml_facts(struct nvml *nvml, struct nvml_device *device, struct nvml_facts *ret);
uint32_t nvml_clock_sm_mhz(struct nvml *nvml, struct nvml_device *device); /* now */

#endif
