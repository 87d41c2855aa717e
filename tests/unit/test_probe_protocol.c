#include "tests/unit/cmocka_all.h"

#include "core/crypto.h"
#include "tests/unit/probe_frames.h"

static struct buf encoded[EXAMPLE_FRAMES];
static const char *names[EXAMPLE_FRAMES];

static int setup(void **state)
{
    struct probe_frame frame;
    (void)state;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++) {
        buf_init(&encoded[i], PROBE_FRAME_MAX);
        names[i] = example_frame(i, &frame);
        if (!probe_frame_encode(&frame, &encoded[i]))
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++)
        buf_free(&encoded[i]);
    return 0;
}

static const struct buf *example(const char *name)
{
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++)
        if (strcmp(names[i], name) == 0)
            return &encoded[i];
    fail_msg("no example %s", name);
    return NULL;
}

/* Decodes; what decodes must be written again as the same bytes. */
static bool decodes(struct str bytes)
{
    static struct probe_frame frame;
    struct buf again;
    if (probe_frame_decode(bytes, &frame) != ERR_NONE)
        return false;
    buf_init(&again, PROBE_FRAME_MAX);
    assert_true(probe_frame_encode(&frame, &again));
    assert_int_equal(again.len, bytes.len);
    assert_memory_equal(again.ptr, bytes.ptr, bytes.len);
    buf_free(&again);
    return true;
}

static void every_example_comes_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++)
        if (!decodes(buf_str(&encoded[i])))
            fail_msg("%s does not decode", names[i]);
}

/* Layouts must never change under the same version: the first 8 bytes of SHA-256 over each example. */
static void known_bytes(void **state)
{
    static const struct {
        const char *name, *digest;
        size_t len;
    } known[EXAMPLE_FRAMES] = {
        {"hello-ask", "f0774925906e195e", 40},
        {"hello", "7fd5c46c9cccbc3a", 544},
        {"ping", "b52577a65c92bd50", 24},
        {"pong", "51a42bb0de107657", 24},
        {"warm", "75b681e9e6eb4042", 16},
        {"ready", "c85ea68d12ec9aec", 16},
        {"release", "4a81a77d6eed32d4", 16},
        {"challenge-fill", "388b6180f0109ff3", 88},
        {"challenge-pass", "8b012d78af922ba7", 80},
        {"challenge-walk", "e8ec0ce91ac1055d", 80},
        {"challenge-chain", "75fc70cc2d62ff86", 88},
        {"commit-fill", "41e90239e5d3ab64", 120},
        {"commit-pass", "3995fd6708496791", 248},
        {"commit-chain", "172281c6c3f3b845", 152},
        {"open", "a1c858aa000c9047", 64},
        {"proof", "37640bcda7bf197d", 245},
        {"net", "07b7b54078e477d6", 31},
        {"net-answer", "d967360b272b5beb", 56},
        {"bind", "e0174c2f738798cd", 84},
        {"bound", "14908ebea52b81ba", 56},
        {"verdict", "ced7bbe851bf90c4", 42},
        {"ack", "103c179603220c04", 8},
        {"error", "12265dc857ea98da", 40},
    };
    (void)state;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++) {
        const struct buf *bytes = example(known[i].name);
        char hex[SHA256_HEX];
        crypto_sha256_hex(buf_str(bytes), hex);
        hex[16] = '\0';
        if (bytes->len != known[i].len || strcmp(hex, known[i].digest) != 0)
            fail_msg("{\"%s\", \"%s\", %zu},", known[i].name, hex, bytes->len);
    }
}

static void known_frames_by_hand(void **state)
{
    static const uint8_t open[] = {'S',  'L',  1,    9,    56,   0,    0,    0,    0x43, 0x44, 0x45, 0x46, 0x47,
                                   0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 2,    0,
                                   0,    0,    0,    0,    0,    0,    0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0,    0,
                                   0,    3,    0,    0,    0,    0,    0,    0,    0,    1,    0,    0,    0,
                                   0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0};
    static const uint8_t error[] = {'S', 'L', 1, 18, 32, 0, 0, 0, 2, 0, 0, 0, 24, 0, 0, 0};
    static const uint8_t ready[] = {'S', 'L', 1, 6, 8, 0, 0, 0, 7, 0, 0, 0, 250, 0, 0, 0};
    (void)state;
    assert_int_equal(example("open")->len, sizeof(open));
    assert_memory_equal(example("open")->ptr, open, sizeof(open));
    assert_int_equal(example("error")->len, sizeof(error) + 24);
    assert_memory_equal(example("error")->ptr, error, sizeof(error));
    assert_memory_equal(example("error")->ptr + sizeof(error), "a challenge is under way", 24);
    assert_int_equal(example("ready")->len, sizeof(ready));
    assert_memory_equal(example("ready")->ptr, ready, sizeof(ready));
}

