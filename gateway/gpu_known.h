/* GPU names that a caller may ask for: those of the built-in catalogue, canonical or as people say them. */
#ifndef SLUICE_GATEWAY_GPU_KNOWN_H
#define SLUICE_GATEWAY_GPU_KNOWN_H

#include "core/str.h"

#define GPU_NEAR_MAX 5
#define GPU_NEAR_TEXT_MAX 150

/* Does it mean a model of the catalogue? ERR_NOT_FOUND: no; then ret_near lists the names nearest to it, by letters
 * that differ ("nvidia/rtx4090-24, nvidia/rtx4080-16"). */
MUST_CHECK enum error gpu_known(struct str said, char ret_near[static GPU_NEAR_TEXT_MAX]);

#endif
