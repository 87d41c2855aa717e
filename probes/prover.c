/* What each frame asks, and how it is answered. */
#include "probes/prover_priv.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "probes/hash.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* -- challenges -- */

static enum error do_fill(struct prover *prover, struct device *device, const struct probe_challenge *challenge,
                          struct probe_commit *commit, struct held *held)
{
    const struct probe_fill *fill = &challenge->of.fill;
    device_forget_all(prover, device);
    enum error error = prover->ops->fill(device->backend, fill);
    if (error != ERR_NONE)
        return error;
    device->tiles = commit->items = held->items = fill->tiles;
    held->item_bytes = PROBE_TILE_BYTES;
    return ERR_NONE;
}

static enum error do_pass(struct prover *prover, struct device *device, const struct probe_challenge *challenge,
                          struct probe_commit *commit, struct held *held)
{
    struct probe_pass pass = challenge->of.pass;
    uint32_t roots[PROBE_PASSES_MAX][8] = {0};
    if (device->tiles == 0)
        return ERR_NOT_FOUND;
    probe_words_of_bytes(challenge->id, 4, pass.challenge);
    memcpy(pass.worker_key, prover->worker_words, sizeof(pass.worker_key));
    enum error error = prover->ops->pass(device->backend, &pass, roots);
    if (error != ERR_NONE)
        return error;
    commit->root_count = held->parts = pass.passes;
    for (uint32_t i = 0; i < pass.passes; i++)
        probe_bytes_of_words(roots[i], 8, commit->roots[i]);
    held->items = device->tiles;
    return ERR_NONE;
}

static enum error do_walk(struct prover *prover, struct device *device, const struct probe_challenge *challenge,
                          struct probe_commit *commit, struct held *held)
{
    struct probe_walk walk = challenge->of.walk;
    uint32_t root[8] = {0};
    if (device->tiles == 0)
        return ERR_NOT_FOUND;
    probe_words_of_bytes(challenge->id, 4, walk.challenge);
    memcpy(walk.worker_key, prover->worker_words, sizeof(walk.worker_key));
    enum error error = prover->ops->walk(device->backend, &walk, root);
    if (error != ERR_NONE)
        return error;
    commit->root_count = 1;
    probe_bytes_of_words(root, 8, commit->roots[0]);
    held->items = walk.walkers;
    held->parts = walk.steps;
    held->item_bytes = ((size_t)walk.steps + 1) * 8;
    return ERR_NONE;
}

static void keep_root(struct prover *prover, struct device *device, const uint8_t *bytes)
{
    pthread_mutex_lock(&prover->lock);
    struct root *place = &device->roots[0];
    for (unsigned i = 0; i < ROOTS; i++) {
        struct root *root = &device->roots[i];
        bool is_own = root->order > 0 && root->asker == device->owner;
        if (is_own || root->order < place->order)
            place = root;
        if (is_own)
            break;
    }
    place->asker = device->owner;
    place->order = ++prover->chains;
    memcpy(place->bytes, bytes, sizeof(place->bytes));
    pthread_mutex_unlock(&prover->lock);
}

static enum error do_chain(struct prover *prover, struct device *device, const struct probe_challenge *challenge,
                           struct probe_commit *commit, struct held *held)
{
    struct probe_chain chain = challenge->of.chain;
    uint32_t root[8] = {0};
    probe_words_of_bytes(challenge->id, 4, chain.challenge);
    memcpy(chain.worker_key, prover->worker_words, sizeof(chain.worker_key));
    enum error error = prover->ops->chain(device->backend, &chain, root, &commit->route);
    if (error != ERR_NONE)
        return error;
    commit->root_count = 1;
    probe_bytes_of_words(root, 8, commit->roots[0]);
    held->items = chain.n;
    held->item_bytes = (size_t)chain.n * chain.blocks;
    keep_root(prover, device, commit->roots[0]);
    return ERR_NONE;
}

