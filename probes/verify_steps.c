/* What each step asks and what it wants back; the order of the steps is at the end. */
#include "core/clock.h"
#include "core/crypto.h"
#include "probes/identity.h"
#include "probes/verify_priv.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TILES_OPENED 64u
#define TILES_READ_CHECKED 8u /* of those that NET brings up */
#define PINGS_LEAST 4u
#define PINGS_NS (100 * NS_PER_MS) /* more than the least only as long as they are quick */
#define HELLO_S 2.0                /* a driver may have to be started */
#define WARM_S 4.0
#define NET_S 0.5
#define NET_NONCE_BYTES 32u
#define WAITS_MAX 3000u /* for a prepared CHAIN: a minute */
#define SECRET_BYTES 32u

/* -- the step report under way -- */

static void begin(struct verify_session *session, const char *kind, const uint8_t *id, const uint32_t *seed)
{
    struct verify_step_report *now = &session->now;
    *now = (struct verify_step_report){.unit = ""};
    str_copy(now->kind, sizeof(now->kind), str_of(kind));
    if (id)
        memcpy(now->id, id, sizeof(now->id));
    if (seed)
        probe_bytes_of_words(seed, PROBE_SEED_WORDS, now->seed);
}

static void finish(struct verify_session *session)
{
    struct verify_report *report = &session->report;
    assert(report->step_count < VERIFY_STEPS_MAX);
    session->now.is_passed = true;
    report->steps[report->step_count++] = session->now;
    session->now = (struct verify_step_report){.unit = ""};
}

static double rate(double amount, int64_t took_ns) /* a nanosecond, of 10^9 a second */
{
    return amount / (double)(took_ns > 0 ? took_ns : 1);
}

static uint32_t deadline_ms(int64_t deadline_ns)
{
    return (uint32_t)(deadline_ns / NS_PER_MS);
}

/* -- HELLO -- */

static enum verify_ask hello_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    crypto_random(session->nonce, sizeof(session->nonce));
    begin(session, "hello", NULL, NULL);
    ret->type = PROBE_HELLO_ASK;
    memcpy(ret->of.hello_ask.nonce, session->nonce, sizeof(session->nonce));
    *ret_deadline_ns = verify_deadline_ns(session, HELLO_S);
    return VERIFY_ASK_SEND;
}

static enum verify_check hello_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                     int64_t took_ns)
{
    const struct probe_hello *hello = &answer->of.hello;
    struct verify_report *report = &session->report;
    const unsigned gpu = session->options.gpu;
    (void)took_ns;
    if (memcmp(hello->nonce, session->nonce, sizeof(hello->nonce)) != 0)
        return verify_fail(session, VERIFY_WRONG, "an answer to another question");
    if (!signature_check(hello->worker_key, probe_signed_part(bytes), hello->signature))
        return verify_fail(session, VERIFY_WRONG, "the signature is not its key's");
    report->has_hello = true;
    report->gpu_count = hello->gpu_count;
    memcpy(report->worker_key, hello->worker_key, sizeof(report->worker_key));
    memcpy(report->exchange_key, hello->exchange_key, sizeof(report->exchange_key));
    memcpy(report->host_id, hello->host_id, sizeof(report->host_id));
    probe_words_of_bytes(hello->worker_key, PROBE_HASH_WORDS, session->worker_words);
    if (session->options.expect_key && !crypto_equal(hello->worker_key, session->expect_key, PROBE_KEY_BYTES))
        return verify_fail(session, VERIFY_WRONG, "another key than it proved with before");
    if (gpu >= hello->gpu_count)
        return verify_fail(session, VERIFY_WRONG, "it has no GPU %u", gpu);
    report->claim = hello->gpus[gpu];
    verify_choose_class(session);
    const char *contradiction = claim_contradiction(session->options.catalogue, &report->claim);
    if (contradiction)
        return verify_fail(session, VERIFY_WRONG, "%s", contradiction);
    if (!verify_fit(session))
        return VERIFY_CHECK_END;
    finish(session);
    return VERIFY_CHECK_NEXT;
}

