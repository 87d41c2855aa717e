/* The sockets that libcurl has us watch, on the event loop.
 *
 * libcurl 7.88.0 to 8.2.0 closes a socket that is still connecting when its transfer is taken out, and says
 * CURL_POLL_REMOVE only afterwards (curl's pull request 11439). By then the number may be another thread's file, so
 * whoever takes a transfer out says so first (http_watches_leave). */
#ifndef SLUICE_CORE_HTTP_WATCH_H
#define SLUICE_CORE_HTTP_WATCH_H

#include "core/loop.h"
#include <curl/curl.h>

struct http_watch;

struct http_watches {
    struct loop *loop;
    CURLM *multi;
    void (*on_ready)(void *ctx, curl_socket_t fd, int mask); /* mask: CURL_CSELECT_... */
    void *ctx;
    struct http_watch *live, *pool; /* of http_watch.c; zero at first */
    size_t pool_count;
};

/* CURLMOPT_SOCKETFUNCTION; ctx is the struct http_watches. */
int http_watches_set(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx);
/* The transfer leaves before its connection stands: its sockets are watched no more. Before curl_multi_remove_handle,
 * which closes them. */
void http_watches_leave(struct http_watches *watches, const CURL *easy);
/* After curl_multi_cleanup. */
void http_watches_free(struct http_watches *watches);

#endif
