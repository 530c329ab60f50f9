/* Owns the knowledge of who descends from whom, and the end of a whole tree.
 *
 * A keeper is its job's child subreaper, so every process of the job, double forks and setsid
 * included, is a descendant of the keeper for as long as both live (prctl(2)).
 *
 * Where there is no procfs inside, the one outside is looked at, by a descriptor that no command
 * gets. It counts processes in the numbers of outside: a process's own number, the only one that
 * kill(2) takes here, is the last of those that its status lists. */
#include "init.h"
#include "pace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* on every machine; older headers lack it */
#endif

#define TREE_LIMIT 65536 /* processes seen in one pass: outside there are those of the whole machine */
#define PLAIN_ROUNDS 1 /* of SIGKILL alone, before the whole tree is frozen first */
#define ABOVE_PLACES 16 /* no descriptor has its place here */
#define SPACES_TO_GROUP 3 /* from the parenthesis that ends the name, see proc_pid_stat(5) */
#define SPACES_TO_FOREGROUND 6
#define FOR_THREADS O_EXCL /* PIDFD_THREAD, Linux 6.9; before, what threads are refused is nobody's */
#define STOP_BIT (1ull << (SIGSTOP - 1)) /* of the sets of signals there */
#define STATUS_ROOM 4096 /* of proc_pid_status(5) */
#define ANCESTORS_LIMIT 256 /* that are looked at for one process */

struct tree {
    size_t count;
    pid_t pids[TREE_LIMIT]; /* as procfs counts them */
    pid_t numbers[TREE_LIMIT]; /* as we do; 0 until it is asked for */
    pid_t parents[TREE_LIMIT];
    char states[TREE_LIMIT];
    enum mark { UNKNOWN, CLIMBED, OUTSIDE, INSIDE } marks[TREE_LIMIT];
    pid_t seen[TREE_LIMIT]; /* by the look that stops them, in ascending order */
};

struct entry { /* struct linux_dirent64, which no header declares */
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static struct tree scanned; /* untouched, and so no memory, until something has to be ended */
static pid_t stopped[TREE_LIMIT]; /* by the look before, in ascending order */
static size_t stopped_count;
static int outside = -1; /* the procfs outside */

void tree_look_outside(void) {
    int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    outside = proc < 0 ? -1 : fcntl(proc, F_DUPFD_CLOEXEC, ABOVE_PLACES);
    if (outside < 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "opening /proc, to see what commands start");
    (void)close(proc);
}

int tree_outside(void) { return outside; }

/* Moves what we hold to `place`; returns the next free one, or -1. */
int tree_keep(int place) {
    if (outside < 0)
        return place;
    if (outside != place && dup3(outside, place, O_CLOEXEC) < 0)
        return -1;
    outside = place;
    return place + 1;
}

static int open_proc(void) {
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    return outside < 0 ? open("/proc", flags) : openat(outside, ".", flags);
}

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

/* Returns false where there are too many, or the numbers do not ascend, as proc(5)'s do: find_index()
 * leans on it. */
static bool scan_entries(struct tree *tree, int proc, const char *entries, size_t size) {
    for (size_t at = 0; at < size;) {
        const struct entry *entry = (const struct entry *)(entries + at);
        long pid = parse_number(entry->name);
        at += entry->length;
        if (pid <= 0)
            continue;
        if (tree->count == TREE_LIMIT)
            return false;
        size_t i = tree->count;
        if (i > 0 && tree->pids[i - 1] >= (pid_t)pid)
            return false;
        if (!read_stat(proc, entry->name, &tree->states[i], &tree->parents[i], NULL))
            continue;
        tree->pids[i] = (pid_t)pid;
        tree->numbers[i] = outside < 0 ? (pid_t)pid : 0;
        tree->marks[i] = UNKNOWN;
        tree->count++;
    }
    return true;
}

static bool scan(struct tree *tree) {
    char entries[8192] __attribute__((aligned(8)));
    bool ascending = true;
    long got = 0;
    tree->count = 0;
    int proc = open_proc();
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

/* The place of a number among ascending ones, or the count where it is not among them. */
static size_t find_ascending(const pid_t *pids, size_t count, pid_t pid) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pids[middle] == pid)
            return middle;
        if (pids[middle] < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return count;
}

static size_t find_index(const struct tree *tree, pid_t pid) { return find_ascending(tree->pids, tree->count, pid); }

static void write_number(char text[12], pid_t pid) {
    char *at = text + 11;
    *at = '\0';
    for (pid_t rest = pid; rest > 0; rest /= 10)
        *--at = (char)('0' + rest % 10);
    memmove(text, at, (size_t)(text + 12 - at));
}

/* The last word of a line of proc_pid_status(5), or "" for a process that has gone. */
static const char *read_status(int proc, pid_t pid, const char *name, char text[STATUS_ROOM]) {
    char path[24];
    write_number(path, pid);
    memcpy(path + strlen(path), "/status", 8); /* NOLINT(bugprone-not-null-terminated-result): it brings the NUL */
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, STATUS_ROOM - 1);
    if (fd >= 0)
        (void)close(fd);
    if (got <= 0)
        return "";
    text[got] = '\0';
    char *line = strstr(text, name), *end = line == NULL ? NULL : strchr(line + 1, '\n');
    if (end == NULL)
        return "";
    *end = '\0';
    return strrchr(line, '\t') == NULL ? "" : strrchr(line, '\t') + 1;
}

