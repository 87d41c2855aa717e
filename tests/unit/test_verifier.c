/* Whole sessions in one process: the verifier against the prover over a CPU, with every kind of wrong answer put in
 * between, and times that are told, not taken. */
#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/config.h"
#include "core/crypto.h"
#include "probes/prover.h"
#include "probes/verifier.h"

#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

/* Two small classes with floors, and memory that no other class has. */
static const char classes[] = "classes:\n"
                              "  - name: test/fast\n    driver_names: Test Fast\n    vram_gib: 0.0009765625\n"
                              "    fill_gbps: 1\n    pass_gbps: 10\n    walk_gbps: 1\n    chain_tops: 0.01\n"
                              "    double_rounds: 1\n    passes: 2\n    walkers: 40\n    walk_steps: 8\n"
                              "    admission_chain: 64x8x60\n    spot_chain: 64x8x4\n    lease_chain: 128x4x2\n"
                              "    spot_fill_bytes: 256KiB\n    net_frames: 2\n"
                              "  - name: test/slow\n    driver_names: Test Slow\n    vram_gib: 0.0009765625\n"
                              "    fill_gbps: 0.5\n    pass_gbps: 5\n    walk_gbps: 0.5\n    chain_tops: 0.005\n"
                              "    double_rounds: 1\n    passes: 2\n    walkers: 40\n    walk_steps: 8\n"
                              "    admission_chain: 64x8x30\n    spot_chain: 64x8x20\n    lease_chain: 128x4x2\n"
                              "    spot_fill_bytes: 256KiB\n    net_frames: 1\n    net_floor_mbps: 100\n";

static struct catalogue *catalogue;
static struct chain_pool *pool;
static struct signing_key *key, *other_key;

/* -- the device: a CPU that calls itself something else, and may cheat -- */

static struct probe_claim told;
static enum cheat { HONEST, TILES_OF_ANOTHER_SEED, ROOT_OF_ANOTHER_WORKER, STALE_CHAIN, NO_ROOM, BROKEN } cheat;
static unsigned releases;

static enum error fake_open(unsigned index, struct probe_backend **ret)
{
    (void)index;
    return probe_backend_cpu.open(0, ret);
}

static void fake_claim(struct probe_backend *backend, struct probe_claim *ret)
{
    (void)backend;
    *ret = told;
}

static enum error fake_warm(struct probe_backend *backend)
{
    (void)backend;
    return cheat == BROKEN ? ERR_SYSTEM : ERR_NONE;
}

static enum error fake_fill(struct probe_backend *backend, const struct probe_fill *fill)
{
    struct probe_fill changed = *fill;
    changed.seed[0] ^= cheat == TILES_OF_ANOTHER_SEED;
    return cheat == NO_ROOM ? ERR_NO_MEMORY : probe_backend_cpu.fill(backend, &changed);
}

static enum error fake_pass(struct probe_backend *backend, const struct probe_pass *pass,
                            uint32_t ret_roots[PROBE_PASSES_MAX][8])
{
    struct probe_pass changed = *pass;
    changed.worker_key[0] ^= cheat == ROOT_OF_ANOTHER_WORKER;
    return probe_backend_cpu.pass(backend, &changed, ret_roots);
}

static enum error fake_chain(struct probe_backend *backend, const struct probe_chain *chain, uint32_t ret_root[8],
                             enum probe_route *ret_route)
{
    struct probe_chain changed = *chain;
    changed.seed[7] ^= cheat == STALE_CHAIN;
    return probe_backend_cpu.chain(backend, &changed, ret_root, ret_route);
}

static void fake_release(struct probe_backend *backend)
{
    releases++;
    probe_backend_cpu.release(backend);
}

static struct prover *prover_with(const struct signing_key *with)
{
    static struct probe_backend_ops ops;
    struct prover *prover;
    ops = probe_backend_cpu;
    ops.open = fake_open;
    ops.claim = fake_claim;
    ops.warm = fake_warm;
    ops.fill = fake_fill;
    ops.pass = fake_pass;
    ops.chain = fake_chain;
    ops.release = fake_release;
    const struct prover_options options = {.backend = &ops, .key = with, .host_id = {1, 2, 3}, .devices = 2};
    assert_int_equal(prover_open(&options, &prover), ERR_NONE);
    return prover;
}

/* -- playing a session -- */

struct play {
    struct verify_options options;
    /* Rates that the fake clock shows; 0 is a millisecond whatever is asked. */
    double fill_gbps, pass_gbps, walk_gbps, chain_tops, net_mbps;
    int64_t rtt_ns;
    /* What is put in the place of the answer of that kind; round: which one of its kind, from 0. */
    const char *kind;
    enum probe_frame_type answer;
    unsigned round;
    void (*change)(struct buf *answer);
    int64_t took_ns; /* of the changed answer, where not 0 */
    const struct signing_key *key;
    /* what happened */
    enum verify_result result;
    char reason[96];
    struct verify_report report;
    unsigned sent, slotted;
    char trace[512];
    char verdict[1024];
};