/* -- PING -- */

static enum verify_ask ping_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    crypto_random(session->nonce, sizeof(session->nonce));
    ret->type = PROBE_PING;
    memcpy(ret->of.ping.nonce, session->nonce, sizeof(ret->of.ping.nonce));
    *ret_deadline_ns = verify_deadline_ns(session, 0);
    return VERIFY_ASK_SEND;
}

static enum verify_check ping_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                    int64_t took_ns)
{
    (void)bytes;
    if (memcmp(answer->of.ping.nonce, session->nonce, sizeof(answer->of.ping.nonce)) != 0)
        return verify_fail(session, VERIFY_WRONG, "an answer to another question");
    session->rtts_ns[session->rtt_count++] = took_ns;
    session->rtt_total_ns += took_ns;
    if (session->rtt_count < PINGS_LEAST || (session->rtt_count < VERIFY_PINGS_MAX && session->rtt_total_ns < PINGS_NS))
        return VERIFY_CHECK_AGAIN;
    verify_choose_rtt(session);
    return VERIFY_CHECK_NEXT;
}

/* -- WARM. Before it a prepared CHAIN is taken, so that a session never waits for one while a device is full. -- */

static enum verify_ask prepare_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    (void)ret;
    (void)ret_deadline_ns;
    if (!session->shape.n) {
        if (!verify_chain_shape(session, &session->shape)) {
            verify_fail(session, VERIFY_LOST, "too little memory is free");
            return VERIFY_ASK_END;
        }
        chain_pool_want(session->options.pool, session->shape);
    }
    const enum error error = chain_pool_take(session->options.pool, session->shape, &session->print);
    if (!error)
        return VERIFY_ASK_SKIP; /* nothing is sent */
    if (error == ERR_BUSY && ++session->waits <= WAITS_MAX)
        return VERIFY_ASK_WAIT;
    verify_fail(session, VERIFY_LOST, "the gateway had none ready");
    return VERIFY_ASK_END;
}

static enum verify_ask warm_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    ret->type = PROBE_WARM;
    ret->of.warm.gpu = session->options.gpu;
    *ret_deadline_ns = verify_deadline_ns(session, WARM_S);
    return VERIFY_ASK_SEND;
}

static enum verify_check warm_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                    int64_t took_ns)
{
    (void)bytes;
    (void)took_ns;
    if (answer->of.warm.gpu != session->options.gpu)
        return verify_fail(session, VERIFY_WRONG, "another GPU is ready");
    return VERIFY_CHECK_NEXT;
}

/* -- NET: down random bytes, up tiles. Once a machine, for its devices share what it has. -- */

static bool has_net(const struct verify_session *session)
{
    return session->sizes->net_frames > 0 && session->options.gpu == 0;
}

static bool net_prepare(struct verify_net *net)
{
    net->payload = malloc(PROBE_NET_MAX);
    if (!net->payload)
        return false;
    crypto_random(net->payload, PROBE_NET_MAX);
    probe_hash_init(&net->prefix, PROBE_HASH_NET);
    probe_hash_update(&net->prefix, net->payload, PROBE_NET_MAX - NET_NONCE_BYTES);
    return true;
}

static void net_add(struct verify_net *net, size_t bytes, int64_t took_ns)
{
    net->frames_done++;
    net->bytes += bytes;
    net->took_ns += took_ns;
}

static enum verify_ask net_down_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    struct verify_net *net = &session->net;
    if (!has_net(session))
        return VERIFY_ASK_SKIP;
    begin(session, "net", NULL, NULL);
    if (!net->payload && !net_prepare(net)) {
        verify_fail(session, VERIFY_LOST, "the gateway is out of memory");
        return VERIFY_ASK_END;
    }
    /* Only the end is new in each frame: the gateway hashes the rest once, and bytes travel all the same. */
    crypto_random(net->payload + PROBE_NET_MAX - NET_NONCE_BYTES, NET_NONCE_BYTES);
    ret->type = PROBE_NET;
    crypto_random(ret->of.net.id, PROBE_ID_BYTES);
    ret->of.net.payload = (struct str){(const char *)net->payload, PROBE_NET_MAX};
    memcpy(session->now.id, ret->of.net.id, PROBE_ID_BYTES);
    *ret_deadline_ns = verify_deadline_ns(session, NET_S);
    return VERIFY_ASK_SEND;
}