/* The number that ends "\nNSpid:" or "\nNSpgid:", which list a process's numbers from procfs's own
 * namespace down to the process's; 0 for one that has gone. */
static pid_t read_number(pid_t pid, const char *name) {
    char text[STATUS_ROOM];
    long number = parse_number(read_status(outside, pid, name, text));
    return number > 0 ? (pid_t)number : 0;
}

/* The number that kill(2) takes, or 0 for a process that has gone. */
static pid_t own_number(struct tree *tree, size_t i) {
    if (tree->numbers[i] == 0)
        tree->numbers[i] = read_number(tree->pids[i], "\nNSpid:");
    return tree->numbers[i];
}

static void signal_one(struct tree *tree, size_t i, int number) {
    pid_t pid = own_number(tree, i);
    if (pid > 0)
        (void)kill(pid, number); /* ESRCH: it ended by itself */
}

/* Our own number as procfs counts it, or -1. */
static pid_t root_number(pid_t root) {
    char text[16];
    if (outside < 0)
        return root;
    ssize_t size = readlinkat(outside, "self", text, sizeof text - 1);
    if (size <= 0)
        return -1;
    text[size] = '\0';
    return (pid_t)parse_number(text);
}

/* Climbs from a process to where it is known whether it descends from `root`, and marks the way. Each
 * process is climbed over once, however deep the tree is and in whatever order its numbers are. */
static void judge(struct tree *tree, size_t from, pid_t root, const pid_t *spared, size_t spared_count) {
    enum mark verdict = OUTSIDE; /* also of a circle, which numbers that were used again may feign */
    size_t at = from;
    while (at < tree->count && tree->marks[at] == UNKNOWN) {
        tree->marks[at] = CLIMBED;
        if (tree->parents[at] == root) {
            bool is_spared = spared_count > 0 && is_among(own_number(tree, at), spared, spared_count);
            verdict = is_spared ? OUTSIDE : INSIDE;
            break;
        }
        at = find_index(tree, tree->parents[at]);
    }
    if (at < tree->count && tree->marks[at] != CLIMBED)
        verdict = tree->marks[at];
    for (at = from; at < tree->count && tree->marks[at] == CLIMBED; at = find_index(tree, tree->parents[at]))
        tree->marks[at] = verdict;
}

/* Marks the descendants of `self`, which is us, leaving out the `spared`, which are children of ours,
 * and what descends from them. Returns false where not all could be seen; what was seen is marked all
 * the same. */
static bool tree_find(struct tree *tree, pid_t self, const pid_t *spared, size_t spared_count) {
    pid_t root = root_number(self);
    bool whole = scan(tree) && root > 0;
    for (size_t i = 0; i < tree->count; i++)
        judge(tree, i, root, spared, spared_count);
    return whole;
}

/* Signals every living descendant; returns how many there were, or TREE_UNKNOWN. */
size_t tree_signal(pid_t root, const pid_t *spared, size_t spared_count, int number) {
    size_t living = 0;
    bool whole = tree_find(&scanned, root, spared, spared_count);
    for (size_t i = 0; i < scanned.count; i++) {
        if (scanned.marks[i] != INSIDE || scanned.states[i] == 'Z' || scanned.states[i] == 'X')
            continue;
        living++;
        signal_one(&scanned, i, number);
    }
    return whole ? living : TREE_UNKNOWN;
}

