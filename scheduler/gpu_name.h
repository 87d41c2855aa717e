/* GPU names: canonical ("nvidia/h100-sxm-80") and as people say them ("h100", "RTX 4090", "A100-80GB"). */
#ifndef SLUICE_SCHEDULER_GPU_NAME_H
#define SLUICE_SCHEDULER_GPU_NAME_H

#include "core/str.h"

/* Does what somebody said mean this canonical name? Case, blanks, '-', '_' and '/' do not matter. The model must be
 * said; vendor, form and memory may be left out ("h100" means every H100), and so may "rtx" or "gtx" before a number.
 */
bool gpu_name_means(struct str said, struct str canonical);

#endif
