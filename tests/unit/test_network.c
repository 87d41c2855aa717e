/* Networks and their calls over a small server on threads of this process, which answers as its path says. */
#include "adapters/network.h"
#include "cmocka_all.h"
#include "core/clock.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_NS (20 * NS_PER_S)
#define KEY "sk-very-secret-0001"
#define SEEN_MAX 256

static struct {
    int fd, port;
    pthread_t thread;
    atomic_int count, limits, threads;
    pthread_mutex_t lock;
    int64_t at_ns[SEEN_MAX];
    char last[8192]; /* the last request as it came */
} server;

static const char OFFERS[] =
    "{\"offers\":["
    "{\"id\":\"a\",\"gpu\":\"NVIDIA GeForce RTX 4090\",\"n\":2,\"cents\":68,\"region\":\"eu\"},"
    "{\"id\":\"b\",\"gpu\":\"Quantum Abacus 9000\",\"n\":1,\"cents\":10,\"region\":\"eu\"},"
    "{\"id\":\"c\",\"gpu\":\"NVIDIA-A100-SXM4-40GB-MIG-1g.5gb\",\"n\":1,\"cents\":10,\"region\":\"eu\"},"
    "{\"id\":\"d\",\"gpu\":\"RTX 4090\",\"n\":1,\"cents\":\"gratis\",\"region\":\"eu\"},"
    "{\"id\":\"e\",\"gpu\":\"RTX 4090\",\"n\":1,\"cents\":0,\"region\":\"eu\"},"
    "{\"id\":\"\",\"gpu\":\"RTX 4090\",\"n\":1,\"cents\":5},{\"gpu\":7},null]}";
static const char LISTING[] =
    "{\"items\":[{\"id\":1,\"tag\":\"sluice-abc123-x-1\"},{\"id\":\"2\",\"tag\":\"someone\"},"
    "{\"id\":\"3\",\"tag\":\"sluice-ffffff-x-1\"},{\"id\":\"4\"},{\"tag\":\"sluice-abc123-\"},"
    "{\"id\":\"5\",\"tag\":\"sluice-abc123-y-2\"}]}";

static void put(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void answer(int fd, int status, const char *head, const char *type, const char *body, size_t len)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\nContent-Type: %s\r\n%sContent-Length: %zu\r\n\r\n", status,
                     type, head, len);
    put(fd, text, (size_t)n);
    put(fd, body, len);
}

static void answer_json(int fd, int status, const char *head, const char *body)
{
    answer(fd, status, head, "application/json", body, strlen(body));
}

static void wait_for_close(int fd)
{
    char byte;
    while (recv(fd, &byte, 1, 0) > 0) {
    }
}

/* False: close the connection. */
static bool serve_one(int fd, const char *path)
{
    if (!strcmp(path, "/drop"))
        return false;
    if (!strcmp(path, "/hang")) {
        wait_for_close(fd);
        return false;
    }
    if (!strcmp(path, "/html")) {
        answer(fd, 200, "", "text/html", "<!DOCTYPE html><p>hello", 23);
    } else if (!strcmp(path, "/html502")) {
        answer(fd, 502, "", "text/html", "\n<html>bad gateway</html>", 25);
    } else if (!strcmp(path, "/garbage")) {
        answer(fd, 200, "", "application/json", "{\"a\":\xff\0}", 8);
    } else if (!strcmp(path, "/huge")) {
        char *big = calloc(1, 9 << 20);
        memset(big, ' ', 9 << 20);
        answer(fd, 200, "", "application/json", big, 9 << 20);
        free(big);
    } else if (!strcmp(path, "/empty")) {
        answer(fd, 204, "", "text/plain", "", 0);
    } else if (!strncmp(path, "/status/", 8)) {
        answer_json(fd, atoi(path + 8), "", "{\"error\":{\"code\":\"e\",\"message\":\"no good: " KEY "\\n now\"}}");
    } else if (!strcmp(path, "/full")) {
        answer_json(fd, 400, "", "{\"message\":\"There are NO instances left\"}");
    } else if (!strncmp(path, "/limit/", 7)) {
        bool is_told = strstr(path, "told");
        if (atomic_fetch_sub(&server.limits, 1) > 0)
            answer_json(fd, 429, is_told ? "Retry-After: 0.15\r\n" : "", "{\"detail\":\"too often\"}");
        else
            answer_json(fd, 200, "", "{}");
    } else if (!strcmp(path, "/offers")) {
        answer_json(fd, 200, "", OFFERS);
    } else if (!strcmp(path, "/list")) {
        answer_json(fd, 200, "", LISTING);
    } else if (!strncmp(path, "/ok", 3)) {
        answer_json(fd, 200, "X-Thing: seen\r\n", "{\"id\":\"i-1\"}");
    } else {
        answer_json(fd, 404, "", "{\"msg\":\"no such thing\"}");
    }
    return true;
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char text[8192];
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(fd, text + len, sizeof(text) - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        text[len] = '\0';
        char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
        size_t body = length && end && length < end ? strtoul(length + 16, NULL, 10) : 0;
        if (!end || len < (size_t)(end + 4 - text) + body)
            continue;
        pthread_mutex_lock(&server.lock);
        int number = atomic_fetch_add(&server.count, 1);
        server.at_ns[number % SEEN_MAX] = clock_mono_ns();
        memcpy(server.last, text, len + 1);
        pthread_mutex_unlock(&server.lock);
        char path[256] = "";
        sscanf(text, "%*s %255s", path);
        len = 0;
        if (!serve_one(fd, path))
            break;
    }
    shutdown(fd, SHUT_RDWR);
    close(fd);
    atomic_fetch_sub(&server.threads, 1);
    return NULL;
}

