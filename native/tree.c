/* Owns the knowledge of who descends from whom, and the end of a whole tree.
 *
 * A keeper is its job's child subreaper, so every process of the job, double forks and setsid
 * included, is a descendant of the keeper for as long as both live (prctl(2)). */
#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TREE_LIMIT 8192 /* processes seen in one pass; what is beyond is seen in the next */
#define FREEZE_ROUNDS 20
#define HUNG_ROUNDS 2 /* of freezing, in which a process that waits in the kernel may still come back */

struct tree {
    size_t count;
    pid_t pids[TREE_LIMIT];
    pid_t parents[TREE_LIMIT];
    char states[TREE_LIMIT];
    bool inside[TREE_LIMIT];
};

struct entry { /* struct linux_dirent64, which no header declares */
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static struct tree scanned; /* untouched, and so no memory, until something has to be ended */

/* Digits to a number; -1 for anything else. */
static long parse_number(const char *text) {
    long number = 0;
    if (*text == '\0')
        return -1;
    for (; *text != '\0' && *text != ' '; text++) {
        if (*text < '0' || *text > '9' || number > 99999999)
            return -1;
        number = number * 10 + (*text - '0');
    }
    return number;
}

/* Reads "pid (name) state ppid …" of proc_pid_stat(5). The name is the process's own to choose, so
 * it ends at the last parenthesis. Returns false for a process that has gone. */
static bool read_stat(int proc, const char *pid, char *state, pid_t *parent, char name[16]) {
    char path[24], text[512];
    size_t length = strlen(pid);
    if (length > 10)
        return false;
    memcpy(path, pid, length); /* NOLINT(bugprone-not-null-terminated-result): "/stat" brings the NUL */
    memcpy(path + length, "/stat", 6);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (got <= 0)
        return false;
    text[got] = '\0';
    char *open_name = strchr(text, '('), *close_name = strrchr(text, ')');
    if (open_name == NULL || close_name == NULL || strlen(close_name) < 5)
        return false;
    long number = parse_number(close_name + 4);
    if (number < 0)
        return false;
    *state = close_name[2];
    *parent = (pid_t)number;
    if (name != NULL) {
        size_t size = (size_t)(close_name - open_name - 1);
        memset(name, 0, 16);
        memcpy(name, open_name + 1, size < 15 ? size : 15);
    }
    return true;
}

/* Returns false where the numbers do not ascend, as proc(5)'s do: is_inside() leans on it. */
static bool scan_entries(struct tree *tree, int proc, const char *entries, size_t size) {
    for (size_t at = 0; at < size;) {
        const struct entry *entry = (const struct entry *)(entries + at);
        long pid = parse_number(entry->name);
        at += entry->length;
        if (pid <= 0 || tree->count == TREE_LIMIT)
            continue;
        size_t i = tree->count;
        if (i > 0 && tree->pids[i - 1] >= (pid_t)pid)
            return false;
        if (!read_stat(proc, entry->name, &tree->states[i], &tree->parents[i], NULL))
            continue;
        tree->pids[i] = (pid_t)pid;
        tree->inside[i] = false;
        tree->count++;
    }
    return true;
}

static bool scan(struct tree *tree) {
    char entries[8192] __attribute__((aligned(8)));
    bool ascending = true;
    long got = 0;
    tree->count = 0;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return false;
    while (ascending && (got = syscall(SYS_getdents64, proc, entries, sizeof entries)) > 0)
        ascending = scan_entries(tree, proc, entries, (size_t)got);
    (void)close(proc);
    return ascending && got == 0;
}

static bool is_among(pid_t pid, const pid_t *pids, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

static bool is_inside(const struct tree *tree, pid_t pid) {
    size_t low = 0, high = tree->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tree->pids[middle] == pid)
            return tree->inside[middle];
        if (tree->pids[middle] < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* Marks the descendants of `root`, leaving out the `spared` and what descends from them. Returns
 * false where not all could be seen; what was seen is marked all the same. */
static bool tree_find(struct tree *tree, pid_t root, const pid_t *spared, size_t spared_count) {
    bool whole = scan(tree);
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < tree->count; i++) {
            if (tree->inside[i] || is_among(tree->pids[i], spared, spared_count))
                continue;
            if (tree->parents[i] == root || is_inside(tree, tree->parents[i]))
                tree->inside[i] = changed = true;
        }
    }
    return whole;
}

/* Signals every living descendant; returns how many there were, or TREE_UNKNOWN. */
size_t tree_signal(pid_t root, const pid_t *spared, size_t spared_count, int number) {
    size_t living = 0;
    bool whole = tree_find(&scanned, root, spared, spared_count);
    for (size_t i = 0; i < scanned.count; i++) {
        if (!scanned.inside[i] || scanned.states[i] == 'Z' || scanned.states[i] == 'X')
            continue;
        living++;
        (void)kill(scanned.pids[i], number); /* ESRCH: it ended by itself */
    }
    return whole ? living : TREE_UNKNOWN;
}

/* Stops a tree that forks faster than it can be killed: what is stopped cannot fork, and still takes
 * the places that the limit on processes leaves.
 *
 * What waits in the kernel ('D') stops when it comes back, before it could fork again, and that may
 * be never: it is looked for twice, so that the child of a fork under way is seen. */
void tree_freeze(pid_t root, const pid_t *spared, size_t spared_count) {
    for (int round = 0; round < FREEZE_ROUNDS; round++) {
        bool running = !tree_find(&scanned, root, spared, spared_count);
        for (size_t i = 0; i < scanned.count; i++) {
            if (!scanned.inside[i] || strchr("TtZX", scanned.states[i]) != NULL)
                continue;
            if (scanned.states[i] != 'D' || round < HUNG_ROUNDS)
                running = true;
            (void)kill(scanned.pids[i], SIGSTOP);
        }
        if (!running)
            return;
    }
}

/* Describes up to `room` living descendants; returns how many there are, or TREE_UNKNOWN. */
size_t tree_list(pid_t root, struct leftover *out, size_t room) {
    size_t living = 0;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return TREE_UNKNOWN;
    bool whole = tree_find(&scanned, root, NULL, 0);
    for (size_t i = 0; i < scanned.count; i++) {
        char pid[12], state;
        pid_t parent;
        if (!scanned.inside[i] || scanned.states[i] == 'Z' || scanned.states[i] == 'X')
            continue;
        if (living++ >= room)
            continue;
        char *at = pid + sizeof pid;
        *--at = '\0';
        for (pid_t rest = scanned.pids[i]; rest > 0; rest /= 10)
            *--at = (char)('0' + rest % 10);
        out[living - 1].pid = (uint32_t)scanned.pids[i];
        if (!read_stat(proc, at, &state, &parent, out[living - 1].name))
            living--;
    }
    (void)close(proc);
    return whole ? living : TREE_UNKNOWN;
}
