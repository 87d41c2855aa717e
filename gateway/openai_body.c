#include "gateway/openai_body.h"

#include "core/json_walk.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static enum error refuse(struct openai_body *body, const char *param, const char *message)
{
    body->param = param;
    snprintf(body->message, sizeof(body->message), "%s", message);
    return ERR_BAD_INPUT;
}

static bool is_there(const struct openai_span *span)
{
    return span->end > span->start;
}

static void note_member(void *arg, const struct json_member *member)
{
    struct openai_body *body = arg;
    static const char *const inputs[] = {
        [OPENAI_CHAT] = "messages",
        [OPENAI_COMPLETIONS] = "prompt",
        [OPENAI_EMBEDDINGS] = "input",
        [OPENAI_RESPONSES] = "input",
    };
    const struct {
        const char *key;
        struct openai_span *span;
        bool once;
    } wanted[] = {
        {"model", &body->model_at, true},
        {"stream", &body->stream_at, true},
        {"stream_options", &body->options_at, true},
        {"encoding_format", &body->encoding_at, false},
        {"prompt_cache_key", &body->cache_key_at, false},
        {"user", &body->user_at, false},
        {inputs[body->kind], &body->input_at, false},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        if (!str_eq(member->key, str_of(wanted[i].key)))
            continue;
        if (wanted[i].once && is_there(wanted[i].span) && !body->param) {
            body->param = wanted[i].key;
            snprintf(body->message, sizeof(body->message), "'%s' is given twice.", wanted[i].key);
        }
        *wanted[i].span = (struct openai_span){member->type, member->start, member->end};
        return;
    }
}

void openai_body_init(struct openai_body *body, enum openai_kind kind)
{
    *body = (struct openai_body){.kind = kind};
    json_scan_init(&body->scan, note_member, body);
}

/* What comes first in the body is told, however it was cut. */
static enum error judge(struct openai_body *body, enum error scanned)
{
    if (body->param)
        return ERR_BAD_INPUT;
    if (body->scan.root != JS_NONE && body->scan.root != JS_OBJECT)
        return refuse(body, NULL, "The body must be a JSON object.");
    if (!scanned)
        return ERR_NONE;
    snprintf(body->message, sizeof(body->message), "The body is not valid JSON: %s, at byte %zu.", body->scan.problem,
             body->scan.offset);
    return ERR_BAD_INPUT;
}

enum error openai_body_feed(struct openai_body *body, struct str bytes)
{
    return judge(body, json_scan_feed(&body->scan, bytes));
}

static struct json_value value_at(const struct openai_span *span, struct str text)
{
    assert(span->end <= text.len);
    return (struct json_value){span->type, {text.ptr + span->start, span->end - span->start}};
}

static enum error read_model(struct openai_body *body, struct str text)
{
    if (!is_there(&body->model_at))
        return refuse(body, "model", "You must provide a 'model' parameter.");
    if (body->model_at.type != JS_STRING)
        return refuse(body, "model", "'model' must be a string.");
    if (!json_to_text(value_at(&body->model_at, text), body->model, sizeof(body->model), &body->model_len))
        return refuse(body, "model", "'model' is longer than 256 bytes.");
    if (body->model_len == 0 || memchr(body->model, '\0', body->model_len))
        return refuse(body, "model", "'model' is no model's name.");
    return ERR_NONE;
}

static enum error read_stream(struct openai_body *body)
{
    enum js_type type = body->stream_at.type;
    if (type != JS_NONE && type != JS_NULL && type != JS_TRUE && type != JS_FALSE)
        return refuse(body, "stream", "'stream' must be true or false.");
    body->stream = type == JS_TRUE;
    return ERR_NONE;
}

/* Offsets are counted from where stream_options begin. */
static void note_option(void *arg, const struct json_member *member)
{
    struct openai_body *body = arg;
    if (!str_eq(member->key, STR("include_usage")))
        return;
    if (is_there(&body->usage_at))
        body->param = "stream_options.include_usage";
    body->usage_at = (struct openai_span){member->type, body->options_at.start + member->start,
                                          body->options_at.start + member->end};
}

static enum error read_options(struct openai_body *body, struct str text)
{
    enum js_type type = body->options_at.type;
    if (type == JS_NONE || type == JS_NULL)
        return ERR_NONE;
    if (type != JS_OBJECT)
        return refuse(body, "stream_options", "'stream_options' must be an object.");
    enum error error = json_scan_all(value_at(&body->options_at, text).text, note_option, body);
    assert(!error); /* it is a part of what was found valid */
    if (error || body->param)
        return refuse(body, "stream_options.include_usage", "'include_usage' is given twice.");
    type = body->usage_at.type;
    if (type != JS_NONE && type != JS_NULL && type != JS_TRUE && type != JS_FALSE)
        return refuse(body, "stream_options.include_usage", "'include_usage' must be true or false.");
    body->include_usage = type == JS_TRUE;
    return ERR_NONE;
}

