/* The offers of one network as a gateway holds them: by a digest that also is their id for users, and as records for
 * the other gateways. */
#ifndef SLUICE_GATEWAY_OFFER_TABLE_H
#define SLUICE_GATEWAY_OFFER_TABLE_H

#include "adapters/network.h"

#define OFFER_DIGEST_BYTES 12
#define OFFER_DIGEST_HEX (2 * OFFER_DIGEST_BYTES + 1)
#define OFFER_SHOWN_PREFIX "off_"
#define OFFER_SHOWN_MAX (sizeof(OFFER_SHOWN_PREFIX) + 2 * OFFER_DIGEST_BYTES)

struct offer_digest {
    uint8_t bytes[OFFER_DIGEST_BYTES];
};
/* Of the network's id and its own id of the offer: the same in every gateway and at every poll. */
struct offer_digest offer_digest_of(struct str network, struct str id);
void offer_digest_hex(const struct offer_digest *digest, char ret[static OFFER_DIGEST_HEX]);
MUST_CHECK bool offer_digest_parse(struct str hex, struct offer_digest *ret);
/* "off_<hex>". */
void offer_shown_id(const struct offer_digest *digest, char ret[static OFFER_SHOWN_MAX]);
MUST_CHECK bool offer_shown_parse(struct str shown, struct offer_digest *ret);

struct offer_entry {
    struct offer_digest digest;
    uint32_t round;          /* of the table, when it was last put */
    struct network_offer of; /* its texts lie behind the entry */
};

struct offer_table {
    struct offer_entry **slots;
    size_t count, slot_count;
    uint64_t seed;
    uint32_t round; /* entries are put with it; raise it to find those that were not put again */
};
enum offer_put { OFFER_SAME, OFFER_CHANGED, OFFER_NO_MEMORY };

void offer_table_init(struct offer_table *table);
void offer_table_free(struct offer_table *table); /* what it holds; leaves it empty */
struct offer_entry *offer_table_find(const struct offer_table *table, const struct offer_digest *digest);
/* Copies the offer, unless it is there and the same. */
enum offer_put offer_table_put(struct offer_table *table, const struct offer_digest *digest,
                               const struct network_offer *offer);
void offer_table_remove(struct offer_table *table, const struct offer_digest *digest);
/* Each in no certain order: start with *at = 0; NULL at the end. The table may not change between. */
struct offer_entry *offer_table_next(const struct offer_table *table, size_t *at);
/* Removes what was not put in this round; gone(ctx, digest) for each. */
void offer_table_sweep(struct offer_table *table, void (*gone)(void *ctx, const struct offer_digest *digest),
                       void *ctx);

/* As JSON, appended. False: out of memory, or texts that are not UTF-8. */
MUST_CHECK bool offer_record_write(const struct network_offer *offer, struct buf *to);
/* Calls take(ctx, offer) with borrowed texts. False: not a record. */
MUST_CHECK bool offer_record_read(struct str json, void (*take)(void *ctx, const struct network_offer *offer),
                                  void *ctx);

#endif
