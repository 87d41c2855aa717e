/* `sluice-probe serve` and `sluice-probe claims`: a prover behind a pipe.
 *
 * Envelope, both ways, little-endian: u32 length of the frame (1 .. PROBE_FRAME_MAX), u64 id of the request, the frame.
 * Each request is answered once under its id, in any order. The id's 15 bits from SERVE_ASKER_SHIFT up say which
 * gateway asks. With SERVE_LOCAL set in the id the "frame" is JSON, from the agent itself: {"op":"claims"} ->
 * {"claims":[...]}; {"op":"unseal","gpu":0,"context":hex,"sealed":hex} ->
 * {"text":hex}; or {"error":text}. */
#ifndef SLUICE_PROBES_SERVE_H
#define SLUICE_PROBES_SERVE_H

#include "probes/prover.h"

#define SERVE_LOCAL ((uint64_t)1 << 63)
#define SERVE_ASKER_SHIFT 48
#define SERVE_HEAD 12

enum serve_fault { /* for tests of gateways */
                   SERVE_HONEST,
                   SERVE_WRONG_PROOF, /* a bit of each proof is flipped */
                   SERVE_LATE_PROOF,  /* commitments are held back for a minute */
                   SERVE_SILENT,      /* frames get no answer */
                   SERVE_GARBAGE,     /* random bytes instead of frames */
                   SERVE_OVERSIZE,    /* PROBE_FRAME_MAX zeros instead of frames */
};
MUST_CHECK bool serve_fault_parse(struct str name, enum serve_fault *ret); /* "wrong-proof", ...; "" is none */

struct serve_options {
    struct prover *prover; /* borrowed */
    unsigned threads;      /* the devices and two for what needs no device */
    enum serve_fault fault;
    int in, out;
};
/* Answers until `in` ends. ERR_PROTOCOL: not an envelope. A device's work cannot be broken off: if some is still under
 * way half a second after the end, the process exits here (0, or 1 on an error). */
MUST_CHECK enum error serve_run(const struct serve_options *options);

/* The answer to a request of the agent itself; always JSON. */
MUST_CHECK enum error serve_local(struct prover *prover, struct str request, struct buf *answer);

/* "auto", "cpu" or "cuda"; NULL: no such backend, or no device for it on this machine. */
const struct probe_backend_ops *serve_backend(struct str name);

int serve_command(int argc, char **argv);  /* argv[0] is the command's name */
int claims_command(int argc, char **argv); /* both give the exit code: 0, 1 failure, 2 usage */

#endif
