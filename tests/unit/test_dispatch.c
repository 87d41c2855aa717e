#include "tests/unit/cmocka_all.h"

#include "tests/unit/market_fixture.h"
#include "scheduler/dispatch.h"

#include <math.h>
#include <string.h>

#define MAX 1100
#define NOW FIXTURE_NOW

/* A market of `count` replicas of one model, all linked. */
struct scene {
    struct worker *workers[MAX];
    struct offer offers[MAX];
    void *links[MAX];
    size_t count;
    struct market *market;
    struct dispatch_query query;
};

static struct scene scene;

static void add(int64_t price)
{
    struct worker *worker = fixture_worker((uint32_t)scene.count);
    scene.workers[scene.count] = worker;
    scene.offers[scene.count] = fixture_offer(worker, price);
    scene.links[scene.count] = worker;
    scene.count++;
}

static void build(const char *weights)
{
    assert_int_equal(market_build(scene.offers, scene.count, NULL, 0, &scene.market), ERR_NONE);
    scene.query = (struct dispatch_query){.model = market_model(scene.market, STR("llama"), NULL),
                                          .max_price_usd_nano = -1,
                                          .links = scene.links,
                                          .link_count = scene.count,
                                          .now_ns = NOW};
    assert_true(weights_parse(str_of(weights), &scene.query.weights));
}

static int teardown(void **state)
{
    (void)state;
    market_unref(scene.market);
    for (size_t i = 0; i < scene.count; i++) {
        assert_int_equal(atomic_load(&scene.workers[i]->refs), 1);
        worker_unref(scene.workers[i]);
    }
    memset(&scene, 0, sizeof(scene));
    return 0;
}

static uint32_t chosen(void)
{
    uint32_t row = MARKET_NONE;
    assert_int_equal(dispatch_choose(scene.market, &scene.query, &row), DISPATCH_CHOSEN);
    scene.query.random = scene.query.random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return row;
}

static enum dispatch_verdict verdict(void)
{
    uint32_t row = 12345;
    enum dispatch_verdict verdict = dispatch_choose(scene.market, &scene.query, &row);
    if (verdict != DISPATCH_CHOSEN)
        assert_int_equal(row, 12345);
    return verdict;
}

static void eject(uint32_t row)
{
    for (int i = 0; i < 3; i++) {
        worker_begin(scene.workers[row], NOW);
        worker_end(scene.workers[row], NOW, WORKER_FAILED, false);
    }
    assert_true(worker_is_ejected(scene.workers[row], NOW));
}

static void fill(uint32_t row)
{
    while (worker_has_free_slot(scene.workers[row]))
        worker_begin(scene.workers[row], NOW);
}

static void drain(uint32_t row)
{
    while (atomic_load(&scene.workers[row]->in_flight))
        worker_end(scene.workers[row], NOW, WORKER_DONE, false);
}

static void weights(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double price, latency, reputation; /* price < 0: refused */
    } cases[] = {
        {"price", 1, 0, 0},
        {"latency", 0, 1, 0},
        {" reputation ", 0, 0, 1},
        {"balanced", 0.5, 0.4, 0.1},
        {"price=0.6,latency=0.3,reputation=0.1", 0.6, 0.3, 0.1},
        {"latency=3, price=1", 0.25, 0.75, 0},
        {"price=0,reputation=5", 0, 0, 1},
        {"reputation=1e-3", 0, 0, 1},
        {"", -1, 0, 0},
        {"cheap", -1, 0, 0},
        {"Price", -1, 0, 0},
        {"price,latency", -1, 0, 0},
        {"price=", -1, 0, 0},
        {"price=0", -1, 0, 0},
        {"price=-1", -1, 0, 0},
        {"price=1,price=1", -1, 0, 0},
        {"price=1,", -1, 0, 0},
        {"price=nan", -1, 0, 0},
        {"price=inf", -1, 0, 0},
        {"price=1e300,latency=1e300", -1, 0, 0},
        {"price=1;latency=1", -1, 0, 0},
        {"balanced=1", -1, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct weights got = {7, 7, 7};
        bool ok = weights_parse(str_of(cases[i].text), &got);
        assert_int_equal(ok, cases[i].price >= 0);
        if (!ok) {
            assert_true(got.price == 7);
            continue;
        }
        assert_true(fabs(got.price - cases[i].price) < 1e-9 && fabs(got.latency - cases[i].latency) < 1e-9 &&
                    fabs(got.reputation - cases[i].reputation) < 1e-9);
    }
    struct weights balanced = weights_default();
    assert_true(fabs(balanced.price + balanced.latency + balanced.reputation - 1) < 1e-9);
}

