/* The listener: accepts, shakes hands, reads hellos, gives each link to a reactor. On the control thread. */
#include "adapters/native/hub_priv.h"
#include "adapters/native/link_hello.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/tls.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define GREETINGS_MAX 512 /* hellos in progress */
#define ACCEPTS_A_TURN 64
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS) /* when descriptors have run out */

/* What the listener remembers of a worker between its links. */
struct known {
    char worker[ID_TEXT_MAX], boot[LINK_BOOT_MAX + 1];
    struct link_slots *slots;
};

/* A connection whose hello is not whole yet. */
struct greeting {
    struct greeting *prev, *next;
    struct hub *hub;
    struct io_source io;
    struct timer timer;
    SSL *ssl;
    struct tls_handshake *handshake;
    size_t len;
    char line[LINK_HELLO_MAX];
};

struct hub {
    struct loop *loop;
    struct hub_options options;
    struct io_source io;
    struct timer again;
    uint16_t port;
    struct greeting greetings; /* ring head */
    size_t greeting_count;
    struct known **known; /* by worker index */
    size_t known_count;
    uint64_t next_number;
};

/* -- greetings --------------------------------------------------------------------------------------------------- */

static void greeting_free(struct greeting *greeting)
{
    struct hub *hub = greeting->hub;
    tls_handshake_cancel(greeting->handshake);
    timer_clear(hub->loop, &greeting->timer);
    loop_remove(hub->loop, &greeting->io);
    SSL_free(greeting->ssl);
    if (greeting->io.fd >= 0)
        close(greeting->io.fd);
    greeting->prev->next = greeting->next;
    greeting->next->prev = greeting->prev;
    hub->greeting_count--;
    crypto_wipe(greeting->line, sizeof(greeting->line));
    free(greeting);
}

/* The first bytes that we write on the connection: they fit, or something is very wrong. */
static bool answer(struct greeting *greeting, const struct link_answer *verdict)
{
    char line[LINK_ANSWER_MAX];
    size_t len = 0, written = 0;
    if (!link_answer_write(verdict, line, &len))
        return false;
    if (!greeting->ssl)
        return send(greeting->io.fd, line, len, MSG_NOSIGNAL) == (ssize_t)len;
    bool good = SSL_write_ex(greeting->ssl, line, len, &written) == 1 && written == len;
    ERR_clear_error();
    return good;
}

static void refuse(struct greeting *greeting, struct str reason)
{
    (void)answer(greeting, &(struct link_answer){.reason = reason});
    (void)shutdown(greeting->io.fd, SHUT_WR);
    greeting_free(greeting);
}

static struct known *known_of(struct hub *hub, const struct worker *worker)
{
    if (worker->index >= hub->known_count) {
        size_t count = hub->known_count * 2 > 64 ? hub->known_count * 2 : 64;
        count = count > worker->index ? count : (size_t)worker->index + 1;
        struct known **known = realloc(hub->known, count * sizeof(struct known *));
        if (!known)
            return NULL;
        memset(known + hub->known_count, 0, (count - hub->known_count) * sizeof(struct known *));
        hub->known = known;
        hub->known_count = count;
    }
    struct known **at = &hub->known[worker->index];
    if (!*at && !(*at = calloc(1, sizeof(**at))))
        return NULL;
    if ((*at)->slots && strcmp((*at)->worker, worker->id) == 0)
        return *at;
    link_slots_unref((*at)->slots);
    size_t count = hub->options.reactor_count;
    **at = (struct known){.slots = calloc(1, sizeof(struct link_slots) + count * sizeof(atomic_ullong))};
    if (!(*at)->slots)
        return NULL;
    atomic_init(&(*at)->slots->refs, 1);
    memcpy((*at)->worker, worker->id, sizeof((*at)->worker));
    return *at;
}

static bool post(struct hub *hub, size_t reactor, struct worker *worker, const struct handover *from)
{
    struct handover *handover = malloc(sizeof(*handover));
    if (!handover)
        return false;
    *handover = *from;
    handover->reactor = hub->options.reactors[reactor];
    handover->worker = worker_ref(worker);
    if (handover->slots)
        atomic_fetch_add(&handover->slots->refs, 1);
    if (loop_post(hub->options.loops[reactor], hub_reactor_take, handover) == ERR_NONE)
        return true;
    worker_unref(worker);
    link_slots_unref(handover->slots);
    free(handover);
    return false;
}

/* A new start of the agent: its older links are dead, whether their ends have come or not. */
static bool note_boot(struct hub *hub, struct worker *worker, struct known *known, struct str boot)
{
    if (str_eq(str_of(known->boot), boot))
        return true;
    bool is_first = known->boot[0] == '\0';
    for (size_t i = 0; i < hub->options.reactor_count && !is_first; i++) {
        if (!post(hub, i, worker, &(struct handover){.fd = -1}))
            return false;
        atomic_store(&known->slots->number[i], 0);
    }
    return str_copy(known->boot, sizeof(known->boot), boot);
}

