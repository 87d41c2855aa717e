/* Single values of a configuration: text to the field of a row. Used by core/config.c alone. */
#ifndef SLUICE_CORE_CONFIG_VALUE_H
#define SLUICE_CORE_CONFIG_VALUE_H

#include "core/config.h"

#define CONFIG_WHY_MAX 256

/* Sets the field, freeing what it held. On error the field is as it was and why says what is wrong, without the value
 * where that may be a secret. The row is no list or map. */
MUST_CHECK enum error config_value_set(const struct config_row *row, const char *text, void *field,
                                       char why[static CONFIG_WHY_MAX]);
/* Appends a file's bytes. ERR_SYSTEM: cannot be read; ERR_TOO_LARGE: more than the buffer's limit. */
MUST_CHECK enum error config_file_read(const char *path, struct buf *to);

#endif
