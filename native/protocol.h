/* The words that the host and init exchange, byte for byte, in the machine's own byte order.
 *
 * Every datagram of the control channel (SOCK_SEQPACKET) is a `struct message` and its body. A body
 * too large for a datagram travels in a sealed memfd, passed as the first descriptor. Both sides
 * treat the other's bytes as hostile: decode.c checks ours, the host's decoder checks its own.
 */
#ifndef SANDYARD_PROTOCOL_H
#define SANDYARD_PROTOCOL_H

#include <stdint.h>

#define PROTOCOL_MAGIC 0x01445953u /* "SYD" and the version, 1 */
#define INLINE_LIMIT (32u * 1024u) /* largest body of a datagram */
#define BODY_LIMIT (8u * 1024u * 1024u) /* largest body at all: above the kernel's own argv limit */
#define FDS_LIMIT 5 /* most descriptors with one message: a memfd, stdin, stdout, stderr, spare */

struct message {
    uint32_t magic;
    uint16_t kind;
    uint16_t flags;
    uint32_t job;
    uint32_t size; /* bytes of the body, wherever it is */
};

enum message_flag { BODY_IN_MEMFD = 1 }; /* no other bit may be set, here and in all flags below */

enum request {
    REQUEST_START = 1, /* body: the plan; descriptors: a pidfd of the host, then the tree that a
                        * bind shows, if one does, then any to keep open */
    REQUEST_SPAWN = 2, /* body: struct spawn_head and strings; descriptors as its fd_mask says */
    REQUEST_SIGNAL = 3, /* body: struct signal_body */
    REQUEST_KILL = 4, /* body: struct kill_body; ends the whole tree of a job */
    REQUEST_MAPPED = 5, /* no body; the answer to UNMAPPED: both id maps are written */
    REQUEST_SOCKET = 6, /* body: struct socket_body; asks for a socket of the sandbox's network */
    REQUEST_OUTPUT = 7, /* no body; asks for the pipes of a command of which the output is captured */
    REQUEST_STILL = 8, /* body: struct still_body; stops all that runs, or lets it go on */
    REQUEST_MOUNT = 16, /* body: struct late_head and what follows it. To a program of its own, in place
                         * of START; descriptors: the mount namespace, then the source if there is one */
    REQUEST_LAYERS = 17, /* body: struct layers_head and the layers. Likewise to a program of its own;
                          * descriptors: a tree's namespace and its top, where there are no layers */
};

enum event {
    EVENT_STARTED = 64, /* body: struct done[] */
    EVENT_START_FAILED = 65, /* body: struct failure and text */
    EVENT_SPAWN_FAILED = 66, /* body: struct failure */
    EVENT_SPAWNED = 67, /* body: struct spawned; only where the spawn asked for it, and for a terminal:
                         * then its master is the one descriptor */
    EVENT_EXITED = 68, /* body: struct exited, struct refused[], struct leftover[], and what a captured
                        * command wrote that was not read before: its stdout, then its stderr */
    EVENT_GONE = 69, /* body: struct gone and struct refused[]; the last process that a command left
                      * behind has ended */
    EVENT_UNMAPPED = 70, /* body: struct unmapped; init waits for the id maps of a subordinate identity */
    EVENT_SOCKET_MADE = 71, /* body: struct socket_made; the socket is the one descriptor, unless it failed */
    EVENT_WRITTEN = 72, /* body: struct written and bytes: what a captured command wrote, where that is too
                        * much for its exit, which follows */
    EVENT_PIPES = 73, /* no body; the answer to OUTPUT, before the exit or not at all: the ends from which
                       * stdout and stderr are read are the two descriptors */
    EVENT_STILLED = 74, /* body: struct stilled; the answer to STILL: all have been told */
    EVENT_MOUNTED = 80, /* body: struct mounted; a late mount stands, or is gone. It fails as a start does */
    EVENT_PASSED = 81, /* no body: one descriptor; job 0 of a tree, job 1 of the namespace it stands in */
};

