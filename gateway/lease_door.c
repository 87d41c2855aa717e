/* A lease at the door: what its machine starts with, what it has proven, when the tenant's command may run. */
#include "gateway/lease_drive_priv.h"

#include "core/log.h"

#include <stdlib.h>
#include <string.h>

#define LINK_PAUSE_MS 500 /* its worker is not linked here (yet) */
#define STORE_PAUSE_MS 1000
#define GIB_SOLD_UNKNOWN 0

struct lease_terms drive_terms(void *ctx, const char *network)
{
    struct lease_driver *driver = ctx;
    struct lease_terms terms = networks_terms(driver->networks, network);
    const struct network *found = networks_find(driver->networks, network);
    /* A machine needs our worker to start the tenant's image, proven or not. */
    if (found && terms.probe == LEASE_PROBE_OFF && network_adapter(found)->traits & ADAPTER_VM)
        terms.probe = LEASE_PROBE_REPORT;
    return terms;
}

bool drive_has_door(struct drive *drive, const struct lease_attempt *attempt)
{
    return drive_terms(drive->driver, attempt->of.network).probe != LEASE_PROBE_OFF;
}

static bool is_without_probe(struct drive *drive, const struct lease_attempt *attempt)
{
    return networks_terms(drive->driver->networks, attempt->of.network).probe == LEASE_PROBE_OFF;
}

/* -- opening ----------------------------------------------------------------------------------------------------- */

struct opening {
    struct drive *drive;
    void (*send)(struct drive *drive, const struct door_start *start);
};

static void on_opened(void *ctx, enum error error, const struct door_start *start)
{
    struct opening opening = *(struct opening *)ctx;
    free(ctx);
    if (error == ERR_NONE) {
        opening.send(opening.drive, start);
        return;
    }
    /* Nothing was asked of the network. */
    char message[SUPPLY_MESSAGE_MAX];
    snprintf(message, sizeof(message), "the machine's start cannot be made: %s", error_text(error));
    bool is_wrong = error == ERR_BAD_INPUT || error == ERR_TOO_LARGE;
    const struct lease_event event = {.kind = LEASE_CREATE_FAILED,
                                      .attempt = opening.drive->action.attempt,
                                      .error = is_wrong ? SUPPLY_BAD_REQUEST : SUPPLY_TRANSIENT,
                                      .message = str_of(message)};
    drive_apply(opening.drive, &event);
}

void drive_open_door(struct drive *drive, void (*send)(struct drive *drive, const struct door_start *start))
{
    const struct lease_request *request = &drive->lease->request;
    const struct lease_attempt *attempt = drive_attempt(drive);
    struct network *network = networks_find(drive->driver->networks, attempt->of.network);
    struct door_pair env[LEASE_ENV_MAX];
    struct door_port ports[SUPPLY_PORTS_MAX];
    if (!drive_has_door(drive, attempt)) {
        send(drive, NULL);
        return;
    }
    for (size_t i = 0; i < request->env_count; i++)
        env[i] = (struct door_pair){request->env[i].key, request->env[i].value};
    for (size_t i = 0; i < request->port_count; i++)
        ports[i] = (struct door_port){.port = request->ports[i]};
    bool is_machine = network_adapter(network)->traits & ADAPTER_VM;
    const struct door_want want = {.kind = is_machine ? DOOR_MACHINE : DOOR_CONTAINER,
                                   .supplier = str_of(attempt->of.network),
                                   .command = request->argv,
                                   .command_count = request->argc,
                                   .image = request->image,
                                   .env = env,
                                   .env_count = is_machine ? request->env_count : 0,
                                   .ports = ports,
                                   .port_count = is_machine ? request->port_count : 0,
                                   .without_probe = is_without_probe(drive, attempt)};
    struct opening *opening = malloc(sizeof(*opening));
    enum error error = ERR_NO_MEMORY;
    if (opening) {
        *opening = (struct opening){drive, send};
        error = door_open_attempt(drive->driver->control, str_of(drive->lease->id), attempt->number, &want, on_opened,
                                  opening);
        if (error == ERR_NONE)
            return;
        on_opened(opening, error, NULL);
        return;
    }
    drive_put_off(drive, STORE_PAUSE_MS);
}

