#include "gateway/sse_scan.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

void sse_scan_init(struct sse_scan *scan, enum sse_mode mode, size_t event_max,
                   void (*on_event)(void *arg, const struct sse_event *event), void *arg)
{
    *scan = (struct sse_scan){.mode = mode,
                              .event_max = event_max ? event_max : SSE_EVENT_MAX,
                              .on_event = on_event,
                              .arg = arg,
                              .first_event = true};
    /* What is held between feeds is bounded by event_max; within a feed it is that and the fed bytes. */
    buf_init(&scan->held, SIZE_MAX / 4);
    buf_init(&scan->clean, SIZE_MAX / 4);
    buf_init(&scan->joined, SIZE_MAX / 4);
}

void sse_scan_free(struct sse_scan *scan)
{
    if (!scan)
        return;
    buf_free(&scan->held);
    buf_free(&scan->clean);
    buf_free(&scan->joined);
}

/* ---- lines ---- */

/* The first CR or LF of [p, end), else end. */
static const char *find_line_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r');
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        int found = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(v, lf), _mm_cmpeq_epi8(v, cr)));
        if (found)
            return p + __builtin_ctz((unsigned)found);
    }
#endif
    while (p < end && *p != '\n' && *p != '\r')
        p++;
    return p;
}

static bool is_data(struct str line)
{
    return str_starts(line, STR("data")) && (line.len == 4 || line.ptr[4] == ':');
}

/* What stands behind "data:" and at most one space. */
static struct str payload_of(struct str line)
{
    size_t skip = line.len > 5 && line.ptr[5] == ' ' ? 6 : line.len > 4 ? 5 : 4;
    return (struct str){line.ptr + skip, line.len - skip};
}

static struct str without_mark(struct str line)
{
    if (!str_starts(line, STR("\xef\xbb\xbf")))
        return line;
    return (struct str){line.ptr + 3, line.len - 3};
}

/* Takes the next whole line of text off *rest. */
static struct str cut_line(struct str *rest)
{
    const char *end = rest->ptr + rest->len, *at = find_line_end(rest->ptr, end), *next = at;
    struct str line = {rest->ptr, (size_t)(at - rest->ptr)};
    if (next < end)
        next += *at == '\r' && end - at > 1 && at[1] == '\n' ? 2 : 1;
    *rest = (struct str){next, (size_t)(end - next)};
    return line;
}

/* Writes an event's data and comment lines to `clean` and its joined payload to `joined`. */
static bool rebuild(struct sse_scan *scan, struct str raw, bool first)
{
    bool ok = true;
    size_t data_lines = 0;
    buf_clear(&scan->clean);
    buf_clear(&scan->joined);
    while (ok && raw.len > 0) {
        struct str line = cut_line(&raw);
        if (first)
            line = without_mark(line);
        first = false;
        if (is_data(line)) {
            ok = (data_lines++ == 0 || buf_append(&scan->joined, "\n", 1)) &&
                 buf_append_str(&scan->joined, payload_of(line));
        } else if (line.len == 0 || line.ptr[0] != ':') {
            continue;
        }
        ok = ok && buf_append_str(&scan->clean, line) && buf_append(&scan->clean, "\n", 1);
    }
    return ok && buf_append(&scan->clean, "\n", 1);
}

/* ---- what an event's data says ---- */

struct chunk {
    struct str text;
    struct json_value choices, usage, error, type, response;
};

static void note_member(void *arg, const struct json_member *member)
{
    struct chunk *chunk = arg;
    const struct {
        struct str key;
        struct json_value *value;
    } wanted[] = {
        {STR("choices"), &chunk->choices}, {STR("usage"), &chunk->usage},       {STR("error"), &chunk->error},
        {STR("type"), &chunk->type},       {STR("response"), &chunk->response},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        if (str_eq(member->key, wanted[i].key))
            *wanted[i].value =
                (struct json_value){member->type, {chunk->text.ptr + member->start, member->end - member->start}};
    }
}

static bool is_filled(struct json_value value)
{
    struct json_walk walk = json_walk_of(value);
    struct json_value inner;
    struct str key;
    switch (value.type) {
    case JS_STRING:
        return value.text.len > 2;
    case JS_ARRAY:
        return json_next_item(&walk, &inner);
    case JS_OBJECT:
        return json_next_member(&walk, &key, &inner);
    default:
        return false;
    }
}