static void *accept_all(void *arg)
{
    (void)arg;
    int fd;
    while ((fd = accept(server.fd, NULL, NULL)) >= 0) {
        pthread_t thread;
        atomic_fetch_add(&server.threads, 1);
        assert_int_equal(pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd), 0);
        pthread_detach(thread);
    }
    return NULL;
}

/* -- an adapter as small as can be: the path is the offer or the instance -- */

static void on_made(struct adapter_call *call, const struct adapter_answer *got)
{
    struct supply_instance made = {.id = json_text_at(got->json, "id"), .tag = call_tag(call), .price_usd_nano = -1};
    adapter_done(call, &made);
}

static void run_create(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    json_t *body =
        json_pack("{s:s%, s:s%}", "name", order->tag.ptr, order->tag.len, "image", order->image.ptr, order->image.len);
    struct str path = adapter_text(call, "/" STR_FMT, STR_ARG(order->offer));
    adapter_send(call, &(struct adapter_request){
                           .method = "POST", .path = path, .take_json = body, .creates = true, .on_answer = on_made});
}

static void on_described(struct adapter_call *call, const struct adapter_answer *got)
{
    struct str seen = got->header(got, "x-thing");
    struct supply_endpoint endpoint = {8000, STR("http://203.0.113.7:33526")};
    struct supply_instance one = {.id = call_instance(call),
                                  .state = INSTANCE_RUNNING,
                                  .placement = seen,
                                  .endpoints = &endpoint,
                                  .endpoint_count = 1,
                                  .price_usd_nano = -1};
    adapter_done(call, &one);
}

static void describe_now(struct adapter_call *call)
{
    struct str path = adapter_text(call, "/" STR_FMT, STR_ARG(call_instance(call)));
    adapter_send(call, &(struct adapter_request){.path = path, .on_answer = on_described});
}

static void run_describe(struct adapter_call *call)
{
    int *turns = adapter_memory(call, sizeof(*turns));
    if (str_eq(call_instance(call), STR("ok-later")) && (*turns)++ < 3)
        adapter_later(call, NS_PER_MS, run_describe);
    else
        describe_now(call);
}

static void on_gone(struct adapter_call *call, const struct adapter_answer *got)
{
    (void)got;
    adapter_done(call, NULL);
}

static void run_terminate(struct adapter_call *call)
{
    struct str path = adapter_text(call, "/" STR_FMT, STR_ARG(call_instance(call)));
    adapter_send(call, &(struct adapter_request){.method = "DELETE", .path = path, .on_answer = on_gone});
}

