#include "core/log.h"

#include "core/clock.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096
#define MESSAGE_MAX_BYTES 2048

static atomic_int least_level = LOG_INFO;
static const char *program_name = "sluice";
static bool as_text;

void log_init(const char *program, enum log_level least)
{
    program_name = program;
    as_text = isatty(STDERR_FILENO) == 1;
    atomic_store_explicit(&least_level, (int)least, memory_order_relaxed);
}

enum log_level log_least(void)
{
    return (enum log_level)atomic_load_explicit(&least_level, memory_order_relaxed);
}

/* A line under construction; what does not fit is cut, with room kept for its end. */
struct line {
    char text[LINE_MAX_BYTES + 8];
    size_t len;
};

static void put(struct line *line, const char *text, size_t len)
{
    if (len > LINE_MAX_BYTES - line->len)
        return;
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Length of the well-formed UTF-8 sequence at p, which ends in NUL; 0 if there is none. */
static size_t utf8_len(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xe0)
        return 2;
    if ((p[2] & 0xc0) != 0x80 || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
        return 0;
    if (p[0] < 0xf0)
        return 3;
    if ((p[3] & 0xc0) != 0x80 || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return 4;
}

/* Hostile bytes reach logs (header values, error texts of workers): the line stays one line and one JSON object. */
static void put_safe(struct line *line, const char *text, bool json)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p && line->len < LINE_MAX_BYTES - 128) {
        size_t len = utf8_len(p);
        if (len == 0) {
            put_text(line, json ? "\\ufffd" : "?");
            len = 1;
        } else if (*p < 0x20 || *p == 0x7f) {
            char escape[8];
            snprintf(escape, sizeof(escape), json ? "\\u%04x" : "?", (unsigned)*p);
            put_text(line, escape);
        } else if (json && (*p == '"' || *p == '\\')) {
            char escape[2] = {'\\', (char)*p};
            put(line, escape, 2);
        } else {
            put(line, (const char *)p, len);
        }
        p += len;
    }
}

static void put_field(struct line *line, const char *name, const char *value)
{
    if (!value)
        return;
    put_text(line, as_text ? " " : ",\"");
    put_text(line, name);
    put_text(line, as_text ? "=" : "\":\"");
    put_safe(line, value, !as_text);
    if (!as_text)
        put(line, "\"", 1);
}

static void put_time(struct line *line)
{
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm date;
    char text[40], whole[32];
    gmtime_r(&seconds, &date);
    strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &date);
    snprintf(text, sizeof(text), "%s.%03dZ", whole, (int)(now_ms % 1000));
    put_text(line, text);
}

void log_write(enum log_level level, const struct log_ctx *ctx, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char message[MESSAGE_MAX_BYTES];
    struct line line;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    line.len = 0;
    put_text(&line, as_text ? "" : "{\"time\":\"");
    put_time(&line);
    if (as_text) {
        put_text(&line, " ");
        put_text(&line, names[level]);
        put_text(&line, " ");
        put_safe(&line, message, false);
    } else {
        put_text(&line, "\"");
        put_field(&line, "level", names[level]);
        put_field(&line, "program", program_name);
        put_field(&line, "message", message);
    }
    if (ctx) {
        put_field(&line, "request", ctx->request);
        put_field(&line, "worker", ctx->worker);
        put_field(&line, "tenant", ctx->tenant);
        put_field(&line, "network", ctx->network);
    }
    if (!as_text)
        line.text[line.len++] = '}';
    line.text[line.len++] = '\n';
    /* A log that cannot be written has nowhere to be told of. */
    ssize_t written = write(STDERR_FILENO, line.text, line.len);
    (void)written;
}
