/* The control thread with a real Redis and a worker played by the test: reactor, control and worker share one loop. */
#include "tests/unit/redis_fixture.h"
#include "adapters/native/link_hello.h"
#include "gateway/control.h"
#include "gateway/gateways.h"
#include "probes/prover.h"
#include "scheduler/worker_store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

#define SECRET "sls-a-secret-of-the-test"

static struct {
    struct settings settings;
    struct gateway gateway;
    struct reactor reactor;
    struct reactor *reactors[1];
    struct snapshot *snapshot; /* the newest that was handed out */
    char journal_dir[64];
    struct signing_key *worker_key;
    struct prover *prover; /* answers for every worker that is played */
} world;

void reactor_adopt(struct reactor *reactor, struct snapshot *take)
{
    assert_ptr_equal(reactor, &world.reactor);
    snapshot_unref(world.snapshot);
    world.snapshot = take;
}

static void on_link(void *ctx, struct worker *worker, bool is_up)
{
    (void)ctx;
    control_link_changed(world.gateway.control, 0, worker, is_up);
}

static void on_status(void *ctx, struct worker *worker, const struct worker_status *status)
{
    (void)ctx;
    control_status(world.gateway.control, 0, worker, status);
}

static void gateway_open(void)
{
    static const struct hub_events events = {.on_link = on_link, .on_status = on_status};
    char error[CONFIG_ERROR_MAX];
    memset(&world, 0, sizeof(world));
    assert_int_equal(settings_load(NULL, &world.settings, error), ERR_NONE);
    assert_int_equal(settings_set(&world.settings, "data_dir", fixture.dir, "--data-dir", error), ERR_NONE);
    snprintf(world.journal_dir, sizeof(world.journal_dir), "%s", fixture.dir);
    world.reactors[0] = &world.reactor;
    world.gateway = (struct gateway){
        .settings = &world.settings, .reactors = world.reactors, .reactor_count = 1, .control_loop = fixture.loop};
    id_new("gwy_", world.gateway.id);
    world.reactor = (struct reactor){.loop = fixture.loop, .gateway = &world.gateway};
    assert_int_equal(hub_reactor_open(fixture.loop, 0, &events, NULL, &world.reactor.hub), ERR_NONE);
    const struct control_options options = {.gateway = &world.gateway,
                                            .loop = fixture.loop,
                                            .redis = fixture.redis,
                                            .redis_url = fixture.url,
                                            .journal_dir = world.journal_dir};
    struct control *control = NULL;
    assert_int_equal(control_open(&options, &control), ERR_NONE);
    assert_ptr_equal(world.gateway.control, control);
    assert_false(control_is_ready(control));
    turn_until(control_is_ready(control) && world.snapshot);
    assert_int_equal(signing_key_new(&world.worker_key), ERR_NONE);
    const struct prover_options prover = {.backend = &probe_backend_cpu, .key = world.worker_key, .devices = 1};
    assert_int_equal(prover_open(&prover, &world.prover), ERR_NONE);
}

static void gateway_close(void)
{
    control_shut(world.gateway.control);
    assert_false(control_is_ready(world.gateway.control));
    world.reactor.hub = hub_reactor_free(world.reactor.hub);
    control_give_back(world.gateway.control);
    turn_until(control_is_idle(world.gateway.control));
    assert_string_equal(look("HLEN sl:{gateways}:list"), "0");
    control_free(world.gateway.control);
    assert_null(world.gateway.control);
    loop_turn(fixture.loop, 0);
    snapshot_unref(world.snapshot);
    settings_free(&world.settings);
    prover_free(world.prover);
    signing_key_free(world.worker_key);
}

static int world_open(void **state)
{
    (void)state;
    look("FLUSHALL");
    gateway_open();
    return 0;
}

static int world_close(void **state)
{
    (void)state;
    gateway_close();
    return 0;
}

/* -- a worker ---------------------------------------------------------------------------------------------------- */

enum proof { PROOF_RIGHT, PROOF_WRONG, PROOF_REFUSED };

struct agent {
    char id[ID_TEXT_MAX];
    enum proof proof;
    const char *line; /* the status that it tells at first */
    struct h2 *h2;
    struct h2_stream *status;
    unsigned probes, verdicts, lists;
};

struct served {
    struct agent *agent;
    struct h2_stream *stream;
    struct buf body;
    bool is_probe, is_list;
};

