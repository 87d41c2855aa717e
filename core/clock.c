#include "core/clock.h"

#include <time.h>

#define DAY_MS INT64_C(86400000)
#define LAST_MS INT64_C(253402300799999) /* the end of the year 9999, the last that four digits hold */

int64_t clock_mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct tm date_of(int64_t wall_ms)
{
    int64_t clamped = wall_ms < 0 ? 0 : wall_ms > LAST_MS ? LAST_MS : wall_ms;
    time_t seconds = (time_t)(clamped / 1000);
    struct tm date;
    gmtime_r(&seconds, &date);
    return date;
}

static void put_digits(char *to, int value, int digits)
{
    while (digits-- > 0) {
        to[digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

void clock_day(int64_t wall_ms, char ret[static 11])
{
    struct tm date = date_of(wall_ms);
    clock_month(wall_ms, ret);
    ret[7] = '-';
    put_digits(ret + 8, date.tm_mday, 2);
    ret[10] = '\0';
}

void clock_month(int64_t wall_ms, char ret[static 8])
{
    struct tm date = date_of(wall_ms);
    put_digits(ret, date.tm_year + 1900, 4);
    ret[4] = '-';
    put_digits(ret + 5, date.tm_mon + 1, 2);
    ret[7] = '\0';
}

int64_t clock_day_start(int64_t wall_ms)
{
    int64_t in_day = wall_ms % DAY_MS;
    return wall_ms - (in_day < 0 ? in_day + DAY_MS : in_day);
}

int64_t clock_month_start(int64_t wall_ms)
{
    struct tm date = date_of(wall_ms);
    struct tm first = {.tm_year = date.tm_year, .tm_mon = date.tm_mon, .tm_mday = 1};
    return (int64_t)timegm(&first) * 1000;
}
