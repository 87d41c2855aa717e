#include "tests/unit/redis_fixture.h"

#include "core/crypto.h"
#include "scheduler/proof_store.h"
#include "scheduler/worker_store.h"

#include <math.h>

struct answer {
    int fired;
    enum error error;
    struct worker_record record;
    bool has_record;
};

static void on_stored(void *ctx, enum error error)
{
    struct answer *answer = ctx;
    answer->fired++;
    answer->error = error;
}

static void on_record(void *ctx, enum error error, const struct worker_record *record)
{
    struct answer *answer = ctx;
    answer->fired++;
    answer->error = error;
    answer->has_record = record;
    assert_true((error == ERR_NONE) == answer->has_record);
    if (record)
        answer->record = *record;
}

#define wait_for(call, answer)                \
    do {                                      \
        memset(&(answer), 0, sizeof(answer)); \
        assert_int_equal((call), ERR_NONE);   \
        assert_int_equal((answer).fired, 0);  \
        turn_until((answer).fired);           \
        assert_int_equal((answer).fired, 1);  \
    } while (0)

static struct worker_record new_record(void)
{
    struct worker_record record;
    memset(&record, 0, sizeof(record));
    id_new("wrk_", record.id);
    crypto_sha256_hex(str_of(record.id), record.secret_sha256);
    str_copy(record.name, sizeof(record.name), STR("rack 7 \"left\" \xc3\xa4"));
    str_copy(record.supplier, sizeof(record.supplier), STR("acme"));
    str_copy(record.gpu, sizeof(record.gpu), STR("nvidia/h100-sxm-80"));
    str_copy(record.gpu_raw, sizeof(record.gpu_raw), STR("NVIDIA H100 80GB HBM3"));
    str_copy(record.region, sizeof(record.region), STR("eu-west"));
    record.gpus = 8;
    record.slots = 64;
    record.price_usd_nano = INT64_C(1234567890123);
    record.vram_bytes = UINT64_C(80) << 30;
    record.enrolled_at_ms = 1790000000000;
    return record;
}

static enum error put(const struct worker_record *record)
{
    struct answer answer;
    wait_for(worker_store_put(fixture.redis, record, on_stored, &answer), answer);
    return answer.error;
}

static struct answer get(const char *id)
{
    struct answer answer;
    wait_for(worker_store_get(fixture.redis, str_of(id), on_record, &answer), answer);
    return answer;
}

/* The feed is written after the change; commands of one connection keep their order. */
static long long feed_length(void)
{
    struct answer answer = get("wrk_00000000000000000000000000");
    assert_int_equal(answer.error, ERR_NOT_FOUND);
    return strtoll(look("XLEN sl:feed"), NULL, 10);
}

static void put_and_get(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    assert_int_equal(put(&record), ERR_NONE);
    assert_int_equal(feed_length(), 1);
    struct answer got = get(record.id);
    assert_int_equal(got.error, ERR_NONE);
    assert_memory_equal(&got.record, &record, sizeof(record));
    assert_string_equal(look("SISMEMBER sl:workers %s", record.id), "1");
    assert_string_equal(look("HGET sl:{wrk:%s} price_usd_nano", record.id), "1234567890123");
}

static void declared_fields_change_alone(void **state)
{
    (void)state;
    struct worker_record record = new_record(), changed;
    assert_int_equal(put(&record), ERR_NONE);
    changed = record;
    changed.price_usd_nano = 5;
    changed.slots = 2;
    str_copy(changed.tags, sizeof(changed.tags), STR("gdpr"));
    changed.enrolled_at_ms = 1; /* what it has not declared stays as it was */
    changed.admission.state = ADMISSION_READY;
    changed.reputation.good[REPUTATION_HARDWARE] = 10;
    changed.proof.at_ms = 77;
    assert_int_equal(put(&changed), ERR_NONE);
    assert_int_equal(feed_length(), 2);
    struct worker_record got = get(record.id).record;
    assert_int_equal(got.price_usd_nano, 5);
    assert_int_equal(got.slots, 2);
    assert_string_equal(got.tags, "gdpr");
    assert_int_equal(got.enrolled_at_ms, record.enrolled_at_ms);
    assert_int_equal(got.admission.state, ADMISSION_ENROLLED);
    assert_true(got.reputation.good[REPUTATION_HARDWARE] == 0 && got.proof.at_ms == 0);
    assert_int_equal(put(&changed), ERR_NONE); /* the same again tells nobody */
    assert_int_equal(feed_length(), 2);
}

