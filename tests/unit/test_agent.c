/* The worker agent against a played gateway and upstream (agent_play.h). */
#include "tests/unit/agent_play.h"

static void test_enrols_and_reports(void **state)
{
    (void)state;
    agent_start("enrol", 2);
    json_t *body = registered_body();
    static const char *const words[][2] = {
        {"token", "tok-1"}, {"gpu", "cpu"}, {"region", "eu-west"}, {"price_per_gpu_hour_usd", "1.20"}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        assert_string_equal(json_string_value(json_object_get(body, words[i][0])), words[i][1]);
    assert_int_equal(json_integer_value(json_object_get(body, "slots")), 2);
    assert_int_equal(json_integer_value(json_object_get(body, "gpus")), 1);
    assert_string_equal(json_string_value(json_array_get(json_object_get(body, "tags"), 1)), "hipaa");
    assert_null(json_object_get(body, "worker_id"));
    json_decref(body);
    assert_int_equal(strncmp(gate.links[0].hello, "SLUICE-LINK/1 wrk_1 sec_1 ", 26), 0);

    struct call status;
    memset(&status, 0, sizeof(status));
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "models", "[\"model-a\",\"model-b\"]"));
    assert_int_equal(status.status, 200);
    assert_true(status_has(&status, "upstream", "\"ok\""));
    assert_true(status_has(&status, "slots", "2"));
    assert_true(status_has(&status, "in_flight", "0"));
    assert_true(status_has(&status, "draining", "false"));
    agent_stop();
    buf_free(&status.body);

    /* The identity outlives the process. */
    agent_start("enrol", 1);
    body = registered_body();
    assert_string_equal(json_string_value(json_object_get(body, "worker_id")), "wrk_1");
    assert_string_equal(json_string_value(json_object_get(body, "secret")), "sec_1");
    assert_null(json_object_get(body, "token"));
    json_decref(body);
    agent_stop();
}

static void test_calls(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("calls", 1);
    call_run(&call, "POST", "/v1/echo?x=1", STR("{\"model\":\"a\"}"), 200);
    assert_string_equal(call.body.ptr, "POST /v1/echo?x=1 HTTP/1.1|json|{\"model\":\"a\"}");
    assert_string_equal(call.type, "application/json");
    assert_true(atomic_load(&saw_key)); /* the upstream's key, not the caller's */
    buf_free(&call.body);
    call_run(&call, "POST", "/v1/teapot", STR("{}"), 429);
    assert_string_equal(call.retry_after, "7");
    assert_string_equal(call.fault, "");
    assert_int_equal(call.header_count, 1);
    buf_free(&call.body);
    static const char *const bad[] = {"/other", "/v1/../admin", "/v1/a%2e%2e/b", "/sluice/other"};
    static const int want[] = {404, 400, 400, 404};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        call_run(&call, "POST", bad[i], STR("{}"), want[i]);
        buf_free(&call.body);
    }
    agent_stop();
}

static void test_upstream_faults(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("faults", 1);
    call_run(&call, "POST", "/v1/silent", STR("{}"), 502);
    assert_string_equal(call.fault, "upstream");
    json_t *root = json_loads(call.body.ptr, 0, NULL);
    assert_non_null(json_object_get(json_object_get(root, "error"), "message"));
    json_decref(root);
    buf_free(&call.body);
    call_run(&call, "POST", "/v1/garbage", STR("{}"), 502); /* an answer, though none to pass on */
    assert_string_equal(call.fault, "");
    buf_free(&call.body);
    atomic_store(&let_go, false);
    call_start(&call, "POST", "/v1/torn", STR("{}"));
    turn_until(call.received);
    assert_int_equal(call.status, 200);
    atomic_store(&let_go, true);
    turn_until(call.ends);
    assert_int_equal(call.end, H2_END_RESET);
    assert_int_equal(call.code, NGHTTP2_INTERNAL_ERROR);
    buf_free(&call.body);
    for (int i = 0; i < 10; i++) { /* head, bytes and the end of the upstream at once: all that came is passed on */
        call_start(&call, "POST", "/v1/torn", STR("{}"));
        turn_until(call.ends);
        assert_int_equal(call.status, 200);
        assert_true(str_eq(buf_str(&call.body), STR("data:")));
        assert_int_equal(call.end, H2_END_RESET);
        buf_free(&call.body);
    }
    agent_stop();
}