static struct verify_options options_of(enum verify_purpose purpose)
{
    return (struct verify_options){.purpose = purpose, .catalogue = catalogue, .pool = pool};
}

static double seconds(const struct play *play, const struct probe_frame *ask)
{
    static _Thread_local uint64_t tiles;
    const struct probe_challenge *challenge = &ask->of.challenge;
    switch (challenge->kind) {
    case PROBE_KIND_FILL:
        tiles = challenge->of.fill.tiles;
        return (double)tiles * 8192 / 1e9 / play->fill_gbps;
    case PROBE_KIND_PASS:
        return (double)tiles * 8192 * challenge->of.pass.passes / 1e9 / play->pass_gbps;
    case PROBE_KIND_WALK:
        return 128.0 * challenge->of.walk.walkers * challenge->of.walk.steps / 1e9 / play->walk_gbps;
    case PROBE_KIND_CHAIN: {
        const double n = challenge->of.chain.n;
        return 2 * n * n * n * challenge->of.chain.blocks * challenge->of.chain.steps / 1e12 / play->chain_tops;
    }
    }
    return 0;
}

static int64_t fake_time(const struct play *play, const struct probe_frame *ask, size_t bytes)
{
    if (ask->type == PROBE_CHALLENGE && play->fill_gbps > 0)
        return (int64_t)(seconds(play, ask) * 1e9);
    if (ask->type == PROBE_PING)
        return play->rtt_ns ? play->rtt_ns : 1000;
    if ((ask->type == PROBE_NET || ask->type == PROBE_OPEN) && play->net_mbps > 0)
        return (int64_t)((double)bytes * 8 * 1e3 / play->net_mbps);
    return NS_PER_MS;
}

static const char *kind_of(const struct probe_frame *ask, const char *opened)
{
    switch (ask->type) {
    case PROBE_HELLO_ASK:
        return "hello";
    case PROBE_PING:
        return "ping";
    case PROBE_WARM:
        return "warm";
    case PROBE_NET:
        return "net";
    case PROBE_BIND:
        return "bind";
    case PROBE_RELEASE:
        return "release";
    case PROBE_CHALLENGE:
        return probe_kind_name(ask->of.challenge.kind);
    default:
        return opened;
    }
}

static void note(struct play *play, const char *kind)
{
    const size_t len = strlen(play->trace);
    snprintf(play->trace + len, sizeof(play->trace) - len, "%s%s", len ? " " : "", kind);
}

static void play(struct play *play)
{
    struct prover *prover = prover_with(play->key ? play->key : key);
    struct verify_session *session;
    struct verify_send send;
    struct buf answer;
    const char *kind = "", *last = "";
    unsigned round = 0;
    buf_init(&answer, 2 * PROBE_FRAME_MAX);
    assert_int_equal(verify_open(&play->options, &session), ERR_NONE);
    enum verify_next next = verify_start(session, &send);
    while (next != VERIFY_DONE) {
        if (next == VERIFY_WAIT) {
            usleep(1000);
            next = verify_resume(session, &send);
            continue;
        }
        struct probe_frame ask;
        assert_int_equal(probe_frame_decode(send.frame, &ask), ERR_NONE);
        assert_true(send.deadline_ns >= 2 * NS_PER_S && send.deadline_ns <= 60 * NS_PER_S);
        kind = kind_of(&ask, kind);
        if (strcmp(kind, last) != 0)
            note(play, kind);
        const bool is_commit = ask.type == PROBE_CHALLENGE;
        assert_int_equal(send.is_slotted, is_commit && ask.of.challenge.kind != PROBE_KIND_WALK);
        play->slotted += send.is_slotted;
        play->sent++;
        buf_clear(&answer);
        assert_int_equal(prover_answer(prover, send.frame, &answer), ERR_NONE);
        int64_t took_ns = fake_time(play, &ask, ask.type == PROBE_NET ? send.frame.len : answer.len);
        struct probe_frame given;
        assert_int_equal(probe_frame_decode(buf_str(&answer), &given), ERR_NONE);
        if (play->change && (!play->kind || strcmp(play->kind, kind) == 0) &&
            (!play->answer || play->answer == given.type) && round++ == play->round) {
            play->change(&answer);
            took_ns = play->took_ns ? play->took_ns : took_ns;
        }
        last = kind;
        next = verify_answer(session, buf_str(&answer), took_ns, &send);
    }
    play->report = *verify_report(session);
    play->result = play->report.result;
    memcpy(play->reason, play->report.reason, sizeof(play->reason));
    assert_true(play->result != VERIFY_OPEN);
    assert_int_equal(play->result == VERIFY_PASSED, play->reason[0] == '\0');
    buf_clear(&answer);
    assert_int_equal(verify_verdict_frame(session, STR("{}"), &answer), ERR_NONE);
    struct probe_frame verdict;
    assert_int_equal(probe_frame_decode(buf_str(&answer), &verdict), ERR_NONE);
    assert_int_equal(verdict.type, PROBE_VERDICT);
    assert_int_equal(verdict.of.verdict.is_passed, play->result == VERIFY_PASSED);
    assert_true(str_eq(verdict.of.verdict.reason, str_of(play->reason)));
    assert_null(verify_free(session));
    buf_free(&answer);
    prover_free(prover);
}

