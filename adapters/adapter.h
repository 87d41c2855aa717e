/* The contract with a network. An adapter is one const struct: what the network can, how fast it may be asked, what its
 * errors mean, and a function for each operation. All else (deadlines, pacing, authorisation, JSON, exactly one
 * completion) is network.h's and the same for all.
 *
 * An adapter runs on one loop and never blocks. Its functions get a call, read what is asked from it, send requests
 * (adapter_send), and end it once with adapter_done or adapter_fail, in on_answer or at once. They keep what they need
 * between two answers in the call's own memory (adapter_memory). When a call is over (deadline, cancelled) its open
 * request is dropped and no function of the adapter runs for it again.
 *
 * What a network sends is hostile: check types and lengths, bound loops. Never log bodies or secrets. */
#ifndef SLUICE_ADAPTERS_ADAPTER_H
#define SLUICE_ADAPTERS_ADAPTER_H

#include "core/http_client.h"
#include "pricing/price_terms.h"
#include "scheduler/supply.h"
#include <jansson.h>

enum adapter_op {
    ADAPTER_CHECK,  /* do the credentials hold? */
    ADAPTER_OFFERS, /* what can be had, in pages */
    ADAPTER_CREATE, /* with our tag; gives the instance's id */
    ADAPTER_DESCRIBE,
    ADAPTER_LIST, /* all that runs under tags of this installation, in pages */
    ADAPTER_LOGS,
    ADAPTER_STOP,      /* keep the disk, end the compute, where there is such a thing */
    ADAPTER_TERMINATE, /* end it and its billing; of one that is gone: done */
    ADAPTER_OPS
};
const char *adapter_op_name(enum adapter_op op);

/* What a network lacks, or does in its own way. */
enum adapter_trait {
    ADAPTER_NO_LOGS = 1 << 0,
    ADAPTER_NO_TAG = 1 << 1,        /* nothing of ours can be found by name */
    ADAPTER_PREPAID = 1 << 2,       /* paid for a span at create; ends by itself */
    ADAPTER_INTERRUPTIBLE = 1 << 3, /* has offers that can be taken back */
    ADAPTER_ESTIMATED = 1 << 4,     /* listed prices are estimates: the price is known at create */
    ADAPTER_VM = 1 << 5,            /* machines, not containers: order.script is what starts */
    ADAPTER_IDEMPOTENT = 1 << 6,    /* create with the same tag twice makes one */
    ADAPTER_ONE_PORT = 1 << 7,
    ADAPTER_NO_STOP = 1 << 8,
    ADAPTER_IMPORTED_PRICE = 1 << 9, /* the network has no prices: they are configured */
};

/* First match wins. status 0: any; code: equal to what error_code gave; phrase: in the message, case ignored. */
struct adapter_error_row {
    int status;
    const char *code, *phrase;
    enum supply_error error;
};

struct network; /* network.h */
struct adapter_call;
struct adapter_answer;

struct adapter {
    const char *name;           /* the configuration's `adapter` */
    const char *title;          /* for people */
    const char *base_url;       /* default */
    const char *credentials[4]; /* keys that must be given, "?key": may be; ends with NULL */
    const char *options[12];    /* keys of `options` that it knows, "price.*": all that start so; ends with NULL. Known
                                   to all: pace_percent (of the intervals below), deadline_ms, settle_ms, boot_ms, ca_file,
                                   client_cert_file, client_key_file; with ADAPTER_IMPORTED_PRICE price.<gpu> */
    unsigned traits;
    int64_t interval_ns[ADAPTER_OPS];       /* least time between two requests of an operation; 0: none */
    int64_t any_interval_ns;                /* least time between any two requests */
    int64_t deadline_ns[ADAPTER_OPS];       /* 0: 30 s, offers and create 60 s */
    int64_t settle_ms;                      /* how long after create a listing may still lack it; also how long one that
                                               was ended may still be shown */
    int64_t boot_ms;                        /* hard limit from create to a running instance; 0: 20 min */
    int64_t span_min_s;                     /* least duration that can be bought; 0: none */
    const struct adapter_error_row *errors; /* before the rows by status that all share; ends with SUPPLY_OK */
    size_t state_size;                      /* of adapter_state, zeroed */