static bool delta_commits(struct json_value delta)
{
    static const char *const keys[] = {"content",    "reasoning_content", "reasoning", "refusal",
                                       "tool_calls", "function_call",     "audio"};
    struct json_walk walk = json_walk_of(delta);
    struct json_value value;
    struct str key;
    if (delta.type != JS_OBJECT)
        return false;
    while (json_next_member(&walk, &key, &value)) {
        for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
            if (str_eq(key, str_of(keys[i])) && is_filled(value))
                return true;
        }
    }
    return false;
}

static bool take_choice(struct sse_scan *scan, struct json_value choice)
{
    struct json_walk walk = json_walk_of(choice);
    struct json_value value;
    struct str key;
    bool commits = false, finished = false;
    int64_t index = 0;
    if (choice.type != JS_OBJECT)
        return false;
    while (json_next_member(&walk, &key, &value)) {
        if (str_eq(key, STR("index")))
            index = json_to_count(value, &index) ? index : -1;
        else if (str_eq(key, STR("delta")))
            commits |= delta_commits(value);
        else if (str_eq(key, STR("text")))
            commits |= is_filled(value);
        else if (str_eq(key, STR("finish_reason")))
            finished = value.type != JS_NULL;
    }
    if (index < 0 || index >= SSE_CHOICES_MAX) {
        scan->odd_choice = true;
        return commits || finished;
    }
    uint64_t bit = UINT64_C(1) << (index % 64);
    scan->seen[index / 64] |= bit;
    if (finished)
        scan->finished[index / 64] |= bit;
    return commits || finished;
}

static enum sse_kind judge_chat(struct sse_scan *scan, const struct chunk *chunk)
{
    if (!json_is_nothing(chunk->error))
        return SSE_ERROR;
    usage_read(chunk->usage, &scan->usage);
    bool commits = false, any = false;
    struct json_value choice;
    struct json_walk walk = json_walk_of(chunk->choices);
    while (chunk->choices.type == JS_ARRAY && json_next_item(&walk, &choice)) {
        any = true;
        commits |= take_choice(scan, choice);
    }
    if (commits)
        return SSE_CONTENT;
    return chunk->choices.type == JS_ARRAY && !any && chunk->usage.type == JS_OBJECT ? SSE_USAGE : SSE_OTHER;
}

static enum sse_kind judge_response(struct sse_scan *scan, const struct chunk *chunk)
{
    if (chunk->type.type != JS_STRING)
        return json_is_nothing(chunk->error) ? SSE_OTHER : SSE_ERROR;
    struct str type = {chunk->type.text.ptr + 1, chunk->type.text.len - 2};
    if (str_eq(type, STR("error")))
        return SSE_ERROR;
    if (str_ends(type, STR(".delta")))
        return SSE_CONTENT;
    if (str_eq(type, STR("response.completed")) || str_eq(type, STR("response.failed")) ||
        str_eq(type, STR("response.incomplete"))) {
        usage_read(json_member_of(chunk->response, "usage"), &scan->usage);
        scan->ended = true;
    }
    return SSE_OTHER;
}

static enum sse_kind judge(struct sse_scan *scan, struct str data)
{
    struct chunk chunk = {.text = data};
    struct json_scan json;
    json_scan_init(&json, note_member, &chunk);
    if (json_scan_feed(&json, data) || json_scan_end(&json) || json.root != JS_OBJECT)
        return SSE_MALFORMED;
    return scan->mode == SSE_CHAT ? judge_chat(scan, &chunk) : judge_response(scan, &chunk);
}

/* ---- events ---- */

static struct str trim_all(struct str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t' || s.ptr[0] == '\n'))
        s = (struct str){s.ptr + 1, s.len - 1};
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t' || s.ptr[s.len - 1] == '\n'))
        s.len--;
    return s;
}

static enum error tell(struct sse_scan *scan, struct str raw)
{
    struct sse_event event = {SSE_COMMENT, raw, {raw.ptr + scan->data_at, scan->data_len}};
    if (scan->dirty || scan->data_lines > 1) {
        if (!rebuild(scan, raw, scan->first_event))
            return ERR_NO_MEMORY;
        event.text = buf_str(&scan->clean);
        event.data = buf_str(&scan->joined);
    }
    struct str payload = trim_all(event.data);
    if (scan->data_lines == 0 ? !scan->comments : payload.len == 0)
        return ERR_NONE; /* blank lines, or only fields that clean streams lack */
    if (scan->data_lines > 0 && str_eq(payload, STR("[DONE]"))) {
        event.kind = SSE_DONE;
        event.text = STR("data: [DONE]\n\n");
        scan->done = true;
    } else if (scan->data_lines > 0) {
        event.kind = judge(scan, event.data);
        if (event.kind == SSE_MALFORMED && scan->ending)
            return ERR_NONE; /* cut off by the end: no event at all */
    }
    scan->committed |= event.kind == SSE_CONTENT;
    scan->failed |= event.kind == SSE_ERROR || event.kind == SSE_MALFORMED;
    if (scan->mode == SSE_RESPONSES)
        event.text = STR("");
    scan->on_event(scan->arg, &event);
    return ERR_NONE;
}

