/* Owns the Landlock layer: a second wall that holds even where a mount was forgotten. */
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

int landlock_enter(int ruleset) { return (int)syscall(SYS_landlock_restrict_self, ruleset, 0); }

static bool add_rule(int ruleset, uint32_t index, const unsigned char *data) {
    uint64_t access;
    const char *path = (const char *)data + sizeof access;

    memcpy(&access, data, sizeof access);
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0 && errno == ENOENT)
        return false;
    if (place < 0 || landlock_allow(ruleset, place, access) != 0)
        report_failure(STEP_LANDLOCK, index, errno, path);
    (void)close(place);
    return true;
}

void landlock_restrict(const struct plan *plan) {
    int ruleset = -1;
    for (uint32_t i = 0; i < plan->count; i++) {
        const unsigned char *data = plan->records[i].data;
        if (plan->records[i].op == RECORD_LANDLOCK) {
            struct landlock landlock;
            memcpy(&landlock, data, sizeof landlock);
            ruleset = landlock_create(&landlock);
            if (ruleset < 0)
                report_failure(STEP_LANDLOCK, i, errno, "creating the ruleset");
            report_done(STEP_LANDLOCK, i, 0);
        } else if (plan->records[i].op == RECORD_LANDLOCK_RULE) {
            if (ruleset < 0)
                report_failure(STEP_LANDLOCK, i, EINVAL, "a rule before its ruleset");
            report_done(STEP_LANDLOCK, i, add_rule(ruleset, i, data) ? 0 : ENOENT);
        }
    }
    if (ruleset < 0)
        return;
    if (landlock_enter(ruleset) != 0)
        report_failure(STEP_LANDLOCK, NO_RECORD, errno, "restricting ourselves");
    (void)close(ruleset);
}
