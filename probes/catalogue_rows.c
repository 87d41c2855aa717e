/* GPU classes that are known without a file.
 *
 * Datasheet numbers: vendors' figures, dense, without sparsity (bf16 of GeForce cards: the rate with 32-bit sums; of
 * cards before Ampere, which have no bf16: fp16). vram_gib is what the driver tells, so 268 for 288 decimal GB. SMs, L2
 * and PCI ids stand only where they are certain, for what contradicts them is taken for a lie; 0 is not checked.
 *
 * References are estimates until is_measured says otherwise: those written here come of published measurements of the
 * same kind of load, all others are derived in catalogue.c. */
#include "probes/catalogue_priv.h"

#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define SHEET(vram, memory, bf16, fp32, int8, major, minor)                                                         \
    .vram_gib = (vram), .memory_gbps = (memory), .bf16_tflops = (bf16), .fp32_tflops = (fp32), .int8_tops = (int8), \
    .cc_major = (major), .cc_minor = (minor)
#define NVIDIA(short_name, drivers, ...)                                                                   \
    {                                                                                                      \
        .class = {.name = "nvidia/" short_name, .has_floor = true, __VA_ARGS__}, .driver_names = (drivers) \
    }
/* Sold with another size of memory under the same name. */
#define NVIDIA_OF_SIZES(short_name, drivers, ...)                                                           \
    {                                                                                                       \
        .class = {.name = "nvidia/" short_name, .has_floor = true, __VA_ARGS__}, .driver_names = (drivers), \
        .is_one_of_sizes = true                                                                             \
    }
/* Known, but there is no probe for it: nothing of it is challenged. */
#define OTHER(full_name, vram, memory, bf16, fp32, int8) \
    {                                                    \
        .class = {                                       \
            .name = (full_name),                         \
            .vram_gib = (vram),                          \
            .memory_gbps = (memory),                     \
            .bf16_tflops = (bf16),                       \
            .fp32_tflops = (fp32),                       \
            .int8_tops = (int8),                         \
            .has_floor = true                            \
        }                                                \
    }

