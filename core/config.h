/* Configuration: YAML read into a struct by a table of rows. Unknown and double keys, wrong types and values out of
 * range are errors that name file, line and key. */
#ifndef SLUICE_CORE_CONFIG_H
#define SLUICE_CORE_CONFIG_H

#include "core/str.h"

#define CONFIG_ERROR_MAX 512
#define CONFIG_FILE_MAX ((size_t)1 << 20)
#define CONFIG_ITEMS_MAX 4096 /* of a list or map */

enum config_type {
    CONFIG_STRING,  /* char *, owned; never NULL */
    CONFIG_SECRET,  /* char *, owned, NULL when not given: what `env:NAME` or `file:PATH` (one line) led to */
    CONFIG_CHOICE,  /* int: index of the row's choices */
    CONFIG_INT,     /* int64_t within min and max */
    CONFIG_BYTES,   /* int64_t: a number, or one with KiB, MiB, GiB */
    CONFIG_MS,      /* int64_t milliseconds: a number, or one with ms, s, m, h */
    CONFIG_BOOL,    /* bool */
    CONFIG_MONEY,   /* int64_t nano-USD; -1 when not given */
    CONFIG_ADDRESS, /* struct config_address; host "" when not given */
    CONFIG_LIST,    /* struct config_list of the row's items */
    CONFIG_MAP,     /* struct config_map, values are strings */
    CONFIG_SECRETS, /* struct config_map, values are secrets */
};

/* HOST:PORT; an IPv6 host is written in brackets and kept without. */
struct config_address {
    char host[256];
    uint16_t port;
};

struct config_pair {
    char *key, *value;
};

struct config_map {
    struct config_pair *pairs;
    size_t count;
};

struct config_list {
    void *items;
    size_t count;
};

struct config_row {
    const char *key; /* "limits.body_bytes"; within a list "bps" */
    enum config_type type;
    size_t offset;              /* in the struct, or in the list's item */
    const char *standard;       /* the default as YAML; "" for none; NULL in a list's item when the key must be given */
    int64_t min, max;           /* INT, BYTES, MS */
    const char *const *choices; /* CHOICE; ends in NULL */
    const struct config_row *items; /* LIST: rows of an item; ends in a row without key */
    size_t item_size;
    const char *help;
};

/* Defaults, then the text over them. `name` is the file's name for error texts. On error ret holds nothing. */
MUST_CHECK enum error config_parse(const struct config_row *rows, struct str text, const char *name, void *ret,
                                   size_t ret_size, char error[static CONFIG_ERROR_MAX]);
/* As config_parse, with the text of a file. */
MUST_CHECK enum error config_load(const struct config_row *rows, const char *path, void *ret, size_t ret_size,
                                  char error[static CONFIG_ERROR_MAX]);
/* Changes one scalar, as from the command line. `name` stands where the file's name would in the error text. */
MUST_CHECK enum error config_set(const struct config_row *rows, const char *key, const char *value, const char *name,
                                 void *config, char error[static CONFIG_ERROR_MAX]);
/* Appends the reference: every key with its default and its meaning, as YAML that loads. */
MUST_CHECK bool config_reference(const struct config_row *rows, struct buf *to);
void config_free(const struct config_row *rows, void *config); /* what the rows own; not the struct itself */
/* The value of a key in a map, NULL if there is none. */
const char *config_map_get(const struct config_map *map, struct str key);

#endif