/* The steps of a start, in the order in which the kernel sees them, then those of a spawn. */
enum step {
    STEP_PROTOCOL = 1,
    STEP_IDMAP = 2,
    STEP_NAMESPACES = 3,
    STEP_USER = 4,
    STEP_PRIVATE_MOUNTS = 5,
    STEP_SOURCE = 6,
    STEP_ROOT = 7,
    STEP_MOUNT = 8,
    STEP_PIVOT = 9,
    STEP_HOSTNAME = 10,
    STEP_LOOPBACK = 11,
    STEP_LIMITS = 12,
    STEP_CAPABILITIES = 13,
    STEP_IDENTITY = 14,
    STEP_PRIVILEGES = 15,
    STEP_LANDLOCK = 16,
    STEP_SECCOMP = 17,
    STEP_SERVE = 18,
    STEP_COUNTS = 19, /* before the limits; told as skipped where the machine lets nobody bound them */
    STEP_REFUSALS = 20, /* with the filter; told as skipped where a sandbox around us hears of refusals */
    STEP_SPAWN_FORK = 32,
    STEP_SPAWN_STDIO = 33,
    STEP_SPAWN_CWD = 34,
    STEP_SPAWN_EXEC = 35,
    STEP_SPAWN_TERMINAL = 36,
    STEP_SPAWN_NARROW = 40,
    STEP_SPAWN_USER = 41,
    STEP_LATE_ENTER = 48, /* into the namespaces of the sandbox */
    STEP_LATE_SOURCE = 49,
    STEP_LATE_MAKE = 50,
    STEP_LATE_PART = 51,
    STEP_LATE_TARGET = 52,
    STEP_LATE_ATTACH = 53,
};

/* --- the plan: records, each padded with zeros to 8 bytes; what is called `zero` is zero -------- */

struct record_head {
    uint16_t op;
    uint16_t zero;
    uint32_t size; /* bytes of the payload, without padding */
};

enum record_op {
    RECORD_IDENTITY = 1, /* struct identity */
    RECORD_NAMESPACES = 2, /* uint32_t of CLONE_NEW* */
    RECORD_HOSTNAME = 3, /* string */
    RECORD_LOOPBACK = 4, /* nothing */
    RECORD_SCRATCH = 5, /* struct scratch */
    RECORD_OUTSIDE = 6, /* nothing: processes are found in the procfs outside, since there is none inside */
    RECORD_DIRECTORY = 10, /* struct node, path */
    RECORD_FILE = 11, /* struct node, path, content */
    RECORD_SYMLINK = 12, /* path, target */
    RECORD_BIND = 13, /* struct bind, source, target */
    RECORD_PRIVATE = 14, /* struct owned, path */
    RECORD_PROC = 15, /* path */
    RECORD_DEVPTS = 16, /* path */
    RECORD_READ_ONLY = 17, /* path */
    RECORD_MASK = 18, /* path */
    RECORD_DENY = 19, /* path */
    RECORD_LIMIT = 20, /* struct limit */
    RECORD_LANDLOCK = 21, /* struct landlock */
    RECORD_LANDLOCK_RULE = 22, /* struct rule, path */
    RECORD_SECCOMP = 23, /* struct sock_filter[] */
    RECORD_DEVICE = 24, /* struct device, path */
    RECORD_USER = 25, /* struct user, uint32_t[] of groups; of a spawn alone */
    RECORD_UNCONFINED = 26, /* nothing: there is no wall, which no plan says by leaving things out */
};

/* CALLER: the caller itself, and nobody else. LEASED: ids that root leases. SUBORDINATE: the caller, and for
 * the others ids that subuid(5) and subgid(5) give it, which only newuidmap(1) and newgidmap(1) may map. */
enum identity_mode { IDENTITY_CALLER = 0, IDENTITY_LEASED = 1, IDENTITY_SUBORDINATE = 2 };

struct identity {
    uint32_t mode;
    uint32_t uid, gid; /* inside */
    uint32_t host_uid, host_gid;
    uint32_t further; /* ids that follow each of these, for the session's other users and groups */
    uint32_t disk; /* the first of as many that they have on disk; 0 where there are none */
};

struct node {
    uint32_t mode;
    uint32_t size; /* of a file's content, else 0 */
};

