#include "tests/unit/cmocka_all.h"
#include "core/clock.h"
#include "gateway/registry.h"

#include <string.h>

static struct worker_record record_of(const char *id)
{
    struct worker_record record = {.gpus = 1,
                                   .slots = 8,
                                   .price_usd_nano = 1200000000,
                                   .name = "w",
                                   .supplier = "acme",
                                   .gpu = "cpu",
                                   .gpu_raw = "cpu",
                                   .region = "eu-west",
                                   .tags = "gdpr,hipaa"};
    strcpy(record.id, id);
    record.admission.state = ADMISSION_READY;
    return record;
}

static struct registry_entry *put(struct registry *registry, const char *id, enum registry_change expect)
{
    struct worker_record record = record_of(id);
    struct registry_entry *entry = NULL;
    enum registry_change change;
    assert_int_equal(registry_put(registry, &record, &change, &entry), ERR_NONE);
    assert_int_equal(change, expect);
    return entry;
}

static struct registry *opened(void)
{
    struct registry *registry;
    assert_int_equal(registry_open(2, &registry), ERR_NONE);
    return registry;
}

static void keeps_them_in_order(void **state)
{
    (void)state;
    struct registry *registry = opened();
    char id[ID_TEXT_MAX];
    for (unsigned i = 0; i < 200; i++) {
        snprintf(id, sizeof(id), "wrk_%03u", (i * 37) % 200);
        put(registry, id, REGISTRY_NOW);
    }
    assert_int_equal(registry_count(registry), 200);
    bool taken[200] = {false};
    for (unsigned i = 0; i < 200; i++) {
        snprintf(id, sizeof(id), "wrk_%03u", i);
        struct registry_entry *entry = registry_at(registry, i);
        assert_string_equal(entry->record.id, id);
        assert_ptr_equal(registry_find(registry, str_of(id)), entry);
        assert_true(entry->worker->index < 200 && !taken[entry->worker->index]);
        taken[entry->worker->index] = true;
    }
    assert_null(registry_find(registry, STR("wrk_200")));
    assert_null(registry_find(registry, STR("wrk_00")));
    assert_null(registry_find(registry, STR("")));
    registry_free(registry);
}

static void tells_what_changed(void **state)
{
    (void)state;
    struct registry *registry = opened();
    struct worker_record record = record_of("wrk_a");
    enum registry_change change;
    put(registry, "wrk_a", REGISTRY_NOW);
    put(registry, "wrk_a", REGISTRY_SAME);
    record.reputation = (struct reputation){.good = {1}, .at_ms = 5};
    assert_int_equal(registry_put(registry, &record, &change, NULL), ERR_NONE);
    assert_int_equal(change, REGISTRY_SLOW);
    record.price_usd_nano++;
    assert_int_equal(registry_put(registry, &record, &change, NULL), ERR_NONE);
    assert_int_equal(change, REGISTRY_NOW);
    record.admission.state = ADMISSION_SUSPENDED;
    assert_int_equal(registry_put(registry, &record, &change, NULL), ERR_NONE);
    assert_int_equal(change, REGISTRY_NOW);
    registry_free(registry);
}

static void count_gone(void *ctx, struct registry_entry *entry)
{
    assert_string_equal(entry->record.id, "wrk_b");
    (*(unsigned *)ctx)++;
}

static void indexes_come_back_when_nobody_holds_them(void **state)
{
    (void)state;
    struct registry *registry = opened();
    unsigned gone = 0;
    put(registry, "wrk_a", REGISTRY_NOW);
    struct worker *held = worker_ref(put(registry, "wrk_b", REGISTRY_NOW)->worker);
    registry_pass_begin(registry);
    put(registry, "wrk_a", REGISTRY_SAME);
    registry_pass_end(registry, count_gone, &gone);
    assert_int_equal(gone, 1);
    assert_int_equal(registry_count(registry), 1);
    registry_sweep(registry);
    assert_int_not_equal(put(registry, "wrk_c", REGISTRY_NOW)->worker->index, held->index);
    uint32_t index = held->index;
    worker_unref(held);
    registry_sweep(registry);
    assert_int_equal(put(registry, "wrk_d", REGISTRY_NOW)->worker->index, index);
    registry_free(registry);
}

static void serves_while_linked_and_a_little_longer(void **state)
{
    (void)state;
    struct registry *registry = opened();
    struct registry_entry *entry = put(registry, "wrk_a", REGISTRY_NOW);
    const struct str models[] = {STR("m1"), STR("m2")};
    int64_t now = 100 * NS_PER_S;
    bool changed;
    assert_true(registry_link(registry, entry, 0, true, now));
    assert_false(registry_serves(entry, PROBE_REQUIRED, now)); /* its models are not known yet */
    assert_int_equal(registry_models(entry, models, 2, &changed), ERR_NONE);
    assert_true(changed);
    assert_true(registry_serves(entry, PROBE_REQUIRED, now));
    assert_false(registry_link(registry, entry, 1, true, now));
    assert_false(registry_link(registry, entry, 0, false, now));
    assert_true(registry_link(registry, entry, 1, false, now));
    assert_false(registry_link(registry, entry, 1, false, now)); /* never below none */
    assert_true(registry_serves(entry, PROBE_REQUIRED, now + REGISTRY_UNLINKED_NS - 1));
    assert_false(registry_serves(entry, PROBE_REQUIRED, now + REGISTRY_UNLINKED_NS));
    assert_true(registry_link(registry, entry, 0, true, now));
    entry->draining = true;
    assert_false(registry_serves(entry, PROBE_REQUIRED, now));
    entry->draining = false;
    entry->record.admission.state = ADMISSION_PROBING;
    assert_false(registry_serves(entry, PROBE_REQUIRED, now));
    assert_true(registry_serves(entry, PROBE_REPORT, now));
    assert_true(registry_serves(entry, PROBE_OFF, now));
    registry_free(registry);
}

