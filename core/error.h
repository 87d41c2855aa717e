/* Error codes shared by all modules. One list gives the enum and the texts. */
#ifndef SLUICE_CORE_ERROR_H
#define SLUICE_CORE_ERROR_H

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, args_at) __attribute__((format(printf, format_at, args_at)))

#define ERROR_MAP(X)                                     \
    X(ERR_NONE, "ok")                                    \
    X(ERR_NO_MEMORY, "out of memory")                    \
    X(ERR_BAD_INPUT, "bad input")                        \
    X(ERR_TOO_LARGE, "larger than its limit")            \
    X(ERR_NOT_FOUND, "not found")                        \
    X(ERR_EXISTS, "exists already")                      \
    X(ERR_MISMATCH, "does not match what was stored")    \
    X(ERR_DENIED, "not allowed")                         \
    X(ERR_DEADLINE, "deadline passed")                   \
    X(ERR_CANCELLED, "cancelled")                        \
    X(ERR_BUSY, "queue or slots are full")               \
    X(ERR_CLOSED, "connection closed")                   \
    X(ERR_UNREACHABLE, "cannot be reached")              \
    X(ERR_PROTOCOL, "the other side broke the protocol") \
    X(ERR_NO_FUNDS, "not enough money")                  \
    X(ERR_OVERFLOW, "number out of range")               \
    X(ERR_SYSTEM, "system call failed")

#define ERROR_CODE(code, text) code,
enum error { ERROR_MAP(ERROR_CODE) ERROR_COUNT };
#undef ERROR_CODE

/* The fixed English text of an error; never NULL. */
const char *error_text(enum error error);

#endif
