#include "tests/unit/cmocka_all.h"

#include "probes/catalogue_priv.h"
#include "probes/gpu_names.h"
#include "probes/gpu_names_priv.h"

#include <stdio.h>
#include <string.h>

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)
#define GB UINT64_C(1000000000)

struct spelling {
    const char *raw, *form;
    uint64_t vram_bytes;
    const char *name; /* NULL: unknown */
};

static void expect(const struct spelling *rows, size_t count)
{
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        struct gpu_identity got;
        const char *name = rows[i].name ? rows[i].name : "";
        bool known = gpu_identify(str_of(rows[i].raw), str_of(rows[i].form), rows[i].vram_bytes, &got);
        if (known == (*name != '\0') && strcmp(got.name, name) == 0 && !got.is_slice &&
            got.fraction_ppm == (known ? GPU_WHOLE_PPM : 0))
            continue;
        wrong++;
        print_message("%s (%s, %.1f GiB): %s and not %s%s\n", rows[i].raw, rows[i].form ? rows[i].form : "-",
                      (double)rows[i].vram_bytes / (double)GIB, got.name, name, got.is_slice ? " (slice)" : "");
    }
    assert_int_equal(wrong, 0);
}

#define EXPECT(rows) expect(rows, sizeof(rows) / sizeof((rows)[0]))