static void models_change_only_when_they_differ(void **state)
{
    (void)state;
    struct registry *registry = opened();
    struct registry_entry *entry = put(registry, "wrk_a", REGISTRY_NOW);
    const struct str first[] = {STR("m1"), STR("m2")}, second[] = {STR("m1"), STR("m3")};
    bool changed;
    assert_int_equal(registry_models(entry, NULL, 0, &changed), ERR_NONE);
    assert_true(changed && entry->is_models_known);
    assert_int_equal(registry_models(entry, NULL, 0, &changed), ERR_NONE);
    assert_false(changed);
    assert_int_equal(registry_models(entry, first, 2, &changed), ERR_NONE);
    assert_true(changed);
    assert_int_equal(registry_models(entry, first, 2, &changed), ERR_NONE);
    assert_false(changed);
    assert_int_equal(registry_models(entry, second, 2, &changed), ERR_NONE);
    assert_true(changed);
    assert_true(str_eq(entry->models[1], STR("m3")));
    registry_free(registry);
}

static void offers_and_rows(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct settings settings;
    struct offer offer;
    const struct str models[] = {STR("m1")};
    bool changed;
    struct registry *registry = opened();
    struct registry_entry *entry = put(registry, "wrk_a", REGISTRY_NOW);
    assert_int_equal(settings_load(NULL, &settings, error), ERR_NONE);
    registry_link(registry, entry, 1, true, 1);
    assert_int_equal(registry_models(entry, models, 1, &changed), ERR_NONE);
    assert_int_equal(registry_offers(registry, &settings, 2, 1000, &offer), 1);
    assert_true(offer.is_ready && entry->was_served);
    assert_true(str_eq(offer.network, STR("native")) && str_eq(offer.tags, STR("gdpr,hipaa")));
    assert_int_equal(offer.model_count, 1);
    assert_int_equal(offer.take_rate_bps, settings_take_bps(&settings, STR("acme")));
    assert_ptr_equal(offer.worker, entry->worker);

    atomic_store(&entry->worker->in_flight, 2);
    atomic_store(&entry->worker->reported, 5);
    json_t *row = registry_row(entry, 1000);
    assert_string_equal(json_string_value(json_object_get(row, "state")), "offline");
    assert_string_equal(json_string_value(json_object_get(row, "reason")), "its model server is down");
    json_decref(row);
    atomic_store(&entry->worker->upstream_ok, true);
    atomic_store(&entry->worker->heard_ns, clock_mono_ns());
    row = registry_row(entry, 1000);
    assert_string_equal(json_string_value(json_object_get(row, "id")), "wrk_a");
    assert_string_equal(json_string_value(json_object_get(row, "state")), "ready");
    assert_string_equal(json_string_value(json_object_get(row, "price_per_gpu_hour_usd")), "1.20");
    assert_int_equal(json_integer_value(json_object_get(row, "in_flight")), 5);
    assert_int_equal(json_array_size(json_object_get(row, "models")), 1);
    assert_int_equal(json_array_size(json_object_get(row, "tags")), 2);
    assert_true(json_is_null(json_object_get(row, "last_probe_at")));
    assert_true(json_is_null(json_object_get(row, "reason")));
    json_decref(row);

    assert_string_equal(json_string_value(json_object_get(row = registry_row(entry, 1000), "gpu")), "cpu");
    assert_true(json_is_null(json_object_get(row, "gpu_proven")) && json_is_null(json_object_get(row, "proven_at")));
    assert_true(json_is_null(json_object_get(row, "banned_until")) && json_is_null(json_object_get(row, "driver")));
    json_decref(row);

    registry_link(registry, entry, 1, false, 3);
    row = registry_row(entry, 1000);
    assert_string_equal(json_string_value(json_object_get(row, "state")), "offline");
    json_decref(row);
    assert_int_equal(registry_offers(registry, &settings, 3 + 60 * NS_PER_S, 1000, &offer), 0);
    settings_free(&settings);
    registry_free(registry);
}

