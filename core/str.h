/* Borrowed views of bytes (struct str) and owned, capped, growing buffers (struct buf). */
#ifndef SLUICE_CORE_STR_H
#define SLUICE_CORE_STR_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A borrowed run of bytes, not NUL-terminated. {NULL, 0} means absent; {"", 0} means empty. */
struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
#define STR_U64_MAX 20 /* digits */
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).len, (s).ptr

struct str str_of(const char *c_string); /* NULL gives the absent view */
bool str_eq(struct str a, struct str b);
bool str_eq_nocase(struct str a, struct str b); /* ASCII */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
struct str str_trim(struct str s);                        /* blanks and tabs off both ends */
struct str str_next(struct str *rest, char separator);    /* cuts the next field off *rest; absent when none is left */
bool str_to_i64(struct str s, int64_t *ret);              /* the whole of s, decimal, optional '-'; no overflow */
bool str_to_double(struct str s, double *ret);            /* the whole of s; finite; locale "C" form only */
bool str_copy(char *to, size_t to_size, struct str from); /* NUL-terminates; false and empty if it does not fit */
size_t str_put_u64(char to[static STR_U64_MAX], uint64_t value); /* decimal, no NUL; gives the length */
uint64_t str_hash(struct str s, uint64_t seed); /* fast, not for hostile table keys unless seed is secret */

/* An owned byte buffer. {0} with a limit is valid and empty; append fails past limit and leaves it as it was. */
struct buf {
    char *ptr;
    size_t len, cap, limit;
};

#define BUF_LIMIT_DEFAULT ((size_t)64 << 20)

void buf_init(struct buf *buf, size_t limit); /* limit 0 means BUF_LIMIT_DEFAULT */
void buf_free(struct buf *buf);               /* accepts NULL; leaves it empty and usable again */
void buf_clear(struct buf *buf);              /* keeps the memory */
MUST_CHECK bool buf_reserve(struct buf *buf, size_t more);
MUST_CHECK bool buf_append(struct buf *buf, const void *bytes, size_t len);
MUST_CHECK bool buf_append_str(struct buf *buf, struct str s);
MUST_CHECK bool buf_printf(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);
void buf_drop_front(struct buf *buf, size_t len); /* removes len bytes from the front (len <= buf->len) */
struct str buf_str(const struct buf *buf);

#endif
