#include "core/config.h"

#include <string.h>

#define COMMENT_COLUMN 46

static const char *shown_default(const struct config_row *row)
{
    if (row->standard && *row->standard)
        return row->standard;
    return row->type == CONFIG_LIST ? "[]" : row->type == CONFIG_MAP || row->type == CONFIG_SECRETS ? "{}" : "\"\"";
}

static bool put_comment(const struct config_row *row, struct buf *to, size_t line_start)
{
    size_t column = to->len - line_start;
    int blanks = column < COMMENT_COLUMN ? (int)(COMMENT_COLUMN - column) : 1;
    bool ok = buf_printf(to, "%*s# %s", blanks, "", row->help);
    for (size_t i = 0; ok && row->type == CONFIG_CHOICE && row->choices[i]; i++)
        ok = buf_printf(to, "%s%s", i ? " | " : "; one of ", row->choices[i]);
    return ok && buf_append(to, "\n", 1);
}

/* The keys of a list's items, as comments under the list. */
static bool put_items(const struct config_row *row, struct buf *to, int indent)
{
    bool ok = true;
    for (const struct config_row *item = row->items; item->key && ok; item++) {
        size_t line_start = to->len;
        ok =
            buf_printf(to, "%*s#   %s: %s", indent, "", item->key, item->standard ? shown_default(item) : "(needed)") &&
            put_comment(item, to, line_start);
    }
    return ok;
}

bool config_reference(const struct config_row *rows, struct buf *to)
{
    struct str section = {"", 0};
    bool ok = true;
    for (const struct config_row *row = rows; row->key && ok; row++) {
        const char *dot = strchr(row->key, '.');
        struct str own = {row->key, dot ? (size_t)(dot - row->key) : 0};
        if (own.len > 0 && !str_eq(own, section))
            ok = buf_printf(to, STR_FMT ":\n", STR_ARG(own));
        section = own;
        size_t line_start = to->len;
        int indent = dot ? 2 : 0;
        ok = ok && buf_printf(to, "%*s%s: %s", indent, "", dot ? dot + 1 : row->key, shown_default(row)) &&
             put_comment(row, to, line_start) && (row->type != CONFIG_LIST || put_items(row, to, indent));
    }
    return ok;
}
