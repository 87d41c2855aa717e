#include "tests/unit/cmocka_all.h"

#include "core/crypto.h"
#include "probes/chain.h"
#include "probes/prover.h"
#include "probes/tiles.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#define TILES 9
#define ROUNDS 2
#define PASSES 2
#define WALKERS 6
#define STEPS 5
#define N 64
#define BLOCKS 2

static struct signing_key *key;
static struct prover *prover;
static uint8_t public_key[32];
static uint32_t key_words[8];
static struct buf asked, answered;
static struct probe_frame answer; /* views of answered */
static uint32_t asker;

static int keys_open(void **state)
{
    (void)state;
    buf_init(&asked, 2 * PROBE_FRAME_MAX);
    buf_init(&answered, 2 * PROBE_FRAME_MAX);
    if (signing_key_new(&key) != ERR_NONE)
        return -1;
    signing_key_public(key, public_key);
    probe_words_of_bytes(public_key, 8, key_words);
    return 0;
}

static int keys_close(void **state)
{
    (void)state;
    buf_free(&asked);
    buf_free(&answered);
    return signing_key_free(key) != NULL;
}

static int prover_make(const struct probe_backend_ops *ops, unsigned devices)
{
    struct prover_options options = {.backend = ops, .key = key, .host_id = {4, 5, 6}, .devices = devices};
    return (int)prover_open(&options, &prover);
}

static int cpu_prover(void **state)
{
    (void)state;
    return prover_make(&probe_backend_cpu, 1);
}

static int prover_end(void **state)
{
    (void)state;
    prover = prover_free(prover);
    return 0;
}

/* -- asking -- */

static enum probe_frame_type ask_bytes(struct str bytes)
{
    buf_clear(&answered);
    assert_int_equal(prover_answer_to(prover, asker, bytes, &answered), ERR_NONE);
    assert_int_equal(probe_frame_decode(buf_str(&answered), &answer), ERR_NONE);
    if (answer.type == PROBE_HELLO || answer.type == PROBE_COMMIT)
        assert_true(signature_check(public_key, probe_signed_part(buf_str(&answered)),
                                    (const uint8_t *)answered.ptr + answered.len - ED25519_SIGNATURE));
    return answer.type;
}

static enum probe_frame_type ask(const struct probe_frame *frame)
{
    buf_clear(&asked);
    assert_true(probe_frame_encode(frame, &asked));
    return ask_bytes(buf_str(&asked));
}

static void expect_failure(const struct probe_frame *frame, enum probe_failure code)
{
    if (ask(frame) != PROBE_ERROR)
        fail_msg("frame %d instead of an error", answer.type);
    assert_int_equal(answer.of.error.code, code);
}

static struct probe_frame challenge_of(enum probe_kind kind, uint8_t id)
{
    struct probe_frame frame = {.type = PROBE_CHALLENGE};
    struct probe_challenge *challenge = &frame.of.challenge;
    memset(challenge->id, id, sizeof(challenge->id));
    challenge->kind = kind;
    challenge->deadline_ms = 1000;
    uint32_t *seed = kind == PROBE_KIND_FILL   ? challenge->of.fill.seed
                     : kind == PROBE_KIND_PASS ? challenge->of.pass.key
                     : kind == PROBE_KIND_WALK ? challenge->of.walk.key
                                               : challenge->of.chain.seed;
    for (uint32_t i = 0; i < 8; i++)
        seed[i] = 1000u * id + i;
    if (kind == PROBE_KIND_FILL) {
        challenge->of.fill.tiles = TILES;
        challenge->of.fill.double_rounds = ROUNDS;
    } else if (kind == PROBE_KIND_PASS) {
        challenge->of.pass.passes = PASSES;
    } else if (kind == PROBE_KIND_WALK) {
        challenge->of.walk.walkers = WALKERS;
        challenge->of.walk.steps = STEPS;
    } else {
        challenge->of.chain.n = N;
        challenge->of.chain.blocks = BLOCKS;
        challenge->of.chain.steps = 3;
    }
    return frame;
}

