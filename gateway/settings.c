#include "gateway/settings.h"

#include "adapters/network.h"
#include "probes/catalogue.h"

#include <stdio.h>
#include <string.h>

static const char *const probe_names[] = {"required", "report", "off", NULL};
static const char *const mismatch_names[] = {"reclass", "suspend", NULL};
static const char *const switch_names[] = {"off", "on", NULL};
static const char *const settle_names[] = {"journal", "redis", NULL};
static const char *const log_names[] = {"debug", "info", "warn", "error", NULL};

#define RATE(field) offsetof(struct settings_take_rate, field)
static const struct config_row take_rate_rows[] = {
    {.key = "supplier", .type = CONFIG_STRING, .offset = RATE(supplier), .help = "its name, or * for all others"},
    {.key = "bps",
     .type = CONFIG_INT,
     .offset = RATE(bps),
     .max = 10000,
     .help = "basis points of the supplier's part"},
    {.key = NULL},
};

#define OFFERS_TTL_LEAST_S 15
#define NETWORK(field) offsetof(struct settings_network, field)
static const struct config_row network_rows[] = {
    {.key = "id", .type = CONFIG_STRING, .offset = NETWORK(id), .help = "unique, shown to users"},
    {.key = "adapter", .type = CONFIG_STRING, .offset = NETWORK(adapter), .help = "which network this is"},
    {.key = "base_url",
     .type = CONFIG_STRING,
     .offset = NETWORK(base_url),
     .standard = "",
     .help = "empty: the network's own"},
    {.key = "credential",
     .type = CONFIG_SECRETS,
     .offset = NETWORK(credential),
     .standard = "",
     .help = "map of env:NAME or file:PATH"},
    {.key = "options",
     .type = CONFIG_MAP,
     .offset = NETWORK(options),
     .standard = "",
     .help = "map of what else its adapter wants to know"},
    {.key = "poll_s",
     .type = CONFIG_INT,
     .offset = NETWORK(poll_s),
     .standard = "30",
     .min = 1,
     .max = 86400,
     .help = "seconds between looks at its offers"},
    {.key = "offers_ttl_s",
     .type = CONFIG_INT,
     .offset = NETWORK(offers_ttl_s),
     .standard = "0",
     .min = 0,
     .max = 604800,
     .help = "older offers are not sold; 0: 3 x poll_s, at least 15"},
    {.key = "markup_bps",
     .type = CONFIG_INT,
     .offset = NETWORK(markup_bps),
     .standard = "0",
     .min = 0,
     .max = 10000,
     .help = "basis points on top of its prices"},
    {.key = "probe",
     .type = CONFIG_CHOICE,
     .offset = NETWORK(probe),
     .standard = "required",
     .choices = probe_names,
     .help = "report: marked unproven"},
    {.key = "max_price_per_gpu_hour_usd",
     .type = CONFIG_MONEY,
     .offset = NETWORK(max_price_per_gpu_hour_usd_nano),
     .standard = "",
     .help = "dearer offers are not taken in"},
    {.key = "reconcile_s",
     .type = CONFIG_INT,
     .offset = NETWORK(reconcile_s),
     .standard = "60",
     .min = 1,
     .max = 86400,
     .help = "seconds between looks at what runs there"},
    {.key = "orphan_grace_s",
     .type = CONFIG_INT,
     .offset = NETWORK(orphan_grace_s),
     .standard = "120",
     .min = 0,
     .max = 86400,
     .help = "what no lease owns this long is ended"},
    {.key = NULL},
};

#define EXCHANGE(field) offsetof(struct settings_rate, field)
static const struct config_row rate_rows[] = {
    {.key = "currency",
     .type = CONFIG_STRING,
     .offset = EXCHANGE(currency),
     .help = "as a network names it, such as AKT"},
    {.key = "usd",
     .type = CONFIG_STRING,
     .offset = EXCHANGE(usd),
     .help = "what one is worth; networks may tell it too"},
    {.key = NULL},
};

