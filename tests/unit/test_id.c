#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/crypto.h"
#include "core/id.h"

#include <string.h>

static void known_text(void **state)
{
    (void)state;
    struct id id, back;
    char text[ID_TEXT_MAX];
    memset(&id, 0xff, sizeof(id));
    id_text("wrk_", &id, text);
    assert_string_equal(text, "wrk_7zzzzzzzzzzzzzzzzzzzzzzzzz");
    memset(&id, 0, sizeof(id));
    id.bytes[15] = 33;
    id_text("", &id, text);
    assert_string_equal(text, "00000000000000000000000011");
    assert_true(id_parse("", str_of(text), &back));
    assert_memory_equal(&id, &back, sizeof(id));
}

static void in_order(void **state)
{
    (void)state;
    char last[ID_TEXT_MAX] = "", text[ID_TEXT_MAX];
    int64_t before = clock_wall_ms();
    for (int i = 0; i < 10000; i++) {
        struct id id = id_make(), back;
        id_text("key_", &id, text);
        assert_true(strcmp(last, text) < 0);
        strncpy(last, text, sizeof(last));
        assert_true(id_parse("key_", str_of(text), &back));
        assert_memory_equal(&id, &back, sizeof(id));
    }
    struct id id = id_make();
    int64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id.bytes[i];
    assert_in_range(ms, before, clock_wall_ms());
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "wrk_",
        "key_00000000000000000000000000",
        "wrk_0000000000000000000000000",
        "wrk_000000000000000000000000000",
        "wrk_80000000000000000000000000",
        "wrk_0000000000000000000000000u",
        "wrk_0000000000000000000000000A",
    };
    struct id id;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(id_parse("wrk_", str_of(bad[i]), &id));
    char nul[] = "wrk_0000000000000000000000000\0";
    assert_false(id_parse("wrk_", (struct str){nul, 30}, &id));
}

static void hashes(void **state)
{
    (void)state;
    char hex[SHA256_HEX];
    crypto_sha256_hex(STR("abc"), hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256_hex((struct str){NULL, 0}, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    uint8_t digest[SHA256_BYTES], back[SHA256_BYTES];
    crypto_sha256(STR("abc"), digest);
    crypto_hex(digest, sizeof(digest), hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(crypto_unhex(str_of(hex), back, sizeof(back)));
    assert_memory_equal(digest, back, sizeof(digest));
    assert_false(crypto_unhex(STR("0g"), back, 1));
    assert_false(crypto_unhex(STR("000"), back, 1));
}

static void secrets(void **state)
{
    (void)state;
    char a[SECRET_TEXT_MAX], b[SECRET_TEXT_MAX];
    crypto_secret("sk-sluice-", a);
    crypto_secret("sk-sluice-", b);
    assert_int_equal(strlen(a), 53);
    assert_int_equal(strspn(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 53);
    assert_string_not_equal(a, b);
    assert_true(crypto_str_equal(str_of(a), str_of(a)));
    assert_false(crypto_str_equal(str_of(a), str_of(b)));
    assert_false(crypto_str_equal(STR("a"), STR("ab")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_text), cmocka_unit_test(in_order), cmocka_unit_test(refused),
        cmocka_unit_test(hashes),     cmocka_unit_test(secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
