/* The command line `sluice`: shared by its commands. Each command is a function in a cmd_*.c and a row in sluice.c. */
#ifndef SLUICE_GATEWAY_CLI_CLI_H
#define SLUICE_GATEWAY_CLI_CLI_H

#include "core/str.h"

#include <jansson.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,       /* or refused */
    CLI_USAGE = 2,        /* the command line is wrong */
    CLI_UNREACHABLE = 3,  /* no answer from the gateway */
    CLI_UNAUTHORISED = 4, /* no key, a wrong one, or one that may not */
    CLI_NOT_FOUND = 5,
    CLI_INTERRUPTED = 130, /* by Ctrl-C, while it waited */
};
enum cli_output { CLI_TABLE, CLI_WIDE, CLI_JSON, CLI_NAME };

/* An option of some commands. */
struct cli_option {
    const char *name;
    const char *value; /* what it takes, for the help; NULL: nothing */
    const char *help;
    char letter; /* short form; 0: none */
};
#define CLI_GIVEN_MAX 256
struct cli_given {
    const char *name, *value; /* value "": it takes none */
};

struct cli {
    const char *gateway; /* URL without a slash at the end */
    const char *key_variable;
    char key[256]; /* a secret; "": none */
    const char *key_file;
    enum cli_output output;
    bool is_curl; /* print the request, do not send it */
    const char *verify_key;
    const char *const *args; /* behind the command's words; as many as it wants */
    size_t arg_count;
    struct cli_given given[CLI_GIVEN_MAX]; /* its own options, in order */
    size_t given_count;
};

/* One row of sluice.c. */
struct cli_command {
    const char *noun, *verb; /* verb: NULL for none */
    const char *args; /* of the usage line; each word is one argument, "...": more of the last one, "[": or none */
    const char *summary, *help;
    int (*run)(struct cli *cli); /* gives the exit code */
    bool is_offline;
    bool is_callers;                  /* a caller's key comes before the operator's */
    const struct cli_option *options; /* its own; ends with a NULL name; NULL: none */
};

int cmd_workers(struct cli *cli);
int cmd_worker_show(struct cli *cli);
int cmd_worker_probe(struct cli *cli);
int cmd_proof_list(struct cli *cli);
int cmd_proof_verify(struct cli *cli);
int cmd_ban_list(struct cli *cli);
int cmd_ban_lift(struct cli *cli);
int cmd_offers(struct cli *cli);
int cmd_networks(struct cli *cli);
int cmd_launch(struct cli *cli);
int cmd_ps(struct cli *cli);
int cmd_logs(struct cli *cli);
int cmd_down(struct cli *cli);
/* The options of these commands. */
extern const struct cli_option cli_offers_options[], cli_launch_options[], cli_ps_options[], cli_logs_options[],
    cli_down_options[];

/* An option's value, the last one given; NULL: it was not. */
const char *cli_given(const struct cli *cli, const char *name);
/* Each value of an option that may come several times; *at starts at 0. NULL: no more. */
const char *cli_given_next(const struct cli *cli, const char *name, size_t *at);

/* Says why on stderr, with what the gateway wrote made harmless, and gives code back. */
int cli_fail(int code, const char *format, ...) PRINTF_LIKE(2, 3);
/* JSON on stdout. */
int cli_print_json(const json_t *root);
/* A field as text: null, absent or of another type is "". Borrowed from the object. */
struct str cli_text(const json_t *object, const char *name);
double cli_number(const json_t *object, const char *name); /* 0 where there is none */
#define CLI_TIME_MAX 32
const char *cli_time(const json_t *object, const char *name, char ret[static CLI_TIME_MAX]); /* of Unix ms; "" */
const char *cli_time_of(int64_t at_ms, char ret[static CLI_TIME_MAX]);
/* The receipt that a row of a list of proofs is or holds (as object or as text); a new reference; NULL: none. */
json_t *cli_receipt(const json_t *row);

#endif
