#include "pricing/ledger.h"

#include "core/crypto.h"
#include "core/money.h"
#include "pricing/credit_internal.h"
#include "tests/unit/money_world.h"

#include <jansson.h>

#define USD INT64_C(1000000000)
#define TENANT "ten_a"
#define DAY_MS INT64_C(86400000)

static json_t *json_of(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    if (!json)
        fail_msg("not JSON: %s", text);
    return json;
}

static const char *text_in(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    assert_non_null(text);
    return text;
}

static int64_t number_in(const json_t *object, const char *name)
{
    assert_true(json_is_integer(json_object_get(object, name)));
    return json_integer_value(json_object_get(object, name));
}

static int64_t amount_in(const json_t *object, const char *name)
{
    const char *text = text_in(object, name);
    int64_t amount = 0;
    assert_true(money_parse(str_of(text + (text[0] == '-')), &amount));
    return text[0] == '-' ? -amount : amount;
}

static void settle_all(struct journal *journal)
{
    struct settler *settler = settler_on(journal, "gwy_1");
    settler_kick(settler);
    turn_until(journal_pending(journal) == 0);
    settler_free(settler);
}

static void credits_are_idempotent(void **state)
{
    struct str tenant = STR(TENANT);

    (void)state;
    ask_money(ledger_credit(fixture.redis, tenant, 9007199254740993, STR("c1"), on_money, &money_answer));
    assert_string_equal(money_answer.json, "{\"tenant\":\"ten_a\",\"available_usd\":\"9007199.254740993\"}");
    ask_money(ledger_credit(fixture.redis, tenant, 1, STR("any \x1f{bytes}"), on_money, &money_answer));
    assert_string_equal(money_answer.json, "{\"tenant\":\"ten_a\",\"available_usd\":\"9007199.254740994\"}");
    /* Again: the first answer. */
    ask_money(ledger_credit(fixture.redis, tenant, 9007199254740993, STR("c1"), on_money, &money_answer));
    assert_string_equal(money_answer.json, "{\"tenant\":\"ten_a\",\"available_usd\":\"9007199.254740993\"}");
    ask_money(ledger_credit(fixture.redis, tenant, 9007199254740992, STR("c1"), on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_MISMATCH);
    ask_money(ledger_credit(fixture.redis, STR("ten_b"), 9007199254740993, STR("c1"), on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_MISMATCH);
    ask_money(ledger_balance(fixture.redis, tenant, on_money, &money_answer));
    assert_string_equal(money_answer.json, "{\"available_usd\":\"9007199.254740994\",\"held_usd\":\"0.00\"}");
    assert_true(strtoll(look("TTL sl:xfer:%s", "nothing"), NULL, 10) < 0);
    ask_money(ledger_credit(fixture.redis, tenant, INT64_MAX, STR("c3"), on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_OVERFLOW);
    ask_money(ledger_credit(fixture.redis, tenant, INT64_MAX - 9007199254740994, STR("c4"), on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_NONE);
    assert_int_equal(ledger_credit(fixture.redis, tenant, 0, STR("c5"), on_money, NULL), ERR_BAD_INPUT);
    assert_int_equal(ledger_credit(fixture.redis, STR("a}b"), 1, STR("c5"), on_money, NULL), ERR_BAD_INPUT);
    expect_books_balance(TENANT);
    ask_money(ledger_balance(fixture.redis, STR("ten_nobody"), on_money, &money_answer));
    assert_string_equal(money_answer.json, "{\"available_usd\":\"0.00\",\"held_usd\":\"0.00\"}");
}

/* Ten rows: times around midnight, two models, workers, keys; one row broken. */
static void make_rows(struct journal *journal)
{
    for (int i = 0; i < 10; i++) {
        struct usage_record record = usage_of(TENANT, 1000 * (i + 1));
        record.at_ms = AT_MS - 5 + i; /* five before midnight */
        strcpy(record.model, i % 2 ? "odd,\"model" : "even");
        strcpy(record.worker, i % 3 ? "wrk_a" : "wrk_b");
        strcpy(record.key, i < 4 ? "key_a" : "key_b");
        record.gpu_ms = 100 + i;
        if (i == 9) {
            record.outcome = USAGE_BROKEN;
            record.cost_usd_nano = 0;
        }
        append_usage(journal, &record);
    }
    settle_all(journal);
}

static json_t *usage(int64_t from, int64_t to, enum usage_group group)
{
    ask_money(ledger_usage(fixture.redis, STR(TENANT), from, to, group, on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_NONE);
    json_t *all = json_of(money_answer.json), *data = json_incref(json_object_get(all, "data"));
    assert_string_equal(text_in(all, "object"), "list");
    assert_true(json_is_null(json_object_get(all, "next")));
    json_decref(all);
    return data;
}

static void usage_is_exact_to_the_millisecond(void **state)
{
    struct journal *journal = journal_named("0", 64);

    (void)state;
    credit_tenant(TENANT, USD, "c1");
    make_rows(journal);
    json_t *rows = usage(0, INT64_MAX, USAGE_BY_DAY);
    assert_int_equal(json_array_size(rows), 2);
    assert_string_equal(text_in(json_array_get(rows, 0), "day"), "2026-11-21");
    assert_int_equal(number_in(json_array_get(rows, 0), "requests"), 5);
    assert_int_equal(amount_in(json_array_get(rows, 0), "cost_usd"), 15000);
    assert_int_equal(number_in(json_array_get(rows, 1), "gpu_ms"), 105 + 106 + 107 + 108 + 109);
    assert_int_equal(amount_in(json_array_get(rows, 1), "cost_usd"), 30000);
    assert_int_equal(number_in(json_array_get(rows, 1), "prompt_tokens"), 35);
    json_decref(rows);
    /* Every range, against the rows. */
    for (int from = 0; from <= 10; from++)
        for (int to = from; to <= 10; to += 3) {
            int64_t cost = 0, requests = 0;
            rows = usage(AT_MS - 5 + from, AT_MS - 5 + to, USAGE_BY_NETWORK);
            for (int i = from; i < to; i++)
                cost += i == 9 ? 0 : 1000 * (i + 1);
            if (json_array_size(rows)) {
                assert_string_equal(text_in(json_array_get(rows, 0), "network"), "native");
                requests = number_in(json_array_get(rows, 0), "requests");
                assert_int_equal(amount_in(json_array_get(rows, 0), "cost_usd"), cost);
            }
            assert_int_equal(requests, to - from);
            json_decref(rows);
        }
    rows = usage(0, INT64_MAX, USAGE_BY_MODEL);
    assert_string_equal(text_in(json_array_get(rows, 0), "model"), "even");
    assert_string_equal(text_in(json_array_get(rows, 1), "model"), "odd,\"model");
    assert_int_equal(number_in(json_array_get(rows, 1), "requests"), 5);
    json_decref(rows);
    rows = usage(0, INT64_MAX, USAGE_BY_WORKER);
    assert_string_equal(text_in(json_array_get(rows, 1), "worker"), "wrk_b");
    assert_int_equal(number_in(json_array_get(rows, 1), "requests"), 4);
    json_decref(rows);
    rows = usage(AT_MS, AT_MS + DAY_MS, USAGE_BY_KEY);
    assert_int_equal(json_array_size(rows), 1);
    assert_string_equal(text_in(json_array_get(rows, 0), "key"), "key_b");
    json_decref(rows);
    rows = usage(5, 5, USAGE_BY_KEY);
    assert_int_equal(json_array_size(rows), 0);
    json_decref(rows);
    journal_close(journal);
}

/* Many rows: the sums of whole days are kept, rows that come later count, and a part of a day is still exact. */
static void sums_of_days_are_kept(void **state)
{
    struct journal *journal = journal_named("0", 4096);
    int64_t cost = 0;

    (void)state;
    credit_tenant(TENANT, USD, "c1");
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2500; i++) {
            struct usage_record record = usage_of(TENANT, 100 + i);
            record.at_ms = AT_MS + i;
            snprintf(record.model, sizeof(record.model), "model-%d", i % 7);
            cost += record.cost_usd_nano;
            append_usage(journal, &record);
        }
        settle_all(journal);
        for (int again = 0; again < 2; again++) {
            json_t *rows = usage(AT_MS, AT_MS + DAY_MS, USAGE_BY_DAY);
            assert_int_equal(json_array_size(rows), 1);
            assert_int_equal(number_in(json_array_get(rows, 0), "requests"), 2500 * (round + 1));
            assert_int_equal(amount_in(json_array_get(rows, 0), "cost_usd"), cost);
            json_decref(rows);
            rows = usage(0, INT64_MAX, USAGE_BY_MODEL);
            assert_int_equal(json_array_size(rows), 7);
            json_decref(rows);
            rows = usage(AT_MS + 1, AT_MS + 3, USAGE_BY_DAY);
            assert_int_equal(number_in(json_array_get(rows, 0), "requests"), 2 * (round + 1));
            json_decref(rows);
        }
        assert_true(strtoll(look("STRLEN sl:{ten:ten_a}:sums:2026-11-22"), NULL, 10) > 0);
    }
    look("SET sl:{ten:ten_a}:sums:2026-11-22 %s", "5-0\nnonsense");
    json_t *rows = usage(0, INT64_MAX, USAGE_BY_DAY);
    assert_int_equal(number_in(json_array_get(rows, 0), "requests"), 7500);
    json_decref(rows);
    journal_close(journal);
}

static int64_t ledger_debits(const char *month_start_at)
{
    char cursor[64] = "";
    int64_t debits = 0, start = strtoll(month_start_at, NULL, 10);

    for (;;) {
        struct str at = cursor[0] ? str_of(cursor) : (struct str){NULL, 0};
        ask_money(ledger_list(fixture.redis, STR(TENANT), at, 7, on_money, &money_answer));
        json_t *all = json_of(money_answer.json);
        for (size_t i = 0; i < json_array_size(json_object_get(all, "data")); i++) {
            const json_t *transfer = json_array_get(json_object_get(all, "data"), i);
            const json_t *entries = json_object_get(transfer, "entries");
            int64_t sum = 0;
            for (size_t j = 0; j < json_array_size(entries); j++) {
                const json_t *entry = json_array_get(entries, j);
                sum += amount_in(entry, "amount_usd");
                if (!strcmp(text_in(transfer, "kind"), "usage") && number_in(transfer, "at") >= start &&
                    !strncmp(text_in(entry, "account"), "ten:ten_a:", 10))
                    debits -= amount_in(entry, "amount_usd");
            }
            assert_int_equal(sum, 0);
        }
        const char *next = json_string_value(json_object_get(all, "next"));
        snprintf(cursor, sizeof(cursor), "%s", next ? next : "");
        json_decref(all);
        if (!cursor[0])
            return debits;
    }
}

static void invoice_is_what_the_ledger_took(void **state)
{
    struct journal *journal = journal_named("0", 256);
    char start[32];
    int64_t sum = 0;

    (void)state;
    credit_tenant(TENANT, 100000, "c1"); /* the last ones are partly the operator's loss */
    make_rows(journal);
    for (int i = 0; i < 60; i++) {
        struct usage_record record = usage_of(TENANT, 1777);
        record.price_usd_nano = i % 2 ? 333333333 : 2000000000;
        append_usage(journal, &record);
    }
    settle_all(journal);
    expect_books_balance(TENANT);
    assert_int_equal(account(TENANT, "avail"), 0);
    assert_true(account(TENANT, "plat:loss") < 0);

    ask_money(ledger_invoice(fixture.redis, STR(TENANT), STR("2026-11"), false, on_money, &money_answer));
    json_t *invoice = json_of(money_answer.json), *lines = json_object_get(invoice, "lines");
    assert_string_equal(text_in(invoice, "month"), "2026-11");
    assert_int_equal(json_array_size(lines), 6);
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        sum += amount_in(line, "amount_usd");
        assert_int_equal(json_object_size(line), 8);
    }
    const json_t *first = json_array_get(lines, 0);
    assert_string_equal(text_in(first, "model"), "even");
    assert_string_equal(text_in(first, "worker"), "wrk_a");
    assert_string_equal(text_in(first, "gpu"), "nvidia/h100-sxm-80");
    assert_int_equal(number_in(first, "requests"), 3); /* rows 2, 4, 8 */
    assert_int_equal(number_in(first, "gpu_ms"), 314);
    assert_string_equal(text_in(first, "gpu_hours"), "0.000087222");
    assert_string_equal(text_in(first, "price_per_gpu_hour_usd"), "1.20");
    assert_int_equal(amount_in(first, "amount_usd"), 17000);
    assert_int_equal(amount_in(invoice, "total_usd"), sum);
    snprintf(start, sizeof(start), "%lld", (long long)clock_month_start(AT_MS));
    assert_int_equal(ledger_debits(start), sum);
    assert_int_equal(sum, 100000);
    json_decref(invoice);

    ask_money(ledger_invoice(fixture.redis, STR(TENANT), STR("2026-11"), true, on_money, &money_answer));
    static const char head[] = "model,worker,gpu,requests,gpu_ms,gpu_hours,price_per_gpu_hour_usd,amount_usd\r\n"
                               "even,wrk_a,nvidia/h100-sxm-80,3,314,0.000087222,1.20,0.000017\r\n";
    assert_memory_equal(money_answer.json, head, sizeof(head) - 1);
    assert_non_null(strstr(money_answer.json, "\r\n\"odd,\"\"model\",wrk_a,"));
    static const char *const none[] = {"2026-10", "2026-13", "2026-00", "2026-1", "latest", "2026-11-01", "202611x"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        money_answer.count = 0;
        enum error error = ledger_invoice(fixture.redis, STR(TENANT), str_of(none[i]), false, on_money, &money_answer);
        if (!error) {
            turn_until(money_answer.count == 1);
            error = money_answer.error;
        }
        assert_int_equal(error, ERR_NOT_FOUND);
    }
    journal_close(journal);
}

static void lists_all_tenants_in_order(void **state)
{
    char cursor[160] = "", last_id[64] = "";
    int seen = 0, pages = 0;
    int64_t last_at = 0;

    (void)state;
    for (int i = 0; i < 130; i++) {
        char tenant[16], transfer[16];
        snprintf(tenant, sizeof(tenant), "ten_%d", i % 60);
        snprintf(transfer, sizeof(transfer), "c%d", i);
        credit_tenant(tenant, 1 + i, transfer);
    }
    for (;;) {
        struct str at = cursor[0] ? str_of(cursor) : (struct str){NULL, 0};
        ask_money(ledger_list(fixture.redis, (struct str){NULL, 0}, at, 9, on_money, &money_answer));
        assert_int_equal(money_answer.error, ERR_NONE);
        json_t *all = json_of(money_answer.json), *data = json_object_get(all, "data");
        pages++;
        for (size_t i = 0; i < json_array_size(data); i++, seen++) {
            const json_t *transfer = json_array_get(data, i);
            assert_true(number_in(transfer, "at") >= last_at - 2); /* two clock readings of Redis, one script */
            assert_string_not_equal(text_in(transfer, "id"), last_id);
            last_at = number_in(transfer, "at");
            snprintf(last_id, sizeof(last_id), "%s", text_in(transfer, "id"));
        }
        const char *next = json_string_value(json_object_get(all, "next"));
        snprintf(cursor, sizeof(cursor), "%s", next ? next : "");
        json_decref(all);
        if (!cursor[0])
            break;
    }
    assert_int_equal(seen, 130);
    assert_int_equal(pages, 15);
    static const char *const bad[] = {"", "x", "1-", "-1-0", "1-2-3", "1-0.a{b", "99999999999999999999-0.a"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(ledger_list(fixture.redis, (struct str){NULL, 0}, str_of(bad[i]), 9, on_money, &money_answer),
                         ERR_BAD_INPUT);
}

/* The chain: each hash is of the one before and the content. */
static void ledger_is_chained(void **state)
{
    struct journal *journal = journal_named("0", 64);
    char chain[64] = "", script[] = "return redis.sha1hex(ARGV[1] .. ARGV[2])";

    (void)state;
    credit_tenant(TENANT, USD, "c1");
    hold_for(TENANT, "gwy_1", 1000000);
    make_rows(journal);
    redisReply *entries = redisCommand(fixture.look, "XRANGE sl:{ten:ten_a}:ledger - +");
    assert_int_equal(entries->elements, 2 + 9);
    for (size_t i = 0; i < entries->elements; i++) {
        const redisReply *fields = entries->element[i]->element[1];
        snprintf(chain, sizeof(chain), "%s", look("EVAL %s 0 %s %s", script, chain, fields->element[1]->str));
        assert_string_equal(chain, fields->element[3]->str);
    }
    freeReplyObject(entries);
    assert_string_equal(look("GET sl:{ten:ten_a}:chain"), chain);
    journal_close(journal);
}

/* Random credits, holds, returns, deaths, records and repetitions: after each the books balance. */
static void random_work_keeps_the_books(void **state)
{
    static const char *const gateways[] = {"gwy_1", "gwy_2", "gwy_3"};
    static const char *const tenants[] = {"ten_a", "ten_b"};
    struct credit_gate *gates[3];
    struct credit *credits[3][2];
    int64_t held[3][2] = {{0}}, credited[2] = {0}, charged[2] = {0}, swept[2] = {0};
    char key[96];
    struct journal *journals[3];
    struct settler *settlers[3];
    uint64_t state_of_random = 12345;

    (void)state;
    for (int g = 0; g < 3; g++) {
        char name[2] = {(char)('0' + g), 0};
        assert_int_equal(credit_gate_open(fixture.loop, fixture.redis, gateways[g], &gates[g]), ERR_NONE);
        journals[g] = journal_named(name, 1024);
        settlers[g] = settler_on(journals[g], gateways[g]);
        for (int t = 0; t < 2; t++)
            credits[g][t] = credit_new(CREDIT_BALANCE, tenants[t], 0, NULL);
    }
    for (int step = 0; step < 10000; step++) {
        state_of_random = state_of_random * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint32_t random = (uint32_t)(state_of_random >> 33), g = random % 3, t = random / 3 % 2;
        random /= 6;
        switch (random % 24) {
        case 0: {
            char transfer[32];
            int64_t amount = 1 + random / 24 % 100000000;
            snprintf(transfer, sizeof(transfer), "c%d", step);
            credit_tenant(tenants[t], amount, transfer);
            credited[t] += amount;
            break;
        }
        case 1:
            credit_renew_if_low(gates[g], credits[g][t]);
            break;
        case 2:
            (random / 24 % 2 ? credit_keep_alive : credit_give_back)(gates[g], credits[g][t]);
            break;
        case 3: /* is stopped for longer than its hold lives */
            snprintf(key, sizeof(key), "sl:{ten:%s}:hold", tenants[t]);
            swept[t] += look_number(key, gateways[g]);
            atomic_store(&credits[g][t]->valid_until_ns, 1);
            look("ZADD sl:{ten:%s}:due XX 1 %s", tenants[t], gateways[g]);
            look("ZADD %s XX 1 ten:%s", HOLDS_DUE, tenants[t]);
            settle_sweep(fixture.redis);
            break;
        case 4: {
            struct credit_waiter waiter = {.on_answer = NULL};
            credit_wait(gates[g], credits[g][t], &waiter);
            credit_wait_cancel(&waiter);
            break;
        }
        default:
            if (held[g][t]) {
                struct usage_record record = usage_of(tenants[t], 0);
                int64_t cost = (int64_t)(random / 24 % 3000000);
                record.cost_usd_nano = credit_charge(credits[g][t], held[g][t], cost);
                record.loss_usd_nano = cost - record.cost_usd_nano;
                charged[t] += record.cost_usd_nano;
                held[g][t] = 0;
                append_usage(journals[g], &record);
                if (random / 24 % 5 == 0)
                    append_usage(journals[g], &record);
                settler_kick(settlers[g]);
            } else {
                held[g][t] = credit_take(credits[g][t], 1 + random / 24 % 2000000);
            }
        }
        loop_turn(fixture.loop, 0);
        if (step % 100 == 0) {
            expect_books_balance("ten_a");
            expect_books_balance("ten_b");
        }
    }
    for (int g = 0; g < 3; g++)
        turn_until(journal_pending(journals[g]) == 0 && credit_gate_is_idle(gates[g]));
    for (int t = 0; t < 2; t++) {
        expect_books_balance(tenants[t]);
        assert_true(charged[t] > 0);
        assert_int_equal(account(tenants[t], "ext:psp"), -credited[t]);
        /* All that records say was charged, but what was swept from under running calls and nobody had then. */
        int64_t took = credited[t] - account(tenants[t], "avail") - account(tenants[t], "held");
        assert_true(took <= charged[t] && took >= charged[t] - swept[t]);
    }
    for (int g = 0; g < 3; g++) {
        settler_free(settlers[g]);
        journal_close(journals[g]);
        credit_gate_free(gates[g]);
        credit_unref(credits[g][0]);
        credit_unref(credits[g][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(credits_are_idempotent, world_empty),
        cmocka_unit_test_setup(usage_is_exact_to_the_millisecond, world_empty),
        cmocka_unit_test_setup(sums_of_days_are_kept, world_empty),
        cmocka_unit_test_setup(invoice_is_what_the_ledger_took, world_empty),
        cmocka_unit_test_setup(lists_all_tenants_in_order, world_empty),
        cmocka_unit_test_setup(ledger_is_chained, world_empty),
        cmocka_unit_test_setup(random_work_keeps_the_books, world_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
