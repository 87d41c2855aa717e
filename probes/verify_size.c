/* How much a session asks for. R4: rates are never corrected for the round trip; the work is made long against it. */
#include "core/clock.h"
#include "probes/verify_priv.h"

#include <math.h>
#include <string.h>

#define GIB 1073741824.0
#define RTT_SHARE 20.0 /* work lasts that many round trips, where it can be made to */
#define RTT_LEAST 3.0  /* below, an honest device would seem to be at 3/4 of its rate */
#define SPOT_DOUBLINGS 3
#define ADMISSION_DOUBLINGS 2 /* who delays pings makes the gateway prepare so much more */
#define DEADLINE_FACTOR 4.0
#define DEADLINE_BASE_NS (2 * NS_PER_S)
#define DEADLINE_BASE_CPU_NS (5 * NS_PER_S) /* a machine without a GPU may be under any load */
#define DEADLINE_MAX_NS (60 * NS_PER_S)
#define DRIVER_BYTES (UINT64_C(512) << 20) /* a small card's driver keeps more than 3 % */
#define LEASE_N_LEAST 512u

/* What nobody knows is sized by its memory. */
static void guess(uint64_t vram_bytes, struct gpu_class *ret)
{
    const double vram_gib = (double)vram_bytes / GIB;
    const uint32_t n = vram_gib >= 12 ? 8192 : vram_gib >= 6 ? 4096 : 2048;
    *ret = (struct gpu_class){.vram_gib = vram_gib,
                              .double_rounds = 64,
                              .passes = 4,
                              .walkers = 1024,
                              .walk_steps = 256,
                              .admission_chain = {n, 8, 20},
                              .spot_chain = {n, 8, 6},
                              .lease_chain = {n < 4096 ? n : 4096, 4, 4},
                              .spot_fill_bytes = vram_gib >= 12 ? UINT64_C(4) << 30 : vram_bytes / 4,
                              .net_frames = 4};
}

/* A class may be known without its challenges: none was made for it. */
static bool has_sizes(const struct gpu_class *class)
{
    return class->double_rounds && class->admission_chain.n && class->spot_chain.n && class->lease_chain.n &&
           class->spot_fill_bytes;
}

void verify_choose_class(struct verify_session *session)
{
    const struct catalogue *catalogue = session->options.catalogue;
    const struct probe_claim *claim = &session->report.claim;
    const struct gpu_class *named = NULL, *told;
    if (session->options.claimed_gpu.len)
        named = catalogue_find(catalogue, session->options.claimed_gpu);
    if (str_eq(str_of(claim->name), STR("cpu"))) /* whatever it registered as: it says that it has no GPU */
        told = catalogue_find(catalogue, STR("cpu"));
    else
        told = catalogue_of_driver_name(catalogue, str_of(claim->name), claim->vram_bytes);
    session->is_cpu = told && str_eq(str_of(told->name), STR("cpu"));
    session->report.claimed = named ? named : told;
    session->sizes = session->is_cpu ? told : session->report.claimed;
    if (!session->sizes || !has_sizes(session->sizes)) {
        guess(claim->vram_bytes, &session->guess);
        session->sizes = &session->guess;
    }
}

static uint64_t chain_bytes(struct chain_shape shape);
static uint64_t whole_memory(const struct verify_session *session);

/* What a purpose wants at once: the chain comes when the tiles are gone, or makes them go. */
static uint64_t wanted(const struct verify_session *session, enum verify_purpose purpose)
{
    const struct gpu_class *class = session->sizes;
    const bool is_spot = purpose == VERIFY_SPOT;
    uint64_t fill = is_spot ? class->spot_fill_bytes : class->admission_fill_bytes;
    const uint64_t chain = chain_bytes(is_spot ? class->spot_chain : class->admission_chain);
    if (!is_spot && !fill)
        fill = whole_memory(session);
    return fill > chain ? fill : chain;
}

