/* The table of networks. A new adapter adds its name to registry.h and here. */
#include "adapters/registry.h"

// clang-format off
static const struct adapter *const adapters[] = {
    &adapter_akash,
    &adapter_aws,
    &adapter_fake,
    &adapter_ionet,
    &adapter_kubernetes,
    &adapter_lambda,
    &adapter_nosana,
    &adapter_runpod,
    &adapter_vast,
    NULL, /* the end */
};
// clang-format on

size_t adapter_count(void)
{
    return sizeof(adapters) / sizeof(adapters[0]) - 1;
}

const struct adapter *adapter_at(size_t i)
{
    return i < adapter_count() ? adapters[i] : NULL;
}

const struct adapter *adapter_find(struct str name)
{
    for (size_t i = 0; i < adapter_count(); i++)
        if (str_eq(name, str_of(adapters[i]->name)))
            return adapters[i];
    return NULL;
}
