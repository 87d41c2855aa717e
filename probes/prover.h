/* The worker's end of the protocol: a frame in, a frame out, over a backend. No I/O and no clock that matters. */
#ifndef SLUICE_PROBES_PROVER_H
#define SLUICE_PROBES_PROVER_H

#include "probes/identity.h"
#include "probes/protocol.h"

struct prover;
struct prover_options {
    const struct probe_backend_ops *backend;
    const struct signing_key *key; /* borrowed */
    uint8_t host_id[32];
    unsigned devices; /* of the backend, 1 .. PROBE_DEVICES_MAX */
};
/* Opens all devices; fails if none of them opens. */
MUST_CHECK enum error prover_open(const struct prover_options *options, struct prover **ret);
struct prover *prover_free(struct prover *prover);
/* Appends exactly one frame to *answer, an ERROR frame if need be. Several threads may call at once; one of them works
 * on a device at a time, others asking for that device get PROBE_FAILURE_BUSY. asker: which gateway asks. A device
 * belongs to the asker of its last question until that one's RELEASE, or half a minute; others get BUSY, so that two
 * gateways never prove one device across each other. ERR_NO_MEMORY: nothing was appended. A PASS, WALK or CHAIN that
 * was opened once, or followed by another of its kind or a FILL, is forgotten; FILL's tiles may be read again and
 * again. A device that failed is closed, and opened again for the next question. */
MUST_CHECK enum error prover_answer_to(struct prover *prover, uint32_t asker, struct str frame, struct buf *answer);
/* ... with one asker only, number 0. */
MUST_CHECK enum error prover_answer(struct prover *prover, struct str frame, struct buf *answer);
/* The claims of all devices; the last ones of those at work. Gives their number. */
unsigned prover_claims(struct prover *prover, struct probe_claim ret[static PROBE_DEVICES_MAX]);
/* Opens what was sealed to this process for a purpose of its own (a lease's or job's secret), with the root of the
 * device's last CHAIN for any of its askers (eight are kept). ERR_NOT_FOUND: no such device, or no CHAIN yet; else
 * seal_open's errors. */
MUST_CHECK enum error prover_unseal(struct prover *prover, unsigned gpu, struct str context, struct str sealed,
                                    struct buf *to);

/* A device failed and cannot be opened again in this process, as after a fault of a CUDA kernel: only a new process
 * can. */
bool prover_is_broken(struct prover *prover);

#endif
