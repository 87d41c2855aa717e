/* The weights that a caller gives to price, latency and reputation. */
#include "scheduler/dispatch.h"

#define WEIGHT_MAX 1e6

static const struct {
    struct str name;
    struct weights weights;
} presets[] = {
    {{"price", 5}, {1, 0, 0}},
    {{"latency", 7}, {0, 1, 0}},
    {{"reputation", 10}, {0, 0, 1}},
    /* Reputation counts least: a bound grows with experience, and newcomers must get calls to earn theirs. */
    {{"balanced", 8}, {0.5, 0.4, 0.1}},
};

struct weights weights_default(void)
{
    return presets[3].weights;
}

bool weights_parse(struct str text, struct weights *ret)
{
    struct weights weights = {0, 0, 0};
    double *const fields[] = {&weights.price, &weights.latency, &weights.reputation};
    bool given[3] = {false, false, false};
    text = str_trim(text);
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (str_eq(text, presets[i].name)) {
            *ret = presets[i].weights;
            return true;
        }
    }
    while (text.ptr) {
        struct str value = str_next(&text, ',');
        struct str name = str_trim(str_next(&value, '='));
        size_t at = 0;
        while (at < 3 && !str_eq(name, presets[at].name))
            at++;
        if (at == 3 || given[at] || !value.ptr || !str_to_double(str_trim(value), fields[at]))
            return false;
        given[at] = true;
        if (!(*fields[at] >= 0 && *fields[at] <= WEIGHT_MAX))
            return false;
    }
    double sum = weights.price + weights.latency + weights.reputation;
    if (!(sum > 0))
        return false;
    *ret = (struct weights){weights.price / sum, weights.latency / sum, weights.reputation / sum};
    return true;
}