static void test_upstream_down_and_back(void **state)
{
    (void)state;
    struct call status = {0}, call = {0};
    atomic_store(&upstream_fails, true);
    agent_start("down", 1);
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "upstream", "\"down\""));
    assert_true(status_has(&status, "models", "[]"));
    atomic_store(&upstream_fails, false);
    turn_until(status_has(&status, "upstream", "\"ok\""));
    int port = upstream.port;
    server_stop(&upstream);
    call_run(&call, "POST", "/v1/echo", STR("{}"), 502);
    assert_string_equal(call.fault, "upstream");
    turn_until(status_has(&status, "upstream", "\"down\"")); /* noticed at once, not at the next poll */
    assert_true(status_has(&status, "models", "[]"));
    upstream.port = port;
    server_start(&upstream);
    turn_until(status_has(&status, "models", "[\"model-a\",\"model-b\"]"));
    agent_stop();
    buf_free(&status.body);
    buf_free(&call.body);
}

static void test_slots_and_cancel(void **state)
{
    (void)state;
    struct call calls[2] = {{0}, {0}}, third = {0}, status = {0};
    agent_start("slots", 1);
    call_start(&status, "GET", "/sluice/status", STR(""));
    atomic_store(&hanging, 0);
    atomic_store(&hung_up, 0);
    for (int i = 0; i < 2; i++)
        call_start(&calls[i], "POST", "/v1/hang", STR("{}"));
    turn_until(calls[0].received && calls[1].received);
    assert_string_equal(calls[0].type, "text/event-stream");
    turn_until(status_has(&status, "in_flight", "2"));
    call_run(&third, "POST", "/v1/echo", STR("{}"), 429);
    assert_string_equal(third.fault, "slots");
    assert_non_null(strstr(third.body.ptr, "slots_full"));
    buf_free(&third.body);
    int64_t cancelled_ns = clock_mono_ns();
    h2_stream_cancel(calls[0].stream, NGHTTP2_CANCEL);
    turn_until(atomic_load(&hung_up) == 1);
    assert_true(clock_mono_ns() - cancelled_ns < 100 * NS_PER_MS);
    call_run(&third, "POST", "/v1/echo", STR("{}"), 200); /* the slot is free again */
    buf_free(&third.body);
    turn_until(status_has(&status, "in_flight", "1"));
    gate_drop_links(); /* a gateway that dies cancels what it had */
    turn_until(atomic_load(&hung_up) == 2);
    turn_until(gate_up() == 1); /* and is dialled again */
    buf_free(&status.body);
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "in_flight", "0"));
    agent_stop();
    buf_free(&status.body);
    buf_free(&calls[0].body);
    buf_free(&calls[1].body);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Calls that end in every way there is leave no slot taken. */
static void test_slots_never_leak(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/echo", "/v1/silent", "/v1/hang", "/v1/torn", "/v1/teapot", "/other"};
    static struct call calls[32];
    struct call status = {0};
    uint32_t seed = 7;
    agent_start("leak", 1);
    agent_stop();
    gate_open();
    registry_welcomes(1, NULL);
    options.slots = 8;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    atomic_store(&let_go, true);
    for (int round = 0; round < 12; round++) {
        turn_until(gate_up() == 1);
        for (size_t i = 0; i < 32; i++) {
            buf_free(&calls[i].body);
            call_start(&calls[i], "POST", paths[next_random(&seed) % 6], STR("{}"));
        }
        for (int turns = (int)(next_random(&seed) % 8); turns > 0; turns--)
            loop_turn(loop, NS_PER_MS);
        if (round % 4 == 3)
            gate_drop_links();
        for (size_t i = 0; i < 32; i++)
            if (calls[i].stream)
                h2_stream_cancel(calls[i].stream, NGHTTP2_CANCEL);
        for (size_t i = 0; i < 32; i++)
            turn_until(calls[i].ends == 1);
    }
    turn_until(gate_up() == 1);
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "in_flight", "0"));
    for (size_t i = 0; i < 32; i++)
        buf_free(&calls[i].body);
    agent_stop(); /* asserts the same */
    buf_free(&status.body);
}

static void test_flow_control(void **state)
{
    (void)state;
    struct call call = {.keeps_window = true};
    agent_start("flow", 1);
    atomic_store(&is_stalled, false);
    call_start(&call, "GET", "/v1/flood", STR(""));
    turn_until(atomic_load(&is_stalled));
    assert_true(atomic_load(&flooded) < FLOOD_BYTES / 2);
    assert_int_equal(call.ends, 0);
    call.keeps_window = false;
    h2_stream_consumed(call.stream, call.received);
    turn_until(call.ends);
    assert_int_equal(call.end, H2_END_OK);
    assert_int_equal(call.received, FLOOD_BYTES);
    buf_free(&call.body);
    agent_stop();
}

