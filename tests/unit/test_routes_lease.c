/* The handlers of leases, quotes and logs, over a store and a driver that are played here. */
#include "tests/unit/routes_fixture.h"

#include "gateway/lease_drive.h"
#include "gateway/routes_lease.h"
#include "pricing/credit.h"
#include "scheduler/lease_open.h"
#include "scheduler/lease_store.h"

#define MANY 64

/* -- the played store -------------------------------------------------------------------------------------------- */

static struct stored {
    char id[ID_TEXT_MAX], tenant[ID_TEXT_MAX], reason[64];
    int64_t quoted, budget;
    enum lease_state state;
    uint32_t attempt;
} stored[MANY];
static size_t stored_count;
static bool is_store_down;

static struct stored *stored_find(struct str id)
{
    for (size_t i = 0; i < stored_count; i++)
        if (str_eq(str_of(stored[i].id), id))
            return &stored[i];
    return NULL;
}

static struct lease *lease_of(const struct stored *from)
{
    struct lease *lease = lease_new();
    assert_non_null(lease);
    snprintf(lease->id, sizeof(lease->id), "%s", from->id);
    snprintf(lease->tenant, sizeof(lease->tenant), "%s", from->tenant);
    snprintf(lease->reason, sizeof(lease->reason), "%s", from->reason);
    lease->state = from->state;
    lease->attempt_count = from->attempt > 0;
    lease->attempts[0].number = from->attempt;
    return lease;
}

/* An answer in a coming turn, by the real loop. */
struct later {
    struct task task;
    lease_stored_fn *stored_fn;
    lease_loaded_fn *loaded_fn;
    lease_installation_fn *installation_fn;
    lease_open_fn *open_fn;
    void *ctx;
    enum error error;
    struct lease *leases[MANY];
    size_t count;
    bool is_list;
};

static void later_run(struct task *task)
{
    struct later later = *container_of(task, struct later, task);
    free(container_of(task, struct later, task));
    if (later.stored_fn)
        later.stored_fn(later.ctx, later.error);
    else if (later.installation_fn)
        later.installation_fn(later.ctx, later.error, STR("0a1b2c"));
    else if (later.open_fn)
        later.open_fn(later.ctx, later.error, later.count);
    else if (!later.is_list)
        later.loaded_fn(later.ctx, later.error, later.leases[0]);
    for (size_t i = 0; later.is_list && i < later.count; i++)
        later.loaded_fn(later.ctx, ERR_NONE, later.leases[i]);
    if (later.is_list)
        later.loaded_fn(later.ctx, later.error, NULL);
}

static struct loop *the_loop;

static enum error answer_later(const struct later *what)
{
    struct later *later = malloc(sizeof(*later));
    assert_non_null(later);
    *later = *what;
    later->task = (struct task){.run = later_run};
    if (is_store_down)
        later->error = ERR_CLOSED;
    loop_defer(the_loop, &later->task);
    return ERR_NONE;
}

enum error lease_store_create(struct redis *redis, const struct lease *lease, lease_stored_fn *done, void *ctx)
{
    (void)redis;
    if (!stored_find(str_of(lease->id)) && !is_store_down) {
        struct stored *made = &stored[stored_count++];
        assert_true(stored_count <= MANY);
        assert_string_equal(lease->installation, "0a1b2c");
        assert_int_equal(lease->due_ms, lease->created_at_ms);
        *made = (struct stored){.quoted = lease->request.price_quoted_usd_nano, .budget = lease->budget_usd_nano};
        snprintf(made->id, sizeof(made->id), "%s", lease->id);
        snprintf(made->tenant, sizeof(made->tenant), "%s", lease->tenant);
    }
    return answer_later(&(struct later){.stored_fn = done, .ctx = ctx});
}