static void fields_survive(void **state)
{
    static struct probe_frame frame, expected;
    (void)state;
    assert_int_equal(probe_frame_decode(buf_str(example("hello")), &frame), ERR_NONE);
    example_hello(&expected.of.hello);
    assert_int_equal(frame.type, PROBE_HELLO);
    assert_memory_equal(&frame.of.hello, &expected.of.hello, sizeof(frame.of.hello));
    assert_int_equal(probe_frame_decode(buf_str(example("proof")), &frame), ERR_NONE);
    assert_int_equal(frame.of.proof.count, 3);
    assert_int_equal(frame.of.proof.items[1].opening.index, UINT64_C(0x100000002));
    assert_int_equal(frame.of.proof.items[0].opening.part, 1);
    assert_true(str_eq(frame.of.proof.items[1].data, STR("row or trace")));
    assert_int_equal(frame.of.proof.items[0].path.len, 96);
    assert_int_equal(probe_frame_decode(buf_str(example("challenge-chain")), &frame), ERR_NONE);
    assert_int_equal(frame.of.challenge.of.chain.seed[1], 10 + 0x01010101);
    assert_int_equal(frame.of.challenge.of.chain.steps, 50);
    assert_int_equal(frame.of.challenge.of.chain.challenge[0], 0);
    assert_int_equal(probe_frame_decode(buf_str(example("verdict")), &frame), ERR_NONE);
    assert_true(frame.of.verdict.is_passed);
    assert_true(str_eq(frame.of.verdict.receipt, STR("{\"a\":1}\n")));
}

static void put_u32(struct buf *to, size_t at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        to->ptr[at + i] = (char)(uint8_t)(value >> (8 * i));
}

static void copy_of(struct buf *to, const struct buf *from)
{
    buf_init(to, PROBE_FRAME_MAX + 1024);
    assert_true(buf_append_str(to, buf_str(from)));
}

static void every_prefix_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++) {
        struct buf bytes;
        copy_of(&bytes, &encoded[i]);
        for (size_t len = 0; len < bytes.len; len++)
            if (decodes((struct str){bytes.ptr, len}))
                fail_msg("%s: %zu of %zu bytes", names[i], len, bytes.len);
        assert_true(buf_append(&bytes, "\0", 1));
        assert_false(decodes(buf_str(&bytes)));
        /* The same with a head that fits. Two frames end in bytes of any number. */
        bool is_open_ended = strcmp(names[i], "net") == 0 || strcmp(names[i], "bind") == 0;
        for (size_t len = PROBE_FRAME_HEAD; !is_open_ended && len <= bytes.len; len++) {
            put_u32(&bytes, 4, (uint32_t)(len - PROBE_FRAME_HEAD));
            if (decodes((struct str){bytes.ptr, len}) != (len == bytes.len - 1))
                fail_msg("%s: %zu of %zu bytes and a head for them", names[i], len, bytes.len);
        }
        buf_free(&bytes);
    }
}

static void changed_bits_are_refused_or_canonical(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EXAMPLE_FRAMES; i++) {
        struct buf bytes;
        copy_of(&bytes, &encoded[i]);
        for (size_t bit = 0; bit < bytes.len * 8; bit++) {
            bytes.ptr[bit / 8] = (char)(bytes.ptr[bit / 8] ^ (1 << (bit % 8)));
            bool is_taken = decodes(buf_str(&bytes));
            assert_false(is_taken && bit / 8 < PROBE_FRAME_HEAD && bit / 8 != 3);
            bytes.ptr[bit / 8] = (char)(bytes.ptr[bit / 8] ^ (1 << (bit % 8)));
        }
        buf_free(&bytes);
    }
}

