/* Hashes, random bytes and comparison of secrets, on OpenSSL. */
#ifndef SLUICE_CORE_CRYPTO_H
#define SLUICE_CORE_CRYPTO_H

#include "core/str.h"

#define SHA256_BYTES 32
#define SHA256_HEX 65 /* with NUL */

void crypto_random(void *ret, size_t len); /* aborts if the system has no randomness */
void crypto_sha256(struct str bytes, uint8_t ret[static SHA256_BYTES]);
void crypto_sha256_hex(struct str bytes, char ret[static SHA256_HEX]);
bool crypto_equal(const void *a, const void *b, size_t len); /* constant time */
bool crypto_str_equal(struct str a, struct str b);           /* constant time in the content; lengths may leak */
/* A new secret with a readable prefix: prefix + 43 characters of URL-safe base 64 (256 random bits). */
#define SECRET_TEXT_MAX 64
void crypto_secret(const char *prefix, char ret[static SECRET_TEXT_MAX]);
/* The like, of given bits: the same secret each time. */
void crypto_secret_of(const char *prefix, const uint8_t bits[static SHA256_BYTES], char ret[static SECRET_TEXT_MAX]);
void crypto_hmac_sha256(struct str key, struct str bytes, uint8_t ret[static SHA256_BYTES]);
void crypto_hex(const uint8_t *bytes, size_t len, char *ret); /* 2 * len + 1 bytes */
MUST_CHECK bool crypto_unhex(struct str hex, uint8_t *ret, size_t len);
void crypto_wipe(void *secret, size_t len);

#endif
