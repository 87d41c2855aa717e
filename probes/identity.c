/* Keys by OpenSSL's EVP interface. A struct signing_key or exchange_key is an EVP_PKEY of its kind. */
#include "probes/identity.h"
#include "core/crypto.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEM_BYTES_MAX 4096
#define EXCHANGE_BYTES 32
#define TAG_BYTES 16
#define NONCE_BYTES 12
#define CIPHER_KEY_BYTES 32
#define SEAL_LABEL "sluice seal 1"
#define SEAL_CONTEXT_MAX 512 /* OpenSSL's HKDF takes 1024 bytes of info */

static EVP_PKEY *pkey_of(const void *key)
{
    return (EVP_PKEY *)(uintptr_t)key;
}

static EVP_PKEY *pkey_new(int type)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(type, NULL);
    if (ctx && (EVP_PKEY_keygen_init(ctx) != 1 || EVP_PKEY_keygen(ctx, &key) != 1))
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static void pkey_public(const void *key, uint8_t ret[static 32])
{
    size_t len = 32;
    int ok = EVP_PKEY_get_raw_public_key(pkey_of(key), ret, &len);
    assert(ok == 1 && len == 32);
    if (ok != 1)
        memset(ret, 0, 32);
}

/* -- signing -- */

static int no_passphrase(char *to, int size, int is_writing, void *ctx)
{
    (void)to, (void)size, (void)is_writing, (void)ctx;
    return -1;
}

static enum error key_of_file(int fd, struct signing_key **ret)
{
    struct stat stat;
    char text[PEM_BYTES_MAX];
    size_t len = 0;
    ssize_t got = 0;
    if (fstat(fd, &stat) != 0)
        return ERR_SYSTEM;
    if (!S_ISREG(stat.st_mode) || stat.st_uid != geteuid() || (stat.st_mode & 077) != 0)
        return ERR_DENIED;
    while (len < sizeof(text) && (got = read(fd, text + len, sizeof(text) - len)) > 0)
        len += (size_t)got;
    if (got < 0)
        return ERR_SYSTEM;
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    EVP_PKEY *key = bio && len < sizeof(text) ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    crypto_wipe(text, sizeof(text));
    ERR_clear_error(); /* here and below: what is left in the thread's list would confuse TLS connections of the thread
                        */
    if (!key || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(key);
        return ERR_BAD_INPUT;
    }
    *ret = (struct signing_key *)key;
    return ERR_NONE;
}

/* Under another name first, then linked: whoever reads the path sees a whole key, and no key is ever replaced. */
static enum error key_to_file(const struct signing_key *key, const char *path)
{
    char *name = NULL;
    enum error error = ERR_SYSTEM;
    if (asprintf(&name, "%s.XXXXXX", path) < 0)
        return ERR_NO_MEMORY;
    int fd = mkostemp(name, O_CLOEXEC); /* mode 0600 */
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        if (fd >= 0) {
            close(fd);
            unlink(name);
        }
        free(name);
        return ERR_SYSTEM;
    }
    bool is_written =
        PEM_write_PrivateKey(file, pkey_of(key), NULL, NULL, 0, NULL, NULL) == 1 && fflush(file) == 0 && fsync(fd) == 0;
    if (fclose(file) == 0 && is_written) {
        if (link(name, path) == 0)
            error = ERR_NONE;
        else
            error = errno == EEXIST ? ERR_EXISTS : ERR_SYSTEM;
    }
    unlink(name);
    free(name);
    return error;
}

static enum error key_read(const char *path, struct signing_key **ret)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ERR_NOT_FOUND : errno == ELOOP || errno == EACCES ? ERR_DENIED : ERR_SYSTEM;
    enum error error = key_of_file(fd, ret);
    close(fd);
    return error;
}

enum error signing_key_load(const char *path, struct signing_key **ret)
{
    struct signing_key *key = NULL;
    enum error error = key_read(path, ret);
    if (error != ERR_NOT_FOUND)
        return error;
    error = signing_key_new(&key);
    if (error == ERR_NONE)
        error = key_to_file(key, path);
    if (error == ERR_NONE)
        *ret = key;
    else
        signing_key_free(key);
    return error == ERR_EXISTS ? key_read(path, ret) : error; /* another process was faster: its key is the key */
}

