/* What adapters tell, brought into the words that all networks share. */
#include "adapters/network_priv.h"
#include "core/log.h"
#include "probes/gpu_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 128
#define TERMS_MAX ((size_t)256 << 10)
#define TEXT_MAX 255 /* of a region, a machine and so on */
#define LOG_MAX ((size_t)4 << 20)

#define GPUS_SEEN 256 /* a power of two */

struct batch {
    size_t count, room;
    struct buf terms;
    size_t terms_at[BATCH];
    struct network_offer offers[]; /* room */
};

/* Looking up a spelling takes about 10 us, and thousands of offers have the same few. */
struct gpu_seen {
    char raw[64], form[16];
    size_t raw_len, form_len;
    uint64_t vram_bytes;
    bool is_set, is_known;
    struct gpu_identity identity;
};

static bool gpu_find(struct network *network, const struct adapter_offer *offer, struct gpu_identity *ret)
{
    struct str raw = offer->gpu_raw, form = offer->gpu_form;
    if (!network->gpus)
        network->gpus = calloc(GPUS_SEEN, sizeof(*network->gpus));
    uint64_t hash = str_hash(raw, offer->vram_bytes ^ (form.len ? (uint64_t)form.ptr[0] << 56 : 0));
    struct gpu_seen *seen = network->gpus ? &network->gpus[hash & (GPUS_SEEN - 1)] : NULL;
    if (!seen || raw.len > sizeof(seen->raw) || form.len > sizeof(seen->form))
        return gpu_identify(raw, form, offer->vram_bytes, ret);
    if (!seen->is_set || !str_eq((struct str){seen->raw, seen->raw_len}, raw) ||
        !str_eq((struct str){seen->form, seen->form_len}, form) || seen->vram_bytes != offer->vram_bytes) {
        *seen = (struct gpu_seen){.raw_len = raw.len, .form_len = form.len, .vram_bytes = offer->vram_bytes};
        memcpy(seen->raw, raw.ptr, raw.len);
        if (form.len)
            memcpy(seen->form, form.ptr, form.len);
        seen->is_known = gpu_identify(raw, form, offer->vram_bytes, &seen->identity);
        seen->is_set = true;
    }
    *ret = seen->identity;
    return seen->is_known;
}

static struct str cut(struct str text, size_t most)
{
    return text.len <= most ? text : (struct str){NULL, 0};
}

/* The price of a network that tells none: price.<canonical GPU>, price.<its own name>, price.default, USD per
 * GPU-hour. */
static struct str imported_price(const struct network *network, const char *gpu, struct str raw)
{
    char key[160];
    const char *price = NULL;
    if (gpu[0] && snprintf(key, sizeof(key), "price.%s", gpu) < (int)sizeof(key))
        price = network_option(network, key);
    if (!price && raw.len < 120 && snprintf(key, sizeof(key), "price." STR_FMT, STR_ARG(raw)) > 0)
        price = network_option(network, key);
    return str_of(price ? price : network_option(network, "price.default"));
}

static bool offer_price(struct adapter_call *call, const struct adapter_offer *from, struct network_offer *to,
                        struct batch *batch)
{
    struct network *network = call->network;
    struct price_terms terms = from->terms;
    if (!from->is_priced) {
        terms = (struct price_terms){.currency = STR("USD"), .per = PRICE_PER_GPU_HOUR};
        terms.amount = imported_price(network, to->gpu, from->gpu_raw);
    }
    if (price_terms_usd(&terms, network->rates, clock_wall_ms(), &to->price_usd_nano) ||
        (from->is_priced && !to->price_usd_nano))
        return false;
    to->is_estimate = terms.is_estimate || network->adapter->traits & ADAPTER_ESTIMATED;
    json_t *json = price_terms_json(&terms);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    batch->terms_at[batch->count] = batch->terms.len;
    bool is_put = text && buf_append_str(&batch->terms, str_of(text));
    free(text);
    return is_put;
}

static void batch_hand_out(struct adapter_call *call, struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        size_t end = i + 1 < batch->count ? batch->terms_at[i + 1] : batch->terms.len;
        batch->offers[i].terms = (struct str){batch->terms.ptr + batch->terms_at[i], end - batch->terms_at[i]};
    }
    call->result.count += batch->count;
    if (batch->count && call->on_offers && call->asked == ADAPTER_OFFERS)
        call->on_offers(call->ctx, batch->offers, batch->count);
    batch->count = 0;
    buf_clear(&batch->terms);
}

