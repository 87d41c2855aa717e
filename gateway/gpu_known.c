#include "gateway/gpu_known.h"

#include "core/config.h"
#include "probes/catalogue.h"
#include "scheduler/gpu_name.h"

#include <stdio.h>
#include <string.h>

#define WORD_MAX 40

/* Lower case letters and digits alone, cut where there is no more room. */
static size_t squeeze(struct str from, char to[static WORD_MAX])
{
    size_t len = 0;
    for (size_t i = 0; i < from.len && len < WORD_MAX; i++) {
        char c = from.ptr[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c | 0x20);
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
            to[len++] = c;
    }
    return len;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Letters to insert, take out or change to make one of the other. */
static unsigned edits(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[WORD_MAX + 1];
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 0; i < a_len; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < b_len; j++) {
            unsigned change = corner + (a[i] != b[j]);
            corner = row[j + 1];
            row[j + 1] = least(change, least(row[j], row[j + 1]) + 1);
        }
    }
    return row[b_len];
}

/* Vendor, form and memory may be left out: the least over the whole name and over what begins at the model. */
static unsigned distance(const char *said, size_t said_len, struct str canonical)
{
    char word[WORD_MAX];
    struct str model = canonical;
    unsigned best = edits(said, said_len, word, squeeze(canonical, word));
    if (canonical.len && memchr(canonical.ptr, '/', canonical.len))
        (void)str_next(&model, '/');
    for (size_t end = 1; end <= model.len; end++)
        if (end == model.len || model.ptr[end] == '-')
            best = least(best, edits(said, said_len, word, squeeze((struct str){model.ptr, end}, word)));
    return best;
}

struct near_name {
    const char *name;
    unsigned distance;
};

static void keep_nearest(struct near_name near[static GPU_NEAR_MAX], size_t *count, struct near_name found)
{
    size_t at = *count;
    while (at > 0 && near[at - 1].distance > found.distance)
        at--;
    if (at == GPU_NEAR_MAX)
        return;
    *count += *count < GPU_NEAR_MAX;
    memmove(&near[at + 1], &near[at], (*count - at - 1) * sizeof(*near));
    near[at] = found;
}

static bool is_known(const struct catalogue *catalogue, struct str said)
{
    for (size_t i = 0; i < catalogue_count(catalogue); i++)
        if (gpu_name_means(said, str_of(catalogue_at(catalogue, i)->name)))
            return true;
    return false;
}

static void tell_nearest(const struct catalogue *catalogue, struct str said, char ret[static GPU_NEAR_TEXT_MAX])
{
    char word[WORD_MAX];
    struct near_name near[GPU_NEAR_MAX];
    size_t count = 0, at = 0, len = squeeze(said, word);
    for (size_t i = 0; i < catalogue_count(catalogue); i++) {
        const char *name = catalogue_at(catalogue, i)->name;
        keep_nearest(near, &count, (struct near_name){name, distance(word, len, str_of(name))});
    }
    ret[0] = '\0';
    for (size_t i = 0; i < count && at < GPU_NEAR_TEXT_MAX; i++)
        at += (size_t)snprintf(ret + at, GPU_NEAR_TEXT_MAX - at, "%s%s", i ? ", " : "", near[i].name);
}

enum error gpu_known(struct str said, char ret_near[static GPU_NEAR_TEXT_MAX])
{
    char why[CONFIG_ERROR_MAX];
    struct catalogue *catalogue = NULL;
    enum error error = catalogue_open(NULL, &catalogue, why);
    if (error)
        return error;
    if (!is_known(catalogue, said)) {
        tell_nearest(catalogue, said, ret_near);
        error = ERR_NOT_FOUND;
    }
    catalogue_free(catalogue);
    return error;
}