static enum verify_check net_down_check(struct verify_session *session, const struct probe_frame *answer,
                                        struct str bytes, int64_t took_ns)
{
    struct verify_net *net = &session->net;
    struct probe_hash hash = net->prefix;
    uint32_t digest[8];
    uint8_t want[PROBE_HASH_BYTES];
    (void)bytes;
    probe_hash_update(&hash, net->payload + PROBE_NET_MAX - NET_NONCE_BYTES, NET_NONCE_BYTES);
    probe_hash_final(&hash, digest);
    probe_bytes_of_words(digest, PROBE_HASH_WORDS, want);
    if (memcmp(answer->of.net_answer.id, session->now.id, PROBE_ID_BYTES) != 0 ||
        memcmp(answer->of.net_answer.digest, want, sizeof(want)) != 0)
        return verify_fail(session, VERIFY_WRONG, "not the digest of what was sent");
    net_add(net, PROBE_NET_MAX, took_ns);
    if (net->frames_done < session->sizes->net_frames)
        return VERIFY_CHECK_AGAIN;
    net->down_mbps = rate((double)net->bytes * 8 * 1e3, net->took_ns);
    net->frames_done = 0;
    net->bytes = 0;
    net->took_ns = 0;
    free(net->payload);
    net->payload = NULL;
    session->now.kind[0] = '\0'; /* it goes on after FILL */
    return VERIFY_CHECK_NEXT;
}

static void ask_open(struct verify_session *session, const uint8_t id[PROBE_ID_BYTES], struct probe_frame *ret,
                     int64_t *ret_deadline_ns)
{
    memcpy(session->open.id, id, PROBE_ID_BYTES);
    ret->type = PROBE_OPEN;
    ret->of.open = session->open;
    *ret_deadline_ns = verify_deadline_ns(session, NET_S);
}

static enum verify_ask net_up_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    const uint32_t fit = (uint32_t)((PROBE_FRAME_MAX - 64) / (PROBE_TILE_BYTES + 32));
    if (!has_net(session))
        return VERIFY_ASK_SKIP;
    begin(session, "net", session->fill_id, session->fill.seed);
    verify_draw_tiles(session, fit < PROBE_OPENINGS_MAX ? fit : PROBE_OPENINGS_MAX, 1);
    ask_open(session, session->fill_id, ret, ret_deadline_ns);
    return VERIFY_ASK_SEND;
}

static enum verify_check net_up_check(struct verify_session *session, const struct probe_frame *answer,
                                      struct str bytes, int64_t took_ns)
{
    struct verify_net *net = &session->net;
    const uint32_t frames = session->sizes->net_frames;
    if (!verify_is_same_opening(session, &answer->of.proof))
        return verify_fail(session, VERIFY_WRONG, "other tiles than were asked for");
    if (verify_tiles_read(session, &answer->of.proof, (TILES_READ_CHECKED + frames - 1) / frames) != VERIFY_CHECK_NEXT)
        return VERIFY_CHECK_END;
    net_add(net, bytes.len, took_ns);
    if (net->frames_done < frames)
        return VERIFY_CHECK_AGAIN;
    const double up_mbps = rate((double)net->bytes * 8 * 1e3, net->took_ns);
    session->now.took_ns = net->took_ns;
    session->now.rate = up_mbps < net->down_mbps ? up_mbps : net->down_mbps;
    session->now.unit = "Mb/s";
    finish(session);
    return VERIFY_CHECK_NEXT;
}

/* -- challenges -- */