static void another_secret_is_another_worker(void **state)
{
    (void)state;
    struct worker_record record = new_record(), thief;
    assert_int_equal(put(&record), ERR_NONE);
    thief = record;
    thief.secret_sha256[0] = thief.secret_sha256[0] == 'a' ? 'b' : 'a';
    thief.price_usd_nano = 1;
    assert_int_equal(put(&thief), ERR_MISMATCH);
    struct answer got = get(record.id);
    assert_memory_equal(&got.record, &record, sizeof(record));
}

static void bad_records(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++) {
        struct answer answer = {0};
        struct worker_record record = new_record();
        switch (i) {
        case 0:
            record.id[0] = 'x';
            break;
        case 1:
            record.secret_sha256[5] = 'G';
            break;
        case 2:
            record.name[0] = '\n';
            break;
        case 3:
            memset(record.region, 'r', sizeof(record.region));
            break;
        case 4:
            record.gpus = 0;
            break;
        case 5:
            record.slots = 0;
            break;
        case 6:
            record.price_usd_nano = -1;
            break;
        case 7:
            record.slots = UINT32_MAX;
            break;
        case 8:
            record.reputation.good[REPUTATION_NETWORK] = NAN;
            break;
        case 9:
            record.admission.state = ADMISSION_STATE_COUNT;
            break;
        case 10:
            record.vram_bytes = UINT64_MAX;
            break;
        default:
            memset(record.id, '0', sizeof(record.id));
        }
        assert_int_equal(worker_store_put(fixture.redis, &record, on_stored, &answer), ERR_BAD_INPUT);
    }
    struct answer answer = {0};
    assert_int_equal(worker_store_get(fixture.redis, STR("wrk_}{"), on_record, &answer), ERR_BAD_INPUT);
    assert_int_equal(
        worker_store_reputation(fixture.redis, STR(""), &(struct reputation_evidence){.good = {1}}, on_stored, &answer),
        ERR_BAD_INPUT);
    assert_string_equal(look("DBSIZE"), "0");
}

static enum error admit(const char *id, uint64_t expect, const struct admission *admission)
{
    struct answer answer;
    wait_for(worker_store_admit(fixture.redis, str_of(id), expect, admission, on_stored, &answer), answer);
    return answer.error;
}

static enum admission_action step(struct admission *admission, enum admission_event event, int64_t now_ms)
{
    static const struct admission_policy policy = {1000, 2000};
    const struct admission_news news = {.event = event, .now_ms = now_ms, .random = 1, .gateway = 1};
    return admission_step(admission, &news, &policy);
}

static void one_gateway_wins_an_admission(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    assert_int_equal(put(&record), ERR_NONE);
    struct admission ours = record.admission, theirs = record.admission;
    assert_int_equal(step(&ours, ADMISSION_LINKED, 5000), ADMISSION_SEND_PROBE);
    assert_int_equal(step(&theirs, ADMISSION_LINKED, 5001), ADMISSION_SEND_PROBE);
    assert_int_equal(admit(record.id, record.admission.token, &ours), ERR_NONE);
    assert_int_equal(admit(record.id, record.admission.token, &theirs), ERR_MISMATCH);
    struct worker_record got = get(record.id).record;
    assert_memory_equal(&got.admission, &ours, sizeof(ours));

    uint64_t token = ours.token;
    step(&ours, ADMISSION_PROBE_WRONG, 5100);
    assert_int_equal(admit(record.id, token, &ours), ERR_NONE);
    got = get(record.id).record;
    assert_int_equal(got.admission.state, ADMISSION_SUSPENDED);
    assert_string_equal(got.admission.reason, "wrong answer");
    assert_memory_equal(&got.admission, &ours, sizeof(ours));
    assert_int_equal(feed_length(), 3);

    struct answer answer = {0}; /* a token never goes back */
    assert_int_equal(worker_store_admit(fixture.redis, str_of(record.id), ours.token, &ours, on_stored, &answer),
                     ERR_BAD_INPUT);
    char stranger[ID_TEXT_MAX];
    id_new("wrk_", stranger);
    assert_int_equal(admit(stranger, 0, &ours), ERR_NOT_FOUND);
    assert_int_equal(strtol(look("EXISTS sl:{wrk:%s}", stranger), NULL, 10), 0);
}

