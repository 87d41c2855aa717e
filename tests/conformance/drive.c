/* Drives one network from outside: `conformance CONFIGURATION` opens it, each line of stdin is a command, each line of
 * stdout its result. All JSON.
 *
 *     {"adapter": "vast", "id": "vast1", "base_url": "...", "credential": {...}, "options": {...}, "rates": {"AKT":
 * "1.2"}}
 *     {"op": "create", "order": {"tag", "offer", "gpus", "image", "argv", "env", "script", "ports", "price_max",
 *      "price_quoted" (nano-USD), "interruptible", "span_s", "disk_gib"}}
 *     {"op": "describe", "id": ..., "tag": ..., "from": bytes}
 *
 * The first line is {"error": "..."} where the configuration is refused, else {"traits": n, ...}. */
#include "adapters/network.h"
#include "core/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX 256

struct drive {
    struct loop *loop;
    struct network *network;
    json_t *out;
    bool is_done;
};

static json_t *text_json(struct str text)
{
    json_t *json = text.ptr ? json_stringn(text.ptr, text.len) : json_null();
    return json ? json : json_string("(not UTF-8)");
}

static struct str text_of(const json_t *root, const char *key)
{
    return json_text_at(root, key);
}

static json_t *instance_json(const struct supply_instance *one)
{
    json_t *endpoints = json_array();
    for (size_t i = 0; i < one->endpoint_count; i++)
        json_array_append_new(endpoints, json_pack("{s:i, s:o}", "port", (int)one->endpoints[i].port, "url",
                                                   text_json(one->endpoints[i].url)));
    return json_pack("{s:o, s:o, s:s, s:o, s:o, s:I, s:i, s:I, s:o}", "id", text_json(one->id), "tag",
                     text_json(one->tag), "state", instance_state_name(one->state), "reason", text_json(one->reason),
                     "endpoints", endpoints, "price_usd_nano", (json_int_t)one->price_usd_nano, "interruptible",
                     one->interruptible, "created_at_ms", (json_int_t)one->created_at_ms, "placement",
                     text_json(one->placement));
}

static json_t *list_of(struct drive *drive, const char *key)
{
    json_t *list = json_object_get(drive->out, key);
    if (!list) {
        list = json_array();
        json_object_set_new(drive->out, key, list);
    }
    return list;
}

static void on_offers(void *ctx, const struct network_offer *offers, size_t count)
{
    json_t *list = list_of(ctx, "offers");
    for (size_t i = 0; i < count; i++) {
        const struct network_offer *o = &offers[i];
        json_t *row =
            json_pack("{s:o, s:o, s:s, s:b, s:b, s:b, s:b, s:i, s:i, s:I, s:I, s:I}", "id", text_json(o->id), "gpu_raw",
                      text_json(o->gpu_raw), "gpu", o->gpu, "is_slice", o->is_slice, "interruptible", o->interruptible,
                      "is_estimate", o->is_estimate, "is_arm", o->is_arm, "gpus", (int)o->gpus, "fraction_ppm",
                      (int)o->fraction_ppm, "available", (json_int_t)o->available, "vram_bytes",
                      (json_int_t)o->vram_bytes, "price_usd_nano", (json_int_t)o->price_usd_nano);
        json_object_set_new(row, "region", text_json(o->region));
        json_object_set_new(row, "country", text_json(o->country));
        json_object_set_new(row, "zone", text_json(o->zone));
        json_object_set_new(row, "machine", text_json(o->machine));
        json_object_set_new(row, "origin", text_json(o->origin));
        json_object_set_new(row, "tags", text_json(o->tags));
        json_object_set_new(row, "terms", json_loadb(o->terms.ptr, o->terms.len, 0, NULL));
        json_object_set_new(row, "reliability", json_real(o->reliability));
        json_object_set_new(row, "span_min_s", json_integer(o->span_min_s));
        json_object_set_new(row, "span_max_s", json_integer(o->span_max_s));
        json_array_append_new(list, row);
    }
}

static void on_instances(void *ctx, const struct supply_instance *instances, size_t count)
{
    json_t *list = list_of(ctx, "instances");
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, instance_json(&instances[i]));
}

static void on_logs(void *ctx, struct str bytes)
{
    json_t *list = list_of(ctx, "logs");
    json_array_append_new(list, text_json(bytes));
}

static void on_done(void *ctx, const struct network_result *result)
{
    struct drive *drive = ctx;
    if (drive->is_done)
        abort(); /* a second completion */
    drive->is_done = true;
    json_object_set_new(drive->out, "error", json_string(supply_error_name(result->error)));
    json_object_set_new(drive->out, "is_uncertain", json_boolean(result->is_uncertain));
    json_object_set_new(drive->out, "retry_after_ms", json_integer(result->retry_after_ms));
    json_object_set_new(drive->out, "http_status", json_integer(result->http_status));
    json_object_set_new(drive->out, "message", text_json(str_of(result->message)));
    json_object_set_new(drive->out, "leftover", text_json(result->leftover));
    json_object_set_new(drive->out, "count", json_integer((json_int_t)result->count));
    json_object_set_new(drive->out, "unknown_gpus", json_integer((json_int_t)result->unknown_gpus));
    json_object_set_new(drive->out, "unpriced", json_integer((json_int_t)result->unpriced));
    if (result->instance)
        json_object_set_new(drive->out, "instance", instance_json(result->instance));
}