/* The reactor without a link, else the one whose link is oldest. */
static unsigned reactor_for(const struct hub *hub, struct known *known)
{
    unsigned best = 0;
    unsigned long long least = UINT64_MAX;
    for (unsigned i = 0; i < hub->options.reactor_count; i++) {
        unsigned long long number = atomic_load(&known->slots->number[i]);
        if (number < least) {
            least = number;
            best = i;
        }
    }
    return best;
}

/* Of the other end; see struct worker. */
static unsigned long long address_block(int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof(peer);
    uint8_t bytes[16];
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0)
        return 0;
    if (peer.ss_family == AF_INET)
        memcpy(bytes, &((const struct sockaddr_in *)(const void *)&peer)->sin_addr, 4);
    else if (peer.ss_family == AF_INET6)
        memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)&peer)->sin6_addr, 16);
    else
        return 0;
    return worker_address_block(bytes, peer.ss_family == AF_INET6);
}

static void hand_over(struct greeting *greeting, struct worker *worker, struct str boot)
{
    struct hub *hub = greeting->hub;
    struct known *known = known_of(hub, worker);
    if (!known || !note_boot(hub, worker, known, boot)) {
        refuse(greeting, STR("busy"));
        return;
    }
    unsigned reactor = reactor_for(hub, known);
    const struct handover handover = {
        .fd = greeting->io.fd, .ssl = greeting->ssl, .slots = known->slots, .number = ++hub->next_number};
    loop_remove(hub->loop, &greeting->io);
    atomic_store(&worker->address_block, address_block(greeting->io.fd));
    if (answer(greeting, &(struct link_answer){.is_taken = true, .reactor = reactor})) {
        unsigned long long before = atomic_exchange(&known->slots->number[reactor], handover.number);
        if (post(hub, reactor, worker, &handover)) {
            greeting->io.fd = -1;
            greeting->ssl = NULL;
        } else {
            atomic_store(&known->slots->number[reactor], before);
        }
    }
    greeting_free(greeting);
}

static void on_hello(struct greeting *greeting)
{
    struct hub *hub = greeting->hub;
    struct link_hello hello;
    uint8_t known[SHA256_BYTES] = {0}, given[SHA256_BYTES];
    if (greeting->line[greeting->len - 1] != '\n' ||
        !link_hello_parse((struct str){greeting->line, greeting->len - 1}, &hello)) {
        refuse(greeting, STR("protocol"));
        return;
    }
    struct worker *worker = hub->options.find(hub->options.ctx, hello.worker, known);
    crypto_sha256(hello.secret, given);
    if (!crypto_equal(known, given, sizeof(given)) || !worker) {
        log_info(NULL, "a link was refused: unknown worker or wrong secret");
        refuse(greeting, STR("denied"));
    } else {
        hand_over(greeting, worker, hello.boot);
    }
    worker_unref(worker);
}

/* Reads what there is. The line's end must be the last byte: the agent waits for our answer. */
static void on_greeting_ready(struct io_source *source, uint32_t events)
{
    struct greeting *greeting = container_of(source, struct greeting, io);
    size_t room = sizeof(greeting->line) - greeting->len, got = 0;
    (void)events;
    if (greeting->ssl) {
        ERR_clear_error();
        int rc = SSL_read_ex(greeting->ssl, greeting->line + greeting->len, room, &got);
        int why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(greeting->ssl, rc);
        ERR_clear_error();
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
            return;
    } else {
        ssize_t rc = read(source->fd, greeting->line + greeting->len, room);
        if (rc < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        got = rc > 0 ? (size_t)rc : 0;
    }
    if (got == 0) {
        greeting_free(greeting);
        return;
    }
    greeting->len += got;
    if (memchr(greeting->line, '\n', greeting->len))
        on_hello(greeting);
    else if (greeting->len == sizeof(greeting->line))
        refuse(greeting, STR("protocol"));
}

static void on_greeting_due(struct timer *timer)
{
    greeting_free(container_of(timer, struct greeting, timer));
}

static void greeting_read(struct greeting *greeting)
{
    if (loop_add(greeting->hub->loop, &greeting->io, EPOLLIN) != ERR_NONE)
        greeting_free(greeting);
    else if (greeting->ssl)
        on_greeting_ready(&greeting->io, EPOLLIN); /* the handshake may have read it already */
}

static void on_handshake(void *ctx, enum error error)
{
    struct greeting *greeting = ctx;
    greeting->handshake = NULL;
    if (error != ERR_NONE)
        greeting_free(greeting);
    else
        greeting_read(greeting);
}

static void greeting_start(struct hub *hub, int fd)
{
    int64_t deadline_ns = loop_now(hub->loop) + LINK_DEADLINE_S * NS_PER_S;
    struct greeting *greeting = hub->greeting_count < GREETINGS_MAX ? calloc(1, sizeof(*greeting)) : NULL;
    if (!greeting) {
        if (!hub->options.tls)
            (void)!send(fd, "NO busy\n", 8, MSG_NOSIGNAL);
        close(fd);
        return;
    }
    greeting->hub = hub;
    greeting->io = (struct io_source){.fd = fd, .on_ready = on_greeting_ready};
    greeting->timer.on_due = on_greeting_due;
    greeting->prev = hub->greetings.prev;
    greeting->next = &hub->greetings;
    greeting->prev->next = greeting->next->prev = greeting;
    hub->greeting_count++;
    timer_set(hub->loop, &greeting->timer, deadline_ns);
    if (!hub->options.tls) {
        greeting_read(greeting);
        return;
    }
    greeting->ssl = SSL_new(hub->options.tls);
    if (!greeting->ssl || tls_handshake_start(hub->loop, fd, greeting->ssl, true, deadline_ns, on_handshake, greeting,
                                              &greeting->handshake) != ERR_NONE)
        greeting_free(greeting);
}

/* -- the listening socket ---------------------------------------------------------------------------------------- */

static void on_acceptable(struct io_source *source, uint32_t events)
{
    struct hub *hub = container_of(source, struct hub, io);
    int one = 1;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            loop_remove(hub->loop, source);
            timer_set(hub->loop, &hub->again, loop_now(hub->loop) + ACCEPT_PAUSE_NS);
            return;
        }
        if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (fd < 0)
            continue; /* that one connection broke while it waited */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        greeting_start(hub, fd);
    }
}

