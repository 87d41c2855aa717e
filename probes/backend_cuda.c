#include "probes/backend.h"
#include "probes/cuda_driver.h"

static unsigned cuda_count(void)
{
    return 0; /* no kernels are built in */
}

static enum error cuda_open(unsigned index, struct probe_backend **ret)
{
    (void)index;
    (void)ret;
    return ERR_NOT_FOUND;
}

static struct probe_backend *cuda_close(struct probe_backend *backend)
{
    (void)backend;
    return NULL;
}

const struct probe_backend_ops probe_backend_cuda = {
    .name = "cuda", .count = cuda_count, .open = cuda_open, .close = cuda_close};
