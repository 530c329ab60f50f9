/* Owns the sandbox's name and its loopback interface. */
#include "init.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

void host_name(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++) {
        if (plan->records[i].op != RECORD_HOSTNAME)
            continue;
        if (sethostname((const char *)plan->records[i].data, plan->records[i].size - 1) != 0)
            report_failure(STEP_HOSTNAME, i, errno, "sethostname");
        report_done(STEP_HOSTNAME, i, 0);
    }
}

static void bring_up(uint32_t index) {
    struct ifreq request = {0};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING; /* the kernel adds 127.0.0.1 and ::1 by itself */
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        report_failure(STEP_LOOPBACK, index, errno, "bringing the loopback interface up");
    (void)close(fd);
    report_done(STEP_LOOPBACK, index, 0);
}

void host_loopback(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++)
        if (plan->records[i].op == RECORD_LOOPBACK)
            bring_up(i);
}
