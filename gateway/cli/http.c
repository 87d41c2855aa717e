#include "gateway/cli/http.h"

#include "core/crypto.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX ((size_t)32 << 20)
#define CONNECT_S 5L
#define TOTAL_S 150L /* a proof is waited for */
#define QUIET_S 60L
#define TRIES_MOST 3 /* of a POST whose answer was lost */
#define PAGES_MAX 1000
#define HEADER_MAX 512

bool http_path(char ret[static CLI_PATH_MAX], const char *before, const char *word, const char *behind)
{
    char *escaped = curl_easy_escape(NULL, word, 0);
    int len = escaped ? snprintf(ret, CLI_PATH_MAX, "%s%s%s", before, escaped, behind) : CLI_PATH_MAX;
    curl_free(escaped);
    return len < CLI_PATH_MAX;
}

/* -- one request ------------------------------------------------------------------------------------------------- */

struct request {
    const char *method, *path;
    const char *body; /* JSON; of POSTs */
    bool is_endless;
};

struct answer {
    struct buf body;
    long status;
    CURL *curl;
    bool (*on_bytes)(void *ctx, struct str bytes); /* NULL: all of it is kept in body */
    void *ctx;
    bool is_enough;
};

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
    struct answer *answer = ctx;
    long status = 0;
    if (answer->on_bytes && !curl_easy_getinfo(answer->curl, CURLINFO_RESPONSE_CODE, &status) && status == 200) {
        answer->is_enough = !answer->on_bytes(answer->ctx, (struct str){bytes, size * count});
        return answer->is_enough ? 0 : size * count;
    }
    return buf_append(&answer->body, bytes, size * count) ? size * count : 0;
}

static bool header_add(struct curl_slist **headers, const char *format, const char *value)
{
    char line[HEADER_MAX];
    int len = snprintf(line, sizeof(line), format, value);
    struct curl_slist *longer = (size_t)len < sizeof(line) ? curl_slist_append(*headers, line) : NULL;
    crypto_wipe(line, sizeof(line));
    if (longer)
        *headers = longer;
    return longer != NULL;
}

static void headers_free(struct curl_slist *headers)
{
    for (struct curl_slist *at = headers; at; at = at->next)
        crypto_wipe(at->data, strlen(at->data)); /* one of them holds the key */
    curl_slist_free_all(headers);
}

static bool is_post(const char *method)
{
    return !strcmp(method, "POST");
}

static bool set_options(CURL *curl, const struct request *request, const char *url, struct curl_slist *headers,
                        struct answer *answer)
{
    CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, url);
    code |= curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    code |= curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
    code |= curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    code |= curl_easy_setopt(curl, CURLOPT_PROXY, "");
    code |= curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    code |= curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
    code |= curl_easy_setopt(curl, CURLOPT_TIMEOUT, request->is_endless ? 0L : TOTAL_S);
    code |= curl_easy_setopt(curl, CURLOPT_USERAGENT, "sluice");
    code |= curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    code |= curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    if (request->is_endless) { /* a gateway sends something every 15 s */
        code |= curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        code |= curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, QUIET_S);
    }
    if (is_post(request->method))
        code |= curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body);
    return code == CURLE_OK;
}

/* An answer to the same POST, sent again with the same key, is the first one's. */
static bool make_headers(const struct cli *cli, const char *method, struct curl_slist **ret)
{
    uint8_t random[16];
    char hex[33];
    bool is_good = header_add(ret, "Accept: %s", "application/json");
    if (cli->key[0])
        is_good = is_good && header_add(ret, "Authorization: Bearer %s", cli->key);
    if (!is_post(method))
        return is_good;
    crypto_random(random, sizeof(random));
    crypto_hex(random, sizeof(random), hex);
    return is_good && header_add(ret, "Content-Type: %s", "application/json") &&
           header_add(ret, "Idempotency-Key: %s", hex);
}

static CURLcode perform(CURL *curl, const struct request *request, struct answer *answer)
{
    CURLcode code = curl_easy_perform(curl);
    for (int tries = 1; is_post(request->method) && tries < TRIES_MOST &&
                        (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR);
         tries++) {
        buf_clear(&answer->body);
        code = curl_easy_perform(curl);
    }
    return code;
}

static int send_request(struct cli *cli, const struct request *request, struct answer *answer)
{
    char url[CLI_PATH_MAX + 512];
    struct curl_slist *headers = NULL;
    CURL *curl = curl_easy_init();
    int exit_code = CLI_OK;
    int len = snprintf(url, sizeof(url), "%s%s", cli->gateway, request->path);
    answer->curl = curl;
    if (!curl || (size_t)len >= sizeof(url) || !make_headers(cli, request->method, &headers) ||
        !set_options(curl, request, url, headers, answer)) {
        exit_code = cli_fail(CLI_FAILED, "the request could not be made");
    } else {
        CURLcode code = perform(curl, request, answer);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
        if (code == CURLE_WRITE_ERROR && answer->is_enough)
            exit_code = CLI_OK;
        else if (code == CURLE_WRITE_ERROR)
            exit_code = cli_fail(CLI_FAILED, "the answer is larger than %zu bytes", BODY_MAX);
        else if (code != CURLE_OK)
            exit_code = cli_fail(CLI_UNREACHABLE, "no answer from %s: %s (--gateway or SLUICE_GATEWAY names another)",
                                 cli->gateway, curl_easy_strerror(code));
    }
    curl_easy_cleanup(curl);
    headers_free(headers);
    return exit_code;
}

/* -- its meaning ------------------------------------------------------------------------------------------------- */

