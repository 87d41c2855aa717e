/* A device that lies: a backend that keeps less than it says, or computes less than it was asked for, and counts the
 * work that it really does, so that a model of a GPU can say how long that takes. A lie of zeros is an honest device.
 */
#ifndef SLUICE_TESTS_ATTACKS_LIE_H
#define SLUICE_TESTS_ATTACKS_LIE_H

#include "probes/backend.h"

enum lie_missing { /* what stands in for the tiles that are not in the device's memory */
                   LIE_GARBAGE,
                   LIE_RECOMPUTED,
                   LIE_FROM_HOST, /* over PCIe */
                   LIE_FROM_PEER, /* over NVLink, out of another device's memory */
};

enum lie_chain {
    LIE_CHAIN_NONE,
    LIE_CHAIN_ROWS,        /* a share of the rows of one step is not computed */
    LIE_CHAIN_ONE_ROW,     /* one row is */
    LIE_CHAIN_ONE_ELEMENT, /* one number is wrong */
    LIE_CHAIN_BLOCK,       /* one block of columns of one step is not computed */
    LIE_CHAIN_STEP,        /* a step is left out */
    LIE_CHAIN_SUMS,        /* a share of the products of each sum of one step is left out */
    LIE_CHAIN_LAST_ROWS,   /* a share of the rows of the last step is not computed */
    LIE_CHAIN_NO_SHIFT,    /* the product of all D_t * A at once: right but for the rotations */
    LIE_CHAIN_NO_SCALE,    /* a power of A, by squaring: right but for scales and rotations */
    LIE_CHAIN_WRONG_FIELD, /* modulo 250 */
    LIE_CHAIN_SATURATED,   /* sums cut to 16 bits */
    LIE_CHAIN_OTHER_SEED,  /* a chain computed before */
    LIE_CHAIN_GROUP_RING,  /* the premultiplied matrix over the group ring: right, and it costs what it costs */
};

struct lie_work {                                          /* of the last fill, pass, walk or chain */
    double filled, read, recomputed, from_host, from_peer; /* bytes */
    double walked;                                         /* bytes */
    double operations;                                     /* a multiplication and an addition are two */
};

struct lie {
    struct probe_claim claim;
    uint64_t memory_bytes; /* that the device has for tiles; 0: as many as are asked for */
    double missing_share;  /* of the tiles */
    enum lie_missing missing;
    bool has_other_seed;     /* tiles are those of an earlier fill */
    uint32_t passes_done;    /* that are computed; roots of the others are made up; 0: all */
    uint32_t steps_walked;   /* of each walker; the others are made up; 0: all */
    bool is_other_worker;    /* roots are bound to another worker's key */
    bool is_other_challenge; /* roots are bound to another challenge */
    enum lie_chain chain;
    uint32_t chain_step; /* where, counted from 0 */
    double chain_share;
    struct lie_work work; /* written by the backend */
};

/* The next device that is opened is this one's; the lie must outlive it. */
const struct probe_backend_ops *lie_backend(struct lie *lie);

#endif
