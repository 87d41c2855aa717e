/* What the commands on leases share. */
#ifndef SLUICE_GATEWAY_CLI_LEASE_H
#define SLUICE_GATEWAY_CLI_LEASE_H

#include "gateway/cli/cli.h"

bool lease_row_is_over(const json_t *lease);
const json_t *lease_last_attempt(const json_t *lease); /* NULL: none yet */

#endif
