/* Owns layered trees: directories that are never changed, laid upon each other, and one on top that takes
 * what is changed, seen as one tree (overlayfs).
 *
 * It is made before the sandbox that shows it, by a program of its own that ends when it stands. It stands
 * in a mount namespace in which there is nothing else, and to which only descriptors lead: those that the
 * host is given, one of the tree's top and one of the namespace. When they are closed, it is gone. Each
 * sandbox shows a clone, for which the host starts us once more. An ordinary user's tree is made in a user
 * namespace of its own. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- the layers ----------------------------------------------------------------------------------- */

static int taken[LAYERS_LIMIT]; /* mounts that stand nowhere yet */

static struct { /* the map that was made last: layers often have one owner */
    uid_t uid;
    gid_t gid;
    int fd;
} last_map = {.fd = -1};

static int owner_map(const struct layers_head *head, uint32_t index, const struct stat *facts) {
    struct identity identity = {.host_uid = head->uid, .host_gid = head->gid};
    if ((head->flags & LAYERS_LEASED) == 0)
        return -1;
    if (last_map.fd >= 0 && last_map.uid == facts->st_uid && last_map.gid == facts->st_gid)
        return last_map.fd;
    int map = user_idmap_open(facts->st_uid, facts->st_gid, &identity);
    if (map < 0)
        report_failure(STEP_IDMAP, index, -map, "mapping the owner of a layer");
    if (last_map.fd >= 0)
        (void)close(last_map.fd);
    last_map.uid = facts->st_uid;
    last_map.gid = facts->st_gid;
    last_map.fd = map;
    return map;
}

/* The layer as a mount of its own that stands nowhere yet; the first one can be written to. */
static int take_layer(const struct layers_head *head, uint32_t index, const struct layer *layer, const char *path) {
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    struct stat facts;
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (fd < 0 || fstat(fd, &facts) != 0)
        report_failure(STEP_LATE_SOURCE, index, errno, path);
    if (facts.st_dev != layer->dev || facts.st_ino != layer->ino)
        report_failure(STEP_LATE_SOURCE, index, ESTALE, path);
    int map = owner_map(head, index, &facts);
    int tree = mount_clone(fd);
    if (tree < 0)
        report_failure(STEP_LATE_SOURCE, index, errno, path);
    uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (index == 0 ? 0 : MOUNT_ATTR_RDONLY);
    if (mount_set(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, map) != 0)
        report_failure(map >= 0 ? STEP_IDMAP : STEP_LATE_SOURCE, index, errno, path);
    (void)close(fd);
    return tree;
}

/* All of them, before anything covers the root: from then on the kernel makes no user namespaces for us. */
static void take_layers(const struct layers *layers) {
    const unsigned char *at = layers->layers;
    for (uint32_t i = 0; i < layers->head.count; i++) {
        struct layer layer;
        const char *path;
        at += layer_read(at, &layer, &path);
        taken[i] = take_layer(&layers->head, i, &layer, path);
    }
}

/* --- where they stand ----------------------------------------------------------------------------- */

static char *append_name(char *at, uint32_t number) {
    if (number >= 10)
        *at++ = (char)('0' + number / 10);
    *at++ = (char)('0' + number % 10);
    *at = '\0';
    return at;
}

static int make_directory(int place, const char *name) {
    if (mkdirat(place, name, 0755) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, name);
    int fd = openat(place, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, name);
    return fd;
}

/* A tmpfs with a directory for each layer, and one for the tree. */
static int make_place(void) {
    struct option options[3];
    option_number(&options[0], "mode", 0755, 8);
    option_number(&options[1], "size", 4096, 10);
    option_number(&options[2], "nr_inodes", LAYERS_LIMIT + 8, 10);
    int place = filesystem_make("tmpfs", options, 3, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (place < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, -place, "making a tmpfs");
    if (mount_cover(place) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "attaching a tmpfs");
    return place;
}

static void lay_out(uint32_t count, int place) {
    for (uint32_t i = 0; i < count; i++) {
        char name[4];
        append_name(name, i);
        int directory = make_directory(place, name);
        if (mount_attach(taken[i], directory) != 0)
            report_failure(STEP_LATE_MAKE, i, errno, "attaching a layer");
        (void)close(directory);
        (void)close(taken[i]);
    }
}

/* Whoever makes an overlay lends it its rights, and what overlayfs makes for itself, such as the marks of
 * what was deleted, is that user's. Root has no name in layers that show the owner as another: so we take
 * the session's identity for files, and keep the capabilities. */
static void become_maker(const struct layers_head *head) {
    if ((head->flags & LAYERS_LEASED) == 0)
        return;
    if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "keeping capabilities");
    (void)setfsgid(head->gid);
    (void)setfsuid(head->uid);
    if ((uid_t)setfsuid((uid_t)-1) != head->uid || (gid_t)setfsgid((gid_t)-1) != head->gid)
        report_failure(STEP_LATE_MAKE, NO_RECORD, EPERM, "taking the session's identity");
}

