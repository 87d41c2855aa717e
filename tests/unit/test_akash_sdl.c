/* The SDL of an order, read back by a YAML parser: what people wrote stays what it was, and nothing else. */
#include "tests/unit/cmocka_all.h"

#include "adapters/akash_sdl.h"

#include <string.h>
#include <yaml.h>

#define VALUES_MAX 128

/* All scalars of a document in order, "key: value" not told apart. */
struct scalars {
    char *values[VALUES_MAX];
    size_t lens[VALUES_MAX], count;
};

static void scalars_read(const struct buf *text, struct scalars *ret)
{
    yaml_parser_t parser;
    yaml_event_t event;
    bool ends = false;
    *ret = (struct scalars){0};
    assert_true(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, (const unsigned char *)text->ptr, text->len);
    while (!ends) {
        assert_true(yaml_parser_parse(&parser, &event));
        if (event.type == YAML_SCALAR_EVENT) {
            assert_true(ret->count < VALUES_MAX);
            ret->lens[ret->count] = event.data.scalar.length;
            ret->values[ret->count++] = strndup((const char *)event.data.scalar.value, event.data.scalar.length);
        }
        assert_true(event.type != YAML_ALIAS_EVENT);
        ends = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
}

static void scalars_free(struct scalars *scalars)
{
    for (size_t i = 0; i < scalars->count; i++)
        free(scalars->values[i]);
}

/* What follows the first scalar that is `key`. */
static const char *after(const struct scalars *scalars, const char *key)
{
    for (size_t i = 0; i + 1 < scalars->count; i++) {
        if (!strcmp(scalars->values[i], key))
            return scalars->values[i + 1];
    }
    fail_msg("no %s", key);
    return NULL;
}

#define TAG "sluice-abc123-01jd000000000000000000000a-1"

static struct supply_order order_of(struct str *argv, struct supply_pair *env)
{
    return (struct supply_order){.tag = STR(TAG),
                                 .gpus = 2,
                                 .image = STR("ghcr.io/example/serve:1"),
                                 .argv = argv,
                                 .argc = argv ? 1 : 0,
                                 .env = env,
                                 .env_count = env ? 1 : 0,
                                 .span_s = 3600,
                                 .disk_gib = 20};
}

static const char *write(const struct supply_order *order, struct buf *to)
{
    struct akash_ask ask = {.order = order,
                            .vendor = STR("nvidia"),
                            .model = STR("h100"),
                            .ram = STR("80Gi"),
                            .interface = STR("sxm"),
                            .uact_per_block = 4166,
                            .cpu_units = 8,
                            .memory_gib = 32};
    buf_init(to, AKASH_SDL_MAX);
    return akash_sdl_write(&ask, to);
}

static void test_hostile_words_stay_words(void **state)
{
    static const struct {
        struct str given;
        const char *read; /* NULL: as given; else with what Kubernetes halves again */
    } cases[] = {
        {STR("plain"), NULL},
        {STR(""), NULL},
        {STR("\""), NULL},
        {STR("\\"), NULL},
        {STR("a\"\n    image: evil\n    env:\n"), NULL},
        {STR("- x: y # z"), NULL},
        {STR("{a: [b]}"), NULL},
        {STR("&a *b !!c %d @e `f"), NULL},
        {STR("\t\r\n\x01\x1b\x7f"), NULL},
        {STR("\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xc3\xa9\xf0\x9f\x98\x80"), NULL},
        {STR("yes"), NULL},
        {STR("123"), NULL},
        {STR("$HOME $$ $(A)"), "$$HOME $$$$ $$(A)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str argv[] = {cases[i].given};
        struct supply_pair env[] = {{STR("KEY"), cases[i].given}};
        struct supply_order order = order_of(argv, env);
        struct scalars scalars;
        struct buf sdl;
        char pair[128];
        const char *read = cases[i].read ? cases[i].read : cases[i].given.ptr;
        assert_null(write(&order, &sdl));
        for (size_t j = 0; j < sdl.len; j++)
            assert_true(sdl.ptr[j] == '\n' || (sdl.ptr[j] >= ' ' && sdl.ptr[j] < 0x7f));
        scalars_read(&sdl, &scalars);
        assert_string_equal(after(&scalars, "command"), read);
        snprintf(pair, sizeof(pair), "KEY=%s", read);
        assert_string_equal(after(&scalars, "env"), pair);
        assert_string_equal(after(&scalars, "image"), "ghcr.io/example/serve:1");
        assert_string_equal(after(&scalars, "amount"), "4166");
        scalars_free(&scalars);
        buf_free(&sdl);
    }
}

static void test_what_cannot_be_said_is_refused(void **state)
{
    static const struct str bad[] = {
        STR("\xff"),     STR("\xc3"), STR("\xc0\xaf"), STR("\xed\xa0\x80"), STR("\xf4\x90\x80\x80"),
        STR("\xe2\x80"), STR("a\0b"), STR("\x80"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct str argv[] = {bad[i]};
        struct supply_pair env[] = {{STR("KEY"), bad[i]}};
        struct supply_order with_argv = order_of(argv, NULL), with_env = order_of(NULL, env);
        struct supply_order with_image = order_of(NULL, NULL);
        const struct supply_order *orders[] = {&with_argv, &with_env, &with_image};
        with_image.image = bad[i];
        for (size_t j = 0; j < 3; j++) {
            struct buf sdl;
            assert_non_null(write(orders[j], &sdl));
            buf_free(&sdl);
        }
    }
    static const struct str tags[] = {STR(""), STR("1a"), STR("a-"), STR("A"), STR("a b"), STR("a:\n  b"), STR("a.b")};
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        struct supply_order order = order_of(NULL, NULL);
        struct buf sdl;
        order.tag = tags[i];
        assert_non_null(write(&order, &sdl));
        buf_free(&sdl);
    }
    static const struct str keys[] = {STR(""), STR("A=B")};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct supply_pair env[] = {{keys[i], STR("x")}};
        struct supply_order order = order_of(NULL, env);
        struct buf sdl;
        assert_non_null(write(&order, &sdl));
        buf_free(&sdl);
    }
}

static void test_too_long_is_refused(void **state)
{
    (void)state;
    static char text[AKASH_SDL_MAX];
    memset(text, 'x', sizeof(text));
    struct str argv[] = {{text, sizeof(text)}};
    struct supply_order order = order_of(argv, NULL);
    struct buf sdl;
    assert_non_null(write(&order, &sdl));
    buf_free(&sdl);
}

static void test_ports(void **state)
{
    (void)state;
    struct supply_order order = order_of(NULL, NULL);
    struct scalars scalars;
    struct buf sdl;
    assert_null(write(&order, &sdl));
    scalars_read(&sdl, &scalars);
    assert_string_equal(after(&scalars, "port"), "65535"); /* a deployment must expose something */
    assert_string_equal(after(&scalars, "global"), "true");
    scalars_free(&scalars);
    buf_free(&sdl);
    uint16_t ports[] = {8000, 80};
    order.ports = ports;
    order.port_count = 2;
    assert_null(write(&order, &sdl));
    scalars_read(&sdl, &scalars);
    assert_string_equal(after(&scalars, "port"), "8000");
    assert_string_equal(after(&scalars, "as"), "8000");
    assert_string_equal(after(&scalars, "units"), "8");
    assert_string_equal(after(&scalars, "size"), "32Gi");
    assert_string_equal(after(&scalars, "model"), "h100");
    assert_string_equal(after(&scalars, "profile"), TAG);
    scalars_free(&scalars);
    buf_free(&sdl);
}

/* Deployments without a lease are listed under this tag: the reconciler must take it for one of ours. */
static void test_the_tag_of_no_lease_is_a_tag(void **state)
{
    (void)state;
    char lease_id[64];
    uint32_t attempt = 0;
    assert_true(supply_tag_parse(STR("abc123"), STR("sluice-abc123-" AKASH_NO_LEASE), lease_id, &attempt));
    assert_string_equal(lease_id, "lse_00000000000000000000000000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_words_stay_words),     cmocka_unit_test(test_what_cannot_be_said_is_refused),
        cmocka_unit_test(test_too_long_is_refused),          cmocka_unit_test(test_ports),
        cmocka_unit_test(test_the_tag_of_no_lease_is_a_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
