/* The scanner of a worker's event stream: takes bytes split anywhere and tells of each event as it becomes whole.
 *
 * Chat and completions (SSE_CHAT): event.text is what the caller gets, clean: no byte order mark, only data and comment
 * lines, LF line ends, one blank line at the end, [DONE] exactly. Data lines are untouched. Which events to send is the
 * caller's choice (SSE_USAGE only if usage was asked for; nothing before the stream commits).
 *
 * /v1/responses (SSE_RESPONSES): the bytes pass as they are, by the caller's own hand; events are told for what they
 * mean, and their text is empty. */
#ifndef SLUICE_GATEWAY_SSE_SCAN_H
#define SLUICE_GATEWAY_SSE_SCAN_H

#include "gateway/usage_scan.h"

#define SSE_EVENT_MAX ((size_t)8 << 20)
#define SSE_CHOICES_MAX 128

enum sse_mode { SSE_CHAT, SSE_RESPONSES };

enum sse_kind {
    SSE_COMMENT,   /* only comment lines */
    SSE_OTHER,     /* well-formed, commits nothing (a role, an empty delta) */
    SSE_CONTENT,   /* commits the stream */
    SSE_USAGE,     /* no choices, only usage */
    SSE_DONE,      /* data: [DONE]; nothing is told after it */
    SSE_ERROR,     /* a top-level error, or a response's `error` event */
    SSE_MALFORMED, /* data that is no JSON object */
};

/* Borrowed for the call. */
struct sse_event {
    enum sse_kind kind;
    struct str text; /* clean, with its blank line */
    struct str data; /* the payload of its data lines, joined by line feeds */
};

struct sse_scan {
    /* What the stream said so far. */
    struct usage usage;           /* the last that was told */
    bool committed, done, failed; /* content, [DONE], error or malformed data seen */
    bool ended;                   /* responses: completed, failed or incomplete seen */
    /* the rest is the scanner's own */
    enum sse_mode mode;
    void (*on_event)(void *arg, const struct sse_event *event);
    void *arg;
    size_t event_max;
    struct buf held, clean, joined;
    size_t line_at, search_at, data_at, data_len, data_lines; /* in the event under way */
    uint64_t seen[SSE_CHOICES_MAX / 64], finished[SSE_CHOICES_MAX / 64];
    bool dirty, comments, skip_lf, first_event, odd_choice, ending;
    enum error error;
};

/* event_max 0 means SSE_EVENT_MAX. Free with sse_scan_free. */
void sse_scan_init(struct sse_scan *scan, enum sse_mode mode, size_t event_max,
                   void (*on_event)(void *arg, const struct sse_event *event), void *arg);
void sse_scan_free(struct sse_scan *scan); /* accepts NULL */
/* ERR_TOO_LARGE: an event is larger than event_max. ERR_NO_MEMORY. Both stay. on_event runs within the call and must
 * not free the scanner. */
MUST_CHECK enum error sse_scan_feed(struct sse_scan *scan, struct str bytes);
/* The stream's end: an event that lacks only its blank line is told still; data cut off in its midst is dropped. */
MUST_CHECK enum error sse_scan_end(struct sse_scan *scan);
/* How many of the bytes that were fed belong to an event that is not whole yet. */
size_t sse_scan_cut(const struct sse_scan *scan);
/* Did the stream say all it had to? Chat: [DONE], or a finish_reason for every choice seen. Responses: ended. */
bool sse_scan_is_complete(const struct sse_scan *scan);

#endif
