/* What Nosana offers: a market is a kind of machine with its price for all.
 *
 * UNCONFIRMED, here and nowhere else: how many GPUs a market has is in its name ("8x"); without, one. */
#include "adapters/nosana.h"

#include "adapters/shorthand.h"
#include <stdio.h>

#define GPU_NAME_MAX 96

/* reward x (100 + fee) / 100, exactly; up to the last of 18 digits where it has more. */
static struct str user_price(struct adapter_call *call, const json_t *market)
{
    uint64_t reward, fee = 0;
    uint32_t reward_scale, fee_scale = 0;
    struct str fee_text = json_decimal_at(call, market, "network_fee_percentage");
    if (!price_decimal(json_decimal_at(call, market, "usd_reward_per_hour"), &reward, &reward_scale) || !reward)
        return (struct str){0};
    if (fee_text.len && (!price_decimal(fee_text, &fee, &fee_scale) || fee_scale > 6 || fee > 1000000000))
        return (struct str){0};
    uint64_t factor = 100;
    for (uint32_t i = 0; i < fee_scale; i++)
        factor *= 10;
    unsigned __int128 digits = (unsigned __int128)reward * (factor + fee);
    uint32_t scale = reward_scale + fee_scale + 2;
    for (; scale && (digits % 10 == 0 || digits >= 1000000000000000000u); scale--)
        digits = (digits + 9) / 10;
    char text[64];
    size_t at = sizeof text;
    for (uint32_t i = 0; (digits || i <= scale) && at > 1; i++, digits /= 10) {
        text[--at] = (char)('0' + (int)(digits % 10));
        if (i + 1 == scale)
            text[--at] = '.';
    }
    return adapter_text(call, "%.*s", (int)(sizeof text - at), text + at);
}

/* "NVIDIA 8x A5000": 8, and the name without it. */
static uint32_t gpu_count(struct str name, char *without, size_t size)
{
    uint32_t count = 1;
    size_t at = 0;
    without[0] = '\0';
    for (struct str rest = name, word; (word = str_next(&rest, ' ')).ptr;) {
        int64_t n;
        if (word.len >= 2 && word.len <= 3 && (word.ptr[word.len - 1] | 0x20) == 'x' &&
            str_to_i64((struct str){word.ptr, word.len - 1}, &n) && n >= 1 && n <= 16) {
            count = (uint32_t)n;
            continue;
        }
        int put = snprintf(without + at, size - at, "%s" STR_FMT, at ? " " : "", STR_ARG(word));
        if (put < 0 || (size_t)put >= size - at)
            break;
        at += (size_t)put;
    }
    return count;
}

static struct str name_of(const json_t *market)
{
    struct str name = json_text_at(market, "name");
    return name.len ? name : json_text_at(market, "slug");
}

/* Of all its GPUs. No amount where credits do not run, or the reward is null. */
static struct price_terms price_read(struct adapter_call *call, const json_t *market, uint32_t gpus)
{
    bool is_ours = str_eq(json_text_at(market, "type"), STR("PREMIUM"));
    return (struct price_terms){.amount = is_ours ? user_price(call, market) : (struct str){0},
                                .currency = STR("USD"),
                                .per = PRICE_PER_MACHINE_HOUR,
                                .gpus = gpus};
}

struct price_terms nosana_price(struct adapter_call *call, const json_t *market)
{
    char gpu[GPU_NAME_MAX];
    return price_read(call, market, gpu_count(name_of(market), gpu, sizeof gpu));
}

const json_t *nosana_market(const json_t *markets, struct str address)
{
    for (size_t i = 0; i < json_array_size(markets) && i < NOSANA_ROWS_MAX; i++)
        if (str_eq(json_text_at(json_array_get(markets, i), "address"), address))
            return json_array_get(markets, i);
    return NULL;
}

/* [{"key": "vram", "value": "32 GB"}] */
static uint64_t vram_bytes(const json_t *market)
{
    const json_t *rows = json_at(market, "metadata");
    for (size_t i = 0; i < json_array_size(rows) && i < 64; i++) {
        const json_t *row = json_array_get(rows, i);
        struct str value = json_text_at(row, "value"), number = str_next(&value, ' ');
        int64_t gib;
        if (str_eq_nocase(json_text_at(row, "key"), STR("vram")) && str_to_i64(number, &gib) && gib > 0 && gib < 4096)
            return (uint64_t)gib << 30;
    }
    return 0;
}

static void on_markets(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct offer_batch batch = {.call = call};
    if (!adapter_is_good(answer) || !json_is_array(answer->json)) {
        adapter_fail_odd(call, answer, STR("the list of markets is none"));
        return;
    }
    for (size_t i = 0; i < json_array_size(answer->json) && i < NOSANA_ROWS_MAX; i++) {
        const json_t *market = json_array_get(answer->json, i);
        char gpu[GPU_NAME_MAX];
        struct adapter_offer offer = {.id = json_text_at(market, "address"), .is_priced = true, .reliability = -1};
        offer.gpus = gpu_count(name_of(market), gpu, sizeof gpu);
        offer.terms = price_read(call, market, offer.gpus);
        offer.zone = offer.id;
        offer.vram_bytes = vram_bytes(market);
        offer.gpu_raw = adapter_text(call, "%s", gpu);
        if (offer.terms.amount.ptr)
            offer_batch_put(&batch, &offer);
    }
    offer_batch_end(&batch);
    adapter_done(call, NULL);
}

void nosana_offers(struct adapter_call *call)
{
    adapter_get(call, STR("/markets"), on_markets);
}