/* gpu_name, with gpu_ram in MiB as it comes */
static void vast(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"RTX 4090", NULL, 24564 * MIB, "nvidia/rtx4090-24"},
        {"RTX 4090", NULL, 0, "nvidia/rtx4090-24"},
        {"RTX 4090", NULL, 49140 * MIB, NULL}, /* rebuilt with twice the memory */
        {"RTX 4090D", NULL, 24564 * MIB, "nvidia/rtx4090d-24"},
        {"RTX 4090D", NULL, 49140 * MIB, NULL},
        {"H100 SXM", NULL, 81559 * MIB, "nvidia/h100-sxm-80"},
        {"H100 PCIE", NULL, 81559 * MIB, "nvidia/h100-pcie-80"},
        {"H100 NVL", NULL, 95830 * MIB, "nvidia/h100-nvl-94"},
        {"A100 SXM4", NULL, 40960 * MIB, "nvidia/a100-sxm-40"},
        {"A100 SXM4", NULL, 81920 * MIB, "nvidia/a100-sxm-80"},
        {"A100 SXM", NULL, 81251 * MIB, "nvidia/a100-sxm-80"},
        {"A100 SXM4", NULL, 0, NULL},
        {"A100 PCIE", NULL, 40960 * MIB, "nvidia/a100-pcie-40"},
        {"A100 PCIE", NULL, 81920 * MIB, "nvidia/a100-pcie-80"},
        {"A100X", NULL, 81920 * MIB, "nvidia/a100x-80"},
        {"A800 PCIE", NULL, 81920 * MIB, "nvidia/a800-pcie-80"},
        {"H200", NULL, 143771 * MIB, "nvidia/h200-sxm-141"},
        {"H200 NVL", NULL, 143771 * MIB, "nvidia/h200-nvl-141"},
        {"B200", NULL, 183359 * MIB, "nvidia/b200-sxm-180"},
        {"GH200 SXM", NULL, 97871 * MIB, "nvidia/gh200-96"},
        {"GH200 SXM", NULL, 147456 * MIB, "nvidia/gh200-144"},
        {"GH200 SXM", NULL, 0, NULL},
        {"A10", NULL, 23028 * MIB, "nvidia/a10-24"},
        {"A10g", NULL, 23028 * MIB, "nvidia/a10g-24"},
        {"A16", NULL, 15356 * MIB, "nvidia/a16-16"},
        {"A30", NULL, 24576 * MIB, "nvidia/a30-24"},
        {"A40", NULL, 46068 * MIB, "nvidia/a40-48"},
        {"L4", NULL, 23034 * MIB, "nvidia/l4-24"},
        {"L40", NULL, 46068 * MIB, "nvidia/l40-48"},
        {"L40S", NULL, 46068 * MIB, "nvidia/l40s-48"},
        {"Tesla T4", NULL, 15360 * MIB, "nvidia/t4-16"},
        {"Tesla V100", NULL, 32768 * MIB, NULL}, /* SXM2 or PCIe */
        {"Tesla P100", NULL, 16384 * MIB, "nvidia/p100-16"},
        {"Tesla P40", NULL, 24576 * MIB, "nvidia/p40-24"},
        {"Tesla K80", NULL, 11441 * MIB, NULL},
        {"RTX 6000Ada", NULL, 49140 * MIB, "nvidia/rtx6000ada-48"},
        {"RTX 5880Ada", NULL, 49140 * MIB, "nvidia/rtx5880ada-48"},
        {"RTX 5000Ada", NULL, 32760 * MIB, "nvidia/rtx5000ada-32"},
        {"RTX 4500Ada", NULL, 24570 * MIB, "nvidia/rtx4500ada-24"},
        {"RTX 4000Ada", NULL, 20475 * MIB, "nvidia/rtx4000ada-20"},
        {"RTX 2000Ada", NULL, 16380 * MIB, "nvidia/rtx2000ada-16"},
        {"RTX A6000", NULL, 49140 * MIB, "nvidia/rtxa6000-48"},
        {"RTX A5000", NULL, 24564 * MIB, "nvidia/rtxa5000-24"},
        {"RTX A4500", NULL, 20470 * MIB, "nvidia/rtxa4500-20"},
        {"RTX A4000", NULL, 16376 * MIB, "nvidia/rtxa4000-16"},
        {"RTX A2000", NULL, 12282 * MIB, "nvidia/rtxa2000-12"},
        {"RTX A2000", NULL, 0, NULL},
        {"Q RTX 8000", NULL, 49152 * MIB, "nvidia/rtx8000-48"},
        {"Q RTX 6000", NULL, 24576 * MIB, "nvidia/rtx6000-24"},
        {"Q RTX 5000", NULL, 16384 * MIB, "nvidia/rtx5000-16"},
        {"Q RTX 4000", NULL, 8192 * MIB, "nvidia/rtx4000-8"},
        {"RTX PRO 6000 S", NULL, 97887 * MIB, "nvidia/rtxpro6000-96"},
        {"RTX PRO 6000 WS", NULL, 97887 * MIB, "nvidia/rtxpro6000-ws-96"},
        {"RTX PRO 6000 Max-Q", NULL, 97887 * MIB, "nvidia/rtxpro6000-maxq-96"},
        {"RTX PRO 6000", NULL, 97887 * MIB, NULL}, /* one of those three */
        {"RTX PRO 5000", NULL, 48935 * MIB, "nvidia/rtxpro5000-48"},
        {"RTX PRO 4500", NULL, 32623 * MIB, "nvidia/rtxpro4500-32"},
        {"RTX PRO 4000", NULL, 24467 * MIB, "nvidia/rtxpro4000-24"},
        {"RTX PRO 4000 Mobile", NULL, 16384 * MIB, NULL},
        {"RTX 5090", NULL, 32607 * MIB, "nvidia/rtx5090-32"},
        {"RTX 5090 Ti", NULL, 32607 * MIB, NULL},
        {"RTX 5080", NULL, 16303 * MIB, "nvidia/rtx5080-16"},
        {"RTX 5070 Ti", NULL, 16303 * MIB, "nvidia/rtx5070ti-16"},
        {"RTX 5070", NULL, 12227 * MIB, "nvidia/rtx5070-12"},
        {"RTX 5060 Ti", NULL, 16311 * MIB, "nvidia/rtx5060ti-16"},
        {"RTX 5060 Ti", NULL, 8151 * MIB, "nvidia/rtx5060ti-8"},
        {"RTX 5060 Ti", NULL, 0, NULL},
        {"RTX 5060", NULL, 8151 * MIB, "nvidia/rtx5060-8"},
        {"RTX 4090 Ti", NULL, 24564 * MIB, NULL},
        {"RTX 4080", NULL, 16376 * MIB, "nvidia/rtx4080-16"},
        {"RTX 4080S", NULL, 16376 * MIB, "nvidia/rtx4080s-16"},
        {"RTX 4080 laptop", NULL, 12282 * MIB, NULL},
        {"RTX 4070", NULL, 12282 * MIB, "nvidia/rtx4070-12"},
        {"RTX 4070S", NULL, 12282 * MIB, "nvidia/rtx4070s-12"},
        {"RTX 4070 Ti", NULL, 12282 * MIB, "nvidia/rtx4070ti-12"},
        {"RTX 4070S Ti", NULL, 16376 * MIB, "nvidia/rtx4070tis-16"},
        {"RTX 4070 laptop", NULL, 8188 * MIB, NULL},
        {"RTX 4060 Ti", NULL, 16380 * MIB, "nvidia/rtx4060ti-16"},
        {"RTX 4060 Ti", NULL, 8188 * MIB, "nvidia/rtx4060ti-8"},
        {"RTX 4060", NULL, 8188 * MIB, "nvidia/rtx4060-8"},
        {"RTX 4060 laptop", NULL, 8188 * MIB, NULL},
        {"RTX 3090", NULL, 24576 * MIB, "nvidia/rtx3090-24"},
        {"RTX 3090 Ti", NULL, 24564 * MIB, "nvidia/rtx3090ti-24"},
        {"RTX 3080 Ti", NULL, 12288 * MIB, "nvidia/rtx3080ti-12"},
        {"RTX 3080", NULL, 10240 * MIB, "nvidia/rtx3080-10"},
        {"RTX 3080", NULL, 12288 * MIB, "nvidia/rtx3080-12"},
        {"RTX 3080", NULL, 0, NULL},
        {"RTX 3070 Ti", NULL, 8192 * MIB, "nvidia/rtx3070ti-8"},
        {"RTX 3070", NULL, 8192 * MIB, "nvidia/rtx3070-8"},
        {"RTX 3070 laptop", NULL, 8192 * MIB, NULL},
        {"RTX 3060 Ti", NULL, 8192 * MIB, "nvidia/rtx3060ti-8"},
        {"RTX 3060", NULL, 12288 * MIB, "nvidia/rtx3060-12"},
        {"RTX 3060", NULL, 8192 * MIB, "nvidia/rtx3060-8"},
        {"RTX 3060", NULL, 0, NULL},
        {"RTX 3060 laptop", NULL, 6144 * MIB, NULL},
        {"RTX 3050", NULL, 8192 * MIB, "nvidia/rtx3050-8"},
        {"RTX 3050", NULL, 0, NULL},
        {"RTX 2080 Ti", NULL, 11264 * MIB, "nvidia/rtx2080ti-11"},
        {"RTX 2080 Ti", NULL, 22528 * MIB, NULL},
        {"RTX 2080S", NULL, 8192 * MIB, "nvidia/rtx2080s-8"},
        {"RTX 2080", NULL, 8192 * MIB, "nvidia/rtx2080-8"},
        {"RTX 2070S", NULL, 8192 * MIB, "nvidia/rtx2070s-8"},
        {"RTX 2070", NULL, 8192 * MIB, "nvidia/rtx2070-8"},
        {"RTX 2060S", NULL, 8192 * MIB, "nvidia/rtx2060s-8"},
        {"RTX 2060", NULL, 6144 * MIB, "nvidia/rtx2060-6"},
        {"RTX 2060", NULL, 0, NULL},
        {"GTX 1080 Ti", NULL, 11264 * MIB, "nvidia/gtx1080ti-11"},
        {"GTX 1080", NULL, 8192 * MIB, "nvidia/gtx1080-8"},
        {"GTX 1660 S", NULL, 6144 * MIB, NULL},
        {"Titan RTX", NULL, 24576 * MIB, "nvidia/titanrtx-24"},
        {"Titan V", NULL, 12288 * MIB, "nvidia/titanv-12"},
        {"TITAN V CEO", NULL, 32768 * MIB, NULL},
        {"Titan Xp", NULL, 12288 * MIB, NULL},
        {"CMP 170HX", NULL, 8192 * MIB, NULL},
        {"Quadro GV100", NULL, 32768 * MIB, NULL},
        {"InstinctMI100", NULL, 32752 * MIB, "amd/mi100-32"},
        {"InstinctMI210", NULL, 65520 * MIB, "amd/mi210-64"},
        {"InstinctMI50", NULL, 16368 * MIB, "amd/mi50-16"},
        {"RX 7900 XTX", NULL, 24560 * MIB, "amd/rx7900xtx-24"},
        {"RX 7900 XT", NULL, 20464 * MIB, "amd/rx7900xt-20"},
        {"RX 7900 GRE", NULL, 16368 * MIB, NULL},
        {"PRO W7900", NULL, 46068 * MIB, "amd/w7900-48"},
        {"Radeon VII", NULL, 16368 * MIB, NULL},
    };
    EXPECT(rows);
}