enum error signing_key_new(struct signing_key **ret)
{
    EVP_PKEY *key = pkey_new(EVP_PKEY_ED25519);
    if (!key)
        return ERR_NO_MEMORY;
    *ret = (struct signing_key *)key;
    return ERR_NONE;
}

struct signing_key *signing_key_free(struct signing_key *key)
{
    EVP_PKEY_free((EVP_PKEY *)key);
    return NULL;
}

void signing_key_public(const struct signing_key *key, uint8_t ret[static ED25519_BYTES])
{
    pkey_public(key, ret);
}

enum error signing_key_sign(const struct signing_key *key, struct str bytes, uint8_t ret[static ED25519_SIGNATURE])
{
    uint8_t signature[ED25519_SIGNATURE];
    size_t len = sizeof(signature);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey_of(key)) == 1 &&
              EVP_DigestSign(ctx, signature, &len, (const uint8_t *)bytes.ptr, bytes.len) == 1 &&
              len == sizeof(signature);
    EVP_MD_CTX_free(ctx);
    if (!ok)
        return ERR_NO_MEMORY;
    memcpy(ret, signature, sizeof(signature));
    return ERR_NONE;
}

bool signature_check(const uint8_t public_key[static ED25519_BYTES], struct str bytes,
                     const uint8_t signature[static ED25519_SIGNATURE])
{
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, ED25519_BYTES);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = key && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestVerify(ctx, signature, ED25519_SIGNATURE, (const uint8_t *)bytes.ptr, bytes.len) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}

/* -- exchange and sealing -- */

enum error exchange_key_new(struct exchange_key **ret)
{
    EVP_PKEY *key = pkey_new(EVP_PKEY_X25519);
    if (!key)
        return ERR_NO_MEMORY;
    *ret = (struct exchange_key *)key;
    return ERR_NONE;
}

struct exchange_key *exchange_key_free(struct exchange_key *key)
{
    EVP_PKEY_free((EVP_PKEY *)key);
    return NULL;
}

void exchange_key_public(const struct exchange_key *key, uint8_t ret[static EXCHANGE_BYTES])
{
    pkey_public(key, ret);
}

/* False for a public key of small order too: its product is zero whatever the private key. */
static bool shared_secret(EVP_PKEY *mine, const uint8_t theirs[static EXCHANGE_BYTES],
                          uint8_t ret[static EXCHANGE_BYTES])
{
    size_t len = EXCHANGE_BYTES;
    EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, theirs, EXCHANGE_BYTES);
    EVP_PKEY_CTX *ctx = peer ? EVP_PKEY_CTX_new(mine, NULL) : NULL;
    bool ok = ctx && EVP_PKEY_derive_init(ctx) == 1 && EVP_PKEY_derive_set_peer(ctx, peer) == 1 &&
              EVP_PKEY_derive(ctx, ret, &len) == 1 && len == EXCHANGE_BYTES;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
    ERR_clear_error();
    return ok;
}

struct seal_keys {
    uint8_t cipher[CIPHER_KEY_BYTES], nonce[NONCE_BYTES];
};

struct seal_ends {
    const uint8_t *receiver, *sender, *root; /* public keys; 32 bytes each */
    struct str context;
};

static bool derive_keys(uint8_t secret[static EXCHANGE_BYTES], const struct seal_ends *ends, struct seal_keys *ret)
{
    uint8_t info[sizeof(SEAL_LABEL) - 1 + 2 * EXCHANGE_BYTES + SEAL_CONTEXT_MAX], *at = info;
    uint8_t out[CIPHER_KEY_BYTES + NONCE_BYTES], salt[32];
    memcpy(at, SEAL_LABEL, sizeof(SEAL_LABEL) - 1), at += sizeof(SEAL_LABEL) - 1;
    memcpy(at, ends->receiver, EXCHANGE_BYTES), at += EXCHANGE_BYTES;
    memcpy(at, ends->sender, EXCHANGE_BYTES), at += EXCHANGE_BYTES;
    if (ends->context.len > 0)
        memcpy(at, ends->context.ptr, ends->context.len), at += ends->context.len;
    memcpy(salt, ends->root, sizeof(salt));
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret, EXCHANGE_BYTES),
                                 OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof(salt)),
                                 OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, (size_t)(at - info)),
                                 OSSL_PARAM_construct_end()};
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    bool ok = ctx && EVP_KDF_derive(ctx, out, sizeof(out), params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    if (ok) {
        memcpy(ret->cipher, out, CIPHER_KEY_BYTES);
        memcpy(ret->nonce, out + CIPHER_KEY_BYTES, NONCE_BYTES);
    }
    crypto_wipe(out, sizeof(out));
    return ok;
}

