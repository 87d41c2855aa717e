#include "scheduler/supply.h"

#include "core/id.h"

#include <stdio.h>
#include <string.h>

#define LEASE_PREFIX "lse_"
#define LEASE_DIGITS 26

#define NAME_OF(code, text) [code] = text,
static const char *const error_names[] = {SUPPLY_ERROR_MAP(NAME_OF)};
static const char *const state_names[] = {INSTANCE_STATE_MAP(NAME_OF)};

const char *supply_error_name(enum supply_error error)
{
    return (unsigned)error < SUPPLY_ERROR_COUNT ? error_names[error] : "unknown";
}

bool supply_error_of(struct str name, enum supply_error *ret)
{
    for (unsigned i = 0; i < SUPPLY_ERROR_COUNT; i++) {
        if (str_eq(name, str_of(error_names[i]))) {
            *ret = (enum supply_error)i;
            return true;
        }
    }
    return false;
}

bool supply_error_is_suppliers(enum supply_error error)
{
    return error == SUPPLY_BOOT_TIMEOUT || error == SUPPLY_PROBE_FAILED || error == SUPPLY_FAILED ||
           error == SUPPLY_LOST;
}

const char *instance_state_name(enum instance_state state)
{
    return (unsigned)state < INSTANCE_STATE_COUNT ? state_names[state] : "unknown";
}

static bool is_installation(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!((text.ptr[i] >= '0' && text.ptr[i] <= '9') || (text.ptr[i] >= 'a' && text.ptr[i] <= 'f')))
            return false;
    }
    return text.len == SUPPLY_INSTALLATION_MAX - 2;
}

bool supply_tag_make(struct str installation, struct str lease_id, uint32_t attempt, char ret[static SUPPLY_TAG_MAX])
{
    struct id id;
    if (!is_installation(installation) || !id_parse(LEASE_PREFIX, lease_id, &id) || attempt == 0)
        return false;
    snprintf(ret, SUPPLY_TAG_MAX, "sluice-%.*s-%.*s-%u", (int)installation.len, installation.ptr, LEASE_DIGITS,
             lease_id.ptr + strlen(LEASE_PREFIX), attempt);
    return true;
}

bool supply_tag_parse(struct str installation, struct str tag, char *ret_lease_id, uint32_t *ret_attempt)
{
    char lease_id[ID_TEXT_MAX], again[SUPPLY_TAG_MAX];
    struct str rest = tag;
    struct str sluice = str_next(&rest, '-'), ours = str_next(&rest, '-'), digits = str_next(&rest, '-');
    int64_t attempt = 0;
    if (!str_eq(sluice, STR("sluice")) || !str_eq(ours, installation) || digits.len != LEASE_DIGITS ||
        !str_to_i64(rest, &attempt) || attempt < 1 || attempt > UINT32_MAX)
        return false;
    snprintf(lease_id, sizeof(lease_id), LEASE_PREFIX "%.*s", LEASE_DIGITS, digits.ptr);
    /* Only what supply_tag_make writes: no zeros in front, no other digits. */
    if (!supply_tag_make(installation, str_of(lease_id), (uint32_t)attempt, again) || !str_eq(tag, str_of(again)))
        return false;
    memcpy(ret_lease_id, lease_id, sizeof(lease_id));
    *ret_attempt = (uint32_t)attempt;
    return true;
}
