/* What io.net offers: for each hardware and number of GPUs the places that have it, then the price in the best of them.
 * Other places are taken to cost the same, as an estimate. */
#include "adapters/ionet.h"

#define HARDWARE_MAX 64
#define PLACES_MAX 32

static const uint32_t counts[] = {1, 2, 4, 8};
#define COUNTS (sizeof counts / sizeof *counts)

const json_t *ionet_unwrapped(const struct adapter_answer *answer)
{
    const json_t *data = json_at(answer->json, "data");
    return data ? data : answer->json;
}

static bool is_number(struct str id)
{
    int64_t number;
    return str_to_i64(id, &number);
}

struct str ionet_price_path(struct adapter_call *call, struct str hardware, struct str place, uint32_t gpus,
                            int64_t hours)
{
    const char *quote = is_number(place) ? "" : "\"";
    struct str list = adapter_text(call, "[%s" STR_FMT "%s]", quote, STR_ARG(place), quote);
    struct str places = adapter_url_escaped(call, list), escaped = adapter_url_escaped(call, hardware);
    if (!places.ptr || !escaped.ptr)
        return (struct str){0};
    return adapter_text(call,
                        IONET_BASE "/price?location_ids=" STR_FMT "&hardware_id=" STR_FMT
                                   "&duration_hours=%lld&gpus_per_container=%u&replica_count=1",
                        STR_ARG(places), STR_ARG(escaped), (long long)hours, gpus);
}

struct price_terms ionet_price(struct adapter_call *call, const struct adapter_answer *answer, uint32_t gpus,
                               int64_t hours)
{
    return (struct price_terms){.amount = json_decimal_at(call, ionet_unwrapped(answer), "total_cost_usdc"),
                                .currency = STR("USDC"),
                                .per = PRICE_PER_SPAN,
                                .gpus = gpus,
                                .span_s = hours * 3600};
}

struct hardware {
    struct str id, name;
    int64_t gpus_max;
};

struct place {
    struct str id, country, name;
    int64_t replicas;
};

struct listing {
    struct hardware hardware[HARDWARE_MAX];
    size_t hardware_count, step;
    struct place places[PLACES_MAX];
    size_t place_count, best;
};

static void offers_next(struct adapter_call *call, struct listing *listing);

/* One that is not known any more costs its own offers only. */
static bool is_skipped(const struct adapter_answer *answer)
{
    return answer->status == 400 || answer->status == 404 || answer->status == 422;
}

static void on_price(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    if (!listing)
        return;
    uint32_t gpus = counts[listing->step % COUNTS];
    const struct hardware *hardware = &listing->hardware[listing->step++ / COUNTS];
    struct price_terms terms = ionet_price(call, answer, gpus, 1);
    if (!adapter_is_good(answer) && !is_skipped(answer)) {
        adapter_fail_answer(call, answer);
        return;
    }
    struct adapter_offer offers[PLACES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < listing->place_count && terms.amount.ptr; i++) {
        const struct place *place = &listing->places[i];
        struct str id = adapter_text(call, STR_FMT "/%u/" STR_FMT, STR_ARG(hardware->id), gpus, STR_ARG(place->id));
        terms.is_estimate = i != listing->best;
        offers[count++] = (struct adapter_offer){
            .id = id,
            .gpu_raw = hardware->name,
            .gpus = gpus,
            .available = place->replicas < UINT32_MAX ? (uint32_t)place->replicas : 0,
            .region = place->country.len ? place->country : place->id,
            .country = place->country.len == 2 ? place->country : (struct str){0},
            .zone = place->name,
            .terms = terms,
            .is_priced = true,
            .reliability = -1,
            .span_max_s = IONET_HOURS_MAX * INT64_C(3600),
        };
    }
    adapter_offers(call, offers, count);
    offers_next(call, listing);
}

static void on_places(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    const json_t *rows = ionet_unwrapped(answer);
    if (!listing)
        return;
    if (!is_skipped(answer) && (!adapter_is_good(answer) || !json_is_array(rows))) {
        adapter_fail_odd(call, answer, STR("the list of places is none"));
        return;
    }
    listing->place_count = listing->best = 0;
    for (size_t i = 0; adapter_is_good(answer) && i < json_array_size(rows) && listing->place_count < PLACES_MAX; i++) {
        const json_t *row = json_array_get(rows, i);
        struct str country = json_text_at(row, "iso2"), name = json_text_at(row, "name");
        struct place place = {.id = json_id_at(call, row, "id"), .replicas = json_count_at(row, "available_replicas")};
        place.country = adapter_text(call, STR_FMT, STR_ARG(country));
        place.name = adapter_text(call, STR_FMT, STR_ARG(name));
        if (place.replicas <= 0 || !place.id.len || place.id.len > 32)
            continue;
        if (place.replicas > listing->places[listing->best].replicas || !listing->place_count)
            listing->best = listing->place_count;
        listing->places[listing->place_count++] = place;
    }
    if (listing->place_count) {
        adapter_get(call,
                    ionet_price_path(call, listing->hardware[listing->step / COUNTS].id,
                                     listing->places[listing->best].id, counts[listing->step % COUNTS], 1),
                    on_price);
        return;
    }
    listing->step++;
    offers_next(call, listing);
}

static void offers_next(struct adapter_call *call, struct listing *listing)
{
    while (listing->step / COUNTS < listing->hardware_count &&
           counts[listing->step % COUNTS] > listing->hardware[listing->step / COUNTS].gpus_max)
        listing->step++;
    if (listing->step / COUNTS >= listing->hardware_count) {
        adapter_done(call, NULL);
        return;
    }
    struct str id = adapter_url_escaped(call, listing->hardware[listing->step / COUNTS].id);
    if (id.ptr)
        adapter_get(call,
                    adapter_text(call, IONET_BASE "/available-replicas?hardware_id=" STR_FMT "&hardware_qty=%u",
                                 STR_ARG(id), counts[listing->step % COUNTS]),
                    on_places);
}

static void on_hardware(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    const json_t *rows = json_at(ionet_unwrapped(answer), "hardware");
    if (!listing)
        return;
    if (!adapter_is_good(answer) || !json_is_array(rows)) {
        adapter_fail_odd(call, answer, STR("the list of hardware is none"));
        return;
    }
    for (size_t i = 0; i < json_array_size(rows) && listing->hardware_count < HARDWARE_MAX; i++) {
        const json_t *row = json_array_get(rows, i);
        struct str name = json_text_at(row, "hardware_name");
        struct hardware *hardware = &listing->hardware[listing->hardware_count];
        *hardware = (struct hardware){.id = json_id_at(call, row, "hardware_id"),
                                      .name = adapter_text(call, STR_FMT, STR_ARG(name)),
                                      .gpus_max = json_count_at(row, "max_gpus_per_container")};
        if (json_count_at(row, "available") != 0 && hardware->id.len && hardware->id.len < 64 && hardware->name.len)
            listing->hardware_count++;
    }
    offers_next(call, listing);
}

void ionet_offers(struct adapter_call *call)
{
    adapter_get(call, STR(IONET_BASE "/hardware/max-gpus-per-container"), on_hardware);
}
