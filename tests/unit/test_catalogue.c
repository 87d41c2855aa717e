#include "tests/unit/cmocka_all.h"

#include "core/config.h"
#include "probes/backend.h"
#include "probes/catalogue.h"
#include "probes/protocol.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)

static struct catalogue *catalogue;

static int open_it(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    return catalogue_open(NULL, &catalogue, error) != ERR_NONE;
}

static int close_it(void **state)
{
    (void)state;
    catalogue = catalogue_free(catalogue);
    return 0;
}

static const struct gpu_class *find(const char *name)
{
    const struct gpu_class *class = catalogue_find(catalogue, str_of(name));
    assert_non_null(class);
    return class;
}

static bool is_shape_good(struct chain_shape shape)
{
    return shape.n >= 64 && shape.n % 64 == 0 && shape.n <= PROBE_CHAIN_N_MAX && shape.blocks >= 1 &&
           shape.blocks <= PROBE_CHAIN_BLOCKS_MAX && shape.steps >= 1 && shape.steps <= PROBE_CHAIN_STEPS_MAX &&
           shape.n * shape.blocks <= PROBE_CHAIN_ROW_MAX;
}

static double chain_seconds(const struct gpu_class *class, struct chain_shape shape)
{
    double n = shape.n;
    return 2 * n * n * n * shape.blocks * shape.steps / (class->chain_tops * 1e12);
}

/* What the protocol can carry, and a GPU's memory holds; about as long as they should last. */
static void sizes_are_within_limits(void **state)
{
    (void)state;
    assert_true(catalogue_count(catalogue) > 60);
    size_t provable = 0;
    for (size_t i = 0; i < catalogue_count(catalogue); i++) {
        const struct gpu_class *class = catalogue_at(catalogue, i);
        assert_ptr_equal(catalogue_find(catalogue, str_of(class->name)), class); /* no name twice */
        if (class->admission_chain.n == 0)
            continue; /* there is no probe for it */
        provable++;
        assert_true(is_shape_good(class->admission_chain) && is_shape_good(class->spot_chain) &&
                    is_shape_good(class->lease_chain));
        assert_in_range(class->double_rounds, 1, PROBE_DOUBLE_ROUNDS_MAX);
        assert_in_range(class->passes, 1, PROBE_PASSES_MAX);
        assert_in_range(class->walkers, 1, PROBE_WALKERS_MAX);
        assert_in_range(class->walk_steps, 1, PROBE_STEPS_MAX);
        assert_true((double)class->spot_fill_bytes <= class->vram_gib * (double)GIB);
        if (!class->has_floor)
            continue;
        double n = class->admission_chain.n, blocks = class->admission_chain.blocks;
        double seconds = chain_seconds(class, class->admission_chain);
        if (!(seconds > 0.2 && seconds < 0.6))
            fail_msg("%s: CHAIN of an admission takes %.3f s", class->name, seconds);
        seconds = chain_seconds(class, class->spot_chain);
        if (!(seconds > 0.03 && seconds < 0.1))
            fail_msg("%s: CHAIN of a spot check takes %.3f s", class->name, seconds);
        assert_true(chain_seconds(class, class->lease_chain) < 0.15);
        assert_true(n * n + 2 * n * n * blocks < 4e9); /* A, X and the next X */
        double filling = class->vram_gib * 1.0737 / class->fill_gbps;
        assert_true(filling > 0.2 && filling < 2.5);
        assert_true(class->pass_gbps < class->memory_gbps && class->walk_gbps < class->memory_gbps);
    }
    assert_true(provable > 45);
    const struct gpu_class *cpu = find("cpu");
    assert_int_equal(cpu->admission_fill_bytes, 16 << 20);
    assert_int_equal(cpu->admission_chain.n, 256);
    assert_false(cpu->has_floor);
    assert_int_equal(find("amd/mi300x-192")->admission_chain.n, 0);
    assert_int_equal(find("nvidia/h100-sxm-80")->admission_chain.steps, 50);
    assert_int_equal(find("nvidia/h100-sxm-80")->spot_chain.steps, 6);
    assert_null(catalogue_find(catalogue, STR("nvidia/h100")));
    assert_null(catalogue_find(catalogue, STR("")));
}

