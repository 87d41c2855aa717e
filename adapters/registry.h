/* The adapters that are built in: one extern and one row in registry.c each. */
#ifndef SLUICE_ADAPTERS_REGISTRY_H
#define SLUICE_ADAPTERS_REGISTRY_H

#include "adapters/adapter.h"

extern const struct adapter adapter_akash; /* akash.c */
extern const struct adapter adapter_aws;   /* aws.c */
extern const struct adapter adapter_fake;  /* fake.c */
extern const struct adapter adapter_ionet;
extern const struct adapter adapter_kubernetes; /* kubernetes.c */
extern const struct adapter adapter_nosana;
extern const struct adapter adapter_runpod;
extern const struct adapter adapter_lambda; /* lambda.c */
extern const struct adapter adapter_vast; /* vast.c */

#endif
