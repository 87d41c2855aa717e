/* libmicrohttpd's memory of a connection, without its sweeping.
 *
 * Its own pool writes zeros over all of a connection's memory, as large as the largest head it takes, twice for every
 * request: more than everything else that a request costs here, and it makes an idle connection keep all of these
 * pages. This one hands out the same memory in the same way and clears nothing. The functions that it replaces are
 * libmicrohttpd's own and may change with its version: with any other version than ours its own are linked. */
#ifndef SLUICE_CORE_HTTP_POOL_H
#define SLUICE_CORE_HTTP_POOL_H

#include <stdbool.h>

bool http_pool_is_ours(void); /* also what draws this file into a program that links libmicrohttpd */

#endif
