/* TLS 1.3 on OpenSSL: contexts of the two ends of a link, and a handshake that waits on the loop. */
#ifndef SLUICE_CORE_TLS_H
#define SLUICE_CORE_TLS_H

#include "core/crypto.h"
#include "core/loop.h"
#include <openssl/ssl.h>

/* The server's context, with the given files (PEM), or, when both are NULL, with data_dir/link.crt and link.key: made
 * at first use (EC P-256, self-signed, ten years; the key's mode is 0600). ret_pin: the hex SHA-256 of the
 * certificate's DER form, by which clients know it. ERR_BAD_INPUT: the files are not a certificate and its key.
 * SSL_CTX_free frees. */
MUST_CHECK enum error tls_server_open(const char *data_dir, const char *cert_file, const char *key_file, SSL_CTX **ret,
                                      char ret_pin[static SHA256_HEX]);

/* The client's side of one server: it accepts exactly the certificate of `pin`, or, with an absent pin, what the
 * system's CAs vouch for under the host's name. Outlives the handshakes of its connections. */
struct tls_client;
MUST_CHECK enum error tls_client_open(struct str pin, struct tls_client **ret);
/* Without a pin: these CAs (a PEM file) in place of the system's. ERR_BAD_INPUT: it holds none. */
MUST_CHECK enum error tls_client_trust(struct tls_client *client, const char *ca_file);
struct tls_client *tls_client_free(struct tls_client *client);
MUST_CHECK enum error tls_client_new(struct tls_client *client, const char *host, SSL **ret); /* SSL_free frees */

/* Shakes hands on a connected, nonblocking fd. `done` is called once from the loop, never inside this call: ERR_NONE,
 * ERR_DEADLINE, ERR_CLOSED, or ERR_DENIED (certificate or protocol refused). fd and ssl stay the caller's. The program
 * ignores SIGPIPE. */
struct tls_handshake;
typedef void tls_done_fn(void *ctx, enum error error);
MUST_CHECK enum error tls_handshake_start(struct loop *loop, int fd, SSL *ssl, bool is_server, int64_t deadline_ns,
                                          tls_done_fn *done, void *ctx, struct tls_handshake **ret);
/* Before `done`: it is not called any more. Accepts NULL, returns NULL. */
struct tls_handshake *tls_handshake_cancel(struct tls_handshake *handshake);

#endif