static int setup(void **state)
{
    char path[] = "/tmp/sluice-test-classes-XXXXXX", error[CONFIG_ERROR_MAX] = "";
    (void)state;
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, classes, sizeof(classes) - 1) != (ssize_t)sizeof(classes) - 1 || close(fd))
        return -1;
    enum error failed = catalogue_open(path, &catalogue, error);
    unlink(path);
    if (failed)
        fprintf(stderr, "%s\n", error);
    return failed || chain_pool_open(1, &pool) || signing_key_new(&key) || signing_key_new(&other_key);
}

static int teardown(void **state)
{
    (void)state;
    chain_pool_free(pool);
    catalogue_free(catalogue);
    signing_key_free(key);
    signing_key_free(other_key);
    return 0;
}

static void claim_to_be(const char *name)
{
    memset(&told, 0, sizeof(told));
    assert_true(str_copy(told.name, sizeof(told.name), str_of(name)));
    told.vram_bytes = told.free_bytes = strcmp(name, "cpu") == 0 ? 16 * MIB : MIB;
    cheat = HONEST;
    releases = 0;
}

/* A session of test/fast at these shares of its rates. */
static struct play at_rates(enum verify_purpose purpose, double pass, double chain)
{
    struct play p = {.options = options_of(purpose),
                     .fill_gbps = pass,
                     .pass_gbps = 10 * pass,
                     .walk_gbps = pass,
                     .chain_tops = 0.01 * chain,
                     .net_mbps = 1000};
    p.options.claimed_gpu = STR("test/fast");
    claim_to_be("Test Fast");
    return p;
}

/* -- right answers -- */

static void a_machine_without_a_gpu(void **state)
{
    (void)state;
    for (int purpose = VERIFY_ADMISSION; purpose <= VERIFY_LEASE; purpose++) {
        struct play p = {.options = options_of((enum verify_purpose)purpose)};
        claim_to_be("cpu");
        play(&p);
        assert_string_equal(p.reason, "");
        assert_int_equal(p.result, VERIFY_PASSED);
        assert_string_equal(p.report.proven_class->name, "cpu");
        assert_true(p.report.ratio >= 1 && p.report.credit >= 1);
        assert_int_equal(p.report.route, PROBE_ROUTE_CPU);
        assert_true(p.report.has_hello);
        assert_int_equal(releases, 1);
        assert_true(p.report.cpu_ns > 0);
    }
}

static void steps_in_order(void **state)
{
    (void)state;
    static const char *const traces[] = {"hello ping warm net fill pass walk chain bind release",
                                         "hello ping warm chain fill pass bind release",
                                         "hello ping chain bind release"};
    static const char *const reported[] = {"hello fill net pass walk chain bind", "hello chain fill pass bind",
                                           "hello chain bind"};
    for (int purpose = VERIFY_ADMISSION; purpose <= VERIFY_LEASE; purpose++) {
        struct play p = at_rates((enum verify_purpose)purpose, 1, 1);
        char steps[128] = "";
        p.net_mbps = 0;
        play(&p);
        assert_string_equal(p.reason, "");
        assert_string_equal(p.trace, traces[purpose]);
        for (unsigned i = 0; i < p.report.step_count; i++) {
            const struct verify_step_report *step = &p.report.steps[i];
            assert_true(step->is_passed);
            snprintf(steps + strlen(steps), sizeof(steps) - strlen(steps), "%s%s", i ? " " : "", step->kind);
            const bool has_rate = strchr("fpwcn", step->kind[0]) != NULL;
            assert_int_equal(step->rate > 0, has_rate);
            assert_int_equal(step->took_ns > 0, has_rate);
        }
        assert_string_equal(steps, reported[purpose]);
        assert_int_equal(p.slotted, purpose == VERIFY_LEASE ? 1 : 3);
    }
}

static void keys_and_roots_are_reported(void **state)
{
    (void)state;
    uint8_t public[32], zero[32] = {0};
    struct play p = at_rates(VERIFY_ADMISSION, 1, 1);
    signing_key_public(key, public);
    p.options.expect_key = public;
    play(&p);
    assert_int_equal(p.result, VERIFY_PASSED);
    assert_memory_equal(p.report.worker_key, public, 32);
    assert_true(memcmp(p.report.exchange_key, zero, 32) != 0);
    assert_true(memcmp(p.report.chain_root, zero, 32) != 0);
    assert_int_equal(p.report.host_id[1], 2);
    assert_true(p.report.proven.vram_gib > 0.9 / 1024 && p.report.proven.vram_gib <= 0.97 / 1024);
}

