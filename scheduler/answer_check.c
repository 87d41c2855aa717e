#include "scheduler/answer_check.h"

#include "core/json_walk.h"

#include <string.h>

#define KEY_MAX 64
#define TOKEN_MAX 512 /* bytes; a longer one is nonsense */

struct answer_limits answer_limits_default(void)
{
    return (struct answer_limits){
        .body_max = (size_t)256 << 10, .text_max = (size_t)64 << 10, .replay_max = (size_t)2 << 20, .margin = 1.0};
}

/* ---- the request ---- */

enum field { FIELD_TEMPERATURE, FIELD_TOP_K, FIELD_COUNT, FIELD_ABSENT, FIELD_FALSE, FIELD_PROMPT };

/* What stands in the way of a comparison, and what makes it possible. */
static const struct {
    const char *key;
    enum field field;
} fields[] = {
    {"temperature", FIELD_TEMPERATURE},
    {"top_k", FIELD_TOP_K},
    {"n", FIELD_COUNT},
    {"best_of", FIELD_COUNT},
    {"tools", FIELD_ABSENT},
    {"functions", FIELD_ABSENT},
    {"audio", FIELD_ABSENT},
    {"modalities", FIELD_ABSENT},
    {"web_search_options", FIELD_ABSENT},
    {"use_beam_search", FIELD_FALSE},
    {"echo", FIELD_FALSE},
    {"prompt", FIELD_PROMPT},
};
#define FIELDS (sizeof(fields) / sizeof(*fields))

struct request {
    struct str body;
    bool is_greedy, is_refused, seen[FIELDS];
};

static bool is_zero(struct json_value value)
{
    double number;
    return value.type == JS_NUMBER && str_to_double(value.text, &number) && number <= 0 && number >= 0;
}

static bool is_one(struct json_value value)
{
    int64_t number;
    return json_to_count(value, &number) && number == 1;
}

static void note_field(void *arg, const struct json_member *member)
{
    struct request *request = arg;
    struct json_value value = {member->type, {request->body.ptr + member->start, member->end - member->start}};
    size_t at = 0;
    while (at < FIELDS && !str_eq(member->key, str_of(fields[at].key)))
        at++;
    if (at == FIELDS)
        return;
    request->is_refused |= request->seen[at];
    request->seen[at] = true;
    switch (fields[at].field) {
    case FIELD_TEMPERATURE:
        request->is_greedy |= is_zero(value);
        break;
    case FIELD_TOP_K:
        request->is_greedy |= is_one(value);
        break;
    case FIELD_COUNT:
        request->is_refused |= !json_is_nothing(value) && !is_one(value);
        break;
    case FIELD_ABSENT:
        request->is_refused |= !json_is_nothing(value);
        break;
    case FIELD_FALSE:
        request->is_refused |= !json_is_nothing(value) && value.type != JS_FALSE;
        break;
    case FIELD_PROMPT: /* a list may be several questions */
        request->is_refused |= value.type != JS_STRING;
        break;
    }
}

bool answer_is_determined(enum answer_kind kind, struct str body)
{
    struct request request = {.body = body};
    if (json_scan_all(body, note_field, &request) != ERR_NONE || json_value_of(body).type != JS_OBJECT)
        return false;
    bool has_prompt = request.seen[FIELDS - 1];
    return request.is_greedy && !request.is_refused && has_prompt == (kind == ANSWER_COMPLETION);
}

/* A key as json_next_member gives it lies between its quotes. */
static struct json_value key_value(struct str key)
{
    return (struct json_value){JS_STRING, {key.ptr - 1, key.len + 2}};
}

static bool is_replaced(struct str key)
{
    static const char *const replaced[] = {"stream", "stream_options", "logprobs", "top_logprobs"};
    char text[KEY_MAX];
    size_t len;
    if (!json_to_text(key_value(key), text, sizeof(text), &len))
        return false;
    for (size_t i = 0; i < sizeof(replaced) / sizeof(*replaced); i++)
        if (str_eq((struct str){text, len}, str_of(replaced[i])))
            return true;
    return false;
}

bool answer_replay(enum answer_kind kind, struct str body, bool with_logprobs, struct buf *ret)
{
    struct json_walk walk = json_walk_of(json_value_of(body));
    struct json_value value;
    struct str key, more = {"", 0};
    bool ok = buf_append(ret, "{", 1), is_first = true;
    while (ok && json_next_member(&walk, &key, &value)) {
        if (is_replaced(key))
            continue;
        ok = (is_first || buf_append(ret, ",", 1)) && buf_append_str(ret, key_value(key).text) &&
             buf_append(ret, ":", 1) && buf_append_str(ret, value.text);
        is_first = false;
    }
    if (with_logprobs)
        more = kind == ANSWER_CHAT ? STR("\"logprobs\":true,\"top_logprobs\":5") : STR("\"logprobs\":5");
    ok = ok && (is_first || !more.len || buf_append(ret, ",", 1));
    return ok && buf_append_str(ret, more) && buf_append(ret, "}", 1);
}

/* ---- what was said ---- */