static void served_data(void *ctx, struct str bytes)
{
    struct served *served = ctx;
    assert_true(buf_append_str(&served->body, bytes));
    h2_stream_consumed(served->stream, bytes.len);
}

static void answer_probe(struct served *served)
{
    struct buf answer;
    buf_init(&answer, PROBE_FRAME_MAX);
    uint8_t asked = served->body.len > 3 ? (uint8_t)served->body.ptr[3] : 0;
    served->agent->probes += asked == PROBE_HELLO_ASK;
    served->agent->verdicts += asked == PROBE_VERDICT;
    assert_int_equal(prover_answer(world.prover, buf_str(&served->body), &answer), ERR_NONE);
    if (served->agent->proof == PROOF_WRONG && asked == PROBE_OPEN)
        answer.ptr[answer.len - 1] ^= 1;
    int status = served->agent->proof == PROOF_REFUSED ? 404 : 200;
    assert_int_equal(h2_stream_respond(served->stream, status, NULL, 0), ERR_NONE);
    assert_int_equal(h2_stream_send(served->stream, buf_str(&answer)), ERR_NONE);
    assert_int_equal(h2_stream_finish(served->stream), ERR_NONE);
    buf_free(&answer);
}

static void served_finished(void *ctx)
{
    struct served *served = ctx;
    if (served->is_probe) {
        answer_probe(served);
    } else if (served->is_list) {
        served->agent->lists++;
        assert_int_equal(h2_stream_respond(served->stream, 204, NULL, 0), ERR_NONE);
        assert_int_equal(h2_stream_finish(served->stream), ERR_NONE);
    }
}

static void served_end(void *ctx, enum h2_end end)
{
    struct served *served = ctx;
    (void)end;
    if (served->stream == served->agent->status)
        served->agent->status = NULL;
    buf_free(&served->body);
    free(served);
}

static const struct h2_stream_ops served_ops = {
    .on_data = served_data, .on_finished = served_finished, .on_end = served_end};

static void say(struct agent *agent, const char *line)
{
    assert_non_null(agent->status);
    assert_int_equal(h2_stream_send(agent->status, str_of(line)), ERR_NONE);
}

static bool on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    struct agent *agent = ctx;
    struct str path = headers[1].value;
    struct served *served = calloc(1, sizeof(*served));
    assert_non_null(served);
    (void)count;
    *served = (struct served){.agent = agent,
                              .stream = stream,
                              .is_probe = str_eq(path, STR("/sluice/probe")),
                              .is_list = str_eq(path, STR("/sluice/gateways"))};
    buf_init(&served->body, PROBE_FRAME_MAX);
    *ret_ops = &served_ops;
    *ret_ctx = served;
    if (str_eq(path, STR("/sluice/status"))) {
        agent->status = stream;
        assert_int_equal(h2_stream_respond(stream, 200, NULL, 0), ERR_NONE);
        say(agent, agent->line);
    }
    return true;
}

static void on_close(void *ctx, enum error error)
{
    struct agent *agent = ctx;
    (void)error;
    agent->h2 = h2_free(agent->h2);
}

/* Says hello and reads the answer. True: the link is taken. */
static bool greet(const struct agent *agent, int fd)
{
    char hello[LINK_HELLO_MAX + 1] = {0}, answer[128] = {0};
    size_t len = 0, got = 0;
    struct link_answer parsed;
    assert_true(link_hello_write(&(struct link_hello){str_of(agent->id), STR(SECRET), STR("boot-1")}, hello, &len));
    assert_int_equal(send(fd, hello, len, 0), (ssize_t)len);
    turn_until(read(fd, answer + got, 1) == 1 && answer[got++] == '\n');
    answer[got - 1] = '\0';
    assert_true(link_answer_parse(str_of(answer), &parsed));
    return parsed.is_taken;
}

static void agent_dial(struct agent *agent)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(control_link_port(world.gateway.control)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct h2_options options = {.is_server = true, .on_request = on_request, .on_close = on_close, .ctx = agent};
    int fd = -1;
    for (bool is_taken = false; !is_taken;) {
        if (fd >= 0)
            close(fd);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
        assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
        is_taken = greet(agent, fd);
    }
    assert_int_equal(h2_open(fixture.loop, fd, &options, &agent->h2), ERR_NONE);
}

