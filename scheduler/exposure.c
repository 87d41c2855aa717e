#include "scheduler/exposure.h"

#include <math.h>

#define CALLS_PER_HOUR 6 /* of ten minutes */
#define CHECK_MIN 0.01
#define CHECK_MAX 0.3

int64_t exposure_earned_usd_nano(int64_t earned_usd_nano, int64_t at_ms, int64_t now_ms)
{
    if (earned_usd_nano <= 0)
        return 0;
    if (now_ms <= at_ms)
        return earned_usd_nano;
    /* Rounded down; past 2^53 the product might be a little more than all. */
    double kept = (double)earned_usd_nano * exp2(-((double)now_ms - (double)at_ms) / (double)EXPOSURE_HALF_LIFE_MS);
    return kept < (double)earned_usd_nano ? (int64_t)kept : earned_usd_nano;
}

int64_t exposure_cap_usd_nano(int64_t start_usd_nano, int64_t earned_usd_nano)
{
    int64_t start = start_usd_nano > 0 ? start_usd_nano : 0, half = earned_usd_nano > 0 ? earned_usd_nano / 2 : 0;
    return start > INT64_MAX - half ? INT64_MAX : start + half;
}

int64_t exposure_call_usd_nano(int64_t price_usd_nano, uint32_t gpus, uint32_t slots)
{
    int64_t each = gpus ? gpus : 1, shared = (slots ? (int64_t)slots : 1) * CALLS_PER_HOUR;
    if (price_usd_nano <= 0)
        return 0;
    return price_usd_nano > INT64_MAX / each ? INT64_MAX / shared : price_usd_nano * each / shared;
}

uint32_t exposure_calls(int64_t cap_usd_nano, int64_t call_usd_nano)
{
    if (call_usd_nano <= 0)
        return EXPOSURE_ANY;
    int64_t within = cap_usd_nano > 0 ? cap_usd_nano / call_usd_nano : 0;
    return within < EXPOSURE_ANY ? (uint32_t)within + 1 : EXPOSURE_ANY;
}

double exposure_check_probability(int64_t gain_usd_nano, int64_t penalty_usd_nano)
{
    double gain = gain_usd_nano > 0 ? (double)gain_usd_nano : 0, penalty = (double)penalty_usd_nano;
    if (penalty_usd_nano <= 0)
        return CHECK_MAX;
    double probability = gain / (gain + penalty);
    return probability < CHECK_MIN ? CHECK_MIN : probability < CHECK_MAX ? probability : CHECK_MAX;
}