struct owned {
    uint32_t mode;
    uint32_t owner; /* which user's it is: 0 for the identity's own, n for the n-th after it */
};

enum bind_flag {
    BIND_WRITABLE = 1,
    BIND_DEVICES = 2,
    BIND_AS_OWNER = 4,
    BIND_OPTIONAL = 8,
    BIND_INODE = 16,
    BIND_PASSED = 32, /* the source is the tree that came with the plan */
    BIND_INSIDE = 64, /* the source is a path inside, which stands already; both show the owner as they are */
};

struct bind {
    uint64_t dev, ino; /* what the source must be, with BIND_INODE; else 0 */
    uint32_t flags;
    uint32_t zero;
};

struct device { /* a character device of the sandbox's own, for a leased identity */
    uint32_t major, minor;
};

struct scratch { /* what the sandbox's own tmpfs may hold; not 0, which tmpfs takes for no limit */
    uint64_t size, inodes;
};

struct limit {
    uint64_t value;
    uint32_t resource;
    uint32_t zero;
};

struct landlock {
    uint64_t handled, scoped;
    uint32_t logged; /* 1: the kernel's audit hears what is refused to programs behind it; else 0 */
    uint32_t zero;
};

struct rule {
    uint64_t access;
    uint64_t dev, ino; /* what the path must be, or 0 for no check */
};

/* --- a start's answer --------------------------------------------------------------------------- */

struct done { /* one record that was carried out */
    uint16_t step;
    uint16_t skipped; /* errno of an optional record that was left out, else 0 */
    uint32_t record;
};

struct failure {
    uint16_t step;
    uint16_t zero;
    int32_t error;
    uint32_t record; /* index of the plan's record, or UINT32_MAX */
    uint32_t size; /* of the text that follows */
};

/* --- late mounts --------------------------------------------------------------------------------- */

#define NAMESPACE_PLACE 15 /* where the outer process keeps the sandbox's mount namespace open */

enum late_kind { LATE_BIND = 1, LATE_TMPFS = 2, LATE_OVERLAY = 3, LATE_REMOVE = 4 };

enum late_flag {
    LATE_WRITABLE = 1,
    LATE_LEASED = 2, /* the sandbox's mounts belong to the namespace of users that we are in */
    LATE_AS_OWNER = 4, /* the owner of the source appears as the sandbox's user */
};

/* Then the target, and as many times a struct late_part and a path, which begins with a slash and is
 * seen from the source. */
struct late_head {
    uint32_t kind, flags;
    uint32_t uid, gid; /* the sandbox's user, as the namespace of users knows it that mounts belong to */
    uint64_t size, inodes; /* of a new file system, else 0 */
    uint64_t dev, ino; /* what the target must be; of a removal 0 */
    uint64_t mount; /* of a removal: what EVENT_MOUNTED said; else 0 */
    uint32_t parts; /* of a bind that can be written to */
    uint32_t zero;
};

struct late_part { /* is kept in its place by a mount of its own */
    uint64_t dev, ino;
    uint32_t read_only;
    uint32_t zero;
};

struct unmapped {
    uint32_t pid; /* init's, as the outer process knows it */
};

struct mounted {
    uint64_t mount; /* by which it can be removed */
};

/* --- layered trees ------------------------------------------------------------------------------- */

#define LAYERS_LIMIT 65u /* with the one that is changed; overlayfs takes them all in one option */

enum layers_flag { LAYERS_LEASED = 1 }; /* the owner of each layer appears as the sandbox's user */

/* Then the layers: first the directory with what is changed, of which `upper` and `work` are used, and
 * below it those that are never changed, the uppermost first. Without any, a tree that was made before
 * is shown once more: its namespace and its top are passed. */
struct layers_head {
    uint32_t flags;
    uint32_t uid, gid; /* the sandbox's user: on the host where it is leased, else inside */
    uint32_t count; /* of layers: 0, or 2 at least */
};

struct layer { /* a path follows */
    uint64_t dev, ino; /* what it must be */
};

/* --- commands ------------------------------------------------------------------------------------ */

