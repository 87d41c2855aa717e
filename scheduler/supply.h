/* The words that networks, leases and the market share: what a network offers, what runs there, why a call failed.
 * Plain data; texts are borrowed unless a struct holds the bytes itself. */
#ifndef SLUICE_SCHEDULER_SUPPLY_H
#define SLUICE_SCHEDULER_SUPPLY_H

#include "core/error.h"
#include "core/str.h"

#define SUPPLY_ID_MAX 160 /* an offer's or instance's id on its network, with NUL */
#define SUPPLY_TAG_MAX 56 /* with NUL */
#define SUPPLY_PORTS_MAX 16
#define SUPPLY_MESSAGE_MAX 320

/* Why a network did not do what it was asked. One list gives the enum and the names that users see. */
#define SUPPLY_ERROR_MAP(X)                                                                                         \
    X(SUPPLY_OK, "ok")                                                                                              \
    X(SUPPLY_NO_CAPACITY, "no_capacity")       /* this offer is gone or full: the next candidate */                 \
    X(SUPPLY_QUOTA, "quota")                   /* our account's limit there */                                      \
    X(SUPPLY_NO_FUNDS, "no_funds")             /* our account there is empty */                                     \
    X(SUPPLY_BAD_REQUEST, "bad_request")       /* would be refused again: image, arguments */                       \
    X(SUPPLY_BAD_CREDENTIAL, "bad_credential") /* the whole network is of no use until the operator acts */         \
    X(SUPPLY_RATE_LIMITED, "rate_limited")     /* later; retry_after_ms tells when, if the network did */           \
    X(SUPPLY_TRANSIENT, "transient")           /* 5xx, no answer, broken connection */                              \
    X(SUPPLY_UNKNOWN, "unknown")               /* not understood: treated as transient for this offer only */       \
    X(SUPPLY_NOT_FOUND, "not_found")           /* no such instance (any more) */                                    \
    X(SUPPLY_NOT_YET, "not_yet")               /* refused in this state (a delete while provisioning): ask again */ \
    X(SUPPLY_PRICE_MOVED, "price_moved")       /* dearer than quoted or than the cap */                             \
    X(SUPPLY_UNSUPPORTED, "unsupported")       /* the network lacks it */                                           \
    X(SUPPLY_BOOT_TIMEOUT, "boot_timeout")     /* ours: it did not come up in time */                               \
    X(SUPPLY_PROBE_FAILED, "probe_failed")     /* ours: not what was sold, or it proved nothing */                  \
    X(SUPPLY_FAILED, "failed")                 /* the instance ended or failed before it was usable */              \
    X(SUPPLY_LOST, "lost")                     /* it ran and is gone: preempted, evicted, crashed */

#define SUPPLY_ERROR_CODE(code, text) code,
enum supply_error { SUPPLY_ERROR_MAP(SUPPLY_ERROR_CODE) SUPPLY_ERROR_COUNT };
#undef SUPPLY_ERROR_CODE
const char *supply_error_name(enum supply_error error); /* never NULL */
MUST_CHECK bool supply_error_of(struct str name, enum supply_error *ret);
/* Is the supplier to blame, so that its reputation falls (boot timeout, failed proof, failed, lost)? */
bool supply_error_is_suppliers(enum supply_error error);

/* What an instance is doing, as far as the network tells. */
#define INSTANCE_STATE_MAP(X)                                                        \
    X(INSTANCE_PENDING, "pending") /* accepted, not running yet */                   \
    X(INSTANCE_RUNNING, "running")                                                   \
    X(INSTANCE_STOPPING, "stopping") /* on its way out; may still bill */            \
    X(INSTANCE_STOPPED, "stopped")   /* exists and may bill (disk): must be ended */ \
    X(INSTANCE_FAILED, "failed")     /* will not run any more, but exists */         \
    X(INSTANCE_GONE, "gone")         /* nothing is left of it */
#define INSTANCE_STATE_CODE(code, text) code,
enum instance_state { INSTANCE_STATE_MAP(INSTANCE_STATE_CODE) INSTANCE_STATE_COUNT };
#undef INSTANCE_STATE_CODE
const char *instance_state_name(enum instance_state state);

struct supply_endpoint {
    uint16_t port;  /* inside */
    struct str url; /* "http://203.0.113.7:33526", "tcp://host:port" */
};

/* Something that runs, or did, under a tag of ours. */
struct supply_instance {
    struct str id;  /* the network's own; what describe, logs, stop and terminate take */
    struct str tag; /* as the network holds it; absent where it tells none */
    enum instance_state state;
    struct str reason; /* in the network's words; absent: none */
    const struct supply_endpoint *endpoints;
    size_t endpoint_count;
    int64_t price_usd_nano; /* per GPU-hour as the network tells it now; -1: it does not */
    int interruptible;      /* 1, 0; -1: it does not tell */
    int64_t created_at_ms;  /* 0: unknown */
    struct str placement;   /* zone, node or host, for people; absent: unknown */
};

/* What create is asked for. */
struct supply_pair {
    struct str key, value;
};
struct supply_order {
    struct str tag;   /* also the idempotency token */
    struct str offer; /* supply_offer.id */
    uint32_t gpus;
    struct str image;       /* of the container; VM networks run it by docker in `script` */
    const struct str *argv; /* what the container runs, in place of its own command */
    size_t argc;
    const struct supply_pair *env; /* secrets among them: never logged */
    size_t env_count;
    struct str script; /* the same as a POSIX shell script with its environment, for VMs' user data */
    const uint16_t *ports;
    size_t port_count;
    int64_t price_max_usd_nano;    /* per GPU-hour: what it may cost at most, without our markup; -1: no cap */
    int64_t price_quoted_usd_nano; /* per GPU-hour, as the offer was listed */
    bool interruptible;
    int64_t span_s;   /* how long it is wanted: bounds prepaid spans and dead-man switches; > 0 */
    int64_t disk_gib; /* > 0 */
};

/* The offer's id, tag and so on are checked for length before an adapter sees them.
 * Tag of an attempt: "sluice-<installation>-<lease>-<attempt>". */
#define SUPPLY_INSTALLATION_MAX 8 /* 6 hex digits, NUL */
/* lease_id: "lse_" and 26 characters. */
MUST_CHECK bool supply_tag_make(struct str installation, struct str lease_id, uint32_t attempt,
                                char ret[static SUPPLY_TAG_MAX]);
/* Is it one of this installation's? Then whose. ret_lease_id gets "lse_..." (ID_TEXT_MAX bytes). */
MUST_CHECK bool supply_tag_parse(struct str installation, struct str tag, char *ret_lease_id, uint32_t *ret_attempt);

#endif
