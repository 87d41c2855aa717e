/* Links: dialling, TLS with a pinned certificate, the hello, and the watch over links that went silent. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_NS (5 * NS_PER_S) /* TCP, TLS and the hello together */
#define STEADY_NS (2 * NS_PER_S)  /* a link that lived this long starts the back-off afresh */
#define PING_AFTER_NS (3 * NS_PER_S)
#define SILENCE_NS (10 * NS_PER_S) /* of the gateway, pings included */

/* Resolves a name on the helper thread; outlives its link if that goes first. */
struct lookup {
    struct job job;
    struct agent_link *link; /* NULL: nobody waits */
    char host[256], port[8];
    struct addrinfo *found;
};

/* Drops what the link holds of its connection; whatever state it is in. */
static void link_drop(struct agent_link *link)
{
    struct loop *loop = link->agent->loop;
    timer_clear(loop, &link->timer);
    loop_remove(loop, &link->io);
    if (link->lookup)
        link->lookup->link = NULL;
    link->lookup = NULL;
    if (link->h2)
        link->h2 = h2_free(link->h2);
    link->handshake = tls_handshake_cancel(link->handshake);
    SSL_free(link->tls);
    link->tls = NULL;
    link->tls_client = tls_client_free(link->tls_client);
    if (link->io.fd >= 0)
        close(link->io.fd);
    link->io.fd = -1;
    crypto_wipe(link->out, sizeof(link->out));
    link->state = LINK_WAITING;
}

/* The link is gone: again later. */
static void link_lost(struct agent_link *link, const char *why)
{
    struct agent *agent = link->agent;
    struct log_ctx ctx = agent_log(agent);
    bool was_up = link->state == LINK_UP;
    if (was_up && loop_now(agent->loop) - link->up_ns > STEADY_NS)
        backoff_reset(&link->backoff);
    link_drop(link);
    if (was_up || link->backoff.span_ns == 0)
        log_info(&ctx, "link to gateway %s (%s:%s) %s: %s", link->gateway->id, link->gateway->host, link->gateway->port,
                 was_up ? "lost" : "failed", why);
    agent_link_closed(agent);
    if (agent->is_draining || agent->is_freeing)
        return;
    timer_set(agent->loop, &link->timer, loop_now(agent->loop) + backoff_next(&link->backoff));
    if (agent_links_open(agent) == 0) /* else a gateway that is there tells where the others are */
        agent_register_soon(agent);
}

/* -- up ---------------------------------------------------------------------------------------------------------- */

static void link_on_h2_close(void *ctx, enum error error)
{
    struct agent_link *link = ctx;
    link_lost(link, error_text(error));
}

static void link_up(struct agent_link *link, struct str early)
{
    struct agent *agent = link->agent;
    struct log_ctx log = agent_log(agent);
    struct h2_options options = {.tls = link->tls,
                                 .is_server = true,
                                 .early = early,
                                 .on_request = agent_on_request,
                                 .on_close = link_on_h2_close,
                                 .ctx = link};
    loop_remove(agent->loop, &link->io);
    timer_clear(agent->loop, &link->timer);
    enum error error = h2_open(agent->loop, link->io.fd, &options, &link->h2);
    if (error) {
        link_lost(link, error_text(error));
        return;
    }
    link->io.fd = -1;
    link->tls = NULL;
    link->state = LINK_UP;
    link->up_ns = loop_now(agent->loop);
    backoff_reset(&agent->register_backoff);
    log_info(&log, "link to gateway %s (%s:%s) is up", link->gateway->id, link->gateway->host, link->gateway->port);
}

/* -- the hello --------------------------------------------------------------------------------------------------- */

static void link_on_answer(struct agent_link *link)
{
    char *end = memchr(link->in, '\n', link->in_len);
    if (!end) {
        if (link->in_len == sizeof(link->in))
            link_lost(link, "no answer to the hello");
        return;
    }
    struct str line = {link->in, (size_t)(end - link->in)};
    struct str early = {end + 1, link->in_len - line.len - 1};
    if (str_starts(line, STR("OK "))) {
        link_up(link, early);
        return;
    }
    struct log_ctx log = agent_log(link->agent);
    if (str_eq(line, STR("NO denied"))) {
        log_warn(&log, "gateway %s does not know this worker; registering again", link->gateway->id);
        agent_register_soon(link->agent);
    }
    link_lost(link, str_starts(line, STR("NO ")) ? "refused" : "not a gateway's answer");
}