static void on_offers_answer(struct adapter_call *call, const struct adapter_answer *got)
{
    size_t i;
    const json_t *row;
    json_array_foreach(json_at(got->json, "offers"), i, row)
    {
        struct adapter_offer offer = {.id = json_text_at(row, "id"),
                                      .gpu_raw = json_text_at(row, "gpu"),
                                      .gpus = (uint32_t)json_count_at(row, "n"),
                                      .region = json_text_at(row, "region"),
                                      .is_priced = true,
                                      .reliability = -1,
                                      .terms = {.amount = json_decimal_at(call, row, "cents"),
                                                .currency = STR("cents"),
                                                .per = PRICE_PER_MACHINE_HOUR,
                                                .gpus = (uint32_t)json_count_at(row, "n")}};
        adapter_offers(call, &offer, 1);
    }
    adapter_done(call, NULL);
}

static void run_offers(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = STR("/offers"), .on_answer = on_offers_answer});
}

static void on_list_answer(struct adapter_call *call, const struct adapter_answer *got)
{
    size_t i;
    const json_t *row;
    json_array_foreach(json_at(got->json, "items"), i, row)
    {
        struct supply_instance one = {.id = json_id_at(call, row, "id"), .tag = json_text_at(row, "tag")};
        adapter_instances(call, &one, 1);
    }
    adapter_done(call, NULL);
}

static void run_list(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = STR("/list"), .on_answer = on_list_answer});
}

static void run_stop(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = STR("/ok-signed"),
                                                 .aws_sigv4 = "aws:amz:us-east-1:ec2",
                                                 .content_type = "application/x-www-form-urlencoded",
                                                 .method = "POST",
                                                 .body = STR("Action=Stop"),
                                                 .on_answer = on_gone});
}

static const struct adapter_error_row error_rows[] = {{400, NULL, "no instances left", SUPPLY_NO_CAPACITY}, {0}};
static const struct adapter small = {
    .name = "small",
    .title = "Small Net",
    .credentials = {"api_key", "?access_key", "?secret_key"},
    .options = {"colour", "size.*"},
    .interval_ns = {[ADAPTER_TERMINATE] = 60 * NS_PER_MS},
    .errors = error_rows,
    .run = {[ADAPTER_OFFERS] = run_offers,
            [ADAPTER_CREATE] = run_create,
            [ADAPTER_DESCRIBE] = run_describe,
            [ADAPTER_LIST] = run_list,
            [ADAPTER_STOP] = run_stop,
            [ADAPTER_TERMINATE] = run_terminate},
};

/* -- a network under test -- */

static struct {
    struct loop *loop;
    struct http_client *http;
    struct network *network;
    struct rates rates;
    int done;
    struct network_result got;
    char id[64], text[64], endpoint[64], listed[64];
    struct network_offer offers[8];
    char terms[8][160];
    size_t offer_count;
} t;

static void on_done(void *ctx, const struct network_result *result)
{
    (void)ctx;
    t.done++;
    t.got = *result;
    t.id[0] = t.endpoint[0] = t.text[0] = '\0';
    if (result->instance) {
        assert_true(str_copy(t.id, sizeof(t.id), result->instance->id));
        if (result->instance->placement.ptr)
            assert_true(str_copy(t.text, sizeof(t.text), result->instance->placement));
        if (result->instance->endpoint_count)
            assert_true(str_copy(t.endpoint, sizeof(t.endpoint), result->instance->endpoints[0].url));
    }
}

static void on_offers(void *ctx, const struct network_offer *offers, size_t count)
{
    (void)ctx;
    for (size_t i = 0; i < count; i++) {
        assert_true(t.offer_count < 8);
        assert_true(str_copy(t.terms[t.offer_count], sizeof(t.terms[0]), offers[i].terms));
        t.offers[t.offer_count++] = offers[i];
    }
}

static void on_instances(void *ctx, const struct supply_instance *instances, size_t count)
{
    (void)ctx;
    for (size_t i = 0; i < count; i++) {
        assert_true(strlen(t.listed) + instances[i].id.len + 1 < sizeof(t.listed));
        strncat(t.listed, instances[i].id.ptr, instances[i].id.len);
        strcat(t.listed, ",");
    }
}

static struct config_pair secrets[] = {
    {"api_key", KEY}, {"access_key", "AKIDEXAMPLE"}, {"secret_key", "not-to-be-told"}};
static const struct config_map secret_map = {secrets, 3};

