/* Words of the models, from the networks' own lists: driver names, Vast's list of names, RunPod's GPU types, Akash's
 * models, Lambda's and EC2's instance types, node labels of GPU Feature Discovery, GKE and CoreWeave. The longest match
 * wins. */
#include "probes/gpu_names_priv.h"

#define MODEL(model_words, canonical)               \
    {                                               \
        .words = (model_words), .name = (canonical) \
    }
#define GEFORCE(number, canonical) \
    MODEL("rtx " number, "nvidia/rtx" canonical), MODEL(number, "nvidia/rtx" canonical) /* "NVIDIA 5090" */
#define SUPER(number, canonical) GEFORCE(number " super", canonical), GEFORCE(number " s", canonical)
#define RTX_A(number) \
    MODEL("rtx a " number, "nvidia/rtxa" number), MODEL("a " number, "nvidia/rtxa" number) /* no other has it */
#define ADA(number) \
    MODEL("rtx " number " ada", "nvidia/rtx" number "ada"), MODEL(number " ada", "nvidia/rtx" number "ada")
#define FLAGGED(model_words, canonical, which)                        \
    {                                                                 \
        .words = (model_words), .name = (canonical), .flags = (which) \
    }
#define TURING(number)                                                                             \
    MODEL("quadro rtx " number, "nvidia/rtx" number), MODEL("q rtx " number, "nvidia/rtx" number), \
        FLAGGED("rtx " number, "nvidia/rtx" number, MODEL_NEEDS_MEMORY) /* said of Ada and Blackwell as well */
#define EDITION(model_words, canonical, which)                                                 \
    {                                                                                          \
        .words = (model_words), .name = (canonical), .form = (which), .flags = MODEL_SAYS_FORM \
    }
#define OF_SIZE(model_words, canonical, which, size)                                \
    {                                                                               \
        .words = (model_words), .name = (canonical), .form = (which), .gb = (size), \
        .flags = MODEL_SAYS_FORM | MODEL_ANY_FORM                                   \
    }
/* Drivers call this form by the bare name, and say the others' (never "H100": that one is three cards). */
#define MEANS(model_words, canonical, which)                         \
    {                                                                \
        .words = (model_words), .name = (canonical), .form = (which) \
    }

