/* Local processes that stand for what a network runs: apart from us, so that they live on when we do not. */
#ifndef SLUICE_ADAPTERS_FAKE_RUN_H
#define SLUICE_ADAPTERS_FAKE_RUN_H

#include "scheduler/supply.h"
#include <sys/types.h>

struct fake_process {
    pid_t pid;        /* of a session and process group of its own; 0: none */
    int64_t start_at; /* in ticks since boot: tells it from a later process of that number */
};

/* Runs order->argv with order->env in the folder; its output goes to `log` there. ERR_SYSTEM: it cannot be begun. */
MUST_CHECK enum error fake_run(const struct supply_order *order, const char *folder, struct fake_process *ret);
bool fake_process_is_alive(const struct fake_process *process);
void fake_process_kill(const struct fake_process *process); /* with all that came of it */

#endif
