/* Clocks. Inside: CLOCK_MONOTONIC nanoseconds (`_ns`). At the border: Unix milliseconds (`_ms`, `_at`). */
#ifndef SLUICE_CORE_CLOCK_H
#define SLUICE_CORE_CLOCK_H

#include <stdint.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

int64_t clock_mono_ns(void); /* now, monotonic */
int64_t clock_wall_ms(void); /* now, Unix milliseconds */
/* "2026-11-21" / "2026-11" of a Unix time, UTC. */
void clock_day(int64_t wall_ms, char ret[static 11]);
void clock_month(int64_t wall_ms, char ret[static 8]);
/* First millisecond of the day / month that holds wall_ms, UTC. */
int64_t clock_day_start(int64_t wall_ms);
int64_t clock_month_start(int64_t wall_ms);

#endif
