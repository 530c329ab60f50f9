/* Owns the reading of plans and spawns: bytes from the host become values, or a reason why not.
 * No effects, no allocation: this file is what the fuzzer runs. */
#include "init.h"

#include <string.h>

#include <linux/filter.h>
#include <linux/sched.h>

#define PATH_LIMIT 4096u
#define NEEDED_NAMESPACES ((uint32_t)(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID))
#define BIND_FLAGS                                                                                                     \
    ((uint32_t)(BIND_WRITABLE | BIND_DEVICES | BIND_AS_OWNER | BIND_OPTIONAL | BIND_INODE | BIND_PASSED | BIND_INSIDE))
#define BIND_ELSEWHERE ((uint32_t)(BIND_PASSED | BIND_INSIDE)) /* no path of the host's is opened */
#define SPAWN_FLAGS                                                                                                    \
    ((uint32_t)(SPAWN_REPORT | SPAWN_END_LEFTOVERS | SPAWN_TERMINAL | SPAWN_NARROWED | SPAWN_CAPTURED))
#define STANDARD_FDS 7u /* a mask of 0, 1 and 2 */
#define OUTPUT_FDS 6u /* of 1 and 2 */
#define NO_ID UINT32_MAX /* setresuid(2) and its kind take it for "leave it as it is" */
#define ALL_NAMESPACES (NEEDED_NAMESPACES | (uint32_t)(CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP))

/* The length of the string at `data`, without its NUL, or -1 if none ends within `size`. */
static long string_length(const unsigned char *data, size_t size) {
    const unsigned char *end = memchr(data, 0, size);
    return end == NULL ? -1 : end - data;
}

/* A path as the plan may name it: absolute, without "." and ".." components, without "//". */
static bool is_plain_path(const unsigned char *path, long length) {
    if (length < 1 || length >= (long)PATH_LIMIT || path[0] != '/')
        return false;
    if (length == 1)
        return true;
    for (long start = 1; start <= length;) {
        const unsigned char *slash = memchr(path + start, '/', (size_t)(length - start));
        long end = slash == NULL ? length : slash - path;
        long size = end - start;
        if (size == 0 || size > 255)
            return false;
        if (path[start] == '.' && (size == 1 || (size == 2 && path[start + 1] == '.')))
            return false;
        start = end + 1;
    }
    return true;
}

size_t take_path(const unsigned char *data, size_t size) {
    long length = string_length(data, size);
    return length < 0 || !is_plain_path(data, length) ? 0 : (size_t)length + 1;
}

static bool is_path(const unsigned char *data, size_t size) {
    size_t taken = take_path(data, size);
    return taken != 0 && taken == size;
}

static bool is_symlink(const unsigned char *data, size_t size) {
    size_t taken = take_path(data, size);
    if (taken == 0)
        return false;
    long target = string_length(data + taken, size - taken);
    return target > 0 && target < (long)PATH_LIMIT && taken + (size_t)target + 1 == size;
}

static bool is_bind(const unsigned char *data, size_t size) {
    struct bind bind;
    if (size < sizeof bind)
        return false;
    memcpy(&bind, data, sizeof bind);
    if ((bind.flags & ~BIND_FLAGS) != 0 || bind.zero != 0)
        return false;
    if ((bind.flags & BIND_INODE) == 0 && (bind.dev != 0 || bind.ino != 0))
        return false; /* an inode that nobody would check */
    uint32_t elsewhere = bind.flags & BIND_ELSEWHERE;
    if (elsewhere == BIND_ELSEWHERE || (elsewhere != 0 && (bind.flags & (BIND_OPTIONAL | BIND_DEVICES)) != 0))
        return false;
    size_t source = take_path(data + sizeof bind, size - sizeof bind);
    return source != 0 && is_path(data + sizeof bind + source, size - sizeof bind - source);
}

static bool is_device(const unsigned char *data, size_t size) {
    return size > sizeof(struct device) && is_path(data + sizeof(struct device), size - sizeof(struct device));
}