static void large_chains_are_waited_for(void **state)
{
    (void)state;
    struct play p = {.options = options_of(VERIFY_LEASE)};
    claim_to_be("Something Unknown"); /* sized by its memory: n = 2048, prepared by the pool */
    told.free_bytes = 0;
    p.options.free_bytes = 20 * MIB; /* n = 1024 */
    play(&p);
    assert_string_equal(p.reason, "");
    assert_null(p.report.claimed);
    p.options.free_bytes = MIB;
    play(&p);
    assert_int_equal(p.result, VERIFY_LOST);
    assert_string_equal(p.reason, "chain: too little memory is free");
}

/* -- the numbers decide -- */

static void expect_class(struct play *p, enum verify_result result, const char *name, double ratio)
{
    play(p);
    if (p->result != result || strcmp(p->report.proven_class->name, name) != 0)
        print_message("%s: %s, ratio %f\n", verify_result_name(p->result), p->reason, p->report.ratio);
    assert_int_equal(p->result, result);
    assert_string_equal(p->report.proven_class->name, name);
    assert_true(p->report.ratio > ratio * 0.99 && p->report.ratio < ratio * 1.01);
}

static void rates_decide_the_class(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_ADMISSION, 1, 1);
    expect_class(&p, VERIFY_PASSED, "test/fast", 1);
    assert_true(p.report.credit >= 1);
    assert_ptr_equal(p.report.claimed, p.report.proven_class);
    p = at_rates(VERIFY_ADMISSION, 0.8, 1);
    expect_class(&p, VERIFY_PASSED, "test/fast", 0.8);
    assert_true(p.report.credit > 0.3 && p.report.credit < 0.5);
    p = at_rates(VERIFY_ADMISSION, 0.5, 0.5); /* a spoofed name does not help */
    expect_class(&p, VERIFY_PASSED, "test/slow", 1);
    assert_string_equal(p.report.claimed->name, "test/fast");
    p = at_rates(VERIFY_ADMISSION, 1, 1); /* nor does a modest one hide what it is */
    p.options.claimed_gpu = STR("test/slow");
    expect_class(&p, VERIFY_PASSED, "test/fast", 1);
    p = at_rates(VERIFY_ADMISSION, 1, 1); /* unknown to the catalogue: by the driver's name */
    p.options.claimed_gpu = STR("nobody/knows-this");
    expect_class(&p, VERIFY_PASSED, "test/fast", 1);
}

static void under_every_floor(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_ADMISSION, 0.3, 0.3);
    expect_class(&p, VERIFY_SLOW, "test/slow", 0.6);
    assert_non_null(strstr(p.reason, "60 % of the rates of test/slow"));
    assert_true(p.report.credit <= 0);
    p = at_rates(VERIFY_ADMISSION, 1, 0.3); /* one rate is enough */
    play(&p);
    assert_int_equal(p.result, VERIFY_SLOW);
}

static void spot_checks_judge_what_was_proven(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_SPOT, 1, 1);
    expect_class(&p, VERIFY_PASSED, "test/fast", 1);
    assert_true(p.report.proven.vram_gib <= 0);
    p = at_rates(VERIFY_SPOT, 0.5, 0.5); /* no other class will do */
    expect_class(&p, VERIFY_SLOW, "test/fast", 0.5);
    p = at_rates(VERIFY_SPOT, 0.5, 0.5);
    p.options.claimed_gpu = STR("test/slow");
    expect_class(&p, VERIFY_PASSED, "test/slow", 1);
}

static void a_lease_is_judged_against_itself(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_LEASE, 1, 0.2);
    expect_class(&p, VERIFY_PASSED, "test/fast", 1);
    p.options.self.chain_tops = 0.002;
    expect_class(&p, VERIFY_PASSED, "test/fast", 1);
    p.options.self.chain_tops = 0.004;
    expect_class(&p, VERIFY_SLOW, "test/fast", 0.5);
}

static void the_network_has_a_floor(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_ADMISSION, 0.5, 0.5);
    p.options.claimed_gpu = STR("test/slow");
    p.net_mbps = 90;
    play(&p);
    assert_int_equal(p.result, VERIFY_SLOW);
    assert_non_null(strstr(p.reason, "of 100 Mb/s"));
    p.net_mbps = 110;
    play(&p);
    assert_int_equal(p.result, VERIFY_PASSED);
    p.net_mbps = 99.5;
    play(&p);
    assert_int_equal(p.result, VERIFY_SLOW);
    p.rtt_ns = 600 * NS_PER_US; /* a frame takes 83.9 ms at the floor, and 84.5 ms from there */
    play(&p);
    assert_string_equal(p.reason, "");
    assert_int_equal(p.result, VERIFY_PASSED);
}