/* What is at the very limit passes, what is past it does not: {frame, offset of a u32 in the payload, good, bad}. */
static void limits(void **state)
{
    static const struct {
        const char *name;
        size_t at;
        uint32_t good, bad;
    } cases[] = {
        {"hello", 132, 0, 1},                     /* reserved */
        {"hello", 128, 2, 0},                     /* count */
        {"hello", 128, 2, 17},                    /* count */
        {"hello", 136 + 164, 0x030109, 0x040109}, /* cc 9.1, ECC and MIG; no third flag */
        {"hello", 136 + 164, 0x000109, 0x01000109},
        {"warm", 0, 15, 16},
        {"warm", 4, 0, 1},
        {"release", 4, 0, 1},
        {"ready", 0, 15, 16},
        {"challenge-fill", 16, 1, 0},
        {"challenge-fill", 16, 1, 5},
        {"challenge-fill", 20, 15, 16},
        {"challenge-fill", 28, 0, 1},
        {"challenge-fill", 64, 1u << 27, (1u << 27) + 1},
        {"challenge-fill", 64, 1, 0},
        {"challenge-fill", 68, 0, 1},
        {"challenge-fill", 72, 1024, 1025},
        {"challenge-fill", 72, 1, 0},
        {"challenge-fill", 76, 0, 1},
        {"challenge-pass", 64, 64, 65},
        {"challenge-pass", 64, 1, 0},
        {"challenge-pass", 68, 0, 1},
        {"challenge-walk", 64, 65536, 65537},
        {"challenge-walk", 64, 1, 0},
        {"challenge-walk", 68, 1024, 1025},
        {"challenge-walk", 68, 1, 0},
        {"challenge-chain", 64, 32768, 32832},
        {"challenge-chain", 64, 32704, 32705},
        {"challenge-chain", 64, 64, 0},
        {"challenge-chain", 64, 128, 96},
        {"challenge-chain", 68, 16, 17}, /* n is 16384 there */
        {"challenge-chain", 68, 1, 0},
        {"challenge-chain", 72, 1024, 1025},
        {"challenge-chain", 72, 1, 0},
        {"challenge-chain", 76, 0, 1},
        {"commit-chain", 20, 4, 5},
        {"commit-chain", 24, 1, 0},
        {"commit-chain", 28, 0, 1},
        {"commit-chain", 32, 0, 1},
        {"commit-fill", 32, 1u << 27, (1u << 27) + 1},
        {"commit-pass", 24, 4, 3},
        {"commit-pass", 24, 4, 65},
        {"open", 16, 2, 0},
        {"open", 16, 2, 129},
        {"open", 20, 0, 1},
        {"proof", 16, 3, 4},
        {"proof", 36, 0, 1},
        {"proof", 44, 96, 97},
        {"proof", 44, 96, 1u << 31},
        {"verdict", 0, 0, 2},
        {"verdict", 4, 10, 257},
        {"verdict", 8, 8, 16385},
        {"verdict", 12, 0, 1},
        {"error", 0, 5, 6},
        {"error", 0, 1, 0},
        {"error", 4, 24, 257},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf bytes;
        copy_of(&bytes, example(cases[i].name));
        if (strcmp(cases[i].name, "challenge-chain") == 0 && cases[i].good == 16)
            put_u32(&bytes, PROBE_FRAME_HEAD + 64, 16384);
        put_u32(&bytes, PROBE_FRAME_HEAD + cases[i].at, cases[i].good);
        if (!decodes(buf_str(&bytes)))
            fail_msg("%s: %u at %zu is refused", cases[i].name, cases[i].good, cases[i].at);
        put_u32(&bytes, PROBE_FRAME_HEAD + cases[i].at, cases[i].bad);
        if (decodes(buf_str(&bytes)))
            fail_msg("%s: %u at %zu is taken", cases[i].name, cases[i].bad, cases[i].at);
        buf_free(&bytes);
    }
}

static void a_row_of_chain_is_bounded(void **state)
{
    struct buf bytes;
    (void)state;
    copy_of(&bytes, example("challenge-chain"));
    put_u32(&bytes, PROBE_FRAME_HEAD + 64, 32768);
    put_u32(&bytes, PROBE_FRAME_HEAD + 68, 8);
    assert_true(decodes(buf_str(&bytes)));
    put_u32(&bytes, PROBE_FRAME_HEAD + 68, 9);
    assert_false(decodes(buf_str(&bytes)));
    buf_free(&bytes);
}

static void texts_are_printable(void **state)
{
    static const struct {
        const char *name;
        size_t at;
        char bad;
    } cases[] = {
        {"hello", 136, '\x1f'}, {"hello", 136, '\x7f'},    {"hello", 136 + 20, 'x'}, /* after the end of the name */
        {"hello", 136, '\xc3'}, {"hello", 136 + 64, '\n'}, {"hello", 136 + 95, 'x'}, {"verdict", 17, '\n'},
        {"verdict", 26, '\r'},  {"verdict", 26, '\x00'},   {"error", 8, '\t'},       {"error", 31, '\x80'},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf bytes;
        copy_of(&bytes, example(cases[i].name));
        char *at = bytes.ptr + PROBE_FRAME_HEAD + cases[i].at;
        *at = cases[i].bad;
        if (decodes(buf_str(&bytes)))
            fail_msg("%s: byte %d at %zu is taken", cases[i].name, cases[i].bad, cases[i].at);
        buf_free(&bytes);
    }
}