static void expect_commit(enum probe_kind kind, uint8_t id)
{
    struct probe_frame frame = challenge_of(kind, id);
    if (ask(&frame) != PROBE_COMMIT)
        fail_msg("frame %d instead of a commitment", answer.type);
    assert_memory_equal(answer.of.commit.id, frame.of.challenge.id, PROBE_ID_BYTES);
    assert_int_equal(answer.of.commit.kind, kind);
}

static struct probe_frame open_of(uint8_t id, uint32_t count, uint64_t index, uint32_t part)
{
    struct probe_frame frame = {.type = PROBE_OPEN};
    memset(frame.of.open.id, id, PROBE_ID_BYTES);
    frame.of.open.count = count;
    for (uint32_t i = 0; i < count; i++)
        frame.of.open.openings[i] = (struct probe_opening){index + i, part};
    return frame;
}

static void words_of_root(uint32_t pass, uint32_t ret[8])
{
    probe_words_of_bytes(answer.of.commit.roots[pass], 8, ret);
}

static void context_of(uint8_t id, uint32_t index, uint32_t ret[8])
{
    uint8_t bytes[PROBE_ID_BYTES];
    uint32_t id_words[4];
    memset(bytes, id, sizeof(bytes));
    probe_words_of_bytes(bytes, 4, id_words);
    probe_context(id_words, key_words, index, ret);
}

/* -- the protocol over the CPU backend -- */

static void hello_is_signed_and_claims(void **state)
{
    struct probe_frame frame = {.type = PROBE_HELLO_ASK};
    struct probe_hello first;
    (void)state;
    memset(frame.of.hello_ask.nonce, 9, 32);
    assert_int_equal(ask(&frame), PROBE_HELLO);
    first = answer.of.hello;
    assert_memory_equal(first.nonce, frame.of.hello_ask.nonce, 32);
    assert_memory_equal(first.worker_key, public_key, 32);
    assert_int_equal(first.host_id[1], 5);
    assert_int_equal(first.gpu_count, 1);
    assert_string_equal(first.gpus[0].name, "cpu");
    assert_true(first.gpus[0].vram_bytes > 0);
    assert_int_equal(ask(&frame), PROBE_HELLO);
    assert_memory_equal(first.exchange_key, answer.of.hello.exchange_key, 32); /* for as long as it lives */
    struct probe_claim claims[PROBE_DEVICES_MAX];
    assert_int_equal(prover_claims(prover, claims), 1);
    assert_string_equal(claims[0].name, "cpu");
}

static void small_frames(void **state)
{
    struct probe_frame ping = {.type = PROBE_PING}, net = {.type = PROBE_NET}, warm = {.type = PROBE_WARM};
    struct probe_frame verdict = {.type = PROBE_VERDICT};
    (void)state;
    memset(ping.of.ping.nonce, 3, 16);
    assert_int_equal(ask(&ping), PROBE_PONG);
    assert_memory_equal(answer.of.ping.nonce, ping.of.ping.nonce, 16);
    verdict.of.verdict = (struct probe_verdict_frame){true, STR("fine"), STR("{}")};
    assert_int_equal(ask(&verdict), PROBE_ACK);
    memset(net.of.net.id, 8, 16);
    net.of.net.payload = STR("some bytes");
    assert_int_equal(ask(&net), PROBE_NET_ANSWER);
    struct probe_hash hash;
    uint32_t digest[8];
    uint8_t expected[32];
    probe_hash_init(&hash, PROBE_HASH_NET);
    probe_hash_update(&hash, "some bytes", 10);
    probe_hash_final(&hash, digest);
    probe_bytes_of_words(digest, 8, expected);
    assert_memory_equal(answer.of.net_answer.digest, expected, 32);
    assert_int_equal(ask(&warm), PROBE_READY);
    warm.of.warm.gpu = 1;
    expect_failure(&warm, PROBE_FAILURE_UNKNOWN);
    warm.type = PROBE_RELEASE;
    expect_failure(&warm, PROBE_FAILURE_UNKNOWN);
}