/* Work grows with the round trip, as far as it can; nothing is ever subtracted. */
static void far_away(void **state)
{
    (void)state;
    struct play near = at_rates(VERIFY_SPOT, 1, 1), far = near, moon = near;
    play(&near);
    far.rtt_ns = 200 * NS_PER_US;
    play(&far);
    assert_string_equal(far.reason, "");
    assert_int_equal(far.report.rtt_ns, 200 * NS_PER_US);
    assert_true(far.report.steps[1].took_ns > near.report.steps[1].took_ns);
    assert_true(far.report.steps[3].took_ns > near.report.steps[3].took_ns);
    moon.rtt_ns = NS_PER_S;
    play(&moon);
    assert_int_equal(moon.result, VERIFY_LOST);
    assert_non_null(strstr(moon.reason, "round trip of 1000 ms is too long"));
}

/* -- wrong answers -- */

static void rewrite(struct buf *answer, const struct probe_frame *frame, const struct signing_key *with)
{
    struct buf fresh;
    buf_init(&fresh, PROBE_FRAME_MAX);
    assert_true(probe_frame_encode(frame, &fresh));
    if (frame->type == PROBE_HELLO || frame->type == PROBE_COMMIT) {
        uint8_t signature[ED25519_SIGNATURE];
        assert_int_equal(signing_key_sign(with, probe_signed_part(buf_str(&fresh)), signature), ERR_NONE);
        memcpy(fresh.ptr + fresh.len - sizeof(signature), signature, sizeof(signature));
    }
    buf_clear(answer);
    assert_true(buf_append_str(answer, buf_str(&fresh)));
    buf_free(&fresh);
}

#define CHANGE(name, code)                                                   \
    static void name(struct buf *answer)                                     \
    {                                                                        \
        struct probe_frame f;                                                \
        assert_int_equal(probe_frame_decode(buf_str(answer), &f), ERR_NONE); \
        const struct signing_key *with = key;                                \
        code;                                                                \
        rewrite(answer, &f, with);                                           \
    }

static uint8_t *bytes_of(struct str view)
{
    return (uint8_t *)(uintptr_t)view.ptr;
}

CHANGE(hello_nonce, f.of.hello.nonce[3] ^= 1)
CHANGE(hello_forged, with = other_key)
CHANGE(hello_mig, f.of.hello.gpus[0].mig = true)
CHANGE(hello_no_exchange, memset(f.of.hello.exchange_key, 0, 32))
CHANGE(ping_nonce, f.of.ping.nonce[0] ^= 1)
CHANGE(other_gpu, f.of.warm.gpu ^= 1)
CHANGE(net_digest, f.of.net_answer.digest[31] ^= 1)
CHANGE(net_id, f.of.net_answer.id[0] ^= 1)
CHANGE(commit_id, f.of.commit.id[0] ^= 1)
CHANGE(commit_forged, with = other_key)
CHANGE(fewer_tiles, f.of.commit.items--)
CHANGE(one_root_less, f.of.commit.root_count--)
CHANGE(other_root, f.of.commit.roots[f.of.commit.root_count - 1][0] ^= 1)
CHANGE(proof_id, f.of.proof.id[0] ^= 1)
CHANGE(proof_shorter, f.of.proof.count--)
CHANGE(bound_digest, f.of.bound.digest[0] ^= 1)
CHANGE(bound_id, f.of.bound.id[0] ^= 1)

static void proof_swapped(struct buf *answer)
{
    struct probe_frame f;
    assert_int_equal(probe_frame_decode(buf_str(answer), &f), ERR_NONE);
    struct probe_item first = f.of.proof.items[0];
    f.of.proof.items[0] = f.of.proof.items[1];
    f.of.proof.items[1] = first;
    rewrite(answer, &f, key);
}

/* What was opened for one index, under the name of another. */
static void proof_of_another(struct buf *answer)
{
    struct probe_frame f;
    assert_int_equal(probe_frame_decode(buf_str(answer), &f), ERR_NONE);
    f.of.proof.items[0].data = f.of.proof.items[1].data;
    f.of.proof.items[0].path = f.of.proof.items[1].path;
    rewrite(answer, &f, key);
}

static void change_item(struct buf *answer, bool is_path, bool is_longer)
{
    struct probe_frame f;
    uint8_t copy[16384] = {0};
    assert_int_equal(probe_frame_decode(buf_str(answer), &f), ERR_NONE);
    for (uint32_t i = 0; i < f.of.proof.count; i++) {
        struct str *part = is_path ? &f.of.proof.items[i].path : &f.of.proof.items[i].data;
        if (is_longer) {
            memcpy(copy, part->ptr, part->len);
            *part = (struct str){(const char *)copy, part->len + (is_path ? 32 : 8)};
            break;
        }
        if (part->len)
            bytes_of(*part)[is_path ? 0 : part->len - 1] ^= 1;
    }
    rewrite(answer, &f, key);
}

static void data_changed(struct buf *answer)
{
    change_item(answer, false, false);
}

static void data_longer(struct buf *answer)
{
    change_item(answer, false, true);
}

static void path_changed(struct buf *answer)
{
    change_item(answer, true, false);
}

static void path_longer(struct buf *answer)
{
    change_item(answer, true, true);
}

