/* The agent on a GPU machine: registers with the gateways, dials its links, and serves their calls from its upstream.
 * The wire format is in README.md beside this file. One loop, one helper thread (name look-ups). */
#ifndef SLUICE_ADAPTERS_NATIVE_AGENT_H
#define SLUICE_ADAPTERS_NATIVE_AGENT_H

#include "core/h2.h"

#include <sys/types.h>

#define AGENT_URLS_MAX 16
#define AGENT_SLOTS_MAX 4096
#define AGENT_GPUS_MAX 1024

/* Answers calls in place of an upstream: for benchmarks of the gateway. */
struct agent_source {
    const char *model;
    /* As h2_options.on_request; whoever answers keeps to the slots. */
    bool (*on_call)(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                    const struct h2_stream_ops **ret_ops, void **ret_ctx);
    void *ctx;
};

struct agent_options {
    char gateways[AGENT_URLS_MAX][256]; /* without a slash at the end */
    size_t gateway_count;
    char upstream[256];                  /* without "/v1" or a slash at the end */
    char token[256], upstream_key[1024]; /* secrets; "" for none */
    char name[64], region[32], tags[256];
    char gpu[40]; /* "": whatever the probe says, and gpus 0 too */
    char state_dir[1024];
    char ca[1024];    /* PEM file of the CAs that vouch for gateways; "": the system's */
    char probe[1024]; /* the program; "": none, and frames get 503 */
    bool has_probe_user;
    uid_t probe_uid; /* whom the probe runs as */
    gid_t probe_gid;
    int gpus, slots;
    int64_t price_usd_nano; /* per GPU-hour */
    int64_t delay_ns, drain_ns;
    const struct agent_source *source; /* NULL: the upstream; must outlive the agent */
    /* of a leased machine: no upstream, no calls; it proves itself, then runs its tenant's command */
    char lease[64];        /* "": none */
    char *const *command;  /* argv, ends with NULL, outlives the agent; NULL: none, and it idles */
    bool has_command_user; /* whom the command runs as */
    uid_t command_uid;
    gid_t command_gid;
    int64_t orphan_ns; /* without a gateway for so long it ends itself */
    bool no_probe;
    bool wrong_proof, late_proof; /* faults to test gateways with: SLUICE_WORKER_FAULT */
};

enum agent_parsed { AGENT_RUN, AGENT_HELP, AGENT_VERSION, AGENT_BAD };

/* Reads the command line, the secrets it points to, and what the environment and the machine tell. On AGENT_BAD
 * ret_message holds why, for a human. */
enum agent_parsed agent_options_parse(int argc, char *const argv[], struct agent_options *ret, char *ret_message,
                                      size_t message_size);
extern const char agent_usage[];
/* Without --probe: sluice-probe beside the running program, or else in PATH. False: there is none; ret_message says. */
MUST_CHECK bool agent_probe_default(struct agent_options *options, char *ret_message, size_t message_size);

/* The canonical name of a GPU from the driver's own ("NVIDIA H100 80GB HBM3") and its memory (0: not known); false
 * when no class is that one for certain. */
MUST_CHECK bool agent_gpu_name(struct str driver_name, uint64_t vram_bytes, char *ret, size_t size);

enum agent_exit {
    AGENT_DRAINED = 0,
    AGENT_REFUSED =
        3, /* the gateway does not take the token, or the description of this worker; or nobody knows its GPU */
    AGENT_ORPHANED = 4, /* of a lease: no gateway for too long */
};

struct agent;

/* ERR_EXISTS: another agent holds the state directory. on_done comes once from the loop; then agent_free. */
MUST_CHECK enum error agent_open(struct loop *loop, const struct agent_options *options,
                                 void (*on_done)(void *ctx, enum agent_exit code), void *ctx, struct agent **ret);
/* No new calls; on_done(AGENT_DRAINED) when the running ones have ended, or after drain_ns. Again: harmless. */
void agent_drain(struct agent *agent);
struct agent *agent_free(struct agent *agent); /* drops everything at once; accepts NULL, returns NULL */

#endif