enum spawn_flag {
    SPAWN_REPORT = 1, /* send EVENT_SPAWNED */
    SPAWN_END_LEFTOVERS = 2, /* end the rest of the tree when the command exits */
    SPAWN_TERMINAL = 4, /* a terminal of its own is its 0, 1 and 2; EVENT_SPAWNED brings the master */
    SPAWN_NARROWED = 8, /* records follow the strings: whom it runs as, what it has less than its session */
    SPAWN_CAPTURED = 16, /* its 1 and 2 are pipes that the sandbox makes, and what it writes is told with its
                          * exit, unless the host asks for the pipes before */
};

/* Then strings: cwd, argv…, NAME=value…; and with SPAWN_NARROWED zeros up to a multiple of 8 and
 * records, as of a plan: RECORD_LIMIT, RECORD_LANDLOCK, RECORD_LANDLOCK_RULE and RECORD_SECCOMP, and
 * before them RECORD_USER where another user is to run it. */
struct spawn_head {
    uint32_t argc, envc;
    uint32_t fd_mask; /* bit n: a descriptor for fd n is passed; otherwise it is /dev/null */
    uint32_t flags;
    uint16_t rows, columns; /* of the terminal, 1 at least; else 0 */
};

struct user { /* whom a command runs as; its groups besides its own follow */
    uint32_t number; /* as that of an owner */
    uint32_t count; /* of groups, each numbered likewise */
};

struct spawned {
    uint32_t pid;
    uint32_t zero;
};

enum signal_target {
    SIGNAL_COMMAND = 0,
    SIGNAL_TREE = 1,
    SIGNAL_FOREGROUND = 2, /* the process group that has the command's terminal */
};

struct signal_body {
    uint32_t number;
    uint32_t target;
};

struct kill_body {
    uint32_t force; /* 1: the job's keeper does not answer: end it too */
    uint32_t zero;
};

enum exited_flag {
    EXITED_KILLED = 1, /* the tree was ended by REQUEST_KILL; nothing of it is left */
    EXITED_KEEPER_LOST = 2, /* the job's keeper was killed from inside; status is the keeper's */
};

struct exited {
    int32_t status; /* as wait4 gave it */
    uint32_t flags;
    uint64_t user_us, system_us;
    uint64_t max_rss_kib;
    uint64_t minor_faults, major_faults;
    uint64_t blocks_in, blocks_out;
    uint64_t voluntary_switches, involuntary_switches;
    uint32_t left, listed; /* processes left running; how many of them follow */
    uint64_t refused; /* calls that the filter refused the command and its tree */
    uint32_t kinds, zero; /* how many kinds of them follow */
    uint32_t out, err; /* bytes of its stdout and stderr that follow, OUTPUT_ROOM together at most */
};

struct written {
    uint32_t stream; /* 0: stdout, 1: stderr */
    uint32_t zero;
};

struct gone {
    uint64_t refused; /* as of an exit, and of the whole life of the job: what its exit told is in it */
    uint32_t kinds, zero;
};

struct refused { /* a system call that the filter refused, ENOSYS aside */
    uint64_t count;
    uint32_t number; /* of the call */
    int32_t error;
    char name[16]; /* of the first process that made it */
};

struct leftover {
    uint32_t pid;
    char name[16];
};

/* --- ports ---------------------------------------------------------------------------------------- */

struct socket_body {
    uint32_t family; /* AF_INET or AF_INET6 */
    uint32_t zero;
};

struct socket_made {
    int32_t error; /* errno of what failed, or 0 */
    uint32_t zero;
};

/* --- stillness ------------------------------------------------------------------------------------ */

struct still_body {
    uint32_t on; /* 1: all stop; 0: who stopped for that goes on */
    uint32_t zero;
};

struct stilled {
    int32_t error; /* errno of what failed, or 0; ENOSYS where others than the sandbox's could be met */
    uint32_t zero;
};

#define LEFTOVERS_LISTED 64
#define OUTPUT_ROOM (16u * 1024u) /* bytes of output in one message; beside an exit's lists it has room */
#define REFUSED_LISTED 8
#define FURTHER_LIMIT 255u /* users and groups of a session besides its own */

#endif