/* -- looking ----------------------------------------------------------------------------------------------------- */

static enum lease_door proven(const struct lease_attempt *attempt, const struct door_view *view, char *text,
                              size_t size)
{
    const struct door_sold sold = {
        .gpu = str_of(attempt->of.gpu), .gpus = attempt->of.gpus, .vram_gib = GIB_SOLD_UNKNOWN};
    switch (door_judge(&sold, view, text, size)) {
    case DOOR_OK:
        return LEASE_DOOR_PROVEN;
    case DOOR_LESS:
        return LEASE_DOOR_REFUSED;
    case DOOR_NOTHING:
        break;
    }
    return LEASE_DOOR_WAITING;
}

static enum lease_door judge(struct drive *drive, const struct lease_attempt *attempt, const struct door_view *view,
                             char *text, size_t size)
{
    text[0] = '\0';
    if (view->command == DOOR_COMMAND_EXITED)
        return LEASE_DOOR_EXITED;
    switch (view->stage) {
    case DOOR_ABSENT:
        return LEASE_DOOR_NONE;
    case DOOR_REGISTERED:
        return is_without_probe(drive, attempt) && view->is_linked ? LEASE_DOOR_PROVEN : LEASE_DOOR_WAITING;
    case DOOR_PROBING:
        return LEASE_DOOR_WAITING;
    case DOOR_PROVEN:
        return proven(attempt, view, text, size);
    case DOOR_REFUSED:
        snprintf(text, size, "the machine's proof failed: %s", view->reason);
        return LEASE_DOOR_REFUSED;
    }
    return LEASE_DOOR_NONE;
}

void drive_door(struct drive *drive)
{
    const struct lease_attempt *attempt = drive_attempt(drive);
    struct door_view view;
    char text[SUPPLY_MESSAGE_MAX];
    door_state(drive->driver->control, str_of(drive->lease->id), attempt->number, &view);
    enum lease_door door = judge(drive, attempt, &view, text, sizeof(text)); /* which writes the text */
    struct lease_event event = {.kind = LEASE_DOOR,
                                .attempt = drive->action.attempt,
                                .door = door,
                                .exit_code = view.exit_code,
                                .message = str_of(text)};
    /* One that is active was judged before: blamed once. */
    if (event.door == LEASE_DOOR_REFUSED && drive->lease->state == LEASE_PROBING)
        networks_note(drive->driver->networks, attempt->of.network, &attempt->of, SUPPLY_PROBE_FAILED, text);
    drive_apply(drive, &event);
}

static void on_went(void *ctx, enum error error)
{
    struct drive *drive = ctx;
    const struct lease_event event = {.kind = LEASE_WENT, .attempt = drive->action.attempt};
    if (error != ERR_NONE)
        drive_put_off(drive, LINK_PAUSE_MS);
    else
        drive_apply(drive, &event);
}

void drive_go(struct drive *drive)
{
    const struct lease_attempt *attempt = drive_attempt(drive);
    if (!drive_has_door(drive, attempt)) {
        on_went(drive, ERR_NONE);
        return;
    }
    enum error error = door_go(drive->driver->control, str_of(drive->lease->id), attempt->number, on_went, drive);
    if (error != ERR_NONE)
        on_went(drive, error);
}

static void on_closed(void *ctx, enum error error)
{
    (void)ctx;
    if (error != ERR_NONE)
        log_debug(NULL, "an attempt's worker is forgotten later: %s", error_text(error));
}

void drive_close_door(struct drive *drive, const struct lease_attempt *attempt)
{
    enum error error = ERR_NONE;
    if (attempt->intended_ms)
        error = door_close_attempt(drive->driver->control, str_of(drive->lease->id), attempt->number, on_closed, NULL);
    if (error != ERR_NONE)
        on_closed(NULL, error);
}
