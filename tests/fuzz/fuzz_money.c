/* Texts that parse print and parse to the same amount; costs are the nearest whole nano-dollar. */
#include "tests/fuzz/fuzz.h"

#include "core/money.h"

#include <string.h>

static void check_cost(int64_t price, int64_t gpu_ms)
{
    int64_t cost;
    if (!money_cost(price, gpu_ms, &cost))
        return;
    __int128 off = (__int128)cost * 3600000 - (__int128)price * gpu_ms;
    CHECK(cost >= 0 && off * 2 <= 3600000 && off * 2 >= -3600000);
    CHECK((off * 2 != 3600000 && off * 2 != -3600000) || cost % 2 == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t amount, again, numbers[2];
    char text[MONEY_TEXT_MAX];
    double ignored;
    struct str source = {(const char *)data, size};
    if (money_parse(source, &amount)) {
        CHECK(amount >= 0 && size <= 20);
        money_text(amount, text);
        CHECK(money_parse(str_of(text), &again) && again == amount);
        CHECK(str_to_double(source, &ignored));
    }
    if (size < sizeof(numbers))
        return 0;
    memcpy(numbers, data, sizeof(numbers));
    check_cost(numbers[0], numbers[1]);
    if (numbers[0] > INT64_MIN) {
        money_text(numbers[0] < 0 ? -numbers[0] : numbers[0], text);
        CHECK(money_parse(str_of(text), &again) && again == (numbers[0] < 0 ? -numbers[0] : numbers[0]));
    }
    return 0;
}
