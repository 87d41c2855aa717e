/* XML answers as JSON trees, for the adapters that get some: elements become objects, texts strings, and what EC2
 * writes as lists (<xSet><item>..</item></xSet>) arrays. Attributes, namespaces, comments and mixed text are left out.
 */
#ifndef SLUICE_ADAPTERS_XML_H
#define SLUICE_ADAPTERS_XML_H

#include "core/str.h"
#include <jansson.h>

#define XML_DEPTH_MAX 32
#define XML_ELEMENTS_MAX 200000

/* The root element's content: an object, or a string where it holds text alone. An element whose children are all
 * called "item" is an array of them; another name twice in one element becomes an array, too. An empty element is "".
 * NULL: not well-formed, a document type (which could hold entities), too deep, too many elements, or out of memory. */
json_t *xml_to_json(struct str text);

#endif
