/* The vector forms of stream.h: inside stream.c. Each makes blocks of a run in whole groups, the same bits as
 * probe_chacha. */
#ifndef SLUICE_PROBES_STREAM_FORMS_H
#define SLUICE_PROBES_STREAM_FORMS_H

#include "probes/stream.h"

#if defined(__x86_64__)
enum { STREAM_AVX2_BLOCKS = 8, STREAM_AVX512_BLOCKS = 16 };
void stream_make_avx2(const struct stream *stream, uint32_t first, uint8_t *ret);   /* 8 blocks */
void stream_make_avx512(const struct stream *stream, uint32_t first, uint8_t *ret); /* 16 blocks */
#endif

#endif