#define AT(field) offsetof(struct settings, field)
#define TEXT(name, field, value, text)                                                                 \
    {                                                                                                  \
        .key = (name), .type = CONFIG_STRING, .offset = AT(field), .standard = (value), .help = (text) \
    }
#define ADDRESS(name, field, value, text)                                                               \
    {                                                                                                   \
        .key = (name), .type = CONFIG_ADDRESS, .offset = AT(field), .standard = (value), .help = (text) \
    }
#define CHOICE(name, field, value, names, text)                                                             \
    {                                                                                                       \
        .key = (name), .type = CONFIG_CHOICE, .offset = AT(field), .standard = (value), .choices = (names), \
        .help = (text)                                                                                      \
    }
#define NUMBER(name, of_type, field, value, least, most, text)                                                     \
    {                                                                                                              \
        .key = (name), .type = (of_type), .offset = AT(field), .standard = (value), .min = (least), .max = (most), \
        .help = (text)                                                                                             \
    }

static const struct config_row rows[] = {
    ADDRESS("listen", listen, "127.0.0.1:8080", "where callers connect"),
    TEXT("public_url", public_url, "", "http(s)://HOST[:PORT] where leased machines reach us; empty: from listen"),
    TEXT("data_dir", data_dir, "./var", "journals, embedded Redis, admin key"),
    NUMBER("threads", CONFIG_INT, threads, "0", 0, 256, "reactors; 0: one a core"),
    TEXT("redis.url", redis_url, "", "redis://HOST:PORT, unix:///PATH; empty: our own server in data_dir"),
    ADDRESS("link_listen", link_listen, "", "where workers connect; empty: the host of listen, any port"),
    ADDRESS("link_advertise", link_advertise, "", "the address workers are told; empty: that of link_listen"),
    TEXT("link_tls.cert", link_tls_cert, "", "PEM file; both or none"),
    TEXT("link_tls.key", link_tls_key, "", "PEM file; both or none"),
    NUMBER("limits.body_bytes", CONFIG_BYTES, limits.body_bytes, "33554432", 1024, 1 << 30,
           "largest request body (else 413)"),
    NUMBER("limits.header_bytes", CONFIG_BYTES, limits.header_bytes, "65536", 1024, 1 << 20,
           "largest request head (else 431)"),
    NUMBER("limits.queue_per_model", CONFIG_INT, limits.queue_per_model, "256", 0, 1000000,
           "calls that may wait for a free slot"),
    NUMBER("limits.queue_wait_ms", CONFIG_MS, limits.queue_wait_ms, "30000", 0, 3600000, "how long one may wait"),
    NUMBER("limits.head_ms", CONFIG_MS, limits.head_ms, "10000", 10, 3600000, "a request's head must be whole within"),
    NUMBER("limits.body_min_bps", CONFIG_BYTES, limits.body_min_bps, "1024", 0, 1 << 30,
           "slowest body in bytes a second, after 10 s"),
    NUMBER("limits.write_stall_ms", CONFIG_MS, limits.write_stall_ms, "60000", 10, 3600000,
           "a reader that takes nothing this long is cut off"),
    NUMBER("limits.connections_max", CONFIG_INT, limits.connections_max, "16384", 1, 1000000,
           "callers' connections at a time"),
    TEXT("probes.catalogue", probes.catalogue, "", "YAML file of GPU classes that adds to the built-in ones"),
    CHOICE("probes.admission", probes.admission, "required", probe_names, "report: failures are shown, not acted on"),
    CHOICE("probes.mismatch", probes.mismatch, "reclass", mismatch_names, "other class than claimed: sold as proven"),
    NUMBER("probes.reprobe_min_s", CONFIG_INT, probes.reprobe_min_s, "300", 1, 604800,
           "mean time between two proofs of a ready worker with a low score"),
    NUMBER("probes.reprobe_max_s", CONFIG_INT, probes.reprobe_max_s, "3600", 1, 604800, "with a high score"),
    TEXT("probes.check_answers", probes.check_answers, "0.01",
         "share of answers that another worker is asked for too, 0 to 0.3"),
    NUMBER("probes.newcomer_exposure_usd", CONFIG_MONEY, probes.newcomer_exposure_usd_nano, "1.00", 0, 0,
           "value in flight and unpaid that a worker without earnings may have"),
    CHOICE("probes.canaries", probes.canaries, "on", switch_names, "questions with known answers among the calls"),
    CHOICE("probes.slot", probes.slot, "on", switch_names, "GPUs that could be one are challenged at the same time"),
    CHOICE("pricing.settle", pricing.settle, "journal", settle_names, "redis: wait for Redis before the last byte"),
    {.key = "pricing.take_rates",
     .type = CONFIG_LIST,
     .offset = AT(pricing.take_rates),
     .standard = "[{supplier: '*', bps: 1000}]",
     .items = take_rate_rows,
     .item_size = sizeof(struct settings_take_rate),
     .help = "the operator's share"},
    NUMBER("leases.slice", CONFIG_MS, leases.slice_ms, "15m", 1000, 86400000, "money is held and charged by so much"),
    NUMBER("leases.watch", CONFIG_MS, leases.watch_ms, "15s", 100, 3600000,
           "between two looks at a lease that is active"),
    NUMBER("leases.boot_poll", CONFIG_MS, leases.boot_poll_ms, "2s", 50, 600000, "between two looks at one that boots"),
    NUMBER("leases.probing", CONFIG_MS, leases.probing_ms, "5m", 1000, 3600000,
           "from running to proven; longer: the next offer"),
    NUMBER("leases.grace", CONFIG_MS, leases.grace_ms, "60s", 0, 3600000, "runs on so long without money for a slice"),
    NUMBER("leases.retry", CONFIG_MS, leases.retry_ms, "15s", 100, 3600000,
           "first pause of a lease that waits for an offer"),
    NUMBER("leases.silent", CONFIG_MS, leases.silent_ms, "3m", 1000, 86400000,
           "neither network nor worker tell of it: warned, not charged"),
    NUMBER("leases.seek", CONFIG_MS, leases.seek_ms, "2m", 1000, 86400000,
           "what a lost answer may have made is looked for so long"),
    NUMBER("leases.max_open", CONFIG_INT, leases.max_open, "200", 0, 1000000,
           "leases of a tenant that are not over; 0: no limit"),
    {.key = "models.aliases",
     .type = CONFIG_MAP,
     .offset = AT(aliases),
     .standard = "",
     .help = "name that callers may use: model that serves it"},
    {.key = "metrics.token",
     .type = CONFIG_SECRET,
     .offset = AT(metrics_token),
     .standard = "",
     .help = "env:NAME or file:PATH; lets readers of /metrics in from elsewhere"},
    CHOICE("log.level", log_level, "info", log_names, "least level written"),
    {.key = "networks",
     .type = CONFIG_LIST,
     .offset = AT(networks),
     .standard = "",
     .items = network_rows,
     .item_size = sizeof(struct settings_network),
     .help = "where supply comes from besides our own workers"},
    {.key = "rates",
     .type = CONFIG_LIST,
     .offset = AT(rates),
     .standard = "",
     .items = rate_rows,
     .item_size = sizeof(struct settings_rate),
     .help = "what currencies of networks are worth"},
    {.key = NULL},
};
_Static_assert(sizeof(rows) / sizeof(*rows) <= 64, "config keeps a bit a row");

