/* How much value a worker may have in flight, and how often its answers are checked. Pure arithmetic on USD nano; these
 * figures bound risk, no money moves by them. */
#ifndef SLUICE_SCHEDULER_EXPOSURE_H
#define SLUICE_SCHEDULER_EXPOSURE_H

#include "core/error.h"

#include <stdint.h>

#define EXPOSURE_HALF_LIFE_MS (INT64_C(7) * 24 * 3600 * 1000) /* of earnings */
#define EXPOSURE_ANY UINT32_MAX                               /* calls at once: no bound */

/* Earnings as of now. */
int64_t exposure_earned_usd_nano(int64_t earned_usd_nano, int64_t at_ms, int64_t now_ms);
/* E0 + half of the decayed earnings; saturates. */
int64_t exposure_cap_usd_nano(int64_t start_usd_nano, int64_t earned_usd_nano);
/* What a call may cost: ten minutes of its share of the machine. */
int64_t exposure_call_usd_nano(int64_t price_usd_nano, uint32_t gpus, uint32_t slots);
/* How many calls it may have at once: with n in flight it is given another while n times a call's value is within the
 * cap, so that it always may have one. EXPOSURE_ANY when calls cost nothing. */
uint32_t exposure_calls(int64_t cap_usd_nano, int64_t call_usd_nano);

/* The probability of checking an answer that makes cheating not pay (proof of sampling): p * penalty >= (1 - p) * gain,
 * so p >= gain / (gain + penalty); within [0.01, 0.3]. Nothing to lose (penalty <= 0): 0.3. */
double exposure_check_probability(int64_t gain_usd_nano, int64_t penalty_usd_nano);

#endif
