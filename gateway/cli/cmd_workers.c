/* sluice workers, worker show, worker probe. */
#include "gateway/cli/http.h"
#include "gateway/cli/table.h"
#include "probes/catalogue.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CELL_WIDTH 40

static int done(struct table *table, int code)
{
    if (!code && !table_print(table, stdout))
        code = cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
    table_free(table);
    return code;
}

static struct str first_text(const json_t *object, const char *name, const char *otherwise)
{
    struct str text = cli_text(object, name);
    return text.len ? text : cli_text(object, otherwise);
}

static void number_cell(struct table *table, const json_t *object, const char *name, int digits)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_number(value))
        table_printf(table, "%.*f", digits, json_number_value(value));
    else
        table_text(table, STR(""));
}

static void models_cell(struct table *table, const json_t *worker)
{
    const json_t *models = json_object_get(worker, "models");
    const char *first = json_string_value(json_array_get(models, 0));
    if (json_array_size(models) > 1)
        table_printf(table, "%.200s +%zu", first ? first : "", json_array_size(models) - 1);
    else
        table_text(table, str_of(first ? first : ""));
}

static void worker_row(struct table *table, const json_t *worker, bool is_wide)
{
    char at[CLI_TIME_MAX];
    table_text(table, cli_text(worker, "id"));
    table_text(table, cli_text(worker, "state"));
    table_text(table, first_text(worker, "gpu_claimed", "gpu"));
    table_text(table, cli_text(worker, "gpu_proven"));
    number_cell(table, worker, "reputation", 3);
    table_printf(table, "%.0f/%.0f", cli_number(worker, "in_flight"), cli_number(worker, "slots"));
    table_text(table, cli_text(worker, "price_per_gpu_hour_usd"));
    models_cell(table, worker);
    if (is_wide) {
        number_cell(table, worker, "performance", 3);
        table_text(table, cli_text(worker, "name"));
        table_text(table, cli_text(worker, "supplier"));
        table_text(table, cli_text(worker, "region"));
        table_text(table, cli_text(worker, "driver"));
        table_text(table, str_of(cli_time(worker, "proven_at", at)));
        table_text(table, cli_text(worker, "reason"));
    }
}

int cmd_workers(struct cli *cli)
{
    static const char *const heads[] = {"ID",       "STATE",    "CLAIMED", "PROVEN",    ">REPUTATION",
                                        ">CALLS",   ">$/GPU-H", "MODELS",  ">PERF",     "NAME",
                                        "SUPPLIER", "REGION",   "DRIVER",  "PROVEN AT", "REASON"};
    bool is_wide = cli->output == CLI_WIDE;
    json_t *list = NULL;
    size_t i;
    json_t *worker;
    int code = http_list(cli, "/api/v1/workers?limit=100", 0, &list);
    if (code || !list)
        return code;
    if (cli->output == CLI_JSON) {
        code = cli_print_json(list);
        json_decref(list);
        return code;
    }
    struct table *table = cli->output == CLI_NAME
                              ? table_new(1, NULL, 0)
                              : table_new(is_wide ? COUNT(heads) : 8, heads, is_wide ? 0 : CELL_WIDTH);
    json_array_foreach(json_object_get(list, "data"), i, worker)
    {
        if (cli->output == CLI_NAME)
            table_text(table, cli_text(worker, "id"));
        else
            worker_row(table, worker, is_wide);
    }
    code = done(table, CLI_OK);
    json_decref(list);
    return code;
}

/* -- worker show ------------------------------------------------------------------------------------------------- */

static void fact(struct table *table, const char *name, struct str value)
{
    table_text(table, str_of(name));
    table_text(table, value);
}

static int show_facts(const json_t *worker)
{
    char at[CLI_TIME_MAX], text[64];
    struct table *table = table_new(2, NULL, 0);
    static const char *const texts[][2] = {{"worker", "id"},         {"name", "name"},
                                           {"supplier", "supplier"}, {"state", "state"},
                                           {"reason", "reason"},     {"region", "region"},
                                           {"driver", "driver"},     {"price $/GPU-h", "price_per_gpu_hour_usd"}};
    static const char *const times[][2] = {{"enrolled", "enrolled_at"},
                                           {"proven", "proven_at"},
                                           {"last challenged", "last_probe_at"},
                                           {"next challenge", "next_probe_at"},
                                           {"banned until", "banned_until"}};
    for (size_t i = 0; i < COUNT(texts); i++)
        fact(table, texts[i][0], cli_text(worker, texts[i][1]));
    for (size_t i = 0; i < COUNT(times); i++)
        if (*cli_time(worker, times[i][1], at))
            fact(table, times[i][0], str_of(at));
    snprintf(text, sizeof(text), "%.0f of %.0f slots", cli_number(worker, "in_flight"), cli_number(worker, "slots"));
    fact(table, "calls", str_of(text));
    table_text(table, STR("devices"));
    number_cell(table, worker, "gpus", 0);
    table_text(table, STR("models"));
    models_cell(table, worker);
    return done(table, CLI_OK);
}

