/* A probe that cheats: stands in for `sluice-probe serve` behind a real sluice-worker (--probe), against a real
 * gateway.
 *
 * usage: cheat --cheat NAME serve [--key FILE]. `cheat --list` prints the names. Its devices are those of lie.h under
 * the name of a machine without a GPU; some cheats bend the frames or the pipe instead. */
#include "core/crypto.h"
#include "probes/serve.h"
#include "tests/attacks/lie.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CPU_CLAIM                                                     \
    {                                                                 \
        .name = "cpu", .vram_bytes = 16 << 20, .free_bytes = 16 << 20 \
    }
#define FLOOD 1000

enum bend {
    BEND_NONE,
    BEND_WRONG_PATH,
    BEND_LATE_ROOT, /* random roots; the openings are of the true tree */
    BEND_SILENT,
    BEND_GARBAGE,
    BEND_OVERSIZE,   /* a mebibyte of zeros */
    BEND_HALF_FRAME, /* half of what the frame's head tells of */
    BEND_TORN,       /* dies in the middle of the envelope */
    BEND_FLOOD,      /* answers that nobody has asked for */
};

static const struct cheat {
    const char *name;
    struct lie lie;
    enum bend bend;
} cheats[] = {
    {"none", {.claim = CPU_CLAIM}, BEND_NONE},
    {"missing-tiles", {.claim = CPU_CLAIM, .missing_share = 0.25, .missing = LIE_GARBAGE}, BEND_NONE},
    {"less-memory", {.claim = CPU_CLAIM, .memory_bytes = 8 << 20}, BEND_NONE},
    {"stale-tiles", {.claim = CPU_CLAIM, .has_other_seed = true}, BEND_NONE},
    {"one-pass", {.claim = CPU_CLAIM, .passes_done = 1}, BEND_NONE},
    {"half-walk", {.claim = CPU_CLAIM, .steps_walked = 32}, BEND_NONE},
    {"skip-rows", {.claim = CPU_CLAIM, .chain = LIE_CHAIN_ROWS, .chain_step = 1, .chain_share = 0.25}, BEND_NONE},
    {"skip-block", {.claim = CPU_CLAIM, .chain = LIE_CHAIN_BLOCK, .chain_step = 1}, BEND_NONE},
    {"skip-step", {.claim = CPU_CLAIM, .chain = LIE_CHAIN_STEP, .chain_step = 1}, BEND_NONE},
    {"premultiplied", {.claim = CPU_CLAIM, .chain = LIE_CHAIN_NO_SHIFT}, BEND_NONE},
    {"stale-chain", {.claim = CPU_CLAIM, .chain = LIE_CHAIN_OTHER_SEED}, BEND_NONE},
    {"root-of-another-worker", {.claim = CPU_CLAIM, .is_other_worker = true}, BEND_NONE},
    {"root-of-another-session", {.claim = CPU_CLAIM, .is_other_challenge = true}, BEND_NONE},
    {"wrong-path", {.claim = CPU_CLAIM}, BEND_WRONG_PATH},
    {"late-root", {.claim = CPU_CLAIM}, BEND_LATE_ROOT},
    {"silent", {.claim = CPU_CLAIM}, BEND_SILENT},
    {"garbage", {.claim = CPU_CLAIM}, BEND_GARBAGE},
    {"oversize", {.claim = CPU_CLAIM}, BEND_OVERSIZE},
    {"half-frame", {.claim = CPU_CLAIM}, BEND_HALF_FRAME},
    {"torn", {.claim = CPU_CLAIM}, BEND_TORN},
    {"flood", {.claim = CPU_CLAIM}, BEND_FLOOD},
};

static void must(bool is_true, const char *what)
{
    if (is_true)
        return;
    fprintf(stderr, "cheat: %s\n", what);
    exit(1);
}

/* False: the end. */
static bool get_all(void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = read(STDIN_FILENO, (char *)to + done, len - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            return false;
    }
    return true;
}

static void put_all(const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = write(STDOUT_FILENO, (const char *)bytes + done, len - done);
        must(n > 0 || (n < 0 && errno == EINTR), "nobody reads");
        done += n > 0 ? (size_t)n : 0;
    }
}

static void put_answer(const uint8_t head[SERVE_HEAD], struct str frame)
{
    uint8_t own[SERVE_HEAD];
    memcpy(own, head, sizeof(own));
    for (unsigned i = 0; i < 4; i++)
        own[i] = (uint8_t)(frame.len >> (8 * i));
    put_all(own, sizeof(own));
    put_all(frame.ptr, frame.len);
}

/* -- bent answers ------------------------------------------------------------------------------------------------ */

static void bend_path(struct buf *answer)
{
    struct probe_frame frame;
    if (probe_frame_decode(buf_str(answer), &frame) == ERR_NONE && frame.type == PROBE_PROOF &&
        frame.of.proof.items[0].path.len > 0)
        answer->ptr[frame.of.proof.items[0].path.ptr - answer->ptr] ^= 1;
}