static void what_is_no_question_is_refused(void **state)
{
    static const enum probe_frame_type answers[] = {PROBE_PONG, PROBE_READY, PROBE_NET_ANSWER, PROBE_BOUND, PROBE_ACK};
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        struct probe_frame frame = {.type = answers[i]};
        expect_failure(&frame, PROBE_FAILURE_BAD_FRAME);
    }
    struct probe_frame error = {.type = PROBE_ERROR, .of.error = {PROBE_FAILURE_BUSY, STR("no")}};
    expect_failure(&error, PROBE_FAILURE_BAD_FRAME);
    assert_int_equal(ask_bytes(STR("")), PROBE_ERROR);
    assert_int_equal(ask_bytes(STR("GET / HTTP/1.1\r\n\r\n")), PROBE_ERROR);
    struct buf small;
    buf_init(&small, 12); /* an answer that has no room leaves nothing behind */
    assert_int_equal(prover_answer(prover, STR("x"), &small), ERR_NO_MEMORY);
    assert_int_equal(small.len, 0);
    buf_free(&small);
}

static void fill_pass_and_walk_are_right(void **state)
{
    uint32_t roots[PASSES][8], root[8], context[8], leaf[8], tile[PROBE_TILE_WORDS], pass_key[PROBE_PASS_KEY_WORDS];
    uint8_t tile_bytes[PROBE_TILE_BYTES];
    struct probe_frame fill = challenge_of(PROBE_KIND_FILL, 1), pass = challenge_of(PROBE_KIND_PASS, 2), open;
    (void)state;
    expect_commit(PROBE_KIND_FILL, 1);
    assert_int_equal(answer.of.commit.items, TILES);
    open = open_of(1, 2, 7, 0);
    for (int again = 0; again < 2; again++) { /* tiles may be read again */
        assert_int_equal(ask(&open), PROBE_PROOF);
        tile_make(fill.of.challenge.of.fill.seed, 8, ROUNDS, tile);
        probe_bytes_of_words(tile, PROBE_TILE_WORDS, tile_bytes);
        assert_int_equal(answer.of.proof.items[1].data.len, PROBE_TILE_BYTES);
        assert_memory_equal(answer.of.proof.items[1].data.ptr, tile_bytes, PROBE_TILE_BYTES);
        assert_int_equal(answer.of.proof.items[1].path.len, 0);
    }
    expect_commit(PROBE_KIND_PASS, 2);
    assert_int_equal(answer.of.commit.root_count, PASSES);
    for (uint32_t i = 0; i < PASSES; i++)
        words_of_root(i, roots[i]);
    expect_commit(PROBE_KIND_WALK, 3);
    words_of_root(0, root);
    open = open_of(2, 1, 8, 1); /* of the pass, after the walk */
    assert_int_equal(ask(&open), PROBE_PROOF);
    uint32_t second_key[8];
    uint64_t nh[2];
    probe_next_key(pass.of.challenge.of.pass.key, roots[0], second_key);
    pass_key_make(second_key, pass_key);
    tile_nh(tile, pass_key, nh);
    context_of(2, 1, context);
    probe_tile_leaf(context, 8, nh[0], nh[1], leaf);
    assert_true(merkle_check(leaf, 8, TILES, answer.of.proof.items[0].path, roots[1]));
    assert_int_equal(answer.of.proof.items[0].data.len, 0);
    open = open_of(3, 1, WALKERS - 1, STEPS - 1);
    assert_int_equal(ask(&open), PROBE_PROOF);
    uint64_t trace[STEPS + 1];
    assert_int_equal(answer.of.proof.items[0].data.len, sizeof(trace));
    memcpy(trace, answer.of.proof.items[0].data.ptr, sizeof(trace));
    context_of(3, 0, context);
    walk_leaf(context, WALKERS - 1, trace, STEPS, leaf);
    assert_true(merkle_check(leaf, WALKERS - 1, WALKERS, answer.of.proof.items[0].path, root));
}