static void ask_challenge(struct verify_session *session, enum probe_kind kind, const uint32_t seed[8],
                          double expected_s, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    struct probe_challenge *challenge = &ret->of.challenge;
    ret->type = PROBE_CHALLENGE;
    crypto_random(challenge->id, sizeof(challenge->id));
    challenge->kind = kind;
    challenge->gpu = session->options.gpu;
    *ret_deadline_ns = verify_deadline_ns(session, expected_s);
    challenge->deadline_ms = deadline_ms(*ret_deadline_ns);
    begin(session, probe_kind_name(kind), challenge->id, seed);
}

static bool is_too_far(struct verify_session *session, const char *kind, double expected_s)
{
    if (!verify_is_too_far(session, expected_s))
        return false;
    begin(session, kind, NULL, NULL);
    verify_fail(session, VERIFY_LOST, "the round trip of %" PRId64 " ms is too long to judge it",
                session->report.rtt_ns / NS_PER_MS);
    return true;
}

/* What all commitments have in common. */
static bool is_right_commit(struct verify_session *session, const struct probe_commit *commit, struct str bytes,
                            enum probe_kind kind, uint32_t roots)
{
    if (memcmp(commit->id, session->now.id, PROBE_ID_BYTES) != 0 || commit->kind != kind)
        verify_fail(session, VERIFY_WRONG, "an answer to another challenge");
    else if (commit->root_count != roots)
        verify_fail(session, VERIFY_WRONG, "%" PRIu32 " roots instead of %" PRIu32, commit->root_count, roots);
    else if (!signature_check(session->report.worker_key, probe_signed_part(bytes), commit->signature))
        verify_fail(session, VERIFY_WRONG, "the signature is not the worker's");
    else
        return true;
    return false;
}

/* The root's bytes into the step's report, and its words. */
static void keep_root(struct verify_session *session, const uint8_t root[PROBE_HASH_BYTES], uint32_t ret[8])
{
    memcpy(session->now.root, root, PROBE_HASH_BYTES);
    probe_words_of_bytes(root, PROBE_HASH_WORDS, ret);
}

static enum verify_ask fill_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    struct probe_fill *fill = &session->fill;
    fill->tiles = verify_fill_tiles(session);
    fill->double_rounds = session->sizes->double_rounds ? session->sizes->double_rounds : 1;
    const double expected_s = verify_fill_s(session, fill->tiles);
    if (session->options.purpose == VERIFY_ADMISSION && is_too_far(session, "fill", expected_s))
        return VERIFY_ASK_END;
    crypto_random(fill->seed, sizeof(fill->seed));
    ask_challenge(session, PROBE_KIND_FILL, fill->seed, expected_s, ret, ret_deadline_ns);
    memcpy(session->fill_id, session->now.id, PROBE_ID_BYTES);
    ret->of.challenge.of.fill = *fill;
    return VERIFY_ASK_SEND;
}

static enum verify_check fill_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                    int64_t took_ns)
{
    const struct probe_commit *commit = &answer->of.commit;
    if (!is_right_commit(session, commit, bytes, PROBE_KIND_FILL, 0))
        return VERIFY_CHECK_END;
    if (commit->items != session->fill.tiles)
        return verify_fail(session, VERIFY_WRONG, "%" PRIu64 " tiles instead of %" PRIu64, commit->items,
                           session->fill.tiles);
    session->now.took_ns = took_ns;
    session->now.rate = rate((double)session->fill.tiles * PROBE_TILE_BYTES, took_ns);
    session->now.unit = "GB/s";
    if (session->options.purpose == VERIFY_ADMISSION) /* a spot check's is too short to judge */
        session->report.proven.fill_gbps = session->now.rate;
    finish(session);
    return VERIFY_CHECK_NEXT;
}

