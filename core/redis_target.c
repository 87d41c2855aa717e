#include "core/redis_target.h"
#include "core/crypto.h"
#include "core/log.h"
#include <string.h>

#define PORT_DEFAULT 6379

static bool percent_decode(struct str from, char *to, size_t to_size)
{
    size_t len = 0;

    for (size_t i = 0; i < from.len; i++) {
        uint8_t byte = (uint8_t)from.ptr[i];

        if (byte == '%') {
            if (from.len - i < 3 || !crypto_unhex((struct str){from.ptr + i + 1, 2}, &byte, 1))
                return false;
            i += 2;
        }
        if (byte == '\0' || len + 1 >= to_size)
            return false;
        to[len++] = (char)byte;
    }
    to[len] = '\0';
    return true;
}

/* "[user]:password" */
static bool parse_login(struct str login, struct redis_target *target)
{
    struct str user = str_next(&login, ':');

    return login.len > 0 && percent_decode(user, target->user, sizeof(target->user)) &&
           percent_decode(login, target->password, sizeof(target->password));
}

/* "host", "host:port", "[v6]:port" */
static bool parse_address(struct str address, struct redis_target *target)
{
    struct str host, rest;
    int64_t port = PORT_DEFAULT;
    const char *end;

    if (address.len > 0 && address.ptr[0] == '[') {
        end = memchr(address.ptr, ']', address.len);
        if (end == NULL)
            return false;
        host = (struct str){address.ptr + 1, (size_t)(end - address.ptr) - 1};
        rest = (struct str){end + 1, address.len - host.len - 2};
    } else {
        end = memchr(address.ptr, ':', address.len);
        host = (struct str){address.ptr, end != NULL ? (size_t)(end - address.ptr) : address.len};
        rest = (struct str){address.ptr + host.len, address.len - host.len};
    }
    if (rest.len > 0 && (rest.ptr[0] != ':' || !str_to_i64((struct str){rest.ptr + 1, rest.len - 1}, &port)))
        return false;
    target->port = (int)port;
    return host.len > 0 && port > 0 && port < 65536 && str_copy(target->host, sizeof(target->host), host);
}

/* What follows "redis://". */
static bool parse_tcp(struct str rest, struct redis_target *target)
{
    const char *slash = memchr(rest.ptr, '/', rest.len);
    struct str authority = {rest.ptr, slash != NULL ? (size_t)(slash - rest.ptr) : rest.len};
    struct str db = {rest.ptr + authority.len, rest.len - authority.len};
    const char *at = memrchr(authority.ptr, '@', authority.len);

    if (at != NULL) {
        if (!parse_login((struct str){authority.ptr, (size_t)(at - authority.ptr)}, target))
            return false;
        authority = (struct str){at + 1, authority.len - (size_t)(at + 1 - authority.ptr)};
    }
    if (db.len > 1 && (!str_to_i64((struct str){db.ptr + 1, db.len - 1}, &target->db) || target->db < 0))
        return false;
    return parse_address(authority, target);
}

enum error redis_target_parse(const char *url, struct redis_target *ret)
{
    struct str rest = str_of(url);
    struct redis_target target = {0};
    bool is_good = false;

    if (str_starts(rest, STR("unix://"))) {
        rest = (struct str){rest.ptr + 7, rest.len - 7};
        target.is_unix = true;
        is_good = rest.len > 1 && rest.ptr[0] == '/' && rest.len <= REDIS_SOCKET_PATH_MAX &&
                  str_copy(target.host, sizeof(target.host), rest);
    } else if (str_starts(rest, STR("redis://"))) {
        is_good = parse_tcp((struct str){rest.ptr + 8, rest.len - 8}, &target);
    } else if (str_starts(rest, STR("rediss://"))) {
        log_error(NULL, "rediss:// is not supported: connect through a local TLS proxy, with redis:// or unix://");
        return ERR_BAD_INPUT;
    }
    if (!is_good) {
        log_error(NULL, "the Redis URL must read redis://[[user]:password@]host[:port][/db] or unix:///path "
                        "(at most 107 bytes of path)");
        return ERR_BAD_INPUT;
    }
    *ret = target;
    return ERR_NONE;
}
