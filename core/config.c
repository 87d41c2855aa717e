#include "core/config.h"

#include "core/config_value.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define PATH_MAX_LEN 160

struct reader {
    yaml_document_t *document;
    const char *name;
    char *error; /* CONFIG_ERROR_MAX bytes */
};

static enum error fail(const struct reader *reader, size_t line, const char *path, const char *why)
{
    if (line > 0)
        snprintf(reader->error, CONFIG_ERROR_MAX, "%s:%zu: %s%s%s", reader->name, line, path, *path ? ": " : "", why);
    else
        snprintf(reader->error, CONFIG_ERROR_MAX, "%s: %s", reader->name, why);
    return ERR_BAD_INPUT;
}

static size_t line_of(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static bool is_nothing(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)node->data.scalar.value;
    return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

/* The text of a scalar; NULL for other nodes and for texts with NULs in them. */
static const char *text_of(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || strlen((char *)node->data.scalar.value) != node->data.scalar.length)
        return NULL;
    return (const char *)node->data.scalar.value;
}

static void *field_of(const struct config_row *row, void *config)
{
    return (char *)config + row->offset;
}

static void free_map(struct config_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        free(map->pairs[i].key);
        free(map->pairs[i].value);
    }
    free(map->pairs);
    *map = (struct config_map){NULL, 0};
}

static void free_list(const struct config_row *row, struct config_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        config_free(row->items, (char *)list->items + i * row->item_size);
    free(list->items);
    *list = (struct config_list){NULL, 0};
}

void config_free(const struct config_row *rows, void *config)
{
    for (const struct config_row *row = rows; row->key; row++) {
        char **text = field_of(row, config);
        switch (row->type) {
        case CONFIG_STRING:
        case CONFIG_SECRET:
            free(*text);
            *text = NULL;
            break;
        case CONFIG_MAP:
        case CONFIG_SECRETS:
            free_map(field_of(row, config));
            break;
        case CONFIG_LIST:
            free_list(row, field_of(row, config));
            break;
        default:
            break;
        }
    }
}

/* ---- from YAML nodes ---- */

static enum error read_mapping(const struct reader *reader, const yaml_node_t *node, const struct config_row *rows,
                               const char *at, const char *section, void *config, uint64_t *given);
static enum error set_defaults(const struct config_row *rows, void *config, char *error);

static enum error read_scalar(const struct reader *reader, const yaml_node_t *node, const struct config_row *row,
                              const char *path, void *config)
{
    char why[CONFIG_WHY_MAX];
    const char *text = text_of(node);
    if (!text)
        return fail(reader, line_of(node), path, "must be a single value");
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (!plain && (row->type == CONFIG_INT || row->type == CONFIG_BOOL))
        return fail(reader, line_of(node), path, "must not be in quotes");
    enum error error = config_value_set(row, text, field_of(row, config), why);
    return error ? fail(reader, line_of(node), path, why) : ERR_NONE;
}

static enum error read_pair(const struct reader *reader, const yaml_node_pair_t *pair, const struct config_row *row,
                            const char *at, struct config_map *map)
{
    char path[PATH_MAX_LEN], why[CONFIG_WHY_MAX];
    const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
    const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
    const char *name = text_of(key), *text = text_of(value);
    if (!name || !*name)
        return fail(reader, line_of(key), at, "a key must be a text");
    snprintf(path, sizeof(path), "%s.%s", at, name);
    if (!text || is_nothing(value))
        return fail(reader, line_of(value), path, "must be a single value");
    if (config_map_get(map, str_of(name)))
        return fail(reader, line_of(key), path, "is given twice");
    struct config_row single = {.key = "", .type = row->type == CONFIG_SECRETS ? CONFIG_SECRET : CONFIG_STRING};
    struct config_pair *kept = &map->pairs[map->count];
    enum error error = config_value_set(&single, text, &kept->value, why);
    if (error)
        return fail(reader, line_of(value), path, why);
    kept->key = strdup(name);
    map->count++;
    return kept->key ? ERR_NONE : fail(reader, line_of(key), path, "out of memory");
}

static enum error read_map(const struct reader *reader, const yaml_node_t *node, const struct config_row *row,
                           const char *path, void *config)
{
    struct config_map *map = field_of(row, config);
    if (node->type != YAML_MAPPING_NODE)
        return fail(reader, line_of(node), path, "must be a map");
    size_t count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    if (count > CONFIG_ITEMS_MAX)
        return fail(reader, line_of(node), path, "has too many members");
    free_map(map);
    map->pairs = calloc(count + 1, sizeof(*map->pairs));
    if (!map->pairs)
        return fail(reader, line_of(node), path, "out of memory");
    enum error error = ERR_NONE;
    for (size_t i = 0; i < count && !error; i++)
        error = read_pair(reader, &node->data.mapping.pairs.start[i], row, path, map);
    return error;
}

