/* An offer's record and a breaker's text as Redis might give them back after anybody has written to it. What is read is
 * within its limits and reads back the same. */
#include "tests/fuzz/fuzz.h"

#include "gateway/breaker.h"
#include "gateway/offer_table.h"

#include <stdlib.h>
#include <string.h>

struct got {
    struct offer_table table;
    struct offer_digest digest;
    size_t count;
    enum offer_put put;
    struct buf again;
};

static void take(void *ctx, const struct network_offer *offer)
{
    struct got *got = ctx;
    CHECK(offer->id.len > 0 && offer->id.len < SUPPLY_ID_MAX && offer->gpus > 0 && offer->price_usd_nano >= 0);
    CHECK(memchr(offer->gpu, 0, sizeof(offer->gpu)));
    got->put = offer_table_put(&got->table, &got->digest, offer);
    if (got->count++ == 0)
        CHECK(offer_record_write(offer, &got->again));
}

/* A whole record with the input's members in place of its own. */
static char *spliced(struct str text)
{
    json_t *given = json_loadb(text.ptr, text.len, JSON_DECODE_ANY, NULL);
    json_t *record = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:f,s:i,s:i,s:i}", "id",
                               "i", "gpu", "cpu", "raw", "r", "region", "", "country", "", "zone", "", "machine", "",
                               "origin", "", "tags", "", "terms", "{}", "gpus", 1, "fraction", 1000000, "available", 0,
                               "vram", 0, "price", 5, "reliability", 0.5, "span_min", 0, "span_max", 0, "is", 3);
    if (json_is_object(given))
        CHECK(json_object_update(record, given) == 0);
    char *whole = json_dumps(record, JSON_COMPACT);
    CHECK(whole);
    json_decref(given);
    json_decref(record);
    return whole;
}

static void read_record(struct str text)
{
    struct got got = {.digest = offer_digest_of(STR("n"), STR("x"))};
    offer_table_init(&got.table);
    buf_init(&got.again, 0);
    if (offer_record_read(text, take, &got)) {
        CHECK(got.put == OFFER_CHANGED && got.table.count == 1);
        CHECK(offer_record_read(buf_str(&got.again), take, &got));
        CHECK(got.put == OFFER_SAME);
    }
    offer_table_free(&got.table);
    buf_free(&got.again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct breaker breaker, same;
    char said[BREAKER_TEXT_MAX], *whole = spliced(text);
    read_record(text);
    read_record(str_of(whole));
    free(whole);
    if (breaker_parse(text, &breaker)) {
        breaker_text(&breaker, said);
        CHECK(breaker_parse(str_of(said), &same));
        CHECK(same.state == breaker.state && same.until_ms == breaker.until_ms && same.reason == breaker.reason);
    }
    struct offer_digest digest;
    if (offer_shown_parse(text, &digest))
        CHECK(text.len == OFFER_SHOWN_MAX - 1);
    return 0;
}