static const struct gpu_model models[] = {
    MEANS("b 300", "nvidia/b300", "sxm"),
    MEANS("b 300 sxm 6 ac", "nvidia/b300", "sxm"),
    FLAGGED("gb 300", "nvidia/gb300", MODEL_ANY_FORM),
    FLAGGED("gb 200", "nvidia/gb200", MODEL_ANY_FORM),
    MEANS("b 200", "nvidia/b200", "sxm"),
    MEANS("h 200", "nvidia/h200", "sxm"),
    FLAGGED("gh 200", "nvidia/gh200", MODEL_ANY_FORM),
    OF_SIZE("gh 200 480 gb", "nvidia/gh200", NULL, 96), /* 480 GB of the processor's */
    OF_SIZE("gh 200 144 g hbm 3 e", "nvidia/gh200", NULL, 144),
    MODEL("h 100", "nvidia/h100"),
    EDITION("h 100 80 gb hbm 3", "nvidia/h100", "sxm"), /* the driver's name; the PCIe card has HBM2e and says PCIe */
    MODEL("h 800", "nvidia/h800"),
    FLAGGED("h 20", "nvidia/h20", MODEL_ANY_FORM),
    MODEL("a 100", "nvidia/a100"),
    MODEL("a 100 x", "nvidia/a100x"),
    MODEL("a 800", "nvidia/a800"),
    MODEL("a 30", "nvidia/a30"),
    MODEL("a 40", "nvidia/a40"),
    MODEL("a 16", "nvidia/a16"),
    MODEL("a 10", "nvidia/a10"),
    MODEL("a 10 g", "nvidia/a10g"),
    MODEL("a 2", "nvidia/a2"),
    MODEL("l 40 s", "nvidia/l40s"),
    MODEL("l 40", "nvidia/l40"),
    MODEL("l 20", "nvidia/l20"),
    MODEL("l 4", "nvidia/l4"),
    MODEL("t 4", "nvidia/t4"),
    MODEL("t 4 g", "nvidia/t4g"),
    MODEL("v 100", "nvidia/v100"),
    FLAGGED("p 100", "nvidia/p100", MODEL_ANY_FORM),
    MODEL("p 40", "nvidia/p40"),
    MODEL("p 4", "nvidia/p4"),
    MODEL("rtx pro 6000", "nvidia/rtxpro6000"), /* one of three */
    MODEL("rtx pro 6000 blackwell", "nvidia/rtxpro6000"),
    MODEL("pro 6000", "nvidia/rtxpro6000"),
    EDITION("rtx pro 6000 blackwell server edition", "nvidia/rtxpro6000", ""),
    EDITION("rtx pro 6000 server edition", "nvidia/rtxpro6000", ""),
    EDITION("rtx pro server 6000", "nvidia/rtxpro6000", ""),
    EDITION("rtx pro 6000 se", "nvidia/rtxpro6000", ""),
    EDITION("rtx pro 6000 s", "nvidia/rtxpro6000", ""),
    EDITION("pro 6000 se", "nvidia/rtxpro6000", ""),
    EDITION("rtx pro 6000 blackwell workstation edition", "nvidia/rtxpro6000", "ws"),
    EDITION("rtx pro 6000 workstation edition", "nvidia/rtxpro6000", "ws"),
    EDITION("rtx pro 6000 we", "nvidia/rtxpro6000", "ws"),
    EDITION("rtx pro 6000 ws", "nvidia/rtxpro6000", "ws"),
    EDITION("pro 6000 we", "nvidia/rtxpro6000", "ws"),
    EDITION("rtx pro 6000 blackwell max q workstation edition", "nvidia/rtxpro6000", "maxq"),
    EDITION("rtx pro 6000 max q", "nvidia/rtxpro6000", "maxq"),
    EDITION("rtx pro 6000 mq", "nvidia/rtxpro6000", "maxq"),
    EDITION("pro 6000 mq", "nvidia/rtxpro6000", "maxq"),
    MODEL("rtx pro 5000", "nvidia/rtxpro5000"),
    MODEL("rtx pro 5000 blackwell", "nvidia/rtxpro5000"),
    MODEL("rtx pro 4500", "nvidia/rtxpro4500"),
    MODEL("rtx pro 4500 blackwell", "nvidia/rtxpro4500"),
    MODEL("rtx pro 4000", "nvidia/rtxpro4000"),
    MODEL("rtx pro 4000 blackwell", "nvidia/rtxpro4000"),
    ADA("6000"),
    ADA("5880"),
    ADA("5000"),
    ADA("4500"),
    ADA("4000"),
    ADA("2000"),
    MODEL("rtx 4000 sff ada", "nvidia/rtx4000sffada"),
    MODEL("rtx 4000 ada sff", "nvidia/rtx4000sffada"),
    RTX_A("6000"),
    RTX_A("5500"),
    RTX_A("5000"),
    RTX_A("4500"),
    RTX_A("4000"),
    RTX_A("2000"),
    TURING("8000"),
    TURING("6000"),
    TURING("5000"),
    TURING("4000"),
    GEFORCE("5090", "5090"),
    GEFORCE("5080", "5080"),
    GEFORCE("5070 ti", "5070ti"),
    GEFORCE("5070", "5070"),
    GEFORCE("5060 ti", "5060ti"),
    GEFORCE("5060", "5060"),
    GEFORCE("4090", "4090"),
    GEFORCE("4090 d", "4090d"),
    SUPER("4080", "4080s"),
    GEFORCE("4080", "4080"),
    GEFORCE("4070 ti super", "4070tis"),
    GEFORCE("4070 tisuper", "4070tis"),
    GEFORCE("4070 ti s", "4070tis"),
    GEFORCE("4070 s ti", "4070tis"),
    GEFORCE("4070 ti", "4070ti"),
    SUPER("4070", "4070s"),
    GEFORCE("4070", "4070"),
    GEFORCE("4060 ti", "4060ti"),
    GEFORCE("4060", "4060"),
    GEFORCE("3090 ti", "3090ti"),
    GEFORCE("3090", "3090"),
    GEFORCE("3080 ti", "3080ti"),
    GEFORCE("3080", "3080"),
    GEFORCE("3070 ti", "3070ti"),
    GEFORCE("3070", "3070"),
    GEFORCE("3060 ti", "3060ti"),
    GEFORCE("3060", "3060"),
    GEFORCE("3050", "3050"),
    GEFORCE("2080 ti", "2080ti"),
    SUPER("2080", "2080s"),
    GEFORCE("2080", "2080"),
    SUPER("2070", "2070s"),
    GEFORCE("2070", "2070"),
    SUPER("2060", "2060s"),
    GEFORCE("2060", "2060"),
    MODEL("gtx 1080 ti", "nvidia/gtx1080ti"),
    MODEL("gtx 1080", "nvidia/gtx1080"),
    MODEL("titan rtx", "nvidia/titanrtx"),
    MODEL("titan v", "nvidia/titanv"),

    FLAGGED("mi 355 x", "amd/mi355x", MODEL_ANY_FORM),
    FLAGGED("mi 350 x", "amd/mi350x", MODEL_ANY_FORM),
    FLAGGED("mi 325 x", "amd/mi325x", MODEL_ANY_FORM),
    FLAGGED("mi 300 x", "amd/mi300x", MODEL_ANY_FORM),
    FLAGGED("mi 300 a", "amd/mi300a", MODEL_ANY_FORM),
    FLAGGED("mi 250 x", "amd/mi250x", MODEL_ANY_FORM | MODEL_IS_PAIR),
    FLAGGED("mi 250", "amd/mi250", MODEL_ANY_FORM | MODEL_IS_PAIR),
    MODEL("mi 210", "amd/mi210"),
    MODEL("mi 100", "amd/mi100"),
    MODEL("mi 50", "amd/mi50"),
    MODEL("rx 7900 xtx", "amd/rx7900xtx"),
    MODEL("rx 7900 xt", "amd/rx7900xt"),
    MODEL("rx 9070 xt", "amd/rx9070xt"),
    MODEL("pro w 7900", "amd/w7900"),
    FLAGGED("gaudi 3", "intel/gaudi3", MODEL_ANY_FORM),
    FLAGGED("gaudi 2", "intel/gaudi2", MODEL_ANY_FORM),
};

