/* The list of live gateways, in Redis: each tells it once a second that it is there, and gets the list in return. */
#ifndef SLUICE_GATEWAY_GATEWAYS_H
#define SLUICE_GATEWAY_GATEWAYS_H

#include "core/crypto.h"
#include "core/id.h"
#include "core/redis.h"
#include <jansson.h>

#define GATEWAYS_LIFE_MS 5000 /* without a sign for longer it is off the list */

struct gateway_address {
    char id[ID_TEXT_MAX];
    char address[300]; /* "host:port", IPv6 in brackets */
    unsigned links;    /* that it wants of each worker */
    bool tls;
    char pin[SHA256_HEX]; /* hex SHA-256 of its certificate; "" without TLS */
};

/* take_json: the list as adapters/native/README.md has it, ordered by id; "" on error. */
typedef void gateways_list_fn(void *ctx, enum error error, struct str json);

/* is_settled: signs of this gateway have arrived for GATEWAYS_LIFE_MS without a gap; only then does it take others off,
 * for after an outage of Redis all of them are late. done NULL: nobody waits. */
MUST_CHECK enum error gateways_sign(struct redis *redis, const struct gateway_address *self, bool is_settled,
                                    gateways_list_fn *done, void *ctx);
/* At exit. done may be NULL. */
MUST_CHECK enum error gateways_leave(struct redis *redis, const char *id, void (*done)(void *ctx), void *ctx);
/* The list as it is, for the answer to a registration. */
MUST_CHECK enum error gateways_read(struct redis *redis, gateways_list_fn *done, void *ctx);

#endif
