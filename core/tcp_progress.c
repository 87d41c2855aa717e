#include "core/tcp_progress.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

bool tcp_progress(int fd, uint64_t *ret_acked, bool *ret_waits)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    int queued = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked) ||
        ioctl(fd, SIOCOUTQ, &queued) != 0)
        return false;
    *ret_acked = info.tcpi_bytes_acked;
    *ret_waits = queued > 0;
    return true;
}