static void test_delay(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("delay", 1);
    turn_until(registered_count() > 0);
    agent_stop();
    registry_reset();
    gate_open();
    registry_welcomes(1, NULL);
    options.delay_ns = 80 * NS_PER_MS;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
    int64_t from_ns = clock_mono_ns();
    call_run(&call, "POST", "/v1/echo", STR("{}"), 200);
    assert_true(atomic_load(&asked_ns) - from_ns >= 79 * NS_PER_MS);
    buf_free(&call.body);
    agent_stop();
}

/* Frames are for the probe, which test_agent_probe.c has; this agent runs none. */
static void test_no_probe(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("proof", 1);
    call_run(&call, "POST", "/sluice/probe", (struct str){"SL\1\3\0\0\0", 8}, 503);
    buf_free(&call.body);
    call_run(&call, "POST", "/sluice/probe", STR("?"), 400);
    buf_free(&call.body);
    agent_stop();
}

static void test_moves_with_the_gateway(void **state)
{
    (void)state;
    agent_start("moves", 1);
    int before = registered_count();
    gate_close(); /* it comes back at another port */
    gate_open();
    registry_welcomes(1, NULL);
    turn_until(gate_up() == 1);
    assert_true(registered_count() > before);

    /* A list that a gateway sends itself: one more link wanted. */
    char list[256];
    struct call call = {0};
    snprintf(list, sizeof(list),
             "[{\"id\":\"gw_1\",\"address\":\"127.0.0.1:%d\",\"links\":2,\"tls\":false,\"pin\":null}]", gate.port);
    call_run(&call, "PUT", "/sluice/gateways", str_of(list), 204);
    turn_until(gate_up() == 2);
    buf_free(&call.body);
    call_run(&call, "PUT", "/sluice/gateways", STR("[{\"id\":7}]"), 400);
    buf_free(&call.body);
    call_run(&call, "PUT", "/sluice/gateways", STR("[]"), 204); /* gone: its links end */
    turn_until(gate_up() == 0);
    buf_free(&call.body);
    agent_stop();
}

/* Nobody at the first URL any more: the second one tells where the links are. */
static void test_takes_the_second_gateway(void **state)
{
    (void)state;
    int first = registry.port, second = 0, before;
    close(listen_at(&second));
    registry_reset();
    gate_open();
    registry_welcomes(1, NULL);
    options_set("second");
    snprintf(options.gateways[1], sizeof(options.gateways[1]), "http://127.0.0.1:%d", second);
    options.gateway_count = 2;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
    before = registered_count();
    server_stop(&registry);
    registry.port = second;
    server_start(&registry);
    gate_close();
    gate_open();
    registry_welcomes(1, NULL);
    turn_until(gate_up() == 1);
    assert_true(registered_count() > before);
    assert_int_equal(strncmp(gate.links[0].hello, "SLUICE-LINK/1 wrk_1 sec_1 ", 26), 0); /* as itself */
    agent_stop();
    server_stop(&registry);
    registry.port = first;
    server_start(&registry);
}

static void test_finds_a_gateway_by_name(void **state)
{
    (void)state;
    char answer[512];
    gate_open();
    registry_reset();
    snprintf(answer, sizeof(answer),
             "{\"worker_id\":\"w\",\"secret\":\"s\",\"gateways\":[{\"id\":\"g\",\"address\":\"localhost:%d\","
             "\"links\":2,\"tls\":false}]}",
             gate.port);
    registry_answers(200, answer);
    options_set("name");
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 2);
    agent_stop();
}

static void test_enrols_again_where_it_is_unknown(void **state)
{
    (void)state;
    agent_start("unknown", 1);
    registry_answers(401, "{\"error\":{\"message\":\"no such worker\",\"type\":\"x\",\"param\":null,\"code\":\"x\"}}");
    gate.answer = "NO denied\n";
    int before = registered_count();
    gate_drop_links();
    turn_until(registered_count() > before + 1);
    char answer[512];
    snprintf(
        answer, sizeof(answer),
        "{\"worker_id\":\"wrk_2\",\"secret\":\"sec_2\",\"gateways\":[{\"id\":\"gw_1\",\"address\":\"127.0.0.1:%d\","
        "\"links\":1,\"tls\":false}]}",
        gate.port);
    gate.answer = "OK 0\n";
    gate_drop_links();
    registry_answers(200, answer);
    turn_until(gate_up() == 1 && strstr(gate.links[gate.count - 1].hello, " wrk_2 sec_2 "));
    agent_stop();
}