static void preferences(void **state)
{
    (void)state;
    add(CENTS(40)); /* dear, fast, of middling repute */
    add(CENTS(10)); /* cheap, slow */
    add(CENTS(20));
    scene.offers[2].reputation = 0.95;
    worker_first_byte(scene.workers[0], NOW, 5 * NS_PER_MS);
    worker_first_byte(scene.workers[1], NOW, 400 * NS_PER_MS);
    worker_first_byte(scene.workers[2], NOW, 200 * NS_PER_MS);
    static const char *const prefers[] = {"latency", "price", "reputation"};
    for (uint32_t i = 0; i < 3; i++) {
        market_unref(scene.market);
        build(prefers[i]);
        for (uint64_t affinity = 0; affinity < 20; affinity++) {
            scene.query.affinity = affinity;
            assert_int_equal(chosen(), i);
        }
    }
}

static void max_price(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(10) + 1);
    build("latency");
    worker_first_byte(scene.workers[0], NOW, 900 * NS_PER_MS);
    assert_int_equal(chosen(), 1);
    scene.query.max_price_usd_nano = CENTS(10);
    assert_int_equal(chosen(), 0); /* equal fits */
    scene.query.max_price_usd_nano = CENTS(10) - 1;
    assert_int_equal(verdict(), DISPATCH_NO_MATCH);
    scene.query.max_price_usd_nano = 0;
    assert_int_equal(verdict(), DISPATCH_NO_MATCH);
}

static void region_and_tags(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(90));
    scene.offers[1].region = STR("us-east");
    scene.offers[1].tags = STR("gdpr,hipaa");
    build("price");
    assert_int_equal(chosen(), 0);
    scene.query.region = STR("US-East");
    assert_int_equal(chosen(), 1);
    scene.query.require = STR("hipaa");
    assert_int_equal(chosen(), 1);
    scene.query.region = STR("eu-west");
    assert_int_equal(verdict(), DISPATCH_NO_MATCH);
    scene.query.region = STR("mars");
    scene.query.require = (struct str){NULL, 0};
    assert_int_equal(verdict(), DISPATCH_NO_MATCH);
    scene.query.region = (struct str){NULL, 0};
    scene.query.require = STR("gdpr,iso");
    assert_int_equal(verdict(), DISPATCH_NO_MATCH);
}

static void full_and_waiting(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(20));
    build("price");
    fill(0);
    assert_int_equal(chosen(), 1); /* the next best rather than waiting */
    fill(1);
    assert_int_equal(verdict(), DISPATCH_FULL);
    drain(0);
    assert_int_equal(chosen(), 0);
    worker_begin(scene.workers[0], NOW);
    worker_end(scene.workers[0], NOW, WORKER_REFUSED, false);
    assert_int_equal(verdict(), DISPATCH_FULL);
    scene.query.now_ns = NOW + NS_PER_S;
    assert_int_equal(chosen(), 0);
    drain(1);
    scene.links[0] = scene.links[1] = NULL;
    assert_int_equal(verdict(), DISPATCH_FULL);
    scene.query.links = NULL;
    assert_int_equal(verdict(), DISPATCH_FULL);
    scene.query.links = scene.links;
    scene.links[1] = &scene;
    assert_int_equal(chosen(), 1);
    scene.query.link_count = 1;
    assert_int_equal(verdict(), DISPATCH_FULL);
}

static void retries(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(20));
    add(CENTS(30));
    build("price");
    scene.query.tried[scene.query.tried_count++] = scene.workers[0];
    assert_int_equal(chosen(), 1);
    scene.query.tried[scene.query.tried_count++] = scene.workers[1];
    assert_int_equal(chosen(), 2);
    fill(2);
    assert_int_equal(verdict(), DISPATCH_FULL);
    drain(2);
    eject(2);
    assert_int_equal(verdict(), DISPATCH_NONE_LEFT); /* waiting for an ejected one is for first tries */
    scene.query.tried[scene.query.tried_count++] = scene.workers[2];
    assert_int_equal(verdict(), DISPATCH_NONE_LEFT);
}

