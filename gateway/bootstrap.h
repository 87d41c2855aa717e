/* What a leased machine starts with: our worker and probe, served to whoever has a signed and short-lived address of
 * them, and the shell script that fetches, checks and starts them. */
#ifndef SLUICE_GATEWAY_BOOTSTRAP_H
#define SLUICE_GATEWAY_BOOTSTRAP_H

#include "core/crypto.h"
#include "gateway/door.h"
#include "scheduler/worker_store.h"

struct redis;
struct api_call;
struct bootstrap; /* shared by all threads */

/* Reads sluice-worker and sluice-probe once, from the folder (NULL: where the running program lies), and the CAs of
 * this machine (SSL_CERT_FILE, or where systems keep them), which an image may lack. What is not there is no error
 * here: it is not served, and bootstrap_is_whole says so of the programs. */
MUST_CHECK enum error bootstrap_open(const char *folder, struct bootstrap **ret);
struct bootstrap *bootstrap_free(struct bootstrap *bootstrap); /* after the last answer; accepts NULL, returns NULL */
bool bootstrap_is_whole(const struct bootstrap *bootstrap);

/* Takes the key that signs over from Redis, where the first gateway has put it. On the control thread; now and then. */
void bootstrap_follow_key(struct bootstrap *bootstrap, struct redis *redis);
bool bootstrap_has_key(struct bootstrap *bootstrap);
void bootstrap_set_key(struct bootstrap *bootstrap, const uint8_t key[static SHA256_BYTES]);

/* The token of a lease's attempt ("<lease id>.<attempt>"): the same each time. False: there is no key yet. */
MUST_CHECK bool bootstrap_token(struct bootstrap *bootstrap, struct str lease, char ret[static SECRET_TEXT_MAX]);
/* The signature of an address. False: there is no key yet. */
MUST_CHECK bool bootstrap_sign(struct bootstrap *bootstrap, struct str file, struct str lease, int64_t expires_at_s,
                               char ret[static SECRET_TEXT_MAX]);
/* ERR_DENIED: wrong or expired; ERR_UNREACHABLE: no key yet. Compares in constant time. */
MUST_CHECK enum error bootstrap_verify(struct bootstrap *bootstrap, struct str file, struct str lease,
                                       struct str expires, struct str signature, int64_t now_s);

struct bootstrap_want {
    struct str lease; /* "<lease id>.<attempt>" */
    struct str url;   /* of the gateways, as seen from outside, without a slash at the end */
    struct str token; /* machine: goes into the user data; else into the environment */
    int64_t expires_at_s;
    const struct door_want *door;
};
/* The script, POSIX sh, without the token. ERR_BAD_INPUT: a text of the want cannot be in a script; ERR_TOO_LARGE;
 * ERR_UNREACHABLE: no key yet, or a program is missing. */
MUST_CHECK enum error bootstrap_script(struct bootstrap *bootstrap, const struct bootstrap_want *want, struct buf *to);
/* For a machine: "#!/bin/sh", the token, the script. */
MUST_CHECK enum error bootstrap_user_data(struct bootstrap *bootstrap, const struct bootstrap_want *want,
                                          struct buf *to);
/* In single quotes, so that a shell takes it as one word whatever it holds. False: too long, or a NUL in it. */
MUST_CHECK bool bootstrap_quote(struct str word, struct buf *to);

/* GET /worker/v1/bootstrap/{file} */
void route_bootstrap(struct api_call *call);

#endif
