/* A whole session against an honest device, one answer of which is disturbed. The first bytes say the purpose, which
 * answer, how and at what time it comes; the rest changes it (a place, a byte) or stands for it. Whatever comes: the
 * session ends, with a reason for people unless it passed, and what a proof's or a signed frame's change left of it
 * never passes. */
#include "tests/fuzz/fuzz.h"

#include "core/clock.h"
#include "core/config.h"
#include "probes/prover.h"
#include "probes/verifier.h"

#include <string.h>
#include <unistd.h>

#define CLASS(name, net_frames)                                                      \
    "  - name: " name "\n    driver_names: Tiny\n    vram_gib: 0.000122\n"           \
    "    pass_gbps: 1\n    chain_tops: 0.001\n    double_rounds: 1\n    passes: 2\n" \
    "    walkers: 5\n    walk_steps: 3\n    admission_chain: 64x8x1\n"               \
    "    spot_chain: 64x8x1\n    lease_chain: 64x8x1\n    spot_fill_bytes: 64KiB\n"  \
    "    net_frames: " net_frames "\n"
static const char classes[] = "classes:\n" CLASS("test/tiny", "0") CLASS("test/net", "1");

static struct catalogue *catalogue;
static struct chain_pool *pool;
static struct signing_key *key;
static struct prover *prover;

static void tiny_claim(struct probe_backend *backend, struct probe_claim *ret)
{
    (void)backend;
    memset(ret, 0, sizeof(*ret));
    ret->vram_bytes = ret->free_bytes = 128 << 10;
    CHECK(str_copy(ret->name, sizeof(ret->name), STR("Tiny")));
}

static enum error no_warm(struct probe_backend *backend)
{
    (void)backend;
    return ERR_NONE;
}

static void start(void)
{
    static struct probe_backend_ops ops;
    char path[] = "/tmp/sluice-fuzz-classes-XXXXXX", error[CONFIG_ERROR_MAX];
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, classes, sizeof(classes) - 1) == (ssize_t)sizeof(classes) - 1 && close(fd) == 0);
    CHECK(catalogue_open(path, &catalogue, error) == ERR_NONE);
    unlink(path);
    ops = probe_backend_cpu;
    ops.claim = tiny_claim;
    ops.warm = no_warm;
    CHECK(chain_pool_open(1, &pool) == ERR_NONE && signing_key_new(&key) == ERR_NONE);
    const struct prover_options options = {.backend = &ops, .key = key, .devices = 1};
    CHECK(prover_open(&options, &prover) == ERR_NONE);
}

/* Is every byte of the answer looked at? Not of tiles that NET brings up: some of them are. */
static bool is_checked(struct str answer, bool is_after_pass)
{
    const uint8_t type = (uint8_t)answer.ptr[3];
    return type == PROBE_HELLO || type == PROBE_COMMIT || type == PROBE_BOUND || type == PROBE_NET_ANSWER ||
           type == PROBE_PONG || (type == PROBE_PROOF && is_after_pass);
}

static void disturb(struct buf *answer, uint8_t how, const uint8_t *data, size_t size)
{
    if (how % 4 == 0) { /* something else */
        buf_clear(answer);
        CHECK(buf_append(answer, data, size));
        return;
    }
    for (; size >= 4; data += 4, size -= 4) {
        const size_t at = (data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16) % answer->len;
        answer->ptr[at] = (char)data[3];
    }
    if (how % 4 == 1 && size > 0)
        answer->len -= data[0] % answer->len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!prover)
        start();
    const uint8_t what = fuzz_byte(&data, &size); /* megabytes for the network take long: seldom */
    const struct verify_options options = {.purpose = (enum verify_purpose)(what % 3),
                                           .catalogue = catalogue,
                                           .pool = pool,
                                           .claimed_gpu = what < 250 ? STR("test/tiny") : STR("test/net")};
    const unsigned which = fuzz_byte(&data, &size) % 32;
    const uint8_t how = fuzz_byte(&data, &size), when = fuzz_byte(&data, &size);
    struct verify_session *session;
    struct verify_send send;
    struct buf answer, honest;
    bool must_fail = false, is_after_pass = options.purpose == VERIFY_LEASE;
    unsigned sent = 0;
    buf_init(&answer, PROBE_FRAME_MAX);
    buf_init(&honest, PROBE_FRAME_MAX);
    CHECK(verify_open(&options, &session) == ERR_NONE);
    enum verify_next next = verify_start(session, &send);
    while (next == VERIFY_SEND) {
        int64_t took_ns = NS_PER_US;
        CHECK(++sent < 64);
        struct probe_frame ask;
        CHECK(probe_frame_decode(send.frame, &ask) == ERR_NONE);
        is_after_pass |= ask.type == PROBE_CHALLENGE && ask.of.challenge.kind != PROBE_KIND_FILL;
        buf_clear(&answer);
        CHECK(prover_answer(prover, send.frame, &answer) == ERR_NONE);
        if (sent == which + 1) {
            buf_clear(&honest);
            CHECK(buf_append_str(&honest, buf_str(&answer)));
            disturb(&answer, how, data, size);
            must_fail |= is_checked(buf_str(&honest), is_after_pass) && !str_eq(buf_str(&answer), buf_str(&honest));
            took_ns = when == 255 ? -1 : (int64_t)when * when * when * NS_PER_US;
        }
        next = verify_answer(session, buf_str(&answer), took_ns, &send);
    }
    CHECK(next == VERIFY_DONE); /* chains are small: nothing is waited for */
    const struct verify_report *report = verify_report(session);
    CHECK(report->result != VERIFY_OPEN);
    CHECK((report->result == VERIFY_PASSED) == (report->reason[0] == '\0'));
    CHECK(!must_fail || (report->result != VERIFY_PASSED && report->result != VERIFY_SLOW));
    CHECK(report->step_count <= VERIFY_STEPS_MAX);
    buf_clear(&answer);
    CHECK(verify_verdict_frame(session, STR(""), &answer) == ERR_NONE);
    verify_free(session);
    buf_free(&answer);
    buf_free(&honest);
    return 0;
}