/* The tree, at its place among the layers; returns its top. */
static int make_tree(const struct layers *layers, int place) {
    struct option options[5];
    char lower[256], *at = lower;
    for (uint32_t i = 1; i < layers->head.count; i++) {
        if (i > 1)
            *at++ = ':';
        at = append_name(at, i);
    }
    int directory = make_directory(place, "tree");
    if (fchdir(place) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "entering the layers");
    option_word(&options[0], "lowerdir", lower);
    option_word(&options[1], "upperdir", "0/upper");
    option_word(&options[2], "workdir", "0/work");
    option_word(&options[3], "userxattr", "");
    option_word(&options[4], "xino", "on"); /* or inode numbers could change under a session's rules */
    int tree = filesystem_make("overlay", options, 5, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (tree < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, -tree, "making an overlay");
    if (mount_attach(tree, directory) != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "attaching an overlay");
    (void)close(directory);
    (void)close(tree);
    int top = openat(place, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "opening an overlay");
    return top;
}

/* --- the order of things -------------------------------------------------------------------------- */

static void pass(int channel, uint32_t number, int fd) {
    int error = channel_send_fds(channel, EVENT_PASSED, number, NULL, 0, &fd, 1);
    if (error != 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, error, "handing a descriptor over");
}

static void make(int channel, const struct layers *layers) {
    const struct layers_head *head = &layers->head;
    struct identity identity = {.mode = IDENTITY_CALLER, .uid = head->uid, .gid = head->gid};
    if ((head->flags & LAYERS_LEASED) == 0) {
        identity.host_uid = geteuid();
        identity.host_gid = getegid();
        if (unshare(CLONE_NEWUSER) != 0)
            report_failure(STEP_USER, NO_RECORD, errno, "making a user namespace");
        user_map_self(&identity);
        privileges_follow_parent(channel);
    }
    late_leave_host();
    int namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        report_failure(STEP_LATE_ENTER, NO_RECORD, errno, "/proc/self/ns/mnt");
    take_layers(layers);
    int place = make_place();
    lay_out(head->count, place);
    become_maker(head);
    privileges_follow_parent(channel);
    int top = make_tree(layers, place);
    /* Else the copies of the host's mounts would keep these from being unmounted. */
    if (mount_pivot(place) != 0)
        report_failure(STEP_PIVOT, NO_RECORD, errno, "leaving the host's mounts");
    pass(channel, 0, top);
    pass(channel, 1, namespace);
}

/* What was made before, as a mount that stands nowhere yet. */
static void show(int channel, const struct layers *layers, const int *fds) {
    if ((layers->head.flags & LAYERS_LEASED) == 0)
        late_enter_users(fds[0]);
    privileges_follow_parent(channel);
    late_enter_mounts(fds[0]);
    int tree = mount_clone(fds[1]);
    if (tree < 0)
        report_failure(STEP_LATE_MAKE, NO_RECORD, errno, "cloning a layered tree");
    pass(channel, 0, tree);
}

_Noreturn void layers_run(int channel, struct incoming *in) {
    static struct layers layers;
    /* A layer on a network may never answer: who waits for it must not outlive the host that asked. */
    privileges_follow_parent(channel);
    const char *problem = decode_layers(in->body, in->head.size, &layers);
    if (problem != NULL)
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, problem);
    unsigned passed = in->fd_count - channel_bodies(in);
    if (passed != (layers.head.count == 0 ? 2u : 0u))
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, "expected a tree that was made before, or none");
    if (layers.head.count == 0)
        show(channel, &layers, in->fds + channel_bodies(in));
    else
        make(channel, &layers);
    _exit(0);
}
