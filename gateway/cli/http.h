/* Calls of the gateway's REST interface, one at a time. */
#ifndef SLUICE_GATEWAY_CLI_HTTP_H
#define SLUICE_GATEWAY_CLI_HTTP_H

#include "gateway/cli/cli.h"

#define CLI_PATH_MAX 1024

/* before, word escaped, behind. False: too long. */
MUST_CHECK bool http_path(char ret[static CLI_PATH_MAX], const char *before, const char *word, const char *behind);
/* CLI_OK and the answer (NULL for an empty one; the caller's), or an exit code, and stderr says why. With --curl it
 * prints the request, and the answer is NULL. */
MUST_CHECK int http_call(struct cli *cli, const char *method, const char *path, json_t **ret);
/* The like with a body; a POST whose answer is lost on the way is sent again under its Idempotency-Key. */
MUST_CHECK int http_send(struct cli *cli, const char *method, const char *path, const json_t *body, json_t **ret);
/* A GET of text that is handed out as it comes, however long that lasts; on_bytes false: no more is wanted (CLI_OK). */
MUST_CHECK int http_read(struct cli *cli, const char *path, bool (*on_bytes)(void *ctx, struct str bytes), void *ctx);
/* All pages of a list: {"object":"list","data":[...]}. NULL with --curl. most: rows, 0: no limit but
 * HTTP_LIST_MAX. */
#define HTTP_LIST_MAX 100000
MUST_CHECK int http_list(struct cli *cli, const char *path, size_t most, json_t **ret);

#endif
