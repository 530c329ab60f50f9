/* Owns what one command has less than its session: another layer of Landlock, lower limits, another
 * filter. It runs in the child between vfork and execve, behind the session's own walls, and can
 * only add to them. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens what a rule names. Commands can write to some of these places, so no symlink is followed, or
 * they could choose what is allowed. openat2(2) would do it at once, and the filter refuses it. */
static int open_place(const char *path) {
    char name[NAME_MAX + 1];
    int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (at >= 0 && *++path != '\0') {
        size_t size = strcspn(path, "/");
        memcpy(name, path, size); /* decode.c bounds components to 255 bytes */
        name[size] = '\0';
        int next = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        (void)close(at); /* O_PATH: nothing to flush */
        errno = error;
        at = next;
        path += size;
        if (*path == '\0')
            break;
    }
    return at;
}

/* What can't be reached needs no rule: it stays closed. */
static bool is_absent(int error) { return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES; }

static int allow(int ruleset, const unsigned char *data) {
    struct stat facts;
    struct rule rule;

    memcpy(&rule, data, sizeof rule);
    int place = open_place((const char *)data + sizeof rule);
    if (place < 0)
        return is_absent(errno) ? 0 : errno;
    bool failed = fstat(place, &facts) != 0 ||
                  (!S_ISLNK(facts.st_mode) && landlock_allow(ruleset, place, rule.access) != 0);
    int error = failed ? errno : 0;
    (void)close(place);
    return error;
}

static int narrow_limit(const unsigned char *data) {
    struct limit limit;
    memcpy(&limit, data, sizeof limit);
    return limit_set(&limit);
}

static int narrow_files(const unsigned char *data, int *ruleset, bool *logged) {
    struct landlock landlock;
    memcpy(&landlock, data, sizeof landlock);
    *logged = landlock.logged != 0;
    *ruleset = landlock_create(&landlock);
    return *ruleset < 0 ? errno : 0;
}

int narrow_command(const struct spawn *spawn) {
    struct record record, filter = {0};
    int ruleset = -1, error = 0;
    bool logged = false;
    for (size_t at = 0; at < spawn->narrowing_size && error == 0;) {
        at += record_read(spawn->narrowing + at, &record);
        if (record.op == RECORD_LANDLOCK)
            error = narrow_files(record.data, &ruleset, &logged);
        else if (record.op == RECORD_LANDLOCK_RULE)
            error = allow(ruleset, record.data);
        else if (record.op == RECORD_LIMIT)
            error = narrow_limit(record.data);
        else
            filter = record;
    }
    if (error == 0 && ruleset >= 0 && landlock_enter(ruleset, logged) != 0)
        error = errno;
    if (ruleset >= 0)
        (void)close(ruleset);
    if (error == 0 && filter.size != 0 && filter_add(&filter) != 0)
        error = errno;
    return error;
}