    /* Any may be NULL. Refuses a configuration: a fixed text, or NULL when it is fine. */
    const char *(*open)(struct network *network);
    void (*close)(struct network *network);
    /* Authorisation of each request: default `Authorization: Bearer <credential api_key>`. adapter_header adds. */
    void (*authorise)(struct network *network, struct adapter_call *call);
    /* The code and message of an error body, borrowed from the answer; default: the usual members (error.code,
     * error.message, error, message, msg, detail, title), else the text itself. */
    void (*explain)(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message);
    /* By operation; NULL: SUPPLY_UNSUPPORTED (CHECK: a listing serves). */
    void (*run[ADAPTER_OPS])(struct adapter_call *call);
};

/* -- what an adapter reads of its network -- */
const struct adapter *network_adapter(const struct network *network);
const char *network_base_url(const struct network *network); /* without a slash at the end */
struct str network_installation(const struct network *network);
const char *network_credential(const struct network *network, const char *key); /* a secret; NULL: not given */
const char *network_option(const struct network *network, const char *key);     /* NULL: not given */
size_t network_option_count(const struct network *network);                     /* all of them, for prefixed keys */
struct str network_option_key(const struct network *network, size_t i, struct str *ret_value);
void *network_state(const struct network *network); /* state_size bytes */
/* "sluice-<installation>-": what tags of this installation start with. */
struct str network_tag_prefix(const struct network *network);

/* -- what an adapter reads of a call -- */
struct network *call_network(const struct adapter_call *call);
enum adapter_op call_op(const struct adapter_call *call);
const struct supply_order *call_order(const struct adapter_call *call); /* CREATE; the call's own copy */
struct str call_instance(const struct adapter_call *call);              /* DESCRIBE, LOGS, STOP, TERMINATE */
struct str call_tag(const struct adapter_call *call);     /* of that instance, or what was created; may be absent */
int64_t call_log_offset(const struct adapter_call *call); /* LOGS: bytes the asker has already */
int64_t call_wall_ms(const struct adapter_call *call);    /* Unix ms now */
/* Zeroed memory of the call's own, one block a call, made at the first use; size at most 64 KiB. */
void *adapter_memory(struct adapter_call *call, size_t size);
/* Texts that live as long as the call: for URLs, ids kept between two answers. Absent: out of memory (the call was
 * failed then; just return). */
struct str adapter_text(struct adapter_call *call, const char *format, ...) PRINTF_LIKE(2, 3);
struct str adapter_url_escaped(struct adapter_call *call, struct str text); /* percent-encoded, all but unreserved */

/* -- requests -- */
struct adapter_answer {
    int status;
    struct str body;
    const json_t *json; /* the body where it is JSON, else NULL */
    struct str (*header)(const struct adapter_answer *answer, const char *lower_name); /* absent when none */
    const struct http_header *headers;
    size_t header_count;
};
typedef void adapter_answer_fn(struct adapter_call *call, const struct adapter_answer *answer);

struct adapter_request {
    const char *method; /* NULL: GET */
    struct str path;    /* from base_url on, with its query; or a whole URL */
    json_t *take_json;  /* body as JSON, its reference is taken; or */
    struct str body;    /* a body as it is; absent: none */
    const char *content_type;
    const char *accept;    /* NULL: JSON, and 2xx with something else fails the call as transient */
    const char *aws_sigv4; /* "aws:amz:<region>:<service>": signed with credentials access_key and secret_key */
    bool creates;          /* a lost answer may have made something: the call then fails as uncertain */
    bool takes_errors;     /* on_answer gets answers of every status; else only 2xx, others fail the call */
    size_t body_max;       /* of the answer; 0: 8 MiB */
    adapter_answer_fn *on_answer;
    /* LOGS: instead of a whole answer, its bytes as they come; on_answer at the end without a body. */
    void (*on_data)(struct adapter_call *call, struct str bytes);
};
/* One at a time in a call. Waits for its turn by the network's pace. A request that cannot be sent, ends without an
 * answer, or is answered by an error, fails the call by itself; one that is refused for asking too often goes again by
 * itself when the network allows, within the call's deadline. */
void adapter_send(struct adapter_call *call, const struct adapter_request *request);
/* For authorise, or before adapter_send: a header of the next request. */
void adapter_header(struct adapter_call *call, const char *name, struct str value);
/* Again after a while, within the call's deadline (polling for bids). */
void adapter_later(struct adapter_call *call, int64_t after_ns, void (*then)(struct adapter_call *call));

/* -- results -- */

/* One offer as the network tells it. network.h normalises GPU, price and place, and drops with a count what it cannot.
 */
