/* Whatever a network asks: an amount that money_parse takes is the same money, more GPUs never cost more each, and all
 * of them together never less than what is asked. */
#include "tests/fuzz/fuzz.h"

#include "core/money.h"
#include "pricing/price_terms.h"

#include <string.h>

static void check_parts(struct price_terms terms, const struct rates *rates, int64_t whole)
{
    int64_t part;
    terms.per = PRICE_PER_MACHINE_HOUR;
    if (terms.gpus == 0 || terms.gpus > PRICE_GPUS_MAX)
        return;
    CHECK(price_terms_usd(&terms, rates, 0, &part) == ERR_NONE);
    __int128 paid = (__int128)part * terms.gpus;
    CHECK(part <= whole && paid >= (__int128)whole - terms.gpus && paid < (__int128)whole + terms.gpus);
}

static void check_json(struct str text, const struct rates *rates)
{
    char amount[PRICE_AMOUNT_MAX];
    json_t *value = json_loadb(text.ptr, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (value && price_amount_of_json(value, amount)) {
        struct price_terms terms = {.amount = str_of(amount), .currency = STR("USD")};
        int64_t usd;
        enum error failed = price_terms_usd(&terms, rates, 0, &usd);
        double again;
        CHECK(failed == ERR_NONE || failed == ERR_OVERFLOW);
        CHECK(!json_is_real(value) || (str_to_double(terms.amount, &again) && again == json_real_value(value)));
    }
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const currencies[] = {"USD", "USDC", "uact", "uakt", "AKT", "cents", "X", "EUR"};
    struct rates rates;
    struct price_terms terms = {.currency = STR("USD")};
    int64_t usd, same;
    rates_init(&rates, 0);
    uint8_t which = fuzz_byte(&data, &size);
    terms.gpus = (uint32_t)fuzz_byte(&data, &size) << 8 | fuzz_byte(&data, &size);
    terms.span_s = (int64_t)fuzz_byte(&data, &size) << (which & 31);
    terms.block_ms = (int64_t)fuzz_byte(&data, &size) << (which & 31);
    size_t cut = fuzz_cut(&data, &size, size);
    cut = cut > size ? size : cut;
    terms.amount = (struct str){(const char *)data, cut};
    check_json((struct str){(const char *)data, size}, &rates);
    if (price_terms_usd(&terms, &rates, 0, &usd) == ERR_NONE) {
        CHECK(usd >= 0);
        CHECK(!money_parse(terms.amount, &same) || same == usd);
        check_parts(terms, &rates, usd);
    }
    enum error set = rates_set(&rates, STR("AKT"), (struct str){(const char *)data + cut, size - cut}, STR("x"), 0);
    CHECK(set == ERR_NONE || set == ERR_BAD_INPUT);
    for (size_t i = 0; i < sizeof(currencies) / sizeof(currencies[0]); i++) {
        terms.currency = str_of(currencies[i]);
        terms.per = (enum price_per)(which % (PRICE_PER_COUNT + 1));
        enum error failed = price_terms_usd(&terms, &rates, 0, &usd);
        CHECK(failed == ERR_NONE || failed == ERR_BAD_INPUT || failed == ERR_OVERFLOW || failed == ERR_NOT_FOUND);
    }
    return 0;
}
