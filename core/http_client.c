#include "core/http_priv.h"
#include "core/clock.h"
#include "core/http_watch.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HEADER_MAX_DEFAULT ((size_t)64 << 10)
#define HEADERS_MAX 128
#define FETCHES_POOLED_MAX 64    /* easy handles kept for the next exchange, about 24 KiB each */
#define CONNECTIONS_IDLE_MAX 128 /* keep-alive connections kept over all hosts */
#define CONNECTION_IDLE_S 55     /* under the 60 s and more after which common servers close */
#define RECEIVE_BYTES 16384L

/* What must wait until libcurl is not on the stack. */
enum todo {
    TODO_ADD = 1,    /* hand the handle to the multi */
    TODO_RESUME = 2, /* unpause it */
    TODO_END = 4,    /* take it out and call on_end */
};

struct head_line {
    size_t name_at, name_len, value_at, value_len; /* offsets into head.ptr, which may move while it grows */
};

struct http_fetch {
    struct http_client *client;
    CURL *easy;
    struct http_fetch *next, **link; /* open fetches; or the pool by next */
    struct http_fetch *todo_next;
    unsigned todo;
    bool in_multi, is_connected, is_paused;
    bool is_held;  /* libcurl keeps bytes back because we told it to pause */
    bool is_ended; /* no callback but on_end from now on */
    bool is_told;  /* on_end runs or ran */
    bool is_answered, is_special;
    enum http_end end;
    struct curl_slist *headers;
    struct timer timer; /* total and idle limits */
    int64_t total_due_ns, active_ns;
    curl_off_t uploaded;
    struct buf head;
    struct head_line lines[HEADERS_MAX];
    size_t line_count, received;
    int status;
    bool head_done;
    struct http_request request; /* method, url and headers are not kept */
};

