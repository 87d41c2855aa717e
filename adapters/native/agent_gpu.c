#include "adapters/native/agent.h"

#include <string.h>

/* Parts of the driver's name, all of which must be in it; the first row that fits counts. */
static const struct {
    const char *parts[3];
    const char *name;
} gpu_names[] = {
    {{"B200", NULL, NULL}, "nvidia/b200-sxm-180"},
    {{"H200", "NVL", NULL}, "nvidia/h200-nvl-141"},
    {{"H200", NULL, NULL}, "nvidia/h200-sxm-141"},
    {{"H100", "NVL", NULL}, "nvidia/h100-nvl-94"},
    {{"H100", "PCIe", NULL}, "nvidia/h100-pcie-80"},
    {{"H100", "HBM3", NULL}, "nvidia/h100-sxm-80"},
    {{"A100", "SXM4", "40GB"}, "nvidia/a100-sxm-40"},
    {{"A100", "SXM4", "80GB"}, "nvidia/a100-sxm-80"},
    {{"A100", "PCIE", "40GB"}, "nvidia/a100-pcie-40"},
    {{"A100", "PCIe", "80GB"}, "nvidia/a100-pcie-80"},
    {{"RTX 6000 Ada", NULL, NULL}, "nvidia/rtx6000-ada-48"},
    {{"RTX A6000", NULL, NULL}, "nvidia/rtxa6000-48"},
    {{"RTX 5090", NULL, NULL}, "nvidia/rtx5090-32"},
    {{"RTX 4090", NULL, NULL}, "nvidia/rtx4090-24"},
    {{"RTX 3090", NULL, NULL}, "nvidia/rtx3090-24"},
    {{"L40S", NULL, NULL}, "nvidia/l40s-48"},
    {{"L40", NULL, NULL}, "nvidia/l40-48"},
    {{"L4", NULL, NULL}, "nvidia/l4-24"},
    {{"A10G", NULL, NULL}, "nvidia/a10g-24"},
    {{"A10", NULL, NULL}, "nvidia/a10-24"},
    {{"T4", NULL, NULL}, "nvidia/t4-16"},
    {{"V100", "SXM2", "16GB"}, "nvidia/v100-sxm-16"},
    {{"V100", "SXM2", "32GB"}, "nvidia/v100-sxm-32"},
};

static bool is_word_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* "L4" is in "NVIDIA L4" but not in "NVIDIA L40". */
static bool has_part(struct str text, const char *part)
{
    size_t len = strlen(part);
    for (size_t i = 0; i + len <= text.len; i++) {
        bool starts = i == 0 || !is_word_char(text.ptr[i - 1]);
        bool ends = i + len == text.len || !is_word_char(text.ptr[i + len]);
        if (starts && ends && memcmp(text.ptr + i, part, len) == 0)
            return true;
    }
    return false;
}

bool agent_gpu_name(struct str driver_name, char *ret, size_t size)
{
    for (size_t row = 0; row < sizeof(gpu_names) / sizeof(gpu_names[0]); row++) {
        bool fits = true;
        for (size_t i = 0; i < 3 && gpu_names[row].parts[i]; i++)
            fits = fits && (has_part(driver_name, gpu_names[row].parts[i]));
        /* A laptop's or a smaller variant's chip is another one. */
        if (fits && !has_part(driver_name, "Laptop") && !has_part(driver_name, "Ti") && !has_part(driver_name, "D"))
            return str_copy(ret, size, str_of(gpu_names[row].name));
    }
    return false;
}
