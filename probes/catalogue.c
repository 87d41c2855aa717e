/* The catalogue: what rows leave open is derived, and proven numbers are held against them. */
#include "probes/catalogue_priv.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GIB (UINT64_C(1) << 30)
#define GB_PER_GIB 1.073741824
#define FILL_SHARE 0.97 /* of the memory that FILL takes */

/* -- what a datasheet tells of sizes and references --------------------------------------------------------------- */

/* Few different lengths, for challenges are prepared by shape. */
static uint32_t round_steps(double steps, uint32_t least, uint32_t most)
{
    double grain = steps < 20 ? 1 : steps < 100 ? 5 : 10, rounded = round(steps / grain) * grain;
    return rounded < least ? least : rounded > most ? most : (uint32_t)rounded;
}

/* The largest matrices of which `least` steps of CHAIN fit into that time: larger ones use a device better, fewer than
 * a few steps say little. A step is 2 * n * n * blocks * n operations. */
static struct chain_shape chain_within(double tops, double seconds, uint32_t least)
{
    static const uint32_t sizes[] = {8192, 4096, 2048, 1024};
    struct chain_shape shape = {.blocks = 8};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        double n = sizes[i], steps = seconds * tops * 1e12 / (2 * n * n * n * 8);
        shape.n = sizes[i];
        shape.steps = round_steps(steps, least, 1000);
        if (steps >= least)
            break;
    }
    return shape;
}

/* D such that filling runs at a twentieth of the memory's rate, so that computing a tile anew costs twenty times
 * reading it. A double round is 96 integer operations (4 adds, 4 xors, 4 rotations in each of 8 quarter rounds) for 64
 * bytes: D = I / (96/64 * B/20), I the integer rate. I is the rate of fp32 instructions (half of its flops) where every
 * lane does both (compute capability 8.0), and half of that elsewhere. */
static uint32_t double_rounds_of(const struct gpu_class *class)
{
    bool is_full_rate = class->cc_major == 8 && class->cc_minor == 0;
    double integer = class->fp32_tflops * 1e12 / 2 * (is_full_rate ? 1 : 0.5);
    double rounds = integer / (96.0 / 64 * class->memory_gbps * 1e9 / 20);
    return rounds < 8 ? 8 : rounds > 512 ? 512 : (uint32_t)lround(rounds);
}

static void complete_references(struct gpu_class *class)
{
    if (class->pass_gbps == 0)
        class->pass_gbps = 0.85 * class->memory_gbps; /* of good streaming kernels, 77 to 90 % on Ampere and later */
    if (class->chain_tops == 0)
        class->chain_tops = 0.63 * class->int8_tops; /* what is expected of Hopper, with the epilogue */
    if (class->fill_gbps == 0)
        class->fill_gbps = class->memory_gbps / 20;
    if (class->walk_gbps == 0) { /* 128 bytes after every 0.9 us, unless that is more than the memory gives */
        double rate = class->walkers * 128.0 / 900;
        class->walk_gbps = rate < class->memory_gbps / 2 ? rate : class->memory_gbps / 2;
    }
}

/* Do we have kernels for it? They need compute capability 8.0. */
static bool is_provable(const struct gpu_class *class)
{
    return class->cc_major >= 8 && class->int8_tops > 0 && class->memory_gbps > 0 && class->vram_gib > 0 &&
           class->fp32_tflops > 0;
}