static enum verify_ask pass_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    struct probe_pass *pass = &session->pass;
    pass->passes = verify_passes(session);
    const double expected_s = verify_pass_s(session, session->fill.tiles, pass->passes);
    if (is_too_far(session, "pass", expected_s))
        return VERIFY_ASK_END;
    crypto_random(pass->key, sizeof(pass->key)); /* told only now that the tiles lie there */
    ask_challenge(session, PROBE_KIND_PASS, pass->key, expected_s, ret, ret_deadline_ns);
    probe_words_of_bytes(session->now.id, 4, pass->challenge);
    memcpy(ret->of.challenge.of.pass.key, pass->key, sizeof(pass->key));
    ret->of.challenge.of.pass.passes = pass->passes;
    return VERIFY_ASK_SEND;
}

static enum verify_check pass_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                    int64_t took_ns)
{
    const struct probe_commit *commit = &answer->of.commit;
    const uint32_t passes = session->pass.passes;
    if (!is_right_commit(session, commit, bytes, PROBE_KIND_PASS, passes))
        return VERIFY_CHECK_END;
    memcpy(session->pass_keys[0], session->pass.key, sizeof(session->pass.key));
    for (uint32_t p = 0; p < passes; p++) {
        keep_root(session, commit->roots[p], session->pass_roots[p]);
        if (p + 1 < passes)
            probe_next_key(session->pass_keys[p], session->pass_roots[p], session->pass_keys[p + 1]);
    }
    session->now.took_ns = took_ns;
    session->now.rate = rate((double)session->fill.tiles * PROBE_TILE_BYTES * passes, took_ns);
    session->now.unit = "GB/s";
    return VERIFY_CHECK_NEXT;
}

static enum verify_ask pass_open_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    verify_draw_tiles(session, TILES_OPENED, session->pass.passes);
    ask_open(session, session->now.id, ret, ret_deadline_ns);
    return VERIFY_ASK_SEND;
}

static enum verify_check pass_open_check(struct verify_session *session, const struct probe_frame *answer,
                                         struct str bytes, int64_t took_ns)
{
    struct proven *proven = &session->report.proven;
    (void)bytes;
    (void)took_ns;
    if (!verify_is_same_opening(session, &answer->of.proof))
        return verify_fail(session, VERIFY_WRONG, "other tiles than were asked for");
    if (verify_pass_proof(session, &answer->of.proof) != VERIFY_CHECK_NEXT)
        return VERIFY_CHECK_END;
    proven->pass_gbps = session->now.rate;
    if (session->options.purpose == VERIFY_ADMISSION)
        proven->vram_gib = (double)session->fill.tiles * PROBE_TILE_BYTES / (double)(1 << 30);
    finish(session);
    return VERIFY_CHECK_NEXT;
}

static enum verify_ask walk_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    struct probe_walk *walk = &session->walk;
    if (!session->sizes->walkers || !session->sizes->walk_steps)
        return VERIFY_ASK_SKIP;
    walk->walkers = session->sizes->walkers;
    walk->steps = verify_walk_steps(session);
    crypto_random(walk->key, sizeof(walk->key));
    ask_challenge(session, PROBE_KIND_WALK, walk->key, verify_walk_s(session, walk->steps), ret, ret_deadline_ns);
    probe_words_of_bytes(session->now.id, 4, walk->challenge);
    memcpy(ret->of.challenge.of.walk.key, walk->key, sizeof(walk->key));
    ret->of.challenge.of.walk.walkers = walk->walkers;
    ret->of.challenge.of.walk.steps = walk->steps;
    return VERIFY_ASK_SEND;
}

static enum verify_check walk_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                    int64_t took_ns)
{
    const struct probe_commit *commit = &answer->of.commit;
    if (!is_right_commit(session, commit, bytes, PROBE_KIND_WALK, 1))
        return VERIFY_CHECK_END;
    keep_root(session, commit->roots[0], session->walk_root);
    session->now.took_ns = took_ns;
    session->now.rate = rate(128.0 * session->walk.walkers * session->walk.steps, took_ns);
    session->now.unit = "GB/s";
    return VERIFY_CHECK_NEXT;
}

static enum verify_ask walk_open_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    if (!session->walk.steps)
        return VERIFY_ASK_SKIP;
    verify_draw_walkers(session);
    ask_open(session, session->now.id, ret, ret_deadline_ns);
    return VERIFY_ASK_SEND;
}

