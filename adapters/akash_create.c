/* Create on Akash: a deployment with the most it may cost, a wait for bids, a lease with the cheapest. From the moment
 * that a deployment exists it is the call's leftover until there is a lease: whatever ends the call, the deadline too,
 * it is reported, and closed here where that can still be asked. */
#include "adapters/akash_priv.h"
#include "adapters/akash_sdl.h"
#include "core/clock.h"

#include <inttypes.h>
#include <string.h>

#define BIDS_MAX 20 /* as many providers as one question about them may name */
#define BID_ROWS_MAX 1000
#define NO_CAP_TIMES 2 /* of the quoted price, where there is no cap: an SDL needs one */

struct bid {
    struct str provider;
    int64_t gseq, oseq, usd_nano; /* per GPU-hour */
};

struct making {
    struct str dseq, manifest;
    char country[3]; /* "": anywhere */
    int64_t cap_usd_nano;
    struct bid bids[BIDS_MAX]; /* within the cap, cheapest first */
    size_t bid_count;
    const struct bid *taken;
    struct str lost[BIDS_MAX]; /* providers whose bids were gone when they were taken */
    size_t lost_count;
    int64_t polls, polls_with_bids, dearest_usd_nano; /* dearest: the cheapest one above the cap; 0: none */
    enum supply_error error;
    struct str why;
};

static struct making *making_of(struct adapter_call *call)
{
    return adapter_memory(call, sizeof(struct making));
}

/* -- giving up -- */

static void close_on_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct making *making = making_of(call);
    bool is_closed = json_true_at(answer->json, "data.success");
    struct str why = adapter_text(call, STR_FMT " (deployment " STR_FMT " %s)", STR_ARG(making->why),
                                  STR_ARG(making->dseq), is_closed ? "was closed" : "could not be closed");
    adapter_fail(call, making->error, why);
}

static void give_up(struct adapter_call *call, enum supply_error error, struct str why)
{
    struct making *making = making_of(call);
    making->error = error;
    making->why = why;
    akash_close_deployment(call, making->dseq, true, close_on_answer);
}

/* -- the lease -- */

static void poll_bids(struct adapter_call *call);

static struct str said_by(const struct adapter_answer *answer)
{
    struct str said = json_text_at(answer->json, "message");
    return said.len ? said : answer->body;
}

static void on_lease(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct making *making = making_of(call);
    enum supply_error error = answer->status < 300 ? SUPPLY_OK : adapter_classify(call, answer);
    if (error == SUPPLY_NO_CAPACITY && making->lost_count < BIDS_MAX) { /* the bid went: the next one, or a new one */
        making->lost[making->lost_count++] = making->taken->provider;
        poll_bids(call);
    } else if (error != SUPPLY_OK) {
        give_up(call, error, adapter_text(call, STR_FMT, STR_ARG(said_by(answer))));
    } else {
        struct supply_instance instance = {.id = making->dseq,
                                           .tag = call_order(call)->tag,
                                           .state = INSTANCE_PENDING,
                                           .price_usd_nano = making->taken->usd_nano,
                                           .interruptible = 0,
                                           .created_at_ms = call_wall_ms(call),
                                           .placement = making->taken->provider};
        akash_note(call, making->dseq, call_order(call)->tag, call_order(call)->gpus);
        adapter_done(call, &instance);
    }
}

static void take(struct adapter_call *call, const struct bid *bid)
{
    struct making *making = making_of(call);
    making->taken = bid;
    json_t *body =
        json_pack("{s:s%, s:[{s:s%, s:I, s:I, s:s%}]}", "manifest", making->manifest.ptr, making->manifest.len,
                  "leases", "dseq", making->dseq.ptr, making->dseq.len, "gseq", (json_int_t)bid->gseq, "oseq",
                  (json_int_t)bid->oseq, "provider", bid->provider.ptr, bid->provider.len);
    adapter_send(call, &(struct adapter_request){.method = "POST",
                                                 .path = STR("/v1/leases"),
                                                 .take_json = body,
                                                 .takes_errors = true,
                                                 .on_answer = on_lease});
}

/* -- bids -- */

