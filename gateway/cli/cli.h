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
};
enum cli_output { CLI_TABLE, CLI_WIDE, CLI_JSON, CLI_NAME };

struct cli {
    const char *gateway; /* URL without a slash at the end */
    const char *key_variable;
    char key[256]; /* a secret; "": none */
    const char *key_file;
    enum cli_output output;
    bool is_curl; /* print the request, do not send it */
    const char *verify_key;
    const char *const *args; /* behind the command's words; as many as it wants */
};

/* One row of sluice.c. */
struct cli_command {
    const char *noun, *verb; /* verb: NULL for none */
    const char *args;        /* of the usage line; each word is one argument */
    const char *summary, *help;
    int (*run)(struct cli *cli); /* gives the exit code */
    bool is_offline;
};

int cmd_workers(struct cli *cli);
int cmd_worker_show(struct cli *cli);
int cmd_worker_probe(struct cli *cli);
int cmd_proof_list(struct cli *cli);
int cmd_proof_verify(struct cli *cli);
int cmd_ban_list(struct cli *cli);
int cmd_ban_lift(struct cli *cli);

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