static enum verify_check walk_open_check(struct verify_session *session, const struct probe_frame *answer,
                                         struct str bytes, int64_t took_ns)
{
    (void)bytes;
    (void)took_ns;
    if (!verify_is_same_opening(session, &answer->of.proof))
        return verify_fail(session, VERIFY_WRONG, "other walkers than were asked for");
    if (verify_walk_proof(session, &answer->of.proof) != VERIFY_CHECK_NEXT)
        return VERIFY_CHECK_END;
    /* WALK lasts milliseconds even on the largest devices. From near its rate counts, from afar only its answers. */
    if (!verify_is_too_far(session, verify_walk_s(session, session->walk.steps)))
        session->report.proven.walk_gbps = session->now.rate;
    finish(session);
    return VERIFY_CHECK_NEXT;
}

static enum verify_ask chain_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    const struct chain_shape shape = session->shape;
    const double expected_s = verify_chain_s(session, shape);
    if (is_too_far(session, "chain", expected_s))
        return VERIFY_ASK_END;
    ask_challenge(session, PROBE_KIND_CHAIN, session->print.seed, expected_s, ret, ret_deadline_ns);
    struct probe_chain *chain = &ret->of.challenge.of.chain;
    memcpy(chain->seed, session->print.seed, sizeof(chain->seed));
    chain->n = shape.n;
    chain->blocks = shape.blocks;
    chain->steps = shape.steps;
    return VERIFY_ASK_SEND;
}

static enum verify_check chain_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                     int64_t took_ns)
{
    const struct probe_commit *commit = &answer->of.commit;
    if (!is_right_commit(session, commit, bytes, PROBE_KIND_CHAIN, 1))
        return VERIFY_CHECK_END;
    keep_root(session, commit->roots[0], session->chain_root);
    session->report.route = commit->route;
    session->now.took_ns = took_ns;
    session->now.rate = rate(verify_chain_operations(session->shape) / 1e3, took_ns);
    session->now.unit = "TOPS";
    return VERIFY_CHECK_NEXT;
}

static enum verify_ask chain_open_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    verify_draw_rows(session);
    ask_open(session, session->now.id, ret, ret_deadline_ns);
    return VERIFY_ASK_SEND;
}

static enum verify_check chain_open_check(struct verify_session *session, const struct probe_frame *answer,
                                          struct str bytes, int64_t took_ns)
{
    (void)bytes;
    (void)took_ns;
    if (!verify_is_same_opening(session, &answer->of.proof))
        return verify_fail(session, VERIFY_WRONG, "other rows than were asked for");
    if (verify_chain_proof(session, &answer->of.proof) != VERIFY_CHECK_NEXT)
        return VERIFY_CHECK_END;
    session->report.proven.chain_tops = session->now.rate;
    memcpy(session->report.chain_root, session->now.root, PROBE_HASH_BYTES);
    finish(session);
    return VERIFY_CHECK_NEXT;
}

/* -- BIND: who opens this holds the exchange key, and gave this proof -- */

static enum verify_ask bind_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    uint8_t secret[SECRET_BYTES], id[PROBE_ID_BYTES];
    crypto_random(secret, sizeof(secret));
    crypto_random(id, sizeof(id));
    crypto_sha256((struct str){(const char *)secret, sizeof(secret)}, session->bound);
    begin(session, "bind", id, NULL);
    memcpy(session->now.root, session->report.chain_root, PROBE_HASH_BYTES);
    buf_clear(&session->sealed);
    const enum error error =
        seal(session->report.exchange_key, session->report.chain_root, (struct str){(const char *)id, sizeof(id)},
             (struct str){(const char *)secret, sizeof(secret)}, &session->sealed);
    crypto_wipe(secret, sizeof(secret));
    if (error == ERR_NO_MEMORY)
        verify_fail(session, VERIFY_LOST, "the gateway is out of memory");
    else if (error)
        verify_fail(session, VERIFY_WRONG, "nothing can be sealed to its exchange key");
    if (error)
        return VERIFY_ASK_END;
    ret->type = PROBE_BIND;
    memcpy(ret->of.bind.id, id, sizeof(id));
    ret->of.bind.sealed = buf_str(&session->sealed);
    *ret_deadline_ns = verify_deadline_ns(session, 0);
    return VERIFY_ASK_SEND;
}