static void only_live_ones(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(20));
    build("price");
    atomic_store(&scene.workers[0]->draining, true);
    assert_int_equal(chosen(), 1);
    assert_int_equal(dispatch_fitting(scene.market, &scene.query), 1);
    atomic_store(&scene.workers[1]->upstream_ok, false);
    assert_int_equal(verdict(), DISPATCH_FULL);
    assert_int_equal(dispatch_fitting(scene.market, &scene.query), 0);
    atomic_store(&scene.workers[0]->draining, false);
    assert_int_equal(chosen(), 0);
    scene.query.now_ns = NOW + 6 * NS_PER_S;
    assert_int_equal(verdict(), DISPATCH_FULL);
}

static void ejected_ones(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(20));
    add(CENTS(30));
    scene.offers[2].region = STR("us-east");
    build("price");
    eject(0);
    assert_int_equal(chosen(), 1);
    eject(1);
    assert_int_equal(chosen(), 2);
    scene.query.region = STR("eu-west");
    assert_int_equal(dispatch_fitting(scene.market, &scene.query), 0);
    assert_int_equal(verdict(), DISPATCH_FULL); /* another replica of the model still serves */
    eject(2);
    assert_int_equal(chosen(), 0); /* all ejected: better than nobody */
}

/* Ejected for what it did with one model: it still serves the model that nobody else has. */
static void ejected_but_the_last_of_another_model(void **state)
{
    (void)state;
    static const struct str both[] = {{"llama", 5}, {"embed", 5}};
    add(CENTS(10));
    add(CENTS(20));
    scene.offers[0].models = both;
    scene.offers[0].model_count = 2;
    build("price");
    eject(0);
    assert_int_equal(chosen(), 1);
    scene.query.model = market_model(scene.market, STR("embed"), NULL);
    assert_int_equal(chosen(), 0);
    struct dispatch_candidate all[2];
    assert_int_equal(dispatch_explain(scene.market, &scene.query, all, 2), 1);
    assert_null(all[0].rejected);
}

static void ramps_back(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(20));
    build("price");
    eject(0);
    for (int seconds = 5; seconds <= 15; seconds += 5) {
        int first = 0;
        scene.query.now_ns = NOW + seconds * NS_PER_S;
        for (int i = 0; i < 2; i++)
            atomic_store(&scene.workers[i]->heard_ns, scene.query.now_ns);
        for (int i = 0; i < 2000; i++)
            first += chosen() == 0;
        if (seconds == 5)
            assert_true(first > 100 && first < 300); /* a tenth */
        else if (seconds == 10)
            assert_true(first > 850 && first < 1150); /* half */
        else
            assert_int_equal(first, 2000);
    }
    scene.query.now_ns = NOW + 5 * NS_PER_S;
    fill(1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(chosen(), 0); /* nobody else is there */
}

static void two_choices_spread_the_load(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        add(CENTS(10));
    build("price");
    for (int i = 0; i < 30; i++) {
        uint32_t row = chosen();
        worker_begin(scene.workers[row], NOW);
    }
    int most = 0;
    for (int i = 0; i < 10; i++) {
        int now = atomic_load(&scene.workers[i]->in_flight);
        most = now > most ? now : most;
        assert_true(now >= 1);
    }
    assert_true(most <= 4); /* chance alone would fill some and leave others idle */
    for (uint32_t i = 0; i < 10; i++)
        drain(i);
}

static void a_burst_does_not_run_to_the_unmeasured(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(10));
    build("latency");
    for (int i = 0; i < 5; i++)
        worker_first_byte(scene.workers[0], NOW, 50 * NS_PER_MS);
    assert_int_equal(chosen(), 1); /* tried once */
    worker_begin(scene.workers[1], NOW);
    assert_int_equal(chosen(), 0);
    drain(1);
}

static void affinity_is_stable(void **state)
{
    (void)state;
    int homes[6] = {0};
    for (int i = 0; i < 5; i++)
        add(CENTS(10));
    add(CENTS(50)); /* of another price: never a home */
    build("balanced");
    for (uint64_t session = 1; session <= 500; session++) {
        scene.query.affinity = session * UINT64_C(0x9e3779b97f4a7c15);
        uint32_t home = chosen();
        homes[home]++;
        for (int i = 0; i < 5; i++) { /* busy, slow for once, other random bits: still the home */
            if (i < 3)
                worker_begin(scene.workers[home], NOW);
            assert_int_equal(chosen(), home);
        }
        fill(home);
        uint32_t second = chosen();
        assert_int_not_equal(second, home);
        assert_int_equal(chosen(), second); /* yields to the same other one */
        drain(home);
    }
    for (int i = 0; i < 5; i++)
        assert_true(homes[i] > 60 && homes[i] < 140);
    assert_int_equal(homes[5], 0);
}

