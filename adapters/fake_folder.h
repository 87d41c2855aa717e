/* The folder that stands for the fake network: base_url dir://PATH, or the option dir. Several gateways may share
 * it, and what it holds outlives them:
 *
 *     offers.json          what can be had; a default set is written where there is none
 *     instances/ID.json    what runs, a file each; moved to ended/ when it is gone
 *     run/ID/log           with option run: "true", the output of what was started as a process of this machine
 *     faults.json          [{"fault": name, "op": operation, "count": n, ...}]: what goes wrong, counted down; names
 * and fields as in tests/simulators/network_sim.py key                  where it exists, the api_key that is asked for
 *
 * An instance runs after option boot_looks (1) looks at it. */
#ifndef SLUICE_ADAPTERS_FAKE_FOLDER_H
#define SLUICE_ADAPTERS_FAKE_FOLDER_H

#include "adapters/adapter.h"

#define FAKE_PATH_MAX 640

struct fake {
    char dir[400];
    int64_t boot_looks;
    bool runs;
};

/* One operation, alone over all gateways that share the folder. */
struct fake_turn {
    struct adapter_call *call;
    struct fake *fake;
    int lock;
    json_t *faults;
    bool is_changed;
};

const char *fake_open(struct network *network); /* as adapter.open */
/* False: not now, or the call is over. run: what the call does, for another try. */
MUST_CHECK bool fake_turn_begin(struct fake_turn *turn, struct adapter_call *call,
                                void (*run)(struct adapter_call *call));
void fake_turn_end(struct fake_turn *turn);
/* The first fault of that name that strikes now, counted down; borrowed; NULL: none. */
json_t *fake_fault(struct fake_turn *turn, const char *name, struct str tag);

MUST_CHECK bool fake_path(const struct fake *fake, char ret[static FAKE_PATH_MAX], const char *folder,
                          const char *name);
json_t *fake_read(const struct fake *fake, const char *folder, const char *name); /* a new reference; NULL: none */
json_t *fake_instance_read(const struct fake *fake, struct str id);               /* likewise */
/* False: it could not be written. One that is gone leaves the live ones. */
MUST_CHECK bool fake_instance_write(const struct fake *fake, json_t *made);
/* Calls each for every live instance until it says false. */
void fake_instances_each(struct fake_turn *turn, bool (*each)(struct fake_turn *turn, json_t *made, void *ctx),
                         void *ctx);

#endif