static void chain_is_right(void **state)
{
    static int8_t rows[N * N * BLOCKS];
    uint32_t root[8], context[8], leaf[8];
    struct probe_frame chain = challenge_of(PROBE_KIND_CHAIN, 4), open = open_of(4, 3, 20, 0);
    (void)state;
    expect_commit(PROBE_KIND_CHAIN, 4);
    assert_int_equal(answer.of.commit.route, PROBE_ROUTE_CPU);
    words_of_root(0, root);
    assert_int_equal(ask(&open), PROBE_PROOF);
    assert_int_equal(chain_run(chain.of.challenge.of.chain.seed, N, BLOCKS, 3, rows), ERR_NONE);
    context_of(4, 0, context);
    for (uint32_t i = 0; i < 3; i++) {
        const struct probe_item *item = &answer.of.proof.items[i];
        assert_int_equal(item->data.len, N * BLOCKS);
        assert_memory_equal(item->data.ptr, rows + (20 + i) * N * BLOCKS, N * BLOCKS);
        chain_leaf(context, 20 + i, (const int8_t *)item->data.ptr, N * BLOCKS, leaf);
        assert_true(merkle_check(leaf, 20 + i, N, item->path, root));
    }
    struct probe_frame larger = chain;
    larger.of.challenge.of.chain.n = 256;
    larger.of.challenge.of.chain.blocks = 4;
    assert_int_equal(ask(&larger), PROBE_COMMIT); /* the id is free again */
}

static void openings_need_a_commitment_and_come_once(void **state)
{
    static const enum probe_kind kinds[] = {PROBE_KIND_PASS, PROBE_KIND_WALK, PROBE_KIND_CHAIN};
    struct probe_frame open = open_of(10, 1, 0, 0), pass = challenge_of(PROBE_KIND_PASS, 10);
    (void)state;
    expect_failure(&open, PROBE_FAILURE_UNKNOWN); /* nothing was committed to */
    expect_failure(&pass, PROBE_FAILURE_UNKNOWN); /* nothing was filled */
    expect_failure(&open, PROBE_FAILURE_UNKNOWN);
    expect_commit(PROBE_KIND_FILL, 11);
    for (size_t i = 0; i < 3; i++) {
        uint8_t first = (uint8_t)(20 + i), second = (uint8_t)(30 + i);
        expect_commit(kinds[i], first);
        expect_commit(kinds[i], second);
        open = open_of(first, 1, 0, 0);
        expect_failure(&open, PROBE_FAILURE_UNKNOWN); /* another of its kind followed */
        open = open_of(second, 1, UINT32_MAX, 0);
        expect_failure(&open, PROBE_FAILURE_UNKNOWN);
        open = open_of(second, 1, 0, STEPS);
        expect_failure(&open, PROBE_FAILURE_UNKNOWN);
        open = open_of(second, 1, 0, 0);
        assert_int_equal(ask(&open), PROBE_PROOF);
        expect_failure(&open, PROBE_FAILURE_UNKNOWN); /* once */
    }
    expect_commit(PROBE_KIND_PASS, 40);
    pass = challenge_of(PROBE_KIND_WALK, 40);
    expect_failure(&pass, PROBE_FAILURE_BAD_FRAME); /* an id names one challenge */
    expect_commit(PROBE_KIND_FILL, 41);
    open = open_of(40, 1, 0, 0);
    expect_failure(&open, PROBE_FAILURE_UNKNOWN); /* other tiles now */
    expect_commit(PROBE_KIND_PASS, 42);
    struct probe_frame release = {.type = PROBE_RELEASE};
    assert_int_equal(ask(&release), PROBE_ACK);
    open = open_of(42, 1, 0, 0);
    expect_failure(&open, PROBE_FAILURE_UNKNOWN);
    pass = challenge_of(PROBE_KIND_PASS, 43);
    expect_failure(&pass, PROBE_FAILURE_UNKNOWN);
}

static void a_proof_fits_into_a_frame(void **state)
{
    struct probe_frame fill = challenge_of(PROBE_KIND_FILL, 1), open = open_of(1, PROBE_OPENINGS_MAX, 0, 0);
    (void)state;
    fill.of.challenge.of.fill.tiles = PROBE_OPENINGS_MAX;
    assert_int_equal(ask(&fill), PROBE_COMMIT);
    expect_failure(&open, PROBE_FAILURE_BAD_FRAME); /* 128 tiles and their heads are more than a frame */
    open = open_of(1, PROBE_OPENINGS_MAX - 1, 0, 0);
    assert_int_equal(ask(&open), PROBE_PROOF);
    assert_int_equal(answer.of.proof.count, PROBE_OPENINGS_MAX - 1);
}

