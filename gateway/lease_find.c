/* Looking for what an attempt may have made: one listing of a network serves all leases that asked before it began, for
 * some networks need a request for each thing that runs to tell its tag. */
#include "gateway/lease_drive_priv.h"

#include <stdlib.h>
#include <string.h>

/* The listing of one network. */
struct find {
    struct lease_driver *driver;
    char network[NETWORK_ID_MAX];
    struct adapter_call *call;    /* NULL: none under way */
    struct drive *asking, *later; /* those it serves, and those that came since it began */
    struct task begin;
    struct find *next;
};

static void list_add(struct drive **list, struct drive *drive)
{
    drive->find_next = *list;
    drive->find_link = list;
    if (drive->find_next)
        drive->find_next->find_link = &drive->find_next;
    *list = drive;
}

void drive_find_leave(struct drive *drive)
{
    if (!drive->find_link)
        return;
    *drive->find_link = drive->find_next;
    if (drive->find_next)
        drive->find_next->find_link = drive->find_link;
    drive->find_next = NULL;
    drive->find_link = NULL;
}

static void on_listed(void *ctx, const struct supply_instance *instances, size_t count)
{
    struct find *find = ctx;
    for (size_t i = 0; i < count; i++) {
        /* One that is there in whatever state must be ended; of several the first one that is not gone counts. */
        if (instances[i].state == INSTANCE_GONE)
            continue;
        for (struct drive *drive = find->asking; drive; drive = drive->find_next) {
            if (drive->is_found || !str_eq(instances[i].tag, str_of(drive_attempt(drive)->tag)))
                continue;
            drive->is_found = str_copy(drive->found, sizeof(drive->found), instances[i].id);
            drive->found_state = instances[i].state;
        }
    }
}

static void tell(struct drive *drive, const struct network_result *result)
{
    if (result->error != SUPPLY_OK) {
        drive_ask_failed(drive, result);
        return;
    }
    const struct supply_instance instance = {.id = str_of(drive->found),
                                             .tag = str_of(drive_attempt(drive)->tag),
                                             .state = drive->found_state,
                                             .price_usd_nano = -1,
                                             .interruptible = -1};
    const struct lease_event event = {.kind = drive->is_found ? LEASE_FOUND : LEASE_FOUND_NOT,
                                      .attempt = drive->action.attempt,
                                      .instance = drive->is_found ? &instance : NULL};
    drive_apply(drive, &event);
}

static void on_end(void *ctx, const struct network_result *result)
{
    struct find *find = ctx;
    find->call = NULL;
    while (find->asking) {
        struct drive *drive = find->asking;
        drive_find_leave(drive);
        tell(drive, result);
    }
    if (find->later)
        loop_defer(find->driver->loop, &find->begin);
}

static void on_begin(struct task *task)
{
    struct find *find = container_of(task, struct find, begin);
    struct network *network = networks_find(find->driver->networks, find->network);
    if (find->call || !find->later || !network)
        return;
    find->asking = find->later;
    find->asking->find_link = &find->asking;
    find->later = NULL;
    find->call = network_list(network, on_listed, on_end, find);
}

static struct find *find_of(struct lease_driver *driver, const char *network)
{
    struct find *find = driver->finds;
    while (find && strcmp(find->network, network) != 0)
        find = find->next;
    if (find || !(find = calloc(1, sizeof(*find))))
        return find;
    find->driver = driver;
    find->begin.run = on_begin;
    (void)!str_copy(find->network, sizeof(find->network), str_of(network));
    find->next = driver->finds;
    driver->finds = find;
    return find;
}

void drive_find(struct drive *drive)
{
    const char *network = drive_attempt(drive)->of.network;
    struct find *find = networks_find(drive->driver->networks, network) ? find_of(drive->driver, network) : NULL;
    drive->is_found = false;
    drive->found[0] = '\0';
    if (!find) {
        drive_put_off(drive, 60000);
        return;
    }
    list_add(&find->later, drive);
    loop_defer(drive->driver->loop, &find->begin);
}

void drive_finds_free(struct lease_driver *driver)
{
    while (driver->finds) {
        struct find *find = driver->finds;
        driver->finds = find->next;
        if (find->call)
            network_cancel(find->call);
        loop_undefer(driver->loop, &find->begin);
        free(find);
    }
}