static void big_tokens_are_exact(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    record.admission.token = (UINT64_C(1) << 53) + 1;
    assert_int_equal(put(&record), ERR_NONE);
    struct admission next = record.admission;
    next.token++;
    assert_int_equal(admit(record.id, UINT64_C(1) << 53, &next), ERR_MISMATCH);
    assert_int_equal(admit(record.id, record.admission.token, &next), ERR_NONE);
    assert_true(get(record.id).record.admission.token == (UINT64_C(1) << 53) + 2);
}

static enum error add(const char *id, const struct reputation_evidence *evidence)
{
    struct answer answer;
    wait_for(worker_store_reputation(fixture.redis, str_of(id), evidence, on_stored, &answer), answer);
    return answer.error;
}

#define DAY (INT64_C(24) * 3600 * 1000)

static void assert_counts(const struct reputation *got, const struct reputation *expect)
{
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        if (fabs(got->good[i] - expect->good[i]) > 1e-6 || fabs(got->bad[i] - expect->bad[i]) > 1e-6)
            fail_msg("%s: %f %f, not %f %f", reputation_dimension_name(i), got->good[i], got->bad[i], expect->good[i],
                     expect->bad[i]);
    }
}

/* What Redis counts is what reputation_add counts, whatever comes whenever. */
static void redis_counts_as_we_do(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    struct reputation same = {.at_ms = clock_wall_ms()};
    uint64_t seed = 7;
    record.reputation.at_ms = same.at_ms;
    assert_int_equal(put(&record), ERR_NONE);
    for (int step = 0; step < 60; step++) {
        struct reputation_evidence evidence =
            reputation_of_proof((enum verify_purpose)(step % 3), (step % 5) / 4.0, step % 2);
        seed = seed * UINT64_C(6364136223846793005) + 1;
        int64_t days = (int64_t)(seed >> 60);
        if (step % 7 == 3)
            evidence = reputation_of_wrong((enum verify_purpose)(step % 3));
        if (step % 7 == 5)
            evidence = reputation_of_calls(3, 40, 5000000);
        if (step % 7 == 6)
            evidence = reputation_of_mismatch();
        /* time passes: the stored time and ours go back */
        look("HINCRBY sl:{wrk:%s} reputation_at_ms %lld", record.id, (long long)(-days * DAY));
        same.at_ms -= days * DAY;
        assert_int_equal(add(record.id, &evidence), ERR_NONE);
        struct reputation got = get(record.id).record.reputation;
        assert_true(got.at_ms >= same.at_ms && llabs(got.at_ms - clock_wall_ms()) < 60000);
        reputation_add(&same, &evidence, got.at_ms);
        assert_counts(&got, &same);
        assert_true(reputation_bound(&got, got.at_ms) <= reputation_score(&got, REPUTATION_HARDWARE, got.at_ms));
    }
    assert_true(feed_length() <= 62);
    char stranger[ID_TEXT_MAX];
    id_new("wrk_", stranger);
    assert_int_equal(add(stranger, &(struct reputation_evidence){.good = {1}}), ERR_NOT_FOUND);
}

static void the_feed_is_told_once_a_second(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    int64_t begin = clock_mono_ns();
    assert_int_equal(put(&record), ERR_NONE);
    for (int i = 0; i < 20; i++)
        assert_int_equal(add(record.id, &(struct reputation_evidence){.good = {1}}), ERR_NONE);
    assert_true(feed_length() <= 2 + (clock_mono_ns() - begin) / NS_PER_S + 1);
}

static enum error pay(const char *id, const struct worker_payment *payments, size_t count, uint64_t failed)
{
    struct answer answer;
    wait_for(worker_store_count(fixture.redis, str_of(id), payments, count, failed, on_stored, &answer), answer);
    return answer.error;
}

