/* The OpenAI path: accept, authenticate, admit, choose, forward, stream, meter, settle.
 * The steps lie in this order in openai_admit.c, openai_attempt.c, openai_answer.c and openai_meter.c. */
#ifndef SLUICE_GATEWAY_OPENAI_H
#define SLUICE_GATEWAY_OPENAI_H

#include "gateway/http_front.h"

struct openai; /* one a reactor: the calls that wait for a slot */

struct openai *openai_open(struct reactor *reactor); /* NULL: out of memory */
struct openai *openai_free(struct openai *openai);   /* no call may be open any more */
/* A slot, a link or a snapshot has changed: look at the waiting calls at the end of this turn. */
void openai_wake(struct openai *openai);

/* -- of the front -- */
bool openai_takes(const struct httpd_call *http); /* a POST to a path that goes to workers */
/* The other paths under /v1: API_FOUND is GET /v1/models[/{id}]; a known path with a wrong method fills ret_allow. */
enum api_match openai_match(const struct httpd_call *http, struct buf *ret_allow);
void openai_models(struct front_call *call);

void openai_head(struct front_call *call); /* makes call->openai */
void openai_body_bytes(struct openai_call *call, struct str bytes);
void openai_request(struct openai_call *call);
void openai_gone(struct openai_call *call);    /* the caller hung up */
void openai_drained(struct openai_call *call); /* the caller's stream takes more */
void openai_end(struct openai_call *call);     /* the HTTP side is over */

#endif
