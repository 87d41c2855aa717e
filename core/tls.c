#include "core/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALID_S (10L * 365 * 86400)
#define SKEW_S 86400L /* the other side's clock may be behind */

struct tls_client {
    SSL_CTX *ctx;
    uint8_t pin[SHA256_BYTES];
};

struct tls_handshake {
    struct loop *loop;
    struct io_source io;
    struct timer timer;
    SSL *ssl;
    tls_done_fn *done;
    void *ctx;
};

/* -- contexts ---------------------------------------------------------------------------------------------------- */

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx)
        return NULL;
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_num_tickets(ctx, 0)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

static bool pin_of(const X509 *cert, uint8_t ret[static SHA256_BYTES])
{
    unsigned len = SHA256_BYTES;
    return cert && X509_digest(cert, EVP_sha256(), ret, &len) == 1 && len == SHA256_BYTES;
}

static X509 *certificate_make(EVP_PKEY *key)
{
    uint8_t serial[8];
    X509 *cert = X509_new();
    crypto_random(serial, sizeof(serial));
    serial[0] = (uint8_t)(serial[0] & 0x7f) | 0x40; /* positive, of full length */
    BIGNUM *number = BN_bin2bn(serial, sizeof(serial), NULL);
    X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
    bool good = name && number && X509_set_version(cert, X509_VERSION_3) &&
                BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) &&
                X509_gmtime_adj(X509_getm_notBefore(cert), -SKEW_S) &&
                X509_gmtime_adj(X509_getm_notAfter(cert), VALID_S) && X509_set_pubkey(cert, key) &&
                X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"sluice link", -1, -1, 0) &&
                X509_set_issuer_name(cert, name) && X509_sign(cert, key, EVP_sha256()) > 0;
    BN_free(number);
    if (!good) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

/* Writes a PEM file whole or not at all. */
static enum error write_pem(const char *path, mode_t mode, EVP_PKEY *key, X509 *cert)
{
    char draft[PATH_MAX];
    enum error error = ERR_SYSTEM;
    if (snprintf(draft, sizeof(draft), "%s.new", path) >= (int)sizeof(draft))
        return ERR_TOO_LARGE;
    (void)unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return ERR_SYSTEM;
    FILE *file = fdopen(fd, "w");
    if (!file) {
        close(fd);
        goto out;
    }
    bool good = key ? PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) : PEM_write_X509(file, cert);
    good = fflush(file) == 0 && fsync(fd) == 0 && good;
    good = fclose(file) == 0 && good;
    if (good && rename(draft, path) == 0)
        error = ERR_NONE;
out:
    if (error != ERR_NONE)
        (void)unlink(draft);
    return error;
}

static enum error identity_make(const char *cert_file, const char *key_file)
{
    enum error error = ERR_NO_MEMORY;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? certificate_make(key) : NULL;
    if (cert)
        error = write_pem(key_file, 0600, key, NULL);
    if (cert && error == ERR_NONE)
        error = write_pem(cert_file, 0644, NULL, cert);
    X509_free(cert);
    EVP_PKEY_free(key);
    return error;
}

enum error tls_server_open(const char *data_dir, const char *cert_file, const char *key_file, SSL_CTX **ret,
                           char ret_pin[static SHA256_HEX])
{
    char own_cert[PATH_MAX], own_key[PATH_MAX];
    uint8_t pin[SHA256_BYTES];
    if (!cert_file != !key_file)
        return ERR_BAD_INPUT;
    if (!cert_file) {
        if (snprintf(own_cert, sizeof(own_cert), "%s/link.crt", data_dir) >= (int)sizeof(own_cert) ||
            snprintf(own_key, sizeof(own_key), "%s/link.key", data_dir) >= (int)sizeof(own_key))
            return ERR_TOO_LARGE;
        cert_file = own_cert;
        key_file = own_key;
        if (access(cert_file, F_OK) != 0 || access(key_file, F_OK) != 0) {
            enum error error = identity_make(cert_file, key_file);
            if (error != ERR_NONE)
                return error;
        }
    }
    SSL_CTX *ctx = context_new(TLS_server_method());
    if (!ctx)
        return ERR_NO_MEMORY;
    if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1 ||
        !pin_of(SSL_CTX_get0_certificate(ctx), pin)) {
        SSL_CTX_free(ctx);
        ERR_clear_error();
        return ERR_BAD_INPUT;
    }
    crypto_hex(pin, sizeof(pin), ret_pin);
    *ret = ctx;
    return ERR_NONE;
}

