/* Owns places in the new root: each is walked to by descriptor, without following a symlink, and made only
 * on the sandbox's own file system, so that a plan can't leave files in the caller's directories. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int top = -1;
static dev_t own_device;

int place_begin(int root) {
    struct stat facts;
    if (fstat(root, &facts) != 0)
        return errno;
    top = root;
    own_device = facts.st_dev;
    return 0;
}

bool place_is_ours(int fd) {
    struct stat facts;
    return fstat(fd, &facts) == 0 && facts.st_dev == own_device;
}

static int step_into(int at, const char *name) {
    return openat(at, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
}

/* The parent of the last target: a plan names the entries of one directory one after the other. */
static struct {
    char path[PATH_MAX];
    int fd;
    bool ours; /* on our own file system */
} last_parent = {.fd = -1};

static void forget_parent(void) {
    if (last_parent.fd >= 0)
        (void)close(last_parent.fd);
    last_parent.fd = -1;
}

/* A directory that stands already, however deep, in one call; no symlink is followed. */
static int open_standing(const char *path) {
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, top, path + 1, &how, sizeof how);
}

/* Walks to the directory `path`, making directories on our own file system as it goes. Returns a
 * descriptor or -errno. */
static int walk_to(const char *path) {
    char name[NAME_MAX + 1];
    size_t size = strlen(path);
    int at = size == 0 ? -1 : open_standing(path);
    if (at >= 0)
        return at;
    if (size > 0 && errno != ENOENT && errno != ELOOP) /* of a symlink the walk says ENOTDIR */
        return -errno;
    at = fcntl(top, F_DUPFD_CLOEXEC, 0);
    for (size_t start = 1; at >= 0 && start < size;) {
        const char *slash = memchr(path + start, '/', size - start);
        size_t end = slash == NULL ? size : (size_t)(slash - path);
        memcpy(name, path + start, end - start); /* decode.c bounds components to 255 bytes */
        name[end - start] = '\0';
        int next = step_into(at, name);
        if (next < 0 && errno == ENOENT && place_is_ours(at) && mkdirat(at, name, 0755) == 0)
            next = step_into(at, name);
        int error = errno;
        (void)close(at);
        errno = error;
        at = next;
        start = end + 1;
    }
    return at < 0 ? -errno : at;
}

/* The directory that holds the last component of `path`, and that component in `last` ("." for the
 * root itself). The descriptor stays this function's. Returns -errno on failure. */
int place_parent(const char *path, const char **last, bool *ours) {
    const char *slash = strrchr(path, '/');
    size_t size = (size_t)(slash - path);
    *last = slash[1] == '\0' ? "." : slash + 1;
    if (last_parent.fd >= 0 && strlen(last_parent.path) == size && memcmp(last_parent.path, path, size) == 0) {
        *ours = last_parent.ours;
        return last_parent.fd;
    }
    forget_parent();
    memcpy(last_parent.path, path, size);
    last_parent.path[size] = '\0';
    struct stat facts;
    int fd = walk_to(last_parent.path);
    if (fd < 0)
        return fd;
    if (fstat(fd, &facts) != 0)
        return -errno; /* which ends us, and closes it */
    last_parent.fd = fd;
    *ours = last_parent.ours = facts.st_dev == own_device;
    return fd;
}

/* Opens an existing target, or -errno. */
int place_open(const char *path) {
    const char *last;
    bool ours;
    int parent = place_parent(path, &last, &ours);
    if (parent < 0)
        return parent;
    int fd = openat(parent, last, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* What was opened beneath `path` before is covered now. */
void place_covered(const char *path) {
    size_t size = strlen(path);
    if (strncmp(last_parent.path, path, size) == 0 && strchr("/", last_parent.path[size]) != NULL)
        forget_parent();
}

void place_end(void) { forget_parent(); }
