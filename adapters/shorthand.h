/* What adapters of container networks write in the same words: plain requests, an order's parts as JSON, a price. */
#ifndef SLUICE_ADAPTERS_SHORTHAND_H
#define SLUICE_ADAPTERS_SHORTHAND_H

#include "adapters/adapter.h"

/* Each does nothing for an absent path: the call was failed then. on_answer gets answers of every status. */
void adapter_get(struct adapter_call *call, struct str path, adapter_answer_fn *on_answer);
void adapter_delete(struct adapter_call *call, struct str path, adapter_answer_fn *on_answer);
/* NULL for a body that could not be made: BAD_REQUEST, for then the order held what is not UTF-8. */
void adapter_post(struct adapter_call *call, struct str path, json_t *take_body, bool creates,
                  adapter_answer_fn *on_answer);
void adapter_patch(struct adapter_call *call, struct str path, json_t *take_body, adapter_answer_fn *on_answer);
bool adapter_is_good(const struct adapter_answer *answer); /* 2xx */
/* An on_answer: ends the call well on 2xx, else by the answer. */
void adapter_done_if_good(struct adapter_call *call, const struct adapter_answer *answer);
/* By the answer where it tells of an error; one that does not hold what it should: TRANSIENT, why. */
void adapter_fail_odd(struct adapter_call *call, const struct adapter_answer *answer, struct str why);

/* Offers, handed out some at a time. Their texts live until offer_batch_end. */
struct offer_batch {
    struct adapter_call *call;
    size_t count;
    struct adapter_offer rows[64];
};
void offer_batch_put(struct offer_batch *batch, const struct adapter_offer *offer);
void offer_batch_end(struct offer_batch *batch);

/* New references; NULL: not UTF-8, or out of memory (json_pack fails on it). */
json_t *json_of_text(struct str text);
json_t *json_of_argv(const struct supply_order *order, size_t from); /* from the from-th on */
/* The order's command in place of the image's own, its entrypoint too: {"entrypoint": [the first], `rest`: [the rest]}
 * are added; nothing where it has none. */
json_t *json_with_command(json_t *take_object, const struct supply_order *order, const char *rest);
json_t *json_of_env(const struct supply_order *order);       /* {"KEY": "value"} */
json_t *json_of_env_pairs(const struct supply_order *order); /* [{"key", "value"}] */

/* adapter_worth for an instance: -1 where there is no price, or 0. */
int64_t adapter_price(struct adapter_call *call, const struct price_terms *terms);
/* Is the network's option `key` given as `value`? */
bool adapter_option_is(const struct adapter_call *call, const char *key, const char *value);

#endif
