/* Answers of the HTTP server: whole ones and streams. */
#include "core/httpd_priv.h"
#include "core/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    STREAM_BLOCK = 16384,
    FIELDS_BYTES = 4096, /* of an answer's fields that are given to libmicrohttpd as one */
    FIELDS_JOINED = 32,
};

static void response_field(struct MHD_Response *response, const struct httpd_field *field)
{
    if (MHD_add_response_header(response, field->name, field->value) != MHD_YES)
        log_warn(NULL, "header %s could not be set", field->name);
}

/* libmicrohttpd checks and copies each field for itself, which together costs more than the rest of an answer: all of
 * them go in as the value of the first one, with its line ends put in afterwards. What does not fit goes in singly. */
static void response_fields(struct MHD_Response *response, const struct httpd_field *fields, size_t count)
{
    char block[FIELDS_BYTES];
    size_t ends[FIELDS_JOINED], end_count = 0, len = 0;
    const char *name = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t name_len = strlen(fields[i].name), value_len = strlen(fields[i].value);
        if (value_len == 0 || strpbrk(fields[i].value, "\r\n") || end_count == FIELDS_JOINED ||
            name_len + value_len + 5 > sizeof(block) - len) {
            response_field(response, &fields[i]);
            continue;
        }
        if (name) {
            ends[end_count++] = len;
            memcpy(block + len, "  ", 2);
            memcpy(block + len + 2, fields[i].name, name_len);
            memcpy(block + len + 2 + name_len, ": ", 2);
            len += name_len + 4;
        }
        name = name ? name : fields[i].name;
        memcpy(block + len, fields[i].value, value_len);
        len += value_len;
    }
    if (!name)
        return;
    block[len] = '\0';
    response_field(response, &(struct httpd_field){name, block});
    char *value = (char *)(uintptr_t)MHD_get_response_header(response, name);
    for (size_t i = 0; value && i < end_count; i++)
        memcpy(value + ends[i], "\r\n", 2);
}

static void call_answered(struct call *call, int status)
{
    call->status = status;
    struct conn *conn = call->conn;
    if (!call->response) /* out of memory: the connection closes without an answer */
        call->is_gone = true;
    httpd_conn_watch_reader(conn, true);
    httpd_call_resume(call);
}

void httpd_answer(struct httpd_call *public, int status, const struct httpd_field *fields, size_t count,
                  struct buf *take_body)
{
    struct call *call = httpd_call_of(public);
    assert(!call->response);
    if (call->is_gone) {
        buf_free(take_body);
        return;
    }
    struct buf body = {0};
    if (take_body) {
        body = *take_body;
        *take_body = (struct buf){0};
    }
    call->response = MHD_create_response_from_buffer(body.len, body.ptr, MHD_RESPMEM_MUST_FREE);
    if (call->response)
        response_fields(call->response, fields, count);
    else
        free(body.ptr);
    call_answered(call, status);
}

void httpd_answer_static(struct httpd_call *public, int status, const struct httpd_field *fields, size_t count,
                         struct str body)
{
    struct call *call = httpd_call_of(public);
    assert(!call->response);
    if (call->is_gone)
        return;
    call->response = MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)body.ptr, MHD_RESPMEM_PERSISTENT);
    if (call->response)
        response_fields(call->response, fields, count);
    call_answered(call, status);
}

static ssize_t stream_read(void *cls, uint64_t position, char *to, size_t max)
{
    struct call *call = cls;
    struct httpd *httpd = call->conn->httpd;
    (void)position;
    size_t left = call->out.len - call->out_at;
    if (left == 0) {
        if (call->is_broken || call->is_gone)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (call->is_ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        httpd_call_suspend(call);
        return 0;
    }
    size_t taken = left < max ? left : max;
    memcpy(to, call->out.ptr + call->out_at, taken);
    call->out_at += taken;
    if (call->out_at == call->out.len) {
        buf_clear(&call->out);
        call->out_at = 0;
    }
    if (call->was_high && call->out.len - call->out_at < HTTPD_STREAM_LOW) {
        call->was_high = false;
        if (!call->is_ended && !call->is_broken)
            httpd->options.ops->on_drained(httpd->options.ctx, &call->public);
    }
    return (ssize_t)taken;
}

void httpd_stream(struct httpd_call *public, int status, const struct httpd_field *fields, size_t count)
{
    struct call *call = httpd_call_of(public);
    assert(!call->response);
    if (call->is_gone)
        return;
    call->is_stream = true;
    buf_init(&call->out, 0);
    call->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, call, NULL);
    if (call->response)
        response_fields(call->response, fields, count);
    call_answered(call, status);
}

bool httpd_write(struct httpd_call *public, struct str bytes)
{
    struct call *call = httpd_call_of(public);
    if (call->is_gone)
        return true;
    assert(call->is_stream && !call->is_ended && !call->is_broken);
    if (call->out_at > HTTPD_STREAM_HIGH) {
        buf_drop_front(&call->out, call->out_at);
        call->out_at = 0;
    }
    if (!buf_append_str(&call->out, bytes))
        return false;
    if (call->out.len - call->out_at > HTTPD_STREAM_HIGH)
        call->was_high = true;
    httpd_call_resume(call);
    return true;
}

size_t httpd_queued(const struct httpd_call *public)
{
    const struct call *call = httpd_call_of(public);
    return call->out.len - call->out_at;
}

void httpd_finish(struct httpd_call *public, const struct httpd_field *trailers, size_t count)
{
    struct call *call = httpd_call_of(public);
    if (call->is_gone)
        return;
    for (size_t i = 0; i < count; i++)
        if (MHD_add_response_footer(call->response, trailers[i].name, trailers[i].value) != MHD_YES)
            log_warn(NULL, "trailer %s could not be set", trailers[i].name);
    call->is_ended = true;
    httpd_call_resume(call);
}

void httpd_break(struct httpd_call *public)
{
    struct call *call = httpd_call_of(public);
    if (call->is_gone)
        return;
    call->is_broken = true;
    httpd_call_resume(call);
}
