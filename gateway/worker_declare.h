/* What a worker says of itself when it registers: checked and taken over into its record. Pure. */
#ifndef SLUICE_GATEWAY_WORKER_DECLARE_H
#define SLUICE_GATEWAY_WORKER_DECLARE_H

#include "gateway/api_error.h"
#include "scheduler/worker_store.h"
#include <jansson.h>

#define DECLARED_GPUS_MAX 1024
#define DECLARED_SLOTS_MAX 4096
#define DECLARED_PRICE_MAX_USD_NANO (INT64_C(10000) * 1000000000) /* a GPU-hour */
#define DECLARED_TAGS_MAX 16

/* Fills name, gpu, gpu_raw, region, tags, gpus, slots, price and vram of *ret. False with *error (a 400 with the
 * field's name) set. Fields that are not ours are passed over: an agent may be newer than its gateway. */
MUST_CHECK bool worker_declare(const json_t *body, struct worker_record *ret, struct api_error *error);
/* "cpu", or "vendor/model[-form][-memory]" in lower case. */
bool worker_gpu_is_canonical(struct str gpu);
/* The memory of one GPU as its canonical name tells, in bytes; 0 when it does not. */
uint64_t worker_gpu_vram(struct str gpu);
/* Does the change need a new proof? Then *admission becomes what is to be stored: nothing that was proven counts, but a
 * suspension stays as long as it would have. */
bool worker_redeclared(const struct worker_record *old, const struct worker_record *declared,
                       struct admission *ret_admission);

#endif
