/* Owns what is given up for good: limits, capabilities, ids, new privileges, being inspected. */
#include "init.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LAST_CAPABILITY 40 /* CAP_CHECKPOINT_RESTORE: every kernel that we run on has so many */

/* Limits that are every command's, not init's: init needs descriptors of its own to serve, however
 * few a command may have, and serves for longer than a command may run. */
static struct limit command_limits[2];
static size_t command_limit_count;

static bool is_for_command(uint32_t resource) { return resource == RLIMIT_NOFILE || resource == RLIMIT_CPU; }

int limit_set(const struct limit *limit) {
    /* The kernel's own structure and call: C libraries give the resource different types. */
    struct {
        uint64_t soft, hard;
    } value;
    if (syscall(SYS_prlimit64, 0, limit->resource, NULL, &value) != 0)
        return errno;
    /* An ordinary user cannot raise a hard limit; the lower one is at least as strict. */
    uint64_t most = value.hard;
    value.soft = value.hard = limit->value < most ? limit->value : most;
    /* A second later than the soft one, so that a process is ended by SIGXCPU, which says why. */
    if (limit->resource == RLIMIT_CPU && value.hard < most)
        value.hard++;
    return syscall(SYS_prlimit64, 0, limit->resource, &value, NULL) == 0 ? 0 : errno;
}

void limits_set(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++) {
        struct limit limit;
        if (plan->records[i].op != RECORD_LIMIT)
            continue;
        memcpy(&limit, plan->records[i].data, sizeof limit);
        int error = 0;
        if (!is_for_command(limit.resource))
            error = limit_set(&limit);
        else if (command_limit_count < sizeof command_limits / sizeof *command_limits)
            command_limits[command_limit_count++] = limit;
        else
            error = E2BIG;
        if (error != 0)
            report_failure(STEP_LIMITS, i, error, "setrlimit");
        report_done(STEP_LIMITS, i, 0);
    }
}

int limits_for_command(void) {
    int error = 0;
    for (size_t i = 0; i < command_limit_count && error == 0; i++)
        error = limit_set(&command_limits[i]);
    return error;
}

void capabilities_bound(void) {
    for (int capability = 0; capability < 64; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL && capability > LAST_CAPABILITY) /* this kernel knows no more */
            break;
        report_failure(STEP_CAPABILITIES, NO_RECORD, errno, "dropping the bounding set");
    }
    report_done(STEP_CAPABILITIES, NO_RECORD, 0);
}

void identity_take(const struct identity *identity, bool set_groups) {
    if (set_groups && setgroups(0, NULL) != 0)
        report_failure(STEP_IDENTITY, NO_RECORD, errno, "dropping supplementary groups");
    if (setresgid(identity->gid, identity->gid, identity->gid) != 0)
        report_failure(STEP_IDENTITY, NO_RECORD, errno, "setresgid");
    if (setresuid(identity->uid, identity->uid, identity->uid) != 0)
        report_failure(STEP_IDENTITY, NO_RECORD, errno, "setresuid");
    report_done(STEP_IDENTITY, NO_RECORD, 0);
}

static void keep_capabilities(uint32_t kept) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{kept, kept, 0}};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
        report_failure(STEP_CAPABILITIES, NO_RECORD, errno, "clearing ambient capabilities");
    if (syscall(SYS_capset, &header, data) != 0)
        report_failure(STEP_CAPABILITIES, NO_RECORD, errno, "dropping capabilities");
}

void capabilities_drop(void) { keep_capabilities(0); }

/* Several users: whoever starts a command becomes its user first, and whoever ends one has another uid
 * than it. These count in the session's own user namespace, and so for its own ids alone. */
static const uint32_t several_users = 1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_KILL;
static struct identity own;

void capabilities_keep(const struct identity *identity) {
    own = *identity;
    keep_capabilities(identity->further == 0 ? 0 : several_users);
}

uint32_t user_number(const unsigned char *data) {
    struct user user = {0};
    if (data != NULL)
        memcpy(&user, data, sizeof user);
    return user.number;
}

/* A change of ids makes a process one that may be looked into again, where the machine says so. */
static int stay_closed(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : errno; }

int user_files(uint32_t number) {
    const uid_t nobody = (uid_t)-1; /* an id that can't be set asks for the one that is */
    if (own.further == 0)
        return number == 0 ? 0 : EPERM;
    if (number > own.further)
        return EPERM;
    (void)syscall(SYS_setfsgid, own.gid + number);
    (void)syscall(SYS_setfsuid, own.uid + number);
    bool both = (gid_t)syscall(SYS_setfsgid, nobody) == own.gid + number &&
                (uid_t)syscall(SYS_setfsuid, nobody) == own.uid + number;
    int closed = stay_closed();
    return both ? closed : EPERM;
}

static int take_groups(const unsigned char *data, const struct user *user) {
    gid_t groups[FURTHER_LIMIT];
    memcpy(groups, data + sizeof *user, user->count * sizeof *groups);
    for (uint32_t i = 0; i < user->count; i++) {
        if (groups[i] > own.further)
            return EPERM;
        groups[i] += own.gid;
    }
    return syscall(SYS_setgroups, (size_t)user->count, groups) == 0 ? 0 : errno;
}

/* Raw calls: the child shares its parent's memory, in which the C library would look for threads. */
static int take_user(const unsigned char *data) {
    struct user user;
    memcpy(&user, data, sizeof user);
    if (user.number > own.further)
        return EPERM;
    const uid_t uid = own.uid + user.number;
    const gid_t gid = own.gid + user.number;
    int error = take_groups(data, &user);
    if (error == 0 && syscall(SYS_setresgid, gid, gid, gid) != 0)
        error = errno;
    if (error == 0 && syscall(SYS_setresuid, uid, uid, uid) != 0)
        error = errno;
    return error;
}

int user_become(const unsigned char *data) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (own.further == 0)
        return data == NULL ? 0 : EPERM;
    int error = data == NULL ? 0 : take_user(data);
    if (error == 0)
        error = stay_closed(); /* before the capabilities go, which keep others of the same uid away till then */
    if (error == 0 && syscall(SYS_capset, &header, none) != 0)
        error = errno;
    return error;
}

/* For the outer process of a session without a pid namespace: what it ends has another uid than it. */
void capabilities_only_kill(void) { keep_capabilities(1u << CAP_KILL); }

void privileges_lock(void) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        report_failure(STEP_PRIVILEGES, NO_RECORD, errno, "no_new_privs");
    /* Not to be traced, nor read through /proc/1, by the commands that share our uid. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        report_failure(STEP_PRIVILEGES, NO_RECORD, errno, "dumpable");
    report_done(STEP_PRIVILEGES, NO_RECORD, 0);
}

void privileges_follow_parent(int parent) {
    /* prctl(2): a change of credentials clears the signal, so this runs once more after them. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        report_failure(STEP_PRIVILEGES, NO_RECORD, errno, "parent death signal");
    /* The parent may have died just before; its end of this socket tells. */
    struct pollfd end = {.fd = parent, .events = 0};
    if (poll(&end, 1, 0) < 0 || (end.revents & (POLLHUP | POLLERR)) != 0)
        _exit(1);
}
