/* `sluice-probe bench`: what the devices of this machine reach, beside the datasheet and their class's reference. */
#ifndef SLUICE_PROBES_BENCH_COMMAND_H
#define SLUICE_PROBES_BENCH_COMMAND_H

int bench_command(int argc, char **argv); /* exit code: 0, 1 a device failed, 2 usage */

#endif