static void trace_starts_elsewhere(struct buf *answer)
{
    struct probe_frame f;
    assert_int_equal(probe_frame_decode(buf_str(answer), &f), ERR_NONE);
    for (uint32_t i = 0; i < f.of.proof.count; i++)
        bytes_of(f.of.proof.items[i].data)[0] ^= 1;
    rewrite(answer, &f, key);
}

static void an_ack(struct buf *answer)
{
    const struct probe_frame f = {.type = PROBE_ACK};
    rewrite(answer, &f, key);
}

static void a_pong(struct buf *answer)
{
    const struct probe_frame f = {.type = PROBE_PONG};
    rewrite(answer, &f, key);
}

static void a_failure(struct buf *answer, enum probe_failure code)
{
    const struct probe_frame f = {.type = PROBE_ERROR, .of.error = {code, STR("text")}};
    rewrite(answer, &f, key);
}

static void busy(struct buf *answer)
{
    a_failure(answer, PROBE_FAILURE_BUSY);
}

static void unknown(struct buf *answer)
{
    a_failure(answer, PROBE_FAILURE_UNKNOWN);
}

static void not_understood(struct buf *answer)
{
    a_failure(answer, PROBE_FAILURE_BAD_FRAME);
}

static void no_memory(struct buf *answer)
{
    a_failure(answer, PROBE_FAILURE_NO_MEMORY);
}

static void device_failed(struct buf *answer)
{
    a_failure(answer, PROBE_FAILURE_DEVICE);
}

static const struct {
    const char *kind;
    enum probe_frame_type answer;
    unsigned round;
    void (*change)(struct buf *answer);
    enum verify_result result;
    const char *reason;
} wrongs[] = {
    {"hello", PROBE_HELLO, 0, hello_nonce, VERIFY_WRONG, "hello: an answer to another question"},
    {"hello", PROBE_HELLO, 0, hello_forged, VERIFY_WRONG, "hello: the signature is not its key's"},
    {"hello", PROBE_HELLO, 0, hello_mig, VERIFY_WRONG, "hello: it is divided into instances (MIG)"},
    {"hello", PROBE_HELLO, 0, hello_no_exchange, VERIFY_WRONG, "bind: "},
    {"ping", PROBE_PONG, 2, ping_nonce, VERIFY_WRONG, "ping: an answer to another question"},
    {"warm", PROBE_READY, 0, other_gpu, VERIFY_WRONG, "warm: another GPU is ready"},
    {"net", PROBE_NET_ANSWER, 1, net_digest, VERIFY_WRONG, "net: not the digest of what was sent"},
    {"net", PROBE_NET_ANSWER, 0, net_id, VERIFY_WRONG, "net: not the digest of what was sent"},
    {"fill", PROBE_PROOF, 0, data_changed, VERIFY_WRONG, "is not what was filled"},
    {"fill", PROBE_PROOF, 1, data_longer, VERIFY_WRONG, "has a wrong length"},
    {"fill", PROBE_PROOF, 0, proof_swapped, VERIFY_WRONG, "net: other tiles than were asked for"},
    {"fill", PROBE_COMMIT, 0, fewer_tiles, VERIFY_WRONG, "tiles instead of"},
    {"fill", PROBE_COMMIT, 0, commit_id, VERIFY_WRONG, "fill: an answer to another challenge"},
    {"fill", PROBE_COMMIT, 0, commit_forged, VERIFY_WRONG, "fill: the signature is not the worker's"},
    {"fill", PROBE_COMMIT, 0, no_memory, VERIFY_WRONG, "fill: claims more memory than it can fill"},
    {"fill", PROBE_COMMIT, 0, busy, VERIFY_LOST, "fill: the GPU is busy"},
    {"pass", PROBE_COMMIT, 0, other_root, VERIFY_WRONG, "of pass 1 is not what was filled"},
    {"pass", PROBE_COMMIT, 0, one_root_less, VERIFY_WRONG, "pass: 1 roots instead of 2"},
    {"pass", PROBE_COMMIT, 0, device_failed, VERIFY_WRONG, "pass: the device failed"},
    {"pass", PROBE_PROOF, 0, path_changed, VERIFY_WRONG, "is not what was filled"},
    {"pass", PROBE_PROOF, 0, path_longer, VERIFY_WRONG, "is not what was filled"},
    {"pass", PROBE_PROOF, 0, data_longer, VERIFY_WRONG, "is not what was filled"},
    {"pass", PROBE_PROOF, 0, proof_of_another, VERIFY_WRONG, "is not what was filled"},
    {"pass", PROBE_PROOF, 0, proof_swapped, VERIFY_WRONG, "pass: other tiles than were asked for"},
    {"pass", PROBE_PROOF, 0, proof_shorter, VERIFY_WRONG, "pass: other tiles than were asked for"},
    {"pass", PROBE_PROOF, 0, proof_id, VERIFY_WRONG, "pass: other tiles than were asked for"},
    {"pass", PROBE_PROOF, 0, unknown, VERIFY_WRONG, "pass: it does not know what it was asked for"},
    {"walk", PROBE_COMMIT, 0, other_root, VERIFY_WRONG, "did not go that way"},
    {"walk", PROBE_PROOF, 0, trace_starts_elsewhere, VERIFY_WRONG, "did not go that way"},
    {"walk", PROBE_PROOF, 0, data_changed, VERIFY_WRONG, "did not go that way"},
    {"walk", PROBE_PROOF, 0, data_longer, VERIFY_WRONG, "did not go that way"},
    {"walk", PROBE_PROOF, 0, path_changed, VERIFY_WRONG, "did not go that way"},
    {"walk", PROBE_PROOF, 0, proof_of_another, VERIFY_WRONG, "did not go that way"},
    {"walk", PROBE_PROOF, 0, proof_swapped, VERIFY_WRONG, "walk: other walkers than were asked for"},
    {"chain", PROBE_COMMIT, 0, other_root, VERIFY_WRONG, "is not what was asked for"},
    {"chain", PROBE_COMMIT, 0, commit_forged, VERIFY_WRONG, "chain: the signature is not the worker's"},
    {"chain", PROBE_COMMIT, 0, no_memory, VERIFY_WRONG, "chain: it has not the memory for it"},
    {"chain", PROBE_COMMIT, 0, not_understood, VERIFY_WRONG, "chain: it did not understand the frame"},
    {"chain", PROBE_PROOF, 0, data_changed, VERIFY_WRONG, "is not what was asked for"},
    {"chain", PROBE_PROOF, 0, data_longer, VERIFY_WRONG, "is not what was asked for"},
    {"chain", PROBE_PROOF, 0, path_changed, VERIFY_WRONG, "is not what was asked for"},
    {"chain", PROBE_PROOF, 0, path_longer, VERIFY_WRONG, "is not what was asked for"},
    {"chain", PROBE_PROOF, 0, proof_of_another, VERIFY_WRONG, "is not what was asked for"},
    {"chain", PROBE_PROOF, 0, proof_swapped, VERIFY_WRONG, "chain: other rows than were asked for"},
    {"bind", PROBE_BOUND, 0, bound_digest, VERIFY_WRONG, "bind: it did not open what was sealed"},
    {"bind", PROBE_BOUND, 0, bound_id, VERIFY_WRONG, "bind: it did not open what was sealed"},
    {"release", PROBE_ACK, 0, a_pong, VERIFY_WRONG, "release: a frame of another type"},
};

