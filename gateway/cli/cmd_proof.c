/* sluice proof list, proof verify. */
#include "core/crypto.h"
#include "gateway/cli/http.h"
#include "gateway/cli/table.h"
#include "probes/receipt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FILE_BYTES_MAX ((size_t)64 << 20)
#define LISTED_MAX 1000

/* -- list -------------------------------------------------------------------------------------------------------- */

static void number_cell(struct table *table, const json_t *object, const char *name, int digits)
{
    table_printf(table, "%.*f", digits, cli_number(object, name));
}

static void proof_row(struct table *table, const json_t *receipt, bool is_wide)
{
    const json_t *proven = json_object_get(receipt, "proven");
    char at[CLI_TIME_MAX];
    table_text(table, str_of(cli_time(receipt, "at", at)));
    table_text(table, cli_text(receipt, "purpose"));
    number_cell(table, receipt, "gpu", 0);
    table_text(table, cli_text(receipt, "class"));
    table_text(table, cli_text(receipt, "result"));
    number_cell(table, receipt, "ratio", 3);
    number_cell(table, receipt, "performance", 3);
    table_text(table, cli_text(receipt, "reason"));
    if (is_wide) {
        table_text(table, cli_text(receipt, "gateway"));
        table_text(table, cli_text(receipt, "claimed"));
        table_text(table, cli_text(receipt, "driver"));
        number_cell(table, proven, "vram_gib", 1);
        number_cell(table, proven, "pass_gbps", 1);
        number_cell(table, proven, "chain_tops", 2);
        table_printf(table, "%.1f", cli_number(receipt, "rtt_us") / 1000);
    }
}

static enum error canonical(const json_t *receipt, struct buf *to)
{
    char *text = json_dumps(receipt, JSON_COMPACT);
    enum error error = text ? receipt_canonical(str_of(text), to) : ERR_NO_MEMORY;
    free(text);
    return error;
}

static void name_row(struct table *table, const json_t *receipt)
{
    char hex[SHA256_HEX];
    struct buf text;
    buf_init(&text, RECEIPT_MAX);
    if (canonical(receipt, &text) == ERR_NONE) {
        crypto_sha256_hex(buf_str(&text), hex);
        table_text(table, str_of(hex));
    }
    buf_free(&text);
}

int cmd_proof_list(struct cli *cli)
{
    static const char *const heads[] = {"TIME",   "PURPOSE", ">GPU",       "CLASS",       "RESULT",
                                        ">RATIO", ">PERF",   "REASON",     "GATEWAY",     "CLAIMED",
                                        "DRIVER", ">GIB",    ">PASS GB/S", ">CHAIN TOPS", ">RTT MS"};
    char path[CLI_PATH_MAX];
    json_t *list = NULL, *row;
    bool is_wide = cli->output == CLI_WIDE;
    size_t i;
    if (!http_path(path, "/api/v1/workers/", cli->args[0], "/proofs?limit=100"))
        return cli_fail(CLI_USAGE, "an id that is too long");
    int code = http_list(cli, path, LISTED_MAX, &list);
    if (code || !list)
        return code;
    if (cli->output == CLI_JSON) {
        code = cli_print_json(list);
        json_decref(list);
        return code;
    }
    struct table *table =
        cli->output == CLI_NAME ? table_new(1, NULL, 0) : table_new(is_wide ? COUNT(heads) : 8, heads, 0);
    json_array_foreach(json_object_get(list, "data"), i, row)
    {
        json_t *receipt = cli_receipt(row);
        if (cli->output == CLI_NAME)
            name_row(table, receipt);
        else
            proof_row(table, receipt, is_wide);
        json_decref(receipt);
    }
    if (!table_print(table, stdout))
        code = cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
    table_free(table);
    json_decref(list);
    return code;
}

/* -- verify ------------------------------------------------------------------------------------------------------ */

static int read_file(const char *path, struct buf *to)
{
    bool is_stdin = !strcmp(path, "-");
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    char bytes[65536];
    size_t len;
    int code = CLI_OK;
    if (!file)
        return cli_fail(CLI_USAGE, "cannot read %s: %s", path, strerror(errno));
    while (!code && (len = fread(bytes, 1, sizeof(bytes), file)) > 0)
        if (!buf_append(to, bytes, len))
            code = cli_fail(CLI_FAILED, "%s is larger than %zu bytes", path, FILE_BYTES_MAX);
    if (!code && ferror(file))
        code = cli_fail(CLI_FAILED, "cannot read %s", path);
    if (!is_stdin)
        fclose(file);
    return code;
}

struct log {
    struct str *texts;
    struct receipt_row *rows;
    size_t count;
};

static void log_free(struct log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free((char *)(uintptr_t)log->texts[i].ptr);
    free(log->texts);
    free(log->rows);
}

/* What cannot be a receipt is checked too, as an empty text, so that it shows. */
static bool log_add(struct log *log, const json_t *row)
{
    json_t *receipt = cli_receipt(row);
    struct buf text;
    buf_init(&text, RECEIPT_MAX);
    if (canonical(receipt, &text) != ERR_NONE)
        buf_clear(&text);
    char *copy = strndup(text.ptr ? text.ptr : "", text.len);
    if (copy)
        log->texts[log->count++] = (struct str){copy, text.len};
    buf_free(&text);
    json_decref(receipt);
    return copy != NULL;
}

