#include "probes/backend.h"

#include <stddef.h>

const char *probe_route_name(enum probe_route route)
{
    static const char *const names[PROBE_ROUTE_COUNT] = {
        [PROBE_ROUTE_CPU] = "cpu",       [PROBE_ROUTE_DP4A] = "dp4a",
        [PROBE_ROUTE_MMA_S8] = "mma_s8", [PROBE_ROUTE_CUBLASLT_S8] = "cublaslt_s8",
        [PROBE_ROUTE_BF16] = "bf16",
    };
    return (unsigned)route < PROBE_ROUTE_COUNT ? names[route] : "unknown";
}
