#include "core/config_value.h"

#include "core/crypto.h"
#include "core/money.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_FILE_MAX ((size_t)64 << 10)

static enum error say(char *why, const char *text)
{
    snprintf(why, CONFIG_WHY_MAX, "%s", text);
    return ERR_BAD_INPUT;
}

enum error config_file_read(const char *path, struct buf *to)
{
    char block[4096];
    size_t len;
    enum error error = ERR_NONE;
    FILE *file = fopen(path, "re");
    if (!file)
        return ERR_SYSTEM;
    while (!error && (len = fread(block, 1, sizeof(block), file)) > 0) {
        if (!buf_append(to, block, len))
            error = ERR_TOO_LARGE;
    }
    if (!error && ferror(file))
        error = ERR_SYSTEM;
    fclose(file);
    crypto_wipe(block, sizeof(block));
    return error;
}

static enum error set_text(char **field, struct str text, char *why)
{
    char *copy = malloc(text.len + 1);
    if (!copy)
        return say(why, "out of memory");
    if (text.len > 0)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    free(*field);
    *field = copy;
    return ERR_NONE;
}

static enum error set_secret_of_file(char **field, const char *path, char *why)
{
    struct buf text;
    buf_init(&text, SECRET_FILE_MAX);
    enum error error = ERR_NONE;
    if (config_file_read(path, &text)) {
        snprintf(why, CONFIG_WHY_MAX, "the file %.200s cannot be read", path);
        error = ERR_BAD_INPUT;
    }
    struct str line = buf_str(&text);
    while (line.len > 0 && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == '\r'))
        line.len--;
    if (!error && (line.len == 0 || memchr(line.ptr, '\n', line.len) || memchr(line.ptr, '\0', line.len))) {
        snprintf(why, CONFIG_WHY_MAX, "the file %.200s must hold one line", path);
        error = ERR_BAD_INPUT;
    }
    error = error ? error : set_text(field, line, why);
    if (text.cap > 0)
        crypto_wipe(text.ptr, text.cap);
    buf_free(&text);
    return error;
}

static enum error set_secret(char **field, const char *text, char *why)
{
    if (!*text) {
        free(*field);
        *field = NULL;
        return ERR_NONE;
    }
    if (strncmp(text, "file:", 5) == 0)
        return set_secret_of_file(field, text + 5, why);
    if (strncmp(text, "env:", 4) != 0)
        return say(why, "must be env:NAME or file:PATH, never the secret itself");
    const char *value = getenv(text + 4);
    if (!value || !*value) {
        snprintf(why, CONFIG_WHY_MAX, "the environment variable %.200s is not set", text + 4);
        return ERR_BAD_INPUT;
    }
    return set_text(field, str_of(value), why);
}

static enum error set_choice(int *field, const struct config_row *row, const char *text, char *why)
{
    size_t len = (size_t)snprintf(why, CONFIG_WHY_MAX, "must be one of");
    for (int i = 0; row->choices[i]; i++) {
        if (strcmp(row->choices[i], text) == 0) {
            *field = i;
            return ERR_NONE;
        }
        if (len < CONFIG_WHY_MAX)
            len += (size_t)snprintf(why + len, CONFIG_WHY_MAX - len, "%s %s", i ? "," : "", row->choices[i]);
    }
    return ERR_BAD_INPUT;
}

struct unit {
    const char *name;
    int64_t factor;
};

/* A whole number, with one of the units behind it or none. */
static enum error set_number(int64_t *field, const struct config_row *row, const struct unit *units, const char *text,
                             char *why)
{
    size_t digits = *text == '-';
    while (text[digits] >= '0' && text[digits] <= '9')
        digits++;
    struct str number = {text, digits}, rest = str_trim(str_of(text + digits));
    int64_t value, factor = rest.len == 0;
    for (const struct unit *unit = units; unit && unit->name; unit++) {
        if (str_eq(rest, str_of(unit->name)))
            factor = unit->factor;
    }
    bool ok = factor && str_to_i64(number, &value) && !__builtin_mul_overflow(value, factor, &value);
    if (ok && value >= row->min && value <= row->max) {
        *field = value;
        return ERR_NONE;
    }
    size_t len = (size_t)snprintf(why, CONFIG_WHY_MAX, "must be a whole number from %" PRId64 " to %" PRId64, row->min,
                                  row->max);
    for (const struct unit *unit = units; unit && unit->name && len < CONFIG_WHY_MAX; unit++)
        len += (size_t)snprintf(why + len, CONFIG_WHY_MAX - len, "%s%s", unit == units ? ", or one with " : " ",
                                unit->name);
    return ERR_BAD_INPUT;
}

static enum error set_bool(bool *field, const char *text, char *why)
{
    bool yes = strcmp(text, "true") == 0;
    if (!yes && strcmp(text, "false") != 0)
        return say(why, "must be true or false");
    *field = yes;
    return ERR_NONE;
}

static enum error set_money(int64_t *field, const char *text, char *why)
{
    if (!*text)
        *field = -1;
    else if (!money_parse(str_of(text), field))
        return say(why, "must be an amount of US dollars such as \"1.25\", with at most 9 digits after the point");
    return ERR_NONE;
}

static bool is_host(struct str host, bool bracketed)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        if (c <= ' ' || c > '~' || c == '[' || c == ']' || c == '/' || c == '@' || (c == ':' && !bracketed))
            return false;
    }
    return host.len > 0;
}

static enum error set_address(struct config_address *field, const char *text, char *why)
{
    struct config_address address = {.port = 0};
    if (!*text) {
        *field = address;
        return ERR_NONE;
    }
    const char *colon = strrchr(text, ':');
    struct str host = {text, colon ? (size_t)(colon - text) : 0};
    bool bracketed = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    if (bracketed)
        host = (struct str){host.ptr + 1, host.len - 2};
    int64_t port = -1;
    if (!is_host(host, bracketed) || !str_to_i64(str_of(colon + 1), &port) || port < 0 || port > UINT16_MAX ||
        !str_copy(address.host, sizeof(address.host), host))
        return say(why, "must be HOST:PORT, an IPv6 host in brackets");
    address.port = (uint16_t)port;
    *field = address;
    return ERR_NONE;
}

enum error config_value_set(const struct config_row *row, const char *text, void *field,
                            char why[static CONFIG_WHY_MAX])
{
    static const struct unit bytes[] = {{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {NULL, 0}};
    static const struct unit ms[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
    switch (row->type) {
    case CONFIG_STRING:
        return set_text(field, str_of(text), why);
    case CONFIG_SECRET:
        return set_secret(field, text, why);
    case CONFIG_CHOICE:
        return set_choice(field, row, text, why);
    case CONFIG_INT:
        return set_number(field, row, NULL, text, why);
    case CONFIG_BYTES:
        return set_number(field, row, bytes, text, why);
    case CONFIG_MS:
        return set_number(field, row, ms, text, why);
    case CONFIG_BOOL:
        return set_bool(field, text, why);
    case CONFIG_MONEY:
        return set_money(field, text, why);
    case CONFIG_ADDRESS:
        return set_address(field, text, why);
    default:
        return say(why, "is no single value");
    }
}
