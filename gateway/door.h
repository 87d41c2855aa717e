/* The door: what a leased machine or container goes through before it is its tenant's. It is created with a small
 * script that fetches our worker and probe from here, registers with the token of its attempt, proves itself, and runs
 * the tenant's command when it is told to. Also how the command is watched, read and stopped.
 *
 * All calls are for the control thread. Any gateway can carry on where another died: nothing is kept in memory but what
 * Redis and the worker's own links tell. Worker and token of an attempt follow from its lease id and number, so that
 * each call may be repeated. A leased worker is never routed calls, and is no offer of the market. */
#ifndef SLUICE_GATEWAY_DOOR_H
#define SLUICE_GATEWAY_DOOR_H

#include "core/error.h"
#include "core/id.h"
#include "core/str.h"

struct control;

#define DOOR_PAIRS_MAX 64
#define DOOR_WORDS_MAX 64
#define DOOR_PORTS_MAX 16
#define DOOR_TEXT_MAX 16384 /* of all that a want holds, together */
#define DOOR_LOGS_MAX 65536 /* bytes of one answer of door_logs */

struct door_pair {
    struct str name, value;
};

struct door_port {
    uint16_t port; /* the same inside and outside */
    bool is_udp;
};

enum door_kind {
    DOOR_CONTAINER, /* the script is the command of the container, the tenant's command a child of our worker */
    DOOR_MACHINE, /* the script is user data of a machine with Docker; the worker starts the image with `docker run` */
};

/* What an attempt is to become. Borrowed for the call. */
struct door_want {
    enum door_kind kind;
    struct str supplier; /* whose reputation it adds to, at most 63 bytes; absent: "lease" */
    const struct str
        *command; /* the tenant's, argv; none: a container idles until it is stopped, an image runs its own */
    size_t command_count;
    struct str image;            /* machine: required */
    const struct door_pair *env; /* machine: of the tenant's container. A container network sets these itself. */
    size_t env_count;
    const struct door_port *ports; /* machine: published */
    size_t port_count;
    bool without_probe; /* the network's probe is off: only the worker is fetched, and nothing is ever proven */
    int64_t valid_ms;   /* token and URLs, from now; 0: an hour */
    int64_t orphan_s;   /* without a gateway for so long it ends by itself; 0: 900 */
};

/* How to create it. Borrowed for the call of done. */
struct door_start {
    struct str argv[3];      /* container: "sh", "-c", script */
    struct door_pair env[2]; /* container: to be set beside the tenant's own (SLUICE_TOKEN) */
    size_t env_count;
    struct str script;    /* argv[2]; holds no secret but short-lived URLs */
    struct str user_data; /* machine: "#!/bin/sh", the token, the script. Absent for a container. */
    int64_t expires_at_ms;
};

/* Stores the attempt's token and makes its script. done comes once, in a coming turn. ERR_BAD_INPUT: of the want;
 * ERR_TOO_LARGE: longer than the limits above; ERR_UNREACHABLE: the programs to serve are not beside sluiced, or no
 * answer of Redis yet. Again: the same token, newer URLs. */
typedef void door_opened_fn(void *ctx, enum error error, const struct door_start *start);
MUST_CHECK enum error door_open_attempt(struct control *control, struct str lease_id, unsigned attempt,
                                        const struct door_want *want, door_opened_fn *done, void *ctx);

enum door_stage {
    DOOR_ABSENT,     /* not registered (yet), or closed */
    DOOR_REGISTERED, /* and waits to be proven; forever without_probe */
    DOOR_PROBING,
    DOOR_PROVEN,
    DOOR_REFUSED, /* the last proof failed; reason says why. A later one may pass: it is tried again after a pause. */
};

enum door_command {
    DOOR_COMMAND_UNKNOWN, /* no status since this gateway knows it */
    DOOR_COMMAND_WAITING, /* for door_go */
    DOOR_COMMAND_RUNNING,
    DOOR_COMMAND_STOPPING,
    DOOR_COMMAND_EXITED, /* exit_code: 0 .. 255, or 128 + signal */
};

struct door_view {
    enum door_stage stage;
    bool is_linked;              /* to this gateway, now */
    char worker_id[ID_TEXT_MAX]; /* also while absent */
    char reason[128];            /* of a refusal; "" */
    /* what was proven; zero before */
    char gpu[40]; /* class by the proven numbers; "": none is near */
    uint32_t devices;
    double vram_gib, class_vram_gib; /* of a device: seen, and of the class (0: unknown) */
    double performance;              /* share of the class's datasheet; 1: unknown */
    int64_t proven_at_ms;
    int64_t silent_ms; /* since it was last heard of here; -1: never */
    enum door_command command;
    int exit_code;
};
/* A look into memory. Follows Redis and the links by a moment. */
void door_state(struct control *control, struct str lease_id, unsigned attempt, struct door_view *ret);

/* Asked of the worker over a link of this gateway; done comes once, in a coming turn. ERR_CLOSED: no link here now, or
 * it broke (it may have been done; ask again). Each may be repeated. */
typedef void door_done_fn(void *ctx, enum error error);
/* Starts the tenant's command; once it has been started, nothing. */
MUST_CHECK enum error door_go(struct control *control, struct str lease_id, unsigned attempt, door_done_fn *done,
                              void *ctx);
/* Asks the command to end (SIGTERM), ends it after 10 s; a command not yet started never starts. */
MUST_CHECK enum error door_stop(struct control *control, struct str lease_id, unsigned attempt, door_done_fn *done,
                                void *ctx);

/* Output of the command, stdout and stderr together, of which the worker keeps the last MiB. from: offset in all that
 * was ever written; older bytes than are kept are passed over (start tells where these begin). At most
 * DOOR_LOGS_MAX bytes an answer. With wait_ms the answer waits that long for new bytes. bytes are the tenant's:
 * anything. */
struct door_logs {
    int64_t start, end; /* offsets of the first byte, and behind the last */
    struct str bytes;   /* borrowed for the call */
    bool is_over;       /* the command has ended, and these are its last */
};
typedef void door_logs_fn(void *ctx, enum error error, const struct door_logs *logs);
MUST_CHECK enum error door_logs(struct control *control, struct str lease_id, unsigned attempt, int64_t from,
                                int64_t wait_ms, door_logs_fn *done, void *ctx);

/* The attempt is over: its token and worker are forgotten, so that nothing accumulates. Harmless again, and for an
 * attempt that was never opened. */
MUST_CHECK enum error door_close_attempt(struct control *control, struct str lease_id, unsigned attempt,
                                         door_done_fn *done, void *ctx);

/* -- what was sold against what was proven; pure -- */

struct door_sold {
    struct str gpu; /* canonical: vendor/model[-form][-memory], or "cpu" */
    uint32_t gpus;
    double vram_gib; /* of one GPU; 0: as the name says, or unknown */
};
enum door_verdict { DOOR_OK, DOOR_LESS, DOOR_NOTHING };
/* ret_text: one line for people, as "sold 8 x nvidia/h100-sxm-80, proven 4". DOOR_NOTHING: no proof has passed. */
enum door_verdict door_judge(const struct door_sold *sold, const struct door_view *view, char *ret_text, size_t size);

#endif
