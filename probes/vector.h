/* Which vector instructions the arithmetic of the challenges uses. Every form gives the same bits. */
#ifndef SLUICE_PROBES_VECTOR_H
#define SLUICE_PROBES_VECTOR_H

enum probe_vector {
    PROBE_VECTOR_PORTABLE,
    PROBE_VECTOR_AVX2,
    PROBE_VECTOR_AVX512, /* F, BW, DQ, VL and VNNI together */
};
enum probe_vector probe_vector_best(void); /* of this CPU */
/* For tests and benches: everything after this uses at most that; the CPU must have it. */
void probe_vector_force(enum probe_vector vector);
enum probe_vector probe_vector_now(void); /* what was forced, or the best */

#endif