static void driver_names(void **state)
{
    (void)state;
    static const struct {
        const char *driver;
        uint64_t vram_mib;
        const char *name; /* NULL: not known */
    } cases[] = {
        {"NVIDIA H100 80GB HBM3", 81559, "nvidia/h100-sxm-80"},
        {"NVIDIA H100 PCIe", 81559, "nvidia/h100-pcie-80"},
        {"NVIDIA H100 NVL", 95830, "nvidia/h100-nvl-94"},
        {"NVIDIA H200", 143771, "nvidia/h200-sxm-141"},
        {"NVIDIA H200", 0, "nvidia/h200-sxm-141"},
        {"NVIDIA H200", 81559, NULL},
        {"NVIDIA B200", 183359, "nvidia/b200-sxm-180"},
        {"NVIDIA A100-SXM4-40GB", 40960, "nvidia/a100-sxm-40"},
        {"A100-SXM4-80GB", 81920, "nvidia/a100-sxm-80"},
        {"NVIDIA A100 80GB PCIe", 81920, "nvidia/a100-pcie-80"},
        {"NVIDIA L40S", 46068, "nvidia/l40s-48"},
        {"NVIDIA L4", 23034, "nvidia/l4-24"},
        {"Tesla T4", 15360, "nvidia/t4-16"},
        {"NVIDIA GeForce RTX 4090", 24564, "nvidia/rtx4090-24"},
        {"nvidia geforce rtx 4090", 24564, "nvidia/rtx4090-24"},
        {"NVIDIA GeForce RTX 4090", 49140, NULL},
        {"NVIDIA GeForce RTX 4090 D", 24564, NULL},
        {"NVIDIA GeForce RTX 4090 Laptop GPU", 16376, NULL},
        {"NVIDIA GeForce RTX 3090 Ti", 24564, "nvidia/rtx3090ti-24"},
        {"NVIDIA GeForce RTX 3060", 12288, "nvidia/rtx3060-12"},
        {"NVIDIA GeForce RTX 3060", 8192, NULL},
        {"NVIDIA GeForce RTX 3060", 0, NULL},
        {"NVIDIA RTX 6000 Ada Generation", 49140, "nvidia/rtx6000ada-48"},
        {"NVIDIA RTX A6000", 49140, "nvidia/rtxa6000-48"},
        {"Quadro RTX 6000", 24576, NULL},
        {"NVIDIA H100", 81559, NULL},
        {"NVIDIA", 81559, NULL},
        {"|", 0, NULL},
        {"", 0, NULL},
        {"cpu", 16, "cpu"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct gpu_class *class =
            catalogue_of_driver_name(catalogue, str_of(cases[i].driver), cases[i].vram_mib << 20);
        const char *got = class ? class->name : "(none)", *want = cases[i].name ? cases[i].name : "(none)";
        if (strcmp(got, want) != 0)
            fail_msg("%s with %d MiB: %s", cases[i].driver, (int)cases[i].vram_mib, got);
    }
}

static const char *classify(struct proven proven)
{
    double distance = -1;
    const struct gpu_class *class = catalogue_classify(catalogue, &proven, &distance);
    assert_true(class ? distance >= 0 : distance == -1);
    assert_ptr_equal(catalogue_classify(catalogue, &proven, NULL), class);
    return class ? class->name : "(none)";
}

/* Honest devices within what they vary by, and devices that are throttled or not what their name says. */
static void classes_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        struct proven proven; /* VRAM, FILL, PASS, WALK, CHAIN */
        const char *name;
    } cases[] = {
        {{136.2, 240, 4100, 0, 1250}, "nvidia/h200-sxm-141"},
        {{136.2, 0, 4300, 0, 1150}, "nvidia/h200-sxm-141"},
        {{77.3, 167, 2700, 0, 1250}, "nvidia/h100-sxm-80"},
        {{77.3, 150, 2450, 0, 1400}, "nvidia/h100-sxm-80"},
        {{77.3, 100, 1750, 0, 950}, "nvidia/h100-pcie-80"},
        {{77.3, 102, 1650, 0, 480}, "nvidia/a100-sxm-80"},
        {{77.3, 97, 1540, 0, 440}, "nvidia/a100-pcie-80"},
        {{38.8, 78, 1330, 0, 480}, "nvidia/a100-sxm-40"},
        {{93, 0, 3350, 0, 180}, "nvidia/h20-96"},
        {{43.6, 43, 690, 0, 480}, "nvidia/l40s-48"},
        {{47, 0, 650, 0, 195}, "nvidia/rtxa6000-48"},
        {{22.9, 50, 900, 0, 520}, "nvidia/rtx4090-24"},
        {{22.9, 47, 800, 0, 179}, "nvidia/rtx3090-24"},
        {{30.5, 90, 1520, 0, 530}, "nvidia/rtx5090-32"},
        {{174, 400, 6000, 0, 3300}, "nvidia/b200-sxm-180"},
        {{260, 400, 6700, 0, 1125}, "nvidia/b300-sxm-288"},
        /* 4090 and L40S are the same die: memory alone tells them apart */
        {{22.9, 45, 780, 0, 500}, "nvidia/rtx4090-24"},
        {{43.6, 45, 700, 0, 500}, "nvidia/l40s-48"},
        /* the memory of no class */
        {{600, 0, 4100, 0, 1250}, "(none)"},
        {{0.5, 0, 900, 0, 520}, "(none)"},
        {{16.0 / 1024, 0.5, 3, 0, 0.05}, "cpu"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *got = classify(cases[i].proven);
        if (strcmp(got, cases[i].name) != 0)
            fail_msg("case %zu: %s instead of %s", i, got, cases[i].name);
    }
    /* without memory (a spot check) the rates decide */
    assert_string_equal(classify((struct proven){0, 0, 4100, 0, 1250}), "nvidia/h200-sxm-141");
    assert_string_equal(classify((struct proven){0, 0, 690, 0, 480}), "nvidia/l40s-48");
}

