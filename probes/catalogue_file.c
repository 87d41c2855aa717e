/* Rows of a catalogue file: texts by core/config (which knows files and lines), taken over field by field. */
#include "probes/catalogue_priv.h"
#include "probes/protocol.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    KIND_NAME,
    KIND_NUMBER,    /* double, >= 0 */
    KIND_REFERENCE, /* the same, atomic */
    KIND_COUNT,     /* uint32_t */
    KIND_BYTES,     /* uint64_t; KiB, MiB, GiB may follow */
    KIND_BOOL,
    KIND_CAPABILITY, /* 9.0 */
    KIND_CHAIN,      /* 8192x8x50: n, blocks, steps */
    KIND_PCI,        /* hexadecimal, blanks between */
    KIND_DRIVERS,
};

#define FIELDS 26
/* One item as texts, in the order of fields[]; "" where the key is not given. */
struct item {
    char *text[FIELDS];
};

#define CLASS(field) offsetof(struct catalogue_row, class.field)
static const struct field {
    const char *key;
    enum kind kind;
    size_t offset;
    double most;
} fields[FIELDS] = {
    {"name", KIND_NAME, 0, 0},
    {"driver_names", KIND_DRIVERS, 0, 0},
    {"vram_gib", KIND_NUMBER, CLASS(vram_gib), 1024},
    {"memory_gbps", KIND_NUMBER, CLASS(memory_gbps), 1e6},
    {"bf16_tflops", KIND_NUMBER, CLASS(bf16_tflops), 1e6},
    {"fp32_tflops", KIND_NUMBER, CLASS(fp32_tflops), 1e6},
    {"int8_tops", KIND_NUMBER, CLASS(int8_tops), 1e6},
    {"compute_capability", KIND_CAPABILITY, 0, 0},
    {"sms", KIND_COUNT, CLASS(sms), 4096},
    {"l2_bytes", KIND_BYTES, CLASS(l2_bytes), 1e10},
    {"pci_devices", KIND_PCI, 0, 0},
    {"fill_gbps", KIND_REFERENCE, CLASS(fill_gbps), 1e6},
    {"pass_gbps", KIND_REFERENCE, CLASS(pass_gbps), 1e6},
    {"walk_gbps", KIND_REFERENCE, CLASS(walk_gbps), 1e6},
    {"chain_tops", KIND_REFERENCE, CLASS(chain_tops), 1e6},
    {"is_measured", KIND_BOOL, CLASS(is_measured), 0},
    {"double_rounds", KIND_COUNT, CLASS(double_rounds), PROBE_DOUBLE_ROUNDS_MAX},
    {"passes", KIND_COUNT, CLASS(passes), PROBE_PASSES_MAX},
    {"walkers", KIND_COUNT, CLASS(walkers), PROBE_WALKERS_MAX},
    {"walk_steps", KIND_COUNT, CLASS(walk_steps), PROBE_STEPS_MAX},
    {"admission_chain", KIND_CHAIN, CLASS(admission_chain), 0},
    {"spot_chain", KIND_CHAIN, CLASS(spot_chain), 0},
    {"lease_chain", KIND_CHAIN, CLASS(lease_chain), 0},
    {"spot_fill_bytes", KIND_BYTES, CLASS(spot_fill_bytes), 1e12},
    {"net_frames", KIND_COUNT, CLASS(net_frames), 256},
    {"net_floor_mbps", KIND_NUMBER, CLASS(net_floor_mbps), 1e6},
};

static bool take_number(struct str text, double most, double *ret)
{
    double value;
    if (!str_to_double(text, &value) || value < 0 || value > most)
        return false;
    *ret = value;
    return true;
}

static bool take_bytes(struct str text, double most, uint64_t *ret)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = {{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    int64_t value, factor = 1;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (str_ends(text, str_of(units[i].name))) {
            text.len -= 3;
            factor = units[i].factor;
        }
    }
    if (!str_to_i64(str_trim(text), &value) || value < 0 || (double)value * (double)factor > most)
        return false;
    *ret = (uint64_t)(value * factor);
    return true;
}

static bool take_chain(struct str text, struct chain_shape *ret)
{
    int64_t n, blocks, steps;
    struct str rest = text;
    if (!str_to_i64(str_next(&rest, 'x'), &n) || !str_to_i64(str_next(&rest, 'x'), &blocks) ||
        !str_to_i64(str_next(&rest, 'x'), &steps) || rest.ptr)
        return false;
    if (n < 64 || n > PROBE_CHAIN_N_MAX || n % 64 || blocks < 1 || blocks > PROBE_CHAIN_BLOCKS_MAX || steps < 1 ||
        steps > PROBE_CHAIN_STEPS_MAX || n * blocks > PROBE_CHAIN_ROW_MAX)
        return false;
    *ret = (struct chain_shape){(uint32_t)n, (uint32_t)blocks, (uint32_t)steps};
    return true;
}

static bool take_capability(struct str text, struct gpu_class *class)
{
    int64_t major, minor;
    struct str rest = text;
    if (!str_to_i64(str_next(&rest, '.'), &major) || !str_to_i64(str_next(&rest, '.'), &minor) || rest.ptr ||
        major < 1 || major > 99 || minor < 0 || minor > 9)
        return false;
    class->cc_major = (uint8_t)major;
    class->cc_minor = (uint8_t)minor;
    return true;
}

