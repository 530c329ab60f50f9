/* Owns late mounts: what is mounted in a sandbox that already stands, and taken out of it again.
 *
 * Neither init nor the outer process has the power for it any more, so the host starts us once more for
 * each. The mount is built in a private copy of the host's mounts, where nobody sees it half done; then
 * we enter the sandbox's mount namespace and attach it in one step. An ordinary user's mounts are made
 * in the sandbox's own user namespace, as init's were. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- the way in ----------------------------------------------------------------------------------- */

/* Init opens its own mount namespace while it still can: once it is not dumpable, an ordinary user
 * can't. The outer process keeps it, at a place where the host finds it in /proc. */
void late_hand_over(int parent) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
    int namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        report_failure(STEP_NAMESPACES, NO_RECORD, errno, "/proc/self/ns/mnt");
    header.msg_controllen = sizeof control.bytes;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &namespace, sizeof(int));
    if (sendmsg(parent, &header, MSG_NOSIGNAL) != 1)
        report_failure(STEP_NAMESPACES, NO_RECORD, errno, "handing over the mount namespace");
    (void)close(namespace);
}

/* Init goes on when it is kept, or a sandbox could have started that the host can't mount in yet. */
void late_await_keeper(int parent) {
    char byte;
    if (read(parent, &byte, 1) != 1)
        report_failure(STEP_NAMESPACES, NO_RECORD, EPIPE, "waiting until the mount namespace is kept");
}

/* Takes it, and says so. Where init has ended instead, that is told by its end. */
void late_keep_namespace(int child) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
    ssize_t got;
    int namespace;
    header.msg_controllen = sizeof control.bytes;
    do {
        got = recvmsg(child, &header, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got == 0)
        return;
    struct cmsghdr *rights = got < 0 ? NULL : CMSG_FIRSTHDR(&header);
    if (rights == NULL || rights->cmsg_type != SCM_RIGHTS)
        report_failure(STEP_NAMESPACES, NO_RECORD, got < 0 ? errno : EPROTO, "receiving the mount namespace");
    memcpy(&namespace, CMSG_DATA(rights), sizeof(int));
    if (namespace != NAMESPACE_PLACE) {
        if (dup3(namespace, NAMESPACE_PLACE, O_CLOEXEC) < 0)
            report_failure(STEP_NAMESPACES, NO_RECORD, errno, "keeping the mount namespace");
        (void)close(namespace);
    }
    if (send(child, &byte, 1, MSG_NOSIGNAL) != 1 && errno != EPIPE)
        report_failure(STEP_NAMESPACES, NO_RECORD, errno, "answering init");
}

/* The capabilities that mounting takes, for who has none outside: those of whoever made the sandbox. */
void late_enter_users(int namespace) {
    int users = ioctl(namespace, NS_GET_USERNS);
    if (users < 0 || setns(users, CLONE_NEWUSER) != 0)
        report_failure(STEP_LATE_ENTER, NO_RECORD, errno, "entering the user namespace");
    (void)close(users);
}

/* A copy of the host's mounts, of which nothing gets out. Our directory stays the same, in the copy. */
void late_leave_host(void) {
    if (unshare(CLONE_NEWNS) != 0 || mount_make_private() != 0)
        report_failure(STEP_LATE_ENTER, NO_RECORD, errno, "copying the mounts");
}

void late_enter_mounts(int namespace) {
    if (setns(namespace, CLONE_NEWNS) != 0) /* and "/" is the sandbox's root */
        report_failure(STEP_LATE_ENTER, NO_RECORD, errno, "entering the mount namespace");
}

/* --- what is mounted ------------------------------------------------------------------------------ */

static int open_source_map(const struct late_head *head, int source) {
    struct identity identity = {.host_uid = head->uid, .host_gid = head->gid};
    struct stat facts;
    if ((head->flags & LATE_AS_OWNER) == 0 || (head->flags & LATE_LEASED) == 0)
        return -1;
    if (fstat(source, &facts) != 0)
        report_failure(STEP_LATE_SOURCE, NO_RECORD, errno, "looking at the source");
    int idmap = user_idmap_open(facts.st_uid, facts.st_gid, &identity);
    if (idmap < 0)
        report_failure(STEP_IDMAP, NO_RECORD, -idmap, "mapping the owner of the source");
    return idmap;
}

/* The source is the directory that we are in: by its name it might be another one by now. */
static int clone_source(int idmap, bool writable) {
    uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (writable ? 0 : MOUNT_ATTR_RDONLY);
    int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int tree = here < 0 ? here : mount_clone(here);
    if (tree < 0)
        report_failure(STEP_LATE_SOURCE, NO_RECORD, errno, "taking the source");
    if (mount_set(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, idmap) != 0)
        report_failure(idmap >= 0 ? STEP_IDMAP : STEP_LATE_SOURCE, NO_RECORD, errno, "setting what holds for it");
    (void)close(here);
    return tree;
}

