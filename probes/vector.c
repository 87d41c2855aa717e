#include "probes/vector.h"

#include <assert.h>
#include <stdatomic.h>

enum { NOT_CHOSEN = -1 };
static atomic_int chosen = NOT_CHOSEN; /* set once by the CPU's features; again only by tests and benches */

enum probe_vector probe_vector_best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return PROBE_VECTOR_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return PROBE_VECTOR_AVX2;
#endif
    return PROBE_VECTOR_PORTABLE;
}

void probe_vector_force(enum probe_vector vector)
{
    assert(vector <= probe_vector_best());
    atomic_store_explicit(&chosen, (int)vector, memory_order_relaxed);
}

enum probe_vector probe_vector_now(void)
{
    int now = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (now == NOT_CHOSEN) {
        now = (int)probe_vector_best();
        atomic_store_explicit(&chosen, now, memory_order_relaxed);
    }
    return (enum probe_vector)now;
}