enum error lease_store_get(struct redis *redis, struct str id, lease_loaded_fn *done, void *ctx)
{
    struct stored *found = stored_find(id);
    (void)redis;
    return answer_later(&(struct later){.loaded_fn = done,
                                        .ctx = ctx,
                                        .error = found ? ERR_NONE : ERR_NOT_FOUND,
                                        .leases = {found && !is_store_down ? lease_of(found) : NULL}});
}

enum error lease_store_stop(struct redis *redis, struct str id, struct str tenant, lease_loaded_fn *done, void *ctx)
{
    struct stored *found = stored_find(id);
    if (found && tenant.ptr && !str_eq(str_of(found->tenant), tenant))
        found = NULL;
    if (found)
        found->state = LEASE_STOPPING;
    return lease_store_get(redis, found ? id : STR(""), done, ctx);
}

enum error lease_store_list(struct redis *redis, struct str tenant, struct str before, size_t most,
                            lease_loaded_fn *on_lease, void *ctx)
{
    struct later later = {.loaded_fn = on_lease, .ctx = ctx, .is_list = true};
    bool is_after = !before.ptr;
    (void)redis;
    for (size_t i = stored_count; i-- > 0 && later.count < most;) {
        if (is_after && (!tenant.ptr || str_eq(str_of(stored[i].tenant), tenant)))
            later.leases[later.count++] = lease_of(&stored[i]);
        is_after = is_after || str_eq(str_of(stored[i].id), before);
    }
    return answer_later(&later);
}

enum error lease_open_count(struct redis *redis, struct str tenant, lease_open_fn *done, void *ctx)
{
    struct later later = {.open_fn = done, .ctx = ctx};
    (void)redis;
    for (size_t i = 0; i < stored_count; i++)
        later.count += str_eq(str_of(stored[i].tenant), tenant) && stored[i].state != LEASE_ENDED;
    return answer_later(&later);
}

enum error lease_store_installation(struct redis *redis, lease_installation_fn *done, void *ctx)
{
    (void)redis;
    return answer_later(&(struct later){.installation_fn = done, .ctx = ctx});
}

json_t *lease_view(const struct lease *lease, int64_t now_ms)
{
    assert_true(now_ms > 0);
    return json_pack("{s:s, s:s, s:s}", "id", lease->id, "tenant", lease->tenant, "state",
                     lease_state_name(lease->state));
}

/* -- the played driver ------------------------------------------------------------------------------------------- */

static const char *candidates_text;
static const char *log_text; /* all that was written; NULL: nothing runs */
static const char *log_denied;
static int log_asks;

void lease_candidates_json(struct control *control, struct reactor *reactor, const struct lease_request *request,
                           void (*done)(void *ctx, json_t *take_json), void *ctx)
{
    (void)control, (void)reactor;
    assert_true(str_eq(request->gpu, STR("h100")));
    done(ctx, candidates_text ? json_loads(candidates_text, 0, NULL) : NULL);
}

struct log_answer {
    struct task task;
    void (*done)(void *ctx, enum error error, struct str bytes, int64_t next, const char *message);
    void *ctx;
    int64_t from;
};

static void log_run(struct task *task)
{
    struct log_answer answer = *container_of(task, struct log_answer, task);
    free(container_of(task, struct log_answer, task));
    log_asks++;
    if (log_denied)
        answer.done(answer.ctx, ERR_DENIED, (struct str){NULL, 0}, answer.from, log_denied);
    else if (!log_text)
        answer.done(answer.ctx, ERR_NOT_FOUND, (struct str){NULL, 0}, answer.from, "");
    else
        answer.done(answer.ctx, ERR_NONE, str_of(log_text + answer.from), (int64_t)strlen(log_text), "");
}

void lease_logs(struct control *control, struct reactor *reactor, struct lease *take_lease, int64_t from,
                void (*done)(void *ctx, enum error error, struct str bytes, int64_t next, const char *message),
                void *ctx)
{
    struct log_answer *answer = malloc(sizeof(*answer));
    (void)control;
    lease_free(take_lease);
    *answer = (struct log_answer){.task = {.run = log_run}, .done = done, .ctx = ctx, .from = from};
    loop_defer(reactor->loop, &answer->task);
}

