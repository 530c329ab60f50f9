/* Owns the new root: an allowlist on an empty tmpfs, built beside the old root, which then goes away.
 *
 * All sources are opened first, as detached clones, so nothing that is mounted later can cover or
 * redirect one; places.c finds what they are attached to. */
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

static int new_root = -1;
static struct {
    int mount; /* detached, or -1 for a record without one */
    bool directory;
} sources[RECORDS_LIMIT];

/* --- sources ------------------------------------------------------------------------------------ */

static int open_source(const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* What a source is, which must be what the plan says. */
static struct stat look_at(int fd, uint32_t index, const struct bind *bind, const char *path) {
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) != 0)
        report_failure(STEP_SOURCE, index, errno, path);
    if ((bind->flags & BIND_INODE) != 0 && (facts.st_dev != bind->dev || facts.st_ino != bind->ino))
        report_failure(STEP_SOURCE, index, ESTALE, path);
    return facts;
}

/* Whoever made it has set what holds for it. It is a mount that stands nowhere, and is moved. */
static void take_passed(const struct plan *plan, uint32_t index, const struct bind *bind, const char *path) {
    sources[index].mount = plan->passed;
    sources[index].directory = S_ISDIR(look_at(plan->passed, index, bind, path).st_mode);
}

static void take_source(const struct plan *plan, uint32_t index) {
    struct bind bind;
    const char *path = (const char *)plan->records[index].data + sizeof bind;
    int idmap = -1;

    memcpy(&bind, plan->records[index].data, sizeof bind);
    sources[index].mount = -1;
    if ((bind.flags & BIND_INSIDE) != 0) /* it does not stand yet */
        return;
    if ((bind.flags & BIND_PASSED) != 0) {
        take_passed(plan, index, &bind, path);
        return;
    }
    int fd = open_source(path);
    if (fd < 0 && errno == ENOENT && (bind.flags & BIND_OPTIONAL) != 0)
        return;
    struct stat facts = look_at(fd, index, &bind, path);
    if (plan->identity.mode == IDENTITY_LEASED && (bind.flags & BIND_AS_OWNER) != 0) {
        idmap = user_idmap(facts.st_uid, facts.st_gid);
        if (idmap < 0) /* the owner changed since the map was made */
            report_failure(STEP_IDMAP, index, ESTALE, path);
    }
    int tree = mount_clone(fd);
    if (tree < 0)
        report_failure(STEP_SOURCE, index, errno, path);
    uint64_t set = MOUNT_ATTR_NOSUID;
    if ((bind.flags & BIND_WRITABLE) == 0)
        set |= MOUNT_ATTR_RDONLY;
    if ((bind.flags & BIND_DEVICES) == 0)
        set |= MOUNT_ATTR_NODEV;
    if (mount_set(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, idmap) != 0)
        report_failure(idmap >= 0 ? STEP_IDMAP : STEP_SOURCE, index, errno, path);
    (void)close(fd); /* O_PATH: nothing to flush */
    sources[index].mount = tree;
    sources[index].directory = S_ISDIR(facts.st_mode);
}

/* --- attachment --------------------------------------------------------------------------------- */