/* The answer's only choice; JS_NONE when there are several, or none. */
static struct json_value only_choice(struct str answer)
{
    const struct json_value none = {JS_NONE, {NULL, 0}};
    struct json_value choices = json_member_of(json_value_of(answer), "choices"), choice, second;
    struct json_walk walk = json_walk_of(choices);
    if (choices.type != JS_ARRAY || !json_next_item(&walk, &choice) || json_next_item(&walk, &second))
        return none;
    return choice.type == JS_OBJECT ? choice : none;
}

static bool is_filled(struct json_value value)
{
    struct json_walk walk = json_walk_of(value);
    struct json_value item;
    if (value.type == JS_ARRAY)
        return json_next_item(&walk, &item);
    return !json_is_nothing(value) && !(value.type == JS_STRING && value.text.len == 2);
}

/* Said besides the text: it has tokens of its own. */
static bool has_more_than_text(struct json_value message)
{
    static const char *const others[] = {"reasoning_content", "reasoning",     "refusal",
                                         "tool_calls",        "function_call", "audio"};
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        if (is_filled(json_member_of(message, others[i])))
            return true;
    return false;
}

static enum error append_string(struct json_value value, struct buf *ret)
{
    size_t len;
    if (value.type != JS_STRING)
        return ERR_NOT_FOUND;
    /* Unescaped it is shorter by its quotes at least, which leaves room for the NUL. */
    if (!buf_reserve(ret, value.text.len))
        return value.text.len > ret->limit - ret->len ? ERR_TOO_LARGE : ERR_NO_MEMORY;
    if (!json_to_text(value, ret->ptr + ret->len, value.text.len, &len))
        return ERR_NOT_FOUND;
    ret->len += len;
    return ERR_NONE;
}

enum error answer_text(enum answer_kind kind, struct str answer, struct buf *ret)
{
    struct json_value choice = only_choice(answer);
    if (kind == ANSWER_COMPLETION)
        return append_string(json_member_of(choice, "text"), ret);
    struct json_value message = json_member_of(choice, "message");
    return has_more_than_text(message) ? ERR_NOT_FOUND : append_string(json_member_of(message, "content"), ret);
}

enum error answer_event_text(enum answer_kind kind, struct str event, struct buf *ret)
{
    struct json_value choice = only_choice(event);
    if (choice.type == JS_NONE)
        return ERR_NOT_FOUND;
    struct json_value said = json_member_of(choice, "text"), delta = json_member_of(choice, "delta");
    if (kind == ANSWER_CHAT) {
        if (has_more_than_text(delta))
            return ERR_NOT_FOUND;
        said = json_member_of(delta, "content");
    }
    return json_is_nothing(said) ? ERR_NONE : append_string(said, ret);
}

/* ---- tokens and their rivals ---- */

struct token {
    char bytes[TOKEN_MAX];
    size_t len;
    double logprob;
};

/* The tokens of an answer, one by one. */
struct tokens {
    enum answer_kind kind;
    struct json_walk texts, logprobs, rivals; /* chat: all in texts */
};

static bool tokens_of(enum answer_kind kind, struct str answer, struct tokens *ret)
{
    struct json_value logprobs = json_member_of(only_choice(answer), "logprobs");
    ret->kind = kind;
    ret->texts = json_walk_of(json_member_of(logprobs, kind == ANSWER_CHAT ? "content" : "tokens"));
    ret->logprobs = json_walk_of(json_member_of(logprobs, "token_logprobs"));
    ret->rivals = json_walk_of(json_member_of(logprobs, "top_logprobs"));
    return logprobs.type == JS_OBJECT;
}

static bool read_bytes(struct json_value list, struct token *ret)
{
    struct json_walk walk = json_walk_of(list);
    struct json_value value;
    int64_t byte;
    ret->len = 0;
    while (json_next_item(&walk, &value)) {
        if (!json_to_count(value, &byte) || byte > 255 || ret->len == TOKEN_MAX)
            return false;
        ret->bytes[ret->len++] = (char)(unsigned char)byte;
    }
    return true;
}

static bool read_number(struct json_value value, double *ret)
{
    return value.type == JS_NUMBER && str_to_double(value.text, ret);
}

/* {"token", "bytes", "logprob"}; the bytes are exact where a token is a part of a character. */
static bool read_entry(struct json_value entry, struct token *ret)
{
    struct json_value bytes = json_member_of(entry, "bytes");
    return entry.type == JS_OBJECT && read_number(json_member_of(entry, "logprob"), &ret->logprob) &&
           (bytes.type == JS_ARRAY ? read_bytes(bytes, ret)
                                   : json_to_text(json_member_of(entry, "token"), ret->bytes, TOKEN_MAX, &ret->len));
}

/* The next token and its rivals. False: no more, or nothing sound. */
static bool tokens_next(struct tokens *tokens, struct token *ret, struct json_value *ret_rivals)
{
    struct json_value entry, logprob;
    if (!json_next_item(&tokens->texts, &entry))
        return false;
    if (tokens->kind == ANSWER_CHAT) {
        *ret_rivals = json_member_of(entry, "top_logprobs");
        return read_entry(entry, ret);
    }
    return json_next_item(&tokens->logprobs, &logprob) && read_number(logprob, &ret->logprob) &&
           json_next_item(&tokens->rivals, ret_rivals) && json_to_text(entry, ret->bytes, TOKEN_MAX, &ret->len);
}

