#include "probes/cuda/kernels.h"

/* The Makefile says where the kernels lie, when there was an nvcc to compile them. */
#ifdef PROBE_FATBIN
__asm__(".section .rodata\n.global probe_fatbin\n.type probe_fatbin, @object\n.balign 64\nprobe_fatbin:\n"
        ".incbin \"" PROBE_FATBIN "\"\n1:\n.balign 8\n.global probe_fatbin_len\n.type probe_fatbin_len, @object\n"
        "probe_fatbin_len:\n.quad 1b - probe_fatbin\n.previous\n");
#else
const unsigned char probe_fatbin[1];
const uint64_t probe_fatbin_len = 0;
#endif
