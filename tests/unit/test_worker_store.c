#include "tests/unit/redis_fixture.h"

#include "core/crypto.h"
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
    changed.enrolled_at_ms = 1; /* these three stay as they were */
    changed.admission.state = ADMISSION_READY;
    changed.reputation.good = 1000;
    assert_int_equal(put(&changed), ERR_NONE);
    assert_int_equal(feed_length(), 2);
    struct worker_record got = get(record.id).record;
    assert_int_equal(got.price_usd_nano, 5);
    assert_int_equal(got.slots, 2);
    assert_string_equal(got.tags, "gdpr");
    assert_int_equal(got.enrolled_at_ms, record.enrolled_at_ms);
    assert_int_equal(got.admission.state, ADMISSION_ENROLLED);
    assert_true(got.reputation.good == 0);
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
            record.reputation.good = NAN;
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
    assert_int_equal(worker_store_reputation(fixture.redis, STR(""), 1, 0, on_stored, &answer), ERR_BAD_INPUT);
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

static enum error count(const char *id, uint32_t good, uint32_t bad)
{
    struct answer answer;
    wait_for(worker_store_reputation(fixture.redis, str_of(id), good, bad, on_stored, &answer), answer);
    return answer.error;
}

static void reputation_grows_and_decays(void **state)
{
    (void)state;
    struct worker_record record = new_record();
    assert_int_equal(put(&record), ERR_NONE);
    for (int i = 0; i < 20; i++)
        assert_int_equal(count(record.id, 3, 1), ERR_NONE);
    struct worker_record got = get(record.id).record;
    assert_true(fabs(got.reputation.good - 60) < 0.01 && fabs(got.reputation.bad - 20) < 0.01);
    assert_true(llabs(got.reputation.at_ms - clock_wall_ms()) < 60000);
    assert_true(feed_length() <= 4); /* one put, and about one a second */

    /* a week ago: half is left, as reputation_add has it */
    struct reputation same = {40, 10, clock_wall_ms() - INT64_C(7) * 24 * 3600 * 1000};
    look("HSET sl:{wrk:%s} good 40 bad 10 reputation_at_ms %lld", record.id, (long long)same.at_ms);
    assert_int_equal(count(record.id, 1, 0), ERR_NONE);
    got = get(record.id).record;
    reputation_add(&same, 1, 0, got.reputation.at_ms);
    assert_true(fabs(got.reputation.good - same.good) < 1e-6 && fabs(got.reputation.bad - same.bad) < 1e-6);
    assert_true(fabs(got.reputation.good - 21) < 0.01);

    char stranger[ID_TEXT_MAX];
    id_new("wrk_", stranger);
    assert_int_equal(count(stranger, 1, 0), ERR_NOT_FOUND);
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
        cmocka_unit_test_setup(reputation_grows_and_decays, fixture_empty),
        cmocka_unit_test_setup(all_workers, fixture_empty),
        cmocka_unit_test_setup(what_is_open_ends_with_the_connection, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
