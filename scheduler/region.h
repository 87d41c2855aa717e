/* Regions: as each network calls them, and as people ask for them. */
#ifndef SLUICE_SCHEDULER_REGION_H
#define SLUICE_SCHEDULER_REGION_H

#include "core/str.h"

/* Does what somebody asked for mean this place? The region itself, case ignored; the beginning of its name up to a '-'
 * ("eu" means "eu-west-1"); its country ("se"); "eu" the countries of the European Union. region and country may be
 * absent or empty. */
bool region_means(struct str said, struct str region, struct str country);

#endif