static void open_ended_frames_keep_to_their_sizes(void **state)
{
    static const struct {
        enum probe_frame_type type;
        size_t least, most; /* of the payload, with the id */
    } cases[] = {{PROBE_NET, 17, 16 + PROBE_NET_MAX}, {PROBE_BIND, 16 + 49, 16 + PROBE_SEALED_MAX}};
    struct buf bytes;
    (void)state;
    buf_init(&bytes, PROBE_FRAME_MAX + 1024);
    assert_true(buf_reserve(&bytes, PROBE_FRAME_MAX + 512));
    memset(bytes.ptr, 0, PROBE_FRAME_MAX + 512);
    for (size_t i = 0; i < 2; i++) {
        memcpy(bytes.ptr, "SL\x01", 3);
        bytes.ptr[3] = (char)cases[i].type;
        for (int past = -1; past <= 1; past++) {
            size_t least = cases[i].least - (size_t)(past < 0), most = cases[i].most + (size_t)(past > 0);
            put_u32(&bytes, 4, (uint32_t)least);
            assert_int_equal(decodes((struct str){bytes.ptr, PROBE_FRAME_HEAD + least}), past >= 0);
            put_u32(&bytes, 4, (uint32_t)most);
            assert_int_equal(decodes((struct str){bytes.ptr, PROBE_FRAME_HEAD + most}), past <= 0);
        }
    }
    buf_free(&bytes);
}

static void too_large_a_proof_is_not_written(void **state)
{
    static struct probe_frame frame;
    static char row[PROBE_CHAIN_ROW_MAX];
    struct buf bytes;
    (void)state;
    frame.type = PROBE_PROOF;
    frame.of.proof.count = 4;
    for (unsigned i = 0; i < 4; i++)
        frame.of.proof.items[i] = (struct probe_item){{i, 0}, {row, sizeof(row)}, {"", 0}};
    buf_init(&bytes, 4 * PROBE_FRAME_MAX);
    assert_true(buf_append(&bytes, "before", 6));
    assert_false(probe_frame_encode(&frame, &bytes));
    assert_int_equal(bytes.len, 6);
    frame.of.proof.count = 3;
    assert_true(probe_frame_encode(&frame, &bytes));
    assert_true(decodes((struct str){bytes.ptr + 6, bytes.len - 6}));
    buf_free(&bytes);
    buf_init(&bytes, 100); /* no room */
    assert_true(buf_append(&bytes, "before", 6));
    assert_false(probe_frame_encode(&frame, &bytes));
    assert_int_equal(bytes.len, 6);
    buf_free(&bytes);
}

static void failure_leaves_the_result(void **state)
{
    static struct probe_frame frame;
    (void)state;
    frame.type = PROBE_ACK;
    frame.of.ping.nonce[3] = 77;
    assert_int_equal(probe_frame_decode(STR("SL"), &frame), ERR_PROTOCOL);
    assert_int_equal(probe_frame_decode((struct str){example("hello")->ptr, 200}, &frame), ERR_PROTOCOL);
    assert_int_equal(frame.type, PROBE_ACK);
    assert_int_equal(frame.of.ping.nonce[3], 77);
}

static void signed_part_ends_before_the_signature(void **state)
{
    (void)state;
    struct str part = probe_signed_part(buf_str(example("hello")));
    assert_ptr_equal(part.ptr, example("hello")->ptr);
    assert_int_equal(part.len, example("hello")->len - 64);
    assert_int_equal(part.ptr[part.len], 5); /* the example's first byte of signature */
}

static void words_are_little_endian(void **state)
{
    static const uint8_t raw[8] = {1, 2, 3, 4, 0xff, 0, 0, 0x80};
    uint32_t words[2];
    uint8_t back[8];
    (void)state;
    probe_words_of_bytes(raw, 2, words);
    assert_int_equal(words[0], 0x04030201);
    assert_int_equal(words[1], 0x800000ff);
    probe_bytes_of_words(words, 2, back);
    assert_memory_equal(back, raw, 8);
}

static void names_of_kinds(void **state)
{
    (void)state;
    assert_string_equal(probe_kind_name(PROBE_KIND_FILL), "fill");
    assert_string_equal(probe_kind_name(PROBE_KIND_CHAIN), "chain");
    assert_string_equal(probe_kind_name(PROBE_KIND_PASS), "pass");
    assert_string_equal(probe_kind_name(PROBE_KIND_WALK), "walk");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_example_comes_back),
        cmocka_unit_test(known_bytes),
        cmocka_unit_test(known_frames_by_hand),
        cmocka_unit_test(fields_survive),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(changed_bits_are_refused_or_canonical),
        cmocka_unit_test(limits),
        cmocka_unit_test(a_row_of_chain_is_bounded),
        cmocka_unit_test(texts_are_printable),
        cmocka_unit_test(open_ended_frames_keep_to_their_sizes),
        cmocka_unit_test(too_large_a_proof_is_not_written),
        cmocka_unit_test(failure_leaves_the_result),
        cmocka_unit_test(signed_part_ends_before_the_signature),
        cmocka_unit_test(words_are_little_endian),
        cmocka_unit_test(names_of_kinds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
