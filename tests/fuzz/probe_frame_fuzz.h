/* Shared by the targets of the proof protocol's frames; each fixes the type. What decodes must be written again as the
 * same bytes. First byte of the input even: the rest is the payload. Odd: it changes an example of the type, four bytes
 * a change {what, offset, offset, value}. */
#ifndef SLUICE_TESTS_FUZZ_PROBE_FRAME_FUZZ_H
#define SLUICE_TESTS_FUZZ_PROBE_FRAME_FUZZ_H

#include "tests/fuzz/fuzz.h"
#include "tests/unit/probe_frames.h"

/* The type may have changed with the bytes; whatever it is now, the frame is one or none. */
static inline bool fuzz_frame_check(struct str bytes)
{
    static struct probe_frame frame;
    struct buf again;
    if (probe_frame_decode(bytes, &frame) != ERR_NONE)
        return false;
    CHECK(frame.type == (uint8_t)bytes.ptr[3]);
    buf_init(&again, 2 * PROBE_FRAME_MAX);
    CHECK(probe_frame_encode(&frame, &again));
    CHECK(again.len == bytes.len && memcmp(again.ptr, bytes.ptr, bytes.len) == 0);
    buf_free(&again);
    return true;
}

static inline void fuzz_frame_set_length(struct buf *frame)
{
    size_t length = frame->len - PROBE_FRAME_HEAD;
    for (unsigned i = 0; i < 4; i++)
        frame->ptr[4 + i] = (char)(uint8_t)(length >> (8 * i));
}

static inline void fuzz_frame_change(struct buf *frame, const uint8_t *change)
{
    size_t span = frame->len - PROBE_FRAME_HEAD + 1,
           at = PROBE_FRAME_HEAD + (change[1] | (size_t)change[2] << 8) % span;
    switch (change[0] % 4) {
    case 0: /* a byte */
        if (at < frame->len)
            frame->ptr[at] = (char)change[3];
        break;
    case 1: /* one number more or less */
        if (at < frame->len)
            frame->ptr[at] = (char)(frame->ptr[at] + (change[3] & 1 ? 1 : -1));
        break;
    case 2: /* the end */
        frame->len = at;
        break;
    case 3: /* more after the end */
        for (unsigned i = 0; i < change[3]; i++)
            CHECK(buf_append(frame, &change[1], 1));
        break;
    }
}

/* Example number `pick` of the type, whole. */
static inline void fuzz_frame_example(enum probe_frame_type type, unsigned pick, struct buf *to)
{
    static struct probe_frame frame;
    unsigned first = EXAMPLE_FRAMES, count = 0;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++) {
        example_frame(i, &frame);
        if (frame.type == type && count++ == 0)
            first = i;
    }
    CHECK(count > 0); /* those of a type follow one another */
    example_frame(first + pick % count, &frame);
    CHECK(probe_frame_encode(&frame, to));
    CHECK(fuzz_frame_check(buf_str(to)));
}

static inline int fuzz_frame_of(enum probe_frame_type type, const uint8_t *data, size_t size)
{
    const uint8_t head[PROBE_FRAME_HEAD] = {'S', 'L', PROBE_PROTOCOL_VERSION, (uint8_t)type};
    struct buf frame;
    buf_init(&frame, 2 * PROBE_FRAME_MAX);
    uint8_t first = fuzz_byte(&data, &size);
    if (first & 1) {
        fuzz_frame_example(type, first >> 1, &frame);
        for (; size >= 4; data += 4, size -= 4)
            fuzz_frame_change(&frame, data);
    } else {
        CHECK(buf_append(&frame, head, sizeof(head)) && buf_append(&frame, data, size));
    }
    fuzz_frame_set_length(&frame);
    fuzz_frame_check(buf_str(&frame));
    buf_free(&frame);
    return 0;
}

#define PROBE_FRAME_TARGET(type)                                 \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) \
    {                                                            \
        return fuzz_frame_of(type, data, size);                  \
    }

#endif