static bool is_file(const unsigned char *data, size_t size) {
    struct node node;
    if (size < sizeof node)
        return false;
    memcpy(&node, data, sizeof node);
    size_t path = take_path(data + sizeof node, size - sizeof node);
    return path != 0 && size - sizeof node - path == node.size && (node.mode & ~0777u) == 0;
}

static bool is_directory(const unsigned char *data, size_t size) {
    struct node node;
    if (size < sizeof node)
        return false;
    memcpy(&node, data, sizeof node);
    return (node.mode & ~01777u) == 0 && node.size == 0 && is_path(data + sizeof node, size - sizeof node);
}

static bool is_limit(const unsigned char *data, size_t size) {
    struct limit limit;
    if (size != sizeof limit)
        return false;
    memcpy(&limit, data, sizeof limit);
    return limit.zero == 0;
}

static bool is_landlock(const unsigned char *data, size_t size) {
    struct landlock landlock;
    if (size != sizeof landlock)
        return false;
    memcpy(&landlock, data, sizeof landlock);
    return landlock.logged <= 1 && landlock.zero == 0;
}

/* tmpfs takes 0 for no limit at all. */
static bool is_scratch(const unsigned char *data, size_t size) {
    struct scratch scratch;
    if (size != sizeof scratch)
        return false;
    memcpy(&scratch, data, sizeof scratch);
    return scratch.size != 0 && scratch.inodes != 0;
}

static bool is_identity(const unsigned char *data, size_t size) {
    struct identity identity;
    if (size != sizeof identity)
        return false;
    memcpy(&identity, data, sizeof identity);
    const uint32_t further = identity.further;
    if (further > FURTHER_LIMIT || (further == 0) != (identity.disk == 0) || identity.disk > NO_ID - further)
        return false;
    return identity.mode <= IDENTITY_SUBORDINATE && identity.uid < NO_ID - further && identity.gid < NO_ID - further &&
           identity.host_uid < NO_ID - further && identity.host_gid < NO_ID - further;
}

static bool is_user(const unsigned char *data, size_t size) {
    struct user user;
    if (size < sizeof user)
        return false;
    memcpy(&user, data, sizeof user);
    return user.number <= FURTHER_LIMIT && user.count <= FURTHER_LIMIT &&
           size == sizeof user + user.count * sizeof(uint32_t);
}

static bool is_private(const unsigned char *data, size_t size) {
    struct owned owned;
    if (size < sizeof owned)
        return false;
    memcpy(&owned, data, sizeof owned);
    return (owned.mode & ~01777u) == 0 && owned.owner <= FURTHER_LIMIT &&
           is_path(data + sizeof owned, size - sizeof owned);
}

/* The kernel checks a filter's jumps itself. We ask that it looks at the architecture first: a
 * filter that does not would judge another architecture's system calls by our numbers. */
static bool is_filter(const unsigned char *data, size_t size) {
    struct sock_filter first;
    if (size == 0 || size % sizeof first != 0 || size / sizeof first > BPF_MAXINSNS)
        return false;
    memcpy(&first, data, sizeof first);
    return first.code == (BPF_LD | BPF_W | BPF_ABS) && first.k == 4; /* seccomp_data.arch */
}

static bool is_hostname(const unsigned char *data, size_t size) {
    long length = string_length(data, size);
    return length > 0 && length <= 64 && (size_t)length + 1 == size;
}

static bool is_record(const struct record *record) {
    const unsigned char *data = record->data;
    size_t size = record->size;
    switch (record->op) {
    case RECORD_IDENTITY:
        return is_identity(data, size);
    case RECORD_NAMESPACES:
        return size == sizeof(uint32_t);
    case RECORD_HOSTNAME:
        return is_hostname(data, size);
    case RECORD_LOOPBACK:
    case RECORD_OUTSIDE:
    case RECORD_UNCONFINED:
        return size == 0;
    case RECORD_SCRATCH:
        return is_scratch(data, size);
    case RECORD_DIRECTORY:
        return is_directory(data, size);
    case RECORD_PRIVATE:
        return is_private(data, size);
    case RECORD_FILE:
        return is_file(data, size);
    case RECORD_SYMLINK:
        return is_symlink(data, size);
    case RECORD_BIND:
        return is_bind(data, size);
    case RECORD_PROC:
    case RECORD_DEVPTS:
    case RECORD_READ_ONLY:
    case RECORD_MASK:
    case RECORD_DENY:
        return is_path(data, size);
    case RECORD_DEVICE:
        return is_device(data, size);
    case RECORD_LIMIT:
        return is_limit(data, size);
    case RECORD_LANDLOCK:
        return is_landlock(data, size);
    case RECORD_LANDLOCK_RULE:
        return size > sizeof(struct rule) && is_path(data + sizeof(struct rule), size - sizeof(struct rule));
    case RECORD_SECCOMP:
        return is_filter(data, size);
    case RECORD_USER:
        return is_user(data, size);
    default:
        return false;
    }
}

