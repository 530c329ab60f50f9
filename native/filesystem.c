/* Owns mounts that are not attached: new file systems with their options in words, clones of what is
 * mounted, what is set on them, and their attachment. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

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

void option_word(struct option *option, const char *name, const char *word) {
    strncpy(option->value, word, sizeof option->value - 1);
    option->value[sizeof option->value - 1] = '\0';
    option->name = name;
}

/* An option without a value is a flag. */
static long set_option(int context, const struct option *option) {
    if (option->value[0] == '\0')
        return syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, option->name, NULL, 0);
    return syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, option->name, option->value, 0);
}

int filesystem_make(const char *type, const struct option *options, size_t count, uint64_t flags) {
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0)
        return -errno;
    long failed = 0;
    for (size_t i = 0; i < count && failed == 0; i++)
        failed = set_option(context, &options[i]);
    if (failed == 0)
        failed = syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    int mount = failed == 0 ? (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, flags) : -1;
    int error = errno;
    (void)close(context);
    return mount < 0 ? -error : mount;
}

int mount_set(int fd, const char *path, unsigned flags, uint64_t set, int idmap) {
    struct mount_attr attributes = {.attr_set = set | (idmap >= 0 ? MOUNT_ATTR_IDMAP : 0)};
    if (idmap >= 0)
        attributes.userns_fd = (uint64_t)idmap;
    return (int)syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof attributes);
}

int mount_clone(int fd) {
    return (int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

int filesystem_empty(unsigned mode) {
    struct option options[2];
    option_number(&options[0], "mode", mode, 8);
    option_number(&options[1], "size", 4096, 10);
    int mount = filesystem_make("tmpfs", options, 2, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (mount < 0)
        errno = -mount;
    return mount;
}

int mount_attach(int tree, int target) {
    return (int)syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* No symlink is followed, the last one neither. */
int mount_attach_named(int tree, int parent, const char *name) {
    return (int)syscall(SYS_move_mount, tree, "", parent, name, MOVE_MOUNT_F_EMPTY_PATH);
}

/* On top of "/" itself, the one directory that always exists: lookups of "/" go on finding what is
 * underneath, and the mount is reached by its descriptor. */
int mount_cover(int tree) {
    return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
}

/* pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one, and goes. */
int mount_pivot(int root) {
    if (fchdir(root) != 0 || syscall(SYS_pivot_root, ".", ".") != 0)
        return -1;
    return (int)syscall(SYS_umount2, ".", MNT_DETACH);
}

int mount_make_private(void) {
    struct mount_attr private = {.propagation = MS_PRIVATE};
    return (int)syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &private, sizeof private);
}
