/* The inside of the Nosana adapter: nosana.c and nosana_offers.c. */
#ifndef SLUICE_ADAPTERS_NOSANA_H
#define SLUICE_ADAPTERS_NOSANA_H

#include "adapters/adapter.h"

#define NOSANA_ROWS_MAX 20000 /* markets, or deployments of a listing */

void nosana_offers(struct adapter_call *call);
/* The market of that address in the answer to /markets, or NULL. */
const json_t *nosana_market(const json_t *markets, struct str address);
/* Of all GPUs of a machine, with Nosana's fee; without an amount where the market is closed to us, or market is NULL.
 */
struct price_terms nosana_price(struct adapter_call *call, const json_t *market);

#endif
