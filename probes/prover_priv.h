/* Inside the prover: prover.c (frames and challenges), prover_device.c (who has a device, and what it holds),
 * prover_open.c (openings). */
#ifndef SLUICE_PROBES_PROVER_PRIV_H
#define SLUICE_PROBES_PROVER_PRIV_H

#include "probes/prover.h"

#include <pthread.h>

#define KINDS (PROBE_KIND_CHAIN + 1)
#define ROOTS 8 /* of a device; the oldest makes room */

struct held { /* a challenge that was answered and not opened yet */
    bool is_open;
    uint8_t id[PROBE_ID_BYTES];
    uint64_t items;    /* PASS and FILL: tiles; WALK: walkers; CHAIN: rows */
    uint32_t parts;    /* PASS: passes; WALK: steps; else 1 */
    size_t item_bytes; /* of the data of an item */
};

struct root { /* of the last CHAIN for an asker */
    uint32_t asker;
    uint64_t order; /* 0: none; else the higher the later */
    uint8_t bytes[PROBE_HASH_BYTES];
};

struct device {
    pthread_mutex_t lock;
    uint32_t owner; /* the asker whose session it is in, until owned_until_ns or its RELEASE */
    int64_t owned_until_ns;
    bool is_at_work; /* somebody has it or waits for a claim to be made; whoever looks for claims only does not count */
    struct probe_backend *backend; /* NULL: it failed; opened again when it is asked for */
    struct held held[KINDS];       /* by kind */
    uint64_t tiles;                /* that were filled; 0: none */
    struct probe_claim claim;      /* the last one seen */
    struct root roots[ROOTS];
};

struct prover {
    const struct probe_backend_ops *ops;
    const struct signing_key *key;
    struct exchange_key *exchange;
    uint8_t worker_key[PROBE_KEY_BYTES], host_id[32];
    uint32_t worker_words[PROBE_KEY_BYTES / 4];
    pthread_mutex_t lock;
    uint64_t chains; /* so far */
    bool is_broken;  /* a device that failed could not be opened again */
    unsigned device_count;
    struct device devices[PROBE_DEVICES_MAX];
};

/* What an answer is made of. */
struct reply {
    uint32_t asker;
    struct probe_frame frame;
    struct buf data; /* what a PROOF's items view */
};

void prover_fail(struct reply *reply, enum probe_failure code, struct str text); /* the reply is an ERROR frame */

/* -- prover_device.c -- */
/* Takes the device for the calling thread; on NULL the reply says why not. */
struct device *device_take(struct prover *prover, uint32_t index, struct reply *reply);
void device_give(struct prover *prover, struct device *device, bool is_released);
void device_look(struct prover *prover, struct device *device); /* keeps what it claims now */
void device_forget(struct prover *prover, struct device *device, enum probe_kind kind);
void device_forget_all(struct prover *prover, struct device *device);
/* Says what went wrong on the device. One that failed is closed, and so forgets what it held. */
void device_failed(struct prover *prover, struct device *device, enum error error, struct reply *reply);
bool prover_holds(struct prover *prover, const uint8_t *id, unsigned *ret_device, enum probe_kind *ret_kind);

/* -- prover_open.c -- */
void prover_open_items(struct prover *prover, const struct probe_open *open, struct reply *reply);

#endif
