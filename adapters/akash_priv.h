/* The inside of the Akash adapter: shared by akash.c, akash_offers.c and akash_create.c. */
#ifndef SLUICE_ADAPTERS_AKASH_PRIV_H
#define SLUICE_ADAPTERS_AKASH_PRIV_H

#include "adapters/adapter.h"

#define AKASH_DSEQ_MAX 24 /* with NUL */
#define AKASH_KNOWN_MAX 1024
#define AKASH_CREATE_MS 90000
#define BLOCK_MS 6000
#define BLOCKS_PER_HOUR 600
#define NANO_PER_MICRO 1000

struct akash_known {
    char dseq[AKASH_DSEQ_MAX], tag[SUPPLY_TAG_MAX];
    uint32_t gpus; /* 0: not known: no answer tells it again */
    bool was_ready;
};

struct akash {
    struct akash_known known[AKASH_KNOWN_MAX]; /* by hash: a service keeps its name, so that each is asked for once */
    bool is_dedicated;
    const char *estimate; /* which statistic of prices is listed: "min", "med", ... */
    int64_t deposit, cpu, memory_gib, bid_wait_ms, bid_poll_ms;
    int64_t create_ms; /* how long a create may last */
};

void akash_offers(struct adapter_call *call);
void akash_create(struct adapter_call *call);

bool akash_is_word(struct str text); /* letters, digits, - and . only; may be empty */
bool akash_country_of(const json_t *provider, char ret[static 3]);
/* Of {"denom", "amount" per block}, for so many GPUs: nano-USD per GPU-hour; -1: not known. */
int64_t akash_price(struct adapter_call *call, const json_t *price, uint32_t gpus);
/* Remembers what create knows of a deployment. */
void akash_note(struct adapter_call *call, struct str dseq, struct str tag, uint32_t gpus);
void akash_close_deployment(struct adapter_call *call, struct str dseq, bool takes_errors, adapter_answer_fn *then);

#endif
