/* Cutting changes nothing; what was spliced is valid, names the alias, asks for usage and is otherwise the same. */
#include "tests/fuzz/fuzz.h"

#include "core/json_walk.h"
#include "gateway/openai_body.h"

#include <string.h>

static enum error parse(struct openai_body *body, enum openai_kind kind, struct str text, size_t cut)
{
    openai_body_init(body, kind);
    enum error error = openai_body_feed(body, (struct str){text.ptr, cut});
    error = error ? error : openai_body_feed(body, (struct str){text.ptr + cut, text.len - cut});
    return error ? error : openai_body_end(body, text);
}

static void splice(const struct openai_body *body, enum openai_kind kind, struct str text, bool alias)
{
    struct buf held;
    struct openai_body again;
    buf_init(&held, text.len + OPENAI_BODY_SLACK);
    CHECK(buf_append_str(&held, text));
    struct str name = alias ? STR("an \"alias\"") : (struct str){NULL, 0};
    CHECK(openai_body_splice(body, &held, name, true) == ERR_NONE);
    CHECK(parse(&again, kind, buf_str(&held), 0) == ERR_NONE);
    CHECK(strcmp(again.model, alias ? name.ptr : body->model) == 0);
    CHECK(again.stream == body->stream && again.encoding == body->encoding);
    bool chat = kind == OPENAI_CHAT || kind == OPENAI_COMPLETIONS;
    CHECK(again.include_usage == (body->include_usage || (chat && body->stream)));
    struct str before = openai_body_affinity(body, text), after = openai_body_affinity(&again, buf_str(&held));
    CHECK(str_eq(before, after));
    buf_free(&held);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t steer = fuzz_byte(&data, &size);
    size_t cut = fuzz_cut(&data, &size, size < 2 ? 0 : size - 2);
    struct str text = {(const char *)data, size};
    enum openai_kind kind = (enum openai_kind)(steer & 3);
    struct openai_body whole, parts;
    enum error error = parse(&whole, kind, text, size);
    enum error cut_error = parse(&parts, kind, text, cut > size ? size : cut);
    CHECK(error == cut_error);
    CHECK((whole.param == NULL) == (parts.param == NULL));
    if (error) {
        CHECK(whole.message[0] && strcmp(whole.message, parts.message) == 0);
        return 0;
    }
    CHECK(strcmp(whole.model, parts.model) == 0 && whole.model_len > 0);
    CHECK(whole.stream == parts.stream && whole.include_usage == parts.include_usage);
    CHECK(whole.encoding == parts.encoding);
    splice(&whole, kind, text, steer & 4);
    return 0;
}