static void affinity_moves_little(void **state)
{
    (void)state;
    uint32_t homes[300];
    for (int i = 0; i < 6; i++)
        add(CENTS(10));
    build("balanced");
    for (uint64_t s = 0; s < 300; s++) {
        scene.query.affinity = (s + 1) * UINT64_C(0x9e3779b97f4a7c15);
        homes[s] = chosen();
    }
    atomic_store(&scene.workers[3]->draining, true);
    for (uint64_t s = 0; s < 300; s++) {
        scene.query.affinity = (s + 1) * UINT64_C(0x9e3779b97f4a7c15);
        uint32_t now = chosen();
        assert_true(homes[s] == 3 ? now != 3 : now == homes[s]);
    }
}

static void affinity_survives_noise_but_not_slowness(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(10));
    build("balanced");
    scene.query.affinity = 1;
    uint32_t home = chosen(), other = !home;
    worker_first_byte(scene.workers[home], NOW, 400 * NS_PER_MS); /* a cold start while the other is not measured */
    assert_int_equal(chosen(), home);
    for (int i = 0; i < 3; i++) {
        worker_first_byte(scene.workers[other], NOW, 4 * NS_PER_MS);
        worker_first_byte(scene.workers[home], NOW, 5 * NS_PER_MS);
    }
    assert_int_equal(chosen(), home);
    worker_first_byte(scene.workers[home], NOW, 900 * NS_PER_MS);
    assert_int_equal(chosen(), home);
    for (int i = 0; i < 100; i++)
        worker_first_byte(scene.workers[home], NOW, 900 * NS_PER_MS); /* really slower, for long */
    assert_int_equal(chosen(), other);
}

/* One that has earned little gets no more value at once than that covers, however many slots it tells. */
static void exposure_bounds_what_is_in_flight(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(10));
    scene.offers[0].calls_max = 2;
    build("balanced");
    struct dispatch_candidate got[2];
    scene.query.max_price_usd_nano = -1;
    atomic_store(&scene.workers[1]->draining, true);
    assert_int_equal(chosen(), 0);
    worker_begin(scene.workers[0], NOW);
    assert_int_equal(chosen(), 0);
    atomic_store(&scene.workers[0]->reported, 3); /* what it says itself widens nothing and narrows nothing */
    assert_int_equal(chosen(), 0);
    worker_begin(scene.workers[0], NOW);
    uint32_t row;
    assert_int_equal(dispatch_choose(scene.market, &scene.query, &row), DISPATCH_FULL);
    assert_int_equal(dispatch_explain(scene.market, &scene.query, got, 2), 2);
    assert_true(got[0].row != 0 || strncmp(got[0].rejected, "exposure", 8) == 0);
    assert_true(got[1].row != 0 || strncmp(got[1].rejected, "exposure", 8) == 0);
    worker_end(scene.workers[0], NOW, WORKER_DONE, false);
    assert_int_equal(chosen(), 0);
    worker_end(scene.workers[0], NOW, WORKER_DONE, false);
}

static void affinity_minds_failures_but_not_experience(void **state)
{
    (void)state;
    int homes[3] = {0};
    static const double reputations[] = {0.98, 0.26, 0.05}; /* a veteran, a newcomer, one that fails */
    for (int i = 0; i < 3; i++) {
        add(CENTS(10));
        scene.offers[i].reputation = reputations[i];
    }
    build("price=0.5,latency=0.2,reputation=0.3");
    for (uint64_t session = 1; session <= 100; session++) {
        scene.query.affinity = session * UINT64_C(0x9e3779b97f4a7c15);
        homes[chosen()]++;
    }
    assert_true(homes[0] > 30 && homes[1] > 30);
    assert_int_equal(homes[2], 0);
    assert_true(weights_parse(STR("reputation"), &scene.query.weights));
    assert_int_equal(chosen(), 0);
}

static void affinity_gives_way_to_latency_asked_for(void **state)
{
    (void)state;
    add(CENTS(10));
    add(CENTS(10));
    build("latency");
    scene.query.affinity = 1;
    uint32_t home = chosen();
    worker_first_byte(scene.workers[home], NOW, 100 * NS_PER_MS);
    assert_int_not_equal(chosen(), home);
    worker_first_byte(scene.workers[!home], NOW, 98 * NS_PER_MS);
    assert_int_equal(chosen(), home);
}

/* -- properties over random markets -- */