/* However one tenant pays, it gives no more than a quarter of what availability holds; others are not held back. */
static void no_payer_has_more_than_a_quarter(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    const struct reputation_evidence admitted = reputation_of_proof(VERIFY_ADMISSION, 1, true);
    assert_int_equal(put(&record), ERR_NONE);
    assert_int_equal(add(record.id, &admitted), ERR_NONE);
    for (int i = 0; i < 50; i++)
        assert_int_equal(pay(record.id, &(struct worker_payment){5, 1000, INT64_C(1000000000000)}, 1, 0), ERR_NONE);
    struct worker_record got = get(record.id).record;
    assert_true(fabs(got.reputation.good[REPUTATION_AVAILABILITY] - 4) < 0.01); /* 3 of its proof, 1 of the payer */
    assert_true(got.earned_usd_nano > INT64_C(49900000000000) && got.earned_usd_nano <= INT64_C(50000000000000));
    assert_true(fabs(got.reputation.good[REPUTATION_HARDWARE] - 3) < 0.01);

    for (uint64_t i = 0; i < 400; i++) { /* forty tenants: more than the table holds */
        const struct worker_payment some[2] = {{100 + i % 40, 5, 50000000}, {5, 9, INT64_C(1000000000000)}};
        assert_int_equal(pay(record.id, some, 2, 0), ERR_NONE);
    }
    got = get(record.id).record;
    double good = got.reputation.good[REPUTATION_AVAILABILITY];
    assert_true(good > 100);
    char payers[512];
    snprintf(payers, sizeof(payers), "%s", look("HGET sl:{wrk:%s} payers", record.id));
    size_t count = 0;
    struct str rest = str_of(payers);
    for (struct str payer; (payer = str_next(&rest, ',')).ptr; count++) {
        double sum;
        assert_int_equal(str_next(&payer, '=').len, 16);
        assert_true(str_to_double(payer, &sum) && sum <= good / 4 + 1e-9);
    }
    assert_int_equal(count, WORKER_PAYERS);

    assert_int_equal(pay(record.id, NULL, 0, 10), ERR_NONE);
    assert_true(get(record.id).record.reputation.bad[REPUTATION_AVAILABILITY] >= 0.5);
    struct answer answer = {0};
    assert_int_equal(worker_store_count(fixture.redis, str_of(record.id), &(struct worker_payment){1, 1, -1}, 1, 0,
                                        on_stored, &answer),
                     ERR_BAD_INPUT);
}

static void bad_counts_are_inherited(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    struct answer answer;
    const struct reputation_evidence evidence = {.good = {5, 5, 5, 5}, .bad = {3, 0, 7, 0}};
    const double bad[REPUTATION_DIMENSIONS] = {20, 20, 1, 0};
    assert_int_equal(put(&record), ERR_NONE);
    assert_int_equal(add(record.id, &evidence), ERR_NONE);
    wait_for(worker_store_inherit(fixture.redis, str_of(record.id), bad, on_stored, &answer), answer);
    assert_int_equal(answer.error, ERR_NONE);
    struct reputation got = get(record.id).record.reputation;
    assert_counts(&got, &(struct reputation){.good = {got.good[0], got.good[1], got.good[2], got.good[3]},
                                             .bad = {20, 20, got.bad[2], 0}});
    assert_true(fabs(got.bad[2] - 7) < 0.01 && fabs(got.good[3] - 5) < 0.01);
}

/* -- receipts -- */

static struct {
    int fired;
    enum error error;
    size_t count;
    uint64_t next;
    uint64_t numbers[PROOF_LIST_MAX];
    char texts[PROOF_LIST_MAX][32];
} listed;

static void on_list(void *ctx, enum error error, const struct proof_entry *entries, size_t count, uint64_t next)
{
    (void)ctx;
    listed.fired++;
    listed.error = error;
    listed.count = count;
    listed.next = next;
    for (size_t i = 0; i < count; i++) {
        listed.numbers[i] = entries[i].number;
        assert_true(str_copy(listed.texts[i], sizeof(listed.texts[i]), entries[i].receipt));
        assert_true(llabs(entries[i].at_ms - clock_wall_ms()) < 60000);
    }
}

static void list(const char *id, uint64_t cursor, size_t limit)
{
    memset(&listed, 0, sizeof(listed));
    assert_int_equal(proof_store_list(fixture.redis, str_of(id), cursor, limit, on_list, NULL), ERR_NONE);
    turn_until(listed.fired);
    assert_int_equal(listed.error, ERR_NONE);
}

static enum error prove(struct worker_record *record, const struct worker_proof *proof, struct str receipt)
{
    struct answer answer;
    struct admission next = record->admission;
    next.token++;
    const struct worker_verdict verdict = {&next, proof, str_of(record->proof.receipt_sha256), &receipt, 1};
    wait_for(
        worker_store_prove(fixture.redis, str_of(record->id), record->admission.token, &verdict, on_stored, &answer),
        answer);
    return answer.error;
}

