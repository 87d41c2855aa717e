/* Leveled, structured logs on stderr: text when stderr is a terminal, one JSON object a line otherwise.
 * Never pass keys, secrets or bodies. A context adds "request", "worker" and the like to each line. */
#ifndef SLUICE_CORE_LOG_H
#define SLUICE_CORE_LOG_H

#include "core/error.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Fields that a line carries besides its message; any may be NULL. Borrowed for the call. */
struct log_ctx {
    const char *request, *worker, *tenant, *network;
};

void log_init(const char *program, enum log_level least);
enum log_level log_least(void);
void log_write(enum log_level level, const struct log_ctx *ctx, const char *format, ...) PRINTF_LIKE(3, 4);

#define log_at(level, ctx, ...) ((level) < log_least() ? (void)0 : log_write((level), (ctx), __VA_ARGS__))
#define log_debug(ctx, ...) log_at(LOG_DEBUG, ctx, __VA_ARGS__)
#define log_info(ctx, ...) log_at(LOG_INFO, ctx, __VA_ARGS__)
#define log_warn(ctx, ...) log_at(LOG_WARN, ctx, __VA_ARGS__)
#define log_error(ctx, ...) log_at(LOG_ERROR, ctx, __VA_ARGS__)

#endif