#define WHOLE(raw_name, canonical)       \
    {                                    \
        (raw_name), (canonical), 1000000 \
    }
#define PART(raw_name, canonical, ppm) \
    {                                  \
        (raw_name), (canonical), (ppm) \
    }

static const struct gpu_raw_name raw_names[] = {
    WHOLE("cpu", "cpu"),
    WHOLE("cpu_", "cpu"),
    WHOLE("cd-", "cpu"), /* CoreWeave's instances without GPUs */
    /* EC2 */
    WHOLE("p3.", "nvidia/v100-sxm-16"),
    WHOLE("p3dn.", "nvidia/v100-sxm-32"),
    WHOLE("p4d.", "nvidia/a100-sxm-40"),
    WHOLE("p4de.", "nvidia/a100-sxm-80"),
    WHOLE("p5.", "nvidia/h100-sxm-80"),
    WHOLE("p5e.", "nvidia/h200-sxm-141"),
    WHOLE("p5en.", "nvidia/h200-sxm-141"),
    WHOLE("p6-b200.", "nvidia/b200-sxm-180"),
    WHOLE("p6-b300.", "nvidia/b300-sxm-288"),
    WHOLE("p6e-gb200.", "nvidia/gb200-186"),
    WHOLE("g4dn.", "nvidia/t4-16"),
    WHOLE("g5.", "nvidia/a10g-24"),
    WHOLE("g5g.", "nvidia/t4g-16"),
    WHOLE("g6.", "nvidia/l4-24"),
    WHOLE("gr6.", "nvidia/l4-24"),
    WHOLE("g6e.", "nvidia/l40s-48"),
    WHOLE("g7e.", "nvidia/rtxpro6000-96"),
    PART("g6f.large", "nvidia/l4-24", 125000),
    PART("g6f.xlarge", "nvidia/l4-24", 125000),
    PART("g6f.2xlarge", "nvidia/l4-24", 250000),
    PART("g6f.4xlarge", "nvidia/l4-24", 500000),
    PART("g6f.", "nvidia/l4-24", 0),
    PART("gr6f.4xlarge", "nvidia/l4-24", 500000),
    PART("gr6f.", "nvidia/l4-24", 0),
    /* Lambda: types whose name leaves out what others say */
    WHOLE("gpu_8x_v100", "nvidia/v100-sxm-16"),
    WHOLE("8x Tesla V100 (16 GB)", "nvidia/v100-sxm-16"),
    WHOLE("Tesla V100 (16 GB)", "nvidia/v100-sxm-16"),
    WHOLE("gpu_1x_a100", "nvidia/a100-pcie-40"),
    WHOLE("gpu_2x_a100", "nvidia/a100-pcie-40"),
    WHOLE("gpu_4x_a100", "nvidia/a100-pcie-40"),
    WHOLE("gpu_1x_a100_sxm4", "nvidia/a100-sxm-40"),
    WHOLE("gpu_8x_a100", "nvidia/a100-sxm-40"),
    WHOLE("gpu_1x_gh200", "nvidia/gh200-96"),
    WHOLE("gpu_1x_rtx6000", "nvidia/rtx6000-24"),
    /* GKE; its A100 of 40 GB and its V100 of 16 GB are still called Tesla */
    WHOLE("nvidia-h100-mega-80gb", "nvidia/h100-sxm-80"),
    WHOLE("nvidia-tesla-a100", "nvidia/a100-sxm-40"),
    WHOLE("nvidia-tesla-v100", "nvidia/v100-sxm-16"),
    /* CoreWeave: NVLINK is its word for SXM; elsewhere PCIe cards have NVLink as well */
    WHOLE("gd-8xb200ib-i128", "nvidia/b200-sxm-180"),
    WHOLE("gd-8xh200ib-i128", "nvidia/h200-sxm-141"),
    WHOLE("gd-8xh100ib-i128", "nvidia/h100-sxm-80"),
    WHOLE("gd-8xh100-i128", "nvidia/h100-sxm-80"),
    WHOLE("gd-8xa100-i128", "nvidia/a100-sxm-80"),
    WHOLE("gd-8xl40s-i128", "nvidia/l40s-48"),
    WHOLE("gd-8xl40-i128", "nvidia/l40-48"),
    WHOLE("H100_NVLINK_80GB", "nvidia/h100-sxm-80"),
    WHOLE("A100_NVLINK_80GB", "nvidia/a100-sxm-80"),
    WHOLE("A100_NVLINK", "nvidia/a100-sxm-40"),
    WHOLE("Tesla_V100_NVLINK", "nvidia/v100-sxm-16"),
    /* PCI device ids of AMD, as its node labels have them */
    WHOLE("74a1", "amd/mi300x-192"),
    WHOLE("74a9", "amd/mi300x-192"),
    WHOLE("74b5", "amd/mi300x-192"),
    WHOLE("74bd", "amd/mi300x-192"),
    WHOLE("74a5", "amd/mi325x-256"),
    WHOLE("75a0", "amd/mi350x-288"),
    WHOLE("75a3", "amd/mi355x-288"),
    WHOLE("740f", "amd/mi210-64"),
};