/* Every class that can be proven is nearest to its own references, or to a twin of equal rates. */
static void own_references_are_nearest(void **state)
{
    (void)state;
    for (size_t i = 0; i < catalogue_count(catalogue); i++) {
        const struct gpu_class *class = catalogue_at(catalogue, i);
        if (class->admission_chain.n == 0 || !class->has_floor)
            continue;
        struct proven proven = {0.97 * class->vram_gib, class->fill_gbps, class->pass_gbps, class->walk_gbps,
                                class->chain_tops};
        double distance = -1;
        const struct gpu_class *nearest = catalogue_classify(catalogue, &proven, &distance);
        assert_non_null(nearest);
        assert_true(distance < 1e-9);
        assert_true(nearest == class ||
                    (nearest->pass_gbps == class->pass_gbps && nearest->chain_tops == class->chain_tops));
        assert_true(proven_ratio(class, &proven) == 1);
        assert_true(proven_performance(class, &proven) > 0.4 && proven_performance(class, &proven) <= 1);
    }
}

static void nonsense_is_not_measured(void **state)
{
    (void)state;
    static const double nonsense[] = {0, -1, -1e300, NAN, INFINITY, -INFINITY};
    const struct gpu_class *h100 = find("nvidia/h100-sxm-80");
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        double bad = nonsense[i];
        struct proven nothing = {bad, bad, bad, bad, bad};
        assert_string_equal(classify(nothing), "(none)");
        assert_true(proven_ratio(h100, &nothing) == 0);
        assert_true(proven_performance(h100, &nothing) == 1);
        struct proven part = {77.3, bad, 2700, bad, 1250};
        assert_string_equal(classify(part), "nvidia/h100-sxm-80");
        part.chain_tops = bad;
        assert_true(proven_ratio(h100, &part) == 1);
        double before = h100->pass_gbps;
        catalogue_set_fleet(catalogue, "nvidia/h100-sxm-80", &nothing);
        assert_true(h100->pass_gbps == before);
    }
    assert_true(proven_credit(NAN) == 0);
    assert_true(isfinite(proven_ratio(h100, &(struct proven){.pass_gbps = 1e308, .chain_tops = 5e-324})));
    double distance;
    assert_non_null(
        catalogue_classify(catalogue, &(struct proven){.pass_gbps = 1e308, .chain_tops = 5e-324}, &distance));
    assert_true(isfinite(distance));
}

