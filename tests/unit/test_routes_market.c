/* The handlers of offers and of the dry run, over a small market. */
#include "tests/unit/routes_fixture.h"

#include "gateway/networks.h"
#include "gateway/prefer.h"

static const struct {
    const char *id, *gpu, *region;
    int64_t price_usd_nano;
    uint64_t vram_gib;
} rows[] = {
    {"wrk_a", "nvidia/rtx4090-24", "eu-west", 500000000, 24},
    {"wrk_b", "nvidia/a100-sxm-80", "us-east", 1000000000, 80},
    {"wrk_c", "nvidia/h100-sxm-80", "eu-west", 3000000000, 80},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* In place of the control thread. */
void networks_json(struct control *control, struct reactor *reactor, void (*done)(void *ctx, json_t *take_list),
                   void *ctx)
{
    (void)control, (void)reactor;
    done(ctx, json_pack("[{s:s}]", "id", "vast-main"));
}

struct world {
    struct fixture *fixture;
    struct gateway gateway;
    struct worker *workers[ROWS];
    struct hub_reactor *hub;
    struct snapshot *native, *foreign; /* the rows as workers without a link, and as another network's */
};

static void on_link(void *ctx, struct worker *worker, bool is_up)
{
    (void)ctx, (void)worker, (void)is_up;
}

static void on_status(void *ctx, struct worker *worker, const struct worker_status *status)
{
    (void)ctx, (void)worker, (void)status;
}

static struct snapshot *small_market(struct world *world, bool is_native)
{
    static const struct str models[] = {{"m", 1}};
    static const struct model_alias alias = {{"nick", 4}, {"m", 1}};
    struct offer offers[ROWS];
    struct market *market;
    for (size_t i = 0; i < ROWS; i++) {
        if (is_native)
            world->workers[i] = worker_new(rows[i].id, (uint32_t)i);
        offers[i] = (struct offer){.id = str_of(rows[i].id),
                                   .network = STR("native"),
                                   .gpu = str_of(rows[i].gpu),
                                   .gpu_raw = STR("as told"),
                                   .region = str_of(rows[i].region),
                                   .supplier = STR("s"),
                                   .tags = STR("gdpr"),
                                   .models = models,
                                   .model_count = 1,
                                   .worker = is_native ? world->workers[i] : NULL,
                                   .is_ready = true,
                                   .gpus = 1,
                                   .slots = 1,
                                   .price_usd_nano = rows[i].price_usd_nano,
                                   .vram_bytes = rows[i].vram_gib << 30,
                                   .reputation = 0.5,
                                   .performance = 1,
                                   .completion = 1,
                                   .latency_ns = 1500000,
                                   .observed_at_ms = 1234};
    }
    assert_int_equal(market_build(offers, ROWS, &alias, 1, &market), ERR_NONE);
    return snapshot_new(market, NULL, NULL, true);
}

static int world_open(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    static const struct hub_events events = {on_link, on_status};
    void *fixture;
    if (setup(&fixture) != 0)
        return -1;
    world->fixture = fixture;
    struct reactor *reactor = &world->fixture->reactor;
    world->native = small_market(world, true);
    world->foreign = small_market(world, false);
    if (!world->native || !world->foreign || hub_reactor_open(reactor->loop, 0, &events, NULL, &world->hub) != ERR_NONE)
        return -1;
    reactor->hub = world->hub;
    reactor->gateway = &world->gateway;
    *state = world;
    return 0;
}

static int world_close(void **state)
{
    struct world *world = *state;
    void *fixture = world->fixture;
    snapshot_unref(world->native);
    snapshot_unref(world->foreign);
    hub_reactor_free(world->hub);
    for (size_t i = 0; i < ROWS; i++)
        worker_unref(world->workers[i]);
    free(world);
    return teardown(&fixture);
}

static struct fixture *fixture_with(void **state, bool is_native)
{
    struct world *world = *state;
    world->fixture->reactor.snapshot = is_native ? world->native : world->foreign;
    return world->fixture;
}

static json_t *data_of(const struct fixture *fixture)
{
    return json_object_get(fixture->json, "data");
}

static void test_offer_fields(void **state)
{
    struct fixture *fixture = fixture_with(state, false);
    assert_int_equal(get(fixture, route_offers, "gpu=H100&explain=1", NULL, "ten_1"), 200);
    assert_int_equal(json_array_size(data_of(fixture)), 1);
    const json_t *row = json_array_get(data_of(fixture), 0);
    static const char *const fields[] = {"id",
                                         "network",
                                         "gpu",
                                         "gpu_raw",
                                         "gpu_claimed",
                                         "effective_price_per_gpu_hour_usd",
                                         "performance",
                                         "count",
                                         "vram_gib",
                                         "region",
                                         "price_per_gpu_hour_usd",
                                         "interruptible",
                                         "reputation",
                                         "latency_ms",
                                         "observed_at",
                                         "score",
                                         "parts",
                                         "country",
                                         "available",
                                         "unproven",
                                         "estimate",
                                         "slice",
                                         "also",
                                         "expires_at"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        assert_non_null(json_object_get(row, fields[i]));
    assert_string_equal(json_string_value(json_object_get(row, "price_per_gpu_hour_usd")), "3.00");
    assert_int_equal(json_integer_value(json_object_get(row, "vram_gib")), 80);
    assert_true(json_is_false(json_object_get(row, "interruptible")));
    assert_int_equal(json_object_size(json_object_get(row, "parts")), 3);
    assert_int_equal(json_object_size(json_object_get(row, "reputation_parts")), 4);
    assert_int_equal(get(fixture, route_offers, "gpu=H100", NULL, NULL), 200);
    assert_null(json_object_get(json_array_get(data_of(fixture), 0), "reputation_parts"));
    assert_null(json_object_get(json_array_get(data_of(fixture), 0), "parts"));
}

static void test_offer_filters(void **state)
{
    struct fixture *fixture = fixture_with(state, false);
    static const struct {
        const char *query;
        size_t count;
    } cases[] = {{"", 3},
                 {"region=eu-west", 2},
                 {"max_price=1", 2},
                 {"max_price=0.999999999", 1},
                 {"min_vram_gib=48", 2},
                 {"min_vram_gib=24.5", 2},
                 {"network=vast", 0},
                 {"count=2", 0},
                 {"count=1&interruptible=false", 3},
                 {"interruptible=true", 0},
                 {"require=GDPR", 3},
                 {"require=hipaa", 0},
                 {"gpu=RTX+4090", 1},
                 {"gpu=nvidia%2Fa100-sxm-80", 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(get(fixture, route_offers, cases[i].query, NULL, NULL), 200);
        if (json_array_size(data_of(fixture)) != cases[i].count)
            fail_msg("%s: %zu rows", cases[i].query, json_array_size(data_of(fixture)));
    }
}

static void test_offer_pages(void **state)
{
    struct fixture *fixture = fixture_with(state, false);
    char query[64] = "sort=price&limit=2", next[32];
    assert_int_equal(get(fixture, route_offers, query, NULL, NULL), 200);
    assert_int_equal(json_array_size(data_of(fixture)), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(data_of(fixture), 0), "id")), "wrk_a");
    assert_true(str_copy(next, sizeof(next), str_of(text_at(fixture, "next"))));
    snprintf(query, sizeof(query), "sort=price&limit=2&cursor=%s", next);
    assert_int_equal(get(fixture, route_offers, query, NULL, NULL), 200);
    assert_int_equal(json_array_size(data_of(fixture)), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(data_of(fixture), 0), "id")), "wrk_c");
    assert_true(json_is_null(json_object_get(fixture->json, "next")));
}

