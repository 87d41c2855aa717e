/* All answers were right; now the times say what the device is. */
#include "probes/verify_priv.h"

#include <math.h>
#include <string.h>

#define VRAM_TOLERANCE 0.07 /* of what drivers say of one model */

static void conclude(struct verify_session *session, const struct gpu_class *class, double ratio)
{
    struct verify_report *report = &session->report;
    report->proven_class = class;
    report->ratio = ratio;
    report->credit = class && !class->has_floor ? 1 : proven_credit(ratio);
    report->performance = class ? proven_performance(class, &report->proven) : 1;
    report->result = VERIFY_PASSED;
    if ((class ? class->has_floor : session->options.purpose == VERIFY_LEASE) && ratio < PROBE_FLOOR)
        verify_fail(session, VERIFY_SLOW, "%.0f %% of the rates of %s", ratio * 100, class ? class->name : "its own");
}

/* Classes that rates cannot tell apart: the claimed one stands if the device does all that it should, and no more. */
static bool is_as_claimed(const struct verify_report *report)
{
    const struct gpu_class *class = report->claimed;
    if (!class)
        return false;
    const double ratio = proven_ratio(class, &report->proven);
    return ratio >= PROBE_FULL && ratio <= PROBE_ABOVE &&
           fabs(report->proven.vram_gib / VERIFY_FILL_SHARE - class->vram_gib) <= VRAM_TOLERANCE * class->vram_gib;
}

/* The numbers decide, never a name. */
static void judge_admission(struct verify_session *session)
{
    struct verify_report *report = &session->report;
    const struct gpu_class *class = report->claimed;
    if (session->is_cpu || (class && !class->has_floor))
        class = session->is_cpu ? catalogue_find(session->options.catalogue, STR("cpu")) : class;
    else if (!is_as_claimed(report))
        class = catalogue_classify(session->options.catalogue, &report->proven, NULL);
    if (class)
        conclude(session, class, proven_ratio(class, &report->proven));
    else
        verify_fail(session, VERIFY_SLOW, "no class has such rates");
}

/* A frame is sent when the one before it was answered, so that from afar no network would reach the floor: it is what a
 * network at the floor shows over that round trip. Pings held back buy a lower floor, never a higher rate, and work
 * that is longer by twenty times as much. */
static double net_floor_mbps(const struct verify_session *session)
{
    const double floor_mbps = session->sizes->net_floor_mbps, frame_us = (double)PROBE_FRAME_MAX * 8 / floor_mbps;
    return floor_mbps * frame_us / (frame_us + (double)session->report.rtt_ns / 1e3);
}

static bool is_net_too_slow(struct verify_session *session)
{
    const struct verify_report *report = &session->report;
    const double floor_mbps = net_floor_mbps(session);
    for (unsigned i = 0; i < report->step_count; i++) {
        const struct verify_step_report *step = &report->steps[i];
        if (strcmp(step->kind, "net") == 0 && step->rate < floor_mbps) {
            verify_fail(session, VERIFY_SLOW, "the network carries %.0f of %.0f Mb/s", step->rate, floor_mbps);
            return true;
        }
    }
    return false;
}

void verify_judge(struct verify_session *session)
{
    struct verify_report *report = &session->report;
    const struct gpu_class *class = report->claimed;
    switch (session->options.purpose) {
    case VERIFY_ADMISSION:
        judge_admission(session);
        if (report->result == VERIFY_PASSED && session->sizes->net_floor_mbps > 0 && is_net_too_slow(session))
            return;
        break;
    case VERIFY_SPOT: /* what it was admitted as, or else the nearest */
        if (!class)
            class = catalogue_classify(session->options.catalogue, &report->proven, NULL);
        conclude(session, class, class ? proven_ratio(class, &report->proven) : 1);
        break;
    case VERIFY_LEASE: { /* against itself: what runs beside it takes its share */
        const double before = session->options.self.chain_tops;
        conclude(session, class, before > 0 ? report->proven.chain_tops / before : 1);
        break;
    }
    }
}