static bool is_near(double a, double b)
{
    return fabs(a - b) < 1e-9;
}

static void thresholds(void **state)
{
    (void)state;
    const struct gpu_class *h100 = find("nvidia/h100-sxm-80");
    struct proven proven = {77.3, 10, 0.8 * 2700, 1, 1250};
    assert_true(is_near(proven_ratio(h100, &proven), 0.8)); /* the worst; FILL and WALK are estimates here */
    assert_true(is_near(proven_credit(0.8), 0.05 / 0.13));
    assert_true(proven_credit(0.75) == 0 && proven_credit(0.3) == 0 && proven_credit(0.88) == 1 &&
                proven_credit(7) == 1);
    assert_true(is_near(proven_performance(h100, &(struct proven){.pass_gbps = 3350.0 / 4, .chain_tops = 1979}), 0.5));
    assert_true(proven_performance(h100, &(struct proven){.pass_gbps = 9000}) == 1);
    assert_true(proven_ratio(find("cpu"), &(struct proven){.pass_gbps = 0.001}) == 1);
}

static void fleet_medians_are_bounded(void **state)
{
    (void)state;
    const struct gpu_class *l4 = find("nvidia/l4-24");
    double pass = l4->pass_gbps, chain = l4->chain_tops, fill = l4->fill_gbps;
    catalogue_set_fleet(catalogue, "nvidia/l4-24", &(struct proven){.pass_gbps = 0.9 * pass});
    assert_true(is_near(l4->pass_gbps, 0.9 * pass));
    assert_true(l4->chain_tops == chain && l4->fill_gbps == fill);
    for (int i = 0; i < 50; i++) /* a fleet of slow workers that lowers it again and again */
        catalogue_set_fleet(catalogue, "nvidia/l4-24",
                            &(struct proven){.pass_gbps = 0.7 * l4->pass_gbps, .chain_tops = 5 * l4->chain_tops});
    assert_true(is_near(l4->pass_gbps, 0.8 * pass));
    assert_true(is_near(l4->chain_tops, 1.25 * chain));
    catalogue_set_fleet(catalogue, "nobody's", &(struct proven){.pass_gbps = 1});
    catalogue_set_fleet(catalogue, "cpu", &(struct proven){.pass_gbps = 1});
    assert_true(find("cpu")->pass_gbps == 0);
}

static struct probe_claim h100_claim(void)
{
    return (struct probe_claim){.name = "NVIDIA H100 80GB HBM3",
                                .pci_vendor = 0x10de,
                                .pci_device = 0x2330,
                                .vram_bytes = UINT64_C(81559) << 20,
                                .free_bytes = 70 * GIB,
                                .l2_bytes = 50 << 20,
                                .sms = 132,
                                .smids_seen = 132,
                                .cc_major = 9};
}