static void on_stored(void *ctx, enum error error)
{
    assert_int_equal(error, ERR_NONE);
    *(bool *)ctx = true;
}

/* As another gateway would have registered it: this one learns of it by the feed, or by its first hello. */
static void agent_enrol(struct agent *agent)
{
    struct worker_record record = {.gpus = 1,
                                   .slots = 4,
                                   .price_usd_nano = 700000000,
                                   .name = "played",
                                   .supplier = "acme",
                                   .gpu = "cpu",
                                   .gpu_raw = "cpu",
                                   .region = "eu-west",
                                   .enrolled_at_ms = clock_wall_ms()};
    bool is_stored = false;
    id_new("wrk_", agent->id);
    memcpy(record.id, agent->id, sizeof(record.id));
    crypto_sha256_hex(STR(SECRET), record.secret_sha256);
    assert_int_equal(worker_store_put(fixture.redis, &record, on_stored, &is_stored), ERR_NONE);
    turn_until(is_stored);
    agent_dial(agent);
}

static const char *state_of(const struct agent *agent)
{
    return look("HGET sl:{wrk:%s} state", agent->id);
}

static bool serves(const char *model)
{
    return world.snapshot && market_model(world.snapshot->market, str_of(model), &(struct str){0}) != MARKET_NONE;
}

#define LINE(models, draining) \
    "{\"in_flight\":1,\"slots\":4,\"models\":[" models "],\"draining\":" draining ",\"upstream\":\"ok\"}\n"

/* -- tests ------------------------------------------------------------------------------------------------------- */

struct rows {
    bool fired;
    json_t *list;
};

static void on_rows(void *ctx, json_t *take_list)
{
    struct rows *rows = ctx;
    rows->fired = true;
    rows->list = take_list;
}

static json_t *rows_of(struct str supplier)
{
    struct rows rows = {0};
    control_workers_json(world.gateway.control, &world.reactor, supplier, on_rows, &rows);
    assert_false(rows.fired);
    turn_until(rows.fired);
    assert_non_null(rows.list);
    return rows.list;
}

static void a_proven_worker_is_served(void **state)
{
    (void)state;
    struct agent agent = {.line = LINE("\"m1\",\"m2\"", "false")};
    agent_enrol(&agent);
    turn_until(serves("m1"));
    assert_true(serves("m2"));
    assert_false(serves("m3"));
    assert_int_equal(agent.probes, 1);
    assert_string_equal(state_of(&agent), "ready");
    turn_until(agent.lists > 0 && agent.verdicts == 1);

    json_t *list = rows_of((struct str){NULL, 0}), *row = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(json_string_value(json_object_get(row, "id")), agent.id);
    assert_string_equal(json_string_value(json_object_get(row, "state")), "ready");
    assert_true(json_is_true(json_object_get(row, "linked")));
    assert_int_equal(json_integer_value(json_object_get(row, "in_flight")), 1);
    assert_true(json_integer_value(json_object_get(row, "last_probe_at")) > 0);
    json_decref(list);
    list = rows_of(STR("acme"));
    assert_int_equal(json_array_size(list), 1);
    json_decref(list);
    list = rows_of(STR("another"));
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);

    /* What it tells shows at once. */
    say(&agent, LINE("\"m3\"", "false"));
    turn_until(serves("m3") && !serves("m1"));
    say(&agent, LINE("\"m3\"", "true"));
    turn_until(!serves("m3"));
    say(&agent, LINE("\"m3\"", "false"));
    turn_until(serves("m3"));

    /* Another gateway suspends it. */
    struct admission suspended = {.state = ADMISSION_SUSPENDED,
                                  .reason = "wrong answer",
                                  .next_probe_at_ms = clock_wall_ms() + 1000000,
                                  .token = 1000};
    int64_t token = 0;
    bool is_stored = false;
    assert_true(str_to_i64(str_of(look("HGET sl:{wrk:%s} token", agent.id)), &token));
    assert_int_equal(
        worker_store_admit(fixture.redis, str_of(agent.id), (uint64_t)token, &suspended, on_stored, &is_stored),
        ERR_NONE);
    turn_until(is_stored && !serves("m3"));
    agent.h2 = h2_free(agent.h2);
}