/* What is kept in its place stands on a mount of its own, which can't be moved, removed or replaced. */
static void keep_part(int tree, uint32_t index, const struct late_part *part, const char *path) {
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
    struct stat facts;
    int place = (int)syscall(SYS_openat2, tree, path + 1, &how, sizeof how);
    if (place < 0 || fstat(place, &facts) != 0)
        report_failure(STEP_LATE_PART, index, errno, path);
    if (facts.st_dev != part->dev || facts.st_ino != part->ino)
        report_failure(STEP_LATE_PART, index, ESTALE, path);
    int kept = mount_clone(place);
    uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (part->read_only != 0 ? MOUNT_ATTR_RDONLY : 0);
    if (kept < 0 || mount_set(kept, "", AT_EMPTY_PATH | AT_RECURSIVE, set, -1) != 0 || mount_attach(kept, place) != 0)
        report_failure(STEP_LATE_PART, index, errno, path);
    (void)close(kept);
    (void)close(place);
}

/* The parts are put in place here, so that no command ever sees the tree without them. */
static int keep_parts(int tree, const struct late *late) {
    const unsigned char *at = late->parts;
    if (late->head.parts == 0)
        return tree;
    if (mount_cover(tree) != 0)
        report_failure(STEP_LATE_PART, NO_RECORD, errno, "attaching the source");
    for (uint32_t i = 0; i < late->head.parts; i++) {
        struct late_part part;
        const char *path;
        at += late_part_read(at, &part, &path);
        keep_part(tree, i, &part, path);
    }
    int whole = mount_clone(tree);
    if (whole < 0)
        report_failure(STEP_LATE_PART, NO_RECORD, errno, "taking the whole");
    return whole;
}

/* A new file system that is the sandbox's user's; it counts as memory. */
static int make_tmpfs(const struct late_head *head, unsigned mode) {
    struct option options[5];
    option_number(&options[0], "mode", mode, 8);
    option_number(&options[1], "size", head->size, 10);
    option_number(&options[2], "nr_inodes", head->inodes, 10);
    option_number(&options[3], "uid", head->uid, 10);
    option_number(&options[4], "gid", head->gid, 10);
    int tree = filesystem_make("tmpfs", options, 5, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (tree < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, -tree, "making a tmpfs");
    return tree;
}

/* overlayfs keeps what it knows of a directory in user.* attributes, which tmpfs has since Linux 6.6. */
static void try_attributes(int directory) {
    static const char name[] = "user.overlay.try";
    if (fsetxattr(directory, name, "", 0, 0) != 0 || fremovexattr(directory, name) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "keeping attributes on a tmpfs");
}

static int make_directory(int at, const char *name, mode_t mode) {
    if (mkdirat(at, name, mode) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, name);
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, mode) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, name);
    return fd;
}

/* What is written lands on a tmpfs that nothing but the overlay leads to. */
static int make_overlay(const struct late_head *head, int source, int idmap) {
    struct option options[4];
    struct stat facts;
    int base = clone_source(idmap, false);
    if (fstat(source, &facts) != 0)
        report_failure(STEP_LATE_SOURCE, NO_RECORD, errno, "looking at the source");
    int place = make_tmpfs(head, 0700);
    if (mount_cover(place) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "attaching a tmpfs");
    int lower = make_directory(place, "lower", 0700);
    int upper = make_directory(place, "upper", (facts.st_mode & 0777) | 0700);
    (void)close(make_directory(place, "work", 0700));
    try_attributes(upper);
    if (fchown(upper, head->uid, head->gid) != 0 || mount_attach(base, lower) != 0 || fchdir(place) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "laying the layers out");
    option_word(&options[0], "lowerdir", "lower");
    option_word(&options[1], "upperdir", "upper");
    option_word(&options[2], "workdir", "work");
    option_word(&options[3], "userxattr", "");
    uint64_t flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    int tree = filesystem_make("overlay", options, 4, flags);
    if (tree < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, -tree, "making an overlay");
    (void)close(base);
    (void)close(lower);
    (void)close(upper);
    (void)close(place);
    return tree;
}

static int make_tree(const struct late *late, int source, int idmap) {
    bool writable = (late->head.flags & LATE_WRITABLE) != 0;
    int tree;
    switch (late->head.kind) {
    case LATE_BIND:
        return keep_parts(clone_source(idmap, writable), late);
    case LATE_TMPFS:
        tree = make_tmpfs(&late->head, 0755);
        break;
    default:
        tree = make_overlay(&late->head, source, idmap);
    }
    if (!writable && mount_set(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, -1) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "making it read-only");
    return tree;
}

/* --- where ---------------------------------------------------------------------------------------- */

/* The kernel's struct statx up to what we ask for; older C libraries lack that part of it. */
struct mount_facts {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint64_t others[16];
    uint64_t mount;
    uint64_t spare[13];
};

