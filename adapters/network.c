/* A network: its configuration, checked, over its adapter; and the calls that may be made of it. */
#include "adapters/network_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACE_MAX 1000
#define DEADLINE_MS_MAX INT64_C(600000)
#define SETTLE_MS_MAX 3600000
#define BOOT_MS_MAX 86400000

const char *adapter_op_name(enum adapter_op op)
{
    static const char *const names[] = {"check", "offers", "create", "describe", "list", "logs", "stop", "terminate"};
    return op < ADAPTER_OPS ? names[op] : "unknown";
}

/* -- the configuration -- */

/* Options that every network knows: pace_percent (of the adapter's least intervals), deadline_ms (of every call),
 * settle_ms and boot_ms (in place of the adapter's), the files of TLS, and the prices of a network that has none. */
static bool is_common_option(const struct adapter *adapter, struct str key)
{
    return str_eq(key, STR("pace_percent")) || str_eq(key, STR("deadline_ms")) || str_eq(key, STR("settle_ms")) ||
           str_eq(key, STR("boot_ms")) || str_eq(key, STR("ca_file")) || str_eq(key, STR("client_cert_file")) ||
           str_eq(key, STR("client_key_file")) ||
           (adapter->traits & ADAPTER_IMPORTED_PRICE && str_starts(key, STR("price.")));
}

/* An entry that ends with '*' is the start of keys; one that starts with '?' may be left out. */
static bool is_listed(const char *const *list, size_t most, struct str key)
{
    for (size_t i = 0; i < most && list[i]; i++) {
        struct str entry = str_of(list[i][0] == '?' ? list[i] + 1 : list[i]);
        bool is_start = str_ends(entry, STR("*"));
        entry.len -= is_start;
        if (is_start ? str_starts(key, entry) : str_eq(key, entry))
            return true;
    }
    return false;
}

static enum error refuse(const struct network_options *options, const char *what, const char *key, char *error)
{
    snprintf(error, CONFIG_ERROR_MAX, "network %s: %s%s%s", options->id, what, key ? " " : "", key ? key : "");
    return ERR_BAD_INPUT;
}

static enum error check_keys(const struct network_options *options, char *error)
{
    const struct adapter *adapter = options->adapter;
    size_t most = sizeof(adapter->credentials) / sizeof(adapter->credentials[0]);
    for (size_t i = 0; i < most && adapter->credentials[i]; i++) {
        const char *key = adapter->credentials[i];
        const char *value = config_map_get(options->credential, str_of(key));
        if (key[0] != '?' && (!value || !value[0]))
            return refuse(options, "its credential lacks", key, error);
    }
    for (size_t i = 0; i < options->credential->count; i++)
        if (!is_listed(adapter->credentials, most, str_of(options->credential->pairs[i].key)))
            return refuse(options, "its adapter knows no credential", options->credential->pairs[i].key, error);
    for (size_t i = 0; i < options->options->count; i++) {
        struct str key = str_of(options->options->pairs[i].key);
        if (!is_common_option(adapter, key) &&
            !is_listed(adapter->options, sizeof(adapter->options) / sizeof(adapter->options[0]), key))
            return refuse(options, "its adapter knows no option", key.ptr, error);
    }
    return ERR_NONE;
}

static bool number_option(const struct network *network, const char *key, int64_t most, int64_t *value)
{
    const char *text = network_option(network, key);
    return !text || (str_to_i64(str_of(text), value) && *value >= 0 && *value <= most);
}

static enum error network_fill(struct network *network, const struct network_options *options, char *error)
{
    struct str base =
        str_of(options->base_url && options->base_url[0] ? options->base_url : options->adapter->base_url);
    while (str_ends(base, STR("/")))
        base.len--;
    if (!str_copy(network->id, sizeof(network->id), str_of(options->id)) || !network->id[0])
        return refuse(options, "its id is too long", NULL, error);
    if (!str_copy(network->base_url, sizeof(network->base_url), base))
        return refuse(options, "its base_url is too long", NULL, error);
    if (options->installation.len != 6 ||
        !str_copy(network->installation, sizeof(network->installation), options->installation))
        return refuse(options, "the installation has no name yet", NULL, error);
    snprintf(network->tag_prefix, sizeof(network->tag_prefix), "sluice-%s-", network->installation);
    network->pace_percent = 100;
    if (!number_option(network, "pace_percent", PACE_MAX, &network->pace_percent))
        return refuse(options, "pace_percent is a number from 0 to 1000", NULL, error);
    if (!number_option(network, "deadline_ms", DEADLINE_MS_MAX, &network->deadline_ms))
        return refuse(options, "deadline_ms is a number from 0 to 600000", NULL, error);
    network->boot_ms = options->adapter->boot_ms;
    if (!number_option(network, "boot_ms", BOOT_MS_MAX, &network->boot_ms))
        return refuse(options, "boot_ms is a number from 0 to 86400000", NULL, error);
    network->settle_ms = options->adapter->settle_ms;
    if (!number_option(network, "settle_ms", SETTLE_MS_MAX, &network->settle_ms))
        return refuse(options, "settle_ms is a number from 0 to 3600000", NULL, error);
    return check_keys(options, error);
}