static enum error open_with(struct config_pair *pairs, size_t count, const char *base, char *error)
{
    static struct config_map options;
    static char url[64];
    options = (struct config_map){pairs, count};
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", server.port);
    return network_open(&(struct network_options){.loop = t.loop,
                                                  .http = t.http,
                                                  .adapter = &small,
                                                  .id = "small1",
                                                  .base_url = base ? base : url,
                                                  .credential = &secret_map,
                                                  .options = &options,
                                                  .rates = &t.rates,
                                                  .installation = STR("abc123")},
                        &t.network, error);
}

static int setup(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    memset(&t, 0, sizeof(t));
    atomic_store(&server.count, 0);
    atomic_store(&server.limits, 0);
    rates_init(&t.rates, 0);
    assert_int_equal(loop_open(&t.loop), ERR_NONE);
    assert_int_equal(http_client_open(t.loop, &t.http), ERR_NONE);
    assert_int_equal(open_with(NULL, 0, NULL, error), ERR_NONE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    network_free(t.network);
    http_client_free(t.http);
    loop_free(t.loop);
    return 0;
}

static void reopen(const char *key, const char *value, const char *base)
{
    static struct config_pair pair;
    static char keys[32], values[32];
    char error[CONFIG_ERROR_MAX];
    snprintf(keys, sizeof(keys), "%s", key);
    snprintf(values, sizeof(values), "%s", value);
    pair = (struct config_pair){keys, values};
    network_free(t.network);
    assert_int_equal(open_with(&pair, 1, base, error), ERR_NONE);
    t.done = 0;
}

static void wait_done(int count)
{
    int64_t give_up = clock_mono_ns() + PATIENCE_NS;
    while (t.done < count && clock_mono_ns() < give_up)
        loop_turn(t.loop, 50 * NS_PER_MS);
    assert_int_equal(t.done, count);
}

static enum supply_error describe(const char *path)
{
    t.done = 0;
    network_describe(t.network, str_of(path), (struct str){NULL, 0}, on_done, NULL);
    assert_int_equal(t.done, 0); /* never inside */
    wait_done(1);
    return t.got.error;
}

static struct supply_order order_of(const char *offer)
{
    return (struct supply_order){.tag = STR("sluice-abc123-lease-1"),
                                 .offer = str_of(offer),
                                 .gpus = 1,
                                 .image = STR("image"),
                                 .span_s = 60,
                                 .disk_gib = 1,
                                 .price_max_usd_nano = -1};
}

static enum supply_error create(const char *path)
{
    struct supply_order order = order_of(path);
    t.done = 0;
    network_create(t.network, &order, on_done, NULL);
    wait_done(1);
    return t.got.error;
}

static void test_good_call(void **state)
{
    (void)state;
    assert_int_equal(describe("ok"), SUPPLY_OK);
    assert_string_equal(t.id, "ok");
    assert_string_equal(t.text, "seen");
    assert_string_equal(t.endpoint, "http://203.0.113.7:33526");
    assert_non_null(strstr(server.last, "Authorization: Bearer " KEY "\r\n"));
    assert_int_equal(describe("ok-later"), SUPPLY_OK);
    for (int i = 0; i < 5; i++)
        loop_turn(t.loop, 0);
    assert_int_equal(t.done, 1);
}

static void test_check_by_listing(void **state)
{
    (void)state;
    network_check(t.network, on_done, NULL);
    wait_done(1);
    assert_int_equal(t.got.error, SUPPLY_OK);
    assert_non_null(strstr(server.last, "GET /list "));
    network_logs(t.network, STR("i"), STR(""), 0, NULL, on_done, NULL);
    wait_done(2);
    assert_int_equal(t.got.error, SUPPLY_UNSUPPORTED);
}

static void test_order_is_copied(void **state)
{
    (void)state;
    char offer[] = "ok", tag[] = "sluice-abc123-lease-7", image[] = "the-image";
    struct supply_order order = order_of(offer);
    order.tag = str_of(tag);
    order.image = str_of(image);
    network_create(t.network, &order, on_done, NULL);
    memset(offer, 'x', 2);
    memset(tag, 'x', 4);
    memset(image, 'x', 4);
    wait_done(1);
    assert_int_equal(t.got.error, SUPPLY_OK);
    assert_string_equal(t.id, "i-1");
    assert_non_null(strstr(server.last, "{\"name\":\"sluice-abc123-lease-7\",\"image\":\"the-image\"}"));
    order.offer.len = 0;
    network_create(t.network, &order, on_done, NULL);
    wait_done(2);
    assert_int_equal(t.got.error, SUPPLY_BAD_REQUEST);
}

static void test_classes(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum supply_error error;
    } rows[] = {{"status/401", SUPPLY_BAD_CREDENTIAL},
                {"status/402", SUPPLY_NO_FUNDS},
                {"status/422", SUPPLY_BAD_REQUEST},
                {"full", SUPPLY_NO_CAPACITY},
                {"missing", SUPPLY_NOT_FOUND},
                {"status/409", SUPPLY_NOT_YET},
                {"status/503", SUPPLY_TRANSIENT},
                {"status/302", SUPPLY_UNKNOWN},
                {"status/418", SUPPLY_UNKNOWN},
                {"html", SUPPLY_TRANSIENT},
                {"garbage", SUPPLY_TRANSIENT},
                {"huge", SUPPLY_TRANSIENT},
                {"drop", SUPPLY_TRANSIENT}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(describe(rows[i].path), rows[i].error);
        assert_true(!strncmp(t.got.message, "Small Net (small1): ", 20));
    }
}