/* Waits one poll longer than it must, for a cheaper one, and no longer than bids are waited for. */
static void decide(struct adapter_call *call)
{
    struct making *making = making_of(call);
    const struct akash *akash = network_state(call_network(call));
    bool is_last = making->polls * akash->bid_poll_ms >= akash->bid_wait_ms;
    if (making->bid_count && (++making->polls_with_bids > 1 || is_last))
        take(call, &making->bids[0]);
    else if (!is_last)
        adapter_later(call, akash->bid_poll_ms * NS_PER_MS, poll_bids);
    else if (making->dearest_usd_nano)
        give_up(call, SUPPLY_PRICE_MOVED,
                adapter_text(call, "the cheapest bid is %" PRId64 ".%03" PRId64 " USD per GPU-hour",
                             making->dearest_usd_nano / 1000000000, making->dearest_usd_nano / 1000000 % 1000));
    else
        give_up(call, SUPPLY_NO_CAPACITY,
                adapter_text(call, "no provider%s%s bid within the price cap and %" PRId64 " s",
                             making->country[0] ? " in " : "", making->country, (akash->bid_wait_ms + 999) / 1000));
}

/* A question that failed for a moment is one without bids: the next one may do. */
static void on_bidders(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct making *making = making_of(call);
    size_t kept = 0, i = 0;
    for (size_t j = 0; j < making->bid_count; j++) {
        const json_t *provider = NULL;
        bool is_there = false;
        json_array_foreach(answer->json, i, provider)
        {
            char country[3];
            if (i < BID_ROWS_MAX && str_eq(json_text_at(provider, "owner"), making->bids[j].provider) &&
                akash_country_of(provider, country))
                is_there = !memcmp(country, making->country, sizeof(country));
        }
        if (is_there)
            making->bids[kept++] = making->bids[j];
    }
    making->bid_count = kept;
    decide(call);
}

static void ask_where(struct adapter_call *call, const struct making *making)
{
    struct str list = STR("");
    for (size_t i = 0; i < making->bid_count; i++)
        list = adapter_text(call, STR_FMT "%s" STR_FMT, STR_ARG(list), i ? "," : "", STR_ARG(making->bids[i].provider));
    struct str path = adapter_text(call, "/v1/providers?scope=all&addresses=" STR_FMT, STR_ARG(list));
    adapter_send(call, &(struct adapter_request){.path = path, .takes_errors = true, .on_answer = on_bidders});
}

static void bid_add(struct making *making, struct bid bid)
{
    size_t at = making->bid_count;
    while (at > 0 && making->bids[at - 1].usd_nano > bid.usd_nano)
        at--;
    if (at == BIDS_MAX)
        return;
    making->bid_count += making->bid_count < BIDS_MAX;
    memmove(&making->bids[at + 1], &making->bids[at], (making->bid_count - at - 1) * sizeof(bid));
    making->bids[at] = bid;
}

static void bid_read(struct adapter_call *call, struct making *making, const json_t *row)
{
    struct bid bid = {.provider = json_text_at(row, "bid.id.provider"),
                      .gseq = json_count_at(row, "bid.id.gseq"),
                      .oseq = json_count_at(row, "bid.id.oseq"),
                      .usd_nano = akash_price(call, json_at(row, "bid.price"), call_order(call)->gpus)};
    if (!str_eq(json_text_at(row, "bid.state"), STR("open")) || !bid.provider.len || bid.provider.len > 90 ||
        !akash_is_word(bid.provider) || bid.gseq < 0 || bid.oseq < 0 || bid.usd_nano < 0)
        return;
    for (size_t i = 0; i < making->lost_count; i++) {
        if (str_eq(making->lost[i], bid.provider))
            return;
    }
    if (bid.usd_nano > making->cap_usd_nano) {
        if (!making->dearest_usd_nano || bid.usd_nano < making->dearest_usd_nano)
            making->dearest_usd_nano = bid.usd_nano;
        return;
    }
    bid.provider = adapter_text(call, STR_FMT, STR_ARG(bid.provider));
    if (bid.provider.len)
        bid_add(making, bid);
}

static void on_bids(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct making *making = making_of(call);
    const json_t *row = NULL;
    size_t i = 0;
    making->polls++;
    making->bid_count = 0;
    if (answer->status >= 300 && answer->status < 500 && answer->status != 429) {
        give_up(call, adapter_classify(call, answer), adapter_text(call, STR_FMT, STR_ARG(said_by(answer))));
        return;
    }
    json_array_foreach(json_at(answer->json, "data"), i, row)
    {
        if (i == BID_ROWS_MAX)
            break;
        bid_read(call, making, row);
    }
    if (making->bid_count && making->country[0])
        ask_where(call, making);
    else
        decide(call);
}

static void poll_bids(struct adapter_call *call)
{
    struct str path = adapter_text(call, "/v1/bids?dseq=" STR_FMT, STR_ARG(making_of(call)->dseq));
    adapter_send(call, &(struct adapter_request){.path = path, .takes_errors = true, .on_answer = on_bids});
}

