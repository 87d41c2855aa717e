#include "tests/unit/redis_fixture.h"
#include "gateway/enrolment.h"
#include "gateway/gateways.h"

#include <string.h>

#define PATIENCE_NS (20 * NS_PER_S)

struct heard {
    unsigned fired;
    enum error error;
    struct enrolment enrolment;
    json_t *list;
    char text[2048];
};

static void on_done(void *ctx, enum error error)
{
    struct heard *heard = ctx;
    heard->fired++;
    heard->error = error;
}

static void on_found(void *ctx, enum error error, const struct enrolment *enrolment)
{
    struct heard *heard = ctx;
    on_done(ctx, error);
    assert_int_equal(enrolment != NULL, error == ERR_NONE);
    if (enrolment)
        heard->enrolment = *enrolment;
}

static void on_list(void *ctx, enum error error, json_t *take_array)
{
    on_done(ctx, error);
    ((struct heard *)ctx)->list = take_array;
}

static void on_text(void *ctx, enum error error, struct str json)
{
    struct heard *heard = ctx;
    on_done(ctx, error);
    assert_true(str_copy(heard->text, sizeof(heard->text), json));
}

static void on_left(void *ctx)
{
    on_done(ctx, ERR_NONE);
}

static enum error wait_for(struct heard *heard, enum error asked)
{
    assert_int_equal(asked, ERR_NONE);
    assert_int_equal(heard->fired, 0);
    for (int64_t until = clock_mono_ns() + PATIENCE_NS; heard->fired == 0;) {
        assert_true(clock_mono_ns() < until);
        loop_turn(fixture.loop, 10 * NS_PER_MS);
    }
    assert_int_equal(heard->fired, 1);
    heard->fired = 0;
    return heard->error;
}

static struct enrolment enrolment_of(int64_t expires_at_ms)
{
    struct enrolment enrolment = {.supplier = "acme", .created_at_ms = 5, .expires_at_ms = expires_at_ms};
    id_new(ENROLMENT_ID_PREFIX, enrolment.id);
    return enrolment;
}

#define put(heard, enrolment, token) \
    wait_for(heard, enrolment_put(fixture.redis, enrolment, str_of(token), on_done, heard))
#define find(heard, token) wait_for(heard, enrolment_find(fixture.redis, str_of(token), on_found, heard))
#define drop(heard, id) wait_for(heard, enrolment_delete(fixture.redis, str_of(id), on_done, heard))

static void forms_of_tokens(void **state)
{
    (void)state;
    char token[SECRET_TEXT_MAX];
    crypto_secret(ENROLMENT_TOKEN_PREFIX, token);
    assert_true(enrolment_token_is_formed(str_of(token)));
    token[10] = '\n';
    assert_false(enrolment_token_is_formed(str_of(token)));
    crypto_secret("sk-", token);
    assert_false(enrolment_token_is_formed(str_of(token)));
    assert_false(enrolment_token_is_formed(STR("slw-")));
    assert_false(enrolment_token_is_formed((struct str){NULL, 0}));
}

static void a_token_lives_until_it_is_deleted(void **state)
{
    (void)state;
    struct heard heard = {0};
    char token[SECRET_TEXT_MAX], other[SECRET_TEXT_MAX];
    struct enrolment enrolment = enrolment_of(0);
    crypto_secret(ENROLMENT_TOKEN_PREFIX, token);
    crypto_secret(ENROLMENT_TOKEN_PREFIX, other);
    assert_int_equal(put(&heard, &enrolment, token), ERR_NONE);
    assert_int_equal(put(&heard, &enrolment, other), ERR_EXISTS);
    assert_int_equal(find(&heard, other), ERR_NOT_FOUND);
    assert_int_equal(find(&heard, token), ERR_NONE);
    assert_string_equal(heard.enrolment.id, enrolment.id);
    assert_string_equal(heard.enrolment.supplier, "acme");
    assert_int_equal(heard.enrolment.created_at_ms, 5);

    redisReply *all = redisCommand(fixture.look, "HGETALL sl:{enrolments}:list");
    for (size_t i = 0; i < all->elements; i++) /* the token itself is nowhere */
        assert_null(strstr(all->element[i]->str, token));
    freeReplyObject(all);

    assert_int_equal(wait_for(&heard, enrolment_list(fixture.redis, on_list, &heard)), ERR_NONE);
    assert_int_equal(json_array_size(heard.list), 1);
    assert_true(json_is_null(json_object_get(json_array_get(heard.list, 0), "expires_at")));
    json_decref(heard.list);

    assert_int_equal(drop(&heard, enrolment.id), ERR_NONE);
    assert_int_equal(drop(&heard, enrolment.id), ERR_NONE);
    assert_int_equal(drop(&heard, "enr_never"), ERR_NOT_FOUND);
    assert_int_equal(find(&heard, token), ERR_NOT_FOUND);
    assert_int_equal(wait_for(&heard, enrolment_list(fixture.redis, on_list, &heard)), ERR_NONE);
    assert_int_equal(json_array_size(heard.list), 0);
    json_decref(heard.list);
}

