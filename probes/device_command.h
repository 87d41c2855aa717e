/* Options that `sluice-probe check` and `bench` share, and the devices that they go over. */
#ifndef SLUICE_PROBES_DEVICE_COMMAND_H
#define SLUICE_PROBES_DEVICE_COMMAND_H

#include "probes/backend.h"

struct device_command {
    const struct probe_backend_ops *backend;
    unsigned first, end; /* devices [first, end) */
    bool is_json, is_full, is_row;
};
/* An exit code (0 after --help, 1 no such device, 2 usage), or -1: go on. Says on stderr what is wrong. */
int device_command_parse(int argc, char **argv, const char *help, struct device_command *ret);

#endif
