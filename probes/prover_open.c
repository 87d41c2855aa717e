/* Openings of what was committed to. */
#include "probes/hash.h"
#include "probes/prover_priv.h"

#include <string.h>

#define ITEM_HEAD 24 /* bytes of an opened item in a frame before its data; protocol.c */
#define PROOF_HEAD (PROBE_FRAME_HEAD + PROBE_ID_BYTES + 8)

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
            prover_fail(reply, PROBE_FAILURE_UNKNOWN, STR("no such opening"));
            return false;
        }
        total += ITEM_HEAD + held->item_bytes + path_bytes(kind, opening->index, held->items);
    }
    if (total > PROBE_FRAME_MAX)
        prover_fail(reply, PROBE_FAILURE_BAD_FRAME, STR("the proof would not fit into a frame"));
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
void prover_open_items(struct prover *prover, const struct probe_open *open, struct reply *reply)
{
    unsigned index;
    enum probe_kind kind;
    if (!prover_holds(prover, open->id, &index, &kind)) {
        prover_fail(reply, PROBE_FAILURE_UNKNOWN, STR("no such challenge is open"));
        return;
    }
    struct device *device = device_take(prover, index, reply);
    if (!device)
        return;
    struct held held = device->held[kind];
    if (!held.is_open || memcmp(held.id, open->id, sizeof(held.id)) != 0) {
        prover_fail(reply, PROBE_FAILURE_UNKNOWN, STR("no such challenge is open"));
    } else if (openings_fit(&held, kind, open, reply)) {
        if (kind != PROBE_KIND_FILL)
            device_forget(prover, device, kind);
        reply->frame.type = PROBE_PROOF;
        reply->frame.of.proof.count = open->count;
        memcpy(reply->frame.of.proof.id, open->id, PROBE_ID_BYTES);
        enum error error = open_all(prover, device, kind, &held, open, reply);
        if (error != ERR_NONE)
            device_failed(prover, device, error, reply);
    }
    device_give(prover, device, false);
}
