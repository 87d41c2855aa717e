/* The inside of the catalogue: rows as they are written, before what they leave open is derived. */
#ifndef SLUICE_PROBES_CATALOGUE_PRIV_H
#define SLUICE_PROBES_CATALOGUE_PRIV_H

#include "core/config.h"
#include "probes/catalogue.h"

#define CATALOGUE_ROWS_MAX 256
#define CATALOGUE_DRIVER_NAMES_MAX 160

struct catalogue_row {
    struct gpu_class class; /* numbers that are 0 are derived: catalogue_complete */
    /* The driver's names, with '|' between; vendor and brand words are left out: "H100 80GB HBM3|H100 SXM5 80GB". */
    char driver_names[CATALOGUE_DRIVER_NAMES_MAX];
    bool is_one_of_sizes; /* the name is sold with several sizes of memory, so that it says little without one */
    double base_fill, base_pass, base_walk, base_chain; /* references that a fleet's medians are bounded by */
};

struct catalogue {
    struct catalogue_row rows[CATALOGUE_ROWS_MAX];
    size_t count;
};

/* The built-in rows as they are written; they live for ever. */
const struct catalogue_row *catalogue_built_in(size_t *ret_count);
/* Copies them in. */
void catalogue_add_built_in(struct catalogue *catalogue);
/* Rows of a YAML file over those that are there. */
MUST_CHECK enum error catalogue_add_file(struct catalogue *catalogue, const char *path,
                                         char error[static CONFIG_ERROR_MAX]);
struct catalogue_row *catalogue_row_of(struct catalogue *catalogue, struct str name); /* NULL: none */
/* References and sizes that the row leaves open, from its datasheet. */
void catalogue_complete(struct catalogue_row *row);

#endif
