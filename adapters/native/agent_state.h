/* The agent's identity on disk: worker.json in a directory that one agent at a time may hold. */
#ifndef SLUICE_ADAPTERS_NATIVE_AGENT_STATE_H
#define SLUICE_ADAPTERS_NATIVE_AGENT_STATE_H

#include "core/id.h"
#include "core/crypto.h"

struct agent_state {
    char dir[1024];
    int lock_fd;                                          /* -1: not held */
    char worker_id[ID_TEXT_MAX], secret[SECRET_TEXT_MAX]; /* "" before the first enrolment */
};

/* Makes the directory (0700) with its parents, locks it, and reads worker.json if there is one. ERR_EXISTS: another
 * agent holds it. ERR_BAD_INPUT: worker.json is not what we write. */
MUST_CHECK enum error agent_state_open(const char *dir, struct agent_state *ret);
/* Writes the identity, mode 0600, so that after a crash the old or the new file is there whole. */
MUST_CHECK enum error agent_state_save(const struct agent_state *state);
void agent_state_close(struct agent_state *state);

#endif
