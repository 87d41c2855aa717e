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
MUST_CHECK enum error prover_open(const struct prover_options *options, struct prover **ret);
struct prover *prover_free(struct prover *prover);
/* Appends exactly one frame to *answer, an ERROR frame if need be. Several threads may call at once; one of them works
 * on a device at a time, others asking for that device get PROBE_FAILURE_BUSY. ERR_NO_MEMORY: nothing was appended. A
 * challenge that was opened once, or followed by another on the same device, is forgotten but for what PASS and WALK
 * need of FILL's tiles. */
MUST_CHECK enum error prover_answer(struct prover *prover, struct str frame, struct buf *answer);
/* Opens what was sealed to this process for a purpose of its own (a lease's or job's secret), with the root of the
 * device's last CHAIN. */
MUST_CHECK enum error prover_unseal(struct prover *prover, unsigned gpu, struct str context, struct str sealed,
                                    struct buf *to);

#endif
