/* Offers of Akash: models and statistics of their prices, and the countries where a provider that is online has them.
 * Each model is offered anywhere, where most will bid, and in each country, where create looks at who bids from where.
 */
#include "adapters/akash_priv.h"

#include <inttypes.h>
#include <string.h>

#define ROWS_MAX 4096
#define MODELS_MAX 100 /* of a provider */
#define PLACES_MAX 512
#define SIZES 4 /* of offers: 1, 2, 4, 8 GPUs */

/* A model in a country: at least one provider that is online has it. */
struct place {
    struct str vendor, model, ram, interface; /* texts of the call */
    char country[3];
    double uptime;
};
struct places {
    size_t count;
    struct place rows[PLACES_MAX];
};

/* Words that go into ids and SDL. */
bool akash_is_word(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.'))
            return false;
    }
    return true;
}

static bool gpu_read(const json_t *row, struct place *ret)
{
    *ret = (struct place){json_text_at(row, "vendor"),
                          json_text_at(row, "model"),
                          json_text_at(row, "ram"),
                          json_text_at(row, "interface"),
                          "",
                          -1};
    return ret->vendor.len && ret->model.len &&
           ret->vendor.len + ret->model.len + ret->ram.len + ret->interface.len < 100 && akash_is_word(ret->vendor) &&
           akash_is_word(ret->model) && akash_is_word(ret->ram) && akash_is_word(ret->interface);
}

static struct str without_gi(struct str ram)
{
    return str_ends(ram, STR("Gi")) ? (struct str){ram.ptr, ram.len - 2} : ram;
}

static bool is_same_gpu(const struct place *a, const struct place *b)
{
    return str_eq_nocase(a->vendor, b->vendor) && str_eq_nocase(a->model, b->model) &&
           str_eq_nocase(without_gi(a->ram), without_gi(b->ram)) && str_eq_nocase(a->interface, b->interface);
}

static void place_note(struct adapter_call *call, struct places *places, const struct place *gpu)
{
    for (size_t i = 0; i < places->count; i++) {
        struct place *row = &places->rows[i];
        if (is_same_gpu(row, gpu) && !memcmp(row->country, gpu->country, sizeof(row->country))) {
            row->uptime = gpu->uptime > row->uptime ? gpu->uptime : row->uptime;
            return;
        }
    }
    if (places->count == PLACES_MAX)
        return;
    struct place *row = &places->rows[places->count];
    *row = *gpu;
    row->vendor = adapter_text(call, STR_FMT, STR_ARG(gpu->vendor));
    row->model = adapter_text(call, STR_FMT, STR_ARG(gpu->model));
    row->ram = adapter_text(call, STR_FMT, STR_ARG(gpu->ram));
    row->interface = adapter_text(call, STR_FMT, STR_ARG(gpu->interface));
    places->count += row->interface.ptr != NULL;
}

bool akash_country_of(const json_t *provider, char ret[static 3])
{
    struct str code = json_text_at(provider, "ipCountryCode");
    return code.len == 2 && akash_is_word(code) && str_copy(ret, 3, code);
}

/* The statistic that estimates, of one GPU: nano-USD an hour; -1: none. That of the middle bid by default: the cheapest
 * one, which create takes, is rarely above it. */
static int64_t price_of(struct adapter_call *call, const json_t *model)
{
    const struct akash *akash = network_state(call_network(call));
    struct price_terms terms = {.currency = STR("USD"), .per = PRICE_PER_GPU_HOUR};
    struct str path = adapter_text(call, "price.%s", akash->estimate);
    int64_t usd_nano = -1;
    if (path.ptr)
        terms.amount = json_decimal_at(call, model, path.ptr);
    return adapter_worth(call, &terms, &usd_nano) == ERR_NONE && usd_nano > 0 ? usd_nano : -1;
}

