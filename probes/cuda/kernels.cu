/* All kernels as one module: one fat binary to build in and to load. */
#include "probes/cuda/bench.cu"
#include "probes/cuda/chain_data.cu"
#include "probes/cuda/chain_product.cu"
#include "probes/cuda/fill.cu"
#include "probes/cuda/pass.cu"
#include "probes/cuda/rows.cu"
#include "probes/cuda/walk.cu"
