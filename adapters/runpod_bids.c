/* RunPod's interruptible pods. GraphQL says 200 and `errors` when it refuses. */
#include "adapters/runpod.h"
#include <stdio.h>

/* Without bids there are still the others: GraphQL's faults, and its retirement, cost the interruptible offers only. */
static void on_bids(struct adapter_call *call, const struct adapter_answer *answer)
{
    const json_t *gpus = json_at(answer->json, "data.gpuTypes");
    struct offer_batch batch = {.call = call};
    for (size_t i = 0; i < json_array_size(gpus) && i < RUNPOD_ROWS_MAX; i++) {
        const json_t *gpu = json_array_get(gpus, i);
        for (size_t step = 0; step < RUNPOD_CLOUDS * RUNPOD_COUNTS; step++) {
            char alias[16];
            char kind = (char)(runpod_clouds[step / RUNPOD_COUNTS].kind | 0x20);
            snprintf(alias, sizeof alias, "%c%u", kind, runpod_counts[step % RUNPOD_COUNTS]);
            const json_t *lowest = json_at(gpu, alias);
            struct str price = json_decimal_at(call, lowest, "minimumBidPrice");
            if (json_text_at(lowest, "stockStatus").len && !str_eq(price, STR("0")))
                runpod_offer(&batch, gpu, kind, runpod_counts[step % RUNPOD_COUNTS], STR(""), price);
        }
    }
    offer_batch_end(&batch);
    adapter_done(call, NULL);
}

void runpod_ask_bids(struct adapter_call *call)
{
    struct str query = STR("query{gpuTypes{id memoryInGb");
    for (size_t step = 0; step < RUNPOD_CLOUDS * RUNPOD_COUNTS && query.ptr; step++)
        query =
            adapter_text(call,
                         STR_FMT " %c%u:lowestPrice(input:{gpuCount:%u,secureCloud:%s}){minimumBidPrice"
                                 " stockStatus}%s",
                         STR_ARG(query), runpod_clouds[step / RUNPOD_COUNTS].kind | 0x20,
                         runpod_counts[step % RUNPOD_COUNTS], runpod_counts[step % RUNPOD_COUNTS],
                         step < RUNPOD_COUNTS ? "true" : "false", step + 1 < RUNPOD_CLOUDS * RUNPOD_COUNTS ? "" : "}}");
    if (!query.ptr)
        return;
    adapter_post(call, STR("/graphql"), json_pack("{s:s%}", "query", query.ptr, query.len), false, on_bids);
}

static void on_bid(struct adapter_call *call, const struct adapter_answer *answer)
{
    const json_t *pod = json_at(answer->json, "data.podRentInterruptable");
    struct supply_instance instance = {.id = json_text_at(pod, "id"),
                                       .tag = call_tag(call),
                                       .state = INSTANCE_PENDING,
                                       .price_usd_nano = -1,
                                       .interruptible = 1};
    if (instance.id.len) {
        adapter_done(call, &instance);
    } else if (answer->status == 200 && answer->json && !json_at(answer->json, "errors")) {
        adapter_uncertain(call, false);
        adapter_fail(call, SUPPLY_NO_CAPACITY, STR("it rented nothing"));
    } else {
        adapter_fail_answer(call, answer);
    }
}

/* What is bid is what is paid: the price as it was listed, up to a whole millionth. */
static json_t *bid_body(struct adapter_call *call, const struct supply_order *order, const struct runpod_wish *wish)
{
    static const char query[] = "mutation($input:PodRentInterruptableInput!){podRentInterruptable(input:$input)"
                                "{id desiredStatus costPerHr}}";
    struct str ports = STR("");
    bool has_tcp = false;
    for (size_t i = 0; i < order->port_count && ports.ptr; i++) {
        const char *kind = runpod_port_kind(call, order->ports[i]);
        ports = adapter_text(call, STR_FMT "%s%u/%s", STR_ARG(ports), i ? "," : "", order->ports[i], kind);
        has_tcp = has_tcp || kind[0] == 't';
    }
    double bid = (double)((order->price_quoted_usd_nano + 999) / 1000) / 1e6;
    json_t *input =
        json_pack("{s:o,s:o,s:o,s:s,s:I,s:f,s:I,s:I,s:b,s:o,s:o,s:o}", "name", json_of_text(order->tag), "imageName",
                  json_of_text(order->image), "gpuTypeId", json_of_text(wish->gpu), "cloudType", wish->cloud->name,
                  "gpuCount", (json_int_t)wish->gpus, "bidPerGpu", bid, "containerDiskInGb",
                  (json_int_t)order->disk_gib, "volumeInGb", (json_int_t)0, "supportPublicIp", has_tcp, "dockerArgs",
                  runpod_args(order), "env", json_of_env_pairs(order), "ports", json_of_text(ports));
    return json_pack("{s:s,s:{s:o}}", "query", query, "variables", "input", input);
}

void runpod_bid(struct adapter_call *call, const struct runpod_wish *wish)
{
    const struct supply_order *order = call_order(call);
    if (order->price_max_usd_nano >= 0 && order->price_quoted_usd_nano > order->price_max_usd_nano)
        adapter_fail(call, SUPPLY_PRICE_MOVED, STR("the least bid is above the cap"));
    else
        adapter_post(call, STR("/graphql"), bid_body(call, order, wish), true, on_bid);
}
