/* A name is cut into runs of letters and of digits ("RTX 6000Ada": rtx 6000 ada). The longest row of words that fits is
 * the model; what stands around it must be a form, a memory, a count, the mark of a slice or noise, or the name is not
 * understood. The catalogue's rows of that model are told apart by form and memory, and only a single one is an answer.
 */
#include "probes/gpu_names.h"
#include "probes/catalogue_priv.h"
#include "probes/gpu_names_priv.h"

#include <string.h>

#define TOKENS_MAX 32
#define MEMORY_SLACK 0.07
#define GPUS_MAX 64 /* that a name may begin with: "8x" */
#define GIB (1 << 30)

enum form { FORM_NONE, FORM_SXM, FORM_PCIE, FORM_NVL, FORM_OAM, FORM_OTHER, FORM_HGX };

struct token {
    struct str text;
    bool is_number, is_glued; /* glued: no separator before it */
};

struct parse {
    char lower[GPU_RAW_MAX];
    struct token tokens[TOKENS_MAX];
    size_t count;
    const struct gpu_model *model;
    enum form form;
    uint32_t gb; /* 0: not told */
    /* of a slice: "3g.20gb" has 3 and 20, "A10-4Q" has 0 and 4 */
    uint32_t slice_instances, slice_gb;
    bool is_slice, is_contradictory;
};

/* -- tokens -- */

