/* Identifiers: 128 bits, time-ordered (48 bits of Unix ms, 80 random bits that count up within a millisecond of one
 * thread), written as 26 characters of Crockford's base 32 in lower case behind a type prefix, e.g. "wrk_01jd...". */
#ifndef SLUICE_CORE_ID_H
#define SLUICE_CORE_ID_H

#include "core/str.h"

#define ID_TEXT_MAX 40 /* prefix of at most 12, 26 characters, NUL */

struct id {
    uint8_t bytes[16];
};

struct id id_make(void);
void id_text(const char *prefix, const struct id *id, char ret[static ID_TEXT_MAX]); /* prefix with its underscore */
void id_new(const char *prefix, char ret[static ID_TEXT_MAX]);                       /* id_make and id_text */
/* Parses text that id_text wrote with that prefix. */
MUST_CHECK bool id_parse(const char *prefix, struct str text, struct id *ret);

#endif
