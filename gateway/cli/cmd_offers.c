/* sluice offers, sluice networks. */
#include "gateway/cli/http.h"
#include "gateway/cli/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CELL_WIDTH 36
#define OFFERS_SHOWN 20

const struct cli_option cli_offers_options[] = {
    {"gpu", "NAME", "canonical (nvidia/h100-sxm-80) or short (H100)", 0},
    {"count", "N", "at least so many GPUs", 0},
    {"max-price", "USD", "at most, a GPU-hour", 0},
    {"region", "NAME", "only there", 0},
    {"network", "ID", "only of this network", 0},
    {"min-vram", "GIB", "at least so much memory a GPU", 0},
    {"interruptible", "BOOL", "true: only, false: no interruptible ones", 0},
    {"require", "TAGS", "all of these, such as gdpr,hipaa", 0},
    {"prefer", "WISH", "price, latency, reputation, balanced, or price=0.6,latency=0.4", 0},
    {"sort", "BY", "score, price, latency or reputation", 0},
    {"limit", "N", "how many; default: 20", 0},
    {"explain", NULL, "what each score is made of", 0},
    {NULL, NULL, NULL, 0}};

static int finish(struct table *table, json_t *list)
{
    int code = CLI_OK;
    if (!table_print(table, stdout))
        code = cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
    table_free(table);
    json_decref(list);
    return code;
}

static int finish_json(json_t *list)
{
    int code = cli_print_json(list);
    json_decref(list);
    return code;
}

static void number_cell(struct table *table, const json_t *object, const char *name, int digits)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_number(value))
        table_printf(table, "%.*f", digits, json_number_value(value));
    else
        table_text(table, STR(""));
}

/* -- offers ------------------------------------------------------------------------------------------------------ */

static bool add_field(char path[static CLI_PATH_MAX], const char *name, const char *value)
{
    char before[64], field[CLI_PATH_MAX];
    size_t len = strlen(path);
    snprintf(before, sizeof(before), "&%s=", name);
    return http_path(field, before, value, "") && str_copy(path + len, CLI_PATH_MAX - len, str_of(field));
}

static int offers_path(const struct cli *cli, size_t limit, char path[static CLI_PATH_MAX])
{
    static const char *const fields[][2] = {{"gpu", "gpu"},
                                            {"count", "count"},
                                            {"max-price", "max_price"},
                                            {"region", "region"},
                                            {"network", "network"},
                                            {"min-vram", "min_vram_gib"},
                                            {"interruptible", "interruptible"},
                                            {"require", "require"},
                                            {"prefer", "prefer"},
                                            {"sort", "sort"}};
    bool fits = true;
    snprintf(path, CLI_PATH_MAX, "/api/v1/offers?limit=%zu", limit < 1000 ? limit : 1000);
    for (size_t i = 0; i < COUNT(fields); i++) {
        const char *value = cli_given(cli, fields[i][0]);
        fits = fits && (!value || add_field(path, fields[i][1], value));
    }
    if (cli_given(cli, "explain"))
        fits = fits && add_field(path, "explain", "1");
    return fits ? CLI_OK : cli_fail(CLI_USAGE, "the options are too long");
}

static void offer_row(struct table *table, const json_t *offer, bool is_wide, bool is_explained)
{
    char at[CLI_TIME_MAX];
    const json_t *parts = json_object_get(offer, "parts");
    struct str gpu = cli_text(offer, "gpu");
    table_text(table, cli_text(offer, "id"));
    table_text(table, cli_text(offer, "network"));
    if (gpu.len)
        table_text(table, gpu);
    else
        table_printf(table, "? %.60s", cli_text(offer, "gpu_raw").ptr); /* a name that nobody knows */
    number_cell(table, offer, "count", 0);
    number_cell(table, offer, "vram_gib", 0);
    table_text(table, cli_text(offer, "region"));
    table_text(table, cli_text(offer, "price_per_gpu_hour_usd"));
    table_text(table, json_is_true(json_object_get(offer, "interruptible")) ? STR("yes") : STR("no"));
    number_cell(table, offer, "reputation", 3);
    number_cell(table, offer, "score", 4);
    if (is_explained) {
        number_cell(table, parts, "price", 4);
        number_cell(table, parts, "latency", 4);
        number_cell(table, parts, "reputation", 4);
    }
    if (is_wide) {
        number_cell(table, offer, "latency_ms", 1);
        table_text(table, cli_text(offer, "gpu_raw"));
        table_text(table, str_of(cli_time(offer, "observed_at", at)));
    }
}

/* Heads of the columns that are shown. */
static struct table *offers_table(bool is_wide, bool is_explained)
{
    static const char *const first[] = {"OFFER",  "NETWORK",  "GPU",           ">COUNT",      ">VRAM GIB",
                                        "REGION", ">$/GPU-H", "INTERRUPTIBLE", ">REPUTATION", ">SCORE"};
    static const char *const explained[] = {">PRICE PART", ">LATENCY PART", ">REPUTATION PART"};
    static const char *const wide[] = {">LATENCY MS", "AS SPELT", "OBSERVED AT"};
    const char *heads[TABLE_COLUMNS_MAX];
    size_t count = COUNT(first);
    memcpy(heads, first, sizeof(first));
    if (is_explained) {
        memcpy(heads + count, explained, sizeof(explained));
        count += COUNT(explained);
    }
    if (is_wide) {
        memcpy(heads + count, wide, sizeof(wide));
        count += COUNT(wide);
    }
    _Static_assert(COUNT(first) + COUNT(explained) + COUNT(wide) <= TABLE_COLUMNS_MAX, "columns");
    return table_new(count, heads, is_wide ? 0 : CELL_WIDTH);
}