/* Stops a tree that forks faster than it can be killed: what is stopped cannot fork, and still takes
 * the places that the limit on processes leaves.
 *
 * All is stopped when a look finds nobody whom the look before had not found and signalled. Nobody is
 * waited for: a fork gives up where a signal is pending (copy_process() looks last of all), so that
 * what has not come round to stopping, among hundreds that want a processor, has no children either. */
void tree_freeze(pid_t root, const pid_t *spared, size_t spared_count, int rounds) {
    stopped_count = 0;
    for (int round = 0; round < rounds; round++) {
        bool fresh = !tree_find(&scanned, root, spared, spared_count);
        size_t count = 0;
        for (size_t i = 0; i < scanned.count; i++) {
            if (scanned.marks[i] != INSIDE || scanned.states[i] == 'Z' || scanned.states[i] == 'X')
                continue;
            fresh = fresh || find_ascending(stopped, stopped_count, scanned.pids[i]) == stopped_count;
            if (scanned.states[i] != 'T' && scanned.states[i] != 't')
                signal_one(&scanned, i, SIGSTOP);
            scanned.seen[count++] = scanned.pids[i];
        }
        memcpy(stopped, scanned.seen, count * sizeof *stopped);
        stopped_count = count;
        if (!fresh)
            return;
    }
}

/* Lets all go on below us that was told to stop by one signal to everybody: likewise where nobody is to be
 * left out, or the look fails, for nobody may stay stopped for want of it; else one by one, children before
 * their parents. Who had been stopped before has that first signal still to come, since only who runs takes
 * one: it is left as it was. */
void tree_go_on(pid_t root) {
    char text[STATUS_ROOM];
    size_t left_out = 0;
    int proc = open_proc();
    bool whole = proc >= 0 && tree_find(&scanned, root, NULL, 0);
    for (size_t i = 0; whole && i < scanned.count; i++) {
        if (scanned.marks[i] != INSIDE || scanned.states[i] != 'T' ||
            (strtoull(read_status(proc, scanned.pids[i], "\nShdPnd:", text), NULL, 16) & STOP_BIT) == 0)
            continue;
        scanned.marks[i] = OUTSIDE;
        left_out++;
    }
    if (proc >= 0)
        (void)close(proc);
    if (left_out == 0)
        (void)kill(-1, SIGCONT);
    for (size_t i = left_out == 0 ? 0 : scanned.count; i-- > 0;)
        if (scanned.marks[i] == INSIDE)
            signal_one(&scanned, i, SIGCONT);
}

/* A number of a process's stat, as procfs counts it; 0 for none, or for a process that has gone. */
static pid_t read_field(pid_t pid, int spaces) {
    char path[24], text[512];
    int proc = open_proc();
    if (proc < 0)
        return 0;
    write_number(path, pid);
    memcpy(path + strlen(path), "/stat", 6); /* NOLINT(bugprone-not-null-terminated-result): it brings the NUL */
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        (void)close(fd);
    (void)close(proc);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    const char *at = strrchr(text, ')'); /* the name before it is the process's own to choose */
    for (int space = 0; at != NULL && space < spaces; space++)
        at = strchr(at + 1, ' ');
    long number = at == NULL ? 0 : parse_number(at + 1);
    return number > 0 ? (pid_t)number : 0;
}

/* The group that has a command's terminal, in our own namespace, in which a signal reaches nobody
 * outside. One of which no process is left has nobody to be told either. */
pid_t tree_foreground(pid_t command) {
    pid_t group = 0;
    if (outside < 0)
        return read_field(command, SPACES_TO_FOREGROUND);
    (void)tree_find(&scanned, getpid(), NULL, 0);
    for (size_t i = 0; i < scanned.count && group == 0; i++)
        if (scanned.marks[i] == INSIDE && own_number(&scanned, i) == command)
            group = read_field(scanned.pids[i], SPACES_TO_FOREGROUND);
    for (size_t i = 0; i < scanned.count && group != 0; i++)
        if (scanned.marks[i] == INSIDE && read_field(scanned.pids[i], SPACES_TO_GROUP) == group)
            return read_number(scanned.pids[i], "\nNSpgid:");
    return 0;
}