static void every_wrong_answer_is_seen(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        struct play p = at_rates(VERIFY_ADMISSION, 1, 1);
        p.kind = wrongs[i].kind;
        p.answer = wrongs[i].answer;
        p.round = wrongs[i].round;
        p.change = wrongs[i].change;
        play(&p);
        if (p.result != wrongs[i].result || !strstr(p.reason, wrongs[i].reason))
            print_message("case %zu (%s): %s, '%s'\n", i, wrongs[i].reason, verify_result_name(p.result), p.reason);
        assert_int_equal(p.result, wrongs[i].result);
        assert_non_null(strstr(p.reason, wrongs[i].reason));
        /* the device is let go, and what failed is the last step told of */
        assert_int_equal(releases, strstr(p.trace, "fill") != NULL);
        const char *kind = wrongs[i].kind;
        if (strcmp(kind, "ping") != 0 && strcmp(kind, "warm") != 0 && strcmp(kind, "release") != 0)
            assert_false(p.report.steps[p.report.step_count - 1].is_passed);
    }
}

/* -- at every step -- */

static void nothing(struct buf *answer)
{
    buf_clear(answer);
}

static void garbage(struct buf *answer)
{
    crypto_random(answer->ptr, answer->len);
}

static void cut_short(struct buf *answer)
{
    answer->len--;
}

static void one_more(struct buf *answer)
{
    assert_true(buf_append(answer, "", 1));
}

static void too_large(struct buf *answer)
{
    assert_true(buf_reserve(answer, PROBE_FRAME_MAX));
    memset(answer->ptr + answer->len, 0, PROBE_FRAME_MAX);
    answer->len += PROBE_FRAME_MAX;
}

static void unchanged(struct buf *answer)
{
    (void)answer;
}

/* How many frames an honest session has. */
static unsigned frames(enum verify_purpose purpose)
{
    struct play p = at_rates(purpose, 1, 1);
    play(&p);
    assert_int_equal(p.result, VERIFY_PASSED);
    return p.sent;
}

static void at_every_step(void (*change)(struct buf *), int64_t took_ns, enum verify_result result, const char *reason)
{
    const unsigned count = frames(VERIFY_SPOT);
    for (unsigned i = 0; i < count; i++) {
        struct play p = at_rates(VERIFY_SPOT, 1, 1);
        p.round = i;
        p.change = change;
        p.took_ns = took_ns;
        play(&p);
        if (p.result != result || !strstr(p.reason, reason))
            print_message("frame %u: %s, '%s'\n", i, verify_result_name(p.result), p.reason);
        assert_int_equal(p.result, result);
        assert_non_null(strstr(p.reason, reason));
        assert_true(p.report.cpu_ns < 500 * NS_PER_MS);
    }
}

