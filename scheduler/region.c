#include "scheduler/region.h"

#include <string.h>

static bool is_union_country(struct str country)
{
    static const char union_countries[] = "ATBEBGCYCZDEDKEEESFIFRGRHRHUIEITLTLULVMTNLPLPTROSESISK";
    for (size_t i = 0; country.len == 2 && i + 1 < sizeof(union_countries) - 1; i += 2) {
        if (str_eq_nocase(country, (struct str){union_countries + i, 2}))
            return true;
    }
    return false;
}

bool region_means(struct str said, struct str region, struct str country)
{
    if (said.len == 0)
        return false;
    if (region.len >= said.len && str_eq_nocase(said, (struct str){region.ptr, said.len}) &&
        (region.len == said.len || region.ptr[said.len] == '-'))
        return true;
    return country.len &&
           (str_eq_nocase(said, country) || (str_eq_nocase(said, STR("eu")) && is_union_country(country)));
}
