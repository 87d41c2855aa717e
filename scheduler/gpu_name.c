#include "scheduler/gpu_name.h"

#include <string.h>

#define SAID_MAX 64

/* Lower case without separators; false when longer than any name. */
static bool squeeze(struct str from, char to[static SAID_MAX], size_t *ret_len)
{
    size_t len = 0;
    for (size_t i = 0; i < from.len; i++) {
        char c = from.ptr[i];
        if (c == ' ' || c == '\t' || c == '-' || c == '_' || c == '/')
            continue;
        if (len == SAID_MAX)
            return false;
        to[len++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    *ret_len = len;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_number(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return false;
    }
    return text.len > 0;
}

static bool eat(struct str *rest, struct str word)
{
    if (!str_starts(*rest, word))
        return false;
    rest->ptr += word.len;
    rest->len -= word.len;
    return true;
}

/* What may follow the model: nothing, form, memory, or both in either order. */
static bool tail_fits(struct str rest, struct str form, struct str memory)
{
    bool has_form = form.len && eat(&rest, form);
    if (memory.len && eat(&rest, memory)) {
        if (!eat(&rest, STR("gib")))
            eat(&rest, STR("gb"));
    }
    if (form.len && !has_form)
        eat(&rest, form);
    return rest.len == 0;
}

bool gpu_name_means(struct str said, struct str canonical)
{
    static const struct str brands[] = {{"geforce", 7}, {"tesla", 5}, {"quadro", 6}, {"radeon", 6}, {"instinct", 8}};
    char said_text[SAID_MAX], form_text[SAID_MAX];
    struct str rest = {said_text, 0}, form = {form_text, 0}, memory = {NULL, 0};
    struct str model = canonical, vendor = {NULL, 0};
    if (!squeeze(said, said_text, &rest.len) || rest.len == 0)
        return false;
    if (canonical.len && memchr(canonical.ptr, '/', canonical.len))
        vendor = str_next(&model, '/');
    struct str tail = model;
    model = str_next(&tail, '-');
    if (tail.ptr) { /* [form-]memory */
        size_t at = tail.len;
        while (at > 0 && tail.ptr[at - 1] != '-')
            at--;
        struct str last = {tail.ptr + at, tail.len - at};
        if (is_number(last)) {
            memory = last;
            tail.len = at;
        }
        if (!squeeze(tail, form_text, &form.len))
            return false;
    }
    if (vendor.len)
        eat(&rest, vendor);
    for (size_t i = 0; i < sizeof(brands) / sizeof(brands[0]); i++) {
        if (eat(&rest, brands[i]))
            break;
    }
    struct str after = rest;
    if (model.len && eat(&after, model) && tail_fits(after, form, memory))
        return true;
    bool has_prefix = str_starts(model, STR("rtx")) || str_starts(model, STR("gtx"));
    if (!has_prefix || model.len < 4 || !is_digit(model.ptr[3]))
        return false;
    model.ptr += 3;
    model.len -= 3;
    return eat(&rest, model) && tail_fits(rest, form, memory);
}