struct http_client {
    struct loop *loop;
    CURLM *multi;
    struct timer timer; /* libcurl's own */
    struct task task;
    struct http_fetch *open, *pool;
    struct http_fetch *todo_first, **todo_last;
    struct http_watches watches;
    size_t pool_count;
    char ca_file[1024]; /* "": the system's */
    int depth;          /* > 0: libcurl is on the stack and takes no calls */
    bool is_closing;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_start(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        abort();
}

static void todo_add(struct http_fetch *fetch, enum todo todo)
{
    struct http_client *client = fetch->client;
    if (!fetch->todo) {
        fetch->todo_next = NULL;
        *client->todo_last = fetch;
        client->todo_last = &fetch->todo_next;
    }
    fetch->todo |= todo;
    loop_defer(client->loop, &client->task);
}

static void fetch_unlink(struct http_fetch *fetch)
{
    *fetch->link = fetch->next;
    if (fetch->next)
        fetch->next->link = fetch->link;
    fetch->link = NULL;
}

static void fetch_destroy(struct http_fetch *fetch)
{
    curl_easy_cleanup(fetch->easy);
    buf_free(&fetch->head);
    free(fetch);
}

static void fetch_leave_multi(struct http_fetch *fetch)
{
    if (!fetch->in_multi)
        return;
    struct http_client *client = fetch->client;
    assert(!client->depth);
    client->depth++;
    if (!fetch->is_connected)
        http_watches_leave(&client->watches, fetch->easy);
    curl_multi_remove_handle(client->multi, fetch->easy);
    client->depth--;
    fetch->in_multi = false;
}

/* Takes the fetch out, tells its owner, and keeps the handle for the next one. */
static void fetch_end(struct http_fetch *fetch, enum http_end end)
{
    struct http_client *client = fetch->client;
    assert(!fetch->todo);
    fetch_leave_multi(fetch);
    timer_clear(client->loop, &fetch->timer);
    fetch_unlink(fetch);
    fetch->is_ended = fetch->is_told = true;
    curl_easy_setopt(fetch->easy, CURLOPT_HTTPHEADER, NULL);
    curl_easy_setopt(fetch->easy, CURLOPT_POSTFIELDS, NULL);
    curl_slist_free_all(fetch->headers);
    fetch->headers = NULL;
    fetch->request.on_end(fetch->request.ctx, end);
    if (client->pool_count >= FETCHES_POOLED_MAX || client->is_closing || fetch->is_special) {
        fetch_destroy(fetch);
        return;
    }
    if (fetch->head.cap > HEADER_MAX_DEFAULT)
        buf_free(&fetch->head);
    fetch->next = client->pool;
    client->pool = fetch;
    client->pool_count++;
}

static bool is_sent(struct http_fetch *fetch)
{
    long sent = 0;
    curl_easy_getinfo(fetch->easy, CURLINFO_REQUEST_SIZE, &sent);
    return sent > 0;
}

/* libcurl by itself sends a request again, up to five times, when a kept connection dies before any byte of an answer.
 * The server may have done the work all the same, so from its first byte on a request gets neither another kept
 * connection nor a new one. */
static int fetch_on_request(void *ctx, char *to_ip, char *from_ip, int to_port, int from_port)
{
    (void)to_ip, (void)from_ip, (void)to_port, (void)from_port;
    struct http_fetch *fetch = ctx;
    fetch->is_connected = true;
    return is_sent(fetch) ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static curl_socket_t fetch_on_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *to)
{
    (void)purpose;
    struct http_fetch *fetch = ctx;
    if (is_sent(fetch))
        return CURL_SOCKET_BAD;
    fetch->is_connected = false;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

static enum http_end end_of(struct http_fetch *fetch, CURLcode code)
{
    if (is_sent(fetch) && (code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UNSUPPORTED_PROTOCOL))
        fetch->is_answered = true; /* by something that is no head */
    if (fetch->is_ended)
        return fetch->end;
    if (code == CURLE_OK)
        return fetch->head_done ? HTTP_END_OK : HTTP_END_BROKEN;
    return is_sent(fetch) ? HTTP_END_BROKEN : HTTP_END_UNREACHABLE;
}

static void completions_read(struct http_client *client)
{
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(client->multi, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        char *owner = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner);
        struct http_fetch *fetch = (void *)owner;
        fetch->end = end_of(fetch, code);
        fetch_leave_multi(fetch);
        if (fetch->todo) { /* queued: the task ends it, so that the queue never holds a freed fetch */
            fetch->is_ended = true;
            todo_add(fetch, TODO_END);
        } else {
            fetch_end(fetch, fetch->end);
        }
    }
}

static void client_act(struct http_client *client, curl_socket_t fd, int mask)
{
    int running;
    client->depth++;
    curl_multi_socket_action(client->multi, fd, mask, &running);
    client->depth--;
    completions_read(client);
}

static void client_on_due(struct timer *timer)
{
    client_act(container_of(timer, struct http_client, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int client_on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    (void)multi;
    struct http_client *client = ctx;
    if (timeout_ms < 0)
        timer_clear(client->loop, &client->timer);
    else
        timer_set(client->loop, &client->timer, loop_now(client->loop) + timeout_ms * NS_PER_MS);
    return 0;
}

static void client_on_ready(void *ctx, curl_socket_t fd, int mask)
{
    client_act(ctx, fd, mask);
}

/* Ends the fetch from inside a callback of libcurl: the callback then answers with an error. */
static size_t fetch_abort(struct http_fetch *fetch, enum http_end end)
{
    if (!fetch->is_ended) {
        fetch->is_ended = true;
        fetch->end = end;
    }
    return 0; /* differs from any size that libcurl gives, so it stops the transfer */
}

static bool head_add(struct http_fetch *fetch, struct str line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (!colon || fetch->line_count == HEADERS_MAX)
        return !colon;
    struct str name = {line.ptr, (size_t)(colon - line.ptr)};
    struct str value = str_trim((struct str){colon + 1, line.len - name.len - 1});
    struct head_line *entry = &fetch->lines[fetch->line_count++];
    *entry = (struct head_line){fetch->head.len, name.len, fetch->head.len + name.len, value.len};
    if (!buf_append_str(&fetch->head, name) || !buf_append_str(&fetch->head, value))
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char *at = &fetch->head.ptr[entry->name_at + i];
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at + 'a' - 'A');
    }
    return true;
}

static void head_deliver(struct http_fetch *fetch)
{
    struct http_header headers[HEADERS_MAX];
    for (size_t i = 0; i < fetch->line_count; i++) {
        const struct head_line *line = &fetch->lines[i];
        headers[i].name = (struct str){fetch->head.ptr + line->name_at, line->name_len};
        headers[i].value = (struct str){fetch->head.ptr + line->value_at, line->value_len};
    }
    fetch->head_done = true;
    if (fetch->request.on_head)
        fetch->request.on_head(fetch->request.ctx, fetch->status, headers, fetch->line_count);
}

static size_t fetch_on_header(char *bytes, size_t size, size_t count, void *ctx)
{
    struct http_fetch *fetch = ctx;
    size_t len = size * count;
    if (fetch->is_ended)
        return len ? 0 : 1;
    fetch->active_ns = loop_now(fetch->client->loop);
    fetch->is_answered = true;
    if (fetch->head_done)
        return len; /* trailers of a chunked body */
    struct str line = {bytes, len};
    while (line.len && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == '\r'))
        line.len--;
    if (str_starts(line, STR("HTTP/"))) {
        long status = 0;
        curl_easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status);
        fetch->status = (int)status;
        fetch->line_count = 0;
        buf_clear(&fetch->head);
    } else if (!line.len) {
        if (fetch->status >= 200)
            head_deliver(fetch);
        if (fetch->is_ended)
            return 0;
    } else if (!head_add(fetch, line)) {
        return fetch_abort(fetch, HTTP_END_TOO_LARGE);
    }
    return len;
}

