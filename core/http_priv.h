/* The inside of core/http_client: shared with http_request.c. Nobody else includes it. */
#ifndef SLUICE_CORE_HTTP_PRIV_H
#define SLUICE_CORE_HTTP_PRIV_H

#include "core/http_client.h"
#include <curl/curl.h>

/* Sets what differs between exchanges; the body is borrowed. The caller frees the headers after the exchange, on
 * failure too. */
MUST_CHECK enum error http_request_set(CURL *easy, const struct http_request *request, struct curl_slist **ret_headers);

/* Does it set what the handle would not forget? Then that is not kept for another exchange. */
bool http_request_is_special(const struct http_request *request);

#endif