/* ids of its catalogue (drivers' names) and what it shows instead; memory in GB */
static void runpod(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"AMD Instinct MI300X OAM", NULL, 192 * GB, "amd/mi300x-192"},
        {"MI300X", NULL, 192 * GB, "amd/mi300x-192"},
        {"NVIDIA A100 80GB PCIe", NULL, 80 * GB, "nvidia/a100-pcie-80"},
        {"A100 PCIe", NULL, 80 * GB, "nvidia/a100-pcie-80"},
        {"NVIDIA A100-SXM4-80GB", NULL, 80 * GB, "nvidia/a100-sxm-80"},
        {"NVIDIA A100-SXM4-40GB", NULL, 40 * GB, "nvidia/a100-sxm-40"},
        {"A100 SXM", NULL, 80 * GB, "nvidia/a100-sxm-80"},
        {"NVIDIA A30", NULL, 24 * GB, "nvidia/a30-24"},
        {"NVIDIA A40", NULL, 48 * GB, "nvidia/a40-48"},
        {"NVIDIA B200", NULL, 180 * GB, "nvidia/b200-sxm-180"},
        {"NVIDIA B300 SXM6 AC", NULL, 288 * GB, "nvidia/b300-sxm-288"},
        {"NVIDIA GeForce RTX 3070", NULL, 8 * GB, "nvidia/rtx3070-8"},
        {"NVIDIA GeForce RTX 3080", NULL, 10 * GB, "nvidia/rtx3080-10"},
        {"NVIDIA GeForce RTX 3080 Ti", NULL, 12 * GB, "nvidia/rtx3080ti-12"},
        {"NVIDIA GeForce RTX 3090", NULL, 24 * GB, "nvidia/rtx3090-24"},
        {"NVIDIA GeForce RTX 3090 Ti", NULL, 24 * GB, "nvidia/rtx3090ti-24"},
        {"NVIDIA GeForce RTX 4070 Ti", NULL, 12 * GB, "nvidia/rtx4070ti-12"},
        {"NVIDIA GeForce RTX 4080", NULL, 16 * GB, "nvidia/rtx4080-16"},
        {"NVIDIA GeForce RTX 4080 SUPER", NULL, 16 * GB, "nvidia/rtx4080s-16"},
        {"NVIDIA GeForce RTX 4090", NULL, 24 * GB, "nvidia/rtx4090-24"},
        {"NVIDIA GeForce RTX 4090 Laptop GPU", NULL, 16 * GB, NULL},
        {"NVIDIA GeForce RTX 5080", NULL, 16 * GB, "nvidia/rtx5080-16"},
        {"NVIDIA GeForce RTX 5090", NULL, 32 * GB, "nvidia/rtx5090-32"},
        {"NVIDIA H100 80GB HBM3", NULL, 80 * GB, "nvidia/h100-sxm-80"},
        {"H100 SXM", NULL, 80 * GB, "nvidia/h100-sxm-80"},
        {"NVIDIA H100 NVL", NULL, 94 * GB, "nvidia/h100-nvl-94"},
        {"NVIDIA H100 PCIe", NULL, 80 * GB, "nvidia/h100-pcie-80"},
        {"NVIDIA H200", NULL, 141 * GB, "nvidia/h200-sxm-141"},
        {"H200 SXM", NULL, 141 * GB, "nvidia/h200-sxm-141"},
        {"NVIDIA H200 NVL", NULL, 143 * GB, "nvidia/h200-nvl-141"},
        {"NVIDIA L4", NULL, 24 * GB, "nvidia/l4-24"},
        {"NVIDIA L40", NULL, 48 * GB, "nvidia/l40-48"},
        {"NVIDIA L40S", NULL, 48 * GB, "nvidia/l40s-48"},
        {"NVIDIA RTX 2000 Ada Generation", NULL, 16 * GB, "nvidia/rtx2000ada-16"},
        {"NVIDIA RTX 4000 Ada Generation", NULL, 20 * GB, "nvidia/rtx4000ada-20"},
        {"NVIDIA RTX 4000 SFF Ada Generation", NULL, 20 * GB, "nvidia/rtx4000sffada-20"},
        {"RTX 4000 Ada SFF", NULL, 20 * GB, "nvidia/rtx4000sffada-20"},
        {"NVIDIA RTX 5000 Ada Generation", NULL, 32 * GB, "nvidia/rtx5000ada-32"},
        {"NVIDIA RTX 6000 Ada Generation", NULL, 48 * GB, "nvidia/rtx6000ada-48"},
        {"RTX 6000 Ada", NULL, 48 * GB, "nvidia/rtx6000ada-48"},
        {"NVIDIA RTX A2000", NULL, 6 * GB, "nvidia/rtxa2000-6"},
        {"NVIDIA RTX A4000", NULL, 16 * GB, "nvidia/rtxa4000-16"},
        {"NVIDIA RTX A4500", NULL, 20 * GB, "nvidia/rtxa4500-20"},
        {"NVIDIA RTX A5000", NULL, 24 * GB, "nvidia/rtxa5000-24"},
        {"NVIDIA RTX A6000", NULL, 48 * GB, "nvidia/rtxa6000-48"},
        {"NVIDIA RTX PRO 6000 Blackwell Server Edition", NULL, 96 * GB, "nvidia/rtxpro6000-96"},
        {"NVIDIA RTX PRO 6000 Blackwell Workstation Edition", NULL, 96 * GB, "nvidia/rtxpro6000-ws-96"},
        {"NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", NULL, 96 * GB, "nvidia/rtxpro6000-maxq-96"},
        {"Tesla V100-FHHL-16GB", NULL, 16 * GB, NULL},
        {"Tesla V100-PCIE-16GB", NULL, 16 * GB, "nvidia/v100-pcie-16"},
        {"Tesla V100-SXM2-16GB", NULL, 16 * GB, "nvidia/v100-sxm-16"},
        {"Tesla V100-SXM2-32GB", NULL, 32 * GB, "nvidia/v100-sxm-32"},
        {"V100 SXM2 32GB", NULL, 32 * GB, "nvidia/v100-sxm-32"},
    };
    EXPECT(rows);
}

