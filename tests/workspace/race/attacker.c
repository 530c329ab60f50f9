/* Swaps what stands in a directory, as fast as the machine goes, until it is killed.
 *
 *   attacker ATTACK WORKSPACE OUTSIDE [LINK [UID]]
 *
 * It keeps in WORKSPACE a directory "d" with the files "secret" and "sub/file", and puts by turns
 * something else in their place; what, is said beside each attack. OUTSIDE is where its links lead.
 * The rounds that it has made are counted in the first bytes of the file that ATTACKER_COUNT names.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { PATH_ROOM = 4096, WIPE_DEPTH = 64, SWAPS = 8, TOWER = 1 << 12 };

static const char *outside;
static const char *link_text;
static char beside[PATH_ROOM];  /* a directory next to OUTSIDE, on the same file system */
static char outside_file[PATH_ROOM];
static char outside_linked[PATH_ROOM];

/* Back and forth, some times, so that more time goes into it than into putting things in place. */
static void swap(const char *one, const char *other) {
    for (int i = 0; i < SWAPS; i++)
        renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
}

static void put(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (write(fd, "inside", 6) != 6)
        abort();
    close(fd);
}

/* Removes a name and all below it, links as links. */
static void wipe(int directory, const char *name, int depth) {
    if (unlinkat(directory, name, 0) == 0 || (errno != EISDIR && errno != EPERM) || depth == 0)
        return;
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (entries == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            wipe(fd, entry->d_name, depth - 1);
    closedir(entries);
    unlinkat(directory, name, AT_REMOVEDIR);
}

static void build(void) {
    mkdir("d", 0755);
    mkdir("d/sub", 0755);
    put("d/secret");
    put("d/sub/file");
}

/* A link in place of the directory. */
static void swap_link(const char *target) {
    build();
    wipe(AT_FDCWD, "x", WIPE_DEPTH);
    if (symlink(target, "x") != 0)
        return;
    swap("d", "x");
}

static void attack_links(void) {
    swap_link(outside);
    swap_link("../outside");
}

static void attack_dots(void) {
    mkdir("d2", 0755);
    swap_link("d2/../../outside");
    swap_link("d2/../d2/../../outside");
}

/* A magic link of /proc: to the root, to where the reader stands, to what it has open. */
static void attack_magic(void) {
    char text[PATH_ROOM + 32];
    snprintf(text, sizeof text, "/proc/self/root%s", outside);
    swap_link(text);
    swap_link("/proc/self/cwd");
    if (link_text != NULL)
        swap_link(link_text);
}

/* A link in place of the file. */
static void attack_files(void) {
    build();
    wipe(AT_FDCWD, "x", WIPE_DEPTH);
    if (symlink(outside_file, "x") != 0)
        return;
    swap("d/secret", "x");
}

/* Something that opening waits for, or that notices it, in place of the file and the directory. */
static void attack_special(void) {
    build();
    wipe(AT_FDCWD, "x", WIPE_DEPTH);
    if (mkfifo("x", 0666) != 0)
        return;
    swap("d/secret", "x");
    swap("d", "x");
    swap("d/secret", "device"); /* which only root can make, and did before we came */
}

/* There, gone, a file, there again. */
static void attack_flaps(void) {
    build();
    wipe(AT_FDCWD, "x", WIPE_DEPTH);
    rename("d", "x");
    put("d");
    unlink("d");
    rename("x", "d");
    unlink("d/secret");
}

/* A name of a file outside in place of the file. */
static void attack_hard(void) {
    build();
    wipe(AT_FDCWD, "x", WIPE_DEPTH);
    if (link(outside_linked, "x") != 0)
        return;
    swap("d/secret", "x");
}

/* A nest is carried out of the workspace and back while somebody is in it. */
static void attack_nests(void) {
    char carried[PATH_ROOM + 32];
    snprintf(carried, sizeof carried, "%s/exit/n1", beside);
    build();
    mkdir("d/n1", 0755);
    mkdir("d/n1/n2", 0755);
    mkdir("d/n1/n2/n3", 0755);
    put("d/n1/n2/n3/file");
    rename("d/n1", carried);
    rename(carried, "d/n1");
    wipe(AT_FDCWD, carried, WIPE_DEPTH);
}

/* A lease, which makes whoever opens the file wait for its holder. */
static void attack_leases(void) {
    build();
    int fd = open("d/secret", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    signal(SIGIO, SIG_IGN);
    fcntl(fd, F_SETLEASE, F_WRLCK);
    usleep(300);
    close(fd);
}

/* Directories in directories, without end. */
static void attack_towers(void) {
    build();
    int here = open("d", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (int depth = 0; here >= 0 && depth < TOWER; depth++) {
        mkdirat(here, "t", 0755);
        int deeper = openat(here, "t", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(here);
        here = deeper;
    }
    if (here >= 0)
        close(here);
}

/* Another's directory in place of one that was just made. */
static void attack_gifts(void) {
    rename("d/kept", "d/new");
    rename("d/new", "d/kept");
}

/* WORKSPACE itself and OUTSIDE change places. */
static void attack_root(void) {
    swap(link_text, outside);
}

static const struct {
    const char *name;
    void (*run)(void);
} attacks[] = {
    {"links", attack_links},     {"files", attack_files}, {"dots", attack_dots},
    {"magic", attack_magic},     {"flaps", attack_flaps}, {"hard", attack_hard},
    {"special", attack_special}, {"nests", attack_nests}, {"leases", attack_leases},
    {"towers", attack_towers},   {"root", attack_root},   {"gifts", attack_gifts},
};

/* Where rounds are counted, for whoever wants to see that we are at work. */
static volatile unsigned long *open_count(void) {
    static unsigned long nobody;
    const char *path = getenv("ATTACKER_COUNT");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return &nobody;
    void *shared = mmap(NULL, sizeof nobody, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return shared == MAP_FAILED ? &nobody : shared;
}

int main(int count, char **words) {
    if (count < 4 || chdir(words[2]) != 0)
        return 2;
    uid_t uid = count > 5 ? (uid_t)atoi(words[5]) : geteuid();
    if (uid != geteuid() && (setgroups(0, NULL) != 0 || setgid(uid) != 0 || setuid(uid) != 0))
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    outside = words[3];
    link_text = count > 4 ? words[4] : NULL;
    snprintf(beside, sizeof beside, "%.*s", (int)(strrchr(outside, '/') - outside), outside);
    snprintf(outside_file, sizeof outside_file, "%s/secret", outside);
    snprintf(outside_linked, sizeof outside_linked, "%s/linked", outside);
    umask(0);
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        if (strcmp(attacks[i].name, words[1]) != 0)
            continue;
        volatile unsigned long *rounds = open_count();
        for (;;) {
            attacks[i].run();
            if (++*rounds == 3 && write(1, "ready\n", 6) != 6)
                return 1;
        }
    }
    return 2;
}