static size_t fetch_on_body(char *bytes, size_t size, size_t count, void *ctx)
{
    struct http_fetch *fetch = ctx;
    size_t len = size * count;
    if (fetch->is_ended)
        return len ? 0 : 1;
    if (fetch->is_paused) {
        fetch->is_held = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    fetch->active_ns = loop_now(fetch->client->loop);
    if (fetch->request.body_max && len > fetch->request.body_max - fetch->received)
        return fetch_abort(fetch, HTTP_END_TOO_LARGE);
    fetch->received += len;
    if (fetch->request.on_data && len)
        fetch->request.on_data(fetch->request.ctx, (struct str){bytes, len});
    return fetch->is_ended ? 0 : len;
}

/* One timer for both limits, moved only when it fires: a busy stream costs no heap work. */
static void fetch_timer_set(struct http_fetch *fetch)
{
    int64_t due = fetch->total_due_ns;
    if (fetch->request.idle_timeout_ns && fetch->active_ns + fetch->request.idle_timeout_ns < due)
        due = fetch->active_ns + fetch->request.idle_timeout_ns;
    if (due != INT64_MAX)
        timer_set(fetch->client->loop, &fetch->timer, due);
}

static void fetch_on_due(struct timer *timer)
{
    struct http_fetch *fetch = container_of(timer, struct http_fetch, timer);
    if (fetch->is_ended)
        return;
    int64_t now = loop_now(fetch->client->loop);
    curl_off_t uploaded = fetch->uploaded;
    curl_easy_getinfo(fetch->easy, CURLINFO_SIZE_UPLOAD_T, &uploaded);
    if (uploaded != fetch->uploaded || fetch->is_paused)
        fetch->active_ns = now; /* the silence is ours while paused; a body on its way is no silence */
    fetch->uploaded = uploaded;
    bool is_idle = fetch->request.idle_timeout_ns && now - fetch->active_ns >= fetch->request.idle_timeout_ns;
    if (now < fetch->total_due_ns && !is_idle) {
        fetch_timer_set(fetch);
        return;
    }
    fetch_leave_multi(fetch);
    fetch->is_ended = true;
    fetch->end = HTTP_END_DEADLINE;
    todo_add(fetch, TODO_END);
}

static void client_run_todo(struct task *task)
{
    struct http_client *client = container_of(task, struct http_client, task);
    struct http_fetch *fetch = client->todo_first;
    client->todo_first = NULL; /* what callbacks add runs in the next round */
    client->todo_last = &client->todo_first;
    bool has_added = false;
    while (fetch) {
        struct http_fetch *next = fetch->todo_next;
        unsigned todo = fetch->todo;
        fetch->todo = 0;
        if (todo & TODO_END) {
            fetch_end(fetch, fetch->end);
        } else if (todo & TODO_ADD) {
            client->depth++;
            fetch->in_multi = curl_multi_add_handle(client->multi, fetch->easy) == CURLM_OK;
            client->depth--;
            has_added = has_added || fetch->in_multi;
            if (!fetch->in_multi)
                fetch_end(fetch, HTTP_END_UNREACHABLE);
        } else if (!fetch->is_paused && fetch->is_held) {
            fetch->is_held = false;
            client->depth++;
            curl_easy_pause(fetch->easy, CURLPAUSE_CONT);
            client->depth--;
        }
        fetch = next;
    }
    if (has_added)
        client_act(client, CURL_SOCKET_TIMEOUT, 0); /* send in this turn */
    else
        completions_read(client);
}

/* Options that are the same for every exchange. */
static CURL *easy_make(void)
{
    CURL *easy = curl_easy_init();
    if (!easy)
        return NULL;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* none, from the environment neither */
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)CONNECTION_IDLE_S);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, fetch_on_header);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, fetch_on_body);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, fetch_on_request);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, fetch_on_socket);
    if (curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

bool http_client_trust(struct http_client *client, const char *ca_file)
{
    return str_copy(client->ca_file, sizeof(client->ca_file), str_of(ca_file));
}

static struct http_fetch *fetch_take(struct http_client *client)
{
    struct http_fetch *fetch = client->pool;
    if (fetch) {
        client->pool = fetch->next;
        client->pool_count--;
        CURL *easy = fetch->easy;
        struct buf head = fetch->head;
        memset(fetch, 0, sizeof(*fetch));
        fetch->easy = easy;
        fetch->head = head;
        buf_clear(&fetch->head);
    } else {
        if (!(fetch = calloc(1, sizeof(*fetch))))
            return NULL;
        if (!(fetch->easy = easy_make())) {
            free(fetch);
            return NULL;
        }
    }
    fetch->client = client;
    if (client->ca_file[0])
        curl_easy_setopt(fetch->easy, CURLOPT_CAINFO, client->ca_file);
    curl_easy_setopt(fetch->easy, CURLOPT_PRIVATE, fetch);
    curl_easy_setopt(fetch->easy, CURLOPT_HEADERDATA, fetch);
    curl_easy_setopt(fetch->easy, CURLOPT_WRITEDATA, fetch);
    curl_easy_setopt(fetch->easy, CURLOPT_PREREQDATA, fetch);
    curl_easy_setopt(fetch->easy, CURLOPT_OPENSOCKETDATA, fetch);
    return fetch;
}

enum error http_fetch_start(struct http_client *client, const struct http_request *request, struct http_fetch **ret)
{
    assert(request->on_end && request->method && request->url);
    if (client->is_closing)
        return ERR_CLOSED;
    struct http_fetch *fetch = fetch_take(client);
    if (!fetch)
        return ERR_NO_MEMORY;
    fetch->request = *request;
    fetch->head.limit = request->header_max ? request->header_max : HEADER_MAX_DEFAULT;
    enum error error = http_request_set(fetch->easy, request, &fetch->headers);
    if (error) {
        curl_slist_free_all(fetch->headers);
        fetch_destroy(fetch);
        return error;
    }
    fetch->is_special = http_request_is_special(request);
    fetch->request.method = fetch->request.url = NULL;
    fetch->request.headers = NULL;
    fetch->next = client->open;
    fetch->link = &client->open;
    if (client->open)
        client->open->link = &fetch->next;
    client->open = fetch;
    fetch->active_ns = loop_now(client->loop);
    fetch->total_due_ns = request->total_timeout_ns ? fetch->active_ns + request->total_timeout_ns : INT64_MAX;
    fetch->timer.on_due = fetch_on_due;
    fetch_timer_set(fetch);
    todo_add(fetch, TODO_ADD);
    *ret = fetch;
    return ERR_NONE;
}

void http_fetch_cancel(struct http_fetch *fetch)
{
    if (fetch->is_told)
        return;
    if (!fetch->is_ended) {
        fetch->is_ended = true;
        fetch->end = HTTP_END_CANCELLED;
    }
    if (!fetch->client->depth)
        fetch_leave_multi(fetch);
    todo_add(fetch, TODO_END);
}

bool http_fetch_was_answered(const struct http_fetch *fetch)
{
    return fetch->is_answered;
}

void http_fetch_pause(struct http_fetch *fetch, bool paused)
{
    if (fetch->is_ended || fetch->is_paused == paused)
        return;
    fetch->is_paused = paused;
    if (!paused) {
        fetch->active_ns = loop_now(fetch->client->loop);
        if (fetch->is_held)
            todo_add(fetch, TODO_RESUME);
    }
}

enum error http_client_open(struct loop *loop, struct http_client **ret)
{
    pthread_once(&curl_once, curl_start);
    struct http_client *client = calloc(1, sizeof(*client));
    if (!client || !(client->multi = curl_multi_init())) {
        free(client);
        return ERR_NO_MEMORY;
    }
    client->loop = loop;
    client->timer.on_due = client_on_due;
    client->task.run = client_run_todo;
    client->todo_last = &client->todo_first;
    client->watches =
        (struct http_watches){.loop = loop, .multi = client->multi, .on_ready = client_on_ready, .ctx = client};
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, http_watches_set);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, &client->watches);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, client_on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_IDLE_MAX);
    *ret = client;
    return ERR_NONE;
}

struct http_client *http_client_free(struct http_client *client)
{
    if (!client)
        return NULL;
    assert(!client->depth);
    client->is_closing = true;
    while (client->open) {
        struct http_fetch *fetch = client->open;
        fetch->todo = 0;
        fetch_end(fetch, fetch->is_ended ? fetch->end : HTTP_END_CANCELLED);
    }
    while (client->pool) {
        struct http_fetch *next = client->pool->next;
        fetch_destroy(client->pool);
        client->pool = next;
    }
    curl_multi_cleanup(client->multi);
    loop_undefer(client->loop, &client->task);
    timer_clear(client->loop, &client->timer);
    http_watches_free(&client->watches);
    free(client);
    return NULL;
}
