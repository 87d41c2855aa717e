#include "tests/unit/cmocka_all.h"

#include "gateway/offer_table.h"

#include <string.h>

static struct network_offer some_offer(void)
{
    return (struct network_offer){.id = STR("ask:7/\"x\""),
                                  .gpu_raw = STR("RTX 4090"),
                                  .region = STR("Malmö, SE"),
                                  .country = STR("SE"),
                                  .zone = STR("z"),
                                  .machine = STR("ip:203.0.113.7"),
                                  .origin = STR("host-1"),
                                  .tags = STR("gdpr"),
                                  .terms = STR("{\"amount\":\"0.3\"}"),
                                  .gpu = "nvidia/rtx4090-24",
                                  .interruptible = true,
                                  .is_arm = true,
                                  .gpus = 4,
                                  .fraction_ppm = 1000000,
                                  .available = 3,
                                  .vram_bytes = UINT64_C(24) << 30,
                                  .price_usd_nano = 336700001,
                                  .reliability = 0.9871,
                                  .span_min_s = 3600,
                                  .span_max_s = 7200};
}

static void ids(void **state)
{
    (void)state;
    struct offer_digest a = offer_digest_of(STR("vast"), STR("7")), b = offer_digest_of(STR("vast"), STR("8")), c;
    char hex[OFFER_DIGEST_HEX], shown[OFFER_SHOWN_MAX];
    assert_memory_not_equal(&a, &b, sizeof(a));
    b = offer_digest_of(STR("vas"), STR("t7"));
    assert_memory_not_equal(&a, &b, sizeof(a));
    offer_digest_hex(&a, hex);
    assert_true(offer_digest_parse(str_of(hex), &c));
    assert_memory_equal(&a, &c, sizeof(a));
    offer_shown_id(&a, shown);
    assert_int_equal(strlen(shown), sizeof(shown) - 1);
    memset(&c, 0, sizeof(c));
    assert_true(offer_shown_parse(str_of(shown), &c));
    assert_memory_equal(&a, &c, sizeof(a));
    shown[5] = 'g';
    assert_false(offer_shown_parse(str_of(shown), &c));
    assert_false(offer_shown_parse(STR("off_"), &c));
    assert_false(offer_shown_parse(str_of(hex), &c));
}

/* -- records -- */

struct got {
    struct offer_table *table;
    struct offer_digest digest;
    enum offer_put put;
};

static void take(void *ctx, const struct network_offer *offer)
{
    struct got *got = ctx;
    got->put = offer_table_put(got->table, &got->digest, offer);
}