static void too_large_a_fill(void **state)
{
    struct probe_frame fill = challenge_of(PROBE_KIND_FILL, 1), open = open_of(1, 1, 0, 0);
    (void)state;
    expect_commit(PROBE_KIND_FILL, 2);
    fill.of.challenge.of.fill.tiles = PROBE_TILES_MAX;
    expect_failure(&fill, PROBE_FAILURE_NO_MEMORY);
    expect_failure(&open, PROBE_FAILURE_UNKNOWN);
    open = open_of(2, 1, 0, 0);
    expect_failure(&open, PROBE_FAILURE_UNKNOWN);
    expect_commit(PROBE_KIND_FILL, 3);
}

static void secrets_open_with_the_last_chain_only(void **state)
{
    struct probe_frame hello = {.type = PROBE_HELLO_ASK}, bind = {.type = PROBE_BIND}, open = open_of(6, 1, 0, 0);
    uint8_t exchange[32], root[32], digest[32];
    struct str id = {(const char *)bind.of.bind.id, PROBE_ID_BYTES}, text = STR("a token of the gateway's");
    struct buf sealed, opened;
    (void)state;
    buf_init(&sealed, 0);
    buf_init(&opened, 0);
    assert_int_equal(ask(&hello), PROBE_HELLO);
    memcpy(exchange, answer.of.hello.exchange_key, 32);
    memset(bind.of.bind.id, 6, PROBE_ID_BYTES);
    memset(root, 0, 32);
    assert_int_equal(seal(exchange, root, id, text, &sealed), ERR_NONE);
    bind.of.bind.sealed = buf_str(&sealed);
    expect_failure(&bind, PROBE_FAILURE_UNKNOWN); /* no CHAIN yet: zeros are no root */
    assert_int_equal(prover_unseal(prover, 0, id, buf_str(&sealed), &opened), ERR_NOT_FOUND);
    expect_commit(PROBE_KIND_CHAIN, 6);
    memcpy(root, answer.of.commit.roots[0], 32);
    assert_int_equal(ask(&open), PROBE_PROOF);
    buf_clear(&sealed);
    assert_int_equal(seal(exchange, root, id, text, &sealed), ERR_NONE);
    bind.of.bind.sealed = buf_str(&sealed);
    assert_int_equal(ask(&bind), PROBE_BOUND);
    crypto_sha256(text, digest);
    assert_memory_equal(answer.of.bound.digest, digest, 32);
    assert_int_equal(prover_unseal(prover, 0, id, buf_str(&sealed), &opened), ERR_NONE);
    assert_true(str_eq(buf_str(&opened), text));
    assert_int_equal(prover_unseal(prover, 0, STR("another"), buf_str(&sealed), &opened), ERR_DENIED);
    assert_int_equal(prover_unseal(prover, 1, id, buf_str(&sealed), &opened), ERR_NOT_FOUND);
    bind.of.bind.id[0] ^= 1;
    expect_failure(&bind, PROBE_FAILURE_UNKNOWN);
    bind.of.bind.id[0] ^= 1;
    struct probe_frame release = {.type = PROBE_RELEASE};
    assert_int_equal(ask(&release), PROBE_ACK);
    assert_int_equal(ask(&bind), PROBE_BOUND);
    expect_commit(PROBE_KIND_CHAIN, 7);
    expect_failure(&bind, PROBE_FAILURE_UNKNOWN);
    buf_free(&sealed);
    buf_free(&opened);
}