static void create(struct drive *drive, const json_t *order)
{
    struct str argv[ITEMS_MAX];
    struct supply_pair env[ITEMS_MAX];
    uint16_t ports[SUPPLY_PORTS_MAX];
    struct supply_order made = {
        .tag = text_of(order, "tag"),
        .offer = text_of(order, "offer"),
        .gpus = (uint32_t)json_count_at(order, "gpus"),
        .image = text_of(order, "image"),
        .argv = argv,
        .env = env,
        .script = text_of(order, "script"),
        .ports = ports,
        .price_max_usd_nano = json_count_at(order, "price_max"),
        .price_quoted_usd_nano = json_count_at(order, "price_quoted"),
        .interruptible = json_true_at(order, "interruptible"),
        .span_s = json_count_at(order, "span_s"),
        .disk_gib = json_count_at(order, "disk_gib"),
    };
    size_t i;
    const json_t *value;
    const char *key;
    json_array_foreach(json_object_get(order, "argv"), i, value)
    {
        if (made.argc < ITEMS_MAX)
            argv[made.argc++] = str_of(json_string_value(value));
    }
    json_array_foreach(json_object_get(order, "ports"), i, value)
    {
        if (made.port_count < SUPPLY_PORTS_MAX)
            ports[made.port_count++] = (uint16_t)json_integer_value(value);
    }
    json_object_foreach(json_object_get(order, "env"), key, value)
    {
        if (made.env_count < ITEMS_MAX)
            env[made.env_count++] = (struct supply_pair){str_of(key), str_of(json_string_value(value))};
    }
    network_create(drive->network, &made, on_done, drive);
}

static bool begin(struct drive *drive, const json_t *command)
{
    struct str op = text_of(command, "op"), id = text_of(command, "id"), tag = text_of(command, "tag");
    int64_t from = json_count_at(command, "from");
    struct network *network = drive->network;
    if (str_eq(op, STR("check")))
        network_check(network, on_done, drive);
    else if (str_eq(op, STR("offers")))
        network_offers(network, on_offers, on_done, drive);
    else if (str_eq(op, STR("create")))
        create(drive, json_object_get(command, "order"));
    else if (str_eq(op, STR("describe")))
        network_describe(network, id, tag, on_done, drive);
    else if (str_eq(op, STR("list")))
        network_list(network, on_instances, on_done, drive);
    else if (str_eq(op, STR("logs")))
        network_logs(network, id, tag, from < 0 ? 0 : from, on_logs, on_done, drive);
    else if (str_eq(op, STR("stop")))
        network_stop(network, id, tag, on_done, drive);
    else if (str_eq(op, STR("terminate")))
        network_terminate(network, id, tag, on_done, drive);
    else
        return false;
    return true;
}

static void print(json_t *take_json)
{
    char *text = json_dumps(take_json, JSON_COMPACT);
    printf("%s\n", text ? text : "{\"error\":\"not to be printed\"}");
    fflush(stdout);
    free(text);
    json_decref(take_json);
}

static void serve(struct drive *drive)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        json_t *command = json_loads(line, 0, NULL);
        drive->out = json_object();
        drive->is_done = false;
        if (!begin(drive, command))
            json_object_set_new(drive->out, "error", json_string("no such command"));
        else if (drive->is_done)
            abort(); /* inside the call that asked */
        else
            while (!drive->is_done)
                loop_turn(drive->loop, NS_PER_S);
        for (int i = 0; i < 3; i++)
            loop_turn(drive->loop, 0); /* a second completion would come now */
        json_decref(command);
        print(drive->out);
    }
    free(line);
}

static void map_of(const json_t *object, struct config_map *ret)
{
    const char *key;
    const json_t *value;
    ret->pairs = calloc(json_object_size(object) + 1, sizeof(*ret->pairs));
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const char *text = json_string_value(value);
        ret->pairs[ret->count].key = strdup(key);
        ret->pairs[ret->count++].value = strdup(text ? text : "");
    }
}

static void map_clear(struct config_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        free(map->pairs[i].key);
        free(map->pairs[i].value);
    }
    free(map->pairs);
}

int main(int argc, char **argv)
{
    struct drive drive = {0};
    struct http_client *http = NULL;
    struct config_map credential = {0}, options = {0};
    struct rates rates;
    char error[CONFIG_ERROR_MAX] = "cannot start";
    json_t *config = argc == 2 ? json_loads(argv[1], 0, NULL) : NULL;
    const struct adapter *adapter = adapter_find(text_of(config, "adapter"));
    const char *key;
    const json_t *value;
    signal(SIGPIPE, SIG_IGN);
    rates_init(&rates, 0);
    json_object_foreach(json_object_get(config, "rates"), key, value)
    {
        if (rates_set(&rates, str_of(key), str_of(json_string_value(value)), STR("configuration"), 0))
            adapter = NULL;
    }
    map_of(json_object_get(config, "credential"), &credential);
    map_of(json_object_get(config, "options"), &options);
    if (adapter && !loop_open(&drive.loop) && !http_client_open(drive.loop, &http)) {
        struct network_options of = {
            .loop = drive.loop,
            .http = http,
            .adapter = adapter,
            .id = json_string_value(json_object_get(config, "id")),
            .base_url = json_string_value(json_object_get(config, "base_url")),
            .credential = &credential,
            .options = &options,
            .rates = &rates,
            .installation = STR("abc123"),
        };
        if (network_open(&of, &drive.network, error))
            drive.network = NULL;
    }
    if (!drive.network) {
        print(json_pack("{s:s}", "error", error));
    } else {
        print(json_pack("{s:s, s:i, s:I, s:I, s:I}", "title", adapter->title, "traits", (int)adapter->traits,
                        "settle_ms", (json_int_t)adapter->settle_ms, "boot_ms", (json_int_t)adapter->boot_ms,
                        "span_min_s", (json_int_t)adapter->span_min_s));
        serve(&drive);
    }
    network_free(drive.network);
    http_client_free(http);
    loop_free(drive.loop);
    map_clear(&credential);
    map_clear(&options);
    json_decref(config);
    return 0;
}