int cmd_offers(struct cli *cli)
{
    bool is_wide = cli->output == CLI_WIDE, is_explained = cli_given(cli, "explain") != NULL;
    const char *limit_text = cli_given(cli, "limit");
    char path[CLI_PATH_MAX];
    int64_t limit = OFFERS_SHOWN;
    json_t *list = NULL, *offer;
    size_t i;
    if (limit_text && (!str_to_i64(str_of(limit_text), &limit) || limit < 1 || limit > HTTP_LIST_MAX))
        return cli_fail(CLI_USAGE, "--limit: a number from 1 to %d, not %s", HTTP_LIST_MAX, limit_text);
    int code = offers_path(cli, (size_t)limit, path);
    if (!code)
        code = http_list(cli, path, (size_t)limit, &list);
    if (code || !list)
        return code;
    if (cli->output == CLI_JSON)
        return finish_json(list);
    struct table *table = cli->output == CLI_NAME ? table_new(1, NULL, 0) : offers_table(is_wide, is_explained);
    json_array_foreach(json_object_get(list, "data"), i, offer)
    {
        if (cli->output == CLI_NAME)
            table_text(table, cli_text(offer, "id"));
        else
            offer_row(table, offer, is_wide, is_explained);
    }
    return finish(table, list);
}

/* -- networks ---------------------------------------------------------------------------------------------------- */

/* "no_capacity 3, quota 1" */
static void errors_cell(struct table *table, const json_t *network)
{
    struct buf text;
    const char *class;
    json_t *count;
    bool fits = true;
    buf_init(&text, 4096);
    json_object_foreach((json_t *)(uintptr_t)json_object_get(network, "errors"), class, count)
    {
        fits = fits && buf_printf(&text, "%s%.40s %.0f", text.len ? ", " : "", class, json_number_value(count));
    }
    table_text(table, fits ? buf_str(&text) : STR("?"));
    buf_free(&text);
}

static void traits_cell(struct table *table, const json_t *network)
{
    struct buf text;
    json_t *trait;
    size_t i;
    bool fits = true;
    buf_init(&text, 4096);
    json_array_foreach((json_t *)(uintptr_t)json_object_get(network, "traits"), i, trait)
    {
        const char *name = json_string_value(trait);
        fits = fits && buf_printf(&text, "%s%.40s", text.len ? "," : "", name ? name : "?");
    }
    table_text(table, fits ? buf_str(&text) : STR("?"));
    buf_free(&text);
}

static void network_row(struct table *table, const json_t *network, bool is_wide)
{
    char at[CLI_TIME_MAX];
    table_text(table, cli_text(network, "id"));
    table_text(table, cli_text(network, "adapter"));
    table_text(table, cli_text(network, "state"));
    number_cell(table, network, "offers", 0);
    table_text(table, str_of(cli_time(network, "last_poll_at", at)));
    number_cell(table, network, "orphans_ended", 0);
    if (is_wide) {
        const json_t *breaker = json_object_get(network, "breaker");
        table_text(table, cli_text(breaker, "state"));
        table_text(table, cli_text(breaker, "reason"));
        errors_cell(table, network);
        number_cell(table, network, "unknown_gpus", 0);
        table_text(table, cli_text(network, "probe"));
        number_cell(table, network, "poll_s", 0);
        traits_cell(table, network);
    }
    table_text(table, cli_text(network, "last_error"));
}

int cmd_networks(struct cli *cli)
{
    static const char *const heads[] = {"NETWORK",   "ADAPTER",        "STATE",     ">OFFERS",
                                        "LAST POLL", ">ORPHANS ENDED", "LAST ERROR"};
    static const char *const wide[] = {"NETWORK",        "ADAPTER", "STATE",  ">OFFERS",   "LAST POLL",
                                       ">ORPHANS ENDED", "BREAKER", "WHY",    "ERRORS",    ">UNKNOWN GPUS",
                                       "PROBE",          ">POLL S", "TRAITS", "LAST ERROR"};
    bool is_wide = cli->output == CLI_WIDE;
    json_t *list = NULL, *network;
    size_t i;
    int code = http_list(cli, "/api/v1/networks", 0, &list);
    if (code || !list)
        return code;
    if (cli->output == CLI_JSON)
        return finish_json(list);
    struct table *table = cli->output == CLI_NAME ? table_new(1, NULL, 0)
                          : is_wide               ? table_new(COUNT(wide), wide, 0)
                                                  : table_new(COUNT(heads), heads, 2 * CELL_WIDTH);
    json_array_foreach(json_object_get(list, "data"), i, network)
    {
        if (cli->output == CLI_NAME)
            table_text(table, cli_text(network, "id"));
        else
            network_row(table, network, is_wide);
    }
    return finish(table, list);
}
