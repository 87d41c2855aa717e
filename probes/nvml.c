#include "probes/nvml.h"

#include "core/log.h"
#include "probes/cuda_driver.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { NVML_OK = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEMORY = 2 };

struct nvml_pci { /* nvmlPciInfo_t of nvml.h */
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_and_vendor, subsystem;
    char bus_id[32];
};

/* X(name in the table, name in the library, parameters, is optional) */
#define NVML_CALLS(X)                                                                                              \
    X(init, "nvmlInit_v2", (void), 0)                                                                              \
    X(shutdown, "nvmlShutdown", (void), 0)                                                                         \
    X(driver_version, "nvmlSystemGetDriverVersion", (char *ret, unsigned size), 0)                                 \
    X(find, "nvmlDeviceGetHandleByPciBusId_v2", (const char *bus_id, struct nvml_device **ret), 0)                 \
    X(pci, "nvmlDeviceGetPciInfo_v3", (struct nvml_device * device, struct nvml_pci * ret), 0)                     \
    X(clock, "nvmlDeviceGetClockInfo", (struct nvml_device * device, int type, unsigned *ret), 0)                  \
    X(clock_max, "nvmlDeviceGetMaxClockInfo", (struct nvml_device * device, int type, unsigned *ret), 0)           \
    X(ecc, "nvmlDeviceGetEccMode", (struct nvml_device * device, int *ret_current, int *ret_pending), 0)           \
    X(mig, "nvmlDeviceGetMigMode", (struct nvml_device * device, unsigned *ret_current, unsigned *ret_pending), 1) \
    X(bus_bits, "nvmlDeviceGetMemoryBusWidth", (struct nvml_device * device, unsigned *ret), 1)

#define POINTER(name, symbol, parameters, is_optional) int(*name) parameters;
struct nvml_table {
    NVML_CALLS(POINTER)
};
struct nvml {
    struct nvml_table call;
    void *library;
};

#define ROW(name, symbol, parameters, is_optional) {symbol, offsetof(struct nvml_table, name), is_optional},
static const struct library_call nvml_calls[] = {NVML_CALLS(ROW)};

struct nvml *nvml_open(void)
{
    const char *path = secure_getenv("SLUICE_LIBNVML");
    struct nvml *nvml = calloc(1, sizeof *nvml);
    if (nvml == NULL)
        return NULL;
    nvml->library = dlopen(path != NULL && path[0] != 0 ? path : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        log_debug(NULL, "no management library: %s", dlerror());
        goto out;
    }
    if (!library_resolve(nvml->library, nvml_calls, sizeof nvml_calls / sizeof nvml_calls[0], &nvml->call))
        goto out;
    if (nvml->call.init() != NVML_OK)
        goto out;
    return nvml;
out:
    if (nvml->library != NULL)
        dlclose(nvml->library);
    free(nvml);
    return NULL;
}

struct nvml *nvml_close(struct nvml *nvml)
{
    if (nvml == NULL)
        return NULL;
    (void)nvml->call.shutdown();
    dlclose(nvml->library);
    free(nvml);
    return NULL;
}

struct nvml_device *nvml_find(struct nvml *nvml, const char *pci_bus_id)
{
    struct nvml_device *device = NULL;
    return nvml->call.find(pci_bus_id, &device) == NVML_OK ? device : NULL;
}

static uint32_t clock_or_zero(int (*call)(struct nvml_device *, int, unsigned *), struct nvml_device *device, int type)
{
    unsigned mhz = 0;
    return call(device, type, &mhz) == NVML_OK ? mhz : 0;
}

void nvml_facts(struct nvml *nvml, struct nvml_device *device, struct nvml_facts *ret)
{
    struct nvml_facts facts = {0};
    struct nvml_pci pci = {0};
    int ecc = 0, ecc_pending = 0;
    unsigned mig = 0, mig_pending = 0, bits = 0;
    if (nvml->call.driver_version(facts.driver, sizeof facts.driver) != NVML_OK)
        facts.driver[0] = 0;
    if (nvml->call.pci(device, &pci) == NVML_OK) {
        facts.pci_vendor = (uint16_t)(pci.device_and_vendor & 0xffffu);
        facts.pci_device = (uint16_t)(pci.device_and_vendor >> 16);
        facts.pci_subsystem = pci.subsystem;
    }
    if (nvml->call.ecc(device, &ecc, &ecc_pending) == NVML_OK) {
        facts.has_ecc = true;
        facts.ecc = ecc == 1;
    }
    if (nvml->call.mig != NULL && nvml->call.mig(device, &mig, &mig_pending) == NVML_OK)
        facts.mig = mig == 1;
    if (nvml->call.bus_bits != NULL && nvml->call.bus_bits(device, &bits) == NVML_OK)
        facts.bus_bits = bits;
    facts.clock_sm_max_mhz = clock_or_zero(nvml->call.clock_max, device, NVML_CLOCK_SM);
    facts.clock_memory_max_mhz = clock_or_zero(nvml->call.clock_max, device, NVML_CLOCK_MEMORY);
    *ret = facts;
}

uint32_t nvml_clock_sm_mhz(struct nvml *nvml, struct nvml_device *device)
{
    return clock_or_zero(nvml->call.clock, device, NVML_CLOCK_SM);
}