static void complete_sizes(struct gpu_class *class)
{
    double vram = class->vram_gib;
    if (class->double_rounds == 0)
        class->double_rounds = double_rounds_of(class);
    if (class->walkers == 0)
        class->walkers = class->sms ? 8 * class->sms : 1024;
    if (class->walk_steps == 0)
        class->walk_steps = 256;
    complete_references(class);
    if (class->passes == 0) { /* 150 ms: many round trips */
        double passes = ceil(0.15 * class->pass_gbps / (FILL_SHARE * vram * GB_PER_GIB));
        class->passes = passes < 2 ? 2 : passes > 16 ? 16 : (uint32_t)passes;
    }
    if (class->admission_chain.n == 0)
        class->admission_chain = chain_within(class->chain_tops, 0.35, 12);
    if (class->spot_chain.n == 0)
        class->spot_chain = chain_within(class->chain_tops, 0.045, 6);
    if (class->lease_chain.n == 0) {
        double steps = 0.025 * class->chain_tops * 1e12 / (2.0 * 4096 * 4096 * 4 * 4096);
        class->lease_chain = (struct chain_shape){4096, 4, round_steps(steps, 4, 60)};
    }
    if (class->spot_fill_bytes == 0)
        class->spot_fill_bytes = vram >= 16 ? 4 * GIB : (uint64_t)(vram * (double)(GIB / 4));
    if (class->net_frames == 0)
        class->net_frames = 16;
    if (class->net_floor_mbps == 0) {
        double floor = 500 * vram / 192;
        class->net_floor_mbps = floor < 100 ? 100 : floor > 500 ? 500 : floor;
    }
}

void catalogue_complete(struct catalogue_row *row)
{
    if (row->class.has_floor && is_provable(&row->class))
        complete_sizes(&row->class);
    row->base_fill = row->class.fill_gbps;
    row->base_pass = row->class.pass_gbps;
    row->base_walk = row->class.walk_gbps;
    row->base_chain = row->class.chain_tops;
}

/* -- opening and finding ------------------------------------------------------------------------------------------ */

enum error catalogue_open(const char *path, struct catalogue **ret, char *error)
{
    struct catalogue *catalogue = calloc(1, sizeof(*catalogue));
    if (!catalogue) {
        (void)str_copy(error, CONFIG_ERROR_MAX, STR("out of memory"));
        return ERR_NO_MEMORY;
    }
    catalogue_add_built_in(catalogue);
    enum error failed = path && *path ? catalogue_add_file(catalogue, path, error) : ERR_NONE;
    if (failed) {
        catalogue_free(catalogue);
        return failed;
    }
    for (size_t i = 0; i < catalogue->count; i++)
        catalogue_complete(&catalogue->rows[i]);
    *ret = catalogue;
    return ERR_NONE;
}

struct catalogue *catalogue_free(struct catalogue *catalogue)
{
    free(catalogue);
    return NULL;
}

size_t catalogue_count(const struct catalogue *catalogue)
{
    return catalogue->count;
}

const struct gpu_class *catalogue_at(const struct catalogue *catalogue, size_t i)
{
    assert(i < catalogue->count);
    return &catalogue->rows[i].class;
}

struct catalogue_row *catalogue_row_of(struct catalogue *catalogue, struct str name)
{
    for (size_t i = 0; i < catalogue->count; i++)
        if (str_eq(str_of(catalogue->rows[i].class.name), name))
            return &catalogue->rows[i];
    return NULL;
}

const struct gpu_class *catalogue_find(const struct catalogue *catalogue, struct str name)
{
    for (size_t i = 0; i < catalogue->count; i++)
        if (str_eq(str_of(catalogue->rows[i].class.name), name))
            return &catalogue->rows[i].class;
    return NULL;
}

/* -- proven numbers ----------------------------------------------------------------------------------------------- */

static bool is_measured_number(double value)
{
    return isfinite(value) && value > 0;
}

struct sum {
    double squares, weight;
};

static void add(struct sum *sum, double proven, double expected, double weight)
{
    if (!is_measured_number(proven) || !(expected > 0))
        return;
    double off = log(proven) - log(expected); /* finite whatever the two are */
    sum->squares += weight * off * off;
    sum->weight += weight;
}

/* Memory cannot be faked upwards, and FILL takes nearly all of it: the window is narrow above, and leaves room below
 * for what a driver and a desktop hold. */
#define VRAM_MOST 1.07
#define VRAM_LEAST 0.85

