#include "gateway/bootstrap.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/redis.h"
#include "gateway/api.h"
#include "gateway/bootstrap_priv.h"
#include "gateway/reactor.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY "sl:bootstrap:key"
#define FILE_MAX ((size_t)64 << 20)

enum { WORKER, PROBE, CA, FILES };
static const char *const file_names[FILES] = {"worker", "probe", "ca"};
static const char *const program_names[FILES] = {"sluice-worker", "sluice-probe", "ca.pem"};
static const char *const ca_places[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                        "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};

struct program {
    char *bytes;
    size_t len;
    char sha256[SHA256_HEX];
};

struct bootstrap {
    struct program programs[FILES];
    pthread_mutex_t lock; /* over the key */
    bool has_key;
    uint8_t key[SHA256_BYTES];
};

/* -- the programs ------------------------------------------------------------------------------------------------ */

static bool read_all(int fd, char *to, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = read(fd, to + at, len - at);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static bool program_read(const char *path, struct program *ret)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_good = fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0 &&
                   (size_t)about.st_size <= FILE_MAX;
    char *bytes = is_good ? malloc((size_t)about.st_size) : NULL;
    is_good = bytes && read_all(fd, bytes, (size_t)about.st_size);
    if (fd >= 0)
        close(fd);
    if (!is_good) {
        free(bytes);
        return false;
    }
    *ret = (struct program){.bytes = bytes, .len = (size_t)about.st_size};
    crypto_sha256_hex((struct str){bytes, ret->len}, ret->sha256);
    return true;
}

static void ca_read(struct program *ret)
{
    const char *own = getenv("SSL_CERT_FILE");
    bool is_read = own && *own && program_read(own, ret);
    for (size_t i = 0; i < sizeof(ca_places) / sizeof(ca_places[0]) && !is_read; i++)
        is_read = program_read(ca_places[i], ret);
}

static struct str own_folder(char path[static PATH_MAX])
{
    ssize_t len = readlink("/proc/self/exe", path, PATH_MAX);
    struct str folder = {path, len > 0 && len < PATH_MAX ? (size_t)len : 0};
    while (folder.len > 0 && folder.ptr[folder.len - 1] != '/')
        folder.len--;
    return folder;
}

enum error bootstrap_open(const char *folder, struct bootstrap **ret)
{
    struct bootstrap *bootstrap = calloc(1, sizeof(*bootstrap));
    char own[PATH_MAX], path[PATH_MAX];
    if (!bootstrap)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&bootstrap->lock, NULL);
    struct str in = folder ? str_of(folder) : own_folder(own);
    ca_read(&bootstrap->programs[CA]);
    for (int i = 0; i < CA; i++) {
        int len = snprintf(path, sizeof(path), STR_FMT "%s%s", STR_ARG(in), folder ? "/" : "", program_names[i]);
        if ((size_t)len >= sizeof(path) || !program_read(path, &bootstrap->programs[i]))
            log_info(NULL, "no %s beside this program: machines cannot be leased from networks", program_names[i]);
    }
    *ret = bootstrap;
    return ERR_NONE;
}

struct bootstrap *bootstrap_free(struct bootstrap *bootstrap)
{
    if (!bootstrap)
        return NULL;
    for (int i = 0; i < FILES; i++)
        free(bootstrap->programs[i].bytes);
    pthread_mutex_destroy(&bootstrap->lock);
    crypto_wipe(bootstrap->key, sizeof(bootstrap->key));
    free(bootstrap);
    return NULL;
}

bool bootstrap_is_whole(const struct bootstrap *bootstrap)
{
    return bootstrap && bootstrap->programs[WORKER].bytes && bootstrap->programs[PROBE].bytes;
}

bool bootstrap_program(const struct bootstrap *bootstrap, const char *file, const char **ret_program,
                       const char **ret_sha256)
{
    for (int i = 0; i < FILES; i++) {
        if (strcmp(file, file_names[i]) != 0 || !bootstrap->programs[i].bytes)
            continue;
        *ret_program = program_names[i];
        *ret_sha256 = bootstrap->programs[i].sha256;
        return true;
    }
    return false;
}

/* -- the key ----------------------------------------------------------------------------------------------------- */

void bootstrap_set_key(struct bootstrap *bootstrap, const uint8_t key[static SHA256_BYTES])
{
    pthread_mutex_lock(&bootstrap->lock);
    memcpy(bootstrap->key, key, SHA256_BYTES);
    bootstrap->has_key = true;
    pthread_mutex_unlock(&bootstrap->lock);
}

bool bootstrap_has_key(struct bootstrap *bootstrap)
{
    pthread_mutex_lock(&bootstrap->lock);
    bool has_key = bootstrap->has_key;
    pthread_mutex_unlock(&bootstrap->lock);
    return has_key;
}

