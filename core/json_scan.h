/* An incremental validator of RFC 8259 texts in UTF-8: fed as bytes arrive, split anywhere, no tree, no allocation.
 * It tells where the members of the root object lie; json_walk reads what is in them once they are whole.
 *
 * Refused besides what the grammar refuses: a byte order mark, ill-formed UTF-8, more than JSON_DEPTH_MAX levels.
 * Lone surrogates written as \u escapes pass, and so do double keys: who minds tells them by the members reported. */
#ifndef SLUICE_CORE_JSON_SCAN_H
#define SLUICE_CORE_JSON_SCAN_H

#include "core/str.h"

#define JSON_DEPTH_MAX 128
#define JSON_KEY_MAX 64 /* members whose unescaped key is longer or not ASCII are checked but not reported */

enum js_type { JS_NONE, JS_NULL, JS_FALSE, JS_TRUE, JS_NUMBER, JS_STRING, JS_ARRAY, JS_OBJECT };

/* A member of the root object. [start, end) are offsets of its value from the first byte fed, quotes and brackets
 * included. The key is unescaped and borrowed for the call. */
struct json_member {
    struct str key;
    enum js_type type;
    size_t start, end;
};

struct json_scan {
    void (*on_member)(void *arg, const struct json_member *member); /* may be NULL */
    void *arg;
    enum js_type root;   /* JS_NONE until the first byte of the value */
    size_t root_end;     /* offset behind the root's last byte, once it is closed */
    size_t offset;       /* bytes taken; on error the offset of the byte that is wrong */
    const char *problem; /* fixed text, NULL while all is well */
    /* the rest is the scanner's own */
    const char *chunk, *word;
    size_t member_start;
    uint64_t objects[JSON_DEPTH_MAX / 64]; /* a bit a level: object or array */
    unsigned depth;
    uint8_t state, in_key, hex_left, utf8_left, utf8_low, utf8_high, key_len, key_lost;
    uint8_t member_type;
    uint16_t unit; /* of a \u escape */
    char key[JSON_KEY_MAX];
};

void json_scan_init(struct json_scan *scan, void (*on_member)(void *arg, const struct json_member *member), void *arg);
/* ERR_BAD_INPUT as soon as no continuation can make the text valid, and from then on. */
MUST_CHECK enum error json_scan_feed(struct json_scan *scan, struct str bytes);
/* No more bytes come: ERR_BAD_INPUT unless exactly one whole value was fed. */
MUST_CHECK enum error json_scan_end(struct json_scan *scan);
/* init, feed and end over a whole text. */
MUST_CHECK enum error json_scan_all(struct str text, void (*on_member)(void *arg, const struct json_member *member),
                                    void *arg);

#endif
