/* Owns user namespaces: the session's own id map, and the maps of idmapped mounts. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWNERS_LIMIT 64
#define COUNTS_SHARE 4
#define MAKER_STACK 4096

static struct {
    uid_t uid;
    gid_t gid;
    int fd;
    pid_t maker; /* to be waited for */
} owners[OWNERS_LIMIT];
static size_t owner_count;

pid_t process_clone(unsigned long flags) {
    /* The raw call, since glibc's wants a stack: a plain fork into new namespaces. */
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

static char *append_text(char *at, const char *text) {
    size_t length = strlen(text);
    memcpy(at, text, length + 1);
    return at + length;
}

static char *append_number(char *at, uint32_t number) {
    char digits[11];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0)
        *at++ = digits[--count];
    *at = '\0';
    return at;
}

/* A pid of 0 is ourselves: as seen through a procfs of the pid namespace outside, our number is
 * another than the one we know. */
static void proc_path(char path[64], pid_t pid, const char *name) {
    char *at = append_text(path, "/proc/");
    at = pid == 0 ? append_text(at, "self") : append_number(at, (uint32_t)pid);
    append_text(append_text(at, "/"), name);
}

static int write_proc(pid_t pid, const char *name, const char *text) {
    char path[64];
    proc_path(path, pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t length = (ssize_t)strlen(text), written = write(fd, text, (size_t)length);
    int error = written == length ? 0 : written < 0 ? errno : EIO;
    if (close(fd) != 0 && error == 0)
        error = errno;
    return error;
}

/* A line of an id map: `count` ids from `inside` on are those from `outside` on. */
static char *append_range(char *at, uint32_t inside, uint32_t outside, uint32_t count) {
    at = append_text(append_number(at, inside), " ");
    at = append_text(append_number(at, outside), " ");
    return append_text(append_number(at, count), "\n");
}

static int write_map(pid_t pid, const char *name, uint32_t inside, uint32_t outside, uint32_t count) {
    char text[48];
    append_range(text, inside, outside, count);
    return write_proc(pid, name, text);
}

/* Of files: what is the owner's is the session's own user's, and its other users have ids of their own
 * on disk. Where the owner has one of those, it can't be mapped twice, and the owner counts. */
static int write_disk_map(pid_t pid, const char *name, uint32_t owner, uint32_t host, const struct identity *identity) {
    char text[96];
    char *at = append_range(text, owner, host, 1);
    if (identity->further != 0 && owner - identity->disk >= identity->further)
        append_range(at, identity->disk, host + 1, identity->further);
    return write_proc(pid, name, text);
}

void user_map(pid_t pid, const struct identity *identity) {
    int error = 0;
    if (identity->mode == IDENTITY_CALLER)
        /* user_namespaces(7): without CAP_SETGID outside, a gid map needs setgroups denied first. */
        error = write_proc(pid, "setgroups", "deny");
    if (error == 0)
        error = write_map(pid, "uid_map", identity->uid, identity->host_uid, identity->further + 1);
    if (error == 0)
        error = write_map(pid, "gid_map", identity->gid, identity->host_gid, identity->further + 1);
    if (error != 0)
        report_failure(STEP_USER, NO_RECORD, error, "writing the id map of the user namespace");
    report_done(STEP_USER, NO_RECORD, 0);
}

/* What the kernel counts for a user as a whole (user_namespaces(7)) it also counts for whoever made
 * the user namespace: a session could leave the caller's own programs nothing to watch files with.
 * Each file of /proc/sys/user is that of the user namespace which opens it, so it is opened inside,
 * by a procfs that is still without its covers. */
static int proc_outside = -1;

void user_counts_open(void) {
    proc_outside = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc_outside < 0)
        report_failure(STEP_COUNTS, NO_RECORD, errno, "/proc");
}

/* A part of what the machine allows each user, so that a few sessions leave the caller some. The kernel
 * holds each of a session's users to it alone, so they get as much together. */