static void shrink(struct verify_session *session, enum verify_purpose purpose)
{
    session->options.purpose = session->report.purpose = purpose;
    session->options.claimed_gpu = session->options.proven_gpu;
    session->step = verify_steps_of(purpose); /* HELLO is the first of each */
    verify_choose_class(session);
}

bool verify_fit(struct verify_session *session)
{
    const uint64_t free_bytes = session->report.claim.free_bytes;
    if (session->is_cpu || !free_bytes) /* not known: FILL will tell */
        return true;
    const bool is_known = session->options.proven_gpu.len > 0;
    if (session->options.purpose == VERIFY_ADMISSION && wanted(session, VERIFY_ADMISSION) > free_bytes) {
        if (!is_known) {
            session->report.is_occupied = true;
            verify_fail(session, VERIFY_LOST, "only %.1f of %.1f GiB are free; a first proof wants the memory",
                        (double)free_bytes / GIB, (double)session->report.claim.vram_bytes / GIB);
            return false;
        }
        shrink(session, VERIFY_SPOT);
    }
    if (session->options.purpose == VERIFY_SPOT && is_known && wanted(session, VERIFY_SPOT) > free_bytes / 10 * 9)
        shrink(session, VERIFY_LEASE);
    return true;
}

void verify_choose_rtt(struct verify_session *session)
{
    int64_t *rtts = session->rtts_ns;
    for (unsigned i = 1; i < session->rtt_count; i++)
        for (unsigned j = i; j > 0 && rtts[j] < rtts[j - 1]; j--) {
            int64_t swap = rtts[j];
            rtts[j] = rtts[j - 1];
            rtts[j - 1] = swap;
        }
    session->report.rtt_ns = session->rtt_count ? rtts[(session->rtt_count - 1) / 2] : 0;
}

static double rtt_s(const struct verify_session *session)
{
    return (double)session->report.rtt_ns / (double)NS_PER_S;
}

/* -- how long it takes: by the class's references, and low guesses where there are none -- */

static double rate_or(const struct verify_session *session, double reference, double gpu, double cpu)
{
    return reference > 0 ? reference : session->is_cpu ? cpu : gpu;
}

double verify_fill_s(const struct verify_session *session, uint64_t tiles)
{
    return (double)tiles * PROBE_TILE_BYTES / 1e9 / rate_or(session, session->sizes->fill_gbps, 15, 0.1);
}

double verify_pass_s(const struct verify_session *session, uint64_t tiles, uint32_t passes)
{
    return (double)tiles * PROBE_TILE_BYTES * passes / 1e9 / rate_or(session, session->sizes->pass_gbps, 150, 0.2);
}

double verify_walk_s(const struct verify_session *session, uint32_t steps)
{
    return 128.0 * session->sizes->walkers * steps / 1e9 / rate_or(session, session->sizes->walk_gbps, 20, 0.005);
}

double verify_chain_operations(struct chain_shape shape)
{
    return 2.0 * shape.n * shape.n * shape.blocks * shape.n * shape.steps;
}

double verify_chain_s(const struct verify_session *session, struct chain_shape shape)
{
    return verify_chain_operations(shape) / 1e12 / rate_or(session, session->sizes->chain_tops, 10, 0.001);
}

bool verify_is_too_far(const struct verify_session *session, double expected_s)
{
    return session->sizes->has_floor && session->options.purpose != VERIFY_LEASE &&
           expected_s < RTT_LEAST * rtt_s(session);
}

int64_t verify_deadline_ns(const struct verify_session *session, double expected_s)
{
    const double more_ns = DEADLINE_FACTOR * expected_s * (double)NS_PER_S;
    const int64_t base_ns = session->is_cpu ? DEADLINE_BASE_CPU_NS : DEADLINE_BASE_NS;
    if (more_ns >= (double)(DEADLINE_MAX_NS - base_ns))
        return DEADLINE_MAX_NS;
    return base_ns + (int64_t)more_ns;
}

/* -- sizes -- */