/* Could it be that class at all? */
static bool is_candidate(const struct gpu_class *class, const struct proven *proven)
{
    if (!(class->vram_gib > 0) || (class->has_floor && !(class->chain_tops > 0)))
        return false;
    return !is_measured_number(proven->vram_gib) ||
           (proven->vram_gib <= VRAM_MOST * class->vram_gib && proven->vram_gib >= VRAM_LEAST * class->vram_gib);
}

/* Weights: the two rates that no name can lend count most; memory has its window already; FILL's rate says how fast
 * integers are, but depends on the kernel more than on the model. */
const struct gpu_class *catalogue_classify(const struct catalogue *catalogue, const struct proven *proven,
                                           double *ret_distance)
{
    const struct gpu_class *nearest = NULL;
    double least = INFINITY;
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct gpu_class *class = &catalogue->rows[i].class;
        struct sum sum = {0, 0};
        if (!is_candidate(class, proven))
            continue;
        double share = class->has_floor ? FILL_SHARE : 1;
        add(&sum, proven->vram_gib, share * class->vram_gib, 1);
        add(&sum, proven->pass_gbps, class->pass_gbps, 2);
        add(&sum, proven->chain_tops, class->chain_tops, 2);
        add(&sum, proven->fill_gbps, class->fill_gbps, 0.5);
        double distance = sum.weight > 0 ? sqrt(sum.squares / sum.weight) : INFINITY;
        if (distance < least) {
            least = distance;
            nearest = class;
        }
    }
    if (nearest && ret_distance)
        *ret_distance = least;
    return nearest;
}

static void set_bounded(_Atomic double *reference, double base, double median)
{
    if (!is_measured_number(median) || !(base > 0))
        return;
    double share = median / base;
    *reference = base * (share < 0.8 ? 0.8 : share > 1.25 ? 1.25 : share);
}

void catalogue_set_fleet(struct catalogue *catalogue, const char *class_name, const struct proven *median)
{
    struct catalogue_row *row = catalogue_row_of(catalogue, str_of(class_name));
    if (!row)
        return;
    set_bounded(&row->class.fill_gbps, row->base_fill, median->fill_gbps);
    set_bounded(&row->class.pass_gbps, row->base_pass, median->pass_gbps);
    set_bounded(&row->class.walk_gbps, row->base_walk, median->walk_gbps);
    set_bounded(&row->class.chain_tops, row->base_chain, median->chain_tops);
}

static double least_ratio(double least, double proven, double reference)
{
    if (!is_measured_number(proven) || !(reference > 0))
        return least;
    return proven / reference < least ? proven / reference : least;
}

double proven_ratio(const struct gpu_class *class, const struct proven *proven)
{
    if (!class->has_floor)
        return 1;
    double least = least_ratio(INFINITY, proven->pass_gbps, class->pass_gbps);
    least = least_ratio(least, proven->chain_tops, class->chain_tops);
    if (class->is_measured)
        least = least_ratio(least, proven->fill_gbps, class->fill_gbps);
    return isfinite(least) ? least : 0;
}

double proven_credit(double ratio)
{
    double credit = (ratio - PROBE_FLOOR) / (PROBE_FULL - PROBE_FLOOR);
    return credit > 0 ? (credit < 1 ? credit : 1) : 0;
}

double proven_performance(const struct gpu_class *class, const struct proven *proven)
{
    /* where integers are slow by design, CHAIN goes through bf16 */
    double peak = class->int8_tops > class->bf16_tflops ? class->int8_tops : class->bf16_tflops;
    double logs = 0;
    int count = 0;
    if (is_measured_number(proven->pass_gbps) && class->memory_gbps > 0) {
        logs += log(proven->pass_gbps / class->memory_gbps);
        count++;
    }
    if (is_measured_number(proven->chain_tops) && peak > 0) {
        logs += log(proven->chain_tops / peak);
        count++;
    }
    return count == 0 || logs > 0 ? 1 : exp(logs / count);
}