/* -- the deployment -- */

static void on_deployment(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct making *making = making_of(call);
    const struct akash *akash = network_state(call_network(call));
    struct str dseq = json_id_at(call, answer->json, "data.dseq");
    struct str manifest = json_text_at(answer->json, "data.manifest");
    if (!dseq.len || dseq.len >= AKASH_DSEQ_MAX || !akash_is_word(dseq)) {
        adapter_uncertain(call, true);
        adapter_fail(call, SUPPLY_UNKNOWN, STR("it made a deployment and did not say which"));
        return;
    }
    adapter_uncertain(call, false);
    adapter_leftover(call, dseq);
    making->dseq = dseq;
    making->manifest = adapter_text(call, STR_FMT, STR_ARG(manifest));
    if (json_count_at(answer->json, "data.signTx.code") > 0)
        give_up(call, SUPPLY_UNKNOWN,
                adapter_text(call, STR_FMT, STR_ARG(json_text_at(answer->json, "data.signTx.rawLog"))));
    else if (!manifest.len)
        give_up(call, SUPPLY_UNKNOWN, STR("it gave no manifest"));
    else
        adapter_later(call, akash->bid_poll_ms * NS_PER_MS, poll_bids);
}

/* "nvidia/h100/80Gi/SXM5/2/US" as offers have it; absent where it is none of ours. */
static bool offer_read(struct str id, struct akash_ask *ask, char country[static 3])
{
    struct str fields[6];
    for (size_t i = 0; i < 6; i++) {
        fields[i] = str_next(&id, '/');
        if (!fields[i].ptr || !akash_is_word(fields[i]))
            return false;
    }
    ask->vendor = fields[0];
    ask->model = fields[1];
    ask->ram = fields[2];
    ask->interface = str_starts(fields[3], STR("SXM")) || str_starts(fields[3], STR("sxm")) ? STR("sxm")
                     : str_eq_nocase(fields[3], STR("pcie"))                                ? STR("pcie")
                                                                                            : STR("");
    return !id.len && fields[0].len && fields[1].len && (!fields[5].len || str_copy(country, 3, fields[5]));
}

/* Rounded down: never above the cap. */
static int64_t uact_per_block(int64_t usd_nano, uint32_t gpus)
{
    __int128 uact = (__int128)usd_nano * gpus / (BLOCKS_PER_HOUR * NANO_PER_MICRO);
    return uact > INT64_C(1000000000) ? INT64_C(1000000000) : (int64_t)uact;
}

void akash_create(struct adapter_call *call)
{
    struct making *making = making_of(call);
    const struct akash *akash = network_state(call_network(call));
    const struct supply_order *order = call_order(call);
    struct akash_ask ask = {.order = order};
    if (!making)
        return;
    if (!offer_read(order->offer, &ask, making->country) || !order->gpus) {
        adapter_fail(call, SUPPLY_NO_CAPACITY, STR("no such offer"));
        return;
    }
    making->cap_usd_nano = order->price_max_usd_nano;
    if (order->price_max_usd_nano < 0 && order->price_quoted_usd_nano < INT64_MAX / NO_CAP_TIMES)
        making->cap_usd_nano = order->price_quoted_usd_nano * NO_CAP_TIMES;
    ask.uact_per_block = uact_per_block(making->cap_usd_nano, order->gpus);
    ask.cpu_units = akash->cpu * order->gpus;
    ask.memory_gib = akash->memory_gib * order->gpus;
    if (ask.uact_per_block < 1) {
        adapter_fail(call, SUPPLY_PRICE_MOVED, STR("the price cap is less than anything that can be bid"));
        return;
    }
    struct buf sdl;
    buf_init(&sdl, AKASH_SDL_MAX);
    const char *wrong = akash_sdl_write(&ask, &sdl);
    json_t *body =
        wrong ? NULL
              : json_pack("{s:{s:s%, s:I}}", "data", "sdl", sdl.ptr, sdl.len, "deposit", (json_int_t)akash->deposit);
    if (sdl.len)
        explicit_bzero(sdl.ptr, sdl.len); /* environments hold secrets */
    buf_free(&sdl);
    if (wrong)
        adapter_fail(call, SUPPLY_BAD_REQUEST, str_of(wrong));
    else
        adapter_send(call, &(struct adapter_request){.method = "POST",
                                                     .path = STR("/v1/deployments"),
                                                     .take_json = body,
                                                     .creates = true,
                                                     .on_answer = on_deployment});
}
