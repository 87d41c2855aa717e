/* Handlers of REST calls run on a real Redis, with their answers caught where the HTTP server would be. */
#ifndef SLUICE_TESTS_UNIT_ROUTES_FIXTURE_H
#define SLUICE_TESTS_UNIT_ROUTES_FIXTURE_H

#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/redis_child.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    char dir[64], url[160];
    struct redis_child *child;
    struct reactor reactor;
    int answers, status;
    char content_type[64];
    json_t *json; /* of the last answer; NULL when it was none */
};

struct test_call {
    struct api_call api;
    struct fixture *fixture;
    const char *const *headers; /* name, value, ...; ends with NULL */
};

static struct test_call *test_of(struct api_call *call)
{
    return container_of(call, struct test_call, api);
}

void api_reply(struct api_call *call, int status, const char *content_type, struct str body)
{
    struct test_call *test = test_of(call);
    struct fixture *fixture = test->fixture;
    fixture->answers++;
    fixture->status = status;
    snprintf(fixture->content_type, sizeof(fixture->content_type), "%s", content_type ? content_type : "");
    json_decref(fixture->json);
    fixture->json = body.len ? json_loadb(body.ptr, body.len, JSON_DECODE_ANY, NULL) : NULL;
    free(test);
}

void api_reply_json(struct api_call *call, int status, json_t *take_json)
{
    assert_non_null(take_json);
    char *text = json_dumps(take_json, JSON_COMPACT);
    json_decref(take_json);
    api_reply(call, status, "application/json", str_of(text));
    free(text);
}

void api_reply_empty(struct api_call *call, int status)
{
    api_reply(call, status, NULL, STR(""));
}

void api_reply_error(struct api_call *call, const struct api_error *error)
{
    struct buf text;
    buf_init(&text, 0);
    assert_true(api_error_json(error, &text));
    api_reply(call, error->status, "application/json", buf_str(&text));
    buf_free(&text);
}

static struct str header_of(const struct api_call *call, const char *name)
{
    const struct test_call *test = (const struct test_call *)(const void *)call;
    for (const char *const *header = test->headers; header && *header; header += 2) {
        if (strcmp(header[0], name) == 0)
            return (struct str){header[1], strlen(header[1])};
    }
    return (struct str){NULL, 0};
}

/* -- asking -- */

static struct test_call *call_new(struct fixture *fixture, const char *tenant)
{
    struct test_call *test = calloc(1, sizeof(*test));
    assert_non_null(test);
    test->fixture = fixture;
    test->api.reactor = &fixture->reactor;
    test->api.header = header_of;
    test->api.is_admin = !tenant;
    if (tenant)
        assert_true(str_copy(test->api.tenant, sizeof(test->api.tenant), str_of(tenant)));
    return test;
}

static int answered(struct fixture *fixture)
{
    int64_t give_up = clock_mono_ns() + 20 * NS_PER_S;
    while (!fixture->answers && clock_mono_ns() < give_up)
        loop_turn(fixture->reactor.loop, 50 * NS_PER_MS);
    assert_int_equal(fixture->answers, 1);
    fixture->answers = 0;
    return fixture->status;
}

/* What was borrowed from the HTTP side is wiped when the handler has returned, as if the caller had hung up. */
static inline int post(struct fixture *fixture, api_handler *handler, const char *path, const char *body,
                       const char *key)
{
    struct test_call *test = call_new(fixture, NULL);
    char *body_copy = strdup(body), *key_copy = key ? strdup(key) : NULL;
    test->api.method = STR("POST");
    test->api.path = str_of(path);
    test->api.body = str_of(body_copy);
    test->api.idempotency_key = str_of(key_copy);
    handler(&test->api);
    memset(body_copy, '?', strlen(body_copy));
    free(body_copy);
    free(key_copy);
    return answered(fixture);
}

static inline int get(struct fixture *fixture, api_handler *handler, const char *query, const char *param,
                      const char *tenant)
{
    struct test_call *test = call_new(fixture, tenant);
    char *query_copy = strdup(query);
    test->api.method = STR("GET");
    test->api.query = str_of(query_copy);
    static const char *const headers[] = {"accept", "text/html, text/csv;q=0.9", NULL};
    test->headers = headers;
    if (param)
        assert_true(api_params_set(&test->api, (struct str[]){str_of(param), {NULL, 0}}));
    handler(&test->api);
    memset(query_copy, '?', strlen(query_copy));
    free(query_copy);
    return answered(fixture);
}

static inline const char *text_at(const struct fixture *fixture, const char *name)
{
    return json_string_value(json_object_get(fixture->json, name));
}

static inline const char *error_at(const struct fixture *fixture, const char *name)
{
    return json_string_value(json_object_get(json_object_get(fixture->json, "error"), name));
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    *state = fixture;
    signal(SIGPIPE, SIG_IGN);
    snprintf(fixture->dir, sizeof(fixture->dir), "/tmp/sluice-routes-XXXXXX");
    if (!mkdtemp(fixture->dir) || loop_open(&fixture->reactor.loop) != ERR_NONE ||
        redis_child_start(fixture->dir, false, &fixture->child, fixture->url, sizeof(fixture->url)) != ERR_NONE)
        return -1;
    return (int)redis_open(fixture->reactor.loop, &(struct redis_options){.url = fixture->url},
                           &fixture->reactor.redis);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    redis_free(fixture->reactor.redis);
    loop_free(fixture->reactor.loop);
    redis_child_stop(fixture->child);
    json_decref(fixture->json);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", fixture->dir);
    int rc = system(command);
    free(fixture);
    return rc;
}

#endif
