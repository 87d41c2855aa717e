#include "gateway/breaker.h"

#include <stdio.h>

const char *breaker_state_name(enum breaker_state state)
{
    static const char *const names[] = {"closed", "open", "half_open"};
    return (unsigned)state < BREAKER_STATES ? names[state] : "?";
}

static void open_it(struct breaker *breaker, enum supply_error error, int64_t retry_after_ms, int64_t now_ms)
{
    int64_t pause_ms = BREAKER_CREDENTIAL_MS;
    if (error != SUPPLY_BAD_CREDENTIAL) {
        pause_ms = BREAKER_LEAST_MS;
        for (unsigned i = 0; i < breaker->rounds && pause_ms < BREAKER_MOST_MS; i++)
            pause_ms *= 2;
        pause_ms = pause_ms < BREAKER_MOST_MS ? pause_ms : BREAKER_MOST_MS;
    }
    if (retry_after_ms > pause_ms)
        pause_ms = retry_after_ms < BREAKER_MOST_MS ? retry_after_ms : BREAKER_MOST_MS;
    breaker->state = BREAKER_OPEN;
    breaker->until_ms = now_ms + pause_ms;
    breaker->reason = error;
    breaker->rounds++;
}

bool breaker_note(struct breaker *breaker, enum supply_error error, int64_t retry_after_ms, int64_t now_ms)
{
    bool is_failure = error == SUPPLY_TRANSIENT || error == SUPPLY_RATE_LIMITED || error == SUPPLY_BAD_CREDENTIAL;
    if (error == SUPPLY_UNKNOWN && breaker->state != BREAKER_HALF_OPEN)
        return false; /* says something of one offer only */
    if (!is_failure && error != SUPPLY_UNKNOWN) {
        bool was_closed = breaker->state == BREAKER_CLOSED;
        *breaker = (struct breaker){.state = BREAKER_CLOSED};
        return !was_closed;
    }
    breaker->failures++;
    if (breaker->state == BREAKER_OPEN && error != SUPPLY_BAD_CREDENTIAL)
        return false; /* asked before it opened */
    if (breaker->state == BREAKER_CLOSED && breaker->failures < BREAKER_FAILURES && error != SUPPLY_BAD_CREDENTIAL)
        return false;
    open_it(breaker, error, retry_after_ms, now_ms);
    return true;
}

bool breaker_try(struct breaker *breaker, int64_t now_ms)
{
    if (breaker->state == BREAKER_OPEN && now_ms >= breaker->until_ms) {
        breaker->state = BREAKER_HALF_OPEN;
        return true;
    }
    return breaker->state == BREAKER_CLOSED;
}

void breaker_text(const struct breaker *breaker, char ret[static BREAKER_TEXT_MAX])
{
    if (breaker->state == BREAKER_CLOSED)
        snprintf(ret, BREAKER_TEXT_MAX, "closed");
    else
        snprintf(ret, BREAKER_TEXT_MAX, "open %lld %u %s", (long long)breaker->until_ms, breaker->rounds,
                 supply_error_name(breaker->reason));
}

bool breaker_parse(struct str text, struct breaker *ret)
{
    struct breaker breaker = {.state = BREAKER_OPEN, .failures = BREAKER_FAILURES};
    int64_t rounds;
    struct str word = str_next(&text, ' ');
    if (str_eq(word, STR("closed")) && !text.ptr) {
        *ret = (struct breaker){.state = BREAKER_CLOSED};
        return true;
    }
    if (!str_eq(word, STR("open")) || !str_to_i64(str_next(&text, ' '), &breaker.until_ms) ||
        !str_to_i64(str_next(&text, ' '), &rounds) || rounds < 0 || rounds > 1000000 ||
        !supply_error_of(str_next(&text, ' '), &breaker.reason))
        return false;
    breaker.rounds = (unsigned)rounds;
    *ret = breaker;
    return true;
}