static void two_gateways_do_not_cross(void **state)
{
    struct probe_frame hello = {.type = PROBE_HELLO_ASK}, warm = {.type = PROBE_WARM},
                       release = {.type = PROBE_RELEASE};
    struct probe_frame bind = {.type = PROBE_BIND}, open = open_of(1, 1, 0, 0), fill = challenge_of(PROBE_KIND_FILL, 2);
    struct str id = {(const char *)bind.of.bind.id, PROBE_ID_BYTES};
    struct buf sealed, opened;
    uint8_t exchange[32], root[32];
    (void)state;
    buf_init(&sealed, 0);
    buf_init(&opened, 0);
    asker = 1;
    expect_commit(PROBE_KIND_CHAIN, 1);
    memcpy(root, answer.of.commit.roots[0], 32);
    asker = 2;
    expect_failure(&warm, PROBE_FAILURE_BUSY);
    expect_failure(&fill, PROBE_FAILURE_BUSY);
    expect_failure(&open, PROBE_FAILURE_BUSY);
    expect_failure(&release, PROBE_FAILURE_BUSY);
    assert_int_equal(ask(&hello), PROBE_HELLO); /* to claim takes nothing away */
    memcpy(exchange, answer.of.hello.exchange_key, 32);
    asker = 1;
    assert_int_equal(ask(&open), PROBE_PROOF);
    assert_int_equal(ask(&release), PROBE_ACK);
    asker = 2;
    expect_commit(PROBE_KIND_CHAIN, 3);
    assert_int_equal(seal(exchange, root, id, STR("secret"), &sealed), ERR_NONE);
    bind.of.bind.sealed = buf_str(&sealed);
    expect_failure(&bind, PROBE_FAILURE_UNKNOWN); /* sealed to a proof for another */
    asker = 1;
    assert_int_equal(ask(&bind), PROBE_BOUND);
    for (asker = 2; asker < 9; asker++) { /* eight askers' roots are kept */
        struct probe_frame chain = challenge_of(PROBE_KIND_CHAIN, 4);
        assert_int_equal(ask(&release), PROBE_ACK);
        assert_int_equal(ask(&chain), PROBE_COMMIT);
        assert_int_equal(ask(&release), PROBE_ACK);
    }
    assert_int_equal(prover_unseal(prover, 0, id, buf_str(&sealed), &opened), ERR_NONE);
    expect_commit(PROBE_KIND_CHAIN, 5); /* the ninth */
    assert_int_equal(prover_unseal(prover, 0, id, buf_str(&sealed), &opened), ERR_DENIED);
    asker = 0;
    buf_free(&sealed);
    buf_free(&opened);
}

/* -- a device with faults -- */

static struct {
    enum error open, warm, chain;
    size_t row_bytes;
    bool is_waiting, may_go, is_awkward, claims_wait;
    unsigned opened, closed;
    pthread_mutex_t lock;
    pthread_cond_t change;
} bad = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

struct probe_backend {
    unsigned index;
};

static unsigned bad_count(void)
{
    return 2;
}

static enum error bad_open(unsigned index, struct probe_backend **ret)
{
    if (index == 1 && bad.open != ERR_NONE)
        return bad.open;
    *ret = calloc(1, sizeof(**ret));
    assert_non_null(*ret);
    (*ret)->index = index;
    bad.opened++;
    return ERR_NONE;
}

static struct probe_backend *bad_close(struct probe_backend *backend)
{
    bad.closed += backend != NULL;
    free(backend);
    return NULL;
}

/* Stays until it is told to go. */
static void wait_to_go(void)
{
    pthread_mutex_lock(&bad.lock);
    bad.is_waiting = true;
    pthread_cond_broadcast(&bad.change);
    while (!bad.may_go)
        pthread_cond_wait(&bad.change, &bad.lock);
    pthread_mutex_unlock(&bad.lock);
}

static void await_waiting(void)
{
    pthread_mutex_lock(&bad.lock);
    while (!bad.is_waiting)
        pthread_cond_wait(&bad.change, &bad.lock);
    pthread_mutex_unlock(&bad.lock);
}

static void let_go(void)
{
    pthread_mutex_lock(&bad.lock);
    bad.may_go = true;
    pthread_cond_broadcast(&bad.change);
    pthread_mutex_unlock(&bad.lock);
}

static void bad_claim(struct probe_backend *backend, struct probe_claim *ret)
{
    memset(ret, bad.is_awkward ? 0xf8 : 0, sizeof(*ret));
    ret->ecc = ret->mig = false;
    ret->sms = backend->index;
    if (bad.claims_wait)
        wait_to_go();
}

static enum error bad_warm(struct probe_backend *backend)
{
    if (backend->index == 0)
        wait_to_go();
    return bad.warm;
}

static enum error bad_chain(struct probe_backend *backend, const struct probe_chain *chain, uint32_t ret_root[8],
                            enum probe_route *ret_route)
{
    (void)backend, (void)chain;
    memset(ret_root, 1, 32);
    *ret_route = PROBE_ROUTE_DP4A;
    return bad.chain;
}

static enum error bad_chain_open(struct probe_backend *backend, uint32_t row, struct buf *bytes, struct buf *path)
{
    static const char zeros[N * BLOCKS + 8];
    (void)backend, (void)row;
    assert_true(buf_append(bytes, zeros, bad.row_bytes) && buf_append(path, zeros, 96));
    return buf_append(path, zeros, 96) ? ERR_NONE : ERR_NO_MEMORY;
}