static void a_token_expires(void **state)
{
    (void)state;
    struct heard heard = {0};
    char token[SECRET_TEXT_MAX];
    struct enrolment past = enrolment_of(clock_wall_ms() - 1), future = enrolment_of(clock_wall_ms() + 1000000);
    crypto_secret(ENROLMENT_TOKEN_PREFIX, token);
    assert_int_equal(put(&heard, &past, token), ERR_NONE);
    assert_int_equal(find(&heard, token), ERR_NOT_FOUND);
    crypto_secret(ENROLMENT_TOKEN_PREFIX, token);
    assert_int_equal(put(&heard, &future, token), ERR_NONE);
    assert_int_equal(find(&heard, token), ERR_NONE);
}

/* -- the list of gateways -- */

#define sign(heard, self, is_settled) wait_for(heard, gateways_sign(fixture.redis, self, is_settled, on_text, heard))

static void gateways_come_and_go(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct gateway_address one = {.id = "gwy_1", .address = "127.0.0.1:4001", .links = 2};
    struct gateway_address two = {.id = "gwy_2", .address = "[::1]:4002", .links = 1, .tls = true, .pin = "ab"};
    static const char first[] =
        "{\"id\":\"gwy_1\",\"address\":\"127.0.0.1:4001\",\"links\":2,\"tls\":false,\"pin\":null}";
    static const char second[] =
        "{\"id\":\"gwy_2\",\"address\":\"[::1]:4002\",\"links\":1,\"tls\":true,\"pin\":\"ab\"}";
    char both[512], alone[512];
    snprintf(both, sizeof(both), "[%s,%s]", first, second);
    snprintf(alone, sizeof(alone), "[%s]", first);

    assert_int_equal(wait_for(&heard, gateways_read(fixture.redis, on_text, &heard)), ERR_NONE);
    assert_string_equal(heard.text, "[]");
    assert_int_equal(sign(&heard, &two, true), ERR_NONE);
    assert_int_equal(sign(&heard, &one, true), ERR_NONE);
    assert_string_equal(heard.text, both);
    assert_int_equal(wait_for(&heard, gateways_read(fixture.redis, on_text, &heard)), ERR_NONE);
    assert_string_equal(heard.text, both);

    /* The second has not signed for long: one that was itself away lets it be, a settled one takes it off. */
    look("ZADD sl:{gateways}:seen 1000 gwy_2");
    assert_int_equal(sign(&heard, &one, false), ERR_NONE);
    assert_string_equal(heard.text, both);
    assert_int_equal(sign(&heard, &one, true), ERR_NONE);
    assert_string_equal(heard.text, alone);

    assert_int_equal(wait_for(&heard, gateways_leave(fixture.redis, "gwy_1", on_left, &heard)), ERR_NONE);
    assert_int_equal(wait_for(&heard, gateways_read(fixture.redis, on_text, &heard)), ERR_NONE);
    assert_string_equal(heard.text, "[]");
    assert_string_equal(look("EXISTS sl:{gateways}:seen"), "0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_tokens),
        cmocka_unit_test(a_token_lives_until_it_is_deleted),
        cmocka_unit_test(a_token_expires),
        cmocka_unit_test(gateways_come_and_go),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