static enum error read_item(const struct reader *reader, const yaml_node_t *node, const struct config_row *row,
                            const char *path, void *item)
{
    uint64_t given = 0;
    char why[PATH_MAX_LEN];
    if (node->type != YAML_MAPPING_NODE)
        return fail(reader, line_of(node), path, "must be a map");
    enum error error = set_defaults(row->items, item, reader->error);
    error = error ? error : read_mapping(reader, node, row->items, path, "", item, &given);
    for (size_t i = 0; row->items[i].key && !error; i++) {
        if (row->items[i].standard || given >> i & 1)
            continue;
        snprintf(why, sizeof(why), "lacks '%s'", row->items[i].key);
        error = fail(reader, line_of(node), path, why);
    }
    return error;
}

static enum error read_list(const struct reader *reader, const yaml_node_t *node, const struct config_row *row,
                            const char *path, void *config)
{
    struct config_list *list = field_of(row, config);
    if (node->type != YAML_SEQUENCE_NODE)
        return fail(reader, line_of(node), path, "must be a list");
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count > CONFIG_ITEMS_MAX)
        return fail(reader, line_of(node), path, "has too many items");
    free_list(row, list);
    list->items = calloc(count + 1, row->item_size);
    if (!list->items)
        return fail(reader, line_of(node), path, "out of memory");
    enum error error = ERR_NONE;
    for (size_t i = 0; i < count && !error; i++) {
        char item_path[PATH_MAX_LEN];
        const yaml_node_t *item = yaml_document_get_node(reader->document, node->data.sequence.items.start[i]);
        snprintf(item_path, sizeof(item_path), "%s[%zu]", path, i);
        list->count++;
        error = read_item(reader, item, row, item_path, (char *)list->items + i * row->item_size);
    }
    return error;
}

static enum error read_row(const struct reader *reader, const yaml_node_t *node, const struct config_row *row,
                           const char *path, void *config)
{
    switch (row->type) {
    case CONFIG_LIST:
        return read_list(reader, node, row, path, config);
    case CONFIG_MAP:
    case CONFIG_SECRETS:
        return read_map(reader, node, row, path, config);
    default:
        return read_scalar(reader, node, row, path, config);
    }
}

static bool is_section(const struct config_row *rows, const char *key)
{
    size_t len = strlen(key);
    for (const struct config_row *row = rows; row->key; row++) {
        if (strncmp(row->key, key, len) == 0 && row->key[len] == '.')
            return true;
    }
    return false;
}

static const struct config_row *row_of(const struct config_row *rows, const char *key)
{
    for (const struct config_row *row = rows; row->key; row++) {
        if (strcmp(row->key, key) == 0)
            return row;
    }
    return NULL;
}

static bool is_double(const struct reader *reader, const yaml_node_t *node, const yaml_node_pair_t *pair)
{
    const char *name = text_of(yaml_document_get_node(reader->document, pair->key));
    for (const yaml_node_pair_t *other = node->data.mapping.pairs.start; other < pair; other++) {
        const char *other_name = text_of(yaml_document_get_node(reader->document, other->key));
        if (name && other_name && strcmp(name, other_name) == 0)
            return true;
    }
    return false;
}

/* `at` is the path of the list item that the rows are of ("" at the top), `section` the part of their keys read so far;
 * *given gets a bit for each row met. */
static enum error read_mapping(const struct reader *reader, const yaml_node_t *node, const struct config_row *rows,
                               const char *at, const char *section, void *config, uint64_t *given)
{
    if (node->type != YAML_MAPPING_NODE)
        return fail(reader, line_of(node), *section ? section : at, "must be a map");
    enum error error = ERR_NONE;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top && !error;
         pair++) {
        const yaml_node_t *key_node = yaml_document_get_node(reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        const char *name = text_of(key_node);
        char key[PATH_MAX_LEN], path[2 * PATH_MAX_LEN];
        snprintf(key, sizeof(key), "%s%s%s", section, *section ? "." : "", name ? name : "?");
        snprintf(path, sizeof(path), "%s%s%s", at, *at ? "." : "", key);
        path[PATH_MAX_LEN - 1] = '\0';
        const struct config_row *row = name && !strchr(name, '.') ? row_of(rows, key) : NULL;
        bool into = name && !strchr(name, '.') && !row && is_section(rows, key);
        if (!row && !into)
            return fail(reader, line_of(key_node), path, "unknown key");
        if (is_double(reader, node, pair))
            return fail(reader, line_of(key_node), path, "is given twice");
        if (is_nothing(value))
            continue;
        if (row)
            *given |= UINT64_C(1) << (row - rows);
        error = row ? read_row(reader, value, row, path, config)
                    : read_mapping(reader, value, rows, at, key, config, given);
    }
    return error;
}

