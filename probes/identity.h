/* Keys of a worker's probe and of a gateway, and what they sign: Ed25519 and X25519 by OpenSSL. */
#ifndef SLUICE_PROBES_IDENTITY_H
#define SLUICE_PROBES_IDENTITY_H

#include "core/str.h"

#define ED25519_BYTES 32
#define ED25519_SIGNATURE 64

struct signing_key; /* a private Ed25519 key */
/* Reads the key from a PEM file (mode 0600 or stricter, else ERR_DENIED), or makes one and stores it so, atomically. */
MUST_CHECK enum error signing_key_load(const char *path, struct signing_key **ret);
MUST_CHECK enum error signing_key_new(struct signing_key **ret); /* in memory only */
struct signing_key *signing_key_free(struct signing_key *key);   /* wipes; accepts NULL */
void signing_key_public(const struct signing_key *key, uint8_t ret[static ED25519_BYTES]);
MUST_CHECK enum error signing_key_sign(const struct signing_key *key, struct str bytes,
                                       uint8_t ret[static ED25519_SIGNATURE]);
bool signature_check(const uint8_t public_key[static ED25519_BYTES], struct str bytes,
                     const uint8_t signature[static ED25519_SIGNATURE]);

struct exchange_key; /* a private X25519 key */
MUST_CHECK enum error exchange_key_new(struct exchange_key **ret);
struct exchange_key *exchange_key_free(struct exchange_key *key);
void exchange_key_public(const struct exchange_key *key, uint8_t ret[static 32]);

/* -- sealing a secret to the machine that gave a proof --
 * sealed = sender's fresh X25519 public key (32) || AES-256-GCM ciphertext || tag (16), where the 32-byte key and
 * 12-byte nonce = HKDF-SHA256(X25519(sender, receiver), salt = the proof's last CHAIN root, info = "sluice seal 1" ||
 * receiver's public key || sender's public key || context). Additional data: context. Only the holder of the exchange
 * key that was bound to that proof opens it, and only with the proof's root. */
#define SEAL_OVERHEAD 48
#define SEAL_TEXT_MAX 4000
MUST_CHECK enum error seal(const uint8_t receiver[static 32], const uint8_t root[static 32], struct str context,
                           struct str text, struct buf *to);
/* ERR_DENIED: not for this key, root or context, or changed on the way. */
MUST_CHECK enum error seal_open(const struct exchange_key *key, const uint8_t root[static 32], struct str context,
                                struct str sealed, struct buf *to);

#endif