static uint32_t bad_clock(struct probe_backend *backend)
{
    return backend->index;
}

static const struct probe_backend_ops bad_ops = {.name = "bad",
                                                 .count = bad_count,
                                                 .open = bad_open,
                                                 .close = bad_close,
                                                 .claim = bad_claim,
                                                 .warm = bad_warm,
                                                 .chain = bad_chain,
                                                 .chain_open = bad_chain_open,
                                                 .clock_mhz = bad_clock};

static int bad_prover(void **state)
{
    (void)state;
    bad.open = bad.warm = bad.chain = ERR_NONE;
    bad.is_waiting = bad.may_go = bad.is_awkward = bad.claims_wait = false;
    bad.opened = bad.closed = 0;
    return prover_make(&bad_ops, 2);
}

static int bad_prover_end(void **state)
{
    prover_end(state);
    return bad.opened != bad.closed;
}

static void *warm_first(void *ctx)
{
    struct probe_frame *warm = ctx;
    struct buf bytes, got;
    buf_init(&bytes, 0);
    buf_init(&got, 0);
    if (!probe_frame_encode(warm, &bytes) || prover_answer(prover, buf_str(&bytes), &got) != ERR_NONE ||
        got.ptr[3] != PROBE_READY)
        ctx = NULL;
    buf_free(&bytes);
    buf_free(&got);
    return ctx;
}

static void one_device_at_work_holds_up_no_other(void **state)
{
    struct probe_frame warm = {.type = PROBE_WARM}, ping = {.type = PROBE_PING}, hello = {.type = PROBE_HELLO_ASK};
    struct probe_frame chain = challenge_of(PROBE_KIND_CHAIN, 1), release = {.type = PROBE_RELEASE};
    pthread_t thread;
    void *result;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, warm_first, &warm), 0);
    await_waiting();
    expect_failure(&warm, PROBE_FAILURE_BUSY);
    expect_failure(&chain, PROBE_FAILURE_BUSY);
    expect_failure(&release, PROBE_FAILURE_BUSY);
    assert_int_equal(ask(&ping), PROBE_PONG);
    assert_int_equal(ask(&hello), PROBE_HELLO);
    assert_int_equal(answer.of.hello.gpu_count, 2);
    chain.of.challenge.gpu = 1;
    assert_int_equal(ask(&chain), PROBE_COMMIT);
    assert_int_equal(answer.of.commit.route, PROBE_ROUTE_DP4A);
    assert_int_equal(answer.of.commit.clock_mhz, 1);
    let_go();
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &warm);
    assert_int_equal(ask(&warm), PROBE_READY);
}

static void *look_at_claims(void *ctx)
{
    struct probe_claim claims[PROBE_DEVICES_MAX];
    return prover_claims(prover, claims) == 2 ? ctx : NULL;
}

static void *let_go_later(void *ctx)
{
    sched_yield(); /* the warm-up below waits for the claims by then, or comes after them: both must end well */
    let_go();
    return ctx;
}

static void looking_at_claims_makes_no_device_busy(void **state)
{
    struct probe_frame warm = {.type = PROBE_WARM};
    pthread_t looker, releaser;
    void *result;
    (void)state;
    bad.claims_wait = true;
    assert_int_equal(pthread_create(&looker, NULL, look_at_claims, &warm), 0);
    await_waiting();
    assert_int_equal(pthread_create(&releaser, NULL, let_go_later, NULL), 0);
    assert_int_equal(ask(&warm), PROBE_READY);
    assert_int_equal(pthread_join(releaser, &result), 0);
    assert_int_equal(pthread_join(looker, &result), 0);
    assert_ptr_equal(result, &warm);
}