static void records(void **state)
{
    (void)state;
    struct offer_table table;
    struct network_offer offer = some_offer();
    struct got got = {.table = &table, .digest = offer_digest_of(STR("a"), offer.id)};
    struct buf text;
    offer_table_init(&table);
    buf_init(&text, 0);
    assert_int_equal(offer_table_put(&table, &got.digest, &offer), OFFER_CHANGED);
    assert_true(offer_record_write(&offer, &text));
    assert_true(offer_record_read(buf_str(&text), take, &got));
    assert_int_equal(got.put, OFFER_SAME);                                        /* all of it came through */
    offer = (struct network_offer){.id = STR("x"), .gpus = 1, .reliability = -1}; /* the least that one tells */
    buf_clear(&text);
    assert_true(offer_record_write(&offer, &text));
    assert_true(offer_record_read(buf_str(&text), take, &got));
    assert_int_equal(got.put, OFFER_CHANGED);
    assert_int_equal(table.count, 1);
    offer.region = STR("\xff");
    assert_false(offer_record_write(&offer, &text));
    for (size_t i = 0; i < text.len; i++) { /* nothing that is cut short is a record */
        assert_false(offer_record_read((struct str){text.ptr, i}, take, &got));
    }
    static const char *const bad[] = {"[]", "{\"id\":5}", "null"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(offer_record_read(str_of(bad[i]), take, &got));
    buf_free(&text);
    offer_table_free(&table);
}

static void changes_are_seen(void **state)
{
    (void)state;
    struct offer_table table;
    struct network_offer offer = some_offer();
    struct offer_digest digest = offer_digest_of(STR("a"), offer.id);
    offer_table_init(&table);
    assert_int_equal(offer_table_put(&table, &digest, &offer), OFFER_CHANGED);
    assert_int_equal(offer_table_put(&table, &digest, &offer), OFFER_SAME);
#define CHANGED(field, value)                                                  \
    offer.field = (value);                                                     \
    assert_int_equal(offer_table_put(&table, &digest, &offer), OFFER_CHANGED); \
    assert_int_equal(offer_table_put(&table, &digest, &offer), OFFER_SAME)
    CHANGED(price_usd_nano, 1);
    CHANGED(available, 0);
    CHANGED(gpus, 8);
    CHANGED(interruptible, false);
    CHANGED(is_slice, true);
    CHANGED(is_estimate, true);
    CHANGED(is_arm, false);
    CHANGED(fraction_ppm, 5);
    CHANGED(vram_bytes, 9);
    CHANGED(reliability, -1);
    CHANGED(span_min_s, 1);
    CHANGED(span_max_s, 2);
    CHANGED(terms, STR("{}"));
    CHANGED(machine, STR(""));
    CHANGED(zone, STR("zone"));
    CHANGED(tags, STR("soc2"));
    CHANGED(gpu_raw, STR("rtx 4090"));
    strcpy(offer.gpu, "");
    assert_int_equal(offer_table_put(&table, &digest, &offer), OFFER_CHANGED);
    assert_int_equal(table.count, 1);
    offer_table_free(&table);
}

/* -- against a plain set -- */

#define IDS 600

static bool gone[IDS];

static struct offer_digest digest_at(size_t i)
{
    char id[16];
    snprintf(id, sizeof(id), "%zu", i);
    return offer_digest_of(STR("n"), str_of(id));
}

static void on_gone(void *ctx, const struct offer_digest *digest)
{
    (*(size_t *)ctx)++;
    for (size_t i = 0; i < IDS; i++) {
        struct offer_digest here = digest_at(i);
        if (memcmp(&here, digest, sizeof(here)) == 0)
            gone[i] = true;
    }
}

static void random_rounds(void **state)
{
    (void)state;
    struct offer_table table;
    bool there[IDS] = {false};
    uint64_t random = 7;
    offer_table_init(&table);
    for (int round = 0; round < 12; round++) {
        size_t count = 0, swept = 0, seen = 0, at = 0, expected = 0;
        bool put[IDS] = {false};
        table.round++;
        for (size_t i = 0; i < IDS; i++) {
            struct offer_digest digest = digest_at(i);
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
            unsigned what = (unsigned)(random >> 60);
            if (what < 9) {
                struct network_offer offer = {.id = STR("x"), .gpus = 1, .price_usd_nano = (int64_t)i};
                assert_int_equal(offer_table_put(&table, &digest, &offer), there[i] ? OFFER_SAME : OFFER_CHANGED);
                put[i] = there[i] = true;
            } else if (what < 11) {
                offer_table_remove(&table, &digest);
                there[i] = false;
            }
        }
        memset(gone, 0, sizeof(gone));
        for (size_t i = 0; i < IDS; i++) {
            expected += there[i] && !put[i];
            count += put[i] && there[i];
        }
        offer_table_sweep(&table, on_gone, &swept);
        assert_int_equal(swept, expected);
        assert_int_equal(table.count, count);
        for (size_t i = 0; i < IDS; i++) {
            struct offer_digest digest = digest_at(i);
            assert_int_equal(gone[i], there[i] && !put[i]);
            there[i] = there[i] && put[i];
            struct offer_entry *entry = offer_table_find(&table, &digest);
            assert_int_equal(entry != NULL, there[i]);
            assert_true(!entry || entry->of.price_usd_nano == (int64_t)i);
        }
        while (offer_table_next(&table, &at))
            seen++;
        assert_int_equal(seen, count);
    }
    offer_table_free(&table);
    struct offer_digest digest = digest_at(0);
    assert_null(offer_table_find(&table, &digest));
    offer_table_remove(&table, &digest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),
        cmocka_unit_test(records),
        cmocka_unit_test(changes_are_seen),
        cmocka_unit_test(random_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