/* -- streams ----------------------------------------------------------------------------------------------------- */

static struct buf stream;
static bool is_stream_full, has_stream_ended;
static void (*stream_gone)(struct api_call *call);
static struct api_call *stream_call;

void api_stream_begin(struct api_call *call, void (*on_gone)(struct api_call *call))
{
    stream_gone = on_gone;
    stream_call = call;
}

bool api_stream_send(struct api_call *call, struct str bytes)
{
    assert_ptr_equal(call, stream_call);
    return !is_stream_full && buf_append_str(&stream, bytes);
}

void api_stream_end(struct api_call *call)
{
    assert_false(has_stream_ended);
    has_stream_ended = true;
    free(test_of(call));
}

static bool stream_has(const char *text)
{
    return stream.len && memmem(stream.ptr, stream.len, text, strlen(text));
}

/* -- asking ------------------------------------------------------------------------------------------------------ */

static struct gateway gateway_without_control;
static struct settings played_settings;

static void begin(struct fixture *fixture)
{
    the_loop = fixture->reactor.loop;
    fixture->reactor.gateway = &gateway_without_control;
    gateway_without_control.settings = &played_settings;
    memset(&played_settings, 0, sizeof(played_settings));
    memset(stored, 0, sizeof(stored));
    stored_count = 0;
    is_store_down = is_stream_full = has_stream_ended = false;
    candidates_text = log_text = log_denied = NULL;
    log_asks = 0;
    buf_clear(&stream);
}

static int ask(struct fixture *fixture, api_handler *handler, const char *tenant, const char *body, const char *key)
{
    struct test_call *test = call_new(fixture, tenant);
    test->api.method = STR("POST");
    test->api.path = STR("/api/v1/leases");
    test->api.body = str_of(body);
    test->api.idempotency_key = str_of(key);
    handler(&test->api);
    return answered(fixture);
}

static int create(struct fixture *fixture, const char *tenant, const char *key, char ret_id[static ID_TEXT_MAX])
{
    int status = ask(fixture, route_lease_create, tenant, "{\"gpu\":\"h100\",\"image\":\"debian\"}", key);
    if (status == 202)
        assert_true(str_copy(ret_id, ID_TEXT_MAX, str_of(text_at(fixture, "id"))));
    return status;
}

/* -- tests ------------------------------------------------------------------------------------------------------- */

static void test_made_once_by_key(void **state)
{
    struct fixture *fixture = *state;
    char first[ID_TEXT_MAX], again[ID_TEXT_MAX];
    begin(fixture);
    assert_int_equal(create(fixture, "ten_a", "k1", first), 202);
    assert_int_equal(create(fixture, "ten_a", "k1", again), 202);
    assert_string_equal(first, again);
    assert_int_equal(create(fixture, "ten_b", "k1", again), 202);
    assert_string_not_equal(first, again);
    assert_int_equal(stored_count, 2);
    assert_string_equal(stored[0].tenant, "ten_a");
    assert_int_equal(ask(fixture, route_lease_create, "ten_a", "{\"gpu\":\"h100\",\"image\":\"alpine\"}", "k1"), 409);
    assert_int_equal(ask(fixture, route_lease_create, NULL, "{\"gpu\":\"h100\",\"image\":\"alpine\"}", NULL), 403);
    assert_int_equal(ask(fixture, route_lease_create, "ten_a", "{\"gpu\":\"h100\"}", NULL), 400);
    assert_string_equal(error_at(fixture, "param"), "image");
    is_store_down = true;
    assert_int_equal(create(fixture, "ten_a", "k2", again), 503);
    is_store_down = false;
    assert_int_equal(create(fixture, "ten_a", "k2", again), 202); /* the same request may be sent again */
    assert_int_equal(stored_count, 3);
}