static const struct catalogue_row built_in[] = {
    /* Integer tensor rates of these two were cut to a thirtieth: CHAIN goes through bf16, exact over 1,024 products at
     * a time, at about half of that rate. */
    NVIDIA("b300-sxm-288", "B300 SXM6 AC|B300", SHEET(268, 8000, 2250, 80, 150, 10, 3), .chain_tops = 1125),
    NVIDIA("gb300-288", "GB300", SHEET(268, 8000, 2500, 80, 165, 10, 3), .chain_tops = 1250),
    NVIDIA("gb200-186", "GB200", SHEET(186, 8000, 2500, 80, 5000, 10, 0)),
    NVIDIA("b200-sxm-180", "B200", SHEET(180, 8000, 2250, 80, 4500, 10, 0), .sms = 148, .pass_gbps = 6000,
           .chain_tops = 3300, .admission_chain = {8192, 8, 130}),
    NVIDIA("h200-sxm-141", "H200", SHEET(141, 4800, 989, 67, 1979, 9, 0), .sms = 132, .l2_bytes = 50 * MIB,
           .pci_devices = {0x2335}, .pass_gbps = 4100, .chain_tops = 1250, .double_rounds = 46,
           .admission_chain = {8192, 8, 50}),
    NVIDIA("h200-nvl-141", "H200 NVL", SHEET(141, 4800, 835, 60, 1671, 9, 0), .sms = 132, .l2_bytes = 50 * MIB),
    NVIDIA("gh200-96", "GH200 480GB", SHEET(96, 4000, 989, 67, 1979, 9, 0), .sms = 132, .l2_bytes = 50 * MIB),
    NVIDIA("h100-sxm-80", "H100 80GB HBM3|H100 SXM5 80GB", SHEET(80, 3350, 989, 67, 1979, 9, 0), .sms = 132,
           .l2_bytes = 50 * MIB, .pci_devices = {0x2330}, .pass_gbps = 2700, .chain_tops = 1250, .double_rounds = 64,
           .admission_chain = {8192, 8, 50}),
    NVIDIA("h100-nvl-94", "H100 NVL", SHEET(94, 3938, 835, 60, 1671, 9, 0), .sms = 132, .l2_bytes = 50 * MIB),
    NVIDIA("h100-pcie-80", "H100 PCIe", SHEET(80, 2000, 756, 51, 1513, 9, 0), .sms = 114, .l2_bytes = 50 * MIB),
    NVIDIA("h20-96", "H20", SHEET(96, 4000, 148, 44, 296, 9, 0), .sms = 78),
    NVIDIA("a100-sxm-80", "A100 SXM4 80GB", SHEET(80, 2039, 312, 19.5, 624, 8, 0), .sms = 108, .l2_bytes = 40 * MIB,
           .pci_devices = {0x20b2}, .pass_gbps = 1650, .chain_tops = 480, .double_rounds = 74,
           .admission_chain = {8192, 8, 20}),
    NVIDIA("a100-pcie-80", "A100 80GB PCIe", SHEET(80, 1935, 312, 19.5, 624, 8, 0), .sms = 108, .l2_bytes = 40 * MIB,
           .pci_devices = {0x20b5}, .chain_tops = 450, .double_rounds = 74),
    NVIDIA("a100-sxm-40", "A100 SXM4 40GB", SHEET(40, 1555, 312, 19.5, 624, 8, 0), .sms = 108, .l2_bytes = 40 * MIB,
           .pci_devices = {0x20b0}, .chain_tops = 480, .admission_chain = {8192, 8, 20}),
    NVIDIA("a100-pcie-40", "A100 PCIE 40GB", SHEET(40, 1555, 312, 19.5, 624, 8, 0), .sms = 108, .l2_bytes = 40 * MIB,
           .pci_devices = {0x20f1}, .chain_tops = 450),
    NVIDIA("a30-24", "A30", SHEET(24, 933, 165, 10.3, 330, 8, 0), .sms = 56, .l2_bytes = 24 * MIB),
    NVIDIA("a40-48", "A40", SHEET(48, 696, 150, 37.4, 299, 8, 6), .sms = 84, .l2_bytes = 6 * MIB),
    NVIDIA("a16-16", "A16", SHEET(16, 200, 18, 4.5, 36, 8, 6), .sms = 10),
    NVIDIA("a10-24", "A10", SHEET(24, 600, 125, 31.2, 250, 8, 6), .sms = 72, .l2_bytes = 6 * MIB,
           .pci_devices = {0x2236}),
    NVIDIA("a10g-24", "A10G", SHEET(24, 600, 70, 31.5, 140, 8, 6), .l2_bytes = 6 * MIB, .pci_devices = {0x2237}),
    NVIDIA("l40s-48", "L40S", SHEET(48, 864, 362, 91.6, 733, 8, 9), .sms = 142, .l2_bytes = 96 * MIB,
           .pci_devices = {0x26b9}, .pass_gbps = 690, .chain_tops = 480, .double_rounds = 430,
           .admission_chain = {8192, 8, 22}),
    NVIDIA("l40-48", "L40", SHEET(48, 864, 181, 90.5, 362, 8, 9), .sms = 142, .l2_bytes = 96 * MIB, .chain_tops = 360),
    NVIDIA("l4-24", "L4", SHEET(24, 300, 121, 30.3, 242, 8, 9), .sms = 58, .l2_bytes = 48 * MIB,
           .pci_devices = {0x27b8}, .pass_gbps = 255),
    NVIDIA("t4-16", "T4", SHEET(16, 320, 65, 8.1, 130, 7, 5), .sms = 40, .l2_bytes = 4 * MIB, .pci_devices = {0x1eb8}),
    NVIDIA("v100-sxm-16", "V100 SXM2 16GB", SHEET(16, 900, 125, 15.7, 63, 7, 0), .sms = 80, .l2_bytes = 6 * MIB),
    NVIDIA("v100-sxm-32", "V100 SXM2 32GB", SHEET(32, 900, 125, 15.7, 63, 7, 0), .sms = 80, .l2_bytes = 6 * MIB),
    NVIDIA("p100-16", "P100 PCIE 16GB|P100 SXM2 16GB", SHEET(16, 732, 21, 10.6, 0, 6, 0), .sms = 56,
           .l2_bytes = 4 * MIB),
    NVIDIA("rtxpro6000-96", "RTX PRO 6000 Blackwell Server Edition", SHEET(96, 1597, 480, 117, 1000, 12, 0),
           .sms = 188),
    NVIDIA("rtxpro6000-ws-96", "RTX PRO 6000 Blackwell Workstation Edition", SHEET(96, 1792, 504, 125, 1000, 12, 0),
           .sms = 188),
    NVIDIA("rtx6000ada-48", "RTX 6000 Ada Generation", SHEET(48, 960, 364, 91.1, 728, 8, 9), .sms = 142,
           .l2_bytes = 96 * MIB),
    NVIDIA("rtx5000ada-32", "RTX 5000 Ada Generation", SHEET(32, 576, 261, 65.3, 522, 8, 9), .sms = 100),
    NVIDIA("rtx4000ada-20", "RTX 4000 Ada Generation", SHEET(20, 360, 107, 26.7, 214, 8, 9), .sms = 48),
    NVIDIA("rtx2000ada-16", "RTX 2000 Ada Generation", SHEET(16, 224, 48, 12.0, 96, 8, 9), .sms = 22),
    NVIDIA("rtxa6000-48", "RTX A6000", SHEET(48, 768, 155, 38.7, 310, 8, 6), .sms = 84, .l2_bytes = 6 * MIB),
    NVIDIA("rtxa5000-24", "RTX A5000", SHEET(24, 768, 111, 27.8, 222, 8, 6), .sms = 64, .l2_bytes = 6 * MIB),
    NVIDIA("rtxa4500-20", "RTX A4500", SHEET(20, 640, 95, 23.7, 189, 8, 6), .sms = 56, .l2_bytes = 6 * MIB),
    NVIDIA("rtxa4000-16", "RTX A4000", SHEET(16, 448, 77, 19.2, 153, 8, 6), .sms = 48, .l2_bytes = 4 * MIB),
    NVIDIA("rtx5090-32", "RTX 5090", SHEET(32, 1792, 210, 104.8, 838, 12, 0), .sms = 170),
    NVIDIA("rtx5080-16", "RTX 5080", SHEET(16, 960, 113, 56.3, 450, 12, 0), .sms = 84),
    NVIDIA("rtx5070ti-16", "RTX 5070 Ti", SHEET(16, 896, 88, 43.9, 352, 12, 0), .sms = 70),
    NVIDIA_OF_SIZES("rtx5060ti-16", "RTX 5060 Ti", SHEET(16, 448, 47, 23.7, 190, 12, 0), .sms = 36),
    NVIDIA("rtx4090-24", "RTX 4090", SHEET(24, 1008, 165, 82.6, 661, 8, 9), .sms = 128, .l2_bytes = 72 * MIB,
           .pci_devices = {0x2684}, .pass_gbps = 900, .chain_tops = 520, .double_rounds = 320,
           .admission_chain = {8192, 8, 24}),
    NVIDIA("rtx4080s-16", "RTX 4080 SUPER", SHEET(16, 736, 104, 52.2, 418, 8, 9), .sms = 80, .l2_bytes = 64 * MIB),
    NVIDIA("rtx4080-16", "RTX 4080", SHEET(16, 717, 97, 48.7, 390, 8, 9), .sms = 76, .l2_bytes = 64 * MIB),
    NVIDIA("rtx4070ti-12", "RTX 4070 Ti", SHEET(12, 504, 80, 40.1, 321, 8, 9), .sms = 60, .l2_bytes = 48 * MIB),
    NVIDIA_OF_SIZES("rtx4060ti-16", "RTX 4060 Ti", SHEET(16, 288, 44, 22.1, 177, 8, 9), .sms = 34,
                    .l2_bytes = 32 * MIB),
    NVIDIA("rtx3090-24", "RTX 3090", SHEET(24, 936, 71, 35.6, 284, 8, 6), .sms = 82, .l2_bytes = 6 * MIB),
    NVIDIA("rtx3090ti-24", "RTX 3090 Ti", SHEET(24, 1008, 80, 40.0, 320, 8, 6), .sms = 84, .l2_bytes = 6 * MIB),
    NVIDIA("rtx3080ti-12", "RTX 3080 Ti", SHEET(12, 912, 68, 34.1, 273, 8, 6), .sms = 80, .l2_bytes = 6 * MIB),
    NVIDIA_OF_SIZES("rtx3080-10", "RTX 3080", SHEET(10, 760, 60, 29.8, 238, 8, 6), .sms = 68, .l2_bytes = 5 * MIB),
    NVIDIA("rtx3070-8", "RTX 3070", SHEET(8, 448, 41, 20.3, 163, 8, 6), .sms = 46, .l2_bytes = 4 * MIB),
    NVIDIA_OF_SIZES("rtx3060-12", "RTX 3060", SHEET(12, 360, 25, 12.7, 102, 8, 6), .sms = 28),
    NVIDIA("rtx2080ti-11", "RTX 2080 Ti", SHEET(11, 616, 54, 13.4, 215, 7, 5), .sms = 68),

    /* Known by name so that networks' offers can be told apart, and by datasheets; a probe of them has not been sized.
     * The second size of a name, its export and workstation variants, and older cards. Figures are the vendors', as
     * remembered, to some 3 %; GeForce cards are derived like those above, bf16 as twice and int8 as eight times fp32,
     * Turing four and sixteen times. */
    OTHER("nvidia/gh200-144", 144, 4900, 989, 67, 1979),
    OTHER("nvidia/h20-141", 141, 4800, 148, 44, 296),
    OTHER("nvidia/h800-sxm-80", 80, 3350, 989, 67, 1979),
    OTHER("nvidia/h800-pcie-80", 80, 2000, 756, 51, 1513),
    OTHER("nvidia/a100x-80", 80, 2039, 312, 19.5, 624),
    OTHER("nvidia/a800-sxm-80", 80, 2039, 312, 19.5, 624),
    OTHER("nvidia/a800-pcie-80", 80, 1935, 312, 19.5, 624),
    OTHER("nvidia/a800-pcie-40", 40, 1555, 312, 19.5, 624),
    OTHER("nvidia/a2-16", 16, 200, 18, 4.5, 36),
    OTHER("nvidia/l20-48", 48, 864, 119.5, 59.8, 239),
    OTHER("nvidia/t4g-16", 16, 320, 65, 8.1, 130),
    OTHER("nvidia/v100-pcie-16", 16, 900, 112, 14, 56),
    OTHER("nvidia/v100-pcie-32", 32, 900, 112, 14, 56),
    OTHER("nvidia/p100-12", 12, 549, 18.7, 9.3, 0),
    OTHER("nvidia/p40-24", 24, 346, 0, 11.8, 47),
    OTHER("nvidia/p4-8", 8, 192, 0, 5.5, 22),
    OTHER("nvidia/rtxpro6000-maxq-96", 96, 1792, 439, 110, 878),
    OTHER("nvidia/rtxpro5000-48", 48, 1344, 258, 73.7, 516),
    OTHER("nvidia/rtxpro5000-72", 72, 1344, 258, 73.7, 516),
    OTHER("nvidia/rtxpro4500-32", 32, 896, 211, 54.9, 422),
    OTHER("nvidia/rtxpro4000-24", 24, 672, 147, 46.9, 294),
    OTHER("nvidia/rtx5880ada-48", 48, 960, 277, 69.3, 554),
    OTHER("nvidia/rtx4500ada-24", 24, 432, 158, 39.6, 317),
    OTHER("nvidia/rtx4000sffada-20", 20, 280, 77, 19.2, 153),
    OTHER("nvidia/rtxa5500-24", 24, 768, 136, 34.1, 273),
    OTHER("nvidia/rtxa2000-6", 6, 288, 32, 8, 64),
    OTHER("nvidia/rtxa2000-12", 12, 288, 32, 8, 64),
    OTHER("nvidia/rtx8000-48", 48, 672, 130, 16.3, 261),
    OTHER("nvidia/rtx6000-24", 24, 672, 130, 16.3, 261), /* Turing; "RTX 6000" is said of four cards */
    OTHER("nvidia/rtx5000-16", 16, 448, 89, 11.2, 178),
    OTHER("nvidia/rtx4000-8", 8, 416, 57, 7.1, 114),
    OTHER("nvidia/rtx5070-12", 12, 672, 62, 30.8, 247),
    OTHER("nvidia/rtx5060ti-8", 8, 448, 47, 23.7, 190),
    OTHER("nvidia/rtx5060-8", 8, 448, 38, 19.2, 153),
    OTHER("nvidia/rtx4090d-24", 24, 1008, 147, 73.5, 588),
    OTHER("nvidia/rtx4070tis-16", 16, 672, 88, 44.1, 353),
    OTHER("nvidia/rtx4070s-12", 12, 504, 71, 35.5, 284),
    OTHER("nvidia/rtx4070-12", 12, 504, 58, 29.1, 233),
    OTHER("nvidia/rtx4060ti-8", 8, 288, 44, 22.1, 177),
    OTHER("nvidia/rtx4060-8", 8, 272, 30, 15.1, 121),
    OTHER("nvidia/rtx3080-12", 12, 912, 61, 30.6, 245),
    OTHER("nvidia/rtx3070ti-8", 8, 608, 43, 21.7, 174),
    OTHER("nvidia/rtx3060ti-8", 8, 448, 32, 16.2, 130),
    OTHER("nvidia/rtx3060-8", 8, 240, 25, 12.7, 102),
    OTHER("nvidia/rtx3050-8", 8, 224, 18, 9.1, 73),
    OTHER("nvidia/rtx3050-6", 6, 168, 14, 6.8, 54),
    OTHER("nvidia/rtx2080s-8", 8, 496, 45, 11.2, 178),
    OTHER("nvidia/rtx2080-8", 8, 448, 40, 10.1, 161),
    OTHER("nvidia/rtx2070s-8", 8, 448, 36, 9.1, 145),
    OTHER("nvidia/rtx2070-8", 8, 448, 30, 7.5, 119),
    OTHER("nvidia/rtx2060s-8", 8, 448, 29, 7.2, 115),
    OTHER("nvidia/rtx2060-6", 6, 336, 26, 6.5, 103),
    OTHER("nvidia/rtx2060-12", 12, 336, 29, 7.2, 115),
    OTHER("nvidia/titanrtx-24", 24, 672, 130, 16.3, 261),
    OTHER("nvidia/titanv-12", 12, 653, 110, 14.9, 0),
    OTHER("nvidia/gtx1080ti-11", 11, 484, 0, 11.3, 45),
    OTHER("nvidia/gtx1080-8", 8, 320, 0, 8.9, 35),

    OTHER("amd/mi355x-288", 268, 8000, 2500, 157.3, 5000),
    OTHER("amd/mi350x-288", 268, 8000, 2300, 144.2, 4600),
    OTHER("amd/mi325x-256", 256, 6000, 1300, 163.4, 2600),
    OTHER("amd/mi300x-192", 192, 5300, 1300, 163.4, 2600),
    OTHER("amd/mi300a-128", 128, 5300, 980, 122.6, 1961),
    OTHER("amd/mi250x-128", 128, 3280, 383, 47.9, 383),
    OTHER("amd/mi250-128", 128, 3277, 362, 45.3, 362),
    OTHER("amd/mi210-64", 64, 1638, 181, 22.6, 181),
    OTHER("amd/mi100-32", 32, 1229, 92, 23.1, 185),
    OTHER("amd/mi50-16", 16, 1024, 26.5, 13.3, 53),
    OTHER("amd/mi50-32", 32, 1024, 26.5, 13.3, 53),
    OTHER("amd/rx9070xt-16", 16, 640, 195, 48.7, 389),
    OTHER("amd/w7900-48", 48, 864, 123, 61.3, 123),
    OTHER("amd/rx7900xtx-24", 24, 960, 123, 61.4, 123),
    OTHER("amd/rx7900xt-20", 20, 800, 103, 51.5, 103),
    OTHER("intel/gaudi3-128", 128, 3700, 1677, 229, 0),
    OTHER("intel/gaudi2-96", 96, 2460, 432, 0, 0),

    /* A machine without a GPU: the same challenges at sizes that cost it some 50 ms, and any speed is fine. */
    {.class = {.name = "cpu",
               .vram_gib = 16.0 / 1024,
               .double_rounds = 4,
               .passes = 2,
               .walkers = 64,
               .walk_steps = 64,
               .admission_chain = {256, 4, 3},
               .spot_chain = {256, 4, 2},
               .lease_chain = {128, 4, 2},
               .admission_fill_bytes = 16 * MIB,
               .spot_fill_bytes = 4 * MIB,
               .net_frames = 1},
     .driver_names = "cpu"},
};

const struct catalogue_row *catalogue_built_in(size_t *ret_count)
{
    *ret_count = sizeof(built_in) / sizeof(built_in[0]);
    return built_in;
}

void catalogue_add_built_in(struct catalogue *catalogue)
{
    _Static_assert(sizeof(built_in) / sizeof(built_in[0]) <= CATALOGUE_ROWS_MAX / 2, "files have room to add");
    memcpy(catalogue->rows, built_in, sizeof(built_in));
    catalogue->count = sizeof(built_in) / sizeof(built_in[0]);
}