/* to: len + TAG_BYTES. */
static bool encrypt(const struct seal_keys *keys, struct str context, struct str text, uint8_t *to)
{
    int len = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok =
        ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, keys->cipher, keys->nonce) == 1 &&
        (context.len == 0 || EVP_EncryptUpdate(ctx, NULL, &len, (const uint8_t *)context.ptr, (int)context.len) == 1) &&
        EVP_EncryptUpdate(ctx, to, &len, (const uint8_t *)text.ptr, (int)text.len) == 1 && len == (int)text.len &&
        EVP_EncryptFinal_ex(ctx, to + len, &len) == 1 && len == 0 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, to + text.len) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

/* from: len + TAG_BYTES; to: len. */
static bool decrypt(const struct seal_keys *keys, struct str context, const uint8_t *from, size_t text_len, uint8_t *to)
{
    int len = 0;
    uint8_t tag[TAG_BYTES];
    memcpy(tag, from + text_len, TAG_BYTES);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok =
        ctx && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, keys->cipher, keys->nonce) == 1 &&
        (context.len == 0 || EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *)context.ptr, (int)context.len) == 1) &&
        EVP_DecryptUpdate(ctx, to, &len, from, (int)text_len) == 1 && len == (int)text_len &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1 &&
        EVP_DecryptFinal_ex(ctx, to + text_len, &len) == 1 && len == 0;
    EVP_CIPHER_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

enum error seal(const uint8_t receiver[static 32], const uint8_t root[static 32], struct str context, struct str text,
                struct buf *to)
{
    uint8_t sender[EXCHANGE_BYTES], secret[EXCHANGE_BYTES], sealed[SEAL_TEXT_MAX + TAG_BYTES];
    struct seal_ends ends = {receiver, sender, root, context};
    struct seal_keys keys;
    enum error error = ERR_BAD_INPUT;
    if (text.len == 0)
        return ERR_BAD_INPUT;
    if (text.len > SEAL_TEXT_MAX || context.len > SEAL_CONTEXT_MAX)
        return ERR_TOO_LARGE;
    EVP_PKEY *mine = pkey_new(EVP_PKEY_X25519);
    if (!mine)
        return ERR_NO_MEMORY;
    pkey_public(mine, sender);
    if (!shared_secret(mine, receiver, secret))
        goto out;
    error = ERR_NO_MEMORY;
    if (derive_keys(secret, &ends, &keys) && encrypt(&keys, context, text, sealed) &&
        buf_reserve(to, text.len + SEAL_OVERHEAD) && buf_append(to, sender, sizeof(sender)) &&
        buf_append(to, sealed, text.len + TAG_BYTES))
        error = ERR_NONE;
out:
    EVP_PKEY_free(mine);
    crypto_wipe(secret, sizeof(secret));
    crypto_wipe(&keys, sizeof(keys));
    return error;
}

enum error seal_open(const struct exchange_key *key, const uint8_t root[static 32], struct str context,
                     struct str sealed, struct buf *to)
{
    uint8_t receiver[EXCHANGE_BYTES], secret[EXCHANGE_BYTES], text[SEAL_TEXT_MAX];
    struct seal_ends ends = {receiver, (const uint8_t *)sealed.ptr, root, context};
    struct seal_keys keys;
    enum error error = ERR_DENIED;
    if (sealed.len <= SEAL_OVERHEAD || sealed.len > SEAL_TEXT_MAX + SEAL_OVERHEAD || context.len > SEAL_CONTEXT_MAX)
        return ERR_DENIED;
    size_t text_len = sealed.len - SEAL_OVERHEAD;
    pkey_public(key, receiver);
    if (shared_secret(pkey_of(key), ends.sender, secret) && derive_keys(secret, &ends, &keys) &&
        decrypt(&keys, context, ends.sender + EXCHANGE_BYTES, text_len, text))
        error = buf_append(to, text, text_len) ? ERR_NONE : ERR_NO_MEMORY;
    crypto_wipe(secret, sizeof(secret));
    crypto_wipe(&keys, sizeof(keys));
    crypto_wipe(text, sizeof(text));
    return error;
}