static void test_no_more_than_allowed(void **state)
{
    struct fixture *fixture = *state;
    char first[ID_TEXT_MAX], id[ID_TEXT_MAX];
    begin(fixture);
    played_settings.leases.max_open = 2;
    assert_int_equal(create(fixture, "ten_a", "k1", first), 202);
    assert_int_equal(create(fixture, "ten_a", "k2", id), 202);
    assert_int_equal(create(fixture, "ten_a", "k3", id), 429);
    assert_string_equal(error_at(fixture, "code"), "too_many_leases");
    assert_int_equal(create(fixture, "ten_b", "k3", id), 202);
    assert_int_equal(stored_count, 3);
    assert_int_equal(create(fixture, "ten_a", "k2", id), 202); /* made before */
    assert_string_equal(id, stored[1].id);
    stored[0].state = LEASE_ENDED;
    assert_int_equal(create(fixture, "ten_a", "k4", id), 202);
    is_store_down = true;
    assert_int_equal(create(fixture, "ten_a", "k5", id), 503);
    is_store_down = false;
    played_settings.leases.max_open = 0;
    assert_int_equal(create(fixture, "ten_a", "k6", id), 202);
}

static void test_tenants_apart(void **state)
{
    struct fixture *fixture = *state;
    char id[ID_TEXT_MAX];
    begin(fixture);
    assert_int_equal(create(fixture, "ten_a", NULL, id), 202);
    assert_int_equal(get(fixture, route_lease, "", id, "ten_a"), 200);
    assert_int_equal(get(fixture, route_lease, "", id, "ten_b"), 404);
    assert_int_equal(get(fixture, route_lease, "", id, NULL), 200);
    assert_int_equal(get(fixture, route_lease_logs, "", id, "ten_b"), 404);
    assert_int_equal(get(fixture, route_lease_delete, "", id, "ten_b"), 404);
    assert_int_equal(stored[0].state, LEASE_REQUESTED);
    assert_int_equal(get(fixture, route_lease_delete, "", id, "ten_a"), 202);
    assert_string_equal(text_at(fixture, "state"), "stopping");
    assert_int_equal(get(fixture, route_lease_delete, "", id, NULL), 202);
    assert_int_equal(get(fixture, route_lease, "", "lse_x", "ten_a"), 404);
    assert_int_equal(get(fixture, route_lease, "x=1", id, "ten_a"), 400);
    is_store_down = true;
    assert_int_equal(get(fixture, route_lease, "", id, "ten_a"), 503);
}

static void test_pages(void **state)
{
    struct fixture *fixture = *state;
    char ids[5][ID_TEXT_MAX], other[ID_TEXT_MAX], query[128];
    begin(fixture);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(create(fixture, "ten_a", NULL, ids[i]), 202);
        assert_int_equal(create(fixture, "ten_b", NULL, other), 202);
    }
    query[0] = '\0';
    for (int i = 5; i > 0; i -= 2) {
        char page[160];
        snprintf(page, sizeof(page), "limit=2%s%s", *query ? "&cursor=" : "", query);
        assert_int_equal(get(fixture, route_leases, page, NULL, "ten_a"), 200);
        const json_t *data = json_object_get(fixture->json, "data");
        assert_int_equal(json_array_size(data), i > 1 ? 2 : 1);
        assert_string_equal(json_string_value(json_object_get(json_array_get(data, 0), "id")), ids[i - 1]);
        if (i > 1)
            assert_string_equal(text_at(fixture, "next"), ids[i - 2]);
        else
            assert_true(json_is_null(json_object_get(fixture->json, "next")));
        snprintf(query, sizeof(query), "%s", i > 1 ? text_at(fixture, "next") : "");
    }
    assert_int_equal(get(fixture, route_leases, "", NULL, NULL), 200);
    assert_int_equal(json_array_size(json_object_get(fixture->json, "data")), 10);
    assert_int_equal(get(fixture, route_leases, "cursor=wrk_1", NULL, NULL), 400);
    is_store_down = true;
    assert_int_equal(get(fixture, route_leases, "", NULL, "ten_a"), 503);
}

