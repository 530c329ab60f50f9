/* Owns the new root: an allowlist on an empty tmpfs, built beside the old root, which then goes away.
 *
 * All sources are opened first, as detached clones, so nothing that is mounted later can cover or
 * redirect one; all targets are walked by descriptor without following a symlink. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

static int new_root = -1;
static int sources[RECORDS_LIMIT]; /* detached mounts, or -1 for a record without one */

/* The devices of the file systems that we made: mount points are created nowhere else, so that a
 * plan can't leave files in the caller's directories. */
static dev_t own_devices[64];
static size_t own_count;

static int mount_attributes(int fd, const char *path, unsigned flags, uint64_t set, int idmap) {
    struct mount_attr attributes = {.attr_set = set | (idmap >= 0 ? MOUNT_ATTR_IDMAP : 0)};
    if (idmap >= 0)
        attributes.userns_fd = (uint64_t)idmap;
    return (int)syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof attributes);
}

static int clone_tree(int fd) {
    return (int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static int attach(int tree, int target) {
    return (int)syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* --- sources ------------------------------------------------------------------------------------ */

static int open_source(const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static void take_source(const struct plan *plan, uint32_t index) {
    struct bind bind;
    struct stat facts;
    const char *path = (const char *)plan->records[index].data + sizeof bind;
    int idmap = -1;

    memcpy(&bind, plan->records[index].data, sizeof bind);
    sources[index] = -1;
    int fd = open_source(path);
    if (fd < 0 && errno == ENOENT && (bind.flags & BIND_OPTIONAL) != 0)
        return;
    if (fd < 0 || fstat(fd, &facts) != 0)
        report_failure(STEP_SOURCE, index, errno, path);
    if ((bind.flags & BIND_INODE) != 0 && (facts.st_dev != bind.dev || facts.st_ino != bind.ino))
        report_failure(STEP_SOURCE, index, ESTALE, path);
    if (plan->identity.mode == IDENTITY_LEASED && (bind.flags & BIND_AS_OWNER) != 0) {
        idmap = user_idmap(facts.st_uid, facts.st_gid);
        if (idmap < 0) /* the owner changed since the map was made */
            report_failure(STEP_IDMAP, index, ESTALE, path);
    }
    int tree = clone_tree(fd);
    if (tree < 0)
        report_failure(STEP_SOURCE, index, errno, path);
    uint64_t set = MOUNT_ATTR_NOSUID;
    if ((bind.flags & BIND_WRITABLE) == 0)
        set |= MOUNT_ATTR_RDONLY;
    if ((bind.flags & BIND_DEVICES) == 0)
        set |= MOUNT_ATTR_NODEV;
    if (mount_attributes(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, idmap) != 0)
        report_failure(idmap >= 0 ? STEP_IDMAP : STEP_SOURCE, index, errno, path);
    (void)close(fd); /* O_PATH: nothing to flush */
    sources[index] = tree;
}

/* --- targets ------------------------------------------------------------------------------------ */

static bool is_ours(int fd) {
    struct stat facts;
    if (fstat(fd, &facts) != 0)
        return false;
    for (size_t i = 0; i < own_count; i++)
        if (own_devices[i] == facts.st_dev)
            return true;
    return false;
}

static void remember_device(int fd, uint32_t index) {
    struct stat facts;
    if (fstat(fd, &facts) != 0 || own_count == sizeof own_devices / sizeof own_devices[0])
        report_failure(STEP_MOUNT, index, fd < 0 ? EBADF : ENOSPC, "too many file systems");
    own_devices[own_count++] = facts.st_dev;
}

static int step_into(int at, const char *name) {
    return openat(at, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
}

/* Opens the directory that holds the last component of `path`, creating directories on file systems
 * of ours as it goes; `last` becomes that component, empty for "/". Returns a descriptor or -errno. */
static int open_parent(const char *path, char last[NAME_MAX + 1]) {
    int at = fcntl(new_root, F_DUPFD_CLOEXEC, 0);
    if (at < 0)
        return -errno;
    last[0] = '\0';
    for (const char *start = path + 1; *start != '\0';) {
        const char *slash = strchr(start, '/');
        size_t size = slash == NULL ? strlen(start) : (size_t)(slash - start);
        memcpy(last, start, size); /* decode.c bounds components to 255 bytes */
        last[size] = '\0';
        if (slash == NULL)
            return at;
        int next = step_into(at, last);
        if (next < 0 && errno == ENOENT && is_ours(at) && mkdirat(at, last, 0755) == 0)
            next = step_into(at, last);
        int error = errno;
        (void)close(at);
        if (next < 0)
            return -error;
        at = next;
        start = slash + 1;
    }
    return at;
}

/* Opens an existing target, or -errno. */
static int open_existing(const char *path) {
    char last[NAME_MAX + 1];
    int parent = open_parent(path, last);
    if (parent < 0 || last[0] == '\0')
        return parent;
    int fd = openat(parent, last, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int error = errno;
    (void)close(parent);
    return fd < 0 ? -error : fd;
}

/* Opens a mount point for `directory` or for a file, making it where the file system is ours. */
static int open_target(uint32_t index, const char *path, bool directory) {
    char last[NAME_MAX + 1];
    int parent = open_parent(path, last);
    if (parent < 0)
        report_failure(STEP_MOUNT, index, -parent, path);
    if (last[0] == '\0')
        return parent;
    int fd = openat(parent, last, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && is_ours(parent)) {
        int made = directory ? mkdirat(parent, last, 0755) : mknodat(parent, last, S_IFREG | 0644, 0);
        if (made == 0)
            fd = openat(parent, last, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(parent);
    return fd;
}

static void attach_at(uint32_t index, int tree, int target, const char *path) {
    if (attach(tree, target) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(target);
    (void)close(tree);
}

/* --- file systems of our own -------------------------------------------------------------------- */

struct option {
    const char *name;
    char value[24];
};

static void set_number(struct option *option, const char *name, uint64_t number, unsigned base) {
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

/* A new, detached file system, or -errno. */
static int make_file_system(const char *type, const struct option *options, size_t count, uint64_t flags) {
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

static void mount_new(uint32_t index, const char *path, int mount) {
    if (mount < 0)
        report_failure(STEP_MOUNT, index, -mount, path);
    attach_at(index, mount, open_target(index, path, true), path);
}

static void add_tmpfs(const struct plan *plan, uint32_t index) {
    struct tmpfs tmpfs;
    struct option options[5];
    const char *path = (const char *)plan->records[index].data + sizeof tmpfs;
    bool leased = plan->identity.mode == IDENTITY_LEASED;

    memcpy(&tmpfs, plan->records[index].data, sizeof tmpfs);
    set_number(&options[0], "mode", tmpfs.mode, 8);
    set_number(&options[1], "size", tmpfs.size, 10);
    set_number(&options[2], "nr_inodes", tmpfs.inodes, 10);
    /* Ids are read in the user namespace that we are in now: root's sandboxes enter theirs later. */
    set_number(&options[3], "uid", leased ? plan->identity.host_uid : plan->identity.uid, 10);
    set_number(&options[4], "gid", leased ? plan->identity.host_gid : plan->identity.gid, 10);
    int mount = make_file_system("tmpfs", options, 5, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (mount >= 0)
        remember_device(mount, index);
    mount_new(index, path, mount);
}

static void add_devpts(uint32_t index, const char *path) {
    struct option options[2];
    set_number(&options[0], "ptmxmode", 0666, 8);
    set_number(&options[1], "mode", 0620, 8);
    mount_new(index, path, make_file_system("devpts", options, 2, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
}

static void add_proc(uint32_t index, const char *path) {
    /* In a user namespace the kernel allows this only while a procfs that hides nothing is still
     * in sight (mount_too_revealing), so the old root must not have gone yet. */
    const uint64_t flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    mount_new(index, path, make_file_system("proc", NULL, 0, flags));
}

/* --- the other records -------------------------------------------------------------------------- */

static void add_directory(uint32_t index, const unsigned char *data) {
    struct node node;
    const char *path = (const char *)data + sizeof node;
    char last[NAME_MAX + 1];

    memcpy(&node, data, sizeof node);
    int parent = open_parent(path, last);
    if (parent < 0)
        report_failure(STEP_MOUNT, index, -parent, path);
    if (!is_ours(parent))
        report_failure(STEP_MOUNT, index, EROFS, path);
    if (mkdirat(parent, last, node.mode) != 0 && errno != EEXIST)
        report_failure(STEP_MOUNT, index, errno, path);
    if (fchmodat(parent, last, node.mode, 0) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(parent);
}

static void add_file(uint32_t index, const unsigned char *data) {
    struct node node;
    const char *path = (const char *)data + sizeof node;
    const char *content = path + strlen(path) + 1;
    char last[NAME_MAX + 1];

    memcpy(&node, data, sizeof node);
    int parent = open_parent(path, last);
    if (parent < 0)
        report_failure(STEP_MOUNT, index, -parent, path);
    if (!is_ours(parent))
        report_failure(STEP_MOUNT, index, EROFS, path);
    int fd = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, node.mode);
    if (fd < 0 || write(fd, content, node.size) != (ssize_t)node.size || close(fd) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(parent);
}

static void add_symlink(uint32_t index, const unsigned char *data) {
    const char *path = (const char *)data;
    char last[NAME_MAX + 1];
    int parent = open_parent(path, last);
    if (parent < 0)
        report_failure(STEP_MOUNT, index, -parent, path);
    if (!is_ours(parent))
        report_failure(STEP_MOUNT, index, EROFS, path);
    if (symlinkat(path + strlen(path) + 1, parent, last) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(parent);
}

static int skip_missing(enum step step, uint32_t index, int fd, const char *path) {
    if (fd == -ENOENT)
        report_done(step, index, ENOENT);
    else if (fd < 0)
        report_failure(step, index, -fd, path);
    return fd;
}

static bool add_read_only(uint32_t index, const char *path) {
    int fd = skip_missing(STEP_MOUNT, index, open_existing(path), path);
    if (fd < 0)
        return false;
    int tree = clone_tree(fd);
    if (tree < 0 || mount_attributes(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, -1) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    attach_at(index, tree, fd, path);
    return true;
}

/* A masked directory becomes an empty one, a masked file the null device, both read-only. */
static bool add_mask(uint32_t index, const char *path) {
    struct option options[2];
    struct stat facts;
    int fd = skip_missing(STEP_MOUNT, index, open_existing(path), path);
    if (fd < 0)
        return false;
    if (fstat(fd, &facts) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    int tree;
    if (S_ISDIR(facts.st_mode)) {
        set_number(&options[0], "mode", 0555, 8);
        set_number(&options[1], "size", 4096, 10);
        tree = make_file_system("tmpfs", options, 2, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
        if (tree < 0)
            report_failure(STEP_MOUNT, index, -tree, path);
    } else {
        int null = open_source("/dev/null"); /* of the old root: the plan need not have one */
        tree = null < 0 ? -1 : clone_tree(null);
        if (tree < 0 || mount_attributes(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, -1) != 0)
            report_failure(STEP_MOUNT, index, errno, path);
        (void)close(null);
    }
    attach_at(index, tree, fd, path);
    return true;
}

static bool add_bind(uint32_t index, const unsigned char *data) {
    struct stat facts;
    const char *target = (const char *)data + sizeof(struct bind);
    target += strlen(target) + 1;
    if (sources[index] < 0) {
        report_done(STEP_MOUNT, index, ENOENT);
        return false;
    }
    if (fstat(sources[index], &facts) != 0)
        report_failure(STEP_MOUNT, index, errno, target);
    attach_at(index, sources[index], open_target(index, target, S_ISDIR(facts.st_mode)), target);
    return true;
}

static bool add_record(const struct plan *plan, uint32_t index) {
    const unsigned char *data = plan->records[index].data;
    switch (plan->records[index].op) {
    case RECORD_DIRECTORY:
        add_directory(index, data);
        return true;
    case RECORD_FILE:
        add_file(index, data);
        return true;
    case RECORD_SYMLINK:
        add_symlink(index, data);
        return true;
    case RECORD_BIND:
        return add_bind(index, data);
    case RECORD_TMPFS:
        add_tmpfs(plan, index);
        return true;
    case RECORD_PROC:
        add_proc(index, (const char *)data);
        return true;
    case RECORD_DEVPTS:
        add_devpts(index, (const char *)data);
        return true;
    case RECORD_READ_ONLY:
        return add_read_only(index, (const char *)data);
    case RECORD_MASK:
        return add_mask(index, (const char *)data);
    default:
        return false; /* no mount: another file's record */
    }
}

static void open_root(void) {
    struct option mode;
    set_number(&mode, "mode", 0755, 8);
    int mount = make_file_system("tmpfs", &mode, 1, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (mount < 0)
        report_failure(STEP_ROOT, NO_RECORD, -mount, "making the tmpfs of the new root");
    /* On top of the old root itself, which is the one directory that always exists: lookups of "/"
     * go on finding the old root underneath, and the new one is reached by its descriptor. */
    if ((int)syscall(SYS_move_mount, mount, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0)
        report_failure(STEP_ROOT, NO_RECORD, errno, "attaching the new root");
    new_root = mount;
    remember_device(mount, NO_RECORD);
    report_done(STEP_ROOT, NO_RECORD, 0);
}

static void enter_root(void) {
    /* pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one, and goes. */
    if (fchdir(new_root) != 0 || syscall(SYS_pivot_root, ".", ".") != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "pivot_root");
    if (syscall(SYS_umount2, ".", MNT_DETACH) != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "detaching the old root");
    if (chdir("/") != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "entering the new root");
    if (mount_attributes(AT_FDCWD, "/", 0, MOUNT_ATTR_RDONLY, -1) != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "making the new root read-only");
    (void)close(new_root);
    report_done(STEP_PIVOT, NO_RECORD, 0);
}

void mounts_build(const struct plan *plan) {
    /* Nothing that happens here may propagate to the host, nor anything from there to us. */
    struct mount_attr private = {.propagation = MS_PRIVATE};
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &private, sizeof private) != 0)
        report_failure(STEP_PRIVATE_MOUNTS, NO_RECORD, errno, "making all mounts private");
    report_done(STEP_PRIVATE_MOUNTS, NO_RECORD, 0);
    for (uint32_t i = 0; i < plan->count; i++)
        if (plan->records[i].op == RECORD_BIND)
            take_source(plan, i);
    open_root();
    for (uint32_t i = 0; i < plan->count; i++)
        if (add_record(plan, i))
            report_done(STEP_MOUNT, i, 0);
    enter_root();
}
