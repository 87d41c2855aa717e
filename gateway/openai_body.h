/* What the gateway needs to know of an OpenAI request body, found while it arrives, and the two changes it may make.
 *
 * The body is held once, as received, in one struct buf. A change moves bytes inside that buffer (give its limit
 * OPENAI_BODY_SLACK bytes beyond `body_bytes`); nothing is copied besides. stream_options go in before the last brace,
 * so that the common case moves no body at all. */
#ifndef SLUICE_GATEWAY_OPENAI_BODY_H
#define SLUICE_GATEWAY_OPENAI_BODY_H

#include "core/json_scan.h"

#define OPENAI_MODEL_MAX 256
#define OPENAI_BODY_SLACK 2048  /* what openai_body_splice may add: at most a quoted model name and stream_options */
#define OPENAI_AFFINITY_MAX 256 /* bytes of the messages that decide affinity */

enum openai_kind { OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, OPENAI_RESPONSES };
enum openai_encoding { OPENAI_ENCODING_ABSENT, OPENAI_ENCODING_FLOAT, OPENAI_ENCODING_BASE64, OPENAI_ENCODING_OTHER };

/* A member's value in the body; start == end when the member is absent. */
struct openai_span {
    enum js_type type;
    size_t start, end;
};

struct openai_body {
    /* Good after openai_body_end. */
    char model[OPENAI_MODEL_MAX + 1];
    size_t model_len;
    bool stream, include_usage; /* as the caller asked */
    enum openai_encoding encoding;
    /* What is wrong, after any call that answered ERR_BAD_INPUT: for a 400 `invalid_request_error`. */
    const char *param; /* NULL when the text as a whole is at fault */
    char message[160];
    /* the rest is the parser's own */
    enum openai_kind kind;
    struct json_scan scan;
    struct openai_span model_at, stream_at, options_at, usage_at, encoding_at, cache_key_at, user_at, input_at;
};

void openai_body_init(struct openai_body *body, enum openai_kind kind);
/* The next bytes, which the caller has appended to the held body. ERR_BAD_INPUT as soon as the body cannot be right. */
MUST_CHECK enum error openai_body_feed(struct openai_body *body, struct str bytes);
/* All bytes were fed; text is the whole held body. ERR_BAD_INPUT or ERR_NONE. */
MUST_CHECK enum error openai_body_end(struct openai_body *body, struct str text);

/* What decides affinity when no session header does: prompt_cache_key, else user, else the first bytes of the messages,
 * prompt or input. Absent if there is nothing. Borrowed from text, to be asked before openai_body_splice. */
struct str openai_body_affinity(const struct openai_body *body, struct str text);

/* Changes the held text: the model's value becomes alias (unless absent), and with want_usage a streamed chat or
 * completion gets stream_options.include_usage = true if the caller did not ask for it. Once at most; spans are void
 * afterwards. ERR_NO_MEMORY or ERR_TOO_LARGE leave the text as it was. */
MUST_CHECK enum error openai_body_splice(const struct openai_body *body, struct buf *text, struct str alias,
                                         bool want_usage);

#endif