/* Reads and writes until the socket has enough. False: the link is lost; why in *ret_why. */
static bool link_talk(struct agent_link *link, const char **ret_why)
{
    *ret_why = "connection closed";
    while (link->out_at < link->out_len) {
        size_t left = link->out_len - link->out_at;
        ssize_t n = link->tls ? SSL_write(link->tls, link->out + link->out_at, (int)left)
                              : send(link->io.fd, link->out + link->out_at, left, MSG_NOSIGNAL);
        if (n <= 0) {
            int need = link->tls ? SSL_get_error(link->tls, (int)n) : 0;
            return link->tls ? need == SSL_ERROR_WANT_READ || need == SSL_ERROR_WANT_WRITE : errno == EAGAIN;
        }
        link->out_at += (size_t)n;
    }
    while (link->in_len < sizeof(link->in) && !memchr(link->in, '\n', link->in_len)) {
        size_t room = sizeof(link->in) - link->in_len;
        ssize_t n = link->tls ? SSL_read(link->tls, link->in + link->in_len, (int)room)
                              : read(link->io.fd, link->in + link->in_len, room);
        if (n <= 0) {
            int need = link->tls ? SSL_get_error(link->tls, (int)n) : 0;
            return link->tls ? need == SSL_ERROR_WANT_READ || need == SSL_ERROR_WANT_WRITE : n < 0 && errno == EAGAIN;
        }
        link->in_len += (size_t)n;
    }
    return true;
}

static void link_hello(struct agent_link *link)
{
    struct agent *agent = link->agent;
    int len = snprintf(link->out, sizeof(link->out), "SLUICE-LINK/1 %s %s %s\n", agent->state.worker_id,
                       agent->state.secret, agent->boot_id);
    link->out_len = (size_t)len < sizeof(link->out) ? (size_t)len : 0;
    link->out_at = link->in_len = 0;
    link->state = LINK_HELLO;
}

/* -- TLS --------------------------------------------------------------------------------------------------------- */

static void link_on_handshake(void *ctx, enum error error)
{
    struct agent_link *link = ctx;
    link->handshake = NULL;
    if (error == ERR_DENIED)
        link_lost(link, "its certificate is not the one that registration told");
    else if (error || loop_add(link->agent->loop, &link->io, EPOLLIN | EPOLLOUT) != ERR_NONE)
        link_lost(link, "TLS failed");
    else
        link_hello(link);
}

/* The handshake has the socket until it is done. */
static bool link_start_tls(struct agent_link *link)
{
    static const uint8_t none[SHA256_BYTES];
    struct agent_gateway *gateway = link->gateway;
    struct loop *loop = link->agent->loop;
    char hex[SHA256_HEX];
    crypto_hex(gateway->pin, sizeof(gateway->pin), hex);
    struct str pin = memcmp(gateway->pin, none, sizeof(none)) ? str_of(hex) : (struct str){NULL, 0};
    loop_remove(loop, &link->io);
    link->state = LINK_HANDSHAKE;
    const char *ca = link->agent->options.ca;
    return tls_client_open(pin, &link->tls_client) == ERR_NONE &&
           (pin.ptr || !ca[0] || tls_client_trust(link->tls_client, ca) == ERR_NONE) &&
           tls_client_new(link->tls_client, gateway->host, &link->tls) == ERR_NONE &&
           tls_handshake_start(loop, link->io.fd, link->tls, false, loop_now(loop) + CONNECT_NS, link_on_handshake,
                               link, &link->handshake) == ERR_NONE;
}

/* -- connecting -------------------------------------------------------------------------------------------------- */

/* Connected, or not. */
static void link_on_connect(struct agent_link *link)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(link->io.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
        link_lost(link, error ? strerror(error) : "no connection");
    else if (!link->gateway->tls)
        link_hello(link);
    else if (!link_start_tls(link))
        link_lost(link, "TLS could not start");
}

static void link_on_ready(struct io_source *source, uint32_t events)
{
    struct agent_link *link = container_of(source, struct agent_link, io);
    const char *why = "";
    (void)events;
    if (link->state == LINK_CONNECTING)
        link_on_connect(link);
    if (link->state != LINK_HELLO)
        return;
    if (!link_talk(link, &why)) {
        link_lost(link, why);
        return;
    }
    bool wants_out = link->tls ? SSL_want_write(link->tls) : link->out_at < link->out_len;
    if (loop_modify(link->agent->loop, source, wants_out ? EPOLLIN | EPOLLOUT : EPOLLIN) != ERR_NONE)
        link_lost(link, "epoll failed");
    else
        link_on_answer(link);
}