/* "tesla" and "geforce" tell nothing that the number does not; "quadro" stands in words of models. */
const char *const gpu_noise_words[] = {"nvidia",      "amd",    "intel",  "geforce",   "tesla",      "quadro", "radeon",
                                       "instinct",    "gpu",    "gpus",   "graphics",  "card",       "vendor", "model",
                                       "ram",         "vram",   "memory", "interface", "generation", "nvlink", "grid",
                                       "accelerator", "tensor", "core",   NULL};
const char *const gpu_slice_words[] = {"mig",        "shared",    "slice",       "sliced", "timesliced", "fraction",
                                       "fractional", "partition", "partitioned", "vgpu",   "mps",        NULL};
const char *const gpu_glued_words[] = {"nvidia", "amd",      "intel", "geforce", "tesla", "quadro",
                                       "radeon", "instinct", "rtx",   "gtx",     NULL};
const char *const gpu_arm_hosts[] = {"nvidia/gh200", "nvidia/gb200", "nvidia/gb300", "nvidia/t4g", NULL};

const struct gpu_model *gpu_models(size_t *ret_count)
{
    *ret_count = sizeof(models) / sizeof(models[0]);
    return models;
}

const struct gpu_raw_name *gpu_raw_names(size_t *ret_count)
{
    *ret_count = sizeof(raw_names) / sizeof(raw_names[0]);
    return raw_names;
}