static uint32_t time_between(int64_t from_ns, int64_t unit_ns)
{
    int64_t took = (clock_mono_ns() - from_ns) / unit_ns;
    return took < 0 ? 0 : took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

static void on_challenge(struct prover *prover, const struct probe_challenge *challenge, struct reply *reply)
{
    static enum error (*const doers[KINDS])(struct prover *, struct device *, const struct probe_challenge *,
                                            struct probe_commit *, struct held *) = {
        [PROBE_KIND_FILL] = do_fill,
        [PROBE_KIND_PASS] = do_pass,
        [PROBE_KIND_WALK] = do_walk,
        [PROBE_KIND_CHAIN] = do_chain,
    };
    unsigned other;
    enum probe_kind other_kind;
    if (prover_holds(prover, challenge->id, &other, &other_kind)) {
        prover_fail(reply, PROBE_FAILURE_BAD_FRAME, STR("a challenge has this id already"));
        return;
    }
    struct device *device = device_take(prover, challenge->gpu, reply);
    if (!device)
        return;
    struct held held = {.is_open = true, .parts = 1};
    struct probe_commit *commit = &reply->frame.of.commit;
    memcpy(held.id, challenge->id, sizeof(held.id));
    memcpy(commit->id, challenge->id, sizeof(commit->id));
    reply->frame.type = PROBE_COMMIT;
    commit->kind = challenge->kind;
    device_forget(prover, device, challenge->kind);
    int64_t start_ns = clock_mono_ns();
    enum error error = doers[challenge->kind](prover, device, challenge, commit, &held);
    if (error == ERR_NONE) {
        commit->self_us = time_between(start_ns, NS_PER_US);
        commit->clock_mhz = prover->ops->clock_mhz(device->backend);
        pthread_mutex_lock(&prover->lock);
        device->held[challenge->kind] = held;
        pthread_mutex_unlock(&prover->lock);
    } else {
        device_failed(prover, device, error, reply);
    }
    device_give(prover, device, false);
}

/* -- the other frames -- */

unsigned prover_claims(struct prover *prover, struct probe_claim ret[static PROBE_DEVICES_MAX])
{
    for (unsigned i = 0; i < prover->device_count; i++) {
        struct device *device = &prover->devices[i];
        if (pthread_mutex_trylock(&device->lock) == 0) { /* at work: its last claim stands */
            if (device->backend)
                device_look(prover, device);
            pthread_mutex_unlock(&device->lock);
        }
    }
    pthread_mutex_lock(&prover->lock);
    for (unsigned i = 0; i < prover->device_count; i++)
        ret[i] = prover->devices[i].claim;
    pthread_mutex_unlock(&prover->lock);
    return prover->device_count;
}

static void on_hello(struct prover *prover, const struct probe_hello_ask *ask, struct reply *reply)
{
    struct probe_hello *hello = &reply->frame.of.hello;
    reply->frame.type = PROBE_HELLO;
    memcpy(hello->nonce, ask->nonce, sizeof(hello->nonce));
    memcpy(hello->worker_key, prover->worker_key, sizeof(hello->worker_key));
    exchange_key_public(prover->exchange, hello->exchange_key);
    memcpy(hello->host_id, prover->host_id, sizeof(hello->host_id));
    hello->gpu_count = prover_claims(prover, hello->gpus);
}

static void on_warm(struct prover *prover, const struct probe_warm *warm, struct reply *reply)
{
    struct device *device = device_take(prover, warm->gpu, reply);
    if (!device)
        return;
    int64_t start_ns = clock_mono_ns();
    reply->frame.type = PROBE_READY;
    reply->frame.of.warm.gpu = warm->gpu;
    enum error error = prover->ops->warm(device->backend);
    reply->frame.of.warm.self_ms = time_between(start_ns, NS_PER_MS);
    if (error != ERR_NONE)
        device_failed(prover, device, error, reply);
    device_give(prover, device, false);
}

static void on_release(struct prover *prover, const struct probe_warm *release, struct reply *reply)
{
    struct device *device = device_take(prover, release->gpu, reply);
    if (!device)
        return;
    prover->ops->release(device->backend);
    device_forget_all(prover, device);
    reply->frame.type = PROBE_ACK;
    device_give(prover, device, true);
}

static void on_net(const struct probe_net *net, struct reply *reply)
{
    struct probe_net_answer *answer = &reply->frame.of.net_answer;
    struct probe_hash hash;
    uint32_t digest[8];
    probe_hash_init(&hash, PROBE_HASH_NET);
    probe_hash_update(&hash, net->payload.ptr, net->payload.len);
    probe_hash_final(&hash, digest);
    reply->frame.type = PROBE_NET_ANSWER;
    memcpy(answer->id, net->id, sizeof(answer->id));
    probe_bytes_of_words(digest, 8, answer->digest);
}

/* asker NULL: with any root of the device's. */
static enum error unseal_as(struct prover *prover, unsigned gpu, const uint32_t *asker, struct str context,
                            struct str sealed, struct buf *to)
{
    struct root roots[ROOTS];
    enum error error = ERR_NOT_FOUND;
    if (gpu >= prover->device_count)
        return ERR_NOT_FOUND;
    pthread_mutex_lock(&prover->lock);
    memcpy(roots, prover->devices[gpu].roots, sizeof(roots));
    pthread_mutex_unlock(&prover->lock);
    for (unsigned i = 0; i < ROOTS && error != ERR_NONE; i++)
        if (roots[i].order > 0 && (!asker || roots[i].asker == *asker))
            error = seal_open(prover->exchange, roots[i].bytes, context, sealed, to);
    return error;
}

enum error prover_unseal(struct prover *prover, unsigned gpu, struct str context, struct str sealed, struct buf *to)
{
    return unseal_as(prover, gpu, NULL, context, sealed, to);
}

/* The frame names no device: the root that opens it does. */
static void on_bind(struct prover *prover, const struct probe_bind *bind, struct reply *reply)
{
    struct str context = {(const char *)bind->id, sizeof(bind->id)};
    struct buf text;
    enum error error = ERR_NOT_FOUND;
    buf_init(&text, PROBE_SEALED_MAX);
    for (unsigned i = 0; i < prover->device_count && error != ERR_NONE; i++)
        error = unseal_as(prover, i, &reply->asker, context, bind->sealed, &text);
    if (error == ERR_NONE) {
        reply->frame.type = PROBE_BOUND;
        memcpy(reply->frame.of.bound.id, bind->id, sizeof(bind->id));
        crypto_sha256(buf_str(&text), reply->frame.of.bound.digest);
    } else {
        prover_fail(reply, PROBE_FAILURE_UNKNOWN, STR("not sealed to the last proof of a device here"));
    }
    if (text.ptr)
        crypto_wipe(text.ptr, text.cap);
    buf_free(&text);
}

static void reply_to(struct prover *prover, const struct probe_frame *ask, struct reply *reply)
{
    switch (ask->type) {
    case PROBE_HELLO_ASK:
        on_hello(prover, &ask->of.hello_ask, reply);
        return;
    case PROBE_PING:
        reply->frame.type = PROBE_PONG;
        reply->frame.of.ping = ask->of.ping;
        return;
    case PROBE_WARM:
        on_warm(prover, &ask->of.warm, reply);
        return;
    case PROBE_CHALLENGE:
        on_challenge(prover, &ask->of.challenge, reply);
        return;
    case PROBE_OPEN:
        prover_open_items(prover, &ask->of.open, reply);
        return;
    case PROBE_NET:
        on_net(&ask->of.net, reply);
        return;
    case PROBE_BIND:
        on_bind(prover, &ask->of.bind, reply);
        return;
    case PROBE_VERDICT:
        reply->frame.type = PROBE_ACK;
        return;
    case PROBE_RELEASE:
        on_release(prover, &ask->of.warm, reply);
        return;
    case PROBE_HELLO:
    case PROBE_PONG:
    case PROBE_READY:
    case PROBE_COMMIT:
    case PROBE_PROOF:
    case PROBE_NET_ANSWER:
    case PROBE_BOUND:
    case PROBE_ACK:
    case PROBE_ERROR:
        break;
    }
    prover_fail(reply, PROBE_FAILURE_BAD_FRAME, STR("that is an answer, not a question"));
}

/* Puts the signature into the frame that starts at `start` of answer. */
static enum error sign(const struct prover *prover, struct buf *answer, size_t start)
{
    struct str frame = {answer->ptr + start, answer->len - start};
    uint8_t signature[ED25519_SIGNATURE];
    enum error error = signing_key_sign(prover->key, probe_signed_part(frame), signature);
    if (error == ERR_NONE)
        memcpy(answer->ptr + answer->len - sizeof(signature), signature, sizeof(signature));
    return error;
}

enum error prover_answer_to(struct prover *prover, uint32_t asker, struct str frame, struct buf *answer)
{
    struct probe_frame ask;
    struct reply reply;
    size_t start = answer->len;
    memset(&reply, 0, sizeof(reply));
    reply.asker = asker;
    buf_init(&reply.data, PROBE_FRAME_MAX);
    if (probe_frame_decode(frame, &ask) == ERR_NONE)
        reply_to(prover, &ask, &reply);
    else
        prover_fail(&reply, PROBE_FAILURE_BAD_FRAME, STR("not a frame of this protocol"));
    enum error error = probe_frame_encode(&reply.frame, answer) ? ERR_NONE : ERR_NO_MEMORY;
    if (error == ERR_NONE && (reply.frame.type == PROBE_HELLO || reply.frame.type == PROBE_COMMIT))
        error = sign(prover, answer, start);
    if (error != ERR_NONE)
        answer->len = start;
    buf_free(&reply.data);
    return error;
}

enum error prover_answer(struct prover *prover, struct str frame, struct buf *answer)
{
    return prover_answer_to(prover, 0, frame, answer);
}

/* -- life -- */

enum error prover_open(const struct prover_options *options, struct prover **ret)
{
    assert(options->devices >= 1 && options->devices <= PROBE_DEVICES_MAX);
    struct prover *prover = calloc(1, sizeof(*prover));
    if (!prover)
        return ERR_NO_MEMORY;
    prover->ops = options->backend;
    prover->key = options->key;
    prover->device_count = options->devices;
    memcpy(prover->host_id, options->host_id, sizeof(prover->host_id));
    signing_key_public(options->key, prover->worker_key);
    probe_words_of_bytes(prover->worker_key, PROBE_KEY_BYTES / 4, prover->worker_words);
    pthread_mutex_init(&prover->lock, NULL);
    unsigned ready = 0;
    enum error error = ERR_NONE;
    for (unsigned i = 0; i < prover->device_count; i++) {
        struct device *device = &prover->devices[i];
        pthread_mutex_init(&device->lock, NULL);
        enum error failed = prover->ops->open(i, &device->backend);
        if (failed == ERR_NONE) {
            device_look(prover, device);
            ready++;
        } else {
            error = failed;
        }
    }
    if (ready > 0) /* the others say that they failed when they are asked */
        error = exchange_key_new(&prover->exchange);
    if (error != ERR_NONE) {
        prover_free(prover);
        return error;
    }
    *ret = prover;
    return ERR_NONE;
}

struct prover *prover_free(struct prover *prover)
{
    if (!prover)
        return NULL;
    for (unsigned i = 0; i < prover->device_count; i++) {
        prover->ops->close(prover->devices[i].backend);
        pthread_mutex_destroy(&prover->devices[i].lock);
    }
    pthread_mutex_destroy(&prover->lock);
    exchange_key_free(prover->exchange);
    crypto_wipe(prover, sizeof(*prover));
    free(prover);
    return NULL;
}
