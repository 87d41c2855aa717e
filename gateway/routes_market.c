/* What the market holds: offers, the dry run of a call, the networks. */
#include "adapters/native/hub.h"
#include "core/clock.h"
#include "core/money.h"
#include "gateway/networks.h"
#include "gateway/prefer.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include "scheduler/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OFFSET_MAX 10000000
#define REPLICAS_SHOWN_MAX 10000
#define TEXT_MAX 64

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

static json_t *text_json(struct str text)
{
    return text.ptr ? json_stringn(text.ptr, text.len) : json_null();
}

static json_t *money_json(int64_t usd_nano)
{
    char text[MONEY_TEXT_MAX];
    money_text(usd_nano, text);
    return json_string(text);
}

/* Whole numbers without a point, others to three places. */
static json_t *number_json(double value)
{
    double rounded = round(value * 1000) / 1000;
    return rounded == floor(rounded) && fabs(rounded) < 1e15 ? json_integer((json_int_t)rounded) : json_real(rounded);
}

static json_t *scores_json(const struct market *market, uint32_t row)
{
    json_t *scores = json_object();
    for (unsigned d = 0; scores && d < REPUTATION_DIMENSIONS; d++)
        json_object_set_new(scores, reputation_dimension_name(d), json_real(market_reputation_score(market, row, d)));
    return scores;
}

static json_t *parts_json(double price, double latency, double reputation)
{
    return json_pack("{s:f, s:f, s:f}", "price", price, "latency", latency, "reputation", reputation);
}

/* -- offers -- */

struct offers_ask {
    struct offer_query query;
    int64_t limit, offset;
    int explain, slices;
};

static bool is_plain(struct str text)
{
    return prefer_is_region(text); /* the same rule: short, no control characters */
}

static bool text_query(struct api_call *call, const char *name, struct str *ret, struct api_error *error)
{
    *ret = api_query(call, name);
    if (!ret->ptr || is_plain(*ret))
        return true;
    api_error_bad_request(error, name, "%s must have 1 to %d characters.", name, TEXT_MAX);
    return false;
}

static bool sort_query(struct api_call *call, enum offer_sort *ret, struct api_error *error)
{
    static const char *const sorts[] = {[OFFER_BY_SCORE] = "score",
                                        [OFFER_BY_PRICE] = "price",
                                        [OFFER_BY_LATENCY] = "latency",
                                        [OFFER_BY_REPUTATION] = "reputation"};
    struct str text = api_query(call, "sort");
    for (size_t i = 0; text.ptr && i < sizeof(sorts) / sizeof(sorts[0]); i++) {
        if (str_eq(text, str_of(sorts[i]))) {
            *ret = (enum offer_sort)i;
            return true;
        }
    }
    if (!text.ptr)
        return true;
    api_error_bad_request(error, "sort", "sort must be score, price, latency or reputation.");
    return false;
}

/* A cursor is "o" and the position to go on from; ties are broken by id, so pages of one market do not overlap. */
static bool cursor_query(struct api_call *call, int64_t *ret, struct api_error *error)
{
    struct str text = api_query(call, "cursor");
    if (!text.ptr)
        return true;
    if (text.len > 1 && text.ptr[0] == 'o' && str_to_i64((struct str){text.ptr + 1, text.len - 1}, ret) && *ret > 0 &&
        *ret <= OFFSET_MAX)
        return true;
    api_error_bad_request(error, "cursor", "cursor must be the \"next\" of the answer before.");
    return false;
}

static bool wishes_query(struct api_call *call, struct offer_query *query, struct api_error *error)
{
    struct str prefer = api_query(call, "prefer"), max_price = api_query(call, "max_price");
    struct str vram = api_query(call, "min_vram_gib");
    double gib = 0;
    query->require = api_query(call, "require");
    if (prefer.ptr && !weights_parse(prefer, &query->weights))
        api_error_bad_request(error, "prefer",
                              "prefer must be price, latency, reputation, balanced, or weights such as "
                              "\"price=0.6,latency=0.3,reputation=0.1\".");
    else if (max_price.ptr && !money_parse(max_price, &query->max_price_usd_nano))
        api_error_bad_request(error, "max_price",
                              "max_price must be an amount in US dollars per GPU-hour, such as 1.20.");
    else if (vram.ptr && (!str_to_double(vram, &gib) || gib < 0 || gib > 1e6))
        api_error_bad_request(error, "min_vram_gib", "min_vram_gib must be a number of GiB.");
    else if (query->require.ptr && !prefer_is_require(query->require))
        api_error_bad_request(error, "require", "require must be a list of tags such as gdpr,hipaa.");
    else {
        query->vram_bytes_min = (uint64_t)(gib * 1073741824.0);
        return true;
    }
    return false;
}

