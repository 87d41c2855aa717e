/* The market of other networks' offers: built from the tables when they changed, in its own time, so that many offers
 * never slow down what our workers do. And from it the candidates of a lease. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/money.h"
#include "scheduler/gpu_name.h"
#include "scheduler/rank.h"
#include "scheduler/region.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_LOOK_NS (100 * NS_PER_MS)   /* when there was nothing before */
#define LATENCY_PRIOR_NS (50 * NS_PER_MS) /* nothing is known of the way there */
#define ALSO_MAX 160

/* -- one machine, two networks ----------------------------------------------------------------------------------- */

/* Rows that are the same machine stand next to each other, cheapest first, when sorted. */
struct twin {
    uint64_t hash; /* of the machine, so that few texts need be compared */
    struct str machine;
    const struct net *net;
    const struct offer_entry *entry;
    int64_t price_usd_nano;
    uint32_t row;
};

static int compare_texts(struct str a, struct str b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;
    return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

/* The same machine in the same way. */
static int compare_machines(const struct twin *a, const struct twin *b)
{
    const struct network_offer *left = &a->entry->of, *right = &b->entry->of;
    int order = a->hash < b->hash ? -1 : a->hash > b->hash;
    if (order == 0)
        order = compare_texts(a->machine, b->machine);
    if (order == 0 && left->gpus != right->gpus)
        order = left->gpus < right->gpus ? -1 : 1;
    if (order == 0 && left->interruptible != right->interruptible)
        order = left->interruptible ? 1 : -1;
    if (order == 0 && left->fraction_ppm != right->fraction_ppm)
        order = left->fraction_ppm < right->fraction_ppm ? -1 : 1;
    return order ? order : strcmp(left->gpu, right->gpu);
}

static int compare_twins(const void *a, const void *b)
{
    const struct twin *left = a, *right = b;
    int order = compare_machines(left, right);
    if (order == 0 && left->price_usd_nano != right->price_usd_nano)
        order = left->price_usd_nano < right->price_usd_nano ? -1 : 1;
    return order ? order : memcmp(left->entry->digest.bytes, right->entry->digest.bytes, OFFER_DIGEST_BYTES);
}

/* The cheapest is shown, and says which other networks list it; those are marked. One network that lists a machine
 * twice means two things that can be had of it. */
static void mark_twins(struct twin *twins, size_t count, struct offer *offers, struct buf *texts)
{
    qsort(twins, count, sizeof(*twins), compare_twins);
    for (size_t from = 0, to; from < count; from = to) {
        char also[ALSO_MAX];
        size_t len = 0;
        for (to = from + 1; to < count && compare_machines(&twins[from], &twins[to]) == 0; to++) {
            struct str id = str_of(twins[to].net->settings->id);
            if (twins[to].net == twins[from].net)
                continue;
            offers[twins[to].row].marks |= OFFER_DOUBLE;
            bool is_named = false;
            for (size_t i = from + 1; i < to; i++)
                is_named |= twins[i].net == twins[to].net;
            if (is_named || len + id.len + 1 > sizeof(also))
                continue;
            if (len)
                also[len++] = ',';
            memcpy(also + len, id.ptr, id.len);
            len += id.len;
        }
        size_t at = texts->len;
        if (len && buf_append(texts, also, len))
            offers[twins[from].row].also = (struct str){texts->ptr + at, len};
    }
}

/* -- building ---------------------------------------------------------------------------------------------------- */

static struct offer offer_of(const struct net *net, const struct offer_entry *entry, struct str shown,
                             const struct net_standing *standing)
{
    const struct network_offer *of = &entry->of;
    struct str gpu = of->gpu[0] ? str_of(of->gpu) : STR(OFFER_GPU_UNKNOWN);
    struct offer offer = {
        .id = shown,
        .network = str_of(net->settings->id),
        .gpu = gpu,
        .gpu_raw = of->gpu_raw,
        .region = of->region,
        .supplier = of->origin,
        .tags = of->tags,
        .gpus = of->gpus,
        .slots = 1,
        .vram_bytes = of->vram_bytes,
        .interruptible = of->interruptible,
        .reputation = standing->reputation,
        .performance = 1,
        .completion = standing->completion,
        .latency_ns = LATENCY_PRIOR_NS,
        .marks = (of->is_slice ? OFFER_SLICE : 0u) | (of->is_estimate ? OFFER_ESTIMATE : 0u) |
                 (of->is_arm ? OFFER_ARM : 0u) | (net->settings->probe == PROBE_REQUIRED ? 0u : OFFER_UNPROVEN),
        .sighting = net->sighting,
        .country = of->country,
        .terms = of->terms,
        .available = of->available,
        .fraction_ppm = of->fraction_ppm,
    };
    if (of->reliability >= 0) /* its own word, and only where it makes it less likely */
        offer.completion *= 0.5 + 0.5 * (of->reliability < 1 ? of->reliability : 1);
    for (unsigned d = 0; d < REPUTATION_DIMENSIONS; d++)
        offer.reputation_scores[d] = standing->scores[d];
    if (!price_with_markup(of->price_usd_nano, net->settings->markup_bps, &offer.price_usd_nano))
        offer.price_usd_nano = INT64_MAX;
    return offer;
}

struct gathering {
    struct offer *offers;
    struct twin *twins;
    char (*ids)[OFFER_SHOWN_MAX];
    size_t count, twin_count;
};

static void gather(struct net *net, struct gathering *all)
{
    size_t at = 0;
    const struct net_standing of_all = net_standing_of_all(net);
    net->was_fresh = !net_is_stale(net);
    for (const struct offer_entry *entry; (entry = offer_table_next(&net->table, &at)); all->count++) {
        offer_shown_id(&entry->digest, all->ids[all->count]);
        const struct net_standing standing = net_standing_of(net, entry->of.origin, &of_all);
        all->offers[all->count] =
            offer_of(net, entry, (struct str){all->ids[all->count], OFFER_SHOWN_MAX - 1}, &standing);
        if (entry->of.machine.len && net->was_fresh && !net_is_down(net))
            all->twins[all->twin_count++] =
                (struct twin){.hash = str_hash(entry->of.machine, net->all->nets[0].table.seed),
                              .machine = entry->of.machine,
                              .net = net,
                              .entry = entry,
                              .price_usd_nano = all->offers[all->count].price_usd_nano,
                              .row = (uint32_t)all->count};
    }
}

static enum error build(struct networks *networks, struct market **ret)
{
    size_t most = 0;
    for (size_t i = 0; i < networks->count; i++)
        most += networks->nets[i].table.count;
    struct gathering all = {.offers = calloc(most + 1, sizeof(*all.offers)),
                            .twins = calloc(most + 1, sizeof(*all.twins)),
                            .ids = calloc(most + 1, sizeof(*all.ids))};
    struct buf texts; /* never grows past what is reserved: offers point into it */
    enum error error = ERR_NO_MEMORY;
    buf_init(&texts, 0);
    if (!all.offers || !all.twins || !all.ids)
        goto out;
    for (size_t i = 0; i < networks->count; i++)
        gather(&networks->nets[i], &all);
    texts.limit = all.twin_count * (NETWORK_ID_MAX + 1) + 1;
    if (!buf_reserve(&texts, texts.limit))
        goto out;
    mark_twins(all.twins, all.twin_count, all.offers, &texts);
    error = market_build(all.offers, all.count, NULL, 0, ret);
out:
    buf_free(&texts);
    free(all.offers);
    free(all.twins);
    free(all.ids);
    return error;
}

static void on_build(struct timer *timer)
{
    struct networks *networks = container_of(timer, struct networks, build);
    struct market *market = NULL;
    int64_t start_ns = clock_mono_ns();
    enum error error = build(networks, &market);
    networks->built_ns = loop_now(networks->loop);
    networks->build_took_ns = clock_mono_ns() - start_ns;
    if (error) {
        log_error(NULL, "cannot build the market of networks: %s", error_text(error));
        networks_market_changed(networks);
        return;
    }
    market_unref(networks->market);
    networks->market = market;
    control_foreign_changed(networks->control);
}

void networks_market_init(struct networks *networks)
{
    networks->build.on_due = on_build;
}

void networks_market_changed(struct networks *networks)
{
    int64_t now_ns = loop_now(networks->loop), gap_ns = networks->build_took_ns * MARKET_SHARE;
    if (timer_is_set(&networks->build) || networks->is_shut)
        return;
    int64_t due_ns = networks->built_ns + (gap_ns > MARKET_EVERY_NS ? gap_ns : MARKET_EVERY_NS);
    if (!networks->market || market_count(networks->market) == 0 || due_ns < now_ns + FIRST_LOOK_NS)
        due_ns = now_ns + FIRST_LOOK_NS;
    timer_set(networks->loop, &networks->build, due_ns);
}

struct market *networks_market(struct networks *networks)
{
    return networks ? market_ref(networks->market) : NULL;
}

/* -- candidates -------------------------------------------------------------------------------------------------- */

static void copy(char *to, size_t size, struct str from)
{
    if (from.len >= size)
        from.len = size - 1;
    if (from.len)
        memcpy(to, from.ptr, from.len);
    to[from.len] = 0;
}

static struct lease_ranked ranked_of(const struct net *net, const struct offer_entry *entry, double score)
{
    const struct network_offer *of = &entry->of;
    struct lease_ranked ranked = {.score = score,
                                  .available = of->available,
                                  .is_stale = net_is_stale(net),
                                  .is_down = net_is_down(net) || !net->network};
    struct lease_candidate *candidate = &ranked.candidate;
    copy(candidate->network, sizeof(candidate->network), str_of(net->settings->id));
    copy(candidate->offer, sizeof(candidate->offer), of->id);
    offer_shown_id(&entry->digest, candidate->shown_offer);
    copy(candidate->gpu, sizeof(candidate->gpu), str_of(of->gpu));
    copy(candidate->gpu_raw, sizeof(candidate->gpu_raw), of->gpu_raw);
    copy(candidate->region, sizeof(candidate->region), of->region);
    copy(candidate->zone, sizeof(candidate->zone), of->zone.len ? of->zone : of->region);
    copy(candidate->origin, sizeof(candidate->origin), of->origin);
    candidate->gpus = of->gpus;
    candidate->network_price_usd_nano = of->price_usd_nano;
    candidate->interruptible = of->interruptible;
    if (!price_with_markup(of->price_usd_nano, net->settings->markup_bps, &candidate->price_usd_nano))
        candidate->price_usd_nano = INT64_MAX;
    return ranked;
}

static const struct offer_entry *entry_of(const struct networks *networks, struct str shown, const struct net **ret)
{
    struct offer_digest digest;
    for (size_t i = 0; offer_shown_parse(shown, &digest) && i < networks->count; i++) {
        const struct offer_entry *entry = offer_table_find(&networks->nets[i].table, &digest);
        *ret = &networks->nets[i];
        if (entry)
            return entry;
    }
    return NULL;
}

static size_t query_candidates(const struct networks *networks, const struct offer_query *query, size_t most,
                               struct lease_ranked *ret)
{
    size_t found = 0;
    struct offer_rank *ranks = calloc(most, sizeof(*ranks));
    if (!ranks)
        return 0;
    const struct market *market = networks->market;
    size_t count = rank_offers(&market, 1, query, 0, most, ranks);
    for (size_t i = 0; i < count; i++) {
        const struct net *net;
        const struct offer_entry *entry = entry_of(networks, market_id(market, ranks[i].row), &net);
        if (entry) /* else it has gone since */
            ret[found++] = ranked_of(net, entry, ranks[i].score);
    }
    free(ranks);
    return found;
}

/* A certain offer must be what was asked for like any other: what is held and charged follows the request, what is
 * created follows the offer. */
static bool offer_fits(const struct net *net, const struct network_offer *of, const struct lease_request *request)
{
    return of->gpus == request->gpus && of->gpu[0] && gpu_name_means(request->gpu, str_of(of->gpu)) && !of->is_slice &&
           !of->is_arm && (request->interruptible || !of->interruptible) &&
           (!request->network.len || str_eq(request->network, str_of(net->settings->id))) &&
           (!request->region.len || region_means(request->region, of->region, of->country)) &&
           offer_has_tags(of->tags, request->require);
}

size_t networks_candidates(struct networks *networks, const struct lease_request *request, size_t most,
                           struct lease_ranked *ret, size_t *ret_considered)
{
    const struct net *net;
    *ret_considered = 0;
    if (request->offer.len) {
        const struct offer_entry *entry = entry_of(networks, request->offer, &net);
        if (!entry || most == 0)
            return 0;
        *ret_considered = 1;
        if (!offer_fits(net, &entry->of, request))
            return 0;
        ret[0] = ranked_of(net, entry, 0);
        return 1;
    }
    if (!networks->market || most == 0)
        return 0;
    *ret_considered = rank_count(networks->market, request->gpu);
    struct offer_query query = {.gpu = request->gpu,
                                .count_min = request->gpus,
                                .count_max = request->gpus,
                                .region = request->region.len ? request->region : (struct str){NULL, 0},
                                .network = request->network.len ? request->network : (struct str){NULL, 0},
                                .require = request->require.len ? request->require : (struct str){NULL, 0},
                                .max_price_usd_nano = request->price_max_usd_nano,
                                .interruptible = request->interruptible ? -1 : 0,
                                .weights = weights_default(),
                                .without = OFFER_SLICE | OFFER_ARM,
                                .now_ms = clock_wall_ms()};
    if (!query.network.ptr)
        query.without |= OFFER_DOUBLE;
    if (request->prefer.len && !weights_parse(request->prefer, &query.weights))
        query.weights = weights_default(); /* the door of the API has refused such a text */
    size_t count = query_candidates(networks, &query, most, ret);
    if (count > 0)
        return count;
    /* None: those too dear, too old or of a network that is down tell why. */
    query.max_price_usd_nano = -1;
    query.now_ms = 0;
    query.sort = OFFER_BY_PRICE;
    return query_candidates(networks, &query, most, ret);
}