static int log_read(const char *path, struct log *log)
{
    struct buf bytes;
    json_error_t where;
    buf_init(&bytes, FILE_BYTES_MAX);
    int code = read_file(path, &bytes);
    json_t *root = code ? NULL : json_loadb(bytes.ptr ? bytes.ptr : "", bytes.len, JSON_REJECT_DUPLICATES, &where);
    buf_free(&bytes);
    if (!code && !root)
        code = cli_fail(CLI_FAILED, "%s is no JSON: line %d: %s", path, where.line, where.text);
    const json_t *list = json_is_array(root) ? root : json_object_get(root, "data");
    bool is_list = json_is_array(list);
    size_t count = is_list ? json_array_size(list) : 1;
    if (!code && count > RECEIPT_LOG_MAX)
        code = cli_fail(CLI_FAILED, "%s holds more than %d receipts", path, RECEIPT_LOG_MAX);
    if (!code) {
        log->texts = calloc(count + 1, sizeof(*log->texts));
        log->rows = calloc(count + 1, sizeof(*log->rows));
        bool is_good = log->texts && log->rows;
        for (size_t i = 0; is_good && i < count; i++)
            is_good = log_add(log, is_list ? json_array_get(list, i) : root);
        code = is_good ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
    }
    json_decref(root);
    return code;
}

static const char *signature_name(enum error error)
{
    return error == ERR_NONE ? "good" : error == ERR_DENIED ? "WRONG" : "no receipt";
}

static int print_rows(const struct cli *cli, const struct log *log)
{
    static const char *const heads[] = {"TIME",      "WORKER", "GATEWAY", "CLASS",      "RESULT",
                                        "SIGNATURE", "CHAIN",  "SHA256",  "GATEWAY KEY"};
    size_t columns = cli->output == CLI_WIDE ? COUNT(heads) : COUNT(heads) - 2;
    struct table *table = cli->output == CLI_NAME ? table_new(1, NULL, 0) : table_new(columns, heads, 0);
    char at[CLI_TIME_MAX], key[65];
    for (size_t i = 0; i < log->count; i++) {
        const struct receipt_row *row = &log->rows[i];
        if (cli->output == CLI_NAME) {
            if (!row->error)
                table_text(table, str_of(row->view.sha256));
            continue;
        }
        table_text(table, str_of(cli_time_of(row->view.at_ms, at)));
        table_text(table, str_of(row->view.worker));
        table_text(table, str_of(row->view.gateway));
        table_text(table, str_of(row->view.class_name));
        table_text(table, str_of(row->view.result));
        table_text(table, str_of(signature_name(row->error)));
        table_text(table, str_of(receipt_link_name(row->link)));
        if (cli->output == CLI_WIDE) {
            crypto_hex(row->view.gateway_key, sizeof(row->view.gateway_key), key);
            table_text(table, str_of(row->view.sha256));
            table_text(table, str_of(row->error ? "" : key));
        }
    }
    bool is_good = table_print(table, stdout);
    table_free(table);
    return is_good ? CLI_OK : cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
}

static int print_rows_json(const struct log *log)
{
    json_t *list = json_array();
    char key[65];
    for (size_t i = 0; i < log->count; i++) {
        const struct receipt_row *row = &log->rows[i];
        crypto_hex(row->view.gateway_key, sizeof(row->view.gateway_key), key);
        json_t *item = row->error ? json_pack("{s:s, s:s}", "signature", signature_name(row->error), "chain",
                                              receipt_link_name(row->link))
                                  : json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "at",
                                              (json_int_t)row->view.at_ms, "worker", row->view.worker, "gateway",
                                              row->view.gateway, "gateway_key", key, "class", row->view.class_name,
                                              "result", row->view.result, "signature", signature_name(row->error),
                                              "chain", receipt_link_name(row->link), "sha256", row->view.sha256);
        json_array_append_new(list, item);
    }
    int code = json_array_size(list) == log->count ? cli_print_json(list) : cli_fail(CLI_FAILED, "out of memory");
    json_decref(list);
    return code;
}

int cmd_proof_verify(struct cli *cli)
{
    uint8_t key[32];
    struct log log = {.count = 0};
    if (cli->verify_key && !crypto_unhex(str_of(cli->verify_key), key, sizeof(key)))
        return cli_fail(CLI_USAGE, "--key: want 64 hexadecimal digits");
    int code = log_read(cli->args[0], &log);
    if (!code) {
        size_t wrong = receipt_log_check(log.texts, log.count, cli->verify_key ? key : NULL, log.rows);
        code = cli->output == CLI_JSON ? print_rows_json(&log) : print_rows(cli, &log);
        if (!code && wrong > 0)
            code = cli_fail(CLI_FAILED, "%zu of %zu receipts do not stand", wrong, log.count);
    }
    log_free(&log);
    return code;
}