static void lambda(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"1x H100 (80 GB SXM5)", NULL, 0, "nvidia/h100-sxm-80"},
        {"8x H100 (80 GB SXM5)", NULL, 0, "nvidia/h100-sxm-80"},
        {"H100 (80 GB PCIe)", NULL, 0, "nvidia/h100-pcie-80"},
        {"1x A100 (40 GB SXM4)", NULL, 0, "nvidia/a100-sxm-40"},
        {"8x A100 (80 GB SXM4)", NULL, 0, "nvidia/a100-sxm-80"},
        {"1x A100 (40 GB PCIe)", NULL, 0, "nvidia/a100-pcie-40"},
        {"1x A100 (40 GB)", NULL, 0, NULL},
        {"8x Tesla V100 (16 GB)", NULL, 0, "nvidia/v100-sxm-16"},
        {"Tesla V100 (16 GB)", NULL, 0, "nvidia/v100-sxm-16"},
        {"1x A10 (24 GB PCIe)", NULL, 0, "nvidia/a10-24"},
        {"1x A6000 (48 GB)", NULL, 0, "nvidia/rtxa6000-48"},
        {"1x RTX 6000 (24 GB)", NULL, 0, "nvidia/rtx6000-24"},
        {"1x RTX 6000 (48 GB)", NULL, 0, NULL},
        {"1x GH200 (96 GB)", NULL, 0, "nvidia/gh200-96"},
        {"8x B200 (180 GB SXM6)", NULL, 0, "nvidia/b200-sxm-180"},
        {"gpu_1x_a10", NULL, 0, "nvidia/a10-24"},
        {"gpu_1x_a100_sxm4", NULL, 0, "nvidia/a100-sxm-40"},
        {"gpu_8x_a100_80gb_sxm4", NULL, 0, "nvidia/a100-sxm-80"},
        {"gpu_1x_h100_pcie", NULL, 0, "nvidia/h100-pcie-80"},
        {"gpu_1x_h100_sxm5", NULL, 0, "nvidia/h100-sxm-80"},
        {"gpu_8x_h100_sxm5", NULL, 0, "nvidia/h100-sxm-80"},
        {"gpu_1x_gh200", NULL, 0, "nvidia/gh200-96"},
        {"gpu_1x_b200_sxm6", NULL, 0, "nvidia/b200-sxm-180"},
        {"gpu_1x_a6000", NULL, 0, "nvidia/rtxa6000-48"},
        {"gpu_1x_rtx6000", NULL, 0, "nvidia/rtx6000-24"},
        {"gpu_8x_v100", NULL, 0, "nvidia/v100-sxm-16"},
        {"cpu_4x_general", NULL, 0, "cpu"},
    };
    EXPECT(rows);
}