/* ---- whole texts ---- */

/* Calls `use` with the root of the only document in text, not at all when there is none. */
static enum error with_document(struct reader *reader, struct str text,
                                enum error (*use)(struct reader *reader, const yaml_node_t *root, void *arg), void *arg)
{
    yaml_parser_t parser;
    yaml_document_t document, second;
    enum error error = ERR_NONE;
    if (!yaml_parser_initialize(&parser))
        return fail(reader, 0, "", "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.len ? text.ptr : ""), text.len);
    bool first_ok = yaml_parser_load(&parser, &document), second_ok = false;
    if (first_ok && yaml_document_get_root_node(&document)) {
        second_ok = yaml_parser_load(&parser, &second);
        const yaml_node_t *more = second_ok ? yaml_document_get_root_node(&second) : NULL;
        reader->document = &document;
        if (more)
            error = fail(reader, line_of(more), "", "only one document may be in the file");
        else if (second_ok)
            error = use(reader, yaml_document_get_root_node(&document), arg);
        if (second_ok)
            yaml_document_delete(&second);
    } else {
        second_ok = first_ok;
    }
    if (!second_ok) {
        const char *problem = parser.problem ? parser.problem : "not YAML";
        error = fail(reader, parser.problem_mark.line + 1, "", problem);
    }
    if (first_ok)
        yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return error;
}

struct row_target {
    const struct config_row *row;
    void *config;
};

static enum error use_for_row(struct reader *reader, const yaml_node_t *root, void *arg)
{
    const struct row_target *target = arg;
    return read_row(reader, root, target->row, target->row->key, target->config);
}

static enum error set_defaults(const struct config_row *rows, void *config, char *error)
{
    char why[CONFIG_WHY_MAX];
    for (const struct config_row *row = rows; row->key; row++) {
        struct reader reader = {NULL, "default", error};
        struct row_target target = {row, config};
        enum error failed = ERR_NONE;
        if (row->type == CONFIG_LIST || row->type == CONFIG_MAP || row->type == CONFIG_SECRETS)
            failed = with_document(&reader, str_of(row->standard), use_for_row, &target);
        else if (row->standard)
            failed = config_value_set(row, row->standard, field_of(row, config), why);
        assert(!failed);
        if (failed)
            return fail(&reader, 0, "", "out of memory");
    }
    return ERR_NONE;
}

struct rows_target {
    const struct config_row *rows;
    void *config;
};

static enum error use_for_rows(struct reader *reader, const yaml_node_t *root, void *arg)
{
    const struct rows_target *target = arg;
    uint64_t given = 0;
    return is_nothing(root) ? ERR_NONE : read_mapping(reader, root, target->rows, "", "", target->config, &given);
}

enum error config_parse(const struct config_row *rows, struct str text, const char *name, void *ret, size_t ret_size,
                        char error[static CONFIG_ERROR_MAX])
{
    struct reader reader = {NULL, name, error};
    struct rows_target target = {rows, ret};
    memset(ret, 0, ret_size);
    enum error failed = set_defaults(rows, ret, error);
    failed = failed ? failed : with_document(&reader, text, use_for_rows, &target);
    if (failed) {
        config_free(rows, ret);
        memset(ret, 0, ret_size);
    }
    return failed;
}

enum error config_load(const struct config_row *rows, const char *path, void *ret, size_t ret_size,
                       char error[static CONFIG_ERROR_MAX])
{
    struct buf text;
    buf_init(&text, CONFIG_FILE_MAX);
    enum error failed = config_file_read(path, &text);
    if (failed) {
        snprintf(error, CONFIG_ERROR_MAX, "%s: %s", path,
                 failed == ERR_TOO_LARGE ? "larger than a configuration may be" : "cannot be read");
        memset(ret, 0, ret_size);
    } else {
        failed = config_parse(rows, buf_str(&text), path, ret, ret_size, error);
    }
    buf_free(&text);
    return failed;
}

enum error config_set(const struct config_row *rows, const char *key, const char *value, const char *name, void *config,
                      char error[static CONFIG_ERROR_MAX])
{
    char why[CONFIG_WHY_MAX];
    const struct config_row *row = row_of(rows, key);
    assert(row && row->type != CONFIG_LIST && row->type != CONFIG_MAP && row->type != CONFIG_SECRETS);
    struct reader reader = {NULL, name, error};
    return config_value_set(row, value, field_of(row, config), why) ? fail(&reader, 0, "", why) : ERR_NONE;
}

const char *config_map_get(const struct config_map *map, struct str key)
{
    for (size_t i = 0; i < map->count; i++) {
        if (str_eq(str_of(map->pairs[i].key), key))
            return map->pairs[i].value;
    }
    return NULL;
}