#define ASK_MOUNT 0x1000u /* STATX_MNT_ID, Linux 5.8 */
#define IS_MOUNT_ROOT 0x2000u /* STATX_ATTR_MOUNT_ROOT */

/* The number of the mount of which `fd` is the top, or 0 with errno. */
static uint64_t mount_number(int fd) {
    struct mount_facts facts = {0};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, ASK_MOUNT, &facts) != 0)
        return 0;
    errno = EINVAL;
    return (facts.attributes & IS_MOUNT_ROOT) != 0 ? facts.mount : 0;
}

/* Commands may rename and replace what leads there: no symlink is followed. */
static int open_place(const char *path) {
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static bool stands_at(const char *path, uint64_t mount) {
    int fd = open_place(path);
    bool same = fd >= 0 && mount_number(fd) == mount;
    if (fd >= 0)
        (void)close(fd);
    return same;
}

/* With all that is mounted in it. What commands have open there they keep until they close it. */
static int detach(int tree) { return fchdir(tree) != 0 ? -1 : umount2(".", MNT_DETACH); }

static uint64_t put_in_place(const struct late *late, int tree) {
    struct stat facts;
    int target = open_place(late->target);
    if (target < 0 || fstat(target, &facts) != 0)
        report_failure(STEP_LATE_TARGET, NO_RECORD, errno, late->target);
    if (facts.st_dev != late->head.dev || facts.st_ino != late->head.ino)
        report_failure(STEP_LATE_TARGET, NO_RECORD, ESTALE, late->target);
    uint64_t mount = mount_number(tree);
    if (mount == 0 || mount_attach(tree, target) != 0)
        report_failure(STEP_LATE_ATTACH, NO_RECORD, errno, late->target);
    /* A command may have moved a directory on the way between our look and the attachment. */
    if (!stands_at(late->target, mount)) {
        (void)detach(tree); /* it is gone with the sandbox at the latest */
        report_failure(STEP_LATE_TARGET, NO_RECORD, ESTALE, late->target);
    }
    return mount;
}

static uint64_t take_out(const struct late *late) {
    int tree = open_place(late->target);
    if (tree < 0)
        report_failure(STEP_LATE_TARGET, NO_RECORD, errno, late->target);
    if (mount_number(tree) != late->head.mount)
        report_failure(STEP_LATE_TARGET, NO_RECORD, ESTALE, late->target);
    if (detach(tree) != 0)
        report_failure(STEP_LATE_ATTACH, NO_RECORD, errno, late->target);
    if (stands_at(late->target, late->head.mount))
        report_failure(STEP_LATE_ATTACH, NO_RECORD, EBUSY, late->target);
    return late->head.mount;
}

_Noreturn void late_look(int channel, const char *path) {
    privileges_follow_parent(channel);
    int top = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        report_failure(STEP_LATE_SOURCE, NO_RECORD, errno, "finding the source");
    /* What it is may still be remembered where nobody answers any more. Not all may be listed. */
    int list = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list >= 0) {
        char names[1024];
        (void)syscall(SYS_getdents64, list, names, sizeof names);
    }
    _exit(channel_send_fds(channel, EVENT_PASSED, 0, NULL, 0, &top, 1) == 0 ? 0 : 1);
}

_Noreturn void late_run(int channel, struct incoming *in) {
    static struct late late;
    /* A source on a network may never answer: who waits for it must not outlive the host that asked. */
    privileges_follow_parent(channel);
    const char *problem = decode_late(in->body, in->head.size, &late);
    if (problem != NULL)
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, problem);
    const int *fds = in->fds + channel_bodies(in);
    bool sourced = late.head.kind == LATE_BIND || late.head.kind == LATE_OVERLAY;
    if (in->fd_count - channel_bodies(in) != (sourced ? 2u : 1u))
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, "expected a mount namespace, and the source if there is one");
    int source = sourced ? fds[1] : -1;
    int idmap = sourced ? open_source_map(&late.head, source) : -1;
    if (sourced && fchdir(source) != 0)
        report_failure(STEP_LATE_SOURCE, NO_RECORD, errno, "entering the source");
    if ((late.head.flags & LATE_LEASED) == 0) {
        late_enter_users(fds[0]);
        privileges_follow_parent(channel);
    }
    struct mounted mounted;
    bool told;
    if (late.head.kind == LATE_REMOVE) {
        late_enter_mounts(fds[0]);
        mounted.mount = take_out(&late);
        told = channel_send(channel, EVENT_MOUNTED, 0, &mounted, sizeof mounted) == 0;
    } else {
        late_leave_host();
        int tree = make_tree(&late, source, idmap);
        late_enter_mounts(fds[0]);
        mounted.mount = put_in_place(&late, tree);
        told = channel_send(channel, EVENT_MOUNTED, 0, &mounted, sizeof mounted) == 0;
        if (!told)
            (void)detach(tree); /* nobody knows of it, so nobody would take it out */
    }
    _exit(told ? 0 : 1);
}