static void kubernetes(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"A100-SXM4-40GB", NULL, 39538 * MIB, "nvidia/a100-sxm-40"},
        {"Tesla-T4", NULL, 15360 * MIB, "nvidia/t4-16"},
        {"NVIDIA-H100-80GB-HBM3", NULL, 81559 * MIB, "nvidia/h100-sxm-80"},
        {"NVIDIA-H100-80GB-HBM3", "PCIe", 81559 * MIB, NULL},
        {"NVIDIA-H100-PCIe", NULL, 81559 * MIB, "nvidia/h100-pcie-80"},
        {"NVIDIA-GeForce-RTX-4090", NULL, 24564 * MIB, "nvidia/rtx4090-24"},
        {"NVIDIA-RTX-A6000", NULL, 49140 * MIB, "nvidia/rtxa6000-48"},
        {"NVIDIA-RTX-6000-Ada-Generation", NULL, 49140 * MIB, "nvidia/rtx6000ada-48"},
        {"Quadro-RTX-6000", NULL, 24576 * MIB, "nvidia/rtx6000-24"},
        {"NVIDIA-H200", NULL, 143771 * MIB, "nvidia/h200-sxm-141"},
        {"NVIDIA-H20", NULL, 97871 * MIB, "nvidia/h20-96"},
        {"NVIDIA-H20", NULL, 143771 * MIB, "nvidia/h20-141"},
        {"NVIDIA-H20", NULL, 0, NULL},
        {"NVIDIA-H800", NULL, 81559 * MIB, NULL},
        {"NVIDIA-A800-SXM4-80GB", NULL, 81920 * MIB, "nvidia/a800-sxm-80"},
        {"NVIDIA-GH200-480GB", NULL, 97871 * MIB, "nvidia/gh200-96"},
        {"NVIDIA-GH200-144G-HBM3e", NULL, 147456 * MIB, "nvidia/gh200-144"},
        {"NVIDIA-GB200", NULL, 189471 * MIB, "nvidia/gb200-186"},
        {"AMD_Instinct_MI300X", NULL, 0, "amd/mi300x-192"},
        {"74a1", NULL, 0, "amd/mi300x-192"},
        {"74b5", NULL, 0, "amd/mi300x-192"},
        {"74a5", NULL, 256 * GIB, "amd/mi325x-256"},
        {"75a0", NULL, 0, "amd/mi350x-288"},
        {"75a3", NULL, 288 * GIB, "amd/mi355x-288"},
        {"740F", NULL, 0, "amd/mi210-64"},
        {"nvidia-h100-80gb", "HGX", 0, "nvidia/h100-sxm-80"}, /* GKE */
        {"nvidia-h100-mega-80gb", NULL, 0, "nvidia/h100-sxm-80"},
        {"nvidia-h200-141gb", "HGX", 0, "nvidia/h200-sxm-141"},
        {"nvidia-tesla-a100", "HGX", 0, "nvidia/a100-sxm-40"},
        {"nvidia-a100-80gb", "HGX", 0, "nvidia/a100-sxm-80"},
        {"nvidia-tesla-t4", "HGX", 0, "nvidia/t4-16"},
        {"nvidia-l4", "HGX", 0, "nvidia/l4-24"},
        {"nvidia-b200", "HGX", 0, "nvidia/b200-sxm-180"},
        {"h100", "HGX", 0, "nvidia/h100-sxm-80"},            /* EKS */
        {"gd-8xh100ib-i128", NULL, 0, "nvidia/h100-sxm-80"}, /* CoreWeave */
        {"cd-gp-i64-erapids", NULL, 0, "cpu"},
        {"H100_NVLINK_80GB", NULL, 81559 * MIB, "nvidia/h100-sxm-80"},
        {"A100_NVLINK_80GB", NULL, 81920 * MIB, "nvidia/a100-sxm-80"},
        {"A100_PCIE_40GB", NULL, 0, "nvidia/a100-pcie-40"},
        {"RTX_A6000", NULL, 0, "nvidia/rtxa6000-48"},
        {"Quadro_RTX_4000", NULL, 0, "nvidia/rtx4000-8"},
    };
    EXPECT(rows);
}

/* memoryInfo/sizeInMiB */
static void aws(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"H100", "HGX", 81920 * MIB, "nvidia/h100-sxm-80"},
        {"H200", "HGX", 144384 * MIB, "nvidia/h200-sxm-141"},
        {"A100", "HGX", 40960 * MIB, "nvidia/a100-sxm-40"},
        {"A100", "HGX", 81920 * MIB, "nvidia/a100-sxm-80"},
        {"A100", "HGX", 0, NULL},
        {"A10G", "HGX", 22888 * MIB, "nvidia/a10g-24"},
        {"L4", "HGX", 22888 * MIB, "nvidia/l4-24"},
        {"L40S", "HGX", 45776 * MIB, "nvidia/l40s-48"},
        {"T4", "HGX", 16384 * MIB, "nvidia/t4-16"},
        {"T4g", "HGX", 16384 * MIB, "nvidia/t4g-16"},
        {"V100", "HGX", 16384 * MIB, "nvidia/v100-sxm-16"},
        {"V100", "HGX", 32768 * MIB, "nvidia/v100-sxm-32"},
        {"B200", "HGX", 183359 * MIB, "nvidia/b200-sxm-180"},
        {"RTX PRO Server 6000", "HGX", 98304 * MIB, "nvidia/rtxpro6000-96"},
        {"p5.48xlarge", NULL, 0, "nvidia/h100-sxm-80"},
        {"p5en.48xlarge", NULL, 0, "nvidia/h200-sxm-141"},
        {"p4d.24xlarge", NULL, 0, "nvidia/a100-sxm-40"},
        {"p4de.24xlarge", NULL, 81920 * MIB, "nvidia/a100-sxm-80"},
        {"p4de.24xlarge", NULL, 40960 * MIB, NULL},
        {"p3.8xlarge", NULL, 0, "nvidia/v100-sxm-16"},
        {"g4dn.xlarge", NULL, 0, "nvidia/t4-16"},
        {"g5.xlarge", NULL, 0, "nvidia/a10g-24"},
        {"g6.12xlarge", NULL, 0, "nvidia/l4-24"},
        {"g6e.xlarge", NULL, 0, "nvidia/l40s-48"},
        {"p6-b200.48xlarge", NULL, 0, "nvidia/b200-sxm-180"},
        {"p9.48xlarge", NULL, 0, NULL},
        {"m7i.large", NULL, 0, NULL},
        {"p5.", NULL, 0, NULL},
    };
    EXPECT(rows);
}