static bool offers_query(struct api_call *call, struct offers_ask *ret, struct api_error *error)
{
    struct offers_ask ask = {.query = {.max_price_usd_nano = -1, .interruptible = -1, .weights = weights_default()},
                             .limit = ROUTES_PAGE_DEFAULT};
    int64_t count = 0;
    if (!text_query(call, "gpu", &ask.query.gpu, error) || !text_query(call, "region", &ask.query.region, error) ||
        !text_query(call, "network", &ask.query.network, error) ||
        !query_int(call, "count", 0, INT32_MAX, &count, error) ||
        !query_int(call, "limit", 1, ROUTES_PAGE_MAX, &ask.limit, error) ||
        !query_flag(call, "interruptible", &ask.query.interruptible, error) ||
        !query_flag(call, "slices", &ask.slices, error) || !query_flag(call, "explain", &ask.explain, error) ||
        !sort_query(call, &ask.query.sort, error) || !cursor_query(call, &ask.offset, error) ||
        !wishes_query(call, &ask.query, error))
        return false;
    ask.query.count_min = (uint32_t)count;
    ask.query.now_ms = clock_wall_ms();
    ask.query.without = (ask.slices ? 0u : OFFER_SLICE) | (ask.query.network.ptr ? 0u : OFFER_DOUBLE);
    *ret = ask;
    return true;
}

