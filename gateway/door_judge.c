/* Is it what was sold? Names are vendor/model[-form][-memory]; a proof names the class that its numbers are nearest to.
 */
#include "gateway/door.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define VRAM_SLACK 0.95 /* datasheets, drivers and networks round a GPU's memory differently */

/* Cuts "-<GiB>" off the end; 0: there is none. */
static double cut_memory(struct str *name)
{
    size_t at = name->len;
    int64_t gib;
    while (at > 0 && name->ptr[at - 1] != '-')
        at--;
    if (at == 0 || !str_to_i64((struct str){name->ptr + at, name->len - at}, &gib) || gib < 1 || gib > 1024)
        return 0;
    name->len = at - 1;
    return (double)gib;
}

/* Equal, or the sold one is less exact: any form of h100 is an "h100". */
static bool is_that(struct str sold, struct str proven)
{
    return str_starts(proven, sold) && (proven.len == sold.len || proven.ptr[sold.len] == '-');
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

enum door_verdict door_judge(const struct door_sold *sold, const struct door_view *view, char *ret_text, size_t size)
{
    struct str wanted = sold->gpu, proven = str_of(view->gpu);
    double wanted_gib = larger(cut_memory(&wanted), sold->vram_gib);
    double proven_gib = larger(cut_memory(&proven), larger(view->class_vram_gib, view->vram_gib));
    bool is_cpu = str_eq(wanted, STR("cpu"));
    if (view->stage != DOOR_PROVEN || !view->proven_at_ms) {
        snprintf(ret_text, size, "sold %" PRIu32 " x " STR_FMT ", nothing proven%s%s", sold->gpus, STR_ARG(sold->gpu),
                 view->reason[0] ? ": " : "", view->reason);
        return DOOR_NOTHING;
    }
    const char *what = NULL;
    if (!is_that(wanted, proven))
        what = "another GPU";
    else if (!is_cpu && view->devices < sold->gpus)
        what = "fewer GPUs";
    else if (!is_cpu && proven_gib > 0 && proven_gib < wanted_gib * VRAM_SLACK)
        what = "less memory";
    snprintf(ret_text, size, "sold %" PRIu32 " x " STR_FMT ", proven %" PRIu32 " x %s%s%s", sold->gpus,
             STR_ARG(sold->gpu), view->devices, view->gpu[0] ? view->gpu : "unknown", what ? ": " : "",
             what ? what : "");
    return what ? DOOR_LESS : DOOR_OK;
}