static bool rivals_next(enum answer_kind kind, struct json_walk *rivals, struct token *ret)
{
    struct json_value value;
    struct str key;
    if (kind == ANSWER_CHAT)
        return json_next_item(rivals, &value) && read_entry(value, ret);
    return json_next_member(rivals, &key, &value) && read_number(value, &ret->logprob) &&
           json_to_text(key_value(key), ret->bytes, TOKEN_MAX, &ret->len);
}

/* Engines show the token that ends a text as nothing, or as a name in angle brackets. */
static bool is_end(struct str token)
{
    return token.len == 0 || (token.len >= 3 && token.ptr[0] == '<' && token.ptr[token.len - 1] == '>');
}

/* A part of a character that was made a whole one: which bytes it stood for is lost. */
static bool is_broken(struct str token)
{
    return token.len >= 3 && memmem(token.ptr, token.len, "\xef\xbf\xbd", 3) != NULL;
}

/* Here the texts part, and one goes on with rest. */
static enum answer_match judge_rest(enum answer_kind kind, struct json_value rivals, double chosen, struct str rest)
{
    double margin = answer_limits_default().margin;
    enum answer_match match = ANSWER_DIFFERS;
    struct token rival;
    size_t count = 0;
    for (struct json_walk walk = json_walk_of(rivals); rivals_next(kind, &walk, &rival); count++) {
        struct str token = {rival.bytes, rival.len};
        if (chosen - rival.logprob > margin)
            continue;
        if (rest.len ? token.len && str_starts(rest, token) : is_end(token))
            return ANSWER_AGREES;
        if (is_broken(token))
            match = ANSWER_UNKNOWN;
    }
    return count ? match : ANSWER_UNKNOWN;
}

static struct str behind(struct str text, size_t at)
{
    return (struct str){text.ptr + at, text.len - at};
}

/* Follows said's tokens through both texts, which are not equal. */
static enum answer_match walk_tokens(enum answer_kind kind, struct str text, struct str said, struct tokens *tokens)
{
    struct json_value rivals = {JS_NONE, {NULL, 0}};
    struct token token;
    size_t at = 0;
    while (tokens_next(tokens, &token, &rivals)) {
        struct str bytes = {token.bytes, token.len}, rest = behind(said, at);
        if (rest.len == 0) /* what ended it; the other one goes on */
            return judge_rest(kind, rivals, token.logprob, behind(text, at));
        if (bytes.len > rest.len && str_starts(bytes, rest))
            bytes = rest; /* a stop text cut it */
        if (!str_starts(rest, bytes))
            return ANSWER_UNKNOWN; /* these are not the tokens of what it said */
        if (!str_starts(behind(text, at), bytes))
            return judge_rest(kind, rivals, token.logprob, behind(text, at));
        at += bytes.len;
    }
    return ANSWER_UNKNOWN;
}

enum answer_match answer_compare(enum answer_kind kind, struct str text, struct str answer)
{
    enum answer_match match = ANSWER_UNKNOWN;
    struct tokens tokens;
    struct buf said;
    buf_init(&said, answer_limits_default().replay_max);
    if (answer_text(kind, answer, &said) != ERR_NONE)
        goto out;
    if (str_eq(text, buf_str(&said)))
        match = ANSWER_AGREES;
    else if (tokens_of(kind, answer, &tokens))
        match = walk_tokens(kind, text, buf_str(&said), &tokens);
out:
    buf_free(&said);
    return match;
}

enum answer_match answer_compare_both(enum answer_kind kind, struct str one, struct str other)
{
    enum answer_match matches[2] = {ANSWER_UNKNOWN, ANSWER_UNKNOWN};
    const struct str answers[2] = {one, other};
    for (size_t i = 0; i < 2; i++) {
        struct buf text;
        buf_init(&text, answer_limits_default().replay_max);
        if (answer_text(kind, answers[i], &text) == ERR_NONE)
            matches[i] = answer_compare(kind, buf_str(&text), answers[1 - i]);
        buf_free(&text);
    }
    if (matches[0] == ANSWER_AGREES || matches[1] == ANSWER_AGREES)
        return ANSWER_AGREES;
    return matches[0] == ANSWER_DIFFERS || matches[1] == ANSWER_DIFFERS ? ANSWER_DIFFERS : ANSWER_UNKNOWN;
}

enum answer_verdict answer_judge(enum answer_match original_peer, enum answer_match original_referee,
                                 enum answer_match peer_referee)
{
    if (original_peer != ANSWER_DIFFERS)
        return ANSWER_NOBODY;
    if (original_referee == ANSWER_DIFFERS && peer_referee == ANSWER_AGREES)
        return ANSWER_ORIGINAL_WRONG;
    return original_referee == ANSWER_AGREES && peer_referee == ANSWER_DIFFERS ? ANSWER_PEER_WRONG : ANSWER_NOBODY;
}
