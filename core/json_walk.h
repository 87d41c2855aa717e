/* Reads values, members and items out of JSON text that json_scan has found valid (on other text the answers are
 * senseless, but nothing outside the text is read). No tree, no allocation; everything is borrowed from the text. */
#ifndef SLUICE_CORE_JSON_WALK_H
#define SLUICE_CORE_JSON_WALK_H

#include "core/json_scan.h"

/* One value; text is without the blanks around it, with its quotes or brackets. */
struct json_value {
    enum js_type type;
    struct str text;
};

/* Steps through an object or array. */
struct json_walk {
    const char *at, *end;
};

struct json_value json_value_of(struct str text);           /* JS_NONE if there is none */
struct json_walk json_walk_of(struct json_value container); /* ends at once on what is no object or array */
/* The next item of an array. False at the end. */
bool json_next_item(struct json_walk *walk, struct json_value *ret);
/* The next member of an object; the key is as written, without quotes and not unescaped. False at the end. */
bool json_next_member(struct json_walk *walk, struct str *ret_key, struct json_value *ret);
/* The first member of an object with that key, as written; JS_NONE if there is none or it is no object. */
struct json_value json_member_of(struct json_value object, const char *key);

/* A number that is whole, not negative and fits; false otherwise. "3.0" and "3e2" count as whole. */
bool json_to_count(struct json_value value, int64_t *ret);
/* Is it an absent value or null? */
bool json_is_nothing(struct json_value value);
/* The string's bytes, unescaped, with a NUL behind; a lone surrogate becomes U+FFFD. False if it is no string, or does
 * not fit into size (which is at least 1). */
bool json_to_text(struct json_value value, char *to, size_t size, size_t *ret_len);
/* Appends s as a JSON string with quotes; s must be UTF-8 (other bytes become U+FFFD). */
MUST_CHECK bool json_quote(struct buf *to, struct str s);

#endif
