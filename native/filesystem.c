/* Owns the making of file systems: new ones, detached, with their options in words. */
#include "init.h"

#include <errno.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

void option_number(struct option *option, const char *name, uint64_t number, unsigned base) {
    char digits[24];
    size_t count = 0, at = 0;
    do {
        digits[count++] = (char)('0' + number % base);
        number /= base;
    } while (number != 0);
    while (count > 0)
        option->value[at++] = digits[--count];
    option->value[at] = '\0';
    option->name = name;
}

int filesystem_make(const char *type, const struct option *options, size_t count, uint64_t flags) {
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0)
        return -errno;
    long failed = 0;
    for (size_t i = 0; i < count && failed == 0; i++)
        failed = syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i].name, options[i].value, 0);
    if (failed == 0)
        failed = syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    int mount = failed == 0 ? (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, flags) : -1;
    int error = errno;
    (void)close(context);
    return mount < 0 ? -error : mount;
}