/* Over what exists. */
static void attach_at(uint32_t index, int tree, int target, const char *path) {
    if (mount_attach(tree, target) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(target);
    (void)close(tree);
    place_covered(path);
}

/* At a mount point for `directory` or for a file, which is made where the file system is ours. */
static void attach_new(uint32_t index, int tree, bool directory, const char *path) {
    const char *last;
    bool ours;
    int parent = place_parent(path, &last, &ours);
    if (parent < 0)
        report_failure(STEP_MOUNT, index, -parent, path);
    if (ours) {
        int made = directory ? mkdirat(parent, last, 0755) : mknodat(parent, last, S_IFREG | 0644, 0);
        if (made != 0 && errno != EEXIST)
            report_failure(STEP_MOUNT, index, errno, path);
    }
    if (mount_attach_named(tree, parent, last) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    (void)close(tree);
    place_covered(path);
}

/* --- file systems of our own -------------------------------------------------------------------- */

static void mount_new(uint32_t index, const char *path, int mount) {
    if (mount < 0)
        report_failure(STEP_MOUNT, index, -mount, path);
    attach_new(index, mount, true, path);
}

/* The machine has 4,096, of which those that are no session's keep 1,024 (devpts.txt): without a bound
 * one sandbox takes the rest from all others. This one lets a thousand be used, and leaves more than half. */
#define TERMINALS_LIMIT 1280

static void add_devpts(uint32_t index, const char *path) {
    struct option options[3];
    option_number(&options[0], "ptmxmode", 0666, 8);
    option_number(&options[1], "mode", 0620, 8);
    option_number(&options[2], "max", TERMINALS_LIMIT, 10);
    mount_new(index, path, filesystem_make("devpts", options, 3, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
}

static void add_proc(uint32_t index, const char *path) {
    /* In a user namespace the kernel allows this only while a procfs that hides nothing is still
     * in sight (mount_too_revealing), so the old root must not have gone yet. */
    const uint64_t flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    mount_new(index, path, filesystem_make("proc", NULL, 0, flags));
}

/* --- the other records -------------------------------------------------------------------------- */

/* The parent of `path`, where it is on our own file system: entries are made nowhere else. */
static int own_parent(uint32_t index, const char *path, const char **last) {
    bool ours;
    int parent = place_parent(path, last, &ours);
    if (parent < 0)
        report_failure(STEP_MOUNT, index, -parent, path);
    if (!ours)
        report_failure(STEP_MOUNT, index, EROFS, path);
    return parent;
}

static int make_directory(uint32_t index, uint32_t mode, const char *path) {
    const char *last;
    int parent = own_parent(index, path, &last);
    if (mkdirat(parent, last, mode) != 0 && errno != EEXIST)
        report_failure(STEP_MOUNT, index, errno, path);
    /* What exists may be a mount, and then its mode is not ours to change. */
    int fd = openat(parent, last, O_RDONLY | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        report_failure(STEP_MOUNT, index, errno, path);
    if (!place_is_ours(fd))
        report_failure(STEP_MOUNT, index, EROFS, path);
    if (fchmod(fd, mode) != 0) /* mkdir's was cut by the umask, or was another's */
        report_failure(STEP_MOUNT, index, errno, path);
    return fd;
}

static void add_directory(uint32_t index, uint32_t mode, const char *path) {
    (void)close(make_directory(index, mode, path));
}

/* A directory that stays writable when the root around it no longer is: a mount of its own. */
static void add_private(const struct plan *plan, uint32_t index) {
    const unsigned char *data = plan->records[index].data;
    const char *path = (const char *)data + sizeof(struct owned);
    bool leased = plan->identity.mode == IDENTITY_LEASED;
    struct owned owned;
    /* Ids are those of the user namespace that we are in: root's sandboxes enter theirs later. */
    uid_t uid = leased ? plan->identity.host_uid : plan->identity.uid;
    gid_t gid = leased ? plan->identity.host_gid : plan->identity.gid;

    memcpy(&owned, data, sizeof owned);
    uid += owned.owner; /* decode.c knows that there are so many */
    gid += owned.owner;
    int fd = make_directory(index, owned.mode, path);
    int tree = mount_clone(fd);
    if (tree < 0 || fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0 ||
        mount_set(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, -1) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    attach_at(index, tree, fd, path);
}

static void add_file(uint32_t index, const unsigned char *data) {
    struct node node;
    const char *path = (const char *)data + sizeof node;
    const char *content = path + strlen(path) + 1;
    const char *last;

    memcpy(&node, data, sizeof node);
    int parent = own_parent(index, path, &last);
    int fd = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, node.mode);
    if (fd < 0)
        report_failure(STEP_MOUNT, index, errno, path);
    ssize_t written = write(fd, content, node.size);
    if (written != (ssize_t)node.size) /* a short one is a tmpfs that is full */
        report_failure(STEP_MOUNT, index, written < 0 ? errno : ENOSPC, path);
    if (close(fd) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
}

static void add_symlink(uint32_t index, const unsigned char *data) {
    const char *path = (const char *)data;
    const char *last;
    int parent = own_parent(index, path, &last);
    if (symlinkat(path + strlen(path) + 1, parent, last) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
}

/* A device node of the sandbox's own: the host's may be open to nobody but root. It lies on our tmpfs,
 * where no node can be opened, so it gets a mount of its own on which that one can. */
static void add_device(const struct plan *plan, uint32_t index) {
    const struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                                          .attr_clr = MOUNT_ATTR_NODEV};
    struct device device;
    const char *path = (const char *)plan->records[index].data + sizeof device;
    const char *last;

    memcpy(&device, plan->records[index].data, sizeof device);
    int parent = own_parent(index, path, &last);
    if (mknodat(parent, last, S_IFCHR | 0600, makedev(device.major, device.minor)) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    int fd = place_open(path), tree = fd < 0 ? fd : mount_clone(fd);
    if (tree < 0 || fchownat(fd, "", plan->identity.host_uid, plan->identity.host_gid, AT_EMPTY_PATH) != 0 ||
        syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
        report_failure(STEP_MOUNT, index, fd < 0 ? -fd : errno, path);
    attach_at(index, tree, fd, path);
}

static int skip_missing(enum step step, uint32_t index, int fd, const char *path) {
    if (fd == -ENOENT)
        report_done(step, index, ENOENT);
    else if (fd < 0)
        report_failure(step, index, -fd, path);
    return fd;
}

static bool add_read_only(uint32_t index, const char *path) {
    int fd = skip_missing(STEP_MOUNT, index, place_open(path), path);
    if (fd < 0)
        return false;
    int tree = mount_clone(fd);
    if (tree < 0 || mount_set(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, -1) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    attach_at(index, tree, fd, path);
    return true;
}

static int null_source = -1; /* of the old root: the plan need not have one */

static int open_null(void) {
    if (null_source < 0)
        null_source = open_source("/dev/null");
    return null_source < 0 ? -1 : mount_clone(null_source);
}

static const char closed_name[] = ".denied";

/* A file that nobody may open, on our own tmpfs. Its name there is needed until it is mounted. */
static int make_closed(void) {
    int file = openat(new_root, closed_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
    int tree = file < 0 ? -1 : mount_clone(file);
    int error = errno;
    if (file >= 0)
        (void)close(file);
    errno = error;
    return tree;
}

/* A masked directory becomes an empty one, a masked file the null device: both read as nothing. What
 * is denied becomes a directory or file without any rights, on a mount where none can be given. */
static bool add_cover(uint32_t index, const char *path, bool denied) {
    struct stat facts;
    int fd = skip_missing(STEP_MOUNT, index, place_open(path), path);
    if (fd < 0)
        return false;
    if (fstat(fd, &facts) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    int tree;
    if (S_ISDIR(facts.st_mode))
        tree = filesystem_empty(denied ? 0 : 0555);
    else
        tree = denied ? make_closed() : open_null();
    if (tree < 0 || mount_set(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, -1) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    attach_at(index, tree, fd, path);
    if (denied && !S_ISDIR(facts.st_mode) && unlinkat(new_root, closed_name, 0) != 0)
        report_failure(STEP_MOUNT, index, errno, path);
    return true;
}

/* A part of what stands, once more: kept in its place by a mount of its own, or read-only there. */
static void add_inside(uint32_t index, const struct bind *bind, const char *source, const char *target) {
    int fd = place_open(source);
    if (fd < 0)
        report_failure(STEP_SOURCE, index, -fd, source);
    struct stat facts = look_at(fd, index, bind, source);
    uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | ((bind->flags & BIND_WRITABLE) != 0 ? 0 : MOUNT_ATTR_RDONLY);
    int tree = mount_clone(fd);
    if (tree < 0 || mount_set(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, -1) != 0)
        report_failure(STEP_SOURCE, index, errno, source);
    (void)close(fd);
    attach_new(index, tree, S_ISDIR(facts.st_mode), target);
}

static bool add_bind(uint32_t index, const unsigned char *data) {
    const char *source = (const char *)data + sizeof(struct bind);
    const char *target = source + strlen(source) + 1;
    struct bind bind;
    memcpy(&bind, data, sizeof bind);
    if ((bind.flags & BIND_INSIDE) != 0) {
        add_inside(index, &bind, source, target);
        return true;
    }
    if (sources[index].mount < 0) {
        report_done(STEP_MOUNT, index, ENOENT);
        return false;
    }
    attach_new(index, sources[index].mount, sources[index].directory, target);
    return true;
}

static bool add_record(const struct plan *plan, uint32_t index) {
    const unsigned char *data = plan->records[index].data;
    struct node node;
    switch (plan->records[index].op) {
    case RECORD_DIRECTORY:
        memcpy(&node, data, sizeof node);
        add_directory(index, node.mode, (const char *)data + sizeof node);
        return true;
    case RECORD_FILE:
        add_file(index, data);
        return true;
    case RECORD_SYMLINK:
        add_symlink(index, data);
        return true;
    case RECORD_BIND:
        return add_bind(index, data);
    case RECORD_PRIVATE:
        add_private(plan, index);
        return true;
    case RECORD_DEVICE:
        add_device(plan, index);
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
        return add_cover(index, (const char *)data, false);
    case RECORD_DENY:
        return add_cover(index, (const char *)data, true);
    default:
        return false; /* no mount: another file's record */
    }
}

static void open_root(const struct plan *plan) {
    struct option options[3];
    option_number(&options[0], "mode", 0755, 8);
    option_number(&options[1], "size", plan->scratch.size, 10);
    option_number(&options[2], "nr_inodes", plan->scratch.inodes, 10);
    int mount = filesystem_make("tmpfs", options, 3, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (mount < 0)
        report_failure(STEP_ROOT, NO_RECORD, -mount, "making the tmpfs of the new root");
    if (mount_cover(mount) != 0) /* the old root stays underneath, and lookups go on finding it */
        report_failure(STEP_ROOT, NO_RECORD, errno, "attaching the new root");
    int error = place_begin(mount);
    if (error != 0)
        report_failure(STEP_ROOT, NO_RECORD, error, "looking at the new root");
    new_root = mount;
    report_done(STEP_ROOT, NO_RECORD, 0);
}

static void enter_root(void) {
    if (mount_pivot(new_root) != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "pivot_root, and detaching the old root");
    if (chdir("/") != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "entering the new root");
    if (mount_set(AT_FDCWD, "/", 0, MOUNT_ATTR_RDONLY, -1) != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "making the new root read-only");
    place_end();
    if (null_source >= 0)
        (void)close(null_source);
    (void)close(new_root);
    report_done(STEP_PIVOT, NO_RECORD, 0);
}

void mounts_build(const struct plan *plan) {
    /* Nothing that happens here may propagate to the host, nor anything from there to us. */
    if (mount_make_private() != 0)
        report_failure(STEP_PRIVATE_MOUNTS, NO_RECORD, errno, "making all mounts private");
    report_done(STEP_PRIVATE_MOUNTS, NO_RECORD, 0);
    for (uint32_t i = 0; i < plan->count; i++)
        if (plan->records[i].op == RECORD_BIND)
            take_source(plan, i);
    open_root(plan);
    for (uint32_t i = 0; i < plan->count; i++)
        if (add_record(plan, i))
            report_done(STEP_MOUNT, i, 0);
    enter_root();
}