/* Three digits that count, of what may be a large GPU's rate or a CPU's. */
static void rate_cell(struct table *table, double rate)
{
    if (rate > 0)
        table_printf(table, "%.*f", rate < 0.1 ? 4 : rate < 10 ? 2 : 1, rate);
    else
        table_text(table, STR(""));
}

/* A row of the two columns; 0: not known, or not measured. */
static void compare(struct table *table, const char *name, double claimed, double proven)
{
    table_text(table, str_of(name));
    rate_cell(table, claimed);
    rate_cell(table, proven);
    if (claimed > 0 && proven > 0)
        table_printf(table, "%.0f %%", 100 * proven / claimed);
    else
        table_text(table, STR(""));
}

/* A re-check measures less than an admission: the newest receipt of that device that has the number; 0: none has. */
static double last_proven(const json_t *receipts, double gpu, const char *name)
{
    const json_t *row;
    double value = 0;
    size_t i;
    json_array_foreach(receipts, i, row)
    {
        json_t *receipt = cli_receipt(row);
        if (cli_number(receipt, "gpu") <= gpu && cli_number(receipt, "gpu") >= gpu)
            value = cli_number(json_object_get(receipt, "proven"), name);
        json_decref(receipt);
        if (value > 0)
            break;
    }
    return value;
}

/* What the claimed class is known to reach stands in the claimed column. */
static int show_claims(const json_t *worker, const json_t *receipt, const json_t *receipts)
{
    static const char *const heads[] = {"", "CLAIMED", "PROVEN", ">SHARE"};
    const double gpu = cli_number(receipt, "gpu");
    struct str claimed = first_text(worker, "gpu_claimed", "gpu"), is = cli_text(worker, "gpu_proven");
    struct gpu_class none = {.name = ""};
    struct catalogue *catalogue = NULL;
    char why[512];
    if (catalogue_open(NULL, &catalogue, why) != ERR_NONE)
        return cli_fail(CLI_FAILED, "out of memory");
    const struct gpu_class *class = catalogue_find(catalogue, claimed);
    class = class ? class : &none;
    struct table *table = table_new(4, heads, 0);
    table_text(table, STR("class"));
    table_text(table, claimed);
    table_text(table, is.len ? is : cli_text(receipt, "class"));
    table_text(table, STR(""));
    compare(table, "memory GiB", class->vram_gib, last_proven(receipts, gpu, "vram_gib"));
    compare(table, "fill GB/s", class->fill_gbps, last_proven(receipts, gpu, "fill_gbps"));
    compare(table, "pass GB/s", class->pass_gbps, last_proven(receipts, gpu, "pass_gbps"));
    compare(table, "walk GB/s", class->walk_gbps, last_proven(receipts, gpu, "walk_gbps"));
    compare(table, "chain TOPS", class->chain_tops, last_proven(receipts, gpu, "chain_tops"));
    catalogue_free(catalogue);
    puts("");
    return done(table, CLI_OK);
}