static bool take_pci(struct str text, struct gpu_class *class)
{
    size_t count = 0, most = sizeof(class->pci_devices) / sizeof(class->pci_devices[0]);
    uint16_t devices[sizeof(class->pci_devices) / sizeof(class->pci_devices[0])] = {0};
    struct str rest = text, word;
    while (word = str_next(&rest, ' '), word.ptr) {
        unsigned value = 0;
        if (word.len != 4 || count == most)
            return false;
        for (size_t i = 0; i < 4; i++) {
            char c = word.ptr[i];
            if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
                return false;
            value = value << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        if (value == 0)
            return false;
        devices[count++] = (uint16_t)value;
    }
    memcpy(class->pci_devices, devices, sizeof(devices));
    return true;
}

static bool take_bool(struct str text, bool *ret)
{
    bool is_true = str_eq(text, STR("true"));
    if (!is_true && !str_eq(text, STR("false")))
        return false;
    *ret = is_true;
    return true;
}

/* NULL, or what the value must be. */
static const char *take_field(const struct field *field, struct str text, struct catalogue_row *row)
{
    void *at = (char *)row + field->offset;
    double number;
    switch (field->kind) {
    case KIND_NAME:
        return NULL;
    case KIND_NUMBER:
        return take_number(text, field->most, at) ? NULL : "must be a number, 0 or more, and in its unit";
    case KIND_REFERENCE:
        if (!take_number(text, field->most, &number))
            return "must be a number, 0 or more, and in its unit";
        *(_Atomic double *)at = number;
        return NULL;
    case KIND_COUNT:
        if (!take_number(text, field->most, &number) || number != floor(number))
            return "must be a whole number within its limits";
        *(uint32_t *)at = (uint32_t)number;
        return NULL;
    case KIND_BYTES:
        return take_bytes(text, field->most, at) ? NULL : "must be a whole number, or one with KiB MiB GiB";
    case KIND_BOOL:
        return take_bool(text, at) ? NULL : "must be true or false";
    case KIND_CAPABILITY:
        return take_capability(text, &row->class) ? NULL : "must be like 9.0";
    case KIND_CHAIN:
        return take_chain(text, at) ? NULL : "must be like 8192x8x50: n (a multiple of 64), blocks, steps";
    case KIND_PCI:
        return take_pci(text, &row->class) ? NULL : "must be up to 8 of four hexadecimal digits, blanks between";
    case KIND_DRIVERS:
        return str_copy(row->driver_names, sizeof(row->driver_names), text) ? NULL : "is too long";
    }
    return NULL;
}

static bool is_name(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '/'))
            return false;
    }
    return text.len > 0 && text.len < CATALOGUE_NAME_MAX;
}

/* The row of that name, a new one if there is none; NULL and why. */
static struct catalogue_row *row_for(struct catalogue *catalogue, struct str name, const char **why)
{
    struct catalogue_row *row = catalogue_row_of(catalogue, name);
    if (row)
        return row;
    *why = !is_name(name)                           ? "must be lower case letters, digits, '-' and '/'"
           : catalogue->count == CATALOGUE_ROWS_MAX ? "is one class too many"
                                                    : NULL;
    if (*why)
        return NULL;
    row = &catalogue->rows[catalogue->count++];
    *row = (struct catalogue_row){.class = {.has_floor = true}};
    (void)str_copy(row->class.name, sizeof(row->class.name), name);
    return row;
}

static enum error take_item(struct catalogue *catalogue, const struct item *item, size_t index, const char *path,
                            char error[static CONFIG_ERROR_MAX])
{
    const char *why = NULL;
    size_t at = 0;
    struct catalogue_row *row = row_for(catalogue, str_of(item->text[0]), &why);
    for (size_t i = 1; i < FIELDS && !why; i++) {
        at = i;
        if (*item->text[i])
            why = take_field(&fields[i], str_of(item->text[i]), row);
    }
    if (!why && row->class.has_floor && !(row->class.vram_gib > 0)) {
        at = 2;
        why = "must be given, for nothing else tells it from others";
    }
    if (!why)
        return ERR_NONE;
    snprintf(error, CONFIG_ERROR_MAX, "%.200s: classes[%zu].%s (%.60s): %s", path, index, fields[at].key, item->text[0],
             why);
    return ERR_BAD_INPUT;
}

enum error catalogue_add_file(struct catalogue *catalogue, const char *path, char error[static CONFIG_ERROR_MAX])
{
    struct config_row item_rows[FIELDS + 1] = {{.key = NULL}};
    for (size_t i = 0; i < FIELDS; i++)
        item_rows[i] = (struct config_row){.key = fields[i].key,
                                           .type = CONFIG_STRING,
                                           .offset = offsetof(struct item, text) + i * sizeof(char *),
                                           .standard = i == 0 ? NULL : "",
                                           .help = ""};
    struct file {
        struct config_list classes;
    } file;
    const struct config_row rows[] = {{.key = "classes",
                                       .type = CONFIG_LIST,
                                       .offset = offsetof(struct file, classes),
                                       .standard = "",
                                       .items = item_rows,
                                       .item_size = sizeof(struct item),
                                       .help = ""},
                                      {.key = NULL}};
    enum error failed = config_load(rows, path, &file, sizeof(file), error);
    if (failed)
        return failed;
    const struct item *items = file.classes.items;
    for (size_t i = 0; i < file.classes.count && !failed; i++)
        failed = take_item(catalogue, &items[i], i, path, error);
    config_free(rows, &file);
    return failed;
}