static void akash_nosana_ionet(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"h100", "SXM5", 80 * GIB, "nvidia/h100-sxm-80"}, /* Akash */
        {"h100", "pcie", 80 * GIB, "nvidia/h100-pcie-80"},
        {"h100", "PCIe", 94 * GIB, "nvidia/h100-nvl-94"},
        {"h100", NULL, 80 * GIB, NULL},
        {"vendor/nvidia/model/h100/ram/80Gi/interface/sxm", NULL, 0, "nvidia/h100-sxm-80"},
        {"vendor/nvidia/model/a100/ram/40Gi/interface/PCIe", NULL, 0, "nvidia/a100-pcie-40"},
        {"vendor/nvidia/model/rtx3080", NULL, 0, NULL},
        {"vendor/nvidia/model/rtx4090", NULL, 0, "nvidia/rtx4090-24"},
        {"a100", "SXM4", 80 * GIB, "nvidia/a100-sxm-80"},
        {"rtxa6000", "PCIe", 48 * GIB, "nvidia/rtxa6000-48"},
        {"rtx3090ti", "PCIe", 24 * GIB, "nvidia/rtx3090ti-24"},
        {"rtx4070tisuper", "PCIe", 16 * GIB, "nvidia/rtx4070tis-16"},
        {"rtx8000", "PCIe", 48 * GIB, "nvidia/rtx8000-48"},
        {"pro6000se", "PCIe", 96 * GIB, "nvidia/rtxpro6000-96"},
        {"pro6000we", "PCIe", 96 * GIB, "nvidia/rtxpro6000-ws-96"},
        {"pro6000mq", "PCIe", 96 * GIB, "nvidia/rtxpro6000-maxq-96"},
        {"h200", "SXM5", 141 * GIB, "nvidia/h200-sxm-141"},
        {"h200", "PCIe", 141 * GIB, "nvidia/h200-nvl-141"},
        {"t4", "SXM", 16 * GIB, NULL},
        {"b300", "SXM6", 288 * GIB, "nvidia/b300-sxm-288"},
        {"NVIDIA 5090", NULL, 32 * GB, "nvidia/rtx5090-32"}, /* Nosana */
        {"nvidia-5090", NULL, 0, "nvidia/rtx5090-32"},
        {"NVIDIA 4090", NULL, 0, "nvidia/rtx4090-24"},
        {"nvidia-3060", NULL, 12 * GB, "nvidia/rtx3060-12"},
        {"nvidia-a5000", NULL, 24 * GB, "nvidia/rtxa5000-24"},
        {"NVIDIA H100", NULL, 80 * GB, NULL},
        {"NVIDIA H100 SXM", NULL, 80 * GB, "nvidia/h100-sxm-80"},
        {"NVIDIA RTX A4000", NULL, 0, "nvidia/rtxa4000-16"},
        {"RTX 4070Ti", NULL, 0, "nvidia/rtx4070ti-12"},
        {"H100 PCIe", NULL, 0, "nvidia/h100-pcie-80"}, /* io.net */
        {"H100_sxm", "SXM5", 80 * GB, "nvidia/h100-sxm-80"},
        {"H100_sxm", "NVLink", 80 * GB, "nvidia/h100-sxm-80"},
        {"H100_sxm", "PCIe", 80 * GB, NULL},
        {"B200_sxm6x8", NULL, 0, "nvidia/b200-sxm-180"},
        {"gpu_1x_a6000", NULL, 0, "nvidia/rtxa6000-48"},
    };
    EXPECT(rows);
}

