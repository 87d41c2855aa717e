/* Snapshots: built from the registry and the keyring, and handed to every reactor. */
#include "gateway/control_priv.h"
#include "gateway/networks.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>

#define BUILD_EVERY_NS (50 * NS_PER_MS)
#define UNHURRIED_NS (3 * NS_PER_S)

struct adoption {
    struct reactor *reactor;
    struct snapshot *snapshot; /* a reference */
};

static void on_adoption(void *arg)
{
    struct adoption *adoption = arg;
    reactor_adopt(adoption->reactor, adoption->snapshot);
    free(adoption);
}

static enum error market_rebuild(struct control *control)
{
    size_t count = registry_count(control->registry);
    struct market *market = NULL;
    struct offer *offers = calloc(count ? count : 1, sizeof(*offers));
    if (!offers)
        return ERR_NO_MEMORY;
    count = registry_offers(control->registry, control->settings, loop_now(control->loop), clock_wall_ms(), offers);
    enum error error = market_build(offers, count, control->aliases, control->settings->aliases.count, &market);
    free(offers);
    if (error)
        return error;
    market_unref(control->market);
    control->market = market;
    control->is_market_due = false;
    return ERR_NONE;
}

/* All reactors or, without memory, some: then it is done again. */
static enum error hand_out(struct control *control)
{
    struct snapshot *snapshot = snapshot_new(market_ref(control->market), networks_market(control->networks),
                                             keyring_ref(control->keyring), true);
    enum error error = snapshot ? ERR_NONE : ERR_NO_MEMORY;
    for (size_t i = 0; error == ERR_NONE && i < control->gateway->reactor_count; i++) {
        struct reactor *reactor = control->gateway->reactors[i];
        struct adoption *adoption = malloc(sizeof(*adoption));
        if (!adoption) {
            error = ERR_NO_MEMORY;
            break;
        }
        *adoption = (struct adoption){reactor, snapshot_ref(snapshot)};
        error = loop_post(reactor->loop, on_adoption, adoption);
        if (error) {
            snapshot_unref(snapshot);
            free(adoption);
        }
    }
    snapshot_unref(snapshot);
    return error;
}

static void on_publish(struct timer *timer)
{
    struct control *control = container_of(timer, struct control, publish);
    enum error error = ERR_NONE;
    if (control->is_shut || !control->has_workers || !control->keyring)
        return; /* whoever completes these asks again */
    control->built_ns = loop_now(control->loop);
    if (control->is_market_due || !control->market)
        error = market_rebuild(control);
    if (error == ERR_NONE)
        error = hand_out(control);
    if (error == ERR_NONE) {
        if (!atomic_exchange(&control->is_published, true))
            log_info(NULL, "ready: %zu workers, %zu keys", registry_count(control->registry),
                     keyring_count(control->keyring));
        return;
    }
    log_error(NULL, "cannot publish a snapshot: %s", error_text(error));
    timer_set(control->loop, timer, control->built_ns + NS_PER_S);
}

static void publish_by(struct control *control, int64_t due_ns)
{
    if (!timer_is_set(&control->publish) || control->publish.due_ns > due_ns)
        timer_set(control->loop, &control->publish, due_ns);
}

void control_publish_init(struct control *control)
{
    control->publish.on_due = on_publish;
}

void control_market_changed(struct control *control, bool is_urgent)
{
    int64_t due_ns = control->built_ns + (is_urgent ? BUILD_EVERY_NS : UNHURRIED_NS);
    int64_t now_ns = loop_now(control->loop);
    control->is_market_due = true;
    publish_by(control, due_ns > now_ns ? due_ns : now_ns);
}

void control_foreign_changed(struct control *control)
{
    int64_t now_ns = loop_now(control->loop), due_ns = control->built_ns + BUILD_EVERY_NS;
    publish_by(control, due_ns > now_ns ? due_ns : now_ns);
}

void control_market_check(struct control *control, struct registry_entry *entry)
{
    bool serves = registry_serves(entry, control->settings->probes.admission, loop_now(control->loop));
    if (serves != entry->was_served)
        control_market_changed(control, true);
    control_models_sync(control, entry);
}

void control_keyring_changed(void *ctx, struct keyring *keyring)
{
    struct control *control = ctx;
    int64_t now_ns = loop_now(control->loop), due_ns = control->built_ns + BUILD_EVERY_NS;
    keyring_unref(control->keyring);
    control->keyring = keyring;
    publish_by(control, due_ns > now_ns ? due_ns : now_ns);
}