static bool is_letter(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool add_token(struct parse *parse, struct str text, bool is_number, bool is_glued)
{
    if (parse->count == TOKENS_MAX)
        return false;
    parse->tokens[parse->count++] = (struct token){text, is_number, is_glued};
    return true;
}

static size_t glued_word(const struct parse *parse, struct str run, bool is_glued)
{
    for (size_t i = 0; gpu_glued_words[i]; i++) {
        struct str word = str_of(gpu_glued_words[i]);
        if (run.len > word.len && str_starts(run, word))
            return word.len;
    }
    return parse->count == 1 && parse->tokens[0].is_number && is_glued && run.len > 1 && *run.ptr == 'x'; /* 8xH100 */
}

/* "geforcertx": geforce rtx */
static bool add_letters(struct parse *parse, struct str run, bool is_glued)
{
    size_t len;
    while ((len = glued_word(parse, run, is_glued)) > 0) {
        if (!add_token(parse, (struct str){run.ptr, len}, false, is_glued))
            return false;
        run = (struct str){run.ptr + len, run.len - len};
        is_glued = true;
    }
    return add_token(parse, run, false, is_glued);
}

/* False: too long, or there is something in it that no name has. */
static bool cut(struct parse *parse, struct str raw)
{
    static const char separators[] = " \t-_()./,:";
    const char *text = parse->lower;
    if (raw.len > sizeof(parse->lower))
        return false;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        parse->lower[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    for (size_t at = 0, end; at < raw.len; at = end) {
        bool is_glued = at > 0 && (is_letter(text[at - 1]) || is_digit(text[at - 1]));
        end = at + 1;
        if (is_letter(text[at])) {
            while (end < raw.len && is_letter(text[end]))
                end++;
            if (!add_letters(parse, (struct str){text + at, end - at}, is_glued))
                return false;
        } else if (is_digit(text[at])) {
            while (end < raw.len && is_digit(text[end]))
                end++;
            if (!add_token(parse, (struct str){text + at, end - at}, true, is_glued))
                return false;
        } else if (!memchr(separators, text[at], sizeof(separators) - 1)) {
            return false;
        } else if (text[at] == '.' && at > 0 && end < raw.len && is_digit(text[at - 1]) && is_digit(text[end])) {
            return false; /* a number that is not whole */
        }
    }
    return true;
}

static bool is_word(const struct parse *parse, size_t at, const char *word)
{
    return at < parse->count && str_eq(parse->tokens[at].text, str_of(word));
}

static bool is_glued_word(const struct parse *parse, size_t at, const char *word)
{
    return is_word(parse, at, word) && parse->tokens[at].is_glued;
}

static bool is_among(const struct parse *parse, size_t at, const char *const *words)
{
    while (*words && !is_word(parse, at, *words))
        words++;
    return *words != NULL;
}

/* 0: it is none, or one of more than four digits. */
static uint32_t number_at(const struct parse *parse, size_t at)
{
    uint32_t value = 0;
    if (at >= parse->count || !parse->tokens[at].is_number || parse->tokens[at].text.len > 4)
        return 0;
    for (size_t i = 0; i < parse->tokens[at].text.len; i++)
        value = value * 10 + (uint32_t)(parse->tokens[at].text.ptr[i] - '0');
    return value;
}

/* -- what may stand in a name; each tells how many tokens it takes, 0: it is not that -- */

static size_t match_words(const struct parse *parse, size_t at, struct str words)
{
    size_t count = 0;
    struct str word;
    while (word = str_next(&words, ' '), word.ptr) {
        if (at + count >= parse->count || !str_eq(parse->tokens[at + count].text, word))
            return 0;
        count++;
    }
    return count;
}

static size_t eat_model(struct parse *parse, size_t at)
{
    size_t rows, longest = 0;
    const struct gpu_model *models = gpu_models(&rows);
    for (size_t i = 0; i < rows; i++) {
        size_t count =
            *models[i].words == *parse->tokens[at].text.ptr ? match_words(parse, at, str_of(models[i].words)) : 0;
        if (count > longest) {
            longest = count;
            parse->model = &models[i];
        }
    }
    return longest;
}

static size_t eat_form(struct parse *parse, size_t at)
{
    static const struct {
        const char *word;
        enum form form;
    } forms[] = {{"sxm", FORM_SXM}, {"pcie", FORM_PCIE}, {"pci", FORM_PCIE}, {"nvl", FORM_NVL},
                 {"oam", FORM_OAM}, {"hgx", FORM_SXM},   {"mxm", FORM_OTHER}};
    size_t i = 0, count = 1;
    while (i < sizeof(forms) / sizeof(forms[0]) && !is_word(parse, at, forms[i].word))
        i++;
    if (i == sizeof(forms) / sizeof(forms[0]))
        return 0;
    if (forms[i].form == FORM_NVL && is_glued_word(parse, at + 1, "72"))
        return 2; /* a rack of them */
    if (is_word(parse, at, "pci"))
        count += is_word(parse, at + 1, "e");
    if ((forms[i].form == FORM_SXM || forms[i].form == FORM_PCIE) && at + count < parse->count &&
        parse->tokens[at + count].is_glued && parse->tokens[at + count].text.len == 1)
        count += parse->tokens[at + count].is_number; /* its generation */
    parse->is_contradictory |= parse->form != FORM_NONE && parse->form != forms[i].form;
    parse->form = forms[i].form;
    return count;
}

/* "80GB", "80 GiB", "80G" */
static size_t eat_memory(struct parse *parse, size_t at)
{
    uint32_t gb = number_at(parse, at);
    if (gb == 0 || !(is_word(parse, at + 1, "gb") || is_word(parse, at + 1, "gib") || is_word(parse, at + 1, "gi") ||
                     is_glued_word(parse, at + 1, "g")))
        return 0;
    parse->is_contradictory |= parse->gb && parse->gb != gb;
    parse->gb = gb;
    return 2;
}

/* "HBM3e", "GDDR6X" */
static size_t eat_memory_kind(const struct parse *parse, size_t at)
{
    size_t count = 1;
    if (!is_word(parse, at, "hbm") && !is_word(parse, at, "gddr"))
        return 0;
    if (number_at(parse, at + count) && parse->tokens[at + count].is_glued) {
        count++;
        count += is_glued_word(parse, at + count, "e") || is_glued_word(parse, at + count, "x");
    }
    return count;
}

/* "1g.5gb" of MIG, "4Q" of a virtual GPU */
static size_t eat_profile(struct parse *parse, size_t at)
{
    static const char *const series[] = {"a", "b", "c", "q", NULL};
    uint32_t number = number_at(parse, at), gb = number_at(parse, at + 2);
    if (number && gb && is_glued_word(parse, at + 1, "g") && is_glued_word(parse, at + 3, "gb")) {
        parse->slice_instances = number;
        parse->slice_gb = gb;
        parse->is_slice = true;
        return 4 + is_word(parse, at + 4, "me");
    }
    if (number && parse->model && at + 2 == parse->count && parse->tokens[at + 1].is_glued &&
        is_among(parse, at + 1, series)) {
        parse->slice_gb = number;
        parse->is_slice = true;
        return 2;
    }
    return 0;
}

/* "8x" in front, "x8" at the end */
static size_t eat_count(const struct parse *parse, size_t at)
{
    uint32_t count = number_at(parse, parse->model ? at + 1 : at);
    if (count == 0 || count > GPUS_MAX || !is_word(parse, parse->model ? at : at + 1, "x"))
        return 0;
    return !parse->model || (at + 2 == parse->count && parse->tokens[at + 1].is_glued) ? 2 : 0;
}

static size_t eat_slice_word(struct parse *parse, size_t at)
{
    bool is_one = is_among(parse, at, gpu_slice_words);
    parse->is_slice |= is_one;
    return is_one;
}

/* False: a word is not understood, or two contradict each other. */
static bool understand(struct parse *parse)
{
    for (size_t at = 0, count; at < parse->count; at += count) {
        count = parse->model ? 0 : eat_model(parse, at);
        if (!count)
            count = eat_profile(parse, at);
        if (!count)
            count = eat_memory(parse, at);
        if (!count)
            count = eat_form(parse, at);
        if (!count)
            count = eat_memory_kind(parse, at);
        if (!count)
            count = eat_slice_word(parse, at);
        if (!count)
            count = eat_count(parse, at);
        if (!count)
            count = is_among(parse, at, gpu_noise_words);
        if (!count)
            return false;
    }
    return parse->model && !parse->is_contradictory;
}

/* The first form in what a network says of the interface. */
static enum form form_of(struct str said)
{
    struct parse parse = {.count = 0};
    if (!cut(&parse, said))
        return FORM_NONE;
    for (size_t at = 0; at < parse.count; at++) {
        if (is_word(&parse, at, "hgx"))
            return FORM_HGX;
        if (eat_form(&parse, at) && parse.form != FORM_NONE)
            return parse.form;
    }
    return FORM_NONE;
}

/* -- rows of the catalogue -- */

/* What is told about a device besides its model. */
struct wanted {
    enum form form;
    const char *row_form; /* exactly that one; NULL: any */
    bool any_form;
    double gib[2]; /* memories that are told; 0: not */
};

struct candidate {
    const struct gpu_class *class;
    struct str form;
    double gb; /* in its name; 0: none */
};

/* "nvidia/h100-sxm-80" of "nvidia/h100": form "sxm", 80 */
static bool is_row_of(const struct gpu_class *class, struct str model, struct candidate *ret)
{
    struct str rest = str_of(class->name), part;
    int64_t gb = 0;
    if (!str_starts(rest, model))
        return false;
    rest = (struct str){rest.ptr + model.len, rest.len - model.len};
    *ret = (struct candidate){.class = class, .form = STR("")};
    if (rest.len && *rest.ptr != '-')
        return false;
    (void)str_next(&rest, '-'); /* what is before the first one is empty */
    while (part = str_next(&rest, '-'), part.ptr) {
        if (rest.ptr == NULL && str_to_i64(part, &gb))
            ret->gb = (double)gb;
        else
            ret->form = part;
    }
    return true;
}

static bool is_near(double told, double size)
{
    return size > 0 && told >= (1 - MEMORY_SLACK) * size && told <= (1 + MEMORY_SLACK) * size;
}

/* Both what the driver shows (268) and what the name says (288) are right. */
static bool fits_memory(const struct candidate *candidate, double told)
{
    return told == 0 || is_near(told, candidate->class->vram_gib) || is_near(told, candidate->gb);
}

static bool fits_form(const struct candidate *candidate, const struct wanted *wanted)
{
    if (wanted->row_form && !str_eq(candidate->form, str_of(wanted->row_form)))
        return false;
    if (str_eq(candidate->form, STR("sxm")))
        return wanted->form == FORM_NONE || wanted->form == FORM_SXM || wanted->form == FORM_HGX;
    if (str_eq(candidate->form, STR("pcie")))
        return wanted->form == FORM_NONE || wanted->form == FORM_PCIE;
    if (str_eq(candidate->form, STR("nvl")))
        return wanted->form == FORM_NONE || wanted->form == FORM_NVL;
    return wanted->form == FORM_NONE || wanted->form == FORM_PCIE || wanted->form == FORM_HGX ||
           (wanted->any_form && wanted->form != FORM_OTHER);
}

/* How many rows it can be; *ret is one of them. */
static size_t count_rows(struct str model, const struct wanted *wanted, struct candidate *ret)
{
    size_t rows, found = 0;
    const struct catalogue_row *built_in = catalogue_built_in(&rows);
    for (size_t i = 0; i < rows; i++) {
        struct candidate candidate;
        if (is_row_of(&built_in[i].class, model, &candidate) && fits_form(&candidate, wanted) &&
            fits_memory(&candidate, wanted->gib[0]) && fits_memory(&candidate, wanted->gib[1])) {
            *ret = candidate;
            found++;
        }
    }
    return found;
}

/* The one row it can be. */
static bool choose(struct str model, struct wanted wanted, struct candidate *ret)
{
    if (wanted.form == FORM_HGX && !wanted.row_form) {
        struct wanted sxm = wanted;
        sxm.row_form = "sxm";
        if (count_rows(model, &sxm, ret) == 1)
            return true;
    }
    size_t found = count_rows(model, &wanted, ret);
    if (found == 0 && wanted.form == FORM_PCIE) { /* NVL is a PCIe card */
        wanted.form = FORM_NVL;
        found = count_rows(model, &wanted, ret);
    }
    return found == 1;
}

static struct wanted wanted_of(const struct parse *parse, uint64_t vram_bytes)
{
    struct wanted wanted = {.form = parse->form, .any_form = parse->model->flags & MODEL_ANY_FORM};
    if (parse->model->flags & MODEL_SAYS_FORM || parse->form == FORM_NONE)
        wanted.row_form = parse->model->form;
    wanted.gib[0] = parse->model->gb ? parse->model->gb : parse->gb;
    wanted.gib[1] = parse->is_slice ? 0 : (double)vram_bytes / GIB;
    return wanted;
}

/* Of MIG the lesser of both shares, so that none is taken for more than it is. */
static uint32_t slice_ppm(const struct parse *parse, const struct candidate *parent)
{
    bool is_quartered = str_starts(str_of(parent->class->name), STR("nvidia/a30-")) ||
                        str_starts(str_of(parent->class->name), STR("nvidia/rtxpro"));
    uint32_t whole = is_quartered ? 4 : 7;
    double memory = parent->gb > 0 ? parse->slice_gb / parent->gb : 0;
    double share = parse->slice_instances && parse->slice_instances < memory * whole
                       ? (double)parse->slice_instances / whole
                       : memory;
    return (uint32_t)((share < 1 ? share : 1) * GPU_WHOLE_PPM);
}

static void fill(const struct gpu_class *class, uint32_t fraction_ppm, struct gpu_identity *ret)
{
    (void)str_copy(ret->name, sizeof(ret->name), str_of(class->name));
    ret->fraction_ppm = fraction_ppm;
    ret->vram_gib = class->vram_gib;
    ret->memory_gbps = class->memory_gbps;
    ret->bf16_tflops = class->bf16_tflops;
    ret->fp32_tflops = class->fp32_tflops;
    ret->int8_tops = class->int8_tops;
    for (size_t i = 0; gpu_arm_hosts[i]; i++) {
        struct candidate ignored;
        ret->is_arm_host |= is_row_of(class, str_of(gpu_arm_hosts[i]), &ignored);
    }
}

/* Each device of such a module shows half of its memory, and networks sell either. */
static bool identify_pair(const struct parse *parse, struct wanted wanted, struct gpu_identity *ret)
{
    struct candidate found;
    uint32_t ppm = GPU_WHOLE_PPM;
    if (wanted.gib[0] == 0 && wanted.gib[1] == 0)
        return false;
    if (!choose(str_of(parse->model->name), wanted, &found)) {
        wanted.gib[0] *= 2;
        wanted.gib[1] *= 2;
        ppm /= 2;
        if (!choose(str_of(parse->model->name), wanted, &found))
            return false;
        ret->is_slice = true;
    }
    fill(found.class, parse->is_slice ? 0 : ppm, ret);
    return true;
}

static bool identify_words(struct str raw, enum form form, uint64_t vram_bytes, struct gpu_identity *ret)
{
    struct parse parse = {.count = 0};
    struct candidate found;
    bool is_known = cut(&parse, raw) && understand(&parse);
    ret->is_slice = parse.is_slice;
    if (!is_known || (form != FORM_NONE && form != FORM_HGX && parse.form != FORM_NONE && parse.form != form &&
                      !(parse.form == FORM_NVL && form == FORM_PCIE)))
        return false;
    if (parse.form == FORM_NONE)
        parse.form = form;
    struct str model = str_of(parse.model->name);
    struct wanted wanted = wanted_of(&parse, vram_bytes);
    if (parse.model->flags & MODEL_IS_PAIR)
        return identify_pair(&parse, wanted, ret);
    if (parse.model->flags & MODEL_NEEDS_MEMORY && wanted.gib[0] == 0 && wanted.gib[1] == 0)
        return false;
    if (!choose(model, wanted, &found)) {
        wanted.gib[0] = 0; /* what is told of a slice may be the slice's own memory */
        if (!parse.is_slice || !choose(model, wanted, &found))
            return false;
    }
    fill(found.class, parse.is_slice ? slice_ppm(&parse, &found) : GPU_WHOLE_PPM, ret);
    return true;
}

/* -- names known by heart -- */

static const struct gpu_raw_name *raw_name_of(struct str raw)
{
    size_t rows;
    const struct gpu_raw_name *names = gpu_raw_names(&rows);
    const struct gpu_raw_name *begins = NULL;
    for (size_t i = 0; i < rows; i++) {
        struct str name = str_of(names[i].raw);
        char last = name.ptr[name.len - 1];
        bool is_beginning = last == '.' || last == '_' || last == '-';
        if (!is_beginning && str_eq_nocase(raw, name))
            return &names[i];
        if (is_beginning && raw.len > name.len && str_eq_nocase((struct str){raw.ptr, name.len}, name))
            begins = &names[i];
    }
    return begins;
}

bool gpu_identify(struct str raw, struct str form, uint64_t vram_bytes, struct gpu_identity *ret)
{
    *ret = (struct gpu_identity){.name = ""};
    raw = str_trim(raw);
    if (raw.len == 0 || raw.len > GPU_RAW_MAX)
        return false;
    const struct gpu_raw_name *known = raw_name_of(raw);
    char lower[GPU_RAW_MAX];
    for (size_t i = 0; i < raw.len; i++)
        lower[i] = raw.ptr[i] >= 'A' && raw.ptr[i] <= 'Z' ? (char)(raw.ptr[i] | 0x20) : raw.ptr[i];
    struct str name = known ? str_of(known->name) : (struct str){lower, raw.len};
    uint32_t ppm = known ? known->fraction_ppm : GPU_WHOLE_PPM;
    size_t rows;
    const struct catalogue_row *built_in = catalogue_built_in(&rows);
    for (size_t i = 0; i < rows; i++) {
        const struct gpu_class *class = &built_in[i].class;
        struct candidate row;
        struct str model = name; /* all before the memory */
        while (model.len && model.ptr[model.len - 1] != '-')
            model.len--;
        if (!str_eq(str_of(class->name), name))
            continue;
        (void)is_row_of(class, (struct str){model.ptr, model.len ? model.len - 1 : name.len}, &row);
        ret->is_slice = ppm != GPU_WHOLE_PPM;
        if (class->has_floor && !ret->is_slice && !fits_memory(&row, (double)vram_bytes / GIB))
            return false;
        fill(class, ppm, ret);
        return true;
    }
    return identify_words(raw, form_of(form), vram_bytes, ret);
}