static unsigned seed = 1;
static int64_t below(int64_t n)
{
    seed = seed * 1103515245u + 12345u;
    return (int64_t)(seed >> 8) % n;
}

static void better_everywhere_never_ranks_lower(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        size_t count = (size_t)below(8) + 2;
        int64_t ttfb[10];
        for (size_t i = 0; i < count; i++) {
            add(below(4) ? CENTS(below(300)) : below(2) ? 0 : CENTS(900000)); /* free and absurd ones too */
            scene.offers[i].reputation = (double)below(100) / 100;
            ttfb[i] = (below(500) + 1) * NS_PER_MS;
            worker_first_byte(scene.workers[i], NOW, ttfb[i]);
        }
        build("price=0.5,latency=0.3,reputation=0.2");
        struct dispatch_candidate got[10];
        assert_int_equal(dispatch_explain(scene.market, &scene.query, got, 10), count);
        for (size_t i = 0; i < count; i++) {
            assert_null(got[i].rejected);
            assert_true(got[i].price >= 0 && got[i].price <= 1 && got[i].latency >= 0 && got[i].latency <= 1 &&
                        got[i].reputation >= 0 && got[i].reputation <= 1);
            double sum = 0.5 * got[i].price + 0.3 * got[i].latency + 0.2 * got[i].reputation;
            assert_true(fabs(sum - got[i].score) < 1e-12);
            for (size_t j = i + 1; j < count; j++) {
                const struct offer *a = &scene.offers[got[j].row], *b = &scene.offers[got[i].row];
                bool dominates = a->price_usd_nano < b->price_usd_nano && a->reputation >= b->reputation &&
                                 ttfb[got[j].row] <= ttfb[got[i].row];
                assert_false(dominates);
            }
        }
        teardown(NULL);
    }
}

static void constraints_always_hold(void **state)
{
    (void)state;
    static const char *const regions[] = {"eu-west", "us-east"}, *const tag_lists[] = {"", "gdpr", "gdpr,hipaa"};
    for (int round = 0; round < 300; round++) {
        size_t count = (size_t)below(12) + 1;
        for (size_t i = 0; i < count; i++) {
            add(CENTS(below(50)));
            scene.offers[i].region = str_of(regions[below(2)]);
            scene.offers[i].tags = str_of(tag_lists[below(3)]);
        }
        build("balanced");
        for (uint32_t i = 0; i < count; i++) {
            int64_t fate = below(8);
            if (fate == 0)
                fill(i);
            if (fate == 1)
                eject(i);
            if (fate == 2)
                atomic_store(&scene.workers[i]->draining, true);
            if (fate == 3)
                scene.links[i] = NULL;
        }
        scene.query.max_price_usd_nano = below(2) ? CENTS(below(50)) : -1;
        scene.query.region = below(2) ? str_of(regions[below(2)]) : (struct str){NULL, 0};
        scene.query.require = below(2) ? STR("gdpr") : (struct str){NULL, 0};
        scene.query.affinity = (uint64_t)below(3);
        if (below(2))
            scene.query.tried[scene.query.tried_count++] = scene.workers[0];
        uint32_t row;
        enum dispatch_verdict got = dispatch_choose(scene.market, &scene.query, &row);
        struct dispatch_candidate all[16];
        size_t fitting = 0, explained = dispatch_explain(scene.market, &scene.query, all, 16);
        assert_int_equal(explained, count); /* candidates and rejected together are all */
        for (size_t i = 0; i < explained; i++) {
            fitting += !all[i].rejected;
            if (got == DISPATCH_CHOSEN && all[i].row == row)
                assert_null(all[i].rejected);
        }
        assert_int_equal(fitting > 0, got == DISPATCH_CHOSEN);
        if (got == DISPATCH_CHOSEN) {
            const struct offer *offer = &scene.offers[row];
            assert_true(scene.query.max_price_usd_nano < 0 || offer->price_usd_nano <= scene.query.max_price_usd_nano);
            assert_true(!scene.query.region.ptr || str_eq(offer->region, scene.query.region));
            assert_true(!scene.query.require.ptr || str_starts(offer->tags, STR("gdpr")));
            assert_true(scene.query.tried_count == 0 || row != 0);
            assert_true(worker_is_live(scene.workers[row], NOW) && worker_has_free_slot(scene.workers[row]) &&
                        scene.links[row]);
        }
        for (uint32_t i = 0; i < count; i++)
            drain(i);
        teardown(NULL);
    }
}