static int show_receipt(const json_t *receipt)
{
    static const char *const heads[] = {"CHALLENGE", "RESULT", ">TOOK", ">RATE", "UNIT"};
    char at[CLI_TIME_MAX];
    size_t i;
    json_t *step;
    puts("");
    if (!receipt) {
        puts("no receipts yet");
        return CLI_OK;
    }
    struct table *facts = table_new(2, NULL, 0);
    fact(facts, "last receipt", str_of(cli_time(receipt, "at", at)));
    fact(facts, "by gateway", cli_text(receipt, "gateway"));
    table_text(facts, STR("of device"));
    number_cell(facts, receipt, "gpu", 0);
    fact(facts, "purpose", cli_text(receipt, "purpose"));
    fact(facts, "result", cli_text(receipt, "result"));
    if (cli_text(receipt, "reason").len)
        fact(facts, "reason", cli_text(receipt, "reason"));
    table_text(facts, STR("performance"));
    number_cell(facts, receipt, "performance", 3);
    int code = done(facts, CLI_OK);
    puts("");
    struct table *table = table_new(COUNT(heads), heads, 0);
    json_array_foreach(json_object_get(receipt, "steps"), i, step)
    {
        double took_us = cli_number(step, "took_us");
        table_text(table, cli_text(step, "kind"));
        table_text(table, json_is_true(json_object_get(step, "passed")) ? STR("passed") : STR("failed"));
        table_printf(table, took_us > 0 ? "%.1f ms" : "-", took_us / 1000);
        rate_cell(table, cli_number(step, "rate"));
        table_text(table, cli_text(step, "unit"));
    }
    return done(table, code);
}

static int show_reputation(const json_t *worker)
{
    static const char *const heads[] = {"REPUTATION", ">SCORE", ">GOOD", ">BAD"};
    struct table *table = table_new(COUNT(heads), heads, 0);
    const char *name;
    json_t *part;
    puts("");
    table_text(table, STR("in all"));
    number_cell(table, worker, "reputation", 3);
    table_text(table, STR(""));
    table_text(table, STR(""));
    json_object_foreach(json_object_get(worker, "reputation_parts"), name, part)
    {
        table_text(table, str_of(name));
        number_cell(table, part, "score", 3);
        number_cell(table, part, "good", 1);
        number_cell(table, part, "bad", 1);
    }
    return done(table, CLI_OK);
}

/* The worker's row of the list; a new reference in *ret. */
static int find_worker(struct cli *cli, json_t **ret)
{
    json_t *list = NULL, *row;
    size_t i;
    int code = http_list(cli, "/api/v1/workers?limit=100", 0, &list);
    *ret = NULL;
    json_array_foreach(json_object_get(list, "data"), i,
                       row) if (!*ret && str_eq(cli_text(row, "id"), str_of(cli->args[0]))) *ret = json_incref(row);
    json_decref(list);
    if (!code && !*ret && !cli->is_curl)
        code = cli_fail(CLI_NOT_FOUND, "no worker %s", cli->args[0]);
    return code;
}

int cmd_worker_show(struct cli *cli)
{
    char path[CLI_PATH_MAX];
    json_t *worker = NULL, *proofs = NULL;
    if (!http_path(path, "/api/v1/workers/", cli->args[0], "/proofs?limit=100"))
        return cli_fail(CLI_USAGE, "an id that is too long");
    int code = find_worker(cli, &worker);
    if (!code)
        code = http_call(cli, "GET", path, &proofs);
    if (code || !worker)
        goto out;
    json_t *receipt = cli_receipt(json_array_get(json_object_get(proofs, "data"), 0));
    if (cli->output == CLI_NAME) {
        struct table *table = table_new(1, NULL, 0);
        table_text(table, cli_text(worker, "id"));
        code = done(table, CLI_OK);
    } else if (cli->output == CLI_JSON) {
        json_t *both = json_pack("{s:O, s:O?}", "worker", worker, "receipt", receipt);
        code = cli_print_json(both);
        json_decref(both);
    } else {
        code = show_facts(worker);
        code = code ? code : show_claims(worker, receipt, json_object_get(proofs, "data"));
        code = code ? code : show_receipt(receipt);
        code = code ? code : show_reputation(worker);
    }
    json_decref(receipt);
out:
    json_decref(worker);
    json_decref(proofs);
    return code;
}

int cmd_worker_probe(struct cli *cli)
{
    char path[CLI_PATH_MAX];
    json_t *answer = NULL, *value;
    const char *name;
    if (!http_path(path, "/api/v1/workers/", cli->args[0], "/proofs"))
        return cli_fail(CLI_USAGE, "an id that is too long");
    int code = http_call(cli, "POST", path, &answer);
    if (code || cli->is_curl)
        return code;
    if (cli->output == CLI_JSON && answer) {
        code = cli_print_json(answer);
    } else {
        struct table *table = table_new(2, NULL, 0);
        json_object_foreach(answer, name, value) if (json_is_string(value)) fact(table, name, cli_text(answer, name));
        code = done(table, CLI_OK);
    }
    json_decref(answer);
    return code;
}