static void a_device_that_failed_is_opened_again(void **state)
{
    struct probe_frame chain = challenge_of(PROBE_KIND_CHAIN, 1), open = open_of(1, 1, 0, 0);
    struct probe_frame warm = {.type = PROBE_WARM, .of.warm.gpu = 1}, hello = {.type = PROBE_HELLO_ASK};
    (void)state;
    chain.of.challenge.gpu = 1;
    assert_int_equal(ask(&chain), PROBE_COMMIT);
    bad.warm = ERR_SYSTEM;
    expect_failure(&warm, PROBE_FAILURE_DEVICE);
    assert_int_equal(bad.closed, 1);
    expect_failure(&open, PROBE_FAILURE_UNKNOWN); /* it forgot all */
    bad.warm = ERR_NONE;
    bad.open = ERR_SYSTEM;
    expect_failure(&warm, PROBE_FAILURE_DEVICE);
    assert_int_equal(ask(&hello), PROBE_HELLO);
    bad.open = ERR_NONE;
    assert_int_equal(ask(&warm), PROBE_READY);
    assert_int_equal(bad.opened, 3);
    bad.chain = ERR_NO_MEMORY;
    expect_failure(&chain, PROBE_FAILURE_NO_MEMORY);
    assert_int_equal(bad.closed, 1);
}

static void a_row_of_a_wrong_length_is_a_failure(void **state)
{
    static const size_t lengths[] = {0, N * BLOCKS - 1, N * BLOCKS, N * BLOCKS + 1};
    (void)state;
    for (uint8_t i = 0; i < 4; i++) {
        struct probe_frame chain = challenge_of(PROBE_KIND_CHAIN, i), open = open_of(i, 2, 0, 0);
        bad.row_bytes = lengths[i];
        assert_int_equal(ask(&chain), PROBE_COMMIT);
        if (lengths[i] == N * BLOCKS)
            assert_int_equal(ask(&open), PROBE_PROOF);
        else
            expect_failure(&open, PROBE_FAILURE_DEVICE);
    }
}

static void names_from_a_driver_are_made_printable(void **state)
{
    struct probe_frame hello = {.type = PROBE_HELLO_ASK};
    (void)state;
    bad.is_awkward = true;
    assert_int_equal(ask(&hello), PROBE_HELLO);
    assert_int_equal(strlen(answer.of.hello.gpus[0].name), PROBE_NAME_MAX - 1);
    assert_int_equal(answer.of.hello.gpus[0].name[0], '?');
}

static void without_any_device_there_is_no_prover(void **state)
{
    struct prover_options options = {.backend = &probe_backend_cpu, .key = key, .devices = 1};
    struct probe_backend_ops ops = probe_backend_cpu;
    struct prover *none = NULL, *some = NULL;
    (void)state;
    ops.open = probe_backend_cuda.open;
    options.backend = &ops;
    if (probe_backend_cuda.count() == 0) {
        assert_int_not_equal(prover_open(&options, &none), ERR_NONE);
        assert_null(none);
    }
    options.backend = &bad_ops;
    options.devices = 2;
    bad.opened = bad.closed = 0;
    bad.open = ERR_SYSTEM;
    assert_int_equal(prover_open(&options, &some), ERR_NONE);
    assert_int_equal(bad.opened, 1);
    prover_free(some);
    assert_int_equal(bad.closed, 1);
}

#define WITH_CPU(test) cmocka_unit_test_setup_teardown(test, cpu_prover, prover_end)
#define WITH_BAD(test) cmocka_unit_test_setup_teardown(test, bad_prover, bad_prover_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CPU(hello_is_signed_and_claims),
        WITH_CPU(small_frames),
        WITH_CPU(what_is_no_question_is_refused),
        WITH_CPU(fill_pass_and_walk_are_right),
        WITH_CPU(chain_is_right),
        WITH_CPU(openings_need_a_commitment_and_come_once),
        WITH_CPU(a_proof_fits_into_a_frame),
        WITH_CPU(too_large_a_fill),
        WITH_CPU(two_gateways_do_not_cross),
        WITH_CPU(secrets_open_with_the_last_chain_only),
        WITH_BAD(one_device_at_work_holds_up_no_other),
        WITH_BAD(looking_at_claims_makes_no_device_busy),
        WITH_BAD(a_device_that_failed_is_opened_again),
        WITH_BAD(a_row_of_a_wrong_length_is_a_failure),
        WITH_BAD(names_from_a_driver_are_made_printable),
        cmocka_unit_test(without_any_device_there_is_no_prover),
    };
    return cmocka_run_group_tests(tests, keys_open, keys_close);
}