static int bound_count(const char *machine, const char *own, uint32_t users) {
    char text[16];
    int fd = openat(proc_outside, machine, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t length = read(fd, text, sizeof text - 1);
    int error = length < 0 ? errno : 0;
    (void)close(fd);
    if (error != 0)
        return error;
    text[length] = '\0';
    long whole = strtol(text, NULL, 10);
    if (whole < 0 || whole > INT_MAX)
        return ERANGE;
    append_number(text, (uint32_t)(whole / COUNTS_SHARE / users + 1));
    fd = openat(proc_outside, own, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t size = (ssize_t)strlen(text), written = write(fd, text, (size_t)size);
    error = written == size ? 0 : written < 0 ? errno : EIO;
    (void)close(fd);
    return error;
}

/* Where /proc/sys is read-only (containers), closed or missing, the kernel's own limits stay, and that
 * is told: it is no wall. */
void user_counts_bound(const struct identity *identity) {
    uint32_t users = identity->further + 1;
    int error = bound_count("sys/fs/inotify/max_user_instances", "sys/user/max_inotify_instances", users);
    if (error == 0)
        error = bound_count("sys/fs/inotify/max_user_watches", "sys/user/max_inotify_watches", users);
    if (error != 0 && error != EROFS && error != EACCES && error != ENOENT)
        report_failure(STEP_COUNTS, NO_RECORD, error, "bounding what is counted for the caller");
    report_done(STEP_COUNTS, NO_RECORD, error);
    (void)close(proc_outside);
    proc_outside = -1;
}

void user_map_self(const struct identity *identity) { user_map(0, identity); }

static int end_at_once(void *nothing) {
    (void)nothing;
    return 0;
}

/* A user namespace that maps the owner on disk to the sandbox's identity, kept alive by its
 * descriptor alone. The process that it is made with, `maker`, ends at once: until it is waited for, its
 * namespace is there, and nothing has to be ended where a step fails. It has our memory, so that none is
 * copied, and we go on when it has ended. */
static int make_idmap(uid_t uid, gid_t gid, const struct identity *identity, pid_t *maker) {
    static char stack[MAKER_STACK] __attribute__((aligned(16)));
    char path[64];
    pid_t pid = clone(end_at_once, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_NEWUSER | SIGCHLD, NULL);
    *maker = pid;
    if (pid < 0)
        return -errno;
    int error = write_disk_map(pid, "uid_map", uid, identity->host_uid, identity);
    if (error == 0)
        error = write_disk_map(pid, "gid_map", gid, identity->host_gid, identity);
    proc_path(path, pid, "ns/user");
    int fd = error == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (error == 0 && fd < 0)
        error = errno;
    return error == 0 ? fd : -error;
}

int user_idmap_open(uid_t uid, gid_t gid, const struct identity *identity) {
    pid_t maker;
    int fd = make_idmap(uid, gid, identity, &maker);
    if (maker > 0 && waitpid(maker, NULL, 0) != maker && fd >= 0) {
        int error = errno;
        (void)close(fd);
        return -error;
    }
    return fd;
}

int user_idmap(uid_t uid, gid_t gid) {
    for (size_t i = 0; i < owner_count; i++)
        if (owners[i].uid == uid && owners[i].gid == gid)
            return owners[i].fd;
    return -1;
}

void user_idmaps_open(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++) {
        struct bind bind;
        struct stat facts;
        if (plan->records[i].op != RECORD_BIND)
            continue;
        memcpy(&bind, plan->records[i].data, sizeof bind);
        const char *source = (const char *)plan->records[i].data + sizeof bind;
        if ((bind.flags & BIND_AS_OWNER) == 0 || (bind.flags & (BIND_PASSED | BIND_INSIDE)) != 0)
            continue;
        if (lstat(source, &facts) != 0) {
            if (errno == ENOENT && (bind.flags & BIND_OPTIONAL) != 0)
                continue;
            report_failure(STEP_IDMAP, i, errno, source);
        }
        if (user_idmap(facts.st_uid, facts.st_gid) >= 0)
            continue;
        pid_t maker = 0;
        int fd = owner_count == OWNERS_LIMIT ? -ENOSPC : make_idmap(facts.st_uid, facts.st_gid, &plan->identity, &maker);
        if (fd < 0)
            report_failure(STEP_IDMAP, i, -fd, source);
        owners[owner_count].uid = facts.st_uid;
        owners[owner_count].gid = facts.st_gid;
        owners[owner_count].maker = maker;
        owners[owner_count++].fd = fd;
    }
}

void user_idmaps_settle(void) {
    for (size_t i = 0; i < owner_count; i++)
        if (waitpid(owners[i].maker, NULL, 0) != owners[i].maker)
            report_failure(STEP_IDMAP, NO_RECORD, errno, "waiting for what made an id map");
}
