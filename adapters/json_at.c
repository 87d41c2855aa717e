/* Members of JSON that nobody vouches for. */
#include "adapters/adapter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_MAX 9007199254740992.0 /* doubles hold whole numbers up to here */
#define MS_FROM 100000000000.0       /* larger numbers are milliseconds: seconds up to the year 5138 */

static const json_t *item_at(const json_t *root, const char **path)
{
    char *end = NULL;
    unsigned long index = strtoul(*path + 1, &end, 10);
    *path = *end == ']' ? end + 1 : end;
    return json_array_get(root, index);
}

const json_t *json_at(const json_t *root, const char *path)
{
    while (root && *path) {
        if (*path == '.')
            path++;
        if (*path == '[') {
            root = item_at(root, &path);
            continue;
        }
        size_t len = strcspn(path, ".[");
        root = json_object_getn(root, path, len);
        path += len;
    }
    return root;
}

struct str json_text_at(const json_t *root, const char *path)
{
    const json_t *value = json_at(root, path);
    return json_is_string(value) ? (struct str){json_string_value(value), json_string_length(value)}
                                 : (struct str){NULL, 0};
}

int64_t json_count_at(const json_t *root, const char *path)
{
    const json_t *value = json_at(root, path);
    if (json_is_integer(value))
        return json_integer_value(value) >= 0 ? (int64_t)json_integer_value(value) : -1;
    double real = json_is_real(value) ? json_real_value(value) : -1;
    return real >= 0 && real <= EXACT_MAX && floor(real) == real ? (int64_t)real : -1;
}

double json_number_at(const json_t *root, const char *path, double otherwise)
{
    const json_t *value = json_at(root, path);
    double number;
    if (json_is_string(value) && str_to_double(json_text_at(root, path), &number))
        return number;
    return json_is_number(value) && isfinite(json_number_value(value)) ? json_number_value(value) : otherwise;
}

bool json_true_at(const json_t *root, const char *path)
{
    return json_is_true(json_at(root, path));
}

struct str json_id_at(struct adapter_call *call, const json_t *root, const char *path)
{
    const json_t *value = json_at(root, path);
    if (json_is_integer(value))
        return adapter_text(call, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    struct str text = json_text_at(root, path);
    return text.len ? adapter_text(call, STR_FMT, STR_ARG(text)) : (struct str){NULL, 0};
}

struct str json_decimal_at(struct adapter_call *call, const json_t *root, const char *path)
{
    char text[PRICE_AMOUNT_MAX];
    const json_t *value = json_at(root, path);
    return value && price_amount_of_json(value, text) ? adapter_text(call, "%s", text) : (struct str){NULL, 0};
}

/* -- times -- */

static bool take_digits(struct str *s, size_t count, int64_t least, int64_t most, int64_t *ret)
{
    if (s->len < count || !str_to_i64((struct str){s->ptr, count}, ret) || *ret < least || *ret > most)
        return false;
    *s = (struct str){s->ptr + count, s->len - count};
    return true;
}

static bool take_char(struct str *s, const char *any)
{
    if (!s->len || !s->ptr[0] || !strchr(any, s->ptr[0]))
        return false;
    *s = (struct str){s->ptr + 1, s->len - 1};
    return true;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
 */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* What is east of UTC, in seconds; a time without a zone is UTC. */
static bool take_zone(struct str *s, int64_t *ret_s)
{
    int64_t hours, minutes;
    *ret_s = 0;
    if (!s->len || take_char(s, "zZ"))
        return !s->len;
    int64_t sign = s->ptr[0] == '-' ? -1 : 1;
    if (!take_char(s, "+-") || !take_digits(s, 2, 0, 23, &hours))
        return false;
    take_char(s, ":");
    if (!take_digits(s, 2, 0, 59, &minutes))
        return false;
    *ret_s = sign * (hours * 3600 + minutes * 60);
    return !s->len;
}

static int64_t time_of_text(struct str s)
{
    int64_t year, month, day, hour, minute, second, zone, ms = 0;
    if (!take_digits(&s, 4, 1970, 9999, &year) || !take_char(&s, "-") || !take_digits(&s, 2, 1, 12, &month) ||
        !take_char(&s, "-") || !take_digits(&s, 2, 1, 31, &day) || !take_char(&s, "Tt ") ||
        !take_digits(&s, 2, 0, 23, &hour) || !take_char(&s, ":") || !take_digits(&s, 2, 0, 59, &minute) ||
        !take_char(&s, ":") || !take_digits(&s, 2, 0, 60, &second))
        return 0;
    if (take_char(&s, ".")) {
        int64_t scale = 100, digit;
        for (; take_digits(&s, 1, 0, 9, &digit); scale /= 10)
            ms += digit * scale;
    }
    if (!take_zone(&s, &zone))
        return 0;
    return (days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone) * 1000 + ms;
}

int64_t json_time_at(const json_t *root, const char *path)
{
    struct str text = json_text_at(root, path);
    double number = json_number_at(root, path, 0);
    if (text.len && number <= 0)
        return time_of_text(text);
    if (number <= 0 || number > EXACT_MAX)
        return 0;
    return (int64_t)(number < MS_FROM ? number * 1000 : number);
}