static void a_proof_is_stored_with_its_receipt(void **state)
{
    (void)state;
    struct worker_record record = new_record(), stale;
    struct worker_proof proof = {.at_ms = 1234,
                                 .purpose = VERIFY_SPOT,
                                 .gpu = "nvidia/h200-sxm-141",
                                 .proven = {.vram_gib = 139.5, .pass_gbps = 4100.25, .chain_tops = 1250},
                                 .ratio = 0.97,
                                 .performance = 0.8,
                                 .claimed_performance = 0.5,
                                 .driver = "580.1"};
    memset(proof.worker_key, 'a', 64);
    memset(proof.chain_root, '0', 64);
    assert_int_equal(put(&record), ERR_NONE);
    list(record.id, 0, 10);
    assert_int_equal(listed.count, 0);
    stale = record;
    assert_int_equal(prove(&record, &proof, STR("{\"n\":1}")), ERR_NONE);
    assert_int_equal(prove(&stale, &proof, STR("{\"n\":1}")), ERR_MISMATCH); /* its token is old */
    record = get(record.id).record;
    crypto_sha256_hex(STR("{\"n\":1}"), proof.receipt_sha256);
    assert_memory_equal(&record.proof, &proof, sizeof(proof));
    stale = record;
    strcpy(stale.proof.receipt_sha256, "");
    assert_int_equal(prove(&stale, &proof, STR("{\"n\":2}")), ERR_MISMATCH); /* the chain would break */

    for (int i = 2; i <= PROOF_STORE_MAX + 5; i++) {
        char text[32];
        snprintf(text, sizeof(text), "{\"n\":%d}", i);
        assert_int_equal(prove(&record, NULL, str_of(text)), ERR_NONE); /* without a summary the old one stays */
        record = get(record.id).record;
        crypto_sha256_hex(str_of(text), proof.receipt_sha256);
        assert_memory_equal(&record.proof, &proof, sizeof(proof));
    }
    assert_int_equal(strtol(look("LLEN sl:{wrk:%s}proofs", record.id), NULL, 10), PROOF_STORE_MAX);
    uint64_t cursor = 0, expect = PROOF_STORE_MAX + 5;
    do {
        char text[32];
        list(record.id, cursor, 30);
        for (size_t i = 0; i < listed.count; i++, expect--) {
            snprintf(text, sizeof(text), "{\"n\":%d}", (int)expect);
            assert_int_equal(listed.numbers[i], expect);
            assert_string_equal(listed.texts[i], text);
        }
        cursor = listed.next;
    } while (cursor);
    assert_int_equal(expect, 5);
    list(record.id, 6, 30);
    assert_int_equal(listed.count, 0);
    struct answer answer = {0};
    assert_int_equal(proof_store_list(fixture.redis, STR("wrk_}{"), 0, 1, on_list, &answer), ERR_BAD_INPUT);
    assert_int_equal(proof_store_list(fixture.redis, str_of(record.id), 0, 0, on_list, &answer), ERR_BAD_INPUT);
}

static void several_receipts_come_at_once(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    struct answer answer;
    char digest[SHA256_HEX];
    struct str texts[] = {STR("{\"n\":1}"), STR("{\"n\":2}"), STR("{\"n\":3}")}, many[WORKER_RECEIPTS_MAX + 1];
    assert_int_equal(put(&record), ERR_NONE);
    struct admission next = record.admission;
    next.token++;
    struct worker_verdict verdict = {&next, NULL, STR(""), texts, 3};
    wait_for(worker_store_prove(fixture.redis, str_of(record.id), record.admission.token, &verdict, on_stored, &answer),
             answer);
    assert_int_equal(answer.error, ERR_NONE);
    list(record.id, 0, 10);
    assert_int_equal(listed.count, 3);
    assert_string_equal(listed.texts[0], "{\"n\":3}");
    assert_string_equal(listed.texts[2], "{\"n\":1}");
    crypto_sha256_hex(texts[2], digest);
    assert_string_equal(get(record.id).record.proof.receipt_sha256, digest);
    for (size_t i = 0; i <= WORKER_RECEIPTS_MAX; i++)
        many[i] = texts[0];
    verdict.receipts = many;
    verdict.receipt_count = WORKER_RECEIPTS_MAX + 1;
    assert_int_equal(worker_store_prove(fixture.redis, str_of(record.id), 1, &verdict, on_stored, &answer),
                     ERR_BAD_INPUT);
}