static int refused(const struct cli *cli, long status, const json_t *root)
{
    struct str message = cli_text(json_object_get(root, "error"), "message");
    int code = status == 401 || status == 403 ? CLI_UNAUTHORISED : status == 404 ? CLI_NOT_FOUND : CLI_FAILED;
    if (message.len == 0)
        message = status == 404 ? STR("This gateway has no such thing.") : STR("The gateway gave no reason.");
    if (status == 401)
        return cli_fail(code, "%.400s (SLUICE_ADMIN_KEY, SLUICE_API_KEY or --key-file holds the key)", message.ptr);
    if (status == 403 && (cli->key_file || strcmp(cli->key_variable, "SLUICE_ADMIN_KEY") != 0))
        return cli_fail(code, "%.400s (the gateway made one in its data folder, as admin.key: see --key-file)",
                        message.ptr);
    return cli_fail(code, "%.400s (status %ld)", message.ptr, status);
}

/* For a shell: in single quotes, and those as '\''. */
static void print_quoted(const char *text)
{
    putchar('\'');
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    putchar('\'');
}

static void print_curl(const struct cli *cli, const struct request *request)
{
    char url[CLI_PATH_MAX + 512];
    snprintf(url, sizeof(url), "%s%s", cli->gateway, request->path);
    printf("curl -sS%s -X %s", request->is_endless ? " -N" : "", request->method);
    if (cli->key_file) {
        fputs(" -H \"Authorization: Bearer $(cat ", stdout);
        print_quoted(cli->key_file);
        fputs(")\"", stdout);
    } else {
        printf(" -H \"Authorization: Bearer $%s\"", cli->key_variable);
    }
    if (is_post(request->method)) {
        fputs(" -H 'Content-Type: application/json' -d ", stdout);
        print_quoted(request->body);
    }
    putchar(' ');
    print_quoted(url);
    putchar('\n');
}

static int call(struct cli *cli, const struct request *request, struct answer *answer, json_t **ret)
{
    if (cli->is_curl) {
        print_curl(cli, request);
        return CLI_OK;
    }
    buf_init(&answer->body, BODY_MAX);
    int code = send_request(cli, request, answer);
    json_t *root = NULL;
    if (!code && answer->body.len > 0)
        root = json_loadb(answer->body.ptr, answer->body.len, JSON_REJECT_DUPLICATES, NULL);
    if (!code && (answer->status < 200 || answer->status > 299))
        code = refused(cli, answer->status, root);
    else if (!code && answer->body.len > 0 && !root)
        code = cli_fail(CLI_FAILED, "%s does not answer as a gateway does", cli->gateway);
    buf_free(&answer->body);
    if (code)
        json_decref(root);
    else
        *ret = root;
    return code;
}

int http_call(struct cli *cli, const char *method, const char *path, json_t **ret)
{
    return http_send(cli, method, path, NULL, ret);
}

int http_send(struct cli *cli, const char *method, const char *path, const json_t *body, json_t **ret)
{
    char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    struct request request = {.method = method, .path = path, .body = text ? text : "{}"};
    struct answer answer = {.status = 0};
    *ret = NULL;
    int code = body && !text ? cli_fail(CLI_FAILED, "out of memory") : call(cli, &request, &answer, ret);
    free(text);
    return code;
}

int http_read(struct cli *cli, const char *path, bool (*on_bytes)(void *ctx, struct str bytes), void *ctx)
{
    struct request request = {.method = "GET", .path = path, .is_endless = true};
    struct answer answer = {.on_bytes = on_bytes, .ctx = ctx};
    json_t *none = NULL;
    int code = call(cli, &request, &answer, &none);
    json_decref(none);
    return code;
}

static bool append(char path[static CLI_PATH_MAX], const char *text)
{
    size_t len = strlen(path);
    return str_copy(path + len, CLI_PATH_MAX - len, str_of(text));
}

int http_list(struct cli *cli, const char *path, size_t most, json_t **ret)
{
    char page_path[CLI_PATH_MAX], cursor_text[CLI_PATH_MAX], cursor[256] = "";
    json_t *rows = json_array();
    int code = rows ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
    *ret = NULL;
    if (most == 0 || most > HTTP_LIST_MAX)
        most = HTTP_LIST_MAX;
    for (int pages = 0; !code && pages < PAGES_MAX && json_array_size(rows) < most; pages++) {
        json_t *page = NULL;
        if (snprintf(page_path, sizeof(page_path), "%s", path) >= CLI_PATH_MAX ||
            (cursor[0] && (!http_path(cursor_text, strchr(path, '?') ? "&cursor=" : "?cursor=", cursor, "") ||
                           !append(page_path, cursor_text))))
            code = cli_fail(CLI_FAILED, "the gateway's cursor is too long");
        if (!code)
            code = http_call(cli, "GET", page_path, &page);
        const json_t *data = json_object_get(page, "data");
        if (!code && !cli->is_curl && (!json_is_array(data) || json_array_extend(rows, (json_t *)(uintptr_t)data) != 0))
            code = cli_fail(CLI_FAILED, "%s does not answer as a gateway does", cli->gateway);
        bool has_next = str_copy(cursor, sizeof(cursor), cli_text(page, "next")) && cursor[0];
        json_decref(page);
        if (!has_next)
            break;
        if (!code && pages + 1 == PAGES_MAX)
            code = cli_fail(CLI_FAILED, "the gateway's list has no end");
    }
    if (!code && !cli->is_curl)
        *ret = json_pack("{s:s, s:O}", "object", "list", "data", rows);
    json_decref(rows);
    return code;
}
