/* What the three files of the EC2 adapter share: aws_ask.c (asking, errors), aws.c (instances) and aws_offers.c (what
 * can be had). */
#ifndef SLUICE_ADAPTERS_AWS_H
#define SLUICE_ADAPTERS_AWS_H

#include "adapters/adapter.h"
#include "adapters/xml.h"

#define AWS_BODY_MAX 49152 /* 16 KiB of user data, in base64 that may be all escaped, and the rest */
#define AWS_PAGES_MAX 200
#define AWS_GENERAL_URL "https://ec2.amazonaws.com" /* stands for the region's own */

/* Action and version of a request. */
void aws_begin(struct buf *body, const char *action);
/* &key=value, the value escaped. False: the call was failed; the body is still the caller's. */
MUST_CHECK bool aws_add(struct adapter_call *call, struct buf *body, const char *key, struct str value);
enum aws_ask { AWS_READS, AWS_READS_ERRORS, AWS_CREATES /* gets errors, too */ };
/* Sends and frees the body. */
void aws_ask(struct adapter_call *call, struct buf *body, enum aws_ask kind, adapter_answer_fn *on_answer);
/* The answer's tree, the caller's, which has that member, be it empty; NULL: the call was failed. */
json_t *aws_tree(struct adapter_call *call, const struct adapter_answer *answer, const char *member);
/* Is it the error of that code? */
bool aws_is_error(const struct adapter_answer *answer, const char *code);
/* The subnet of a zone, as configured; NULL: none. */
const char *aws_subnet(struct adapter_call *call, struct str zone);

struct aws_state {
    bool is_told_reservations; /* that they cannot be read: once is enough */
};

extern const struct adapter_error_row aws_errors[];
void aws_authorise(struct network *network, struct adapter_call *call);
void aws_explain(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message);
void aws_run_offers(struct adapter_call *call);

#endif