static void test_nonsense_in_an_offer_query(void **state)
{
    struct fixture *fixture = fixture_with(state, false);
    static const char *const cases[][2] = {{"count=x", "count"},
                                           {"count=-1", "count"},
                                           {"max_price=cheap", "max_price"},
                                           {"sort=colour", "sort"},
                                           {"limit=0", "limit"},
                                           {"limit=99999999999", "limit"},
                                           {"min_vram_gib=lots", "min_vram_gib"},
                                           {"min_vram_gib=-1", "min_vram_gib"},
                                           {"prefer=x", "prefer"},
                                           {"nonsense=1", "nonsense"},
                                           {"interruptible=maybe", "interruptible"},
                                           {"cursor=@@@", "cursor"},
                                           {"cursor=o0", "cursor"},
                                           {"cursor=o99999999999", "cursor"},
                                           {"explain=2", "explain"},
                                           {"require=a%20b", "require"},
                                           {"region=", "region"},
                                           {"gpu=", "gpu"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(get(fixture, route_offers, cases[i][0], NULL, NULL), 400);
        assert_string_equal(error_at(fixture, "param"), cases[i][1]);
    }
}

static int dry_run(struct fixture *fixture, const char *body, const char *header, const char *value)
{
    const char *headers[] = {header, value, NULL};
    struct test_call *test = call_new(fixture, "ten_1");
    test->api.method = STR("POST");
    test->api.body = str_of(body);
    test->headers = headers;
    route_dry_run(&test->api);
    return answered(fixture);
}

static void test_dry_run(void **state)
{
    struct fixture *fixture = fixture_with(state, true);
    static const char *const bodies[] = {"{\"model\":\"m\"}", "{\"model\":\"nick\",\"messages\":[{}],\"n\":1,\"n\":2}"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(dry_run(fixture, bodies[i], PREFER_HEADER_MAX_PRICE, "1"), 200);
        json_t *candidates = json_object_get(fixture->json, "candidates");
        json_t *rejected = json_object_get(fixture->json, "rejected");
        assert_int_equal(json_array_size(candidates) + json_array_size(rejected), ROWS);
        bool is_dear_one_rejected = false;
        for (size_t r = 0; r < json_array_size(rejected); r++) {
            const json_t *row = json_array_get(rejected, r);
            assert_non_null(json_string_value(json_object_get(row, "reason")));
            is_dear_one_rejected |= strcmp(json_string_value(json_object_get(row, "worker")), "wrk_c") == 0;
        }
        assert_true(is_dear_one_rejected);
    }
    assert_int_equal(dry_run(fixture, "{\"model\":\"m\"}", PREFER_HEADER_PREFER, "cheap"), 400);
    assert_string_equal(error_at(fixture, "param"), PREFER_HEADER_PREFER);
    assert_int_equal(dry_run(fixture, "{\"model\":\"m\"}", PREFER_HEADER_MAX_PRICE, ""), 400);
    assert_int_equal(dry_run(fixture, "{\"model\":\"unknown\"}", NULL, NULL), 404);
    assert_string_equal(error_at(fixture, "code"), "model_not_found");
    static const char *const bad[] = {"", "[]", "{", "{\"model\":5}", "{\"model\":\"\"}", "{}", "{\"model\":\"m\"}x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(dry_run(fixture, bad[i], NULL, NULL), 400);
}

/* A worker whose link is gone is no offer, though the market still knows it. */
static void test_workers_without_a_link(void **state)
{
    struct fixture *fixture = fixture_with(state, true);
    assert_int_equal(get(fixture, route_offers, "limit=1", NULL, NULL), 200);
    assert_int_equal(json_array_size(data_of(fixture)), 0);
    assert_true(json_is_null(json_object_get(fixture->json, "next")));
    assert_int_equal(get(fixture, route_networks, "", NULL, NULL), 200);
    const json_t *native = json_array_get(data_of(fixture), 0);
    assert_string_equal(json_string_value(json_object_get(native, "id")), "native");
    assert_int_equal(json_integer_value(json_object_get(native, "offers")), 0);
    const json_t *other = json_array_get(data_of(fixture), 1);
    assert_string_equal(json_string_value(json_object_get(other, "id")), "vast-main");
}

/* Beside our workers, what another network offers, with what is special of it; nothing that was seen too long ago. */
static void test_offers_of_networks(void **state)
{
    struct world *world = *state;
    struct fixture *fixture = world->fixture;
    struct sighting *sighting = sighting_new(1000);
    struct offer offers[4];
    for (size_t i = 0; i < 4; i++)
        offers[i] = (struct offer){.id = STR("off_1"),
                                   .network = STR("vast-main"),
                                   .sighting = sighting,
                                   .gpu = STR("nvidia/l4-24"),
                                   .gpu_raw = STR("L4"),
                                   .gpus = 1,
                                   .country = STR("SE"),
                                   .terms = STR("{\"amount\":\"1\"}"),
                                   .also = STR("b,c"),
                                   .available = 3,
                                   .marks = OFFER_UNPROVEN,
                                   .price_usd_nano = 1000,
                                   .performance = 1,
                                   .completion = 1};
    offers[1].gpu = STR(OFFER_GPU_UNKNOWN);
    offers[2].marks = OFFER_SLICE;
    offers[2].fraction_ppm = 500000;
    offers[3].marks = OFFER_DOUBLE;
    struct market *market;
    assert_int_equal(market_build(offers, 4, NULL, 0, &market), ERR_NONE);
    struct snapshot *snapshot = snapshot_new(market_ref(world->foreign->market), market, NULL, true);
    fixture->reactor.snapshot = snapshot;
    static const struct {
        const char *query;
        size_t count;
    } cases[] = {{"", 4},          {"gpu=l4", 1},         {"gpu=l4&slices=1", 2},  {"gpu=unknown", 1},
                 {"region=se", 1}, {"network=native", 3}, {"network=vast-main", 2}};
    for (int is_stale = 0; is_stale < 2; is_stale++) {
        atomic_store(&sighting->at_ms, is_stale ? clock_wall_ms() - 1100 : clock_wall_ms() + 60000);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            assert_int_equal(get(fixture, route_offers, cases[i].query, NULL, NULL), 200);
            size_t ours = i == 0 || i == 5 ? ROWS : 0, count = is_stale ? ours : cases[i].count;
            if (json_array_size(data_of(fixture)) != count)
                fail_msg("%s: %zu rows", cases[i].query, json_array_size(data_of(fixture)));
        }
        if (is_stale)
            continue;
        assert_int_equal(get(fixture, route_offers, "gpu=l4&explain=1", NULL, NULL), 200);
        const json_t *row = json_array_get(data_of(fixture), 0);
        assert_string_equal(json_string_value(json_object_get(row, "country")), "SE");
        assert_int_equal(json_integer_value(json_object_get(row, "available")), 3);
        assert_true(json_is_true(json_object_get(row, "unproven")));
        assert_int_equal(json_array_size(json_object_get(row, "also")), 2);
        assert_int_equal(json_integer_value(json_object_get(row, "expires_at")),
                         json_integer_value(json_object_get(row, "observed_at")) + 1000);
        assert_string_equal(json_string_value(json_object_get(json_object_get(row, "terms"), "amount")), "1");
        assert_int_equal(get(fixture, route_offers, "slices=1&sort=price&limit=2", NULL, NULL), 200);
        bool has_share = false;
        for (size_t i = 0; i < 2; i++)
            has_share |= json_real_value(json_object_get(json_array_get(data_of(fixture), i), "gpu_share")) == 0.5;
        assert_true(has_share);
    }
    sighting_unref(sighting);
    snapshot_unref(snapshot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offers_of_networks),
        cmocka_unit_test(test_offer_fields),
        cmocka_unit_test(test_offer_filters),
        cmocka_unit_test(test_offer_pages),
        cmocka_unit_test(test_nonsense_in_an_offer_query),
        cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_workers_without_a_link),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
