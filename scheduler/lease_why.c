/* Why a lease found no machine, in words. */
#include "scheduler/lease_moves.h"

#include <stdio.h>
#include <string.h>

#define NETWORKS_TOLD 6
#define ANSWER_MAX 90 /* bytes of a network's own words */

static const char *advice(enum supply_error error)
{
    switch (error) {
    case SUPPLY_NO_CAPACITY:
        return "try another GPU or region, later, or with retry_until_up";
    case SUPPLY_QUOTA:
        return "have the account's quota raised there";
    case SUPPLY_NO_FUNDS:
        return "the operator's account there must be topped up";
    case SUPPLY_BAD_REQUEST:
        return "check image, command, ports and disk";
    case SUPPLY_BAD_CREDENTIAL:
        return "the operator must renew the credential there";
    case SUPPLY_PRICE_MOVED:
        return "raise max_price_per_gpu_hour_usd or take a new quote";
    case SUPPLY_BOOT_TIMEOUT:
    case SUPPLY_FAILED:
        return "check that the image exists and starts";
    case SUPPLY_PROBE_FAILED:
        return "another network or GPU may hold what it sells";
    default:
        return "try again later";
    }
}

size_t lease_search_begin(const struct lease *lease)
{
    size_t of_search = lease->attempts_of_search;
    return of_search < lease->attempt_count ? lease->attempt_count - of_search : 0;
}

/* Is it the first attempt of this search at its network? */
static bool is_first(const struct lease *lease, size_t begin, size_t i)
{
    for (size_t k = begin; k < i; k++) {
        if (strcmp(lease->attempts[k].of.network, lease->attempts[i].of.network) == 0)
            return false;
    }
    return true;
}

unsigned lease_refusals(const struct lease *lease)
{
    unsigned count = 0;
    for (size_t begin = lease_search_begin(lease), i = begin; i < lease->attempt_count; i++) {
        bool is_new = lease->attempts[i].error == SUPPLY_BAD_REQUEST;
        for (size_t k = begin; k < i && is_new; k++)
            is_new = lease->attempts[k].error != SUPPLY_BAD_REQUEST ||
                     strcmp(lease->attempts[k].of.network, lease->attempts[i].of.network) != 0;
        count += is_new;
    }
    return count;
}

/* The whole characters of the first most bytes. */
static int cut(const char *text, size_t most)
{
    size_t len = strlen(text);
    if (len > most) {
        len = most;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    return (int)len;
}

/* A network's last answer in this search, and how many there were. */
static bool tell_network(const struct lease *lease, size_t begin, size_t first, struct buf *to)
{
    const struct lease_attempt *last = &lease->attempts[first];
    unsigned count = 0;
    for (size_t i = begin; i < lease->attempt_count; i++) {
        if (strcmp(lease->attempts[i].of.network, last->of.network) == 0) {
            last = &lease->attempts[i];
            count++;
        }
    }
    bool fits = buf_printf(to, "; %s: %s", last->of.network,
                           last->error == SUPPLY_OK ? attempt_state_name(last->state) : supply_error_name(last->error));
    if (count > 1)
        fits = fits && buf_printf(to, " (%u tries)", count);
    if (*last->message)
        fits = fits && buf_printf(to, ", \"%.*s\"", cut(last->message, ANSWER_MAX), last->message);
    return fits;
}

void lease_why_nothing(const struct lease *lease, struct str what, char ret[static SUPPLY_MESSAGE_MAX])
{
    size_t begin = lease_search_begin(lease), told = 0;
    struct buf text;
    enum supply_error last = SUPPLY_NO_CAPACITY;
    buf_init(&text, 4096);
    bool fits = buf_append_str(&text, what);
    for (size_t i = begin; i < lease->attempt_count; i++) {
        if (told < NETWORKS_TOLD && is_first(lease, begin, i)) {
            fits = fits && tell_network(lease, begin, i, &text);
            told++;
        }
        if (last != SUPPLY_BAD_REQUEST && lease->attempts[i].error != SUPPLY_OK)
            last = lease->attempts[i].error;
    }
    const char *what_to_do = advice(last);
    size_t room = SUPPLY_MESSAGE_MAX - 1 - strlen(what_to_do) - 2;
    if (told == 0 && fits && text.len < SUPPLY_MESSAGE_MAX) /* the reason tells by itself what to do */
        snprintf(ret, SUPPLY_MESSAGE_MAX, "%.*s", (int)text.len, text.ptr ? text.ptr : "");
    else if (buf_append(&text, "", 1))
        snprintf(ret, SUPPLY_MESSAGE_MAX, "%.*s; %s", cut(text.ptr, room), text.ptr, what_to_do);
    else
        snprintf(ret, SUPPLY_MESSAGE_MAX, "no machine was found; %s", what_to_do);
    (void)fits; /* out of memory: what fitted is told */
    buf_free(&text);
}
