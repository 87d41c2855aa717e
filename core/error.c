#include "core/error.h"

#include <stddef.h>

#define ERROR_TEXT(code, text) [code] = text,
static const char *const error_texts[ERROR_COUNT] = {ERROR_MAP(ERROR_TEXT)};

const char *error_text(enum error error)
{
    return (unsigned)error < ERROR_COUNT ? error_texts[error] : "unknown error";
}
