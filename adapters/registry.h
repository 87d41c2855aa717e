/* The adapters that are built in: each says here that it is there, and has a row in registry.c. */
#ifndef SLUICE_ADAPTERS_REGISTRY_H
#define SLUICE_ADAPTERS_REGISTRY_H

#include "adapters/adapter.h"

extern const struct adapter adapter_akash;
extern const struct adapter adapter_aws;
extern const struct adapter adapter_fake;
extern const struct adapter adapter_ionet;
extern const struct adapter adapter_kubernetes;
extern const struct adapter adapter_lambda;
extern const struct adapter adapter_nosana;
extern const struct adapter adapter_runpod;
extern const struct adapter adapter_vast;

#endif