static void read_encoding(struct openai_body *body, struct str text)
{
    if (!is_there(&body->encoding_at) || body->encoding_at.type == JS_NULL)
        return;
    char name[16];
    size_t len;
    body->encoding = OPENAI_ENCODING_OTHER;
    if (!json_to_text(value_at(&body->encoding_at, text), name, sizeof(name), &len))
        return;
    if (str_eq((struct str){name, len}, STR("float")))
        body->encoding = OPENAI_ENCODING_FLOAT;
    else if (str_eq((struct str){name, len}, STR("base64")))
        body->encoding = OPENAI_ENCODING_BASE64;
}

enum error openai_body_end(struct openai_body *body, struct str text)
{
    enum error error = judge(body, json_scan_end(&body->scan));
    error = error ? error : read_model(body, text);
    error = error ? error : read_stream(body);
    error = error ? error : read_options(body, text);
    if (!error)
        read_encoding(body, text);
    return error;
}

struct str openai_body_affinity(const struct openai_body *body, struct str text)
{
    const struct openai_span *const keys[] = {&body->cache_key_at, &body->user_at};
    for (size_t i = 0; i < 2; i++) {
        if (keys[i]->type == JS_STRING && keys[i]->end - keys[i]->start > 2) /* more than its quotes */
            return value_at(keys[i], text).text;
    }
    if (!is_there(&body->input_at))
        return (struct str){NULL, 0};
    struct str input = value_at(&body->input_at, text).text;
    if (input.len > OPENAI_AFFINITY_MAX)
        input.len = OPENAI_AFFINITY_MAX;
    return input;
}

/* ---- changes ---- */

struct edit {
    size_t start, end; /* of what goes */
    struct str insert;
};

static bool needs_usage(const struct openai_body *body, bool want_usage)
{
    bool kind = body->kind == OPENAI_CHAT || body->kind == OPENAI_COMPLETIONS;
    return want_usage && kind && body->stream && !body->include_usage;
}

static struct edit usage_edit(const struct openai_body *body, struct str text)
{
    const struct openai_span *options = &body->options_at;
    if (!is_there(options)) {
        size_t brace = body->scan.root_end - 1;
        return (struct edit){brace, brace, STR(",\"stream_options\":{\"include_usage\":true}")};
    }
    if (options->type == JS_NULL)
        return (struct edit){options->start, options->end, STR("{\"include_usage\":true}")};
    if (is_there(&body->usage_at))
        return (struct edit){body->usage_at.start, body->usage_at.end, STR("true")};
    struct json_walk walk = json_walk_of(value_at(options, text));
    struct json_value value;
    struct str key;
    bool empty = !json_next_member(&walk, &key, &value);
    size_t inside = options->start + 1;
    return (struct edit){inside, inside, empty ? STR("\"include_usage\":true") : STR("\"include_usage\":true,")};
}

static void apply(struct buf *text, const struct edit *edit)
{
    char *at = text->ptr + edit->start;
    memmove(at + edit->insert.len, text->ptr + edit->end, text->len - edit->end);
    memcpy(at, edit->insert.ptr, edit->insert.len);
    text->len = text->len - (edit->end - edit->start) + edit->insert.len;
}

enum error openai_body_splice(const struct openai_body *body, struct buf *text, struct str alias, bool want_usage)
{
    char quoted[6 * OPENAI_MODEL_MAX + 3];
    struct buf name = {
        .ptr = quoted, .cap = sizeof(quoted), .limit = sizeof(quoted)}; /* never grows: cap is its limit */
    struct edit edits[2];
    size_t count = 0, more = 0;
    if (alias.ptr) {
        if (alias.len > OPENAI_MODEL_MAX || !json_quote(&name, alias))
            return ERR_TOO_LARGE;
        edits[count++] = (struct edit){body->model_at.start, body->model_at.end, buf_str(&name)};
    }
    if (needs_usage(body, want_usage))
        edits[count++] = usage_edit(body, buf_str(text));
    for (size_t i = 0; i < count; i++)
        more += edits[i].insert.len;
    if (count == 0)
        return ERR_NONE;
    if (!buf_reserve(text, more))
        return more > text->limit - text->len ? ERR_TOO_LARGE : ERR_NO_MEMORY;
    /* From the back, so that the first edit's offsets still hold. */
    size_t last = count == 2 && edits[1].start > edits[0].start;
    apply(text, &edits[last]);
    if (count == 2)
        apply(text, &edits[1 - last]);
    return ERR_NONE;
}