static bool row_shows(const char *state, const char *reason)
{
    json_t *list = rows_of((struct str){NULL, 0}), *row = json_array_get(list, 0);
    const char *has_reason = json_string_value(json_object_get(row, "reason"));
    bool shows = !strcmp(json_string_value(json_object_get(row, "state")), state) && has_reason &&
                 strstr(has_reason, reason) != NULL;
    json_decref(list);
    return shows;
}

/* Two re-tests follow at once, and then the ban. */
static void an_unproven_worker_is_not(enum proof proof)
{
    struct agent agent = {.line = LINE("\"m1\"", "false"), .proof = proof};
    agent_enrol(&agent);
    turn_until(!strcmp(state_of(&agent), "suspended"));
    assert_true(strlen(look("HGET sl:{wrk:%s} reason", agent.id)) > 0);
    assert_int_equal(agent.probes, 1);
    turn_until(strstr(look("HGET sl:{wrk:%s} reason", agent.id), "banned until"));
    assert_int_equal(agent.probes, 2);
    turn_until(row_shows("suspended", "banned until")); /* it is stored a moment before this gateway hears so */
    assert_false(serves("m1"));
    agent.h2 = h2_free(agent.h2);
}

static void a_wrong_answer_suspends(void **state)
{
    (void)state;
    an_unproven_worker_is_not(PROOF_WRONG);
}

static void a_refused_probe_suspends(void **state)
{
    (void)state;
    an_unproven_worker_is_not(PROOF_REFUSED);
}

static void on_left(void *ctx)
{
    *(bool *)ctx = true;
}

static void on_signed(void *ctx, enum error error, struct str json)
{
    (void)json;
    on_stored(ctx, error);
}

static void a_new_gateway_is_told_to_workers(void **state)
{
    (void)state;
    struct agent agent = {.line = LINE("\"m1\"", "false")};
    const struct gateway_address other = {.id = "gwy_other", .address = "127.0.0.1:1", .links = 1};
    bool is_signed = false;
    agent_enrol(&agent);
    turn_until(agent.lists == 1);
    assert_int_equal(gateways_sign(fixture.redis, &other, false, on_signed, &is_signed), ERR_NONE);
    turn_until(is_signed);
    assert_int_equal(feed_append(fixture.redis, "gateway", STR("gwy_other")), ERR_NONE);
    turn_until(agent.lists == 2);
    bool is_left = false;
    assert_int_equal(gateways_leave(fixture.redis, "gwy_other", on_left, &is_left), ERR_NONE);
    turn_until(is_left && agent.lists == 3);
    agent.h2 = h2_free(agent.h2);
}

static void on_known(void *ctx)
{
    *(bool *)ctx = true;
}

/* A worker that is no longer stored loses its link, and is gone from the list. */
static void a_lost_record_ends_its_worker(void **state)
{
    (void)state;
    struct agent agent = {.line = LINE("\"m1\"", "false")};
    agent_enrol(&agent);
    turn_until(serves("m1"));
    look("DEL sl:{wrk:%s}", agent.id);
    look("CLIENT KILL TYPE normal SKIPME yes"); /* the feed was cut: everything is read again */
    turn_until(!serves("m1") && !agent.h2);
    json_t *list = rows_of((struct str){NULL, 0});
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    bool is_known = false;
    control_worker_registered(world.gateway.control, &world.reactor, agent.id, on_known, &is_known);
    assert_false(is_known);
    turn_until(is_known);
}

/* Calls for what a worker serves wait for it, instead of being told that there is no such model. */
static void a_gateway_that_starts_again_knows_the_models(void **state)
{
    (void)state;
    struct agent agent = {.line = LINE("\"m1\"", "false")};
    agent_enrol(&agent);
    turn_until(serves("m1"));
    turn_until(!strcmp(look("HGET sl:models %s", agent.id), "[\"m1\"]"));
    gateway_close();
    agent.h2 = h2_free(agent.h2);
    gateway_open();
    assert_true(serves("m1"));

    /* A worker that leaves by itself is not waited for. */
    agent_dial(&agent);
    turn_until(agent.status);
    say(&agent, LINE("\"m1\"", "true"));
    turn_until(!serves("m1"));
    turn_until(!strcmp(look("HEXISTS sl:models %s", agent.id), "0"));
    agent.h2 = h2_free(agent.h2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_proven_worker_is_served, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_wrong_answer_suspends, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_refused_probe_suspends, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_new_gateway_is_told_to_workers, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_gateway_that_starts_again_knows_the_models, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_lost_record_ends_its_worker, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