static void test_messages(void **state)
{
    (void)state;
    assert_int_equal(describe("status/401"), SUPPLY_BAD_CREDENTIAL);
    assert_string_equal(t.got.message, "Small Net (small1): no good: *** now; check this network's credential in the "
                                       "configuration");
    assert_int_equal(t.got.http_status, 401);
    assert_int_equal(describe("html502"), SUPPLY_TRANSIENT);
    assert_non_null(strstr(t.got.message, "(small1): HTTP 502 with a page of HTML; try again"));
    assert_int_equal(describe("html"), SUPPLY_TRANSIENT);
    assert_non_null(strstr(t.got.message, "no JSON"));
    assert_int_equal(describe("ok"), SUPPLY_OK);
    assert_string_equal(t.got.message, "");
}

static void test_uncertain_creates(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool is_uncertain;
    } rows[] = {{"drop", true},    {"html", true},        {"garbage", true}, {"empty", true},   {"status/500", true},
                {"html502", true}, {"status/422", false}, {"full", false},   {"missing", false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_not_equal(create(rows[i].path), SUPPLY_OK);
        assert_int_equal(t.got.is_uncertain, rows[i].is_uncertain);
    }
    assert_int_equal(create("ok"), SUPPLY_OK);
    assert_false(t.got.is_uncertain);
    reopen("deadline_ms", "80", NULL);
    assert_int_equal(create("hang"), SUPPLY_TRANSIENT);
    assert_true(t.got.is_uncertain);
    reopen("colour", "red", "http://127.0.0.1:1");
    assert_int_equal(create("ok"), SUPPLY_TRANSIENT);
    assert_false(t.got.is_uncertain);
    assert_non_null(strstr(t.got.message, "cannot be reached"));
}

static void test_pauses_are_kept(void **state)
{
    (void)state;
    atomic_store(&server.limits, 2);
    assert_int_equal(describe("limit/told"), SUPPLY_OK);
    assert_int_equal(atomic_load(&server.count), 3);
    assert_true(server.at_ns[1] - server.at_ns[0] >= 150 * NS_PER_MS);
    assert_true(server.at_ns[2] - server.at_ns[1] >= 150 * NS_PER_MS);
    /* without a word, and never again within the call's time */
    atomic_store(&server.limits, 1000);
    reopen("deadline_ms", "400", NULL);
    assert_int_equal(describe("limit/"), SUPPLY_RATE_LIMITED);
    assert_int_equal(atomic_load(&server.count), 4);
    /* others wait for the same pause */
    assert_int_equal(describe("ok"), SUPPLY_RATE_LIMITED);
    assert_int_equal(atomic_load(&server.count), 4);
    assert_true(t.got.retry_after_ms > 0);
    assert_int_equal(create("ok"), SUPPLY_OK);
    reopen("pace_percent", "1", NULL); /* a hundredth of a second, in place of one */
    atomic_store(&server.limits, 2);
    assert_int_equal(describe("limit/"), SUPPLY_OK);
}