/* Where the procfs outside hides what others may not trace (hidepid), a command that gives up being
 * dumpable would be out of our sight, and never ended. Tried by such a process, since we are one. */
void tree_try_outside(void) {
    if (outside < 0)
        return;
    pid_t child = fork();
    if (child == 0)
        for (;;)
            (void)pause();
    if (child < 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "forking, to see whether processes can be seen");
    size_t seen = tree_signal(getpid(), NULL, 0, SIGKILL);
    (void)kill(child, SIGKILL);
    if (waitpid(child, NULL, 0) != child)
        report_failure(STEP_SERVE, NO_RECORD, errno, "waiting for a child");
    if (seen != 1)
        report_failure(STEP_SERVE, NO_RECORD, EACCES, "not all processes can be seen in /proc (hidepid?)");
}

/* Describes up to `room` living descendants; returns how many there are, or TREE_UNKNOWN. */
size_t tree_list(pid_t root, struct leftover *out, size_t room) {
    size_t living = 0;
    int proc = open_proc();
    if (proc < 0)
        return TREE_UNKNOWN;
    bool whole = tree_find(&scanned, root, NULL, 0);
    for (size_t i = 0; i < scanned.count; i++) {
        char pid[12], state;
        pid_t parent;
        if (scanned.marks[i] != INSIDE || scanned.states[i] == 'Z' || scanned.states[i] == 'X')
            continue;
        if (living++ >= room)
            continue;
        write_number(pid, scanned.pids[i]);
        out[living - 1].pid = (uint32_t)own_number(&scanned, i);
        if (out[living - 1].pid == 0 || !read_stat(proc, pid, &state, &parent, out[living - 1].name))
            living--;
    }
    (void)close(proc);
    return whole ? living : TREE_UNKNOWN;
}

/* The number by which the procfs outside knows a process of ours, or 0: a descriptor of a process tells
 * the numbers of all namespaces from procfs's own downwards. */
static pid_t outside_number(pid_t pid) {
    char path[32] = "self/fdinfo/", text[512];
    int process = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process < 0) /* it is no process but a thread of one */
        process = (int)syscall(SYS_pidfd_open, pid, FOR_THREADS);
    if (process < 0)
        return 0;
    write_number(path + strlen(path), process);
    int fd = openat(outside, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        (void)close(fd);
    (void)close(process);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    const char *line = strstr(text, "\nPid:\t");
    char *end = line == NULL ? NULL : strchr(line + 1, '\n');
    if (end == NULL)
        return 0;
    *end = '\0';
    long number = parse_number(line + 6);
    return number > 0 ? (pid_t)number : 0;
}

size_t tree_origin(pid_t pid, const pid_t *roots, size_t count, char name[16]) {
    char text[12], state, *wanted = name;
    size_t found = count;
    int proc = open_proc();
    pid_t at = outside < 0 ? pid : outside_number(pid);
    for (int steps = 0; proc >= 0 && at > 1 && steps < ANCESTORS_LIMIT && found == count; steps++) {
        pid_t own = outside < 0 ? at : read_number(at, "\nNSpid:");
        for (size_t i = 0; i < count && own > 0; i++)
            if (roots[i] == own)
                found = i;
        write_number(text, at);
        if (found == count && !read_stat(proc, text, &state, &at, wanted))
            break;
        wanted = NULL; /* only of the first */
    }
    if (proc >= 0)
        (void)close(proc);
    return found;
}

/* Ends all that descends from us, for as long as it takes. For a process that nobody else's end takes
 * along, and that is a child subreaper, so that nothing gets away. */
void tree_end(void) {
    struct pace pace = {0, 0};
    for (unsigned rounds = 0;; rounds++) {
        pid_t ended = waitpid(-1, NULL, WNOHANG);
        while (ended > 0) {
            pace_quicken(&pace);
            ended = waitpid(-1, NULL, WNOHANG);
        }
        if (ended < 0 && errno == ECHILD)
            return;
        if (pace_is_due(&pace)) {
            if (rounds >= PLAIN_ROUNDS)
                tree_freeze(getpid(), NULL, 0, FREEZE_ROUNDS);
            (void)tree_signal(getpid(), NULL, 0, SIGKILL);
        }
        struct timespec pause = {0, (long)pace_timeout(&pace) * 1000000};
        (void)nanosleep(&pause, NULL);
    }
}
