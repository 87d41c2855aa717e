/* GET /v1/models[/{id}]: what live workers serve. */
#include "core/clock.h"
#include "core/money.h"
#include "gateway/openai.h"
#include <jansson.h>
#include <stdlib.h>

#define REGIONS_MAX 32

/* The ready replicas that live now: how many, the cheapest price, where. NULL: none. */
static json_t *replicas_json(const struct reactor *reactor, uint32_t model)
{
    const struct market *market = reactor->snapshot->market;
    const uint32_t *rows;
    size_t count;
    int64_t replicas = 0, cheapest = INT64_MAX, now = loop_now(reactor->loop);
    struct str regions[REGIONS_MAX];
    size_t region_count = 0;
    rows = market_replicas(market, model, &count);
    for (size_t i = 0; i < count; i++) {
        if (!worker_is_live(market_worker(market, rows[i]), now))
            continue;
        replicas++;
        int64_t price = market_price(market, rows[i]);
        cheapest = price < cheapest ? price : cheapest;
        struct str region = market_region(market, rows[i]);
        bool is_known = !region.len || region_count == REGIONS_MAX;
        for (size_t j = 0; j < region_count && !is_known; j++)
            is_known = str_eq(regions[j], region);
        if (!is_known)
            regions[region_count++] = region;
    }
    if (!replicas)
        return NULL;
    char price[MONEY_TEXT_MAX];
    money_text(cheapest, price);
    json_t *list = json_array();
    for (size_t i = 0; i < region_count; i++)
        json_array_append_new(list, json_stringn(regions[i].ptr, regions[i].len));
    return json_pack("{s:I, s:s, s:o}", "replicas", (json_int_t)replicas, "price_per_gpu_hour_usd", price, "regions",
                     list);
}

static json_t *model_json(const struct reactor *reactor, struct str name)
{
    struct str target;
    uint32_t model = market_model(reactor->snapshot->market, name, &target);
    json_t *replicas = model == MARKET_NONE ? NULL : replicas_json(reactor, model);
    if (!replicas)
        return NULL;
    return json_pack("{s:s%, s:s, s:I, s:s, s:o}", "id", name.ptr, name.len, "object", "model", "created",
                     (json_int_t)(reactor->gateway->started_at_ms / 1000), "owned_by", "sluice", "x_sluice", replicas);
}

static void reply(struct front_call *call, json_t *take_json)
{
    struct answer answer;
    struct buf body;
    char *text = take_json ? json_dumps(take_json, JSON_COMPACT) : NULL;
    json_decref(take_json);
    buf_init(&body, 0);
    if (!text || !buf_append_str(&body, str_of(text))) {
        struct api_error error;
        free(text);
        buf_free(&body);
        api_error_unavailable(&error);
        front_error(call, &error, STR(""));
        return;
    }
    free(text);
    answer_init(&answer, call->request_id, front_has_origin(call));
    answer_add(&answer, "content-type", "application/json");
    metrics_request(call->reactor->metrics, 200, STR(""), STR(""));
    front_answer(call, 200, &answer, &body);
}

static json_t *list_json(const struct reactor *reactor, const struct api_key *key)
{
    const struct market *market = reactor->snapshot->market;
    const struct config_map *aliases = &reactor->gateway->settings->aliases;
    json_t *data = json_array();
    size_t models = market_model_count(market);
    for (size_t i = 0; i < models + aliases->count; i++) {
        struct str name = i < models ? market_model_name(market, (uint32_t)i) : str_of(aliases->pairs[i - models].key);
        json_t *entry = api_key_allows_model(key, name) ? model_json(reactor, name) : NULL;
        if (entry)
            json_array_append_new(data, entry);
    }
    return json_pack("{s:s, s:o}", "object", "list", "data", data);
}

/* The id behind /v1/models/, percent-decoded after the path was taken apart ("org%2Fmodel:tag"). */
static bool decode_id(struct str raw, char *ret, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; i < raw.len; i++) {
        uint8_t byte = (uint8_t)raw.ptr[i];
        if (raw.ptr[i] == '%' && (raw.len - i < 3 || !crypto_unhex((struct str){raw.ptr + i + 1, 2}, &byte, 1)))
            return false;
        if (raw.ptr[i] == '%')
            i += 2;
        if (byte == 0 || len + 1 >= size)
            return false;
        ret[len++] = (char)byte;
    }
    ret[len] = '\0';
    return true;
}

void openai_models(struct front_call *call)
{
    static const size_t prefix = sizeof("/v1/models") - 1;
    struct reactor *reactor = call->reactor;
    struct api_error error;
    struct str token = front_bearer(call->http), path = call->http->path;
    if (front_is_starting(reactor, &error)) {
        front_error(call, &error, STR(""));
        return;
    }
    const struct api_key *key = token.ptr ? keyring_find(reactor->snapshot->keyring, token) : NULL;
    if (!key || (key->expires_at_ms && key->expires_at_ms <= clock_wall_ms())) {
        api_error_unauthorized(&error);
        front_error(call, &error, STR(""));
        return;
    }
    if (path.len == prefix) {
        reply(call, list_json(reactor, key));
        return;
    }
    char id[260];
    json_t *entry = NULL;
    if (decode_id((struct str){path.ptr + prefix + 1, path.len - prefix - 1}, id, sizeof(id)) &&
        api_key_allows_model(key, str_of(id)))
        entry = model_json(reactor, str_of(id));
    if (entry) {
        reply(call, entry);
        return;
    }
    api_error_set(&error, 404, "invalid_request_error", "model_not_found", "model",
                  "The model does not exist or no worker serves it now.");
    front_error(call, &error, STR(""));
}