static void test_pace(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        network_terminate(t.network, STR("ok"), STR(""), on_done, NULL);
    wait_done(3);
    assert_int_equal(atomic_load(&server.count), 3);
    assert_true(server.at_ns[2] - server.at_ns[0] >= 110 * NS_PER_MS);
    assert_true(server.at_ns[1] - server.at_ns[0] >= 50 * NS_PER_MS);
    network_terminate(t.network, STR("missing"), STR(""), on_done, NULL); /* one that is gone is ended */
    wait_done(4);
    assert_int_equal(t.got.error, SUPPLY_OK);
}

static void test_deadline(void **state)
{
    (void)state;
    reopen("deadline_ms", "60", NULL);
    assert_int_equal(describe("hang"), SUPPLY_TRANSIENT);
    assert_non_null(strstr(t.got.message, "no answer in time"));
}

static void test_cancel(void **state)
{
    (void)state;
    struct adapter_call *call = network_describe(t.network, STR("hang"), STR(""), on_done, NULL);
    network_cancel(call);
    call = network_describe(t.network, STR("hang"), STR(""), on_done, NULL);
    int64_t give_up = clock_mono_ns() + PATIENCE_NS;
    while (!atomic_load(&server.count) && clock_mono_ns() < give_up)
        loop_turn(t.loop, 20 * NS_PER_MS);
    network_cancel(call);
    assert_int_equal(describe("ok"), SUPPLY_OK);
    assert_int_equal(t.done, 1);
}

static void test_free_with_open_calls(void **state)
{
    (void)state;
    network_describe(t.network, STR("hang"), STR(""), on_done, NULL);
    int64_t give_up = clock_mono_ns() + PATIENCE_NS;
    while (!atomic_load(&server.count) && clock_mono_ns() < give_up)
        loop_turn(t.loop, 20 * NS_PER_MS);
    network_describe(t.network, STR("ok"), STR(""), on_done, NULL); /* not begun */
    t.network = network_free(t.network);
    assert_int_equal(t.done, 2);
    assert_int_equal(t.got.error, SUPPLY_TRANSIENT);
    assert_non_null(strstr(t.got.message, "closed"));
    for (int i = 0; i < 5; i++)
        loop_turn(t.loop, NS_PER_MS);
    assert_int_equal(t.done, 2);
}

static void test_too_many_calls(void **state)
{
    (void)state;
    for (int i = 0; i < NETWORK_CALLS_MAX; i++)
        network_describe(t.network, STR("hang"), STR(""), NULL, NULL);
    network_describe(t.network, STR("ok"), STR(""), on_done, NULL);
    wait_done(1);
    assert_int_equal(t.got.error, SUPPLY_RATE_LIMITED);
}

static void test_offers(void **state)
{
    (void)state;
    network_offers(t.network, on_offers, on_done, NULL);
    wait_done(1);
    assert_int_equal(t.got.error, SUPPLY_OK);
    assert_int_equal(t.offer_count, 3);
    assert_int_equal(t.got.count, 3);
    assert_int_equal(t.got.unknown_gpus, 1);
    assert_int_equal(t.got.unpriced, 2);
    assert_string_equal(t.offers[0].gpu, "nvidia/rtx4090-24");
    assert_int_equal(t.offers[0].price_usd_nano, 340000000);
    assert_int_equal(t.offers[0].gpus, 2);
    assert_int_equal(t.offers[0].fraction_ppm, 1000000);
    assert_true(t.offers[0].vram_bytes >= (uint64_t)23 << 30);
    assert_non_null(strstr(t.terms[0], "\"amount\":\"68\""));
    assert_non_null(strstr(t.terms[2], "\"amount\":\"10\""));
    assert_string_equal(t.offers[1].gpu, "");
    assert_true(t.offers[2].is_slice);
}

static void test_foreign_instances(void **state)
{
    (void)state;
    network_list(t.network, on_instances, on_done, NULL);
    wait_done(1);
    assert_string_equal(t.listed, "1,5,");
    assert_int_equal(t.got.count, 2);
}

