#include "adapters/xml.h"

#include <expat.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX ((size_t)65536) /* of one element */
#define PARSE_MAX ((size_t)64 << 20)

struct level {
    json_t *children; /* array of [name, value]; NULL: none yet */
    size_t text_from; /* in parse.text */
};

struct parse {
    XML_Parser parser;
    struct level levels[XML_DEPTH_MAX];
    size_t depth, elements;
    struct buf text;
    json_t *root;
    bool is_bad;
};

static void stop(struct parse *parse)
{
    parse->is_bad = true;
    XML_StopParser(parse->parser, XML_FALSE);
}

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct parse *parse = ctx;
    (void)name;
    (void)attributes;
    if (parse->depth == XML_DEPTH_MAX || parse->elements++ == XML_ELEMENTS_MAX) {
        stop(parse);
        return;
    }
    parse->levels[parse->depth++] = (struct level){NULL, parse->text.len};
}

/* One value of a name that occurs `times`. */
static int put(json_t *object, const char *name, json_t *value, json_int_t times)
{
    json_t *all = json_object_get(object, name);
    if (times == 1)
        return json_object_set(object, name, value);
    if (!all && json_object_set_new(object, name, all = json_array()) != 0)
        return -1;
    return json_array_append(all, value);
}

/* [[name, value], ...] as an object, or as an array where all are items. */
static json_t *fold(const json_t *children)
{
    json_t *child, *times = json_object(), *list = json_array(), *object = json_object();
    bool is_list = true, failed = !times || !list || !object;
    size_t i;
    json_array_foreach(children, i, child)
    {
        const char *name = json_string_value(json_array_get(child, 0));
        json_int_t before = json_integer_value(json_object_get(times, name));
        is_list = is_list && !strcmp(name, "item");
        failed = failed || json_object_set_new(times, name, json_integer(before + 1)) != 0;
    }
    json_array_foreach(children, i, child)
    {
        const char *name = json_string_value(json_array_get(child, 0));
        json_t *value = json_array_get(child, 1);
        if (is_list)
            failed = failed || json_array_append(list, value) != 0;
        else
            failed = failed || put(object, name, value, json_integer_value(json_object_get(times, name))) != 0;
    }
    json_decref(times);
    json_decref(is_list ? object : list);
    json_t *folded = is_list ? list : object;
    if (failed) {
        json_decref(folded);
        return NULL;
    }
    return folded;
}

static json_t *value_of(struct parse *parse, struct level *level)
{
    struct str text = {"", parse->text.len - level->text_from};
    if (level->children)
        return fold(level->children);
    if (text.len)
        text.ptr = parse->text.ptr + level->text_from;
    text = str_trim(text);
    return json_stringn(text.len ? text.ptr : "", text.len);
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    struct parse *parse = ctx;
    struct level *level = &parse->levels[--parse->depth];
    json_t *value = value_of(parse, level);
    json_decref(level->children);
    level->children = NULL;
    parse->text.len = level->text_from;
    if (!value) {
        stop(parse);
        return;
    }
    if (parse->depth == 0) {
        parse->root = value;
        return;
    }
    struct level *parent = &parse->levels[parse->depth - 1];
    if (!parent->children)
        parent->children = json_array();
    if (json_array_append_new(parent->children, json_pack("[s, o]", name, value)) != 0)
        stop(parse);
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
    struct parse *parse = ctx;
    if (parse->depth == 0 || len <= 0)
        return;
    size_t have = parse->text.len - parse->levels[parse->depth - 1].text_from;
    if (have + (size_t)len > TEXT_MAX || !buf_append(&parse->text, text, (size_t)len))
        stop(parse);
}

static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system, const XML_Char *public,
                               int has_subset)
{
    (void)name;
    (void)system;
    (void)public;
    (void)has_subset;
    stop(ctx);
}

json_t *xml_to_json(struct str text)
{
    struct parse parse = {.parser = XML_ParserCreate(NULL)};
    if (!parse.parser || text.len > PARSE_MAX) {
        if (parse.parser)
            XML_ParserFree(parse.parser);
        return NULL;
    }
    buf_init(&parse.text, XML_DEPTH_MAX * TEXT_MAX);
    XML_SetUserData(parse.parser, &parse);
    XML_SetElementHandler(parse.parser, on_start, on_end);
    XML_SetCharacterDataHandler(parse.parser, on_text);
    XML_SetStartDoctypeDeclHandler(parse.parser, on_doctype);
    bool is_good = XML_Parse(parse.parser, text.ptr, (int)text.len, XML_TRUE) == XML_STATUS_OK && !parse.is_bad;
    while (parse.depth > 0)
        json_decref(parse.levels[--parse.depth].children);
    XML_ParserFree(parse.parser);
    buf_free(&parse.text);
    if (!is_good) {
        json_decref(parse.root);
        return NULL;
    }
    return parse.root;
}