static enum verify_check bind_check(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                                    int64_t took_ns)
{
    const struct probe_bound *bound = &answer->of.bound;
    (void)bytes;
    (void)took_ns;
    if (memcmp(bound->id, session->now.id, PROBE_ID_BYTES) != 0 ||
        !crypto_equal(bound->digest, session->bound, sizeof(session->bound)))
        return verify_fail(session, VERIFY_WRONG, "it did not open what was sealed to its proof");
    finish(session);
    return VERIFY_CHECK_NEXT;
}

/* -- RELEASE -- */

static enum verify_ask release_ask(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns)
{
    ret->type = PROBE_RELEASE;
    ret->of.warm.gpu = session->options.gpu;
    *ret_deadline_ns = verify_deadline_ns(session, 0);
    return VERIFY_ASK_SEND;
}

static enum verify_check release_check(struct verify_session *session, const struct probe_frame *answer,
                                       struct str bytes, int64_t took_ns)
{
    (void)session;
    (void)answer;
    (void)bytes;
    (void)took_ns;
    return VERIFY_CHECK_NEXT;
}

static const struct verify_step step_hello = {"hello", PROBE_HELLO, false, hello_ask, hello_check};
static const struct verify_step step_ping = {"ping", PROBE_PONG, false, ping_ask, ping_check};
static const struct verify_step step_prepare = {"chain", PROBE_ACK, false, prepare_ask, NULL};
static const struct verify_step step_warm = {"warm", PROBE_READY, false, warm_ask, warm_check};
static const struct verify_step step_net_down = {"net", PROBE_NET_ANSWER, false, net_down_ask, net_down_check};
static const struct verify_step step_fill = {"fill", PROBE_COMMIT, true, fill_ask, fill_check};
static const struct verify_step step_net_up = {"net", PROBE_PROOF, false, net_up_ask, net_up_check};
static const struct verify_step step_pass = {"pass", PROBE_COMMIT, true, pass_ask, pass_check};
static const struct verify_step step_pass_open = {"pass", PROBE_PROOF, false, pass_open_ask, pass_open_check};
static const struct verify_step step_walk = {"walk", PROBE_COMMIT, false, walk_ask, walk_check};
static const struct verify_step step_walk_open = {"walk", PROBE_PROOF, false, walk_open_ask, walk_open_check};
static const struct verify_step step_chain = {"chain", PROBE_COMMIT, true, chain_ask, chain_check};
static const struct verify_step step_chain_open = {"chain", PROBE_PROOF, false, chain_open_ask, chain_open_check};
static const struct verify_step step_bind = {"bind", PROBE_BOUND, false, bind_ask, bind_check};
static const struct verify_step step_release = {"release", PROBE_ACK, false, release_ask, release_check};

const struct verify_step *const verify_admission_steps[] = {
    &step_hello,     &step_ping, &step_prepare,   &step_warm,  &step_net_down,   &step_fill, &step_net_up,  &step_pass,
    &step_pass_open, &step_walk, &step_walk_open, &step_chain, &step_chain_open, &step_bind, &step_release, NULL};
const struct verify_step *const verify_spot_steps[] = {&step_hello,     &step_ping,       &step_prepare, &step_warm,
                                                       &step_chain,     &step_chain_open, &step_fill,    &step_pass,
                                                       &step_pass_open, &step_bind,       &step_release, NULL};
/* No WARM: a job is running on the device. */
const struct verify_step *const verify_lease_steps[] = {&step_hello,      &step_ping, &step_prepare, &step_chain,
                                                        &step_chain_open, &step_bind, &step_release, NULL};