static void test_quotes(void **state)
{
    static const char body[] = "{\"gpu\":\"h100\",\"image\":\"debian\"}";
    struct fixture *fixture = *state;
    char id[ID_TEXT_MAX], leased[256];
    begin(fixture);
    assert_int_equal(ask(fixture, route_quote, "ten_a", body, NULL), 503);
    candidates_text = "{\"data\":[],\"rejected\":[],\"message\":\"3 offers of h100 are above the cap\"}";
    assert_int_equal(ask(fixture, route_quote, "ten_a", body, NULL), 503);
    assert_string_equal(error_at(fixture, "code"), "no_offer_matches");
    assert_string_equal(error_at(fixture, "message"), "3 offers of h100 are above the cap");
    candidates_text =
        "{\"data\":[{\"offer\":\"off_v.1\",\"network\":\"vast\",\"gpu\":\"nvidia/h100-sxm-80\",\"gpus\":8,"
        "\"price_per_gpu_hour_usd\":\"1.25\",\"interruptible\":false}],\"rejected\":[],\"message\":\"\"}";
    assert_int_equal(ask(fixture, route_quote, "ten_a", body, "q1"), 200);
    assert_string_equal(text_at(fixture, "offer"), "off_v.1");
    assert_int_equal(json_integer_value(json_object_get(fixture->json, "count")), 8);
    int64_t life = json_integer_value(json_object_get(fixture->json, "expires_at")) - clock_wall_ms();
    assert_true(life > 0 && life <= QUOTE_LIFE_MS);
    assert_true(str_copy(id, sizeof(id), str_of(text_at(fixture, "id"))));
    assert_int_equal(ask(fixture, route_quote, "ten_a", body, "q1"), 200);
    assert_string_equal(text_at(fixture, "id"), id);

    snprintf(leased, sizeof(leased), "{\"gpu\":\"h100\",\"image\":\"debian\",\"quote\":\"%s\"}", id);
    assert_int_equal(ask(fixture, route_lease_create, "ten_a", leased, NULL), 202);
    assert_int_equal(stored[0].quoted, 1250000000);
    assert_int_equal(ask(fixture, route_lease_create, "ten_b", leased, NULL), 409); /* another's */
    assert_string_equal(error_at(fixture, "code"), "quote_expired");
    assert_int_equal(ask(fixture, route_lease_create, "ten_a",
                         "{\"gpu\":\"h100\",\"image\":\"debian\",\"quote\":\"quo_none\"}", NULL),
                     409);
    assert_int_equal(ask(fixture, route_quote, NULL, body, NULL), 403);
    assert_int_equal(stored_count, 1);
}

static void test_logs_as_text(void **state)
{
    struct fixture *fixture = *state;
    char id[ID_TEXT_MAX];
    begin(fixture);
    assert_int_equal(create(fixture, "ten_a", NULL, id), 202);
    assert_int_equal(get(fixture, route_lease_logs, "", id, "ten_a"), 409);
    log_text = "\"a log\"";
    assert_int_equal(get(fixture, route_lease_logs, "", id, "ten_a"), 200);
    assert_string_equal(fixture->content_type, "text/plain; charset=utf-8");
    assert_string_equal(json_string_value(fixture->json), "a log");
    log_denied = "lambda-main tells no logs";
    assert_int_equal(get(fixture, route_lease_logs, "", id, "ten_a"), 501);
    assert_string_equal(error_at(fixture, "message"), "lambda-main tells no logs");
    assert_int_equal(get(fixture, route_lease_logs, "from=-1", id, "ten_a"), 400);
    assert_int_equal(get(fixture, route_lease_logs, "follow=2", id, "ten_a"), 400);
}

