#include "adapters/shorthand.h"
#include <string.h>

bool adapter_is_good(const struct adapter_answer *answer)
{
    return answer->status >= 200 && answer->status < 300;
}

void adapter_done_if_good(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (adapter_is_good(answer))
        adapter_done(call, NULL);
    else
        adapter_fail_answer(call, answer);
}

void adapter_fail_odd(struct adapter_call *call, const struct adapter_answer *answer, struct str why)
{
    if (adapter_is_good(answer))
        adapter_fail(call, SUPPLY_TRANSIENT, why);
    else
        adapter_fail_answer(call, answer);
}

static void send_plain(struct adapter_call *call, const char *method, struct str path, adapter_answer_fn *on_answer)
{
    struct adapter_request request = {.method = method, .path = path, .takes_errors = true, .on_answer = on_answer};
    if (path.ptr)
        adapter_send(call, &request);
}

void adapter_get(struct adapter_call *call, struct str path, adapter_answer_fn *on_answer)
{
    send_plain(call, "GET", path, on_answer);
}

void adapter_delete(struct adapter_call *call, struct str path, adapter_answer_fn *on_answer)
{
    send_plain(call, "DELETE", path, on_answer);
}

static void send_body(struct adapter_call *call, const char *method, struct str path, json_t *take_body, bool creates,
                      adapter_answer_fn *on_answer)
{
    struct adapter_request request = {.method = method,
                                      .path = path,
                                      .take_json = take_body,
                                      .creates = creates,
                                      .takes_errors = true,
                                      .on_answer = on_answer};
    if (take_body && path.ptr) {
        adapter_send(call, &request);
        return;
    }
    json_decref(take_body);
    if (path.ptr)
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("the order holds text that is not UTF-8"));
}

void adapter_post(struct adapter_call *call, struct str path, json_t *take_body, bool creates,
                  adapter_answer_fn *on_answer)
{
    send_body(call, "POST", path, take_body, creates, on_answer);
}

void adapter_patch(struct adapter_call *call, struct str path, json_t *take_body, adapter_answer_fn *on_answer)
{
    send_body(call, "PATCH", path, take_body, false, on_answer);
}

void offer_batch_end(struct offer_batch *batch)
{
    adapter_offers(batch->call, batch->rows, batch->count);
    batch->count = 0;
}

void offer_batch_put(struct offer_batch *batch, const struct adapter_offer *offer)
{
    batch->rows[batch->count++] = *offer;
    if (batch->count == sizeof batch->rows / sizeof *batch->rows)
        offer_batch_end(batch);
}

json_t *json_of_text(struct str text)
{
    return json_stringn(text.ptr ? text.ptr : "", text.len);
}

/* The list as it is, or none where the last step failed. */
static json_t *whole(json_t *json, bool is_whole)
{
    if (is_whole)
        return json;
    json_decref(json);
    return NULL;
}

json_t *json_of_argv(const struct supply_order *order, size_t from)
{
    json_t *list = json_array();
    bool is_whole = list;
    for (size_t i = from; i < order->argc && is_whole; i++)
        is_whole = json_array_append_new(list, json_of_text(order->argv[i])) == 0;
    return whole(list, is_whole);
}

json_t *json_with_command(json_t *take_object, const struct supply_order *order, const char *rest)
{
    if (!take_object || !order->argc)
        return take_object;
    json_t *command =
        json_pack("{s:[o],s:o}", "entrypoint", json_of_text(order->argv[0]), rest, json_of_argv(order, 1));
    return whole(take_object, command && json_object_update_new(take_object, command) == 0);
}

json_t *json_of_env(const struct supply_order *order)
{
    json_t *env = json_object();
    bool is_whole = env;
    for (size_t i = 0; i < order->env_count && is_whole; i++)
        is_whole = json_object_setn_new(env, order->env[i].key.ptr, order->env[i].key.len,
                                        json_of_text(order->env[i].value)) == 0;
    return whole(env, is_whole);
}

json_t *json_of_env_pairs(const struct supply_order *order)
{
    json_t *list = json_array();
    bool is_whole = list;
    for (size_t i = 0; i < order->env_count && is_whole; i++)
        is_whole = json_array_append_new(list, json_pack("{s:o,s:o}", "key", json_of_text(order->env[i].key), "value",
                                                         json_of_text(order->env[i].value))) == 0;
    return whole(list, is_whole);
}

int64_t adapter_price(struct adapter_call *call, const struct price_terms *terms)
{
    int64_t price;
    return adapter_worth(call, terms, &price) == ERR_NONE && price > 0 ? price : -1;
}

bool adapter_option_is(const struct adapter_call *call, const char *key, const char *value)
{
    const char *given = network_option(call_network(call), key);
    return given && strcmp(given, value) == 0;
}