struct adapter_offer {
    struct str id;         /* at most SUPPLY_ID_MAX - 1; all that create needs */
    struct str gpu_raw;    /* as the network spells it */
    struct str gpu_form;   /* "SXM5", "PCIe" where told apart; absent */
    uint64_t vram_bytes;   /* of one GPU; 0: not told */
    uint32_t gpus;         /* >= 1; for a fraction of one, 1 */
    uint32_t fraction_ppm; /* of each GPU; 1000000: whole; 0: as the name says */
    uint32_t available;    /* how many such can be had now; 0: not told (UINT32_MAX is no answer) */
    struct str region;     /* the network's own */
    struct str country;    /* ISO 3166 alpha-2 where told; absent */
    struct str zone;       /* what fails together: capacity is remembered by it; absent: region */
    struct str machine;    /* identity where it shows, the same whoever lists it: "ip:203.0.113.7", "uuid:GPU-..." */
    struct str origin;     /* who is behind the network: host, provider, cloud; absent */
    struct price_terms terms;
    bool is_priced; /* false: terms are empty, the configured price counts (ADAPTER_IMPORTED_PRICE) */
    bool interruptible;
    double reliability;             /* 0 .. 1; -1: not told */
    int64_t span_min_s, span_max_s; /* 0: no such bound */
    struct str tags;                /* compliance: "gdpr,soc2"; absent */
    bool is_arm;
};
void adapter_offers(struct adapter_call *call, const struct adapter_offer *offers,
                    size_t count); /* OFFERS; any times */
void adapter_instances(struct adapter_call *call, const struct supply_instance *instances, size_t count); /* LIST */
void adapter_logs(struct adapter_call *call, struct str bytes);                                           /* LOGS */

/* Ends the call well. instance: DESCRIBE must, CREATE must with at least the id; else NULL. */
void adapter_done(struct adapter_call *call, const struct supply_instance *instance);
/* Ends it. message: what the network answered, for people (cut at SUPPLY_MESSAGE_MAX - 1, made harmless). */
void adapter_fail(struct adapter_call *call, enum supply_error error, struct str message);
/* The same by an answer: class by the adapter's table, then by status; message by explain. */
void adapter_fail_answer(struct adapter_call *call, const struct adapter_answer *answer);
enum supply_error adapter_classify(const struct adapter_call *call, const struct adapter_answer *answer);
/* Before adapter_fail of CREATE: this was made all the same and must be ended. */
void adapter_leftover(struct adapter_call *call, struct str instance);
/* Before adapter_fail of CREATE: whether it may have been made is not known (true), or it was surely not (false). A
 * request that `creates` sets it by itself: true once it was sent and for lost answers, 5xx and all 2xx; false when a
 * refusal was understood. So where a refusal comes under 200: adapter_fail_answer, or say false before adapter_fail. */
void adapter_uncertain(struct adapter_call *call, bool is_uncertain);
/* What terms that a network tells of an instance are, by the network's rates: nano-USD per GPU-hour. Errors as
 * price_terms_usd. */
MUST_CHECK enum error adapter_worth(const struct adapter_call *call, const struct price_terms *terms,
                                    int64_t *ret_usd_nano);
/* A rate that the network tells (AKT in USD). */
void adapter_rate(struct adapter_call *call, const char *currency, struct str usd);

/* -- JSON: absent, 0 or -1 where a member is missing or of another type; nothing is trusted -- */
/* path: members with points, "data.instance_type.name"; [3]: an item. */
const json_t *json_at(const json_t *root, const char *path);
struct str json_text_at(const json_t *root, const char *path);                 /* a string; borrowed */
int64_t json_count_at(const json_t *root, const char *path);                   /* a whole number >= 0; else -1 */
double json_number_at(const json_t *root, const char *path, double otherwise); /* finite; numeric texts count */
bool json_true_at(const json_t *root, const char *path);
/* An id that may be a number or a text: as text, in the call's memory. */
struct str json_id_at(struct adapter_call *call, const json_t *root, const char *path);
/* A price that may be a number or a text, as short as it reads ("0.3367"); absent: neither. */
struct str json_decimal_at(struct adapter_call *call, const json_t *root, const char *path);
int64_t json_time_at(const json_t *root, const char *path); /* ISO 8601 text, or Unix s or ms, to Unix ms; 0 */

/* -- the registry (registry.c) -- */
size_t adapter_count(void);
const struct adapter *adapter_at(size_t i);
const struct adapter *adapter_find(struct str name); /* NULL: not built in */

#endif