static void bend_roots(struct buf *answer, const struct signing_key *key)
{
    struct probe_frame frame;
    uint8_t signature[PROBE_SIGNATURE_BYTES];
    struct buf made;
    if (probe_frame_decode(buf_str(answer), &frame) != ERR_NONE || frame.type != PROBE_COMMIT)
        return;
    for (uint32_t i = 0; i < frame.of.commit.root_count; i++)
        crypto_random(frame.of.commit.roots[i], PROBE_HASH_BYTES);
    buf_init(&made, PROBE_FRAME_MAX);
    must(probe_frame_encode(&frame, &made) && !signing_key_sign(key, probe_signed_part(buf_str(&made)), signature),
         "cannot sign");
    memcpy(made.ptr + made.len - sizeof(signature), signature, sizeof(signature));
    buf_clear(answer);
    must(buf_append_str(answer, buf_str(&made)), "no memory");
    buf_free(&made);
}

static void fill_with(struct buf *answer, size_t len, bool is_random)
{
    buf_clear(answer);
    must(buf_reserve(answer, len), "no memory");
    memset(answer->ptr, 0, len);
    if (is_random)
        crypto_random(answer->ptr, len);
    answer->len = len;
}

static void bent_answer(enum bend bend, const struct signing_key *key, const uint8_t head[SERVE_HEAD],
                        struct buf *answer)
{
    switch (bend) {
    case BEND_NONE:
        break;
    case BEND_WRONG_PATH:
        bend_path(answer);
        break;
    case BEND_LATE_ROOT:
        bend_roots(answer, key);
        break;
    case BEND_SILENT:
        return;
    case BEND_GARBAGE:
        fill_with(answer, 4096, true);
        break;
    case BEND_OVERSIZE:
        fill_with(answer, PROBE_FRAME_MAX, false);
        break;
    case BEND_HALF_FRAME:
        answer->len = (answer->len + 1) / 2;
        break;
    case BEND_TORN:
        put_all(head, SERVE_HEAD / 2);
        exit(0);
    case BEND_FLOOD:
        for (unsigned i = 0; i < FLOOD; i++)
            put_answer(head, buf_str(answer));
        break;
    }
    put_answer(head, buf_str(answer));
}

/* -- the loop ---------------------------------------------------------------------------------------------------- */

static void serve(struct prover *prover, enum bend bend, const struct signing_key *key)
{
    uint8_t head[SERVE_HEAD];
    struct buf frame, answer;
    buf_init(&frame, PROBE_FRAME_MAX);
    buf_init(&answer, PROBE_FRAME_MAX);
    while (get_all(head, sizeof(head))) {
        size_t len = 0;
        for (unsigned i = 4; i-- > 0;)
            len = len << 8 | head[i];
        buf_clear(&frame);
        buf_clear(&answer);
        must(len > 0 && len <= PROBE_FRAME_MAX && buf_reserve(&frame, len) && get_all(frame.ptr, len), "no envelope");
        frame.len = len;
        if (head[SERVE_HEAD - 1] & 0x80) { /* the agent's own */
            must(!serve_local(prover, buf_str(&frame), &answer), "no answer");
            put_answer(head, buf_str(&answer));
        } else {
            must(!prover_answer(prover, buf_str(&frame), &answer), "no answer");
            bent_answer(bend, key, head, &answer);
        }
    }
    buf_free(&frame);
    buf_free(&answer);
}

int main(int argc, char **argv)
{
    static struct lie lie;
    const size_t count = sizeof(cheats) / sizeof(cheats[0]);
    const struct cheat *cheat = NULL;
    const char *key_path = NULL;
    struct signing_key *key = NULL;
    struct prover *prover = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            for (size_t c = 0; c < count; c++)
                puts(cheats[c].name);
            return 0;
        }
        for (size_t c = 0; c < count && i + 1 < argc && strcmp(argv[i], "--cheat") == 0; c++)
            if (strcmp(argv[i + 1], cheats[c].name) == 0)
                cheat = &cheats[c];
        if (i + 1 < argc && strcmp(argv[i], "--key") == 0)
            key_path = argv[i + 1];
    }
    must(cheat, "usage: cheat --cheat NAME serve [--key FILE]; --list tells the names");
    lie = cheat->lie;
    must(!(key_path ? signing_key_load(key_path, &key) : signing_key_new(&key)), "no key");
    const struct prover_options options = {.backend = lie_backend(&lie), .key = key, .host_id = {9}, .devices = 1};
    must(!prover_open(&options, &prover), "no prover");
    serve(prover, cheat->bend, key);
    prover_free(prover);
    signing_key_free(key);
    return 0;
}