static const char *check_identity(const struct identity *identity) {
    if (identity->uid == 0 || identity->host_uid == 0)
        /* uid 0 outside owns the host's files by mode bits alone, capabilities or not. An ordinary
         * user is never 0, and root's sandboxes get a leased identity. */
        return "the sandbox may not be uid 0";
    if (identity->mode == IDENTITY_LEASED && identity->host_gid == 0)
        return "a leased identity may not be gid 0"; /* an ordinary user's own group may be */
    if (identity->mode == IDENTITY_CALLER && identity->further != 0)
        return "the caller alone can't be several";
    if (identity->mode == IDENTITY_SUBORDINATE && identity->further == 0)
        return "subordinate ids are for several users";
    return NULL;
}

/* Without namespaces the wall is Landlock's, or there is none where the plan says so, and what the end of a
 * pid namespace would end is to be found by looking; a plan that asks for a mount there would change the
 * host. */
static const char *check_bare(const unsigned *seen, bool outside, bool several) {
    for (unsigned op = RECORD_HOSTNAME; op < RECORD_LIMIT; op++)
        if ((seen[op] != 0 && op != RECORD_OUTSIDE) || seen[RECORD_DEVICE] != 0)
            return "a plan without namespaces has nothing of its own to set up";
    if (seen[RECORD_LANDLOCK_RULE] != 0 && seen[RECORD_UNCONFINED] != 0)
        return "a plan without a wall has no rules for one";
    if (seen[RECORD_LANDLOCK] + seen[RECORD_UNCONFINED] != 1 || !outside)
        return "without namespaces a sandbox needs Landlock, and a view of processes";
    if (several)
        return "without a user namespace there is one user";
    return NULL;
}

static const char *check_namespaces(uint32_t namespaces, bool hostname, bool loopback, bool unconfined) {
    if (unconfined)
        return "a sandbox with namespaces is no unconfined one";
    if ((namespaces & ~ALL_NAMESPACES) != 0)
        return "the plan needs one set of namespaces";
    if ((namespaces & NEEDED_NAMESPACES) != NEEDED_NAMESPACES)
        return "a sandbox needs user, mount and pid namespaces of its own";
    if (hostname && (namespaces & CLONE_NEWUTS) == 0)
        return "the machine outside would be renamed";
    if (loopback && (namespaces & CLONE_NEWNET) == 0)
        return "the loopback outside is not ours to bring up";
    return NULL;
}

/* Init would give such a directory to an id that is another session's, or nobody's. */
static bool are_known_owners(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++) {
        struct owned owned;
        if (plan->records[i].op != RECORD_PRIVATE)
            continue;
        memcpy(&owned, plan->records[i].data, sizeof owned);
        if (owned.owner > plan->identity.further)
            return false;
    }
    return true;
}

/* What a plan must have exactly once, since without it there would be no sandbox, and what it may
 * have once, since of two the second would silently win. */
/* A mount can stand in one place. */
static unsigned count_passed(const struct plan *plan) {
    unsigned passed = 0;
    for (uint32_t i = 0; i < plan->count; i++) {
        struct bind bind;
        if (plan->records[i].op != RECORD_BIND)
            continue;
        memcpy(&bind, plan->records[i].data, sizeof bind);
        passed += (bind.flags & BIND_PASSED) != 0;
    }
    return passed;
}