static void on_again(struct timer *timer)
{
    struct hub *hub = container_of(timer, struct hub, again);
    if (loop_add(hub->loop, &hub->io, EPOLLIN) != ERR_NONE)
        timer_set(hub->loop, timer, loop_now(hub->loop) + ACCEPT_PAUSE_NS);
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

/* "host:port" or "[host]:port" */
static bool split_address(const char *listen_at, char host[static 256], char port[static 8])
{
    struct str text = str_of(listen_at);
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return false;
    struct str name = {text.ptr, colon - 1};
    if (name.len >= 2 && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']')
        name = (struct str){name.ptr + 1, name.len - 2};
    return name.len > 0 && str_copy(host, 256, name) &&
           str_copy(port, 8, (struct str){text.ptr + colon, text.len - colon});
}

static enum error socket_open(struct hub *hub)
{
    char host[256], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    struct sockaddr_storage bound = {0};
    socklen_t bound_len = sizeof(bound);
    int one = 1;
    if (!split_address(hub->options.listen, host, port))
        return ERR_BAD_INPUT;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return ERR_NOT_FOUND;
    enum error error = hub->options.tls || is_loopback(found->ai_addr) ? ERR_NONE : ERR_DENIED;
    if (error == ERR_NONE) {
        hub->io.fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (hub->io.fd < 0 || setsockopt(hub->io.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
            bind(hub->io.fd, found->ai_addr, found->ai_addrlen) != 0 || listen(hub->io.fd, 1024) != 0 ||
            getsockname(hub->io.fd, (struct sockaddr *)&bound, &bound_len) != 0)
            error = errno == EADDRINUSE ? ERR_EXISTS : ERR_SYSTEM;
        else
            hub->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port
                                                          : ((struct sockaddr_in *)(void *)&bound)->sin_port);
    }
    freeaddrinfo(found);
    return error;
}

enum error hub_open(struct loop *loop, const struct hub_options *options, struct hub **ret)
{
    if (options->reactor_count == 0)
        return ERR_BAD_INPUT;
    struct hub *hub = calloc(1, sizeof(*hub));
    if (!hub)
        return ERR_NO_MEMORY;
    *hub = (struct hub){
        .loop = loop, .options = *options, .io = {.fd = -1, .on_ready = on_acceptable}, .again = {.on_due = on_again}};
    hub->greetings.prev = hub->greetings.next = &hub->greetings;
    enum error error = socket_open(hub);
    if (error == ERR_NONE)
        error = loop_add(loop, &hub->io, EPOLLIN);
    if (error != ERR_NONE) {
        hub_free(hub);
        return error;
    }
    *ret = hub;
    return ERR_NONE;
}

struct hub *hub_free(struct hub *hub)
{
    if (!hub)
        return NULL;
    while (hub->greetings.next != &hub->greetings)
        greeting_free(hub->greetings.next);
    timer_clear(hub->loop, &hub->again);
    loop_remove(hub->loop, &hub->io);
    if (hub->io.fd >= 0)
        close(hub->io.fd);
    for (size_t i = 0; i < hub->known_count; i++) {
        if (hub->known[i])
            link_slots_unref(hub->known[i]->slots);
        free(hub->known[i]);
    }
    free(hub->known);
    free(hub);
    return NULL;
}

uint16_t hub_port(const struct hub *hub)
{
    return hub->port;
}
