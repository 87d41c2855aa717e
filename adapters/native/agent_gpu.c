#include "adapters/native/agent.h"

#include "core/config.h"
#include "probes/catalogue.h"

bool agent_gpu_name(struct str driver_name, uint64_t vram_bytes, char *ret, size_t size)
{
    struct catalogue *catalogue = NULL;
    char error[CONFIG_ERROR_MAX];
    if (catalogue_open(NULL, &catalogue, error) != ERR_NONE)
        return false;
    const struct gpu_class *class = catalogue_of_driver_name(catalogue, driver_name, vram_bytes);
    bool is_known = class && str_copy(ret, size, str_of(class->name));
    catalogue_free(catalogue);
    return is_known;
}
