#include "core/id.h"

#include "core/clock.h"
#include "core/crypto.h"

#include <assert.h>
#include <string.h>

#define ID_DIGITS 26
static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

struct id id_make(void)
{
    static _Thread_local struct id last;
    static _Thread_local int64_t last_ms = -1;
    int64_t now_ms = clock_wall_ms();
    if (now_ms > last_ms) {
        last_ms = now_ms;
        for (int i = 0; i < 6; i++)
            last.bytes[i] = (uint8_t)((uint64_t)now_ms >> (40 - 8 * i));
        crypto_random(last.bytes + 6, 10);
        last.bytes[6] &= 0x7f; /* room to count up */
        return last;
    }
    /* Within the millisecond, or after the clock was set back: the next number. */
    for (int i = 15; i >= 0 && ++last.bytes[i] == 0; i--)
        ;
    return last;
}

void id_text(const char *prefix, const struct id *id, char ret[static ID_TEXT_MAX])
{
    size_t at = strlen(prefix);
    assert(at + ID_DIGITS < ID_TEXT_MAX);
    memcpy(ret, prefix, at);
    unsigned __int128 value = 0;
    for (int i = 0; i < 16; i++)
        value = value << 8 | id->bytes[i];
    for (int i = 0; i < ID_DIGITS; i++)
        ret[at++] = digits[(unsigned)(value >> (5 * (ID_DIGITS - 1 - i))) & 31];
    ret[at] = '\0';
}

void id_new(const char *prefix, char ret[static ID_TEXT_MAX])
{
    struct id id = id_make();
    id_text(prefix, &id, ret);
}

bool id_parse(const char *prefix, struct str text, struct id *ret)
{
    struct str head = str_of(prefix);
    if (text.len != head.len + ID_DIGITS || !str_starts(text, head) || text.ptr[head.len] > '7')
        return false;
    unsigned __int128 value = 0;
    for (size_t i = head.len; i < text.len; i++) {
        const char *digit = text.ptr[i] ? strchr(digits, text.ptr[i]) : NULL;
        if (!digit)
            return false;
        value = value << 5 | (unsigned __int128)(digit - digits);
    }
    for (int i = 0; i < 16; i++)
        ret->bytes[i] = (uint8_t)(value >> (120 - 8 * i));
    return true;
}
