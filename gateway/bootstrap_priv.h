/* Between bootstrap.c and bootstrap_script.c. */
#ifndef SLUICE_GATEWAY_BOOTSTRAP_PRIV_H
#define SLUICE_GATEWAY_BOOTSTRAP_PRIV_H

#include "gateway/bootstrap.h"

/* A file that is served ("worker", "probe", "ca"): the program's name and digest. False: it is not there. */
MUST_CHECK bool bootstrap_program(const struct bootstrap *bootstrap, const char *file, const char **ret_program,
                                  const char **ret_sha256);

#endif
