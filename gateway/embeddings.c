#include "gateway/embeddings.h"

#include "core/json_walk.h"

#include <endian.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define FLOATS_A_STEP 768 /* whole groups of three bytes, and of four characters */

static bool put_base64(struct buf *to, const float *floats, size_t count)
{
    unsigned char bytes[FLOATS_A_STEP * 4], text[FLOATS_A_STEP * 4 / 3 * 4 + 1];
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &floats[i], 4);
        bits = htole32(bits);
        memcpy(bytes + 4 * i, &bits, 4);
    }
    int len = EVP_EncodeBlock(text, bytes, (int)(4 * count));
    return buf_append(to, text, (size_t)len);
}

static enum error floats_to_base64(struct json_value list, struct buf *to)
{
    float floats[FLOATS_A_STEP];
    size_t count = 0;
    struct json_walk walk = json_walk_of(list);
    struct json_value item;
    bool ok = buf_append(to, "\"", 1);
    while (ok && json_next_item(&walk, &item)) {
        double number;
        if (item.type != JS_NUMBER || !str_to_double(item.text, &number))
            return ERR_PROTOCOL;
        floats[count] = (float)number;
        if (!isfinite(floats[count++]))
            return ERR_PROTOCOL;
        if (count == FLOATS_A_STEP) {
            ok = put_base64(to, floats, count);
            count = 0;
        }
    }
    ok = ok && put_base64(to, floats, count) && buf_append(to, "\"", 1);
    return ok ? ERR_NONE : ERR_TOO_LARGE;
}

static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* A float as it grows out of base 64 digits, six bits at a time. */
struct float_reader {
    uint64_t bits;
    unsigned count;
};

static enum error take_floats(struct str digits, struct buf *to)
{
    struct float_reader reader = {0, 0};
    bool first = true;
    for (size_t i = 0; i < digits.len; i++) {
        int value = digit_value(digits.ptr[i]);
        if (value < 0)
            return ERR_PROTOCOL;
        reader.bits = reader.bits << 6 | (uint64_t)value;
        reader.count += 6;
        if (reader.count < 32)
            continue;
        reader.count -= 32;
        /* The first byte is the float's lowest: what was read is big-endian text of little-endian bytes. */
        uint32_t bits = __builtin_bswap32((uint32_t)(reader.bits >> reader.count));
        float number;
        memcpy(&number, &bits, 4);
        if (!isfinite(number))
            return ERR_PROTOCOL;
        if (!buf_printf(to, first ? "%.9g" : ",%.9g", (double)number))
            return ERR_TOO_LARGE;
        first = false;
    }
    /* What is left is padding of the last group, which must be empty. */
    bool whole = reader.count < 6 && (reader.bits & ((UINT64_C(1) << reader.count) - 1)) == 0;
    return whole ? ERR_NONE : ERR_PROTOCOL;
}

static enum error base64_to_floats(struct json_value value, struct buf *to)
{
    struct str digits = {value.text.ptr + 1, value.text.len - 2};
    char *unescaped = NULL;
    if (memchr(digits.ptr, '\\', digits.len)) { /* some writers escape the slash */
        unescaped = malloc(value.text.len);
        if (!unescaped)
            return ERR_NO_MEMORY;
        if (!json_to_text(value, unescaped, value.text.len, &digits.len)) {
            free(unescaped);
            return ERR_PROTOCOL;
        }
        digits.ptr = unescaped;
    }
    enum error error = digits.len % 4 ? ERR_PROTOCOL : ERR_NONE;
    for (int i = 0; i < 2 && digits.len > 0 && digits.ptr[digits.len - 1] == '='; i++)
        digits.len--;
    if (!error && !buf_append(to, "[", 1))
        error = ERR_TOO_LARGE;
    error = error ? error : take_floats(digits, to);
    if (!error && !buf_append(to, "]", 1))
        error = ERR_TOO_LARGE;
    free(unescaped);
    return error;
}

/* Converts the embeddings of one item of data. *copied is the end of what of the answer is in `to` already. */
static enum error convert_item(struct json_value item, bool base64, struct buf *to, const char **copied, bool *changed)
{
    struct json_value value;
    struct str key;
    if (item.type != JS_OBJECT)
        return ERR_NONE;
    struct json_walk walk = json_walk_of(item);
    while (json_next_member(&walk, &key, &value)) {
        if (!str_eq(key, STR("embedding")) || value.type == (base64 ? JS_STRING : JS_ARRAY))
            continue;
        if (value.type != (base64 ? JS_ARRAY : JS_STRING))
            return ERR_PROTOCOL;
        if (!buf_append(to, *copied, (size_t)(value.text.ptr - *copied)))
            return ERR_TOO_LARGE;
        enum error error = base64 ? floats_to_base64(value, to) : base64_to_floats(value, to);
        if (error)
            return error;
        *copied = value.text.ptr + value.text.len;
        *changed = true;
    }
    return ERR_NONE;
}

enum error embeddings_convert(struct str answer, bool base64, struct buf *to, bool *ret_changed)
{
    const char *copied = answer.ptr;
    bool changed = false;
    enum error error = ERR_NONE;
    struct json_value data = json_member_of(json_value_of(answer), "data"), item;
    struct json_walk walk = json_walk_of(data);
    buf_clear(to);
    while (!error && data.type == JS_ARRAY && json_next_item(&walk, &item))
        error = convert_item(item, base64, to, &copied, &changed);
    if (!error && changed && !buf_append(to, copied, (size_t)(answer.ptr + answer.len - copied)))
        error = ERR_TOO_LARGE;
    if (error)
        buf_clear(to);
    else
        *ret_changed = changed;
    return error;
}
