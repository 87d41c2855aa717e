#include "gateway/worker_declare.h"

#include "core/money.h"

#include <inttypes.h>
#include <string.h>

#define TAG_MAX 32
#define GIB_MAX 4096

static bool is_lower(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(struct str text, bool allow_upper)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_upper = allow_upper && c >= 'A' && c <= 'Z';
        if (!is_lower(c) && !is_upper && !(i > 0 && (c == '-' || c == '_' || c == '.')))
            return false;
    }
    return text.len > 0;
}

bool worker_gpu_is_canonical(struct str gpu)
{
    struct str rest = gpu, vendor = str_next(&rest, '/');
    if (str_eq(gpu, STR("cpu")))
        return true;
    if (!rest.ptr || !is_word(vendor, false) || !is_word(rest, false) || memchr(vendor.ptr, '.', vendor.len))
        return false;
    return is_lower(rest.ptr[rest.len - 1]) && !memchr(rest.ptr, '_', rest.len);
}

uint64_t worker_gpu_vram(struct str gpu)
{
    size_t at = gpu.len;
    int64_t gib;
    while (at > 0 && gpu.ptr[at - 1] != '-')
        at--;
    struct str last = {gpu.ptr + at, gpu.len - at};
    if (at == 0 || !str_to_i64(last, &gib) || gib < 1 || gib > GIB_MAX)
        return 0;
    return (uint64_t)gib << 30;
}

/* -- fields ------------------------------------------------------------------------------------------------------ */

static struct str text_of(const json_t *value)
{
    return (struct str){json_string_value(value), json_string_length(value)};
}

/* Free text of one line. Absent: `otherwise`. */
static bool take_line(const json_t *body, const char *name, const char *otherwise, char *ret, size_t size,
                      struct api_error *error)
{
    const json_t *value = json_object_get(body, name);
    struct str text = value ? text_of(value) : str_of(otherwise);
    bool is_good = text.ptr && str_copy(ret, size, text);
    for (size_t i = 0; is_good && i < text.len; i++)
        is_good = (unsigned char)text.ptr[i] >= 0x20 && text.ptr[i] != 0x7f;
    if (!is_good)
        api_error_bad_request(error, name, "%s must be a string of at most %zu bytes without control characters.", name,
                              size - 1);
    return is_good;
}

static bool take_count(const json_t *body, const char *name, uint32_t max, uint32_t *ret, struct api_error *error)
{
    const json_t *value = json_object_get(body, name);
    json_int_t count = value ? json_integer_value(value) : 1;
    if ((value && !json_is_integer(value)) || count < 1 || count > max) {
        api_error_bad_request(error, name, "%s must be a whole number from 1 to %" PRIu32 ".", name, max);
        return false;
    }
    *ret = (uint32_t)count;
    return true;
}

static bool take_price(const json_t *body, int64_t *ret, struct api_error *error)
{
    static const char name[] = "price_per_gpu_hour_usd";
    struct str text = text_of(json_object_get(body, name));
    if (!text.ptr || !money_parse(text, ret) || *ret > DECLARED_PRICE_MAX_USD_NANO) {
        api_error_bad_request(error, name,
                              "%s must be an amount in US dollars as a string, such as \"1.20\", of at "
                              "most 10000.",
                              name);
        return false;
    }
    return true;
}

static bool take_gpu(const json_t *body, struct worker_record *ret, struct api_error *error)
{
    struct str gpu = text_of(json_object_get(body, "gpu"));
    if (!gpu.ptr || !worker_gpu_is_canonical(gpu) || !str_copy(ret->gpu, sizeof(ret->gpu), gpu)) {
        api_error_bad_request(error, "gpu",
                              "gpu must be \"cpu\" or a name such as \"nvidia/h100-sxm-80\": "
                              "vendor/model[-form][-memory] in lower case, at most %zu bytes.",
                              sizeof(ret->gpu) - 1);
        return false;
    }
    ret->vram_bytes = worker_gpu_vram(gpu);
    return take_line(body, "gpu_raw", ret->gpu, ret->gpu_raw, sizeof(ret->gpu_raw), error);
}

static bool take_region(const json_t *body, struct worker_record *ret, struct api_error *error)
{
    const json_t *value = json_object_get(body, "region");
    struct str region = value ? text_of(value) : STR("");
    if (!region.ptr || (region.len > 0 && !is_word(region, true)) ||
        !str_copy(ret->region, sizeof(ret->region), region)) {
        api_error_bad_request(error, "region", "region must have at most %zu letters, digits, '-', '_' and '.'.",
                              sizeof(ret->region) - 1);
        return false;
    }
    return true;
}

static bool take_tags(const json_t *body, struct worker_record *ret, struct api_error *error)
{
    const json_t *tags = json_object_get(body, "tags");
    struct buf text;
    buf_init(&text, sizeof(ret->tags));
    bool is_good = !tags || (json_is_array(tags) && json_array_size(tags) <= DECLARED_TAGS_MAX);
    for (size_t i = 0; is_good && i < json_array_size(tags); i++) {
        struct str tag = text_of(json_array_get(tags, i));
        is_good = tag.ptr && tag.len <= TAG_MAX && is_word(tag, true) && (i == 0 || buf_append(&text, ",", 1)) &&
                  buf_append_str(&text, tag);
    }
    is_good = is_good && str_copy(ret->tags, sizeof(ret->tags), buf_str(&text));
    buf_free(&text);
    if (!is_good)
        api_error_bad_request(error, "tags",
                              "tags must be a list of at most %d words of letters, digits, '-', '_' and '.', each of "
                              "at most %d bytes, together at most %zu.",
                              DECLARED_TAGS_MAX, TAG_MAX, sizeof(ret->tags) - 1);
    return is_good;
}

bool worker_declare(const json_t *body, struct worker_record *ret, struct api_error *error)
{
    return take_line(body, "name", "worker", ret->name, sizeof(ret->name), error) && take_gpu(body, ret, error) &&
           take_region(body, ret, error) && take_tags(body, ret, error) &&
           take_count(body, "gpus", DECLARED_GPUS_MAX, &ret->gpus, error) &&
           take_count(body, "slots", DECLARED_SLOTS_MAX, &ret->slots, error) &&
           take_price(body, &ret->price_usd_nano, error);
}

bool worker_redeclared(const struct worker_record *old, const struct worker_record *declared,
                       struct admission *ret_admission)
{
    bool is_same = !strcmp(old->gpu, declared->gpu) && old->gpus == declared->gpus;
    if (is_same || old->admission.state == ADMISSION_SUSPENDED)
        return false;
    *ret_admission = old->admission;
    ret_admission->state = ADMISSION_ENROLLED;
    ret_admission->reason[0] = '\0';
    ret_admission->next_probe_at_ms = 0;
    ret_admission->next_purpose = VERIFY_ADMISSION; /* another machine, for all that is known */
    ret_admission->token++;
    return true;
}
