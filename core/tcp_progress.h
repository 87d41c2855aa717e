/* How far a TCP peer has come with taking what was sent. Apart, because it needs the kernel's own struct tcp_info. */
#ifndef SLUICE_CORE_TCP_PROGRESS_H
#define SLUICE_CORE_TCP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* *ret_acked: bytes that the peer has acknowledged since the connection began. *ret_waits: some that were given to the
 * socket are not. False: the kernel does not tell. */
bool tcp_progress(int fd, uint64_t *ret_acked, bool *ret_waits);

#endif