/* -1: no such share. */
static int64_t bps_of(const char *share)
{
    double value;
    if (!str_to_double(str_of(share), &value) || !(value >= 0) || value > 0.3)
        return -1;
    return (int64_t)(value * 10000 + 0.5);
}

static enum error check_catalogue(const struct settings *settings, char error[static CONFIG_ERROR_MAX])
{
    struct catalogue *catalogue = NULL;
    char why[CONFIG_ERROR_MAX];
    enum error failed = catalogue_open(settings->probes.catalogue, &catalogue, why);
    if (failed)
        snprintf(error, CONFIG_ERROR_MAX, "probes.catalogue: %.400s", why);
    else
        catalogue_free(catalogue);
    return failed;
}

/* Ids stand in offers' and keys' names. */
static bool is_network_id(const char *id)
{
    size_t len = strlen(id);
    for (size_t i = 0; i < len; i++) {
        char c = id[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return false;
    }
    return len < NETWORK_ID_MAX;
}

static void say_adapters(const char *unknown, size_t i, char error[static CONFIG_ERROR_MAX])
{
    int len = snprintf(error, CONFIG_ERROR_MAX,
                       "networks[%zu].adapter: adapter %.100s is not built in; these are: native", i, unknown);
    for (size_t a = 0; a < adapter_count() && len > 0 && len < CONFIG_ERROR_MAX; a++)
        len += snprintf(error + len, CONFIG_ERROR_MAX - (size_t)len, ", %s", adapter_at(a)->name);
}

static enum error check_networks(const struct settings *settings, char error[static CONFIG_ERROR_MAX])
{
    const struct settings_network *networks = settings->networks.items;
    for (size_t i = 0; i < settings->networks.count; i++) {
        const struct settings_network *network = &networks[i];
        if (!*network->id) {
            snprintf(error, CONFIG_ERROR_MAX, "networks[%zu].id: must not be empty", i);
            return ERR_BAD_INPUT;
        }
        if (!is_network_id(network->id)) {
            snprintf(error, CONFIG_ERROR_MAX, "networks[%zu].id: must be at most %d letters, digits, '-' or '_'", i,
                     NETWORK_ID_MAX - 1);
            return ERR_BAD_INPUT;
        }
        for (size_t other = 0; other < i; other++) {
            if (!str_eq_nocase(str_of(networks[other].id), str_of(network->id)))
                continue;
            snprintf(error, CONFIG_ERROR_MAX, "networks[%zu].id: '%.100s' is taken by another network", i, network->id);
            return ERR_BAD_INPUT;
        }
        bool is_native = strcmp(network->adapter, "native") == 0;
        if (!is_native && str_eq_nocase(str_of(network->id), STR("native"))) {
            snprintf(error, CONFIG_ERROR_MAX, "networks[%zu].id: 'native' means our own workers", i);
            return ERR_BAD_INPUT;
        }
        if (!is_native && !adapter_find(str_of(network->adapter))) {
            say_adapters(network->adapter, i, error);
            return ERR_BAD_INPUT;
        }
    }
    return ERR_NONE;
}

/* Rates of the file hold for ever. */
static enum error set_rate(const struct settings *settings, size_t i, struct rates *rates)
{
    const struct settings_rate *rate = (const struct settings_rate *)settings->rates.items + i;
    return rates_set(rates, str_of(rate->currency), str_of(rate->usd), STR("configuration"), 0);
}

static enum error check_rates(const struct settings *settings, char error[static CONFIG_ERROR_MAX])
{
    struct rates rates;
    rates_init(&rates, 0);
    for (size_t i = 0; i < settings->rates.count; i++) {
        enum error failed = set_rate(settings, i, &rates);
        if (!failed)
            continue;
        const char *why = failed == ERR_DENIED   ? "this currency's rate is fixed or follows from another"
                          : failed == ERR_EXISTS ? "is given twice"
                          : failed == ERR_TOO_LARGE
                              ? "too many currencies"
                              : "must be a currency's name and a decimal amount such as \"0.7312\"";
        snprintf(error, CONFIG_ERROR_MAX, "rates[%zu]: %s", i, why);
        return ERR_BAD_INPUT;
    }
    return ERR_NONE;
}

void settings_rates(const struct settings *settings, struct rates *ret)
{
    rates_init(ret, 0);
    for (size_t i = 0; i < settings->rates.count; i++) {
        if (set_rate(settings, i, ret) != ERR_NONE)
            return; /* settings_check has refused such settings */
    }
}

int64_t settings_offers_ttl_ms(const struct settings_network *network)
{
    int64_t looks_s = 3 * network->poll_s; /* and as long as it takes another gateway to look when one has died */
    looks_s = looks_s > OFFERS_TTL_LEAST_S ? looks_s : OFFERS_TTL_LEAST_S;
    return (network->offers_ttl_s ? network->offers_ttl_s : looks_s) * 1000;
}

static bool is_url(const char *text)
{
    struct str url = str_of(text);
    if (!str_starts(url, STR("http://")) && !str_starts(url, STR("https://")))
        return false;
    struct str host = {strstr(text, "://") + 3, 0};
    host.len = strlen(host.ptr);
    bool is_good = host.len > 0 && *host.ptr != '/' && host.len < 200;
    for (size_t i = 0; is_good && i < host.len; i++)
        is_good = host.ptr[i] > ' ' && host.ptr[i] < 127 && !strchr("\"'`$\\?#@<>", host.ptr[i]);
    return is_good;
}

enum error settings_check(const struct settings *settings, char error[static CONFIG_ERROR_MAX])
{
    const char *why = NULL;
    if (!settings->listen.host[0])
        why = "listen: must not be empty";
    else if (!*settings->data_dir)
        why = "data_dir: must not be empty";
    else if (*settings->public_url && !is_url(settings->public_url))
        why = "public_url: must be http://HOST[:PORT] or https://HOST[:PORT]";
    else if (!*settings->link_tls_cert != !*settings->link_tls_key)
        why = "link_tls: cert and key go together";
    else if (settings->probes.reprobe_min_s > settings->probes.reprobe_max_s)
        why = "probes.reprobe_min_s: is larger than probes.reprobe_max_s";
    else if (bps_of(settings->probes.check_answers) < 0)
        why = "probes.check_answers: must be a number from 0 to 0.3";
    else if (settings->probes.newcomer_exposure_usd_nano < 0)
        why = "probes.newcomer_exposure_usd: must be an amount";
    for (size_t i = 0; i < settings->aliases.count && !why; i++) {
        if (!*settings->aliases.pairs[i].value)
            why = "models.aliases: a model's name is empty";
    }
    if (!why) {
        enum error failed = check_networks(settings, error);
        if (!failed)
            failed = check_rates(settings, error);
        return failed ? failed : check_catalogue(settings, error);
    }
    snprintf(error, CONFIG_ERROR_MAX, "%s", why);
    return ERR_BAD_INPUT;
}

enum error settings_load(const char *path, struct settings *ret, char error[static CONFIG_ERROR_MAX])
{
    enum error failed = path ? config_load(rows, path, ret, sizeof(*ret), error)
                             : config_parse(rows, STR(""), "default", ret, sizeof(*ret), error);
    if (failed)
        return failed;
    char why[CONFIG_ERROR_MAX];
    failed = settings_check(ret, why);
    if (failed) {
        snprintf(error, CONFIG_ERROR_MAX, "%.200s: %.300s", path ? path : "default", why);
        settings_free(ret);
    }
    return failed;
}

enum error settings_set(struct settings *settings, const char *key, const char *value, const char *option,
                        char error[static CONFIG_ERROR_MAX])
{
    return config_set(rows, key, value, option, settings, error);
}

bool settings_reference(struct buf *to)
{
    return config_reference(rows, to);
}

void settings_free(struct settings *settings)
{
    if (!settings)
        return;
    config_free(rows, settings);
    *settings = (struct settings){.threads = 0};
}

int64_t settings_check_answers_bps(const struct settings *settings)
{
    return bps_of(settings->probes.check_answers);
}

int64_t settings_take_bps(const struct settings *settings, struct str supplier)
{
    const struct settings_take_rate *rates = settings->pricing.take_rates.items;
    int64_t others = 0;
    for (size_t i = 0; i < settings->pricing.take_rates.count; i++) {
        if (str_eq(str_of(rates[i].supplier), supplier))
            return rates[i].bps;
        if (strcmp(rates[i].supplier, "*") == 0)
            others = rates[i].bps;
    }
    return others;
}
