#include "gateway/cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CELLS_MAX ((size_t)4 << 20)
#define CELL_BYTES_MAX 4096

struct table {
    size_t columns, width, count, cap;
    bool is_right[TABLE_COLUMNS_MAX], has_heads, is_broken;
    char **cells; /* heads first, if there are any */
};

/* -- harmless text ----------------------------------------------------------------------------------------------- */

/* One character of UTF-8 at the front; 0: it is none. */
static size_t next_point(struct str text, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = (const uint8_t *)text.ptr;
    size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (len == 0 || len > text.len)
        return 0;
    uint32_t point = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (p[i] & 0x3fu);
    }
    if (point < least[len] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return 0;
    *ret = point;
    return len;
}

/* Controls, and what is seen as nothing or moves what stands beside it. */
static bool is_harmful(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0xad || point == 0x61c ||
           (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
           (point >= 0x2060 && point <= 0x206f) || point == 0xfeff || (point >= 0xe0000 && point <= 0xe0fff);
}

bool text_safe(struct str text, struct buf *to)
{
    while (text.len > 0) {
        uint32_t point = 0;
        size_t len = next_point(text, &point);
        bool is_good = len > 0 && !is_harmful(point);
        if (!(is_good ? buf_append(to, text.ptr, len) : buf_append(to, "?", 1)))
            return false;
        len += len == 0;
        text = (struct str){text.ptr + len, text.len - len};
    }
    return true;
}

/* Columns on a terminal, taken as one a character. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((uint8_t)*text & 0xc0) != 0x80;
    return width;
}

/* -- cells ------------------------------------------------------------------------------------------------------- */

static void cell_add(struct table *table, const char *text)
{
    if (table->count == table->cap) {
        size_t cap = table->cap ? table->cap * 2 : 64;
        char **cells = cap <= CELLS_MAX ? realloc(table->cells, cap * sizeof(*cells)) : NULL;
        if (!cells) {
            table->is_broken = true;
            return;
        }
        table->cells = cells;
        table->cap = cap;
    }
    char *copy = strdup(text);
    table->is_broken = table->is_broken || !copy;
    if (copy)
        table->cells[table->count++] = copy;
}

struct table *table_new(size_t columns, const char *const *heads, size_t width)
{
    struct table *table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    table->columns = columns;
    table->width = width;
    table->has_heads = heads != NULL;
    for (size_t i = 0; heads && i < columns; i++) {
        table->is_right[i] = heads[i][0] == '>';
        cell_add(table, heads[i] + table->is_right[i]);
    }
    return table;
}

struct table *table_free(struct table *table)
{
    if (!table)
        return NULL;
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
    return NULL;
}

/* Cuts to the width, between characters, and says so. */
static void cut(struct buf *text, size_t width)
{
    size_t at = 0, seen = 0;
    for (; at < text->len; at++) {
        bool starts = ((uint8_t)text->ptr[at] & 0xc0) != 0x80;
        if (starts && seen + 3 == width)
            break;
        seen += starts;
    }
    text->len = at;
}

void table_text(struct table *table, struct str text)
{
    struct buf safe;
    if (!table)
        return;
    buf_init(&safe, CELL_BYTES_MAX * 4);
    if (text.len > CELL_BYTES_MAX)
        text.len = CELL_BYTES_MAX;
    bool is_good = text_safe(text.len ? text : STR("-"), &safe) && buf_append(&safe, "", 1);
    if (is_good && table->width > 3 && width_of(safe.ptr) > table->width) {
        safe.len--;
        cut(&safe, table->width);
        is_good = buf_append(&safe, "...", 4);
    }
    if (is_good)
        cell_add(table, safe.ptr);
    table->is_broken = table->is_broken || !is_good;
    buf_free(&safe);
}

void table_printf(struct table *table, const char *format, ...)
{
    char text[CELL_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    table_text(table, str_of(text));
}

static void cell_print(const struct table *table, size_t column, const char *text, size_t width, FILE *to)
{
    size_t blanks = width - width_of(text);
    bool is_last = column + 1 == table->columns;
    if (table->is_right[column])
        fprintf(to, "%*s%s%s", (int)blanks, "", text, is_last ? "\n" : "  ");
    else if (is_last)
        fprintf(to, "%s\n", text);
    else
        fprintf(to, "%s%*s  ", text, (int)blanks, "");
}

bool table_print(const struct table *table, FILE *to)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0};
    if (!table || table->is_broken)
        return false;
    for (size_t i = 0; i < table->count; i++) {
        size_t width = width_of(table->cells[i]), column = i % table->columns;
        widths[column] = width > widths[column] ? width : widths[column];
    }
    for (size_t i = 0; i < table->count - table->count % table->columns; i++)
        cell_print(table, i % table->columns, table->cells[i], widths[i % table->columns], to);
    return !ferror(to);
}