static bool is_loopback(const struct sockaddr *at)
{
    if (at->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)at)->sin_addr.s_addr) >> 24 == 127;
    return at->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)at)->sin6_addr);
}

static void link_connect(struct agent_link *link, const struct addrinfo *to)
{
    struct loop *loop = link->agent->loop;
    int one = 1;
    unsigned unacknowledged_ms = (unsigned)(SILENCE_NS / NS_PER_MS);
    if (!link->gateway->tls && !is_loopback(to->ai_addr)) {
        link_lost(link, "the secret goes without TLS over loopback only");
        return;
    }
    link->io.fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    link->io.on_ready = link_on_ready;
    link->state = LINK_CONNECTING;
    if (link->io.fd < 0) {
        link_lost(link, strerror(errno));
        return;
    }
    setsockopt(link->io.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(link->io.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof(unacknowledged_ms));
    if (connect(link->io.fd, to->ai_addr, to->ai_addrlen) != 0 && errno != EINPROGRESS)
        link_lost(link, strerror(errno));
    else if (loop_add(loop, &link->io, EPOLLOUT) != ERR_NONE)
        link_lost(link, "epoll failed");
}

static void lookup_run(struct job *job)
{
    struct lookup *lookup = container_of(job, struct lookup, job);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    if (getaddrinfo(lookup->host, lookup->port, &hints, &lookup->found) != 0)
        lookup->found = NULL;
}

/* A name may have several addresses of which one works: each dial takes the next. */
static const struct addrinfo *address_to_try(const struct addrinfo *found, unsigned tries)
{
    unsigned count = 0;
    for (const struct addrinfo *at = found; at; at = at->ai_next)
        count++;
    for (tries %= count; tries > 0; tries--)
        found = found->ai_next;
    return found;
}

static void lookup_done(struct job *job, bool cancelled)
{
    struct lookup *lookup = container_of(job, struct lookup, job);
    struct agent_link *link = cancelled ? NULL : lookup->link;
    if (link) {
        link->lookup = NULL;
        if (lookup->found)
            link_connect(link, address_to_try(lookup->found, link->tries++));
        else
            link_lost(link, "its name does not resolve");
    }
    if (lookup->found)
        freeaddrinfo(lookup->found);
    free(lookup);
}

static void link_look_up(struct agent_link *link)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup) {
        lookup->job.run = lookup_run;
        lookup->job.done = lookup_done;
        lookup->link = link;
    }
    if (!lookup || !str_copy(lookup->host, sizeof(lookup->host), str_of(link->gateway->host)) ||
        !str_copy(lookup->port, sizeof(lookup->port), str_of(link->gateway->port)) ||
        helper_give(link->agent->helper, &lookup->job) != ERR_NONE) {
        free(lookup);
        link_lost(link, "its name cannot be looked up now");
        return;
    }
    link->lookup = lookup;
    link->state = LINK_RESOLVING;
}

void agent_link_dial(struct agent_link *link)
{
    struct agent *agent = link->agent;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found = NULL;
    if (link->state != LINK_WAITING || agent->is_draining || !agent->state.secret[0])
        return;
    timer_set(agent->loop, &link->timer, loop_now(agent->loop) + CONNECT_NS);
    if (getaddrinfo(link->gateway->host, link->gateway->port, &hints, &found) != 0) {
        link_look_up(link);
        return;
    }
    link_connect(link, found);
    freeaddrinfo(found);
}

static void link_on_due(struct timer *timer)
{
    struct agent_link *link = container_of(timer, struct agent_link, timer);
    if (link->state == LINK_WAITING)
        agent_link_dial(link);
    else
        link_lost(link, "no answer in time");
}

struct agent_link *agent_link_new(struct agent *agent, struct agent_gateway *gateway)
{
    struct agent_link *link = calloc(1, sizeof(*link));
    if (!link)
        return NULL;
    link->agent = agent;
    link->gateway = gateway;
    link->io.fd = -1;
    link->timer.on_due = link_on_due;
    return link;
}

struct agent_link *agent_link_free(struct agent_link *link)
{
    if (!link)
        return NULL;
    link_drop(link);
    free(link);
    return NULL;
}

void agent_link_watch(struct agent_link *link)
{
    if (link->state != LINK_UP)
        return;
    int64_t silence_ns = loop_now(link->agent->loop) - h2_last_read_ns(link->h2);
    if (silence_ns > SILENCE_NS)
        link_lost(link, "the gateway went silent");
    else if (silence_ns > PING_AFTER_NS)
        h2_ping(link->h2);
}
