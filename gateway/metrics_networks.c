/* The figures of networks. */
#include "gateway/metrics.h"

#include <inttypes.h>

struct figure {
    const char *name, *type, *help;
    size_t offset; /* of an int64_t in struct metrics_network */
};

static bool render_figure(struct buf *to, const struct metrics_extra *extra, const struct figure *figure)
{
    bool fits = buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", figure->name, figure->help, figure->name, figure->type);
    for (size_t i = 0; fits && i < extra->network_count; i++) {
        const struct metrics_network *network = &extra->networks[i];
        int64_t value = *(const int64_t *)(const void *)((const char *)network + figure->offset);
        fits = buf_printf(to, "%s{network=\"%s\"} %" PRId64 "\n", figure->name, network->id, value);
    }
    return fits;
}

static bool render_errors(struct buf *to, const struct metrics_extra *extra)
{
    bool fits = buf_printf(to, "# HELP sluice_network_errors_total Failed calls of networks' APIs, by class.\n"
                               "# TYPE sluice_network_errors_total counter\n");
    for (size_t i = 0; fits && i < extra->network_count; i++) {
        const struct metrics_network *network = &extra->networks[i];
        for (enum supply_error error = SUPPLY_OK + 1; fits && error < SUPPLY_ERROR_COUNT; error++) {
            if (network->errors[error])
                fits = buf_printf(to, "sluice_network_errors_total{network=\"%s\",class=\"%s\"} %" PRId64 "\n",
                                  network->id, supply_error_name(error), network->errors[error]);
        }
    }
    return fits;
}

bool metrics_render_networks(const struct metrics_extra *extra, struct buf *to)
{
    static const struct figure figures[] = {
        {"sluice_offers", "gauge", "Offers of other networks that are known.",
         offsetof(struct metrics_network, offers)},
        {"sluice_network_up", "gauge", "1 while a network answers and its offers are fresh.",
         offsetof(struct metrics_network, is_up)},
        {"sluice_orphans_ended_total", "counter", "Machines that no lease owned and were ended, by all gateways.",
         offsetof(struct metrics_network, orphans_ended)},
        {"sluice_unknown_gpus", "gauge", "Offers of GPUs whose names are not known.",
         offsetof(struct metrics_network, unknown_gpus)}};
    if (extra->network_count == 0)
        return true;
    bool fits = render_errors(to, extra);
    for (size_t i = 0; fits && i < sizeof(figures) / sizeof(*figures); i++)
        fits = render_figure(to, extra, &figures[i]);
    return fits;
}