static void old_receipts_go(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    assert_int_equal(put(&record), ERR_NONE);
    look("RPUSH sl:{wrk:%s}proofs %s", record.id, "2 1000 {}"); /* of 1970 */
    look("HSET sl:{wrk:%s} receipts 2", record.id);
    list(record.id, 0, 5);
    assert_int_equal(listed.count, 0);
    assert_int_equal(prove(&record, NULL, STR("{\"n\":3}")), ERR_NONE);
    assert_int_equal(strtol(look("LLEN sl:{wrk:%s}proofs", record.id), NULL, 10), 1);
    list(record.id, 0, 5);
    assert_int_equal(listed.count, 1);
    assert_int_equal(listed.numbers[0], 3);
}

static struct {
    int records, ends;
    enum error error;
    uint64_t price_sum;
} all;

static void on_all(void *ctx, enum error error, const struct worker_record *record)
{
    (void)ctx;
    if (record) {
        assert_int_equal(all.ends, 0);
        all.records++;
        all.price_sum += (uint64_t)record->price_usd_nano;
    } else {
        all.ends++;
        all.error = error;
    }
}

static void read_all(void)
{
    memset(&all, 0, sizeof(all));
    assert_int_equal(worker_store_all(fixture.redis, on_all, NULL), ERR_NONE);
    turn_until(all.ends);
    assert_int_equal(all.ends, 1);
}

static void all_workers(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    struct worker_record record;
    read_all();
    assert_int_equal(all.records, 0);
    assert_int_equal(all.error, ERR_NONE);
    for (int i = 0; i < COUNT; i++) {
        record = new_record();
        record.price_usd_nano = i;
        assert_int_equal(put(&record), ERR_NONE);
    }
    look("SADD sl:workers nonsense wrk_00000000000000000000000000"); /* no worker, and one without a hash */
    look("HSET sl:{wrk:%s} slots many", record.id);                  /* damaged: left out */
    read_all();
    assert_int_equal(all.error, ERR_NONE);
    assert_int_equal(all.records, COUNT - 1);
    assert_int_equal(all.price_sum, (COUNT - 1) * (COUNT - 2) / 2);
    assert_int_equal(get(record.id).error, ERR_PROTOCOL);
}

static void what_is_open_ends_with_the_connection(void **state)
{
    (void)state;
    struct answer put_answer = {0}, get_answer = {0};
    struct worker_record record = new_record();
    memset(&all, 0, sizeof(all));
    assert_int_equal(worker_store_put(fixture.redis, &record, on_stored, &put_answer), ERR_NONE);
    assert_int_equal(worker_store_get(fixture.redis, str_of(record.id), on_record, &get_answer), ERR_NONE);
    assert_int_equal(worker_store_all(fixture.redis, on_all, NULL), ERR_NONE);
    fixture.redis = redis_free(fixture.redis);
    assert_int_equal(put_answer.fired, 1);
    assert_int_equal(put_answer.error, ERR_CANCELLED);
    assert_int_equal(get_answer.error, ERR_CANCELLED);
    assert_int_equal(all.ends, 1);
    assert_int_equal(all.error, ERR_CANCELLED);
    struct redis_options options = {.url = fixture.url};
    assert_int_equal(redis_open(fixture.loop, &options, &fixture.redis), ERR_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(put_and_get, fixture_empty),
        cmocka_unit_test_setup(declared_fields_change_alone, fixture_empty),
        cmocka_unit_test_setup(another_secret_is_another_worker, fixture_empty),
        cmocka_unit_test_setup(bad_records, fixture_empty),
        cmocka_unit_test_setup(one_gateway_wins_an_admission, fixture_empty),
        cmocka_unit_test_setup(big_tokens_are_exact, fixture_empty),
        cmocka_unit_test_setup(redis_counts_as_we_do, fixture_empty),
        cmocka_unit_test_setup(the_feed_is_told_once_a_second, fixture_empty),
        cmocka_unit_test_setup(no_payer_has_more_than_a_quarter, fixture_empty),
        cmocka_unit_test_setup(bad_counts_are_inherited, fixture_empty),
        cmocka_unit_test_setup(a_proof_is_stored_with_its_receipt, fixture_empty),
        cmocka_unit_test_setup(several_receipts_come_at_once, fixture_empty),
        cmocka_unit_test_setup(old_receipts_go, fixture_empty),
        cmocka_unit_test_setup(all_workers, fixture_empty),
        cmocka_unit_test_setup(what_is_open_ends_with_the_connection, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
