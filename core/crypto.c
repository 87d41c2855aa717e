#include "core/crypto.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Fetched once: a fetch for each digest costs more than hashing a key does. Constant afterwards. */
static const EVP_MD *sha256;

static void fetch_sha256(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!sha256)
        abort();
}

void crypto_random(void *ret, size_t len)
{
    assert(len <= INT32_MAX);
    if (RAND_bytes(ret, (int)len) != 1)
        abort();
}

void crypto_sha256(struct str bytes, uint8_t ret[static SHA256_BYTES])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fetch_sha256);
    if (EVP_Digest(bytes.len ? bytes.ptr : "", bytes.len, ret, NULL, sha256, NULL) != 1)
        abort();
}

void crypto_sha256_hex(struct str bytes, char ret[static SHA256_HEX])
{
    uint8_t digest[SHA256_BYTES];
    crypto_sha256(bytes, digest);
    crypto_hex(digest, sizeof(digest), ret);
}

bool crypto_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

bool crypto_str_equal(struct str a, struct str b)
{
    return a.len == b.len && crypto_equal(a.ptr, b.ptr, a.len);
}

void crypto_hmac_sha256(struct str key, struct str bytes, uint8_t ret[static SHA256_BYTES])
{
    unsigned len = 0;
    assert(key.len <= INT32_MAX);
    if (!HMAC(EVP_sha256(), key.len ? key.ptr : "", (int)key.len, (const unsigned char *)(bytes.len ? bytes.ptr : ""),
              bytes.len, ret, &len) ||
        len != SHA256_BYTES)
        abort();
}

void crypto_secret_of(const char *prefix, const uint8_t bits[static SHA256_BYTES], char ret[static SECRET_TEXT_MAX])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t padded[33] = {0}; /* 256 bits and one zero byte, so that 43 digits read whole groups of three bytes */
    memcpy(padded, bits, SHA256_BYTES);
    size_t at = strlen(prefix);
    assert(at + 43 < SECRET_TEXT_MAX);
    memcpy(ret, prefix, at);
    for (size_t i = 0; i < 43; i++) {
        const uint8_t *group = padded + i / 4 * 3;
        uint32_t word = (uint32_t)group[0] << 16 | (uint32_t)group[1] << 8 | group[2];
        ret[at++] = digits[word >> (18 - 6 * (i % 4)) & 63];
    }
    ret[at] = '\0';
    crypto_wipe(padded, sizeof(padded));
}

void crypto_secret(const char *prefix, char ret[static SECRET_TEXT_MAX])
{
    uint8_t random[SHA256_BYTES];
    crypto_random(random, sizeof(random));
    crypto_secret_of(prefix, random, ret);
    crypto_wipe(random, sizeof(random));
}

void crypto_hex(const uint8_t *bytes, size_t len, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[2 * len] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool crypto_unhex(struct str hex, uint8_t *ret, size_t len)
{
    if (hex.len != 2 * len)
        return false;
    for (size_t i = 0; i < hex.len; i++) {
        if (hex_value(hex.ptr[i]) < 0)
            return false;
    }
    for (size_t i = 0; i < len; i++)
        ret[i] = (uint8_t)(hex_value(hex.ptr[2 * i]) << 4 | hex_value(hex.ptr[2 * i + 1]));
    return true;
}

void crypto_wipe(void *secret, size_t len)
{
    OPENSSL_cleanse(secret, len);
}