static void explains(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++)
        add(CENTS(10 + i));
    scene.offers[1].region = STR("us-east");
    for (int i = 0; i < 9; i++)
        scene.offers[i].tags = i == 2 ? STR("gdpr") : STR("hipaa,gdpr");
    build("price");
    fill(3);
    eject(4);
    scene.links[5] = NULL;
    atomic_store(&scene.workers[6]->draining, true);
    scene.query.tried[scene.query.tried_count++] = scene.workers[7];
    scene.query.region = STR("eu-west");
    scene.query.require = STR("gdpr, HIPAA");
    scene.query.max_price_usd_nano = CENTS(17);
    static const char *const reasons[9] = {NULL,           "region differs",         "required tag missing",
                                           "no free slot", "ejected after failures", "not linked to this gateway",
                                           "draining",     "already tried",          "price above x-sluice-max-price"};
    struct dispatch_candidate all[20];
    assert_int_equal(dispatch_explain(scene.market, &scene.query, all, 20), 9);
    assert_int_equal(all[0].row, 0);
    for (int i = 0; i < 9; i++) {
        const char *want = reasons[all[i].row];
        if (!want)
            assert_null(all[i].rejected);
        else
            assert_string_equal(all[i].rejected, want);
        assert_true(str_eq(all[i].missing_tag, all[i].row == 2 ? STR("HIPAA") : STR("")));
    }
    /* with less room the best stay */
    scene.query.tried_count = 0;
    scene.query.require = scene.query.region = (struct str){NULL, 0};
    assert_int_equal(dispatch_explain(scene.market, &scene.query, all, 4), 4);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(all[i].row, i);
    assert_int_equal(all[3].row, 7);
    assert_int_equal(dispatch_explain(scene.market, &scene.query, all, 0), 0);
    drain(3);
}

static void more_replicas_than_are_looked_at(void **state)
{
    (void)state;
    for (int i = 0; i < MAX; i++)
        add(CENTS(10));
    build("price");
    bool beyond = false;
    for (int i = 0; i < 200; i++)
        beyond |= chosen() >= 1024;
    assert_true(beyond);
}

static void one_absurd_price_does_not_reorder(void **state)
{
    (void)state;
    double gap[2];
    for (int absurd = 0; absurd < 2; absurd++) {
        for (int i = 0; i < 4; i++)
            add(CENTS(10 * (i + 1)));
        add(absurd ? CENTS(90000000) : CENTS(50));
        build("balanced");
        struct dispatch_candidate all[5];
        assert_int_equal(dispatch_explain(scene.market, &scene.query, all, 5), 5);
        for (uint32_t i = 0; i < 5; i++)
            assert_int_equal(all[i].row, i);
        gap[absurd] = all[3].score - all[0].score;
        teardown(NULL);
    }
    assert_true(fabs(gap[0] - gap[1]) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights),
        cmocka_unit_test_teardown(preferences, teardown),
        cmocka_unit_test_teardown(max_price, teardown),
        cmocka_unit_test_teardown(region_and_tags, teardown),
        cmocka_unit_test_teardown(full_and_waiting, teardown),
        cmocka_unit_test_teardown(retries, teardown),
        cmocka_unit_test_teardown(only_live_ones, teardown),
        cmocka_unit_test_teardown(ejected_ones, teardown),
        cmocka_unit_test_teardown(ejected_but_the_last_of_another_model, teardown),
        cmocka_unit_test_teardown(ramps_back, teardown),
        cmocka_unit_test_teardown(two_choices_spread_the_load, teardown),
        cmocka_unit_test_teardown(a_burst_does_not_run_to_the_unmeasured, teardown),
        cmocka_unit_test_teardown(affinity_is_stable, teardown),
        cmocka_unit_test_teardown(affinity_moves_little, teardown),
        cmocka_unit_test_teardown(affinity_survives_noise_but_not_slowness, teardown),
        cmocka_unit_test_teardown(exposure_bounds_what_is_in_flight, teardown),
        cmocka_unit_test_teardown(affinity_minds_failures_but_not_experience, teardown),
        cmocka_unit_test_teardown(affinity_gives_way_to_latency_asked_for, teardown),
        cmocka_unit_test_teardown(better_everywhere_never_ranks_lower, teardown),
        cmocka_unit_test_teardown(constraints_always_hold, teardown),
        cmocka_unit_test_teardown(explains, teardown),
        cmocka_unit_test_teardown(more_replicas_than_are_looked_at, teardown),
        cmocka_unit_test_teardown(one_absurd_price_does_not_reorder, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
