/* Owns the Landlock layer: a second wall that holds even where a mount was forgotten, and the first
 * where there are no mounts. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

/* As in <linux/landlock.h> of ABI 6; older headers lack the last members. */
struct ruleset {
    uint64_t handled_fs, handled_net, scoped;
};

struct path_beneath {
    uint64_t access;
    int32_t parent;
} __attribute__((packed));

#define RULE_PATH_BENEATH 1
/* LANDLOCK_RESTRICT_SELF_*, of ABI 7. */
#define LOG_SAME_EXEC_OFF (1u << 0)
#define LOG_NEW_EXEC_ON (1u << 1)
/* The rights that make sense for something that is no directory: EXECUTE, WRITE_FILE, READ_FILE,
 * TRUNCATE, IOCTL_DEV; the kernel refuses a rule with others on a file. */
#define FILE_RIGHTS (1ull << 0 | 1ull << 1 | 1ull << 2 | 1ull << 14 | 1ull << 15)

int landlock_create(const struct landlock *landlock) {
    struct ruleset attributes = {landlock->handled, 0, landlock->scoped};
    /* A kernel that does not know a member refuses its non-zero bytes, and accepts the shorter
     * structure. */
    size_t size = landlock->scoped != 0 ? sizeof attributes : sizeof attributes.handled_fs;
    return (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
}

int landlock_allow(int ruleset, int place, uint64_t access) {
    struct path_beneath rule = {access, place};
    struct stat facts;
    if (fstat(place, &facts) != 0)
        return -1;
    if (!S_ISDIR(facts.st_mode))
        rule.access &= FILE_RIGHTS;
    if (rule.access == 0) /* which the kernel refuses, and which allows nothing */
        return 0;
    return (int)syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0);
}

/* Of a domain the audit hears what is refused until the next execve(2) and nothing after it, unless it is
 * told otherwise: commands are what comes after, and what init itself is refused is nobody's denial. */
int landlock_enter(int ruleset, bool logged) {
    unsigned flags = logged ? LOG_SAME_EXEC_OFF | LOG_NEW_EXEC_ON : 0;
    return (int)syscall(SYS_landlock_restrict_self, ruleset, flags);
}

#define ABOVE_PLACES 16 /* no descriptor has its place here */
#define READ_FILE (1ull << 2)
#define READ_DIRECTORY (1ull << 3)

static int commands = -1; /* the ruleset of commands, where it is not ours */
static bool audited; /* whether the audit hears of both */

/* Returns 0, or the errno for which the rule is left out: of what is not there, or is closed to us as
 * it will be to commands, nothing can be allowed. */
static int add_rule(int ruleset, uint32_t index, const unsigned char *data) {
    struct rule rule;
    struct stat facts;
    const char *path = (const char *)data + sizeof rule;

    memcpy(&rule, data, sizeof rule);
    bool certain = rule.dev != 0 || rule.ino != 0;
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0 && !certain && (errno == ENOENT || errno == EACCES))
        return errno;
    if (place < 0 || fstat(place, &facts) != 0)
        report_failure(STEP_LANDLOCK, index, errno, path);
    if (certain && (facts.st_dev != rule.dev || facts.st_ino != rule.ino))
        report_failure(STEP_LANDLOCK, index, ESTALE, path);
    if (landlock_allow(ruleset, place, rule.access) != 0)
        report_failure(STEP_LANDLOCK, index, errno, path);
    (void)close(place);
    return 0;
}

static int make_ruleset(uint32_t index, const unsigned char *data, bool scoped) {
    struct landlock landlock;
    memcpy(&landlock, data, sizeof landlock);
    audited = landlock.logged != 0;
    if (!scoped)
        landlock.scoped = 0;
    int ruleset = landlock_create(&landlock);
    if (ruleset < 0)
        report_failure(STEP_LANDLOCK, index, errno, "creating the ruleset");
    return ruleset;
}

/* We may look at processes, by the descriptor alone where no path leads there, and commands may not.
 * They get a ruleset of their own, without the scopes: these they share with us and each other. */
static void split_rules(int ruleset, uint32_t index, const unsigned char *data) {
    if (landlock_allow(ruleset, tree_outside(), READ_FILE | READ_DIRECTORY) != 0)
        report_failure(STEP_LANDLOCK, index, errno, "/proc");
    int made = make_ruleset(index, data, false);
    commands = fcntl(made, F_DUPFD_CLOEXEC, ABOVE_PLACES);
    if (commands < 0)
        report_failure(STEP_LANDLOCK, index, errno, "keeping the ruleset of commands");
    (void)close(made);
}

/* Moves what we hold to `place`; returns the next free one, or -1. */
int landlock_keep(int place) {
    if (commands < 0)
        return place;
    if (commands != place && dup3(commands, place, O_CLOEXEC) < 0)
        return -1;
    commands = place;
    return place + 1;
}

/* Called between vfork(2) and execve(2). */
int landlock_for_command(void) { return commands < 0 || landlock_enter(commands, audited) == 0 ? 0 : errno; }

void landlock_restrict(const struct plan *plan) {
    int ruleset = -1;
    for (uint32_t i = 0; i < plan->count; i++) {
        const unsigned char *data = plan->records[i].data;
        if (plan->records[i].op == RECORD_LANDLOCK) {
            ruleset = make_ruleset(i, data, true);
            if (tree_outside() >= 0)
                split_rules(ruleset, i, data);
            report_done(STEP_LANDLOCK, i, 0);
        } else if (plan->records[i].op == RECORD_LANDLOCK_RULE) {
            if (ruleset < 0)
                report_failure(STEP_LANDLOCK, i, EINVAL, "a rule before its ruleset");
            int left_out = add_rule(ruleset, i, data);
            if (left_out == 0 && commands >= 0)
                left_out = add_rule(commands, i, data);
            report_done(STEP_LANDLOCK, i, (uint16_t)left_out);
        }
    }
    if (ruleset < 0)
        return;
    if (landlock_enter(ruleset, audited) != 0)
        report_failure(STEP_LANDLOCK, NO_RECORD, errno, "restricting ourselves");
    (void)close(ruleset);
}
