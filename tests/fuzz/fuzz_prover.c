/* Any sequence of frames into a prover over the CPU backend: each gives exactly one frame, and none takes long. The
 * input is a list of questions, each a byte for its type and a few for its numbers; sizes are kept small, for a
 * gateway may ask for much work but the test may not. A first byte of 0xff: the rest is one frame as it stands. */
#include "core/clock.h"
#include "probes/prover.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

#define QUESTIONS_MAX 24
#define IDS 4

static struct prover *prover;
static uint8_t exchange_key[32], chain_root[32];

static void start(void)
{
    struct prover_options options = {.backend = &probe_backend_cpu, .devices = 1};
    struct signing_key *key = NULL;
    CHECK(signing_key_new(&key) == ERR_NONE);
    options.key = key; /* lives as long as the process */
    CHECK(prover_open(&options, &prover) == ERR_NONE);
}

/* The bound on time is for loops that would follow a number of the frame; honest answers here take milliseconds. */
static void ask(uint32_t asker, struct str question)
{
    static struct probe_frame frame;
    struct buf answer;
    int64_t start_ns = clock_mono_ns();
    buf_init(&answer, 2 * PROBE_FRAME_MAX);
    CHECK(prover_answer_to(prover, asker, question, &answer) == ERR_NONE);
    CHECK(clock_mono_ns() - start_ns < NS_PER_S);
    CHECK(probe_frame_decode(buf_str(&answer), &frame) == ERR_NONE);
    CHECK(frame.type % 2 == 0 || frame.type == PROBE_ACK); /* an answer, never a question */
    if (frame.type == PROBE_HELLO)
        memcpy(exchange_key, frame.of.hello.exchange_key, sizeof(exchange_key));
    if (frame.type == PROBE_COMMIT && frame.of.commit.kind == PROBE_KIND_CHAIN)
        memcpy(chain_root, frame.of.commit.roots[0], sizeof(chain_root));
    buf_free(&answer);
}

static void id_make(uint8_t byte, uint8_t ret[static PROBE_ID_BYTES])
{
    memset(ret, byte % IDS, PROBE_ID_BYTES);
}

static void challenge_make(const uint8_t *numbers, struct probe_challenge *ret)
{
    id_make(numbers[0], ret->id);
    ret->kind = (enum probe_kind)(1 + numbers[1] % 4);
    ret->gpu = numbers[1] >> 7;
    switch (ret->kind) {
    case PROBE_KIND_FILL:
        ret->of.fill.tiles = numbers[2] == 0xff ? PROBE_TILES_MAX : 1 + numbers[2] % 8;
        ret->of.fill.double_rounds = 1 + numbers[3] % 4;
        break;
    case PROBE_KIND_PASS:
        ret->of.pass.passes = 1 + numbers[2] % 4;
        break;
    case PROBE_KIND_WALK:
        ret->of.walk.walkers = 1 + numbers[2] % 16;
        ret->of.walk.steps = 1 + numbers[3] % 16;
        break;
    case PROBE_KIND_CHAIN:
        ret->of.chain.n = 64;
        ret->of.chain.blocks = 1 + numbers[2] % 4;
        ret->of.chain.steps = 1 + numbers[3] % 4;
        break;
    }
}

static void open_make(const uint8_t *numbers, struct probe_open *ret)
{
    id_make(numbers[0], ret->id);
    ret->count = 1 + numbers[1] % PROBE_OPENINGS_MAX;
    for (uint32_t i = 0; i < ret->count; i++)
        ret->openings[i] =
            (struct probe_opening){numbers[2] == 0xff ? UINT64_MAX - i : (numbers[2] + i) % 8, numbers[3]};
}

static void bind_make(const uint8_t *numbers, struct buf *sealed, struct probe_bind *ret)
{
    struct str context = {(const char *)ret->id, sizeof(ret->id)};
    id_make(numbers[0], ret->id);
    buf_init(sealed, PROBE_SEALED_MAX);
    if (seal(exchange_key, chain_root, context, STR("secret"), sealed) != ERR_NONE) /* no HELLO yet */
        CHECK(buf_append(sealed, exchange_key, 32) && buf_append(sealed, chain_root, 32));
    if (numbers[1] & 1)
        sealed->ptr[numbers[2] % sealed->len] ^= (char)numbers[3];
    ret->sealed = buf_str(sealed);
}

static void question(uint8_t what, const uint8_t *numbers)
{
    static const enum probe_frame_type types[] = {PROBE_HELLO_ASK, PROBE_PING,      PROBE_CHALLENGE, PROBE_CHALLENGE,
                                                  PROBE_OPEN,      PROBE_CHALLENGE, PROBE_OPEN,      PROBE_NET,
                                                  PROBE_BIND,      PROBE_VERDICT,   PROBE_RELEASE,   PROBE_COMMIT};
    static struct probe_frame frame;
    struct buf bytes, sealed = {0};
    memset(&frame, 0, sizeof(frame));
    frame.type = types[what % (sizeof(types) / sizeof(*types))];
    if (frame.type == PROBE_CHALLENGE)
        challenge_make(numbers, &frame.of.challenge);
    else if (frame.type == PROBE_OPEN)
        open_make(numbers, &frame.of.open);
    else if (frame.type == PROBE_NET)
        frame.of.net.payload = (struct str){(const char *)numbers, 4};
    else if (frame.type == PROBE_BIND)
        bind_make(numbers, &sealed, &frame.of.bind);
    else if (frame.type == PROBE_VERDICT)
        frame.of.verdict = (struct probe_verdict_frame){false, STR("no"), STR("")};
    else if (frame.type == PROBE_RELEASE)
        frame.of.warm.gpu = numbers[0] % PROBE_DEVICES_MAX;
    else if (frame.type == PROBE_COMMIT)
        frame.of.commit = (struct probe_commit){.kind = PROBE_KIND_FILL, .items = 1};
    buf_init(&bytes, 2 * PROBE_FRAME_MAX);
    CHECK(probe_frame_encode(&frame, &bytes));
    ask(what >= 0xf0, buf_str(&bytes)); /* a second gateway, now and then */
    buf_free(&bytes);
    buf_free(&sealed);
}

/* Sizes of a frame as it stands are the input's, so a challenge in it is only decoded. */
static bool is_work(const uint8_t *data, size_t size)
{
    return size > 3 && (data[3] == PROBE_CHALLENGE || data[3] == PROBE_WARM);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!prover)
        start();
    if (size > 0 && data[0] == 0xff && !is_work(data + 1, size - 1)) {
        ask(0, (struct str){(const char *)data + 1, size - 1});
        return 0;
    }
    for (unsigned i = 0; i < QUESTIONS_MAX && size >= 5; i++, data += 5, size -= 5)
        question(data[0], data + 1);
    return 0;
}
