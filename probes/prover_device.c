/* Per device: a lock for the backend, and what it holds that may still be opened. A thread that changes a device's
 * state holds the device's lock and the prover's; either suffices to look. The prover's lock is held for moments only,
 * the device's for as long as a challenge takes, so nothing but that device's work ever waits for a device. */
#include "core/clock.h"
#include "probes/prover_priv.h"

#include <string.h>

#define SESSION_NS (30 * NS_PER_S) /* without a question of its owner's, a device is anybody's again */

void prover_fail(struct reply *reply, enum probe_failure code, struct str text)
{
    memset(&reply->frame, 0, sizeof(reply->frame));
    reply->frame.type = PROBE_ERROR;
    reply->frame.of.error = (struct probe_error_frame){code, text};
}

static void text_make_printable(char *text, size_t size)
{
    size_t len = strnlen(text, size - 1);
    for (size_t i = 0; i < len; i++)
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    memset(text + len, 0, size - len);
}

void device_look(struct prover *prover, struct device *device)
{
    struct probe_claim claim;
    memset(&claim, 0, sizeof(claim));
    prover->ops->claim(device->backend, &claim);
    text_make_printable(claim.name, sizeof(claim.name));
    text_make_printable(claim.driver, sizeof(claim.driver));
    pthread_mutex_lock(&prover->lock);
    device->claim = claim;
    pthread_mutex_unlock(&prover->lock);
}

void device_forget(struct prover *prover, struct device *device, enum probe_kind kind)
{
    pthread_mutex_lock(&prover->lock);
    device->held[kind].is_open = false;
    pthread_mutex_unlock(&prover->lock);
}

void device_forget_all(struct prover *prover, struct device *device)
{
    for (unsigned kind = PROBE_KIND_FILL; kind < KINDS; kind++)
        device_forget(prover, device, (enum probe_kind)kind);
    device->tiles = 0;
}

void device_give(struct prover *prover, struct device *device, bool is_released)
{
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_lock(&prover->lock);
    device->is_at_work = false;
    device->owned_until_ns = is_released ? 0 : clock_mono_ns() + SESSION_NS;
    pthread_mutex_unlock(&prover->lock);
}

struct device *device_take(struct prover *prover, uint32_t index, struct reply *reply)
{
    if (index >= prover->device_count) {
        prover_fail(reply, PROBE_FAILURE_UNKNOWN, STR("no such device"));
        return NULL;
    }
    struct device *device = &prover->devices[index];
    pthread_mutex_lock(&prover->lock);
    bool is_anothers = device->owner != reply->asker && clock_mono_ns() < device->owned_until_ns;
    bool is_free = !device->is_at_work && !is_anothers;
    if (is_free) {
        device->is_at_work = true;
        device->owner = reply->asker;
    }
    pthread_mutex_unlock(&prover->lock);
    if (!is_free) {
        prover_fail(reply, PROBE_FAILURE_BUSY, STR("the device is at work"));
        return NULL;
    }
    pthread_mutex_lock(&device->lock);
    if (!device->backend && prover->ops->open(index, &device->backend) != ERR_NONE) {
        device->backend = NULL;
        device_give(prover, device, true);
        pthread_mutex_lock(&prover->lock);
        prover->is_broken = true;
        pthread_mutex_unlock(&prover->lock);
        prover_fail(reply, PROBE_FAILURE_DEVICE, STR("the device cannot be opened"));
        return NULL;
    }
    return device;
}

void device_failed(struct prover *prover, struct device *device, enum error error, struct reply *reply)
{
    if (error == ERR_NO_MEMORY || error == ERR_TOO_LARGE) {
        prover_fail(reply, PROBE_FAILURE_NO_MEMORY, STR("it does not fit into memory now"));
    } else if (error == ERR_NOT_FOUND || error == ERR_BAD_INPUT) {
        prover_fail(reply, PROBE_FAILURE_UNKNOWN, STR("the device holds no such thing"));
    } else {
        prover_fail(reply, PROBE_FAILURE_DEVICE, STR("the device failed"));
        device->backend = prover->ops->close(device->backend);
        device_forget_all(prover, device);
    }
}

bool prover_holds(struct prover *prover, const uint8_t *id, unsigned *ret_device, enum probe_kind *ret_kind)
{
    bool is_held = false;
    pthread_mutex_lock(&prover->lock);
    for (unsigned i = 0; i < prover->device_count && !is_held; i++)
        for (unsigned kind = PROBE_KIND_FILL; kind < KINDS && !is_held; kind++) {
            const struct held *held = &prover->devices[i].held[kind];
            if (!held->is_open || memcmp(held->id, id, PROBE_ID_BYTES) != 0)
                continue;
            is_held = true;
            *ret_device = i;
            *ret_kind = (enum probe_kind)kind;
        }
    pthread_mutex_unlock(&prover->lock);
    return is_held;
}

bool prover_is_broken(struct prover *prover)
{
    pthread_mutex_lock(&prover->lock);
    bool is_broken = prover->is_broken;
    pthread_mutex_unlock(&prover->lock);
    return is_broken;
}
