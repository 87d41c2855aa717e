/* Per device: a lock for the backend, and what it holds that may still be opened. A thread that changes a device's
 * state holds the device's lock and the prover's; either suffices to look. The prover's lock is held for moments only,
 * the device's for as long as a challenge takes, so nothing but that device's work ever waits for a device. */
#include "probes/prover.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "probes/hash.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KINDS (PROBE_KIND_CHAIN + 1)
#define ROOTS 8                    /* of a device; the oldest makes room */
#define SESSION_NS (30 * NS_PER_S) /* without a question of its owner's, a device is anybody's again */
#define ITEM_HEAD 24               /* bytes of an opened item in a frame before its data; protocol.c */
#define PROOF_HEAD (PROBE_FRAME_HEAD + PROBE_ID_BYTES + 8)

struct held { /* a challenge that was answered and not opened yet */
    bool is_open;
    uint8_t id[PROBE_ID_BYTES];
    uint64_t items;    /* PASS and FILL: tiles; WALK: walkers; CHAIN: rows */
    uint32_t parts;    /* PASS: passes; WALK: steps; else 1 */
    size_t item_bytes; /* of the data of an item */
};

struct root { /* of the last CHAIN for an asker */
    uint32_t asker;
    uint64_t order; /* 0: none; else the higher the later */
    uint8_t bytes[PROBE_HASH_BYTES];
};

struct device {
    pthread_mutex_t lock;
    uint32_t owner; /* the asker whose session it is in, until owned_until_ns or its RELEASE */
    int64_t owned_until_ns;
    bool is_at_work; /* somebody has it or waits for a claim to be made; whoever looks for claims only does not count */
    struct probe_backend *backend; /* NULL: it failed; opened again when it is asked for */
    struct held held[KINDS];       /* by kind */
    uint64_t tiles;                /* that were filled; 0: none */
    struct probe_claim claim;      /* the last one seen */
    struct root roots[ROOTS];
};

struct prover {
    const struct probe_backend_ops *ops;
    const struct signing_key *key;
    struct exchange_key *exchange;
    uint8_t worker_key[PROBE_KEY_BYTES], host_id[32];
    uint32_t worker_words[PROBE_KEY_BYTES / 4];
    pthread_mutex_t lock;
    uint64_t chains; /* so far */
    unsigned device_count;
    struct device devices[PROBE_DEVICES_MAX];
};

/* What an answer is made of. */
struct reply {
    uint32_t asker;
    struct probe_frame frame;
    struct buf data; /* what a PROOF's items view */
};

static void fail_with(struct reply *reply, enum probe_failure code, struct str text)
{
    memset(&reply->frame, 0, sizeof(reply->frame));
    reply->frame.type = PROBE_ERROR;
    reply->frame.of.error = (struct probe_error_frame){code, text};
}

/* -- devices -- */

static void text_make_printable(char *text, size_t size)
{
    size_t len = strnlen(text, size - 1);
    for (size_t i = 0; i < len; i++)
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    memset(text + len, 0, size - len);
}

static void look_at_claim(struct prover *prover, struct device *device)
{
    struct probe_claim claim;
    memset(&claim, 0, sizeof(claim));
    prover->ops->claim(device->backend, &claim);
    text_make_printable(claim.name, sizeof(claim.name));
    text_make_printable(claim.driver, sizeof(claim.driver));
    pthread_mutex_lock(&prover->lock);
    device->claim = claim;
    pthread_mutex_unlock(&prover->lock);
}

static void forget(struct prover *prover, struct device *device, enum probe_kind kind)
{
    pthread_mutex_lock(&prover->lock);
    device->held[kind].is_open = false;
    pthread_mutex_unlock(&prover->lock);
}

static void forget_all(struct prover *prover, struct device *device)
{
    for (unsigned kind = PROBE_KIND_FILL; kind < KINDS; kind++)
        forget(prover, device, (enum probe_kind)kind);
    device->tiles = 0;
}

static void device_give(struct prover *prover, struct device *device, bool is_released)
{
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_lock(&prover->lock);
    device->is_at_work = false;
    device->owned_until_ns = is_released ? 0 : clock_mono_ns() + SESSION_NS;
    pthread_mutex_unlock(&prover->lock);
}