static void offer_add(struct adapter_call *call, const struct adapter_offer *from, struct batch *batch)
{
    struct network_offer *to = &batch->offers[batch->count];
    struct gpu_identity gpu;
    if (!from->id.len || from->id.len >= SUPPLY_ID_MAX || !from->gpu_raw.len || from->gpu_raw.len > TEXT_MAX ||
        !from->gpus || from->gpus > PRICE_GPUS_MAX)
        return;
    if (!gpu_find(call->network, from, &gpu))
        call->result.unknown_gpus++;
    uint32_t named = gpu.is_slice ? gpu.fraction_ppm : GPU_WHOLE_PPM;
    *to = (struct network_offer){
        .id = from->id,
        .gpu_raw = from->gpu_raw,
        .region = cut(from->region, TEXT_MAX),
        .country = cut(from->country, 2),
        .zone = cut(from->zone.len ? from->zone : from->region, TEXT_MAX),
        .machine = cut(from->machine, TEXT_MAX),
        .origin = cut(from->origin, TEXT_MAX),
        .tags = cut(from->tags, TEXT_MAX),
        .is_slice = gpu.is_slice || (from->fraction_ppm && from->fraction_ppm < GPU_WHOLE_PPM),
        .interruptible = from->interruptible,
        .is_arm = from->is_arm || gpu.is_arm_host,
        .gpus = from->gpus,
        .fraction_ppm = from->fraction_ppm ? from->fraction_ppm : named,
        .available = from->available,
        .vram_bytes = from->vram_bytes ? from->vram_bytes : (uint64_t)(gpu.vram_gib * 1073741824.0),
        .reliability = from->reliability >= 0 && from->reliability <= 1 ? from->reliability : -1,
        .span_min_s = from->span_min_s > network_adapter(call->network)->span_min_s
                          ? from->span_min_s
                          : network_adapter(call->network)->span_min_s,
        .span_max_s = from->span_max_s > 0 ? from->span_max_s : 0,
    };
    memcpy(to->gpu, gpu.name, sizeof(to->gpu));
    if (offer_price(call, from, to, batch))
        batch->count++;
    else
        call->result.unpriced++;
}

void adapter_offers(struct adapter_call *call, const struct adapter_offer *offers, size_t count)
{
    if (call->is_over || !count)
        return;
    size_t room = count < BATCH ? count : BATCH;
    struct batch *batch = calloc(1, sizeof(*batch) + room * sizeof(batch->offers[0]));
    if (!batch) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("out of memory"));
        return;
    }
    batch->room = room;
    buf_init(&batch->terms, TERMS_MAX);
    for (size_t i = 0; i < count && !call->is_over && call->result.count + batch->count < NETWORK_OFFERS_MAX; i++) {
        offer_add(call, &offers[i], batch);
        if (batch->count == batch->room)
            batch_hand_out(call, batch);
    }
    batch_hand_out(call, batch);
    buf_free(&batch->terms);
    free(batch);
}

void adapter_instances(struct adapter_call *call, const struct supply_instance *instances, size_t count)
{
    struct str prefix = network_tag_prefix(call->network);
    for (size_t i = 0; i < count && !call->is_over; i++) {
        const struct supply_instance *one = &instances[i];
        if (!str_starts(one->tag, prefix) || !one->id.len || one->id.len >= SUPPLY_ID_MAX ||
            one->tag.len >= SUPPLY_TAG_MAX)
            continue;
        call->result.count++;
        if (call->on_instances && call->asked == ADAPTER_LIST)
            call->on_instances(call->ctx, one, 1);
    }
}

void adapter_logs(struct adapter_call *call, struct str bytes)
{
    if (call->is_over || !bytes.len)
        return;
    size_t room = LOG_MAX - call->result.count;
    bytes.len = bytes.len < room ? bytes.len : room;
    call->result.count += bytes.len;
    if (call->on_logs && bytes.len)
        call->on_logs(call->ctx, bytes);
}

enum error adapter_worth(const struct adapter_call *call, const struct price_terms *terms, int64_t *ret_usd_nano)
{
    return price_terms_usd(terms, call->network->rates, clock_wall_ms(), ret_usd_nano);
}

void adapter_rate(struct adapter_call *call, const char *currency, struct str usd)
{
    struct network *network = call->network;
    enum error error = rates_set(network->rates, str_of(currency), usd, network_id(network), clock_wall_ms());
    if (error && error != ERR_EXISTS)
        log_warn(&(struct log_ctx){.network = network->id}, "a rate of %s is not taken: %s", currency,
                 error_text(error));
}
