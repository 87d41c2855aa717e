/* The first line each way on a worker link (README.md, "Hello"). Pure text; both ends use it. */
#ifndef SLUICE_ADAPTERS_NATIVE_LINK_HELLO_H
#define SLUICE_ADAPTERS_NATIVE_LINK_HELLO_H

#include "core/str.h"

#define LINK_HELLO_MAX 512  /* bytes of the agent's line, its end included */
#define LINK_ANSWER_MAX 128 /* of the gateway's */
#define LINK_BOOT_MAX 64
#define LINK_DEADLINE_S 5

struct link_hello {
    struct str worker, secret, boot; /* borrowed from the line */
};

/* Lines are without their '\n' when parsed and with it when written. */
MUST_CHECK bool link_hello_parse(struct str line, struct link_hello *ret);
MUST_CHECK bool link_hello_write(const struct link_hello *hello, char ret[static LINK_HELLO_MAX], size_t *ret_len);

struct link_answer {
    bool is_taken;
    unsigned reactor;  /* when taken */
    struct str reason; /* when not */
};

MUST_CHECK bool link_answer_parse(struct str line, struct link_answer *ret);
MUST_CHECK bool link_answer_write(const struct link_answer *answer, char ret[static LINK_ANSWER_MAX], size_t *ret_len);

#endif