static int verify_pin(X509_STORE_CTX *store, void *arg)
{
    const struct tls_client *client = arg;
    uint8_t pin[SHA256_BYTES];
    if (pin_of(X509_STORE_CTX_get0_cert(store), pin) && crypto_equal(pin, client->pin, sizeof(pin)))
        return 1;
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

enum error tls_client_open(struct str pin, struct tls_client **ret)
{
    enum error error = ERR_NO_MEMORY;
    struct tls_client *client = calloc(1, sizeof(*client));
    if (!client || !(client->ctx = context_new(TLS_client_method())))
        goto out;
    SSL_CTX_set_verify(client->ctx, SSL_VERIFY_PEER, NULL);
    if (pin.ptr) {
        error = ERR_BAD_INPUT;
        if (pin.len != SHA256_HEX - 1 || !crypto_unhex(pin, client->pin, sizeof(client->pin)))
            goto out;
        SSL_CTX_set_cert_verify_callback(client->ctx, verify_pin, client);
    } else if (SSL_CTX_set_default_verify_paths(client->ctx) != 1) {
        goto out;
    }
    *ret = client;
    return ERR_NONE;
out:
    tls_client_free(client);
    return error;
}

enum error tls_client_trust(struct tls_client *client, const char *ca_file)
{
    X509_STORE *store = X509_STORE_new();
    if (!store)
        return ERR_NO_MEMORY;
    bool is_good = X509_STORE_load_file(store, ca_file) == 1;
    if (is_good)
        SSL_CTX_set_cert_store(client->ctx, store); /* takes it */
    else
        X509_STORE_free(store);
    return is_good ? ERR_NONE : ERR_BAD_INPUT;
}

struct tls_client *tls_client_free(struct tls_client *client)
{
    if (!client)
        return NULL;
    SSL_CTX_free(client->ctx);
    free(client);
    return NULL;
}

enum error tls_client_new(struct tls_client *client, const char *host, SSL **ret)
{
    SSL *ssl = SSL_new(client->ctx);
    if (!ssl)
        return ERR_NO_MEMORY;
    /* With a pin the name means nothing: verify_pin stands in for all other checks. */
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);
    bool good = address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1
                        : SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
    ASN1_OCTET_STRING_free(address);
    ERR_clear_error();
    if (!good) {
        SSL_free(ssl);
        return ERR_BAD_INPUT;
    }
    *ret = ssl;
    return ERR_NONE;
}

/* -- handshake --------------------------------------------------------------------------------------------------- */

struct tls_handshake *tls_handshake_cancel(struct tls_handshake *handshake)
{
    if (!handshake)
        return NULL;
    loop_remove(handshake->loop, &handshake->io);
    timer_clear(handshake->loop, &handshake->timer);
    free(handshake);
    return NULL;
}

static void finish(struct tls_handshake *handshake, enum error error)
{
    tls_done_fn *done = handshake->done;
    void *ctx = handshake->ctx;
    tls_handshake_cancel(handshake);
    done(ctx, error);
}

static void on_due(struct timer *timer)
{
    finish(container_of(timer, struct tls_handshake, timer), ERR_DEADLINE);
}

static void on_ready(struct io_source *source, uint32_t events)
{
    struct tls_handshake *handshake = container_of(source, struct tls_handshake, io);
    (void)events;
    ERR_clear_error();
    int rc = SSL_do_handshake(handshake->ssl);
    int why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(handshake->ssl, rc);
    if (why == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        why = SSL_ERROR_SYSCALL;
    ERR_clear_error();
    switch (why) {
    case SSL_ERROR_NONE:
        finish(handshake, ERR_NONE);
        return;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        if (loop_modify(handshake->loop, source, why == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT) != ERR_NONE)
            finish(handshake, ERR_SYSTEM);
        return;
    case SSL_ERROR_SSL:
        finish(handshake, ERR_DENIED);
        return;
    default:
        finish(handshake, ERR_CLOSED);
    }
}

enum error tls_handshake_start(struct loop *loop, int fd, SSL *ssl, bool is_server, int64_t deadline_ns,
                               tls_done_fn *done, void *ctx, struct tls_handshake **ret)
{
    struct tls_handshake *handshake = calloc(1, sizeof(*handshake));
    if (!handshake)
        return ERR_NO_MEMORY;
    *handshake = (struct tls_handshake){.loop = loop,
                                        .io = {.fd = fd, .on_ready = on_ready},
                                        .timer = {.on_due = on_due},
                                        .ssl = ssl,
                                        .done = done,
                                        .ctx = ctx};
    if (SSL_set_fd(ssl, fd) != 1) {
        free(handshake);
        return ERR_NO_MEMORY;
    }
    if (is_server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    enum error error = loop_add(loop, &handshake->io, EPOLLIN | EPOLLOUT);
    if (error != ERR_NONE) {
        free(handshake);
        return error;
    }
    timer_set(loop, &handshake->timer, deadline_ns);
    *ret = handshake;
    return ERR_NONE;
}
