/* Cutting changes nothing; what chat streams give is clean, and scanning it again gives the same. */
#include "tests/fuzz/fuzz.h"

#include "gateway/sse_scan.h"

#include <string.h>

struct told {
    struct buf text, kinds;
};

static void note_event(void *arg, const struct sse_event *event)
{
    struct told *told = arg;
    char kind = (char)event->kind;
    CHECK(buf_append_str(&told->text, event->text) && buf_append(&told->kinds, &kind, 1));
    if (event->text.len == 0)
        return;
    CHECK(str_ends(event->text, STR("\n\n")) && !memchr(event->text.ptr, '\r', event->text.len));
    struct str rest = {event->text.ptr, event->text.len - 1};
    while (rest.len > 0) {
        struct str line = str_next(&rest, '\n');
        CHECK(line.len > 0 && (line.ptr[0] == ':' || str_starts(line, STR("data"))));
    }
}

static void scan_text(struct sse_scan *scan, enum sse_mode mode, struct str text, size_t cut, struct told *told)
{
    buf_init(&told->text, 0);
    buf_init(&told->kinds, 0);
    sse_scan_init(scan, mode, 0, note_event, told);
    CHECK(sse_scan_feed(scan, (struct str){text.ptr, cut}) == ERR_NONE);
    CHECK(sse_scan_feed(scan, (struct str){text.ptr + cut, text.len - cut}) == ERR_NONE);
    CHECK(sse_scan_end(scan) == ERR_NONE);
}

static void compare(const struct sse_scan *a, const struct sse_scan *b, const struct told *told_a,
                    const struct told *told_b)
{
    CHECK(str_eq(buf_str(&told_a->text), buf_str(&told_b->text)));
    CHECK(str_eq(buf_str(&told_a->kinds), buf_str(&told_b->kinds)));
    CHECK(a->committed == b->committed && a->done == b->done && a->failed == b->failed && a->ended == b->ended);
    CHECK(a->usage.known == b->usage.known && a->usage.prompt_tokens == b->usage.prompt_tokens);
    CHECK(sse_scan_is_complete(a) == sse_scan_is_complete(b));
}

static void clear(struct sse_scan *scan, struct told *told)
{
    sse_scan_free(scan);
    buf_free(&told->text);
    buf_free(&told->kinds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum sse_mode mode = fuzz_byte(&data, &size) & 1 ? SSE_RESPONSES : SSE_CHAT;
    size_t cut = fuzz_cut(&data, &size, size < 2 ? 0 : size - 2);
    struct str text = {(const char *)data, size};
    struct sse_scan whole, parts, again;
    struct told whole_told, parts_told, again_told;
    scan_text(&whole, mode, text, size, &whole_told);
    scan_text(&parts, mode, text, cut > size ? size : cut, &parts_told);
    compare(&whole, &parts, &whole_told, &parts_told);
    if (mode == SSE_CHAT) {
        scan_text(&again, mode, buf_str(&whole_told.text), whole_told.text.len, &again_told);
        compare(&whole, &again, &whole_told, &again_told);
        clear(&again, &again_told);
    }
    clear(&whole, &whole_told);
    clear(&parts, &parts_told);
    return 0;
}