/* What was claimed counts until something is proven; then that does. */
static void sold_as_what_is_proven(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct settings settings;
    struct offer offer;
    bool changed;
    enum registry_change change;
    struct registry *registry = opened();
    struct worker_record record = record_of("wrk_a");
    struct registry_entry *entry;
    strcpy(record.gpu, "nvidia/h200-sxm-141");
    record.vram_bytes = UINT64_C(141) << 30;
    assert_int_equal(registry_put(registry, &record, &change, &entry), ERR_NONE);
    assert_int_equal(settings_load(NULL, &settings, error), ERR_NONE);
    registry_link(registry, entry, 1, true, 1);
    assert_int_equal(registry_models(entry, NULL, 0, &changed), ERR_NONE);
    assert_int_equal(registry_offers(registry, &settings, 2, 1000, &offer), 1);
    assert_true(str_eq(offer.gpu, offer.claimed) && offer.vram_bytes == record.vram_bytes && offer.performance == 1);
    assert_int_equal(offer.calls_max, 41); /* 1.20 an hour, 8 slots: 0.025 a call, 1 USD */

    record.proof = (struct worker_proof){.at_ms = 900,
                                         .gpu = "nvidia/h100-sxm-80",
                                         .proven = {.vram_gib = 77.6},
                                         .class_vram_gib = 80,
                                         .performance = 0.9,
                                         .claimed_performance = 0.5,
                                         .driver = "580.1"};
    record.reputation = (struct reputation){.good = {3, 3, 3, 3}, .bad = {0, 0, 1, 0}, .at_ms = 1000};
    record.earned_usd_nano = INT64_C(2000000000);
    record.admission.banned_until_ms = 5000;
    assert_int_equal(registry_put(registry, &record, &change, &entry), ERR_NONE);
    assert_int_equal(change, REGISTRY_NOW);
    assert_int_equal(registry_offers(registry, &settings, 2, 1000, &offer), 1);
    assert_true(str_eq(offer.gpu, STR("nvidia/h100-sxm-80")) && str_eq(offer.claimed, STR("nvidia/h200-sxm-141")));
    assert_true(offer.vram_bytes == UINT64_C(80) << 30);
    assert_true(offer.performance == 0.9 && offer.claimed_performance == 0.5);
    assert_int_equal(offer.calls_max, 81);
    assert_true(offer.reputation_scores[REPUTATION_AVAILABILITY] < offer.reputation_scores[REPUTATION_NETWORK]);

    json_t *row = registry_row(entry, 1000);
    assert_string_equal(json_string_value(json_object_get(row, "gpu")), "nvidia/h100-sxm-80");
    assert_string_equal(json_string_value(json_object_get(row, "gpu_proven")), "nvidia/h100-sxm-80");
    assert_string_equal(json_string_value(json_object_get(row, "gpu_claimed")), "nvidia/h200-sxm-141");
    assert_string_equal(json_string_value(json_object_get(row, "driver")), "580.1");
    assert_int_equal(json_integer_value(json_object_get(row, "proven_at")), 900);
    assert_int_equal(json_integer_value(json_object_get(row, "banned_until")), 5000);
    assert_int_equal(json_object_size(json_object_get(row, "reputation_parts")), REPUTATION_DIMENSIONS);
    const json_t *part = json_object_get(json_object_get(row, "reputation_parts"), "availability");
    assert_true(json_real_value(json_object_get(part, "good")) == 3 &&
                json_real_value(json_object_get(part, "bad")) == 1);
    assert_true(json_real_value(json_object_get(part, "score")) > 0);
    json_decref(row);

    /* Whoever says that it has no GPU sells no more of those that it proved to have. */
    record.proof.devices = 2;
    record.gpus = 8;
    strcpy(record.gpu, "cpu");
    assert_int_equal(registry_put(registry, &record, &change, &entry), ERR_NONE);
    assert_int_equal(registry_offers(registry, &settings, 2, 1000, &offer), 1);
    assert_true(str_eq(offer.gpu, STR("nvidia/h100-sxm-80")) && offer.gpus == 2);
    strcpy(record.proof.gpu, "cpu");
    assert_int_equal(registry_put(registry, &record, &change, &entry), ERR_NONE);
    assert_int_equal(registry_offers(registry, &settings, 2, 1000, &offer), 1);
    assert_int_equal(offer.gpus, 8); /* processors are not counted by proofs */
    strcpy(record.gpu, "nvidia/h200-sxm-141");
    record.gpus = 1;

    record.proof.gpu[0] = 0; /* near no class */
    record.proof.class_vram_gib = 0;
    assert_int_equal(registry_put(registry, &record, &change, &entry), ERR_NONE);
    assert_int_equal(registry_offers(registry, &settings, 2, 1000, &offer), 1);
    assert_true(str_eq(offer.gpu, STR("unknown")) && offer.vram_bytes < UINT64_C(78) << 30);
    row = registry_row(entry, 6000);
    assert_true(json_is_null(json_object_get(row, "banned_until"))); /* over */
    json_decref(row);
    settings_free(&settings);
    registry_free(registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_them_in_order),
        cmocka_unit_test(tells_what_changed),
        cmocka_unit_test(indexes_come_back_when_nobody_holds_them),
        cmocka_unit_test(serves_while_linked_and_a_little_longer),
        cmocka_unit_test(models_change_only_when_they_differ),
        cmocka_unit_test(offers_and_rows),
        cmocka_unit_test(sold_as_what_is_proven),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
