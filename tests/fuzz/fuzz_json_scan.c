/* Cutting the text changes nothing; jansson agrees on what is valid; the walker and the scanner agree on members. */
#include "tests/fuzz/fuzz.h"

#include "core/json_walk.h"

#include <jansson.h>
#include <string.h>

struct seen {
    size_t members;
    uint64_t hash;
};

static void note_member(void *arg, const struct json_member *member)
{
    struct seen *seen = arg;
    CHECK(member->start < member->end && member->type != JS_NONE);
    seen->members++;
    seen->hash = str_hash(member->key, seen->hash ^ member->start ^ member->end << 20 ^ (uint64_t)member->type << 40);
}

static void compare_with_jansson(struct str text, const struct json_scan *scan, bool valid)
{
    json_error_t where;
    if (text.len > 0 && memchr(text.ptr, '\0', text.len))
        return; /* jansson takes a raw NUL for the end of the text */
    json_t *tree = json_loadb(text.ptr, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (tree) {
        CHECK(valid || strcmp(scan->problem, "nested too deep") == 0);
    } else if (valid) {
        /* What jansson cannot hold is valid all the same. */
        enum json_error_code code = json_error_code(&where);
        CHECK(code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
              code == json_error_null_character || strstr(where.text, "Unicode"));
    }
    json_decref(tree);
}

static void walk(struct json_value value, unsigned depth)
{
    struct json_walk steps = json_walk_of(value);
    struct json_value inner;
    struct str key;
    CHECK(value.type != JS_NONE && depth <= JSON_DEPTH_MAX);
    while (value.type == JS_ARRAY && json_next_item(&steps, &inner))
        walk(inner, depth + 1);
    while (value.type == JS_OBJECT && json_next_member(&steps, &key, &inner))
        walk(inner, depth + 1);
    if (value.type == JS_ARRAY || value.type == JS_OBJECT)
        CHECK(steps.at == steps.end);
    if (value.type == JS_STRING) {
        char *text = malloc(value.text.len);
        size_t len;
        struct buf quoted;
        CHECK(text && json_to_text(value, text, value.text.len, &len));
        buf_init(&quoted, 0);
        CHECK(json_quote(&quoted, (struct str){text, len}));
        CHECK(json_scan_all(buf_str(&quoted), NULL, NULL) == ERR_NONE);
        buf_free(&quoted);
        free(text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t cut = fuzz_cut(&data, &size, size < 2 ? 0 : size - 2);
    struct str text = {(const char *)data, size};
    struct seen whole_seen = {0, 0}, cut_seen = {0, 0};
    struct json_scan whole, parts;
    json_scan_init(&whole, note_member, &whole_seen);
    enum error error = json_scan_feed(&whole, text);
    error = error ? error : json_scan_end(&whole);
    cut = cut > size ? size : cut;
    json_scan_init(&parts, note_member, &cut_seen);
    enum error cut_error = json_scan_feed(&parts, (struct str){text.ptr, cut});
    cut_error = cut_error ? cut_error : json_scan_feed(&parts, (struct str){text.ptr + cut, size - cut});
    cut_error = cut_error ? cut_error : json_scan_end(&parts);
    CHECK(error == cut_error && whole.offset == parts.offset && whole.problem == parts.problem);
    CHECK(whole_seen.members == cut_seen.members && whole_seen.hash == cut_seen.hash);
    CHECK(whole.root_end == parts.root_end);
    compare_with_jansson(text, &whole, error == ERR_NONE);
    if (!error)
        walk(json_value_of(text), 0);
    return 0;
}