/* The rest of the catalogue's page. */
static void others(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"A100_80GB", "SXM4", 0, "nvidia/a100-sxm-80"}, /* Prime Intellect */
        {"H200_96GB", "SXM5", 0, NULL},
        {"GH200_96GB", NULL, 0, "nvidia/gh200-96"},
        {"B300_262GB", "SXM6", 0, "nvidia/b300-sxm-288"},
        {"RTX6000Ada_48GB", "PCIe", 0, "nvidia/rtx6000ada-48"},
        {"RTX_PRO_6000B_96GB", "PCIe", 0, NULL},
        {"L40S_48GB", "PCIe", 0, "nvidia/l40s-48"},
        {"h100-sxm5-80gb", NULL, 0, "nvidia/h100-sxm-80"}, /* TensorDock */
        {"geforcertx4090-pcie-24gb", NULL, 0, "nvidia/rtx4090-24"},
        {"8x B200 SXM6 180GB", NULL, 0, "nvidia/b200-sxm-180"}, /* Verda */
        {"1x B300 SXM6 268GB", NULL, 0, "nvidia/b300-sxm-288"},
        {"1x H200 SXM5 141GB", NULL, 0, "nvidia/h200-sxm-141"},
        {"1x RTX PRO 6000 96GB", NULL, 0, NULL},
        {"1x RTX 6000 Ada 48GB", NULL, 0, "nvidia/rtx6000ada-48"},
        {"2x_nvidia_a100_80gb_sxm", NULL, 0, "nvidia/a100-sxm-80"}, /* Together */
        {"b200-192gb", NULL, 0, "nvidia/b200-sxm-180"},
        {"8xH100 SXM", NULL, 0, "nvidia/h100-sxm-80"},
        {"RTX4090_PCIE", NULL, 0, "nvidia/rtx4090-24"}, /* Spheron */
        {"H100x8", "SXM5", 0, "nvidia/h100-sxm-80"},    /* Paperspace */
        {"HGX H100", NULL, 0, "nvidia/h100-sxm-80"},
        {"GB200 NVL72", NULL, 0, "nvidia/gb200-186"},
        {"H100 PCIe NVLink", NULL, 0, "nvidia/h100-pcie-80"},
        {"H100-NVLINK", NULL, 0, NULL},
        {"RTX4070TiSUPER", NULL, 0, "nvidia/rtx4070tis-16"},
        {"A4000", NULL, 16 * GB, "nvidia/rtxa4000-16"},
        {"RTX 6000", NULL, 0, NULL},
        {"RTX 6000", NULL, 24 * GB, "nvidia/rtx6000-24"},
        {"RTX 6000", NULL, 48 * GB, NULL},
        {"RTX6000", NULL, 96 * GB, NULL},
        {"H100", NULL, 0, NULL},
        {"H100", NULL, 80 * GB, NULL},
        {"A100", NULL, 0, NULL},
        {"V100", "SXM2", 0, NULL},
        {"GH200", NULL, 0, NULL},
        {"A10G", NULL, 0, "nvidia/a10g-24"},
        {"A10 24G", NULL, 0, "nvidia/a10-24"},
        {"A10", NULL, 16 * GB, NULL},
        {"MI325X", NULL, 256 * GB, "amd/mi325x-256"},
        {"Gaudi 3", NULL, 128 * GB, "intel/gaudi3-128"},
        {"nvidia/h100-sxm-80", NULL, 0, "nvidia/h100-sxm-80"}, /* ours */
        {"NVIDIA/H100-SXM-80", NULL, 80 * GIB, "nvidia/h100-sxm-80"},
        {"nvidia/h100-sxm-80", NULL, 40 * GIB, NULL},
        {"nvidia/b300-sxm-288", NULL, 288 * GIB, "nvidia/b300-sxm-288"},
        {"nvidia/rtxpro6000-ws-96", NULL, 0, "nvidia/rtxpro6000-ws-96"},
        {"nvidia/h100", NULL, 0, NULL},
        {"cpu", NULL, 0, "cpu"},
        {"CPU", NULL, 64 * GIB, "cpu"},
        {"CPU_NODE", NULL, 0, "cpu"},
    };
    EXPECT(rows);
}

static void nonsense_is_unknown(void **state)
{
    (void)state;
    static const struct spelling rows[] = {
        {"", NULL, 0, NULL},
        {" ", NULL, 0, NULL},
        {"nvidia", NULL, 80 * GB, NULL},
        {"gpu", NULL, 0, NULL},
        {"80GB", NULL, 0, NULL},
        {"8x", NULL, 0, NULL},
        {"RTX", NULL, 0, NULL},
        {"H100 A100", NULL, 80 * GB, NULL},
        {"H100 SXM5 PCIe", NULL, 80 * GB, NULL},
        {"A100 SXM4 40GB 80GB", NULL, 0, NULL},
        {"A100X 8", NULL, 0, NULL},
        {"RTX 4090 24", NULL, 0, NULL},
        {"RTX 4090 Max-Q", NULL, 0, NULL},
        {"RTX 5090 D", NULL, 0, NULL},
        {"RTX 4090 + RTX 3090", NULL, 0, NULL},
        {"RTX 4090 23.5GB", NULL, 0, NULL},
        {"rtx-4090\xc3\xa9", NULL, 0, NULL},
        {"1000x RTX 4090", NULL, 0, NULL},
        {"0x RTX 4090", NULL, 0, NULL},
        {"L40G", NULL, 0, NULL},
        {"NVIDIA Graphics Device", NULL, 0, NULL},
        {"gpu_1x_a1000000000000000000000000", NULL, 0, NULL},
    };
    EXPECT(rows);
    char longest[200];
    struct gpu_identity got;
    memset(longest, ' ', sizeof(longest));
    memcpy(longest + 100, "RTX 4090", 8);
    assert_true(gpu_identify((struct str){longest, sizeof(longest)}, STR(""), 0, &got)); /* blanks around it */
    memset(longest, 'x', sizeof(longest));
    assert_false(gpu_identify((struct str){longest, sizeof(longest)}, STR(""), 0, &got));
    assert_false(gpu_identify((struct str){NULL, 0}, (struct str){NULL, 0}, 0, &got));
    assert_string_equal(got.name, "");
    assert_true(got.vram_gib == 0 && got.fraction_ppm == 0);
}