static bool is_long_enough(const struct verify_session *session, double expected_s)
{
    return !session->sizes->has_floor || expected_s >= RTT_SHARE * rtt_s(session);
}

static uint64_t whole_memory(const struct verify_session *session)
{
    const struct gpu_class *class = session->sizes;
    uint64_t vram = session->report.claim.vram_bytes;
    if (!vram)
        vram = (uint64_t)(class->vram_gib * GIB);
    const uint64_t most = (uint64_t)((double)vram * VERIFY_FILL_SHARE);
    return vram > 8 * DRIVER_BYTES && vram - DRIVER_BYTES < most ? vram - DRIVER_BYTES : most;
}

/* A spot check fills so much that the most passes over it are long enough, in doublings. */
static uint64_t spot_bytes(const struct verify_session *session)
{
    const uint64_t free_bytes = session->report.claim.free_bytes / 10 * 9;
    uint64_t bytes = session->sizes->spot_fill_bytes;
    while (!is_long_enough(session, verify_pass_s(session, bytes / PROBE_TILE_BYTES, PROBE_PASSES_MAX)) &&
           bytes * 2 <= free_bytes)
        bytes *= 2;
    return bytes;
}

uint64_t verify_fill_tiles(const struct verify_session *session)
{
    uint64_t bytes = session->sizes->admission_fill_bytes;
    if (session->options.purpose == VERIFY_SPOT)
        bytes = spot_bytes(session);
    else if (!bytes)
        bytes = whole_memory(session);
    const uint64_t tiles = bytes / PROBE_TILE_BYTES;
    return tiles < 1 ? 1 : tiles > PROBE_TILES_MAX ? PROBE_TILES_MAX : tiles;
}

uint32_t verify_passes(const struct verify_session *session)
{
    uint32_t passes = session->sizes->passes ? session->sizes->passes : 1;
    while (passes < PROBE_PASSES_MAX && !is_long_enough(session, verify_pass_s(session, session->fill.tiles, passes)))
        passes++;
    return passes;
}

uint32_t verify_walk_steps(const struct verify_session *session)
{
    uint32_t steps = session->sizes->walk_steps;
    while (steps * 2 <= PROBE_STEPS_MAX && !is_long_enough(session, verify_walk_s(session, steps)))
        steps *= 2;
    return steps;
}

/* A and two of X, and what one block's columns of int32 sums take. */
static uint64_t chain_bytes(struct chain_shape shape)
{
    return (uint64_t)shape.n * shape.n * (1 + 2 * shape.blocks + 4);
}

static bool lease_shape(const struct verify_session *session, struct chain_shape *ret)
{
    struct chain_shape shape = session->sizes->lease_chain;
    uint64_t free_bytes = session->report.claim.free_bytes;
    if (session->options.free_bytes && (!free_bytes || session->options.free_bytes < free_bytes))
        free_bytes = session->options.free_bytes;
    while (free_bytes && chain_bytes(shape) > free_bytes) {
        if (shape.n < 2 * LEASE_N_LEAST || shape.n % 128 != 0)
            return false;
        shape.n /= 2;
    }
    *ret = shape;
    return true;
}

/* Few shapes a class, so that they can be prepared: steps grow in doublings. */
bool verify_chain_shape(const struct verify_session *session, struct chain_shape *ret)
{
    if (session->options.purpose == VERIFY_LEASE)
        return lease_shape(session, ret);
    const bool is_spot = session->options.purpose == VERIFY_SPOT;
    struct chain_shape shape = is_spot ? session->sizes->spot_chain : session->sizes->admission_chain;
    const int doublings = is_spot ? SPOT_DOUBLINGS : ADMISSION_DOUBLINGS;
    for (int i = 0; i < doublings && shape.steps * 2 <= PROBE_CHAIN_STEPS_MAX; i++)
        if (!is_long_enough(session, verify_chain_s(session, shape)))
            shape.steps *= 2;
    *ret = shape;
    return true;
}