static void on_key(void *ctx, const redisReply *reply, enum error error)
{
    uint8_t key[SHA256_BYTES];
    if (!error && reply->type == REDIS_REPLY_STRING &&
        crypto_unhex((struct str){reply->str, (size_t)reply->len}, key, sizeof(key)))
        bootstrap_set_key(ctx, key);
    else if (!error)
        log_warn(NULL, "the key of leased machines' addresses in Redis cannot be read");
    crypto_wipe(key, sizeof(key));
}

void bootstrap_follow_key(struct bootstrap *bootstrap, struct redis *redis)
{
    uint8_t bits[SHA256_BYTES];
    char hex[SHA256_HEX];
    crypto_random(bits, sizeof(bits));
    crypto_hex(bits, sizeof(bits), hex);
    const struct str make[] = {STR("SET"), STR(KEY), str_of(hex), STR("NX")}, get[] = {STR("GET"), STR(KEY)};
    if (redis_command(redis, NULL, NULL, 4, make) != ERR_NONE ||
        redis_command(redis, on_key, bootstrap, 2, get) != ERR_NONE)
        log_debug(NULL, "Redis takes no question for the key of addresses now");
    crypto_wipe(bits, sizeof(bits));
    crypto_wipe(hex, sizeof(hex));
}

/* Of the text, under the key. */
static bool mac(struct bootstrap *bootstrap, struct str text, const char *prefix, char ret[static SECRET_TEXT_MAX])
{
    uint8_t bits[SHA256_BYTES];
    pthread_mutex_lock(&bootstrap->lock);
    bool has_key = bootstrap->has_key;
    if (has_key)
        crypto_hmac_sha256((struct str){(const char *)bootstrap->key, sizeof(bootstrap->key)}, text, bits);
    pthread_mutex_unlock(&bootstrap->lock);
    if (has_key)
        crypto_secret_of(prefix, bits, ret);
    crypto_wipe(bits, sizeof(bits));
    return has_key;
}

bool bootstrap_token(struct bootstrap *bootstrap, struct str lease, char ret[static SECRET_TEXT_MAX])
{
    char text[WORKER_LEASE_MAX + 16];
    int len = snprintf(text, sizeof(text), "token\n" STR_FMT, STR_ARG(lease));
    return (size_t)len < sizeof(text) && mac(bootstrap, str_of(text), "sll-", ret);
}

bool bootstrap_sign(struct bootstrap *bootstrap, struct str file, struct str lease, int64_t expires_at_s,
                    char ret[static SECRET_TEXT_MAX])
{
    char text[WORKER_LEASE_MAX + 80];
    int len = snprintf(text, sizeof(text), "file\n" STR_FMT "\n" STR_FMT "\n%" PRId64, STR_ARG(file), STR_ARG(lease),
                       expires_at_s);
    return file.len <= 16 && (size_t)len < sizeof(text) && mac(bootstrap, str_of(text), "", ret);
}

enum error bootstrap_verify(struct bootstrap *bootstrap, struct str file, struct str lease, struct str expires,
                            struct str signature, int64_t now_s)
{
    char right[SECRET_TEXT_MAX];
    int64_t expires_at_s;
    if (!bootstrap_has_key(bootstrap))
        return ERR_UNREACHABLE;
    if (!lease.ptr || lease.len >= WORKER_LEASE_MAX || !expires.ptr || !signature.ptr ||
        !str_to_i64(expires, &expires_at_s) || !bootstrap_sign(bootstrap, file, lease, expires_at_s, right) ||
        !crypto_str_equal(signature, str_of(right)))
        return ERR_DENIED;
    return expires_at_s < now_s ? ERR_DENIED : ERR_NONE;
}

/* -- serving ----------------------------------------------------------------------------------------------------- */

void route_bootstrap(struct api_call *call)
{
    static const char *const known[] = {"lease", "expires", "sig", NULL};
    struct bootstrap *bootstrap = call->reactor->gateway->bootstrap;
    struct api_error error;
    const struct program *program = NULL;
    if (!api_query_check(call, known))
        return;
    for (int i = 0; i < FILES; i++)
        if (str_eq(call->params[0], str_of(file_names[i])))
            program = bootstrap ? &bootstrap->programs[i] : NULL;
    enum error code =
        !bootstrap ? ERR_UNREACHABLE
                   : bootstrap_verify(bootstrap, call->params[0], api_query(call, "lease"), api_query(call, "expires"),
                                      api_query(call, "sig"), clock_wall_ms() / 1000);
    if (code == ERR_DENIED) {
        api_error_set(&error, 403, "invalid_request_error", "forbidden", "sig",
                      "This address was not signed here, or its time is over.");
    } else if (code || (program && !program->bytes)) {
        api_error_set(&error, 503, "server_error", "not_available", NULL, "%s",
                      code ? "This gateway has only started." : "This gateway has no such program to give.");
    } else if (!program) {
        api_error_not_found(&error, "file");
    } else {
        api_reply_static(call, 200, "application/octet-stream", (struct str){program->bytes, program->len});
        return;
    }
    api_reply_error(call, &error);
}
