/* A request in libcurl's terms. */
#include "core/http_priv.h"
#include "core/clock.h"

#include <string.h>

#define CONNECT_TIMEOUT_DEFAULT (5 * NS_PER_S)
#define HEADER_LINE_MAX ((size_t)64 << 10)

static bool is_clean(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '\r' || s.ptr[i] == '\n' || s.ptr[i] == '\0')
            return false;
    return true;
}

static enum error slist_add(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (!longer)
        return ERR_NO_MEMORY;
    *list = longer;
    return ERR_NONE;
}

bool http_request_is_special(const struct http_request *request)
{
    return request->aws_sigv4 || request->ca_file || request->client_cert || request->client_key;
}

static bool special_set(CURL *easy, const struct http_request *request)
{
    if (request->aws_sigv4 && (curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, request->aws_sigv4) != CURLE_OK ||
                               curl_easy_setopt(easy, CURLOPT_USERNAME, request->user) != CURLE_OK ||
                               curl_easy_setopt(easy, CURLOPT_PASSWORD, request->password) != CURLE_OK))
        return false;
    return (!request->ca_file || curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file) == CURLE_OK) &&
           (!request->client_cert || curl_easy_setopt(easy, CURLOPT_SSLCERT, request->client_cert) == CURLE_OK) &&
           (!request->client_key || curl_easy_setopt(easy, CURLOPT_SSLKEY, request->client_key) == CURLE_OK);
}

static enum error headers_set(CURL *easy, const struct http_request *request, struct curl_slist **list)
{
    bool has_type = false;
    struct buf line;
    buf_init(&line, HEADER_LINE_MAX);
    /* no waiting for 100-continue; where all headers are signed, this one would be signed and not sent */
    enum error error = request->aws_sigv4 ? ERR_NONE : slist_add(list, "Expect:");
    for (size_t i = 0; !error && i < request->header_count; i++) {
        const struct http_header *header = &request->headers[i];
        buf_clear(&line);
        if (!header->name.len || !is_clean(header->name) || !is_clean(header->value) ||
            memchr(header->name.ptr, ':', header->name.len))
            error = ERR_BAD_INPUT;
        else if (!buf_append_str(&line, header->name) || !buf_append_str(&line, STR(": ")) ||
                 !buf_append_str(&line, header->value))
            error = ERR_TOO_LARGE;
        if (!error && !str_trim(header->value).len) { /* libcurl's way to write a header without a value */
            line.len = header->name.len;
            line.ptr[line.len++] = ';';
        }
        if (!error && !buf_append(&line, "", 1))
            error = ERR_TOO_LARGE;
        if (!error)
            error = slist_add(list, line.ptr);
        has_type = has_type || str_eq_nocase(header->name, STR("content-type"));
    }
    if (!error && !has_type && !request->aws_sigv4)
        error = slist_add(list, "Content-Type:"); /* libcurl would call a body a form */
    buf_free(&line);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *list);
    return error;
}

enum error http_request_set(CURL *easy, const struct http_request *request, struct curl_slist **ret_headers)
{
    const char *method = request->method;
    bool is_head = !strcmp(method, "HEAD"), is_post = !strcmp(method, "POST");
    bool has_body = request->body.len || is_post;
    bool is_implied = is_post || (!has_body && (is_head || !strcmp(method, "GET")));
    int64_t connect_ns = request->connect_timeout_ns ? request->connect_timeout_ns : CONNECT_TIMEOUT_DEFAULT;
    curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L); /* clears what the exchange before has set */
    if (has_body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.len ? request->body.ptr : "");
    } else if (is_head) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    long connect_ms = (long)((connect_ns + NS_PER_MS - 1) / NS_PER_MS);
    bool is_set = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, is_implied ? NULL : method) == CURLE_OK &&
                  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) == CURLE_OK &&
                  curl_easy_setopt(easy, CURLOPT_URL, request->url) == CURLE_OK && special_set(easy, request);
    return is_set ? headers_set(easy, request, ret_headers) : ERR_NO_MEMORY;
}