static void take_line(struct sse_scan *scan, struct str line, const char *event)
{
    if (is_data(line)) {
        struct str payload = payload_of(line);
        scan->data_lines++;
        scan->data_at = (size_t)(payload.ptr - event);
        scan->data_len = payload.len;
    } else if (line.ptr[0] == ':') {
        scan->comments = true;
    } else {
        scan->dirty = true;
    }
}

static void next_event(struct sse_scan *scan)
{
    scan->line_at = scan->search_at = scan->data_lines = scan->data_at = scan->data_len = 0;
    scan->dirty = scan->comments = scan->first_event = false;
}

/* Takes whole events off the window; *ret_taken is what they cover. Offsets in the scanner count from the event. */
static enum error take_events(struct sse_scan *scan, struct str window, size_t *ret_taken)
{
    const char *event = window.ptr, *end = window.ptr + window.len;
    enum error error = ERR_NONE;
    while (!error && !(scan->done && scan->mode == SSE_CHAT)) {
        const char *at = find_line_end(event + scan->search_at, end);
        if (at == end) {
            scan->search_at = (size_t)(end - event);
            break;
        }
        struct str line = {event + scan->line_at, (size_t)(at - event) - scan->line_at};
        if (*at++ == '\r') {
            scan->dirty = true;
            scan->skip_lf = at == end;
            at += at < end && *at == '\n';
        }
        if (scan->first_event && scan->line_at == 0) {
            size_t before = line.len;
            line = without_mark(line);
            scan->dirty |= line.len < before;
        }
        scan->line_at = scan->search_at = (size_t)(at - event);
        if (line.len > 0) {
            take_line(scan, line, event);
            continue;
        }
        error = tell(scan, (struct str){event, (size_t)(at - event)});
        next_event(scan);
        event = at;
    }
    *ret_taken = (size_t)(event - window.ptr);
    return error;
}

enum error sse_scan_feed(struct sse_scan *scan, struct str bytes)
{
    if (scan->skip_lf && bytes.len > 0) {
        scan->skip_lf = false;
        if (bytes.ptr[0] == '\n')
            bytes = (struct str){bytes.ptr + 1, bytes.len - 1};
    }
    if (scan->error || bytes.len == 0 || (scan->done && scan->mode == SSE_CHAT))
        return scan->error;
    bool held = scan->held.len > 0;
    if (held && !buf_append_str(&scan->held, bytes))
        return scan->error = ERR_NO_MEMORY;
    struct str window = held ? buf_str(&scan->held) : bytes;
    size_t taken = 0;
    scan->error = take_events(scan, window, &taken);
    struct str rest = {window.ptr + taken, window.len - taken};
    if (held)
        buf_drop_front(&scan->held, taken);
    else if (!scan->error && !buf_append_str(&scan->held, rest))
        scan->error = ERR_NO_MEMORY;
    if (!scan->error && rest.len > scan->event_max)
        scan->error = ERR_TOO_LARGE;
    return scan->error;
}

enum error sse_scan_end(struct sse_scan *scan)
{
    scan->ending = true;
    scan->skip_lf = false;
    return scan->held.len > 0 ? sse_scan_feed(scan, STR("\n\n")) : scan->error;
}

size_t sse_scan_cut(const struct sse_scan *scan)
{
    return scan->held.len;
}

bool sse_scan_is_complete(const struct sse_scan *scan)
{
    if (scan->mode == SSE_RESPONSES)
        return scan->ended;
    if (scan->done)
        return true;
    bool any = false, all = !scan->odd_choice;
    for (size_t i = 0; i < SSE_CHOICES_MAX / 64; i++) {
        any |= scan->seen[i] != 0;
        all &= scan->seen[i] == scan->finished[i];
    }
    return any && all;
}
