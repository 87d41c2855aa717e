/* References of a class follow the fleet's median, where enough workers of enough suppliers stand behind it. */
#include "tests/unit/cmocka_all.h"
#include "gateway/control_priv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CLASS "nvidia/h100-sxm-80"

static struct control world_open(void)
{
    struct control control = {0};
    char error[CONFIG_ERROR_MAX];
    assert_int_equal(catalogue_open(NULL, &control.catalogue, error), ERR_NONE);
    assert_int_equal(registry_open(1, &control.registry), ERR_NONE);
    return control;
}

static void world_close(struct control *control)
{
    registry_free(control->registry);
    catalogue_free(control->catalogue);
}

static void add(struct control *control, int number, int supplier, double chain_tops, enum admission_state state)
{
    struct worker_record record = {.gpus = 1, .slots = 1, .gpu = CLASS};
    enum registry_change change;
    struct id id = {.bytes = {(uint8_t)number}};
    id_text("wrk_", &id, record.id);
    snprintf(record.supplier, sizeof(record.supplier), "supplier-%d", supplier);
    snprintf(record.proof.gpu, sizeof(record.proof.gpu), CLASS);
    record.proof.at_ms = 1;
    record.proof.proven.chain_tops = chain_tops;
    record.admission.state = state;
    assert_int_equal(registry_put(control->registry, &record, &change, NULL), ERR_NONE);
}

static double reference(const struct control *control)
{
    return catalogue_find(control->catalogue, STR(CLASS))->chain_tops;
}

static void few_or_one_suppliers_change_nothing(void **state)
{
    (void)state;
    struct control control = world_open();
    double before = reference(&control);
    for (int i = 0; i < 7; i++)
        add(&control, i, i, before * 1.1, ADMISSION_READY);
    control_fleet(&control);
    assert_true(reference(&control) == before);
    world_close(&control);
    control = world_open();
    for (int i = 0; i < 100; i++)
        add(&control, i, i % 3, before * 0.9, ADMISSION_READY);
    control_fleet(&control);
    assert_true(reference(&control) == before);
    world_close(&control);
}

static void the_median_of_ready_workers_counts(void **state)
{
    (void)state;
    struct control control = world_open();
    double before = reference(&control);
    for (int i = 0; i < 9; i++)
        add(&control, i, i, before * (1.0 + 0.01 * i), ADMISSION_READY);
    for (int i = 20; i < 60; i++)
        add(&control, i, i, before * 0.5, ADMISSION_SUSPENDED);
    control_fleet(&control);
    assert_true(fabs(reference(&control) / before - 1.04) < 0.001);
    world_close(&control);
}

/* A fleet of slow workers does not lower its own floor as far as it likes. */
static void it_does_not_lead_far_away(void **state)
{
    (void)state;
    struct control control = world_open();
    double before = reference(&control);
    for (int i = 0; i < 50; i++)
        add(&control, i, i, before * 0.1, ADMISSION_READY);
    control_fleet(&control);
    assert_true(fabs(reference(&control) / before - 0.8) < 0.001);
    world_close(&control);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_or_one_suppliers_change_nothing),
        cmocka_unit_test(the_median_of_ready_workers_counts),
        cmocka_unit_test(it_does_not_lead_far_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
