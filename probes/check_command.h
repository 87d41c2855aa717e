/* `sluice-probe check`: the devices of this machine against the CPU, a line for each challenge. */
#ifndef SLUICE_PROBES_CHECK_COMMAND_H
#define SLUICE_PROBES_CHECK_COMMAND_H

int check_command(int argc, char **argv); /* exit code: 0 all identical, 1 not, or a device failed, 2 usage */

#endif