/* In the unit that bids and caps have, whole and rounded up: who bids just the estimate is within it. */
static struct price_terms terms_of(struct adapter_call *call, int64_t usd_nano, uint32_t gpus)
{
    __int128 unit = BLOCKS_PER_HOUR * NANO_PER_MICRO, uact = ((__int128)usd_nano * gpus + unit - 1) / unit;
    return (struct price_terms){.amount = adapter_text(call, "%" PRId64, (int64_t)uact),
                                .currency = STR("uact"),
                                .per = PRICE_PER_BLOCK,
                                .gpus = gpus,
                                .block_ms = BLOCK_MS,
                                .is_estimate = true};
}

static void model_offer(struct adapter_call *call, const json_t *model, const struct place *gpu,
                        const struct place *place)
{
    int64_t free_gpus = json_count_at(model, "availability.available");
    int64_t price = price_of(call, model);
    struct str country = str_of(place ? place->country : "");
    struct adapter_offer offers[SIZES];
    size_t count = 0;
    for (uint32_t gpus = 1; gpus < 1u << SIZES && price > 0 && gpus <= free_gpus; gpus *= 2) {
        offers[count] = (struct adapter_offer){
            .id = adapter_text(call, STR_FMT "/" STR_FMT "/" STR_FMT "/" STR_FMT "/%" PRIu32 "/" STR_FMT,
                               STR_ARG(gpu->vendor), STR_ARG(gpu->model), STR_ARG(gpu->ram), STR_ARG(gpu->interface),
                               gpus, STR_ARG(country)),
            .gpu_raw =
                adapter_text(call, "vendor/" STR_FMT "/model/" STR_FMT "/ram/" STR_FMT "/interface/" STR_FMT,
                             STR_ARG(gpu->vendor), STR_ARG(gpu->model), STR_ARG(gpu->ram), STR_ARG(gpu->interface)),
            .gpu_form = gpu->interface,
            .gpus = gpus,
            .available = place ? 0 : (uint32_t)(free_gpus > 100000 ? 100000 : free_gpus) / gpus,
            .region = country.len ? country : STR("any"),
            .country = country,
            .terms = terms_of(call, price, gpus),
            .is_priced = true,
            .reliability = place ? place->uptime : -1,
        };
        count += offers[count].id.len && offers[count].gpu_raw.len;
    }
    adapter_offers(call, offers, count);
}

static void offers_on_prices(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct places *places = adapter_memory(call, sizeof(*places));
    const json_t *models = json_at(answer->json, "models"), *model = NULL;
    size_t i = 0;
    if (!json_is_array(models)) {
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its answer has no models"));
        return;
    }
    json_array_foreach(models, i, model)
    {
        struct place gpu;
        if (i == ROWS_MAX || !gpu_read(model, &gpu))
            continue;
        model_offer(call, model, &gpu, NULL);
        for (size_t j = 0; j < places->count; j++) {
            if (is_same_gpu(&places->rows[j], &gpu))
                model_offer(call, model, &gpu, &places->rows[j]);
        }
    }
    adapter_done(call, NULL);
}

static void offers_on_providers(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct places *places = adapter_memory(call, sizeof(*places));
    const json_t *provider = NULL, *model = NULL;
    size_t i = 0, j = 0;
    json_array_foreach(answer->json, i, provider)
    {
        char country[3] = "";
        if (i == ROWS_MAX || !json_true_at(provider, "isOnline") || !akash_country_of(provider, country))
            continue;
        double uptime = json_number_at(provider, "uptime7d", -1);
        json_array_foreach(json_at(provider, "gpuModels"), j, model)
        {
            struct place gpu;
            if (j == MODELS_MAX || !places || !gpu_read(model, &gpu))
                break;
            memcpy(gpu.country, country, sizeof(gpu.country));
            gpu.uptime = uptime >= 0 && uptime <= 1 ? uptime : -1;
            place_note(call, places, &gpu);
        }
    }
    adapter_send(call, &(struct adapter_request){.path = STR("/v1/gpu-prices"), .on_answer = offers_on_prices});
}

void akash_offers(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = STR("/v1/providers?scope=all"),
                                                 .body_max = (size_t)32 << 20,
                                                 .on_answer = offers_on_providers});
}