/* Names between commas. */
static json_t *names_json(struct str names)
{
    json_t *list = json_array();
    for (struct str name; list && (name = str_next(&names, ',')).ptr;) {
        if (name.len && json_array_append_new(list, text_json(name)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *count_json(uint32_t count)
{
    return count ? json_integer(count) : json_null();
}

/* What only offers of other networks have; false: out of memory. */
static bool add_foreign(json_t *offer, const struct market *market, uint32_t row)
{
    unsigned marks = market_marks(market, row);
    int64_t ttl_ms = market_ttl_ms(market, row);
    struct str country = market_country(market, row);
    json_t *more =
        json_pack("{s:o, s:o, s:b, s:b, s:b, s:o, s:o}", "country", country.len ? text_json(country) : json_null(),
                  "available", count_json(market_available(market, row)), "unproven",
                  (int)((marks & OFFER_UNPROVEN) != 0), "estimate", (int)((marks & OFFER_ESTIMATE) != 0), "slice",
                  (int)((marks & OFFER_SLICE) != 0), "also", names_json(market_also(market, row)), "expires_at",
                  ttl_ms ? json_integer(market_observed_at_ms(market, row) + ttl_ms) : json_null());
    bool ok = more && json_object_update(offer, more) == 0;
    json_decref(more);
    if (ok && marks & OFFER_SLICE)
        ok = json_object_set_new(offer, "gpu_share", json_real(market_fraction_ppm(market, row) / 1e6)) == 0;
    return ok && (!(marks & OFFER_ARM) || json_object_set_new(offer, "arch", json_string("arm64")) == 0);
}

static bool add_reasons(json_t *offer, const struct market *market, const struct offer_rank *rank)
{
    struct str terms = market_terms(market, rank->row);
    return json_object_set_new(offer, "parts", parts_json(rank->price, rank->latency, rank->reputation)) == 0 &&
           json_object_set_new(offer, "reputation_parts", scores_json(market, rank->row)) == 0 &&
           (!terms.len ||
            json_object_set_new(offer, "terms", json_loadb(terms.ptr, terms.len, JSON_DECODE_ANY, NULL)) == 0);
}

static json_t *offer_json(const struct market *market, const struct offer_rank *rank, bool explain)
{
    uint32_t row = rank->row;
    json_t *offer = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:f, s:b, s:f, s:o, s:I, s:f}", "id",
        text_json(market_id(market, row)), "network", text_json(market_network(market, row)), "gpu",
        text_json(market_gpu(market, row)), "gpu_claimed", text_json(market_claimed(market, row)), "gpu_raw",
        text_json(market_gpu_raw(market, row)), "count", (json_int_t)market_gpus(market, row), "vram_gib",
        number_json((double)market_vram_bytes(market, row) / 1073741824.0), "region",
        text_json(market_region(market, row)), "price_per_gpu_hour_usd", money_json(market_price(market, row)),
        "effective_price_per_gpu_hour_usd", money_json(market_effective_price(market, row)), "performance",
        market_performance(market, row), "interruptible", (int)market_is_interruptible(market, row), "reputation",
        market_reputation(market, row), "latency_ms", number_json((double)market_latency_ns(market, row) / 1e6),
        "observed_at", (json_int_t)market_observed_at_ms(market, row), "score", rank->score);
    if (offer && (!add_foreign(offer, market, row) || (explain && !add_reasons(offer, market, rank)))) {
        json_decref(offer);
        return NULL;
    }
    return offer;
}

/* Can it be had through this reactor? A worker whose link broke stays in the market for some seconds, because it may
 * come back. */
static bool is_there(struct reactor *reactor, const struct market *market, uint32_t row)
{
    const struct worker *worker = market_worker(market, row);
    size_t count;
    void *const *links = hub_links(reactor->hub, &count);
    return !worker ||
           (worker->index < count && links[worker->index] && worker_is_live(worker, loop_now(reactor->loop)));
}

/* Appends offers from position *at of the ranking on until there are `limit`; *at is then where to go on, 0 at the end.
 * False: out of memory. */
static bool append_offers(struct reactor *reactor, const struct offers_ask *ask, json_t *data, size_t *at)
{
    const struct market *markets[2];
    size_t market_count = snapshot_markets(reactor->snapshot, markets);
    size_t limit = (size_t)ask->limit, batch = limit + 1;
    struct offer_rank *ranks = calloc(batch, sizeof(*ranks));
    bool fits = ranks != NULL, has_more = true;
    while (fits && has_more && json_array_size(data) < limit) {
        size_t count = rank_offers(markets, market_count, &ask->query, *at, batch, ranks), i = 0;
        for (; fits && i < count && json_array_size(data) < limit; i++) {
            const struct market *market = markets[ranks[i].market];
            if (is_there(reactor, market, ranks[i].row))
                fits = json_array_append_new(data, offer_json(market, &ranks[i], ask->explain)) == 0;
        }
        *at += i;
        has_more = i < count || count == batch;
    }
    free(ranks);
    if (!has_more)
        *at = 0;
    return fits;
}

void route_offers(struct api_call *call)
{
    static const char *const known[] = {"gpu",       "count",         "min_vram_gib", "region", "network",
                                        "max_price", "interruptible", "require",      "prefer", "sort",
                                        "limit",     "explain",       "cursor",       "slices", NULL};
    struct offers_ask ask;
    struct api_error error;
    if (!api_query_check(call, known))
        return;
    if (!offers_query(call, &ask, &error)) {
        api_reply_error(call, &error);
        return;
    }
    json_t *data = json_array();
    size_t at = (size_t)ask.offset;
    if (!data || !append_offers(call->reactor, &ask, data, &at)) {
        json_decref(data);
        fail(call, ERR_NO_MEMORY);
        return;
    }
    char next[32];
    snprintf(next, sizeof(next), "o%zu", at);
    api_reply_json(call, 200,
                   json_pack("{s:s, s:o, s:s?}", "object", "list", "data", data, "next", at > 0 ? next : NULL));
}

/* -- the dry run -- */

/* The model that a body asks for; like the OpenAI path, other oddities of the body pass. */
static bool asked_model(struct api_call *call, char *ret, size_t size, struct api_error *error)
{
    json_t *body = json_loadb(call->body.ptr ? call->body.ptr : "", call->body.len,
                              JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    const json_t *model = json_object_get(body, "model");
    bool is_good = false;
    if (!json_is_object(body))
        api_error_bad_request(error, NULL, "The body must be a JSON object.");
    else if (!json_is_string(model) || json_string_length(model) == 0)
        api_error_bad_request(error, "model", "model must be the name of a model.");
    else if (!(is_good = str_copy(ret, size, (struct str){json_string_value(model), json_string_length(model)})))
        api_error_set(error, 404, "invalid_request_error", "model_not_found", "model", "No such model.");
    json_decref(body);
    return is_good;
}

static json_t *candidate_json(const struct market *market, const struct dispatch_candidate *candidate)
{
    const struct worker *worker = market_worker(market, candidate->row);
    const char *id = worker->id;
    if (candidate->rejected)
        return json_pack("{s:s, s:s}", "worker", id, "reason", candidate->rejected);
    return json_pack("{s:s, s:f, s:o}", "worker", id, "score", candidate->score, "parts",
                     parts_json(candidate->price, candidate->latency, candidate->reputation));
}

static void answer_dry_run(struct api_call *call, const struct dispatch_query *query)
{
    const struct market *market = call->reactor->snapshot->market;
    size_t max;
    market_replicas(market, query->model, &max);
    max = max < REPLICAS_SHOWN_MAX ? max : REPLICAS_SHOWN_MAX;
    struct dispatch_candidate *found = calloc(max ? max : 1, sizeof(*found));
    json_t *candidates = json_array(), *rejected = json_array();
    size_t count = found ? dispatch_explain(market, query, found, max) : 0;
    bool fits = found && candidates && rejected;
    for (size_t i = 0; fits && i < count; i++)
        fits = json_array_append_new(found[i].rejected ? rejected : candidates, candidate_json(market, &found[i])) == 0;
    free(found);
    json_t *answer = fits ? json_pack("{s:O, s:O}", "candidates", candidates, "rejected", rejected) : NULL;
    json_decref(candidates);
    json_decref(rejected);
    if (answer)
        api_reply_json(call, 200, answer);
    else
        fail(call, ERR_NO_MEMORY);
}

void route_dry_run(struct api_call *call)
{
    struct api_error error;
    char name[512];
    struct prefer_headers headers = {.prefer = call->header(call, PREFER_HEADER_PREFER),
                                     .max_price = call->header(call, PREFER_HEADER_MAX_PRICE),
                                     .region = call->header(call, PREFER_HEADER_REGION),
                                     .require = call->header(call, PREFER_HEADER_REQUIRE)};
    struct dispatch_query query = {.now_ns = loop_now(call->reactor->loop)};
    struct str target;
    if (!asked_model(call, name, sizeof(name), &error) || !prefer_parse(&headers, &query, &error)) {
        api_reply_error(call, &error);
        return;
    }
    query.model = market_model(call->reactor->snapshot->market, str_of(name), &target);
    query.links = hub_links(call->reactor->hub, &query.link_count);
    if (call->key && !api_key_allows_model(call->key, str_of(name)))
        api_error_set(&error, 403, "invalid_request_error", "model_not_allowed", "model",
                      "This key may not use the model.");
    else if (query.model == MARKET_NONE)
        api_error_set(&error, 404, "invalid_request_error", "model_not_found", "model",
                      "The model does not exist or no worker serves it.");
    else {
        answer_dry_run(call, &query);
        return;
    }
    api_reply_error(call, &error);
}

/* -- networks -- */

/* Our own workers are the one network that needs no polling: their links tell at once. */
static json_t *native_json(struct reactor *reactor)
{
    const struct market *market = reactor->snapshot->market;
    size_t count = market_count(market);
    json_int_t offers = 0;
    int64_t observed = 0;
    for (uint32_t row = 0; row < count; row++) {
        if (!market_worker(market, row) || !is_there(reactor, market, row))
            continue;
        int64_t at = market_observed_at_ms(market, row);
        offers++;
        observed = at > observed ? at : observed;
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:n, s:i}", "id", "native", "adapter", "native", "state", "ok",
                     "offers", offers, "last_poll_at", observed ? json_integer(observed) : json_null(), "last_error",
                     "orphans_ended", 0);
}

static void on_networks(void *ctx, json_t *take_list)
{
    struct api_call *call = ctx;
    if (!take_list || json_array_insert_new(take_list, 0, native_json(call->reactor)) != 0) {
        json_decref(take_list);
        fail(call, ERR_NO_MEMORY);
        return;
    }
    api_reply_json(call, 200, json_pack("{s:s, s:o, s:n}", "object", "list", "data", take_list, "next"));
}

void route_networks(struct api_call *call)
{
    static const char *const known[] = {NULL};
    if (api_query_check(call, known))
        networks_json(call->reactor->gateway->control, call->reactor, on_networks, call);
}