/* Takes the device for the calling thread; on NULL the reply says why not. */
static struct device *device_take(struct prover *prover, uint32_t index, struct reply *reply)
{
    if (index >= prover->device_count) {
        fail_with(reply, PROBE_FAILURE_UNKNOWN, STR("no such device"));
        return NULL;
    }
    struct device *device = &prover->devices[index];
    pthread_mutex_lock(&prover->lock);
    bool is_anothers = device->owner != reply->asker && clock_mono_ns() < device->owned_until_ns;
    bool is_free = !device->is_at_work && !is_anothers;
    if (is_free) {
        device->is_at_work = true;
        device->owner = reply->asker;
    }
    pthread_mutex_unlock(&prover->lock);
    if (!is_free) {
        fail_with(reply, PROBE_FAILURE_BUSY, STR("the device is at work"));
        return NULL;
    }
    pthread_mutex_lock(&device->lock);
    if (!device->backend && prover->ops->open(index, &device->backend) != ERR_NONE) {
        device->backend = NULL;
        device_give(prover, device, true);
        fail_with(reply, PROBE_FAILURE_DEVICE, STR("the device cannot be opened"));
        return NULL;
    }
    return device;
}

/* Says what went wrong on the device. One that failed is closed, and so forgets what it held. */
static void fail_of_device(struct prover *prover, struct device *device, enum error error, struct reply *reply)
{
    if (error == ERR_NO_MEMORY || error == ERR_TOO_LARGE) {
        fail_with(reply, PROBE_FAILURE_NO_MEMORY, STR("it does not fit into memory now"));
    } else if (error == ERR_NOT_FOUND || error == ERR_BAD_INPUT) {
        fail_with(reply, PROBE_FAILURE_UNKNOWN, STR("the device holds no such thing"));
    } else {
        fail_with(reply, PROBE_FAILURE_DEVICE, STR("the device failed"));
        device->backend = prover->ops->close(device->backend);
        forget_all(prover, device);
    }
}

/* -- challenges -- */

static bool id_is_held(struct prover *prover, const uint8_t *id, unsigned *ret_device, enum probe_kind *ret_kind)
{
    bool is_held = false;
    pthread_mutex_lock(&prover->lock);
    for (unsigned i = 0; i < prover->device_count && !is_held; i++)
        for (unsigned kind = PROBE_KIND_FILL; kind < KINDS && !is_held; kind++) {
            const struct held *held = &prover->devices[i].held[kind];
            if (!held->is_open || memcmp(held->id, id, PROBE_ID_BYTES) != 0)
                continue;
            is_held = true;
            *ret_device = i;
            *ret_kind = (enum probe_kind)kind;
        }
    pthread_mutex_unlock(&prover->lock);
    return is_held;
}

