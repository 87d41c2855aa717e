/* Where a Redis is, taken from its URL. Part of core/redis. */
#ifndef SLUICE_CORE_REDIS_TARGET_H
#define SLUICE_CORE_REDIS_TARGET_H

#include "core/str.h"

#define REDIS_SOCKET_PATH_MAX 107 /* what a socket address holds; hiredis would cut longer ones */

struct redis_target {
    char host[256]; /* never empty; or the path when is_unix */
    char user[128], password[512];
    int port;
    int64_t db;
    bool is_unix;
};

/* ERR_BAD_INPUT: not a URL as core/redis.h has it. A log line tells the form, and no part of the URL, which may hold a
 * password. */
MUST_CHECK enum error redis_target_parse(const char *url, struct redis_target *ret);

#endif
