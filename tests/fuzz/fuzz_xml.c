/* Whatever comes is refused or becomes a tree within the limits, which can be written as JSON. */
#include "tests/fuzz/fuzz.h"

#include "adapters/xml.h"

#include <stdlib.h>

static void walk(const json_t *value, unsigned depth)
{
    const char *key;
    json_t *child;
    size_t i;
    CHECK(depth <= XML_DEPTH_MAX);
    CHECK(json_is_object(value) || json_is_array(value) || json_is_string(value));
    json_object_foreach((json_t *)(uintptr_t)value, key, child) walk(child, depth + 1);
    json_array_foreach(value, i, child) walk(child, json_is_array(child) ? depth : depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *tree = xml_to_json((struct str){(const char *)data, size});
    if (!tree)
        return 0;
    walk(tree, 0);
    char *text = json_dumps(tree, JSON_ENCODE_ANY);
    CHECK(text);
    free(text);
    json_decref(tree);
    return 0;
}