static enum error do_fill(struct prover *prover, struct device *device, const struct probe_challenge *challenge,
                          struct probe_commit *commit, struct held *held)
{
    const struct probe_fill *fill = &challenge->of.fill;
    forget_all(prover, device);
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
    if (id_is_held(prover, challenge->id, &other, &other_kind)) {
        fail_with(reply, PROBE_FAILURE_BAD_FRAME, STR("a challenge has this id already"));
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
    forget(prover, device, challenge->kind);
    int64_t start_ns = clock_mono_ns();
    enum error error = doers[challenge->kind](prover, device, challenge, commit, &held);
    if (error == ERR_NONE) {
        commit->self_us = time_between(start_ns, NS_PER_US);
        commit->clock_mhz = prover->ops->clock_mhz(device->backend);
        pthread_mutex_lock(&prover->lock);
        device->held[challenge->kind] = held;
        pthread_mutex_unlock(&prover->lock);
    } else {
        fail_of_device(prover, device, error, reply);
    }
    device_give(prover, device, false);
}

/* -- openings -- */

static size_t path_bytes(enum probe_kind kind, uint64_t index, uint64_t items)
{
    return kind == PROBE_KIND_FILL ? 0 : (size_t)merkle_path_length(index, items) * PROBE_HASH_BYTES;
}

/* Whether there is all of this, and it fits into a frame. */
static bool openings_fit(const struct held *held, enum probe_kind kind, const struct probe_open *open,
                         struct reply *reply)
{
    size_t total = PROOF_HEAD;
    for (uint32_t i = 0; i < open->count; i++) {
        const struct probe_opening *opening = &open->openings[i];
        if (opening->index >= held->items || opening->part >= held->parts) {
            fail_with(reply, PROBE_FAILURE_UNKNOWN, STR("no such opening"));
            return false;
        }
        total += ITEM_HEAD + held->item_bytes + path_bytes(kind, opening->index, held->items);
    }
    if (total > PROBE_FRAME_MAX)
        fail_with(reply, PROBE_FAILURE_BAD_FRAME, STR("the proof would not fit into a frame"));
    return total <= PROBE_FRAME_MAX;
}

static enum error open_one(const struct probe_backend_ops *ops, struct probe_backend *backend, enum probe_kind kind,
                           const struct probe_opening *opening, struct buf *data, struct buf *path)
{
    switch (kind) {
    case PROBE_KIND_FILL:
        return ops->tile_read(backend, opening->index, data);
    case PROBE_KIND_PASS:
        return ops->pass_open(backend, opening->part, opening->index, path);
    case PROBE_KIND_WALK:
        return ops->walk_open(backend, (uint32_t)opening->index, data, path);
    case PROBE_KIND_CHAIN:
        return ops->chain_open(backend, (uint32_t)opening->index, data, path);
    }
    return ERR_NOT_FOUND;
}

/* Appends data and path of every opening to reply->data, which was reserved: views into it stay. */
static enum error open_all(struct prover *prover, struct device *device, enum probe_kind kind, const struct held *held,
                           const struct probe_open *open, struct reply *reply)
{
    struct probe_proof *proof = &reply->frame.of.proof;
    struct buf path, *data = &reply->data;
    enum error error = ERR_NO_MEMORY;
    buf_init(&path, PROBE_FRAME_MAX);
    if (!buf_reserve(data, PROBE_FRAME_MAX))
        goto out;
    for (uint32_t i = 0; i < open->count; i++) {
        const struct probe_opening *opening = &open->openings[i];
        size_t start = data->len;
        buf_clear(&path);
        error = open_one(prover->ops, device->backend, kind, opening, data, &path);
        if (error != ERR_NONE)
            goto out;
        size_t middle = data->len;
        error = ERR_SYSTEM; /* what is not as long as it must be came from a broken device */
        if (middle - start != held->item_bytes || path.len != path_bytes(kind, opening->index, held->items) ||
            !buf_append_str(data, buf_str(&path)))
            goto out;
        proof->items[i] = (struct probe_item){.opening = *opening,
                                              .data = {data->ptr + start, middle - start},
                                              .path = {data->ptr + middle, data->len - middle}};
        error = ERR_NONE;
    }
out:
    buf_free(&path);
    return error;
}

/* All but FILL are opened once: openings are drawn after the commitment, and a second draw would be a second chance. */
static void on_open(struct prover *prover, const struct probe_open *open, struct reply *reply)
{
    unsigned index;
    enum probe_kind kind;
    if (!id_is_held(prover, open->id, &index, &kind)) {
        fail_with(reply, PROBE_FAILURE_UNKNOWN, STR("no such challenge is open"));
        return;
    }
    struct device *device = device_take(prover, index, reply);
    if (!device)
        return;
    struct held held = device->held[kind];
    if (!held.is_open || memcmp(held.id, open->id, sizeof(held.id)) != 0) {
        fail_with(reply, PROBE_FAILURE_UNKNOWN, STR("no such challenge is open"));
    } else if (openings_fit(&held, kind, open, reply)) {
        if (kind != PROBE_KIND_FILL)
            forget(prover, device, kind);
        reply->frame.type = PROBE_PROOF;
        reply->frame.of.proof.count = open->count;
        memcpy(reply->frame.of.proof.id, open->id, PROBE_ID_BYTES);
        enum error error = open_all(prover, device, kind, &held, open, reply);
        if (error != ERR_NONE)
            fail_of_device(prover, device, error, reply);
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
                look_at_claim(prover, device);
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
        fail_of_device(prover, device, error, reply);
    device_give(prover, device, false);
}

static void on_release(struct prover *prover, const struct probe_warm *release, struct reply *reply)
{
    struct device *device = device_take(prover, release->gpu, reply);
    if (!device)
        return;
    prover->ops->release(device->backend);
    forget_all(prover, device);
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
        fail_with(reply, PROBE_FAILURE_UNKNOWN, STR("not sealed to the last proof of a device here"));
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
        on_open(prover, &ask->of.open, reply);
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
    fail_with(reply, PROBE_FAILURE_BAD_FRAME, STR("that is an answer, not a question"));
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
        fail_with(&reply, PROBE_FAILURE_BAD_FRAME, STR("not a frame of this protocol"));
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
            look_at_claim(prover, device);
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