#define CONTRADICTS(change, part)                                  \
    do {                                                           \
        struct probe_claim claim = h100_claim();                   \
        change;                                                    \
        const char *why = claim_contradiction(catalogue, &claim);  \
        assert_non_null(why);                                      \
        if (!strstr(why, part))                                    \
            fail_msg("%s: not for that reason: %s", #change, why); \
    } while (0)

static void claims(void **state)
{
    (void)state;
    struct probe_claim good = h100_claim();
    assert_null(claim_contradiction(catalogue, &good));
    CONTRADICTS(claim.mig = true, "MIG");
    CONTRADICTS(claim.pci_vendor = 0x1002, "PCI vendor");
    CONTRADICTS(claim.pci_device = 0x2331, "PCI device");
    CONTRADICTS(claim.cc_major = 8, "compute capability");
    CONTRADICTS(claim.cc_minor = 1, "compute capability");
    CONTRADICTS(claim.sms = claim.smids_seen = 114, "multiprocessors");
    CONTRADICTS(claim.smids_seen = 133, "multiprocessors");
    CONTRADICTS(claim.smids_seen = 16, "multiprocessors");
    CONTRADICTS(claim.l2_bytes = 12 << 20, "cache");
    CONTRADICTS(claim.vram_bytes = 40 * GIB; claim.free_bytes = 1, "memory");
    CONTRADICTS(claim.free_bytes = 81 * GIB, "memory");
    /* what is not told is no lie, and an unknown name earns nothing */
    struct probe_claim bare = {.name = "NVIDIA H100 80GB HBM3"};
    assert_null(claim_contradiction(catalogue, &bare));
    struct probe_claim unknown = h100_claim();
    strcpy(unknown.name, "NVIDIA Something New");
    assert_null(claim_contradiction(catalogue, &unknown));
    struct probe_claim cpu = {.name = "cpu", .vram_bytes = 16 << 20, .free_bytes = 16 << 20};
    assert_null(claim_contradiction(catalogue, &cpu));
    struct probe_claim small = {.name = "NVIDIA GeForce RTX 3060", .vram_bytes = 8 * GIB};
    assert_null(claim_contradiction(catalogue, &small)); /* there is one of 8 GB */
}

static enum error open_text(const char *text, struct catalogue **ret, char error[static CONFIG_ERROR_MAX])
{
    char path[] = "/tmp/test_catalogue_XXXXXX", full[CONFIG_ERROR_MAX];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    enum error failed = catalogue_open(path, ret, full);
    unlink(path);
    if (failed) { /* the name of the file is in front */
        assert_memory_equal(full, path, strlen(path));
        strcpy(error, full + strlen(path));
    }
    return failed;
}

static void files_add_and_replace(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct catalogue *of_file = NULL;
    const char *text = "classes:\n"
                       "  - name: nvidia/h100-sxm-80\n"
                       "    pass_gbps: 2850.5\n"
                       "    is_measured: true\n"
                       "    admission_chain: 8192x8x55\n"
                       "  - {name: nvidia/new-64, vram_gib: 64, memory_gbps: 2000, fp32_tflops: 40, int8_tops: 1000,\n"
                       "     compute_capability: 9.0, driver_names: NEW 64GB|NEW, pci_devices: 1234 00ff,\n"
                       "     spot_fill_bytes: 2 GiB, sms: 100}\n";
    if (open_text(text, &of_file, error))
        fail_msg("%s", error);
    const struct gpu_class *h100 = catalogue_find(of_file, STR("nvidia/h100-sxm-80"));
    assert_true(h100->pass_gbps == 2850.5 && h100->is_measured && h100->chain_tops == 1250);
    assert_int_equal(h100->admission_chain.steps, 55);
    assert_int_equal(h100->sms, 132);
    const struct gpu_class *new = catalogue_of_driver_name(of_file, STR("NVIDIA NEW"), 64 * GIB);
    assert_non_null(new);
    assert_string_equal(new->name, "nvidia/new-64");
    assert_true(is_near(new->pass_gbps, 1700) && is_near(new->chain_tops, 630));
    assert_int_equal(new->cc_major, 9);
    assert_int_equal(new->pci_devices[1], 0xff);
    assert_int_equal(new->pci_devices[2], 0);
    assert_int_equal(new->spot_fill_bytes, 2 * GIB);
    assert_true(is_shape_good(new->admission_chain) && new->double_rounds > 0 && new->passes > 0);
    assert_int_equal(catalogue_count(of_file), catalogue_count(catalogue) + 1);
    catalogue_free(of_file);
    assert_int_equal(open_text("", &of_file, error), ERR_NONE);
    assert_int_equal(catalogue_count(of_file), catalogue_count(catalogue));
    catalogue_free(of_file);
}

static void files_are_strict(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"classes:\n  - name: a\n    vram: 5\n", ":3: classes[0].vram: unknown key"},
        {"clases: []\n", ":1: clases: unknown key"},
        {"classes:\n  - vram_gib: 5\n", ":2: classes[0]: lacks 'name'"},
        {"classes: 5\n", ":1: classes: must be a list"},
        {"classes:\n  - name: nvidia/h100-sxm-80\n    name: b\n", ":3: classes[0].name: is given twice"},
        {"classes: [{name: Bad Name, vram_gib: 1}]\n",
         ": classes[0].name (Bad Name): must be lower case letters, digits, '-' and '/'"},
        {"classes: [{name: new}]\n",
         ": classes[0].vram_gib (new): must be given, for nothing else tells it from others"},
        {"classes: [{name: cpu}, {name: new, vram_gib: -1}]\n",
         ": classes[1].vram_gib (new): must be a number, 0 or more, and in its unit"},
        {"classes: [{name: cpu, pass_gbps: nan}]\n",
         ": classes[0].pass_gbps (cpu): must be a number, 0 or more, and in its unit"},
        {"classes: [{name: cpu, passes: 65}]\n", ": classes[0].passes (cpu): must be a whole number within its limits"},
        {"classes: [{name: cpu, passes: 1.5}]\n",
         ": classes[0].passes (cpu): must be a whole number within its limits"},
        {"classes: [{name: cpu, spot_fill_bytes: 5 MB}]\n",
         ": classes[0].spot_fill_bytes (cpu): must be a whole number, or one with KiB MiB GiB"},
        {"classes: [{name: cpu, spot_chain: 100x8x5}]\n",
         ": classes[0].spot_chain (cpu): must be like 8192x8x50: n (a multiple of 64), blocks, steps"},
        {"classes: [{name: cpu, spot_chain: 32768x16x5}]\n",
         ": classes[0].spot_chain (cpu): must be like 8192x8x50: n (a multiple of 64), blocks, steps"},
        {"classes: [{name: cpu, compute_capability: 9}]\n", ": classes[0].compute_capability (cpu): must be like 9.0"},
        {"classes: [{name: cpu, is_measured: 'yes'}]\n", ": classes[0].is_measured (cpu): must be true or false"},
        {"classes: [{name: cpu, pci_devices: 10de 23}]\n",
         ": classes[0].pci_devices (cpu): must be up to 8 of four hexadecimal digits, blanks between"},
    };
    char error[CONFIG_ERROR_MAX];
    struct catalogue *untouched = NULL;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(open_text(cases[i].text, &untouched, error), ERR_BAD_INPUT);
        assert_string_equal(error, cases[i].error);
        assert_null(untouched);
    }
    assert_int_not_equal(catalogue_open("/nowhere/at/all.yaml", &untouched, error), ERR_NONE);
    assert_non_null(strstr(error, "/nowhere/at/all.yaml"));
    assert_null(untouched);
    assert_null(catalogue_free(NULL));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, open_it, close_it)
    const struct CMUnitTest tests[] = {
        TEST(sizes_are_within_limits),   TEST(driver_names),
        TEST(classes_are_told_apart),    TEST(own_references_are_nearest),
        TEST(nonsense_is_not_measured),  TEST(thresholds),
        TEST(fleet_medians_are_bounded), TEST(claims),
        TEST(files_add_and_replace),     TEST(files_are_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