static void slices_are_marked(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        uint64_t vram_bytes;
        const char *name;
        uint32_t fraction_ppm;
    } rows[] = {
        {"A100-SXM4-40GB-MIG-1g.5gb", 4864 * MIB, "nvidia/a100-sxm-40", 125000},
        {"NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 0, "nvidia/a100-sxm-80", 428571},
        {"NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 9728 * MIB, "nvidia/h100-sxm-80", 125000},
        {"NVIDIA-H100-80GB-HBM3-MIG-1g.10gb+me", 0, "", 0},
        {"NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me", 0, "nvidia/h100-sxm-80", 125000},
        {"NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb", 24 * GIB, "nvidia/rtxpro6000-96", 250000},
        {"NVIDIA-A30-MIG-2g.12gb", 12 * GIB, "nvidia/a30-24", 500000},
        {"h100-40gb-mig", 0, "", 0}, /* whose? */
        {"H200-40gb-mig", 0, "nvidia/h200-sxm-141", 0},
        {"Tesla-T4-SHARED", 15360 * MIB, "nvidia/t4-16", 0},
        {"NVIDIA-H100-80GB-HBM3-SHARED", 0, "nvidia/h100-sxm-80", 0},
        {"GRID A100-10C", 0, "", 0},
        {"NVIDIA A10-4Q", 4 * GIB, "nvidia/a10-24", 166666},
        {"NVIDIA A10-24Q", 24 * GIB, "nvidia/a10-24", 1000000},
        {"g6f.large", 2861 * MIB, "nvidia/l4-24", 125000},
        {"g6f.4xlarge", 0, "nvidia/l4-24", 500000},
        {"g6f.unheard", 0, "nvidia/l4-24", 0},
        {"InstinctMI250X", 65520 * MIB, "amd/mi250x-128", 500000},
        {"AMD Instinct MI250X shared", 65520 * MIB, "", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gpu_identity got;
        bool known = gpu_identify(str_of(rows[i].raw), STR(""), rows[i].vram_bytes, &got);
        bool is_cut = strchr(rows[i].raw, '+'); /* not read at all */
        if (known != (*rows[i].name != '\0') || strcmp(got.name, rows[i].name) != 0 ||
            got.fraction_ppm != rows[i].fraction_ppm || got.is_slice == is_cut)
            fail_msg("%s: %s, %u, %d", rows[i].raw, got.name, got.fraction_ppm, got.is_slice);
    }
    struct gpu_identity whole;
    assert_true(gpu_identify(STR("AMD Instinct MI250X"), STR("OAM"), 128 * GIB, &whole));
    assert_true(!whole.is_slice && whole.fraction_ppm == GPU_WHOLE_PPM);
    assert_false(gpu_identify(STR("AMD Instinct MI250X"), STR("OAM"), 0, &whole));
}

static void datasheets_come_along(void **state)
{
    (void)state;
    struct gpu_identity got;
    assert_true(gpu_identify(STR("H100 SXM"), STR(""), 0, &got));
    assert_true(got.vram_gib == 80 && got.memory_gbps == 3350 && got.bf16_tflops == 989 && got.fp32_tflops == 67 &&
                got.int8_tops == 1979 && !got.is_arm_host);
    static const char *const arm[] = {"GH200 96GB", "GB200", "NVIDIA GB300", "T4g"};
    for (size_t i = 0; i < sizeof(arm) / sizeof(arm[0]); i++)
        assert_true(gpu_identify(str_of(arm[i]), STR(""), 0, &got) && got.is_arm_host);
    assert_true(gpu_identify(STR("T4"), STR(""), 0, &got) && !got.is_arm_host);
}

/* One catalogue: what drivers say is known here by the same name, and every row can be had by its own. */
static void agrees_with_the_catalogue(void **state)
{
    (void)state;
    size_t rows;
    const struct catalogue_row *built_in = catalogue_built_in(&rows);
    for (size_t i = 0; i < rows; i++) {
        struct gpu_identity got;
        struct str names = str_of(built_in[i].driver_names), name;
        uint64_t vram_bytes = (uint64_t)(built_in[i].class.vram_gib * (double)GIB);
        assert_true(gpu_identify(str_of(built_in[i].class.name), STR(""), vram_bytes, &got));
        assert_string_equal(got.name, built_in[i].class.name);
        assert_true(got.fraction_ppm == GPU_WHOLE_PPM && got.vram_gib == built_in[i].class.vram_gib);
        while (name = str_next(&names, '|'), name.len) {
            if (!gpu_identify(name, STR(""), vram_bytes, &got) || strcmp(got.name, built_in[i].class.name) != 0)
                fail_msg(STR_FMT " is %s and not %s", STR_ARG(name), got.name, built_in[i].class.name);
        }
    }
}

/* Tables that nothing else checks: every name stands in the catalogue, and no words are given twice. */
static void tables_are_sound(void **state)
{
    (void)state;
    size_t models_count, raw_count, rows;
    const struct gpu_model *models = gpu_models(&models_count);
    const struct gpu_raw_name *raw_names = gpu_raw_names(&raw_count);
    const struct catalogue_row *built_in = catalogue_built_in(&rows);
    for (size_t i = 0; i < models_count; i++) {
        size_t found = 0, len = strlen(models[i].name);
        for (size_t row = 0; row < rows; row++)
            found += strncmp(built_in[row].class.name, models[i].name, len) == 0 &&
                     (built_in[row].class.name[len] == '-' || built_in[row].class.name[len] == '\0');
        if (!found)
            fail_msg("%s: the catalogue has no %s", models[i].words, models[i].name);
        for (size_t other = 0; other < i; other++)
            assert_string_not_equal(models[i].words, models[other].words);
    }
    for (size_t i = 0; i < raw_count; i++) {
        size_t found = 0;
        for (size_t row = 0; row < rows; row++)
            found += strcmp(built_in[row].class.name, raw_names[i].name) == 0;
        if (!found)
            fail_msg("%s: the catalogue has no %s", raw_names[i].raw, raw_names[i].name);
        for (size_t other = 0; other < i; other++)
            assert_false(str_eq_nocase(str_of(raw_names[i].raw), str_of(raw_names[other].raw)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vast),
        cmocka_unit_test(runpod),
        cmocka_unit_test(lambda),
        cmocka_unit_test(kubernetes),
        cmocka_unit_test(aws),
        cmocka_unit_test(akash_nosana_ionet),
        cmocka_unit_test(others),
        cmocka_unit_test(nonsense_is_unknown),
        cmocka_unit_test(slices_are_marked),
        cmocka_unit_test(datasheets_come_along),
        cmocka_unit_test(agrees_with_the_catalogue),
        cmocka_unit_test(tables_are_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
