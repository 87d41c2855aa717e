/* The inside of gpu_names: what words stand for which model, and names that must be known by heart. */
#ifndef SLUICE_PROBES_GPU_NAMES_PRIV_H
#define SLUICE_PROBES_GPU_NAMES_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MODEL_NEEDS_MEMORY = 1 << 0, /* the words alone mean several models: only with the right memory is it this one */
    MODEL_ANY_FORM = 1 << 1,     /* the catalogue tells no forms apart: "SXM" is right as well */
    MODEL_IS_PAIR = 1 << 2,      /* two devices in one: half of its memory is one of them */
    MODEL_SAYS_FORM = 1 << 3,    /* the words tell the form; otherwise it is what they mean if none is told */
};

struct gpu_model {
    const char *words; /* runs of letters and runs of digits, blanks between: "rtx a 6000" */
    const char *name;  /* canonical, without form and memory: "nvidia/rtxa6000" */
    const char *form;  /* "sxm", "ws"; "": the one without a form; NULL: not told */
    uint32_t gb;       /* told by the words; 0: not */
    unsigned flags;
};

/* A name that no rule explains. One that ends in '.', '_' or '-' is the beginning of names. */
struct gpu_raw_name {
    const char *raw, *name;
    uint32_t fraction_ppm;
};

const struct gpu_model *gpu_models(size_t *ret_count);
const struct gpu_raw_name *gpu_raw_names(size_t *ret_count);
/* May stand anywhere in a name and says nothing. NULL-terminated, as are the other lists. */
extern const char *const gpu_noise_words[];
extern const char *const gpu_slice_words[];
extern const char *const gpu_glued_words[]; /* are written together with what follows: "GeForceRTX" */
extern const char *const gpu_arm_hosts[];   /* canonical, without form and memory */

#endif