static void test_wrong_token_ends_it(void **state)
{
    (void)state;
    registry_reset();
    gate_open();
    registry_answers(401, "{\"error\":{\"message\":\"bad token\",\"type\":\"x\",\"param\":null,\"code\":\"x\"}}");
    options_set("token");
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_REFUSED);
    agent_stop();
}

static void test_tries_on_while_no_gateway_answers(void **state)
{
    (void)state;
    gate_open();
    registry_reset();
    registry_answers(503, "{}");
    options_set("patient");
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(registered_count() >= 2);
    assert_int_equal(done_count, 0);
    registry_welcomes(1, NULL);
    turn_until(gate_up() == 1);
    agent_stop();
}

static void test_drain(void **state)
{
    (void)state;
    struct call status = {0}, running = {0}, late = {0};
    agent_start("drain", 1);
    atomic_store(&let_go, false);
    atomic_store(&hanging, 0);
    call_start(&status, "GET", "/sluice/status", STR(""));
    call_start(&running, "POST", "/v1/wait", STR("{}"));
    turn_until(atomic_load(&hanging) == 1);
    agent_drain(agent);
    agent_drain(agent);
    turn_until(status_has(&status, "draining", "true"));
    call_run(&late, "POST", "/v1/echo", STR("{}"), 503);
    assert_string_equal(late.fault, "draining");
    assert_int_equal(done_count, 0);
    atomic_store(&let_go, true);
    turn_until(running.ends);
    assert_int_equal(running.end, H2_END_OK);
    assert_true(str_eq(buf_str(&running.body), STR("waited")));
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_DRAINED);
    assert_int_equal(done_count, 1);
    agent_stop();
    buf_free(&status.body);
    buf_free(&running.body);
    buf_free(&late.body);

    agent_start("drain", 1); /* a call that outlasts the drain is cut off */
    options.drain_ns = 0;
    agent_stop();
    gate_open();
    registry_welcomes(1, NULL);
    options.drain_ns = 50 * NS_PER_MS;
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
    call_start(&running, "POST", "/v1/hang", STR("{}"));
    turn_until(running.received);
    agent_drain(agent);
    turn_until(done_count && running.ends);
    assert_int_equal(running.end, H2_END_RESET);
    agent_stop();
    buf_free(&running.body);
}

/* A certificate made on the spot; its pin in hex. */
static SSL_CTX *make_tls(char ret_pin[65])
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    uint8_t digest[SHA256_BYTES];
    unsigned len = 0;
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    assert_int_equal(X509_digest(certificate, EVP_sha256(), digest, &len), 1);
    crypto_hex(digest, sizeof(digest), ret_pin);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(tls, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls, key), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return tls;
}

static void test_tls_takes_only_the_pinned_certificate(void **state)
{
    (void)state;
    char pin[65], other[65];
    struct call call = {0};
    gate_open();
    SSL_CTX_free(make_tls(other));
    gate.tls = make_tls(pin);
    registry_reset();
    registry_welcomes(1, other);
    options_set("tls");
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate.tried >= 2);
    for (size_t i = 0; i < gate.count; i++)
        assert_int_equal(gate.links[i].len, 0); /* the secret was not said */
    registry_welcomes(1, NULL); /* no TLS, said of a loopback address, is fine; here the listener wants TLS */
    char answer[1024];
    snprintf(answer, sizeof(answer),
             "{\"gateways\":[{\"id\":\"gw_1\",\"address\":\"127.0.0.1:%d\",\"links\":1,\"tls\":true,\"pin\":\"%s\"}]}",
             gate.port, pin);
    registry_answers(200, answer);
    gate_drop_links();
    turn_until(gate_up() == 1);
    call_run(&call, "POST", "/v1/echo", STR("hello"), 200);
    buf_free(&call.body);
    agent_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enrols_and_reports),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_upstream_faults),
        cmocka_unit_test(test_upstream_down_and_back),
        cmocka_unit_test(test_slots_and_cancel),
        cmocka_unit_test(test_slots_never_leak),
        cmocka_unit_test(test_flow_control),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_no_probe),
        cmocka_unit_test(test_moves_with_the_gateway),
        cmocka_unit_test(test_takes_the_second_gateway),
        cmocka_unit_test(test_finds_a_gateway_by_name),
        cmocka_unit_test(test_enrols_again_where_it_is_unknown),
        cmocka_unit_test(test_wrong_token_ends_it),
        cmocka_unit_test(test_tries_on_while_no_gateway_answers),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_tls_takes_only_the_pinned_certificate),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