static const char *check_whole(struct plan *plan) {
    unsigned seen[RECORD_UNCONFINED + 1] = {0};
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct record *record = &plan->records[i];
        seen[record->op]++; /* is_record() knows it, so it is within bounds */
        if (record->op == RECORD_IDENTITY)
            memcpy(&plan->identity, record->data, sizeof plan->identity);
        else if (record->op == RECORD_NAMESPACES)
            memcpy(&plan->namespaces, record->data, sizeof plan->namespaces);
        else if (record->op == RECORD_SCRATCH)
            memcpy(&plan->scratch, record->data, sizeof plan->scratch);
    }
    if (seen[RECORD_USER] != 0)
        return "a plan runs nothing, so it names no user";
    if (seen[RECORD_IDENTITY] != 1)
        return "the plan needs one identity";
    if (seen[RECORD_NAMESPACES] != 1)
        return "the plan needs one set of namespaces";
    if (seen[RECORD_SCRATCH] != 1 && plan->namespaces != 0)
        return "the plan needs one size for its tmpfs";
    if (seen[RECORD_SECCOMP] + seen[RECORD_UNCONFINED] != 1)
        return "the plan needs one seccomp filter";
    if (seen[RECORD_HOSTNAME] > 1 || seen[RECORD_LOOPBACK] > 1 || seen[RECORD_LANDLOCK] > 1 ||
        seen[RECORD_OUTSIDE] > 1)
        return "the plan says something twice";
    if (!are_known_owners(plan))
        return "a directory belongs to a user that is not there";
    plan->outside = seen[RECORD_OUTSIDE] != 0;
    unsigned passed = count_passed(plan);
    if (passed > 1)
        return "the plan shows the tree that comes with it twice";
    plan->layered = passed == 1;
    const char *problem = check_identity(&plan->identity);
    if (problem != NULL)
        return problem;
    if (plan->namespaces == 0)
        return check_bare(seen, plan->outside, plan->identity.further != 0);
    return check_namespaces(plan->namespaces, seen[RECORD_HOSTNAME] != 0, seen[RECORD_LOOPBACK] != 0,
                            seen[RECORD_UNCONFINED] != 0);
}

static bool is_zero(const unsigned char *data, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (data[i] != 0)
            return false;
    return true;
}

static size_t padded(size_t size) { return (size + 7) & ~(size_t)7; }

/* Takes the record at `at`, and moves `at` behind it. */
static const char *take_record(const unsigned char *bytes, size_t size, size_t *at, struct record *record) {
    struct record_head head;
    if (size - *at < sizeof head)
        return "a record's head is cut off";
    memcpy(&head, bytes + *at, sizeof head);
    *at += sizeof head;
    if (head.zero != 0 || head.size > size - *at)
        return "a record is cut off";
    *record = (struct record){head.op, head.size, bytes + *at};
    if (!is_record(record))
        return "a record is malformed";
    size_t whole = padded(head.size);
    if (whole > size - *at || !is_zero(bytes + *at + head.size, whole - head.size))
        return "a record's padding is malformed";
    *at += whole;
    return NULL;
}

size_t record_read(const unsigned char *bytes, struct record *record) {
    struct record_head head;
    memcpy(&head, bytes, sizeof head);
    *record = (struct record){head.op, head.size, bytes + sizeof head};
    return sizeof head + padded(head.size);
}

const char *decode_plan(const unsigned char *bytes, size_t size, struct plan *plan) {
    size_t at = 0;
    memset(plan, 0, sizeof *plan);
    while (at < size) {
        if (plan->count == RECORDS_LIMIT)
            return "too many records";
        const char *problem = take_record(bytes, size, &at, &plan->records[plan->count++]);
        if (problem != NULL)
            return problem;
    }
    return check_whole(plan);
}

size_t spawn_vector_room(const unsigned char *bytes, size_t size) {
    struct spawn_head head;
    if (size < sizeof head)
        return 0;
    memcpy(&head, bytes, sizeof head);
    /* Each string takes a byte at least, so a count above the size is a lie. */
    if (head.argc > size || head.envc > size)
        return 0;
    return (size_t)head.argc + head.envc + 2;
}

