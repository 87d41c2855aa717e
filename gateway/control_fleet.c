/* The fleet's own medians as references of a class: what honest devices of a kind reach is learned from many of them,
 * not from a datasheet. Taken only over enough devices of enough suppliers, one vote a supplier's worker; the catalogue
 * bounds how far they may lead away from its row. */
#include "gateway/control_priv.h"

#include <stdlib.h>
#include <string.h>

#define WORKERS_MIN 8
#define SUPPLIERS_MIN 4
#define WORKERS_MAX 1024 /* of a class; more change no median */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_size);
    return values[count / 2];
}

static double take(const struct registry_entry *const *entries, size_t count, size_t offset, double *values)
{
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, (const char *)&entries[i]->record.proof.proven + offset, sizeof(value));
        if (value > 0)
            values[known++] = value;
    }
    return known >= WORKERS_MIN ? median_of(values, known) : 0;
}

static size_t suppliers_of(const struct registry_entry *const *entries, size_t count)
{
    size_t suppliers = 0;
    for (size_t i = 0; i < count && suppliers < SUPPLIERS_MIN; i++) {
        bool is_new = true;
        for (size_t k = 0; is_new && k < i; k++)
            is_new = strcmp(entries[k]->record.supplier, entries[i]->record.supplier) != 0;
        suppliers += is_new;
    }
    return suppliers;
}

void control_fleet(struct control *control)
{
    const struct registry *registry = control->registry;
    const struct registry_entry **entries = malloc(WORKERS_MAX * sizeof(*entries));
    double *values = malloc(WORKERS_MAX * sizeof(*values));
    for (size_t i = 0; entries && values && i < catalogue_count(control->catalogue); i++) {
        const char *name = catalogue_at(control->catalogue, i)->name;
        size_t count = 0;
        for (size_t k = 0; k < registry_count(registry) && count < WORKERS_MAX; k++) {
            const struct registry_entry *entry = registry_at(registry, k);
            if (admission_is_ready(&entry->record.admission) && !strcmp(entry->record.proof.gpu, name))
                entries[count++] = entry;
        }
        if (count < WORKERS_MIN || suppliers_of(entries, count) < SUPPLIERS_MIN)
            continue;
        const struct proven median = {.fill_gbps = take(entries, count, offsetof(struct proven, fill_gbps), values),
                                      .pass_gbps = take(entries, count, offsetof(struct proven, pass_gbps), values),
                                      .walk_gbps = take(entries, count, offsetof(struct proven, walk_gbps), values),
                                      .chain_tops = take(entries, count, offsetof(struct proven, chain_tops), values)};
        catalogue_set_fleet(control->catalogue, name, &median);
    }
    free(entries);
    free(values);
}