static void follow(struct fixture *fixture, const char *id, const char *query)
{
    struct test_call *test = call_new(fixture, "ten_a");
    test->api.method = STR("GET");
    test->api.query = str_of(query);
    assert_true(api_params_set(&test->api, (struct str[]){str_of(id), {NULL, 0}}));
    route_lease_logs(&test->api);
}

#define turn_until(condition)                                 \
    do {                                                      \
        int64_t give_up_ = clock_mono_ns() + 20 * NS_PER_S;   \
        while (!(condition)) {                                \
            assert_true(clock_mono_ns() < give_up_);          \
            loop_turn(fixture->reactor.loop, 20 * NS_PER_MS); \
        }                                                     \
    } while (0)

static void test_logs_followed(void **state)
{
    struct fixture *fixture = *state;
    char id[ID_TEXT_MAX];
    begin(fixture);
    assert_int_equal(create(fixture, "ten_a", NULL, id), 202);
    follow(fixture, id, "follow=1&from=2");
    turn_until(log_asks == 1); /* nothing runs yet: it goes on looking */
    assert_true(stream_has("event: state\ndata: {\"state\":\"requested\",\"reason\":null,"));
    stored[0].state = LEASE_ACTIVE;
    log_text = "..a\r\n\nb";
    turn_until(stream_has("event: log"));
    assert_true(stream_has("\"state\":\"active\""));
    assert_true(stream_has("event: log\nid: 7\ndata: a\ndata: \ndata: b\n\n"));
    log_text = "..a\r\n\nb\n";
    turn_until(stream_has("event: log\nid: 8\ndata: \ndata: \n\n"));
    stored[0].attempt = 1;
    log_text = "..a\r\n\nb\n+";
    turn_until(stream_has("event: log\nid: 9\ndata: +\n\n"));
    stored[0].attempt = 2; /* another machine */
    log_text = "anew";
    turn_until(stream_has("event: log\nid: 4\ndata: anew\n\n"));
    log_denied = "no more";
    turn_until(stream_has("event: note\ndata: {\"message\":\"no more\"}\n\n"));
    log_denied = NULL;
    log_text = "anew, last words"; /* written before it ended */
    snprintf(stored[0].reason, sizeof(stored[0].reason), "you ended it");
    stored[0].state = LEASE_ENDED;
    turn_until(has_stream_ended);
    assert_true(stream_has("event: log\nid: 16\ndata: , last words\n\nevent: end\ndata: "
                           "{\"state\":\"ended\",\"reason\":\"you ended it\","));
}

static void test_logs_let_go(void **state)
{
    struct fixture *fixture = *state;
    char id[ID_TEXT_MAX];
    begin(fixture);
    assert_int_equal(create(fixture, "ten_a", NULL, id), 202);
    log_text = "x";
    follow(fixture, id, "follow=1");
    turn_until(stream_has("event: log"));
    stream_gone(stream_call); /* between two looks */
    assert_true(has_stream_ended);

    has_stream_ended = false;
    buf_clear(&stream);
    follow(fixture, id, "follow=true");
    turn_until(stream_has("event: state"));
    stream_gone(stream_call); /* while it asks for logs */
    turn_until(has_stream_ended);

    has_stream_ended = false;
    is_stream_full = true; /* one that reads too slowly */
    follow(fixture, id, "follow=1");
    turn_until(has_stream_ended);
    is_stream_full = false;

    has_stream_ended = false;
    buf_clear(&stream);
    follow(fixture, id, "follow=1");
    turn_until(stream_has("event: log"));
    is_store_down = true; /* for a while */
    loop_turn(fixture->reactor.loop, 1100 * NS_PER_MS);
    is_store_down = false;
    stored[0].state = LEASE_FAILED;
    turn_until(has_stream_ended);
    assert_true(stream_has("event: end\ndata: {\"state\":\"failed\""));
    buf_free(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_once_by_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_more_than_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tenants_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quotes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_logs_as_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_logs_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_logs_let_go, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
