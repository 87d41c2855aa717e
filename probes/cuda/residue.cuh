/* probe_chain_element without a division: two products of which only the high half is used. */
#ifndef SLUICE_PROBES_CUDA_RESIDUE_CUH
#define SLUICE_PROBES_CUDA_RESIDUE_CUH

#include "probes/cuda/device.cuh"

/* 17111424 = (2^32 + 128) / 251, exactly. For any int32 sum the first quotient is floor(sum / 251 + e), |e| < 0.26, so
 * the rest lies in (-66, 317) and times a scale of at most 250 in (-16500, 79250). Shifted by 251 * 256 + 125 it is
 * positive and below 2^18, where the second quotient is floor(x / 251): its error, x / 251 * 128 / 2^32, is far below
 * 1 / 251. What is left of x is then in 0 .. 250, and 125 less is the residue in -125 .. 125. */
DEVICE_FN int32_t chain_element(int32_t sum, int32_t scale)
{
    const int32_t rest = sum - PROBE_FIELD * __mulhi(sum, 17111424);
    const uint32_t x = (uint32_t)(rest * scale + PROBE_FIELD * 256 + PROBE_FIELD_HALF);
    return (int32_t)(x - PROBE_FIELD * __umulhi(x, 17111424u)) - PROBE_FIELD_HALF;
}

#endif