static void what_is_no_frame(void **state)
{
    (void)state;
    void (*const changes[])(struct buf *) = {nothing, garbage, cut_short, one_more, too_large};
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
        at_every_step(changes[i], 0, VERIFY_WRONG, "no frame of the protocol");
}

static void late_answers(void **state)
{
    (void)state;
    at_every_step(unchanged, -1, VERIFY_LATE, "no answer within");
    at_every_step(unchanged, 61 * NS_PER_S, VERIFY_LATE, "no answer within");
}

static void busy_says_nothing(void **state)
{
    (void)state;
    at_every_step(busy, 0, VERIFY_LOST, "the GPU is busy");
}

static void other_types_are_wrong(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_SPOT, 1, 1);
    const char *const kinds[] = {"hello", "ping", "warm", "chain", "fill", "pass", "bind"};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        p = at_rates(VERIFY_SPOT, 1, 1);
        p.kind = kinds[i];
        p.change = an_ack;
        play(&p);
        assert_int_equal(p.result, VERIFY_WRONG);
        assert_non_null(strstr(p.reason, "a frame of another type"));
    }
}

/* -- cheats -- */

static void cheats(void **state)
{
    (void)state;
    static const struct {
        enum cheat cheat;
        const char *reason;
    } cases[] = {{TILES_OF_ANOTHER_SEED, "is not what was filled"},
                 {ROOT_OF_ANOTHER_WORKER, "is not what was filled"},
                 {STALE_CHAIN, "is not what was asked for"},
                 {NO_ROOM, "fill: claims more memory than it can fill"},
                 {BROKEN, "warm: the device failed"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct play p = at_rates(VERIFY_ADMISSION, 1, 1);
        cheat = cases[i].cheat;
        play(&p);
        assert_int_equal(p.result, VERIFY_WRONG);
        assert_non_null(strstr(p.reason, cases[i].reason));
    }
}

static void another_key_or_gpu(void **state)
{
    (void)state;
    uint8_t public[32];
    struct play p = at_rates(VERIFY_ADMISSION, 1, 1);
    signing_key_public(key, public);
    p.options.expect_key = public;
    p.key = other_key;
    play(&p);
    assert_int_equal(p.result, VERIFY_WRONG);
    assert_string_equal(p.reason, "hello: another key than it proved with before");
    p = at_rates(VERIFY_ADMISSION, 1, 1);
    p.options.gpu = 2;
    play(&p);
    assert_int_equal(p.result, VERIFY_WRONG);
    assert_string_equal(p.reason, "hello: it has no GPU 2");
    p.options.gpu = 1; /* it is there; the network was measured with device 0 */
    memset(p.trace, 0, sizeof(p.trace));
    play(&p);
    assert_int_equal(p.result, VERIFY_PASSED);
    assert_string_equal(p.trace, "hello ping warm fill pass walk chain bind release");
}

static void leases_share_memory(void **state)
{
    (void)state;
    struct play p = at_rates(VERIFY_LEASE, 1, 1);
    p.kind = "chain";
    p.answer = PROBE_COMMIT;
    p.change = no_memory;
    play(&p);
    assert_int_equal(p.result, VERIFY_LOST);
}

static void a_lost_link(void **state)
{
    (void)state;
    const struct verify_options options = options_of(VERIFY_ADMISSION);
    struct verify_session *session;
    struct verify_send send;
    assert_int_equal(verify_open(&options, &session), ERR_NONE);
    assert_int_equal(verify_start(session, &send), VERIFY_SEND);
    verify_lose(session);
    assert_int_equal(verify_report(session)->result, VERIFY_LOST);
    assert_string_equal(verify_report(session)->reason, "hello: the link went");
    assert_int_equal(verify_answer(session, STR(""), 1, &send), VERIFY_DONE);
    assert_int_equal(verify_resume(session, &send), VERIFY_DONE);
    verify_lose(session);
    verify_free(session);
    verify_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_without_a_gpu),
        cmocka_unit_test(steps_in_order),
        cmocka_unit_test(keys_and_roots_are_reported),
        cmocka_unit_test(large_chains_are_waited_for),
        cmocka_unit_test(rates_decide_the_class),
        cmocka_unit_test(under_every_floor),
        cmocka_unit_test(spot_checks_judge_what_was_proven),
        cmocka_unit_test(a_lease_is_judged_against_itself),
        cmocka_unit_test(the_network_has_a_floor),
        cmocka_unit_test(far_away),
        cmocka_unit_test(every_wrong_answer_is_seen),
        cmocka_unit_test(what_is_no_frame),
        cmocka_unit_test(late_answers),
        cmocka_unit_test(busy_says_nothing),
        cmocka_unit_test(other_types_are_wrong),
        cmocka_unit_test(cheats),
        cmocka_unit_test(another_key_or_gpu),
        cmocka_unit_test(leases_share_memory),
        cmocka_unit_test(a_lost_link),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