/* A narrowing's rules name places that commands can change, so none can say what it must be. */
static bool is_open_rule(const struct record *record) {
    struct rule rule;
    memcpy(&rule, record->data, sizeof rule); /* is_record() has seen that it is there */
    return rule.dev == 0 && rule.ino == 0;
}

/* What a narrowing may hold: nothing that makes or names anything, and each layer once; before it, whom
 * the command runs as. */
static const char *decode_narrowing(const unsigned char *bytes, size_t size, size_t at, struct spawn *spawn) {
    unsigned rulesets = 0, filters = 0;
    size_t start = padded(at);
    if (start >= size || !is_zero(bytes + at, start - at))
        return "a narrowing is missing, or its padding is malformed";
    for (at = start; at < size;) {
        struct record record;
        bool first = at == start && spawn->user == NULL;
        const char *problem = take_record(bytes, size, &at, &record);
        if (problem != NULL)
            return problem;
        if (first && record.op == RECORD_USER) {
            spawn->user = record.data;
            start = at;
        } else if (record.op == RECORD_LANDLOCK)
            rulesets++;
        else if (record.op == RECORD_SECCOMP)
            filters++;
        else if (record.op != RECORD_LIMIT && (record.op != RECORD_LANDLOCK_RULE || rulesets == 0))
            return "a narrowing holds a record that has no place there";
        if (record.op == RECORD_LANDLOCK_RULE && !is_open_rule(&record))
            return "a rule of a narrowing names an inode, which nobody would check";
    }
    spawn->narrowing = start < size ? bytes + start : NULL;
    spawn->narrowing_size = size - start;
    return rulesets > 1 || filters > 1 ? "a narrowing says something twice" : NULL;
}

/* A terminal has a size and brings all three streams; nobody else has a size. */
static bool is_window(const struct spawn_head *head) {
    if ((head->flags & SPAWN_TERMINAL) == 0)
        return head->rows == 0 && head->columns == 0;
    return head->rows != 0 && head->columns != 0 && head->fd_mask == 0;
}

const char *decode_spawn(unsigned char *bytes, size_t size, char **vector, size_t room, struct spawn *spawn) {
    struct spawn_head head;
    size_t needed = spawn_vector_room(bytes, size);
    if (needed == 0 || needed > room)
        return "the head of a spawn is malformed";
    memcpy(&head, bytes, sizeof head);
    if (head.argc == 0 || (head.fd_mask & ~STANDARD_FDS) != 0 || (head.flags & ~SPAWN_FLAGS) != 0)
        return "a spawn needs words, no more than three descriptors, and flags that are known";
    if (!is_window(&head))
        return "a terminal needs a size and no descriptors, and only a terminal has a size";
    if ((head.flags & SPAWN_CAPTURED) != 0 && ((head.flags & SPAWN_TERMINAL) != 0 || (head.fd_mask & OUTPUT_FDS) != 0))
        return "a command whose output is captured is given nothing to write to";
    size_t at = sizeof head;
    long length = string_length(bytes + at, size - at);
    if (length < 1 || bytes[at] != '/')
        return "the working directory must be absolute";
    *spawn = (struct spawn){.fd_mask = head.fd_mask,
                            .flags = head.flags,
                            .cwd = (char *)bytes + at,
                            .argv = vector,
                            .envp = vector + head.argc + 1,
                            .rows = head.rows,
                            .columns = head.columns};
    at += (size_t)length + 1;
    for (size_t i = 0; i < (size_t)head.argc + head.envc; i++) {
        length = string_length(bytes + at, size - at);
        if (length < 0)
            return "a string of a spawn is cut off";
        vector[i < head.argc ? i : i + 1] = (char *)bytes + at;
        at += (size_t)length + 1;
    }
    vector[head.argc] = NULL;
    vector[needed - 1] = NULL;
    if ((head.flags & SPAWN_NARROWED) != 0)
        return decode_narrowing(bytes, size, at, spawn);
    return at == size ? NULL : "a spawn has trailing bytes";
}