enum error network_open(const struct network_options *options, struct network **ret, char *error)
{
    struct network *network = calloc(1, sizeof(*network));
    if (!network)
        return ERR_NO_MEMORY;
    network->loop = options->loop;
    network->http = options->http;
    network->adapter = options->adapter;
    network->credential = options->credential;
    network->options = options->options;
    network->rates = options->rates;
    enum error result = network_fill(network, options, error);
    if (!result && options->adapter->state_size && !(network->state = calloc(1, options->adapter->state_size)))
        result = ERR_NO_MEMORY;
    const char *why = !result && options->adapter->open ? options->adapter->open(network) : NULL;
    if (why)
        result = refuse(options, why, NULL, error);
    if (result) {
        free(network->state);
        free(network);
        return result;
    }
    *ret = network;
    return ERR_NONE;
}

struct network *network_free(struct network *network)
{
    if (!network)
        return NULL;
    while (network->open)
        call_close(network->open, "closed");
    if (network->adapter->close)
        network->adapter->close(network);
    free(network->gpus);
    free(network->state);
    free(network);
    return NULL;
}

/* -- what can be read of it -- */

struct str network_id(const struct network *network)
{
    return str_of(network->id);
}

int64_t network_boot_ms(const struct network *network)
{
    return network->boot_ms;
}

int64_t network_settle_ms(const struct network *network)
{
    return network->settle_ms;
}

const struct adapter *network_adapter(const struct network *network)
{
    return network->adapter;
}

const char *network_base_url(const struct network *network)
{
    return network->base_url;
}

struct str network_installation(const struct network *network)
{
    return str_of(network->installation);
}

const char *network_credential(const struct network *network, const char *key)
{
    return config_map_get(network->credential, str_of(key));
}

const char *network_option(const struct network *network, const char *key)
{
    return config_map_get(network->options, str_of(key));
}

size_t network_option_count(const struct network *network)
{
    return network->options->count;
}

struct str network_option_key(const struct network *network, size_t i, struct str *ret_value)
{
    *ret_value = str_of(network->options->pairs[i].value);
    return str_of(network->options->pairs[i].key);
}

void *network_state(const struct network *network)
{
    return network->state;
}

struct str network_tag_prefix(const struct network *network)
{
    return str_of(network->tag_prefix);
}

struct network *call_network(const struct adapter_call *call)
{
    return call->network;
}

enum adapter_op call_op(const struct adapter_call *call)
{
    return call->op;
}

const struct supply_order *call_order(const struct adapter_call *call)
{
    return &call->order;
}

struct str call_instance(const struct adapter_call *call)
{
    return call->target;
}

struct str call_tag(const struct adapter_call *call)
{
    return call->tag;
}

int64_t call_log_offset(const struct adapter_call *call)
{
    return call->log_from;
}

int64_t call_wall_ms(const struct adapter_call *call)
{
    (void)call;
    return clock_wall_ms();
}

/* -- the calls -- */

struct adapter_call *network_check(struct network *network, network_done_fn *done, void *ctx)
{
    return call_make(network, ADAPTER_CHECK, done, ctx);
}

struct adapter_call *network_offers(struct network *network, network_offers_fn *on_offers, network_done_fn *done,
                                    void *ctx)
{
    struct adapter_call *call = call_make(network, ADAPTER_OFFERS, done, ctx);
    call->on_offers = on_offers;
    return call;
}

struct adapter_call *network_create(struct network *network, const struct supply_order *order, network_done_fn *done,
                                    void *ctx)
{
    struct adapter_call *call = call_make(network, ADAPTER_CREATE, done, ctx);
    bool is_sane = order->offer.len && order->offer.len < SUPPLY_ID_MAX && order->tag.len &&
                   order->tag.len < SUPPLY_TAG_MAX && order->gpus && order->span_s > 0 && order->disk_gib > 0;
    if (!call->is_over && (!is_sane || !call_copy_order(call, order)))
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("the order is beyond what can be asked for"));
    return call;
}

/* The ids are the network's own words coming back: what is too long was never one of them. */
static struct adapter_call *on_instance(struct network *network, enum adapter_op op, struct str instance,
                                        struct str tag, network_done_fn *done, void *ctx)
{
    struct adapter_call *call = call_make(network, op, done, ctx);
    if (call->is_over)
        return call;
    if (!instance.len || instance.len >= SUPPLY_ID_MAX || tag.len >= SUPPLY_TAG_MAX) {
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("no such name of an instance"));
        return call;
    }
    call->target = call_copy(call, instance);
    call->tag = call_copy(call, tag);
    return call;
}

struct adapter_call *network_describe(struct network *network, struct str instance, struct str tag,
                                      network_done_fn *done, void *ctx)
{
    return on_instance(network, ADAPTER_DESCRIBE, instance, tag, done, ctx);
}

struct adapter_call *network_list(struct network *network, network_instances_fn *on_instances, network_done_fn *done,
                                  void *ctx)
{
    struct adapter_call *call = call_make(network, ADAPTER_LIST, done, ctx);
    call->on_instances = on_instances;
    return call;
}

struct adapter_call *network_logs(struct network *network, struct str instance, struct str tag, int64_t from,
                                  network_logs_fn *on_logs, network_done_fn *done, void *ctx)
{
    struct adapter_call *call = on_instance(network, ADAPTER_LOGS, instance, tag, done, ctx);
    call->on_logs = on_logs;
    call->log_from = from;
    return call;
}

struct adapter_call *network_stop(struct network *network, struct str instance, struct str tag, network_done_fn *done,
                                  void *ctx)
{
    return on_instance(network, ADAPTER_STOP, instance, tag, done, ctx);
}

struct adapter_call *network_terminate(struct network *network, struct str instance, struct str tag,
                                       network_done_fn *done, void *ctx)
{
    return on_instance(network, ADAPTER_TERMINATE, instance, tag, done, ctx);
}