static void test_signature(void **state)
{
    (void)state;
    network_stop(t.network, STR("i"), STR(""), on_done, NULL);
    wait_done(1);
    assert_int_equal(t.got.error, SUPPLY_OK);
    char seen[sizeof(server.last)];
    memcpy(seen, server.last, sizeof(seen));
    char *auth = strstr(seen, "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/");
    assert_non_null(auth);
    assert_non_null(strstr(auth, "/us-east-1/ec2/aws4_request"));
    char *list = strstr(auth, "SignedHeaders=");
    assert_non_null(list);
    *strchr(list, ',') = '\0';
    for (char *name = strtok(list + 14, ";"); name; name = strtok(NULL, ";")) {
        char line[64]; /* what is signed was sent */
        snprintf(line, sizeof(line), "%s:", name);
        assert_non_null(strcasestr(server.last, line));
    }
    assert_null(strstr(server.last, "not-to-be-told"));
    assert_int_equal(describe("ok"), SUPPLY_OK); /* and the next request is not signed */
    assert_null(strstr(server.last, "AWS4"));
}

static void test_refused_configurations(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX] = "";
    static const struct {
        const char *key, *value, *says;
    } rows[] = {{"colours", "red", "network small1: its adapter knows no option colours"},
                {"pace_percent", "fast", "pace_percent is a number"},
                {"deadline_ms", "-1", "deadline_ms is a number"},
                {"price.default", "1", "knows no option price.default"}};
    network_free(t.network);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char key[32], value[32];
        snprintf(key, sizeof(key), "%s", rows[i].key);
        snprintf(value, sizeof(value), "%s", rows[i].value);
        struct config_pair pair = {key, value};
        assert_int_equal(open_with(&pair, 1, NULL, error), ERR_BAD_INPUT);
        assert_non_null(strstr(error, rows[i].says));
    }
    char key[] = "size.large", value[] = "1";
    assert_int_equal(open_with(&(struct config_pair){key, value}, 1, NULL, error), ERR_NONE);
}

static void test_json(void **state)
{
    (void)state;
    json_t *root = json_pack("{s:{s:[i,{s:s}]}, s:f, s:s, s:s, s:s, s:i, s:f, s:i}", "a", "b", 1, "c", "deep", "price",
                             0.3367, "time", "2026-06-01T12:00:00.250Z", "zone", "2026-06-01T14:00:00+02:00", "bad",
                             "2026-13-01T00:00:00Z", "unix", 1780315200, "big", 1e300, "minus", -5);
    assert_true(str_eq(json_text_at(root, "a.b[1].c"), STR("deep")));
    assert_int_equal(json_count_at(root, "a.b[0]"), 1);
    assert_null(json_at(root, "a.b[7].c"));
    assert_null(json_at(root, "a.x.y"));
    assert_int_equal(json_count_at(root, "minus"), -1);
    assert_int_equal(json_count_at(root, "big"), -1);
    assert_int_equal(json_count_at(root, "price"), -1);
    assert_int_equal(json_time_at(root, "time"), 1780315200250);
    assert_int_equal(json_time_at(root, "zone"), 1780315200000);
    assert_int_equal(json_time_at(root, "unix"), 1780315200000);
    assert_int_equal(json_time_at(root, "bad"), 0);
    assert_int_equal(json_time_at(root, "big"), 0);
    json_decref(root);
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    pthread_mutex_init(&server.lock, NULL);
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.fd, (struct sockaddr *)&at, len) || listen(server.fd, 128) ||
        getsockname(server.fd, (struct sockaddr *)&at, &len) || pthread_create(&server.thread, NULL, accept_all, NULL))
        return 1;
    server.port = ntohs(at.sin_port);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_good_call),
        TEST(test_check_by_listing),
        TEST(test_order_is_copied),
        TEST(test_classes),
        TEST(test_messages),
        TEST(test_uncertain_creates),
        TEST(test_pauses_are_kept),
        TEST(test_pace),
        TEST(test_deadline),
        TEST(test_cancel),
        TEST(test_free_with_open_calls),
        TEST(test_too_many_calls),
        TEST(test_offers),
        TEST(test_foreign_instances),
        TEST(test_signature),
        TEST(test_refused_configurations),
        TEST(test_json),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    int64_t give_up = clock_mono_ns() + PATIENCE_NS;
    while (atomic_load(&server.threads) && clock_mono_ns() < give_up)
        usleep(1000);
    return failed;
}
