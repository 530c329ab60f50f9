/* What is fuzzed: everything in init that reads bytes of the host's, and what it promises about them.
 *
 * The first byte of an input says how the rest is read:
 *   P  the body of a START, to decode_plan
 *   S  the body of a SPAWN, to decode_spawn
 *   L  the body of a MOUNT, to decode_late
 *   Y  the body of a LAYERS, to decode_layers
 *   W  messages, each a struct wire and what is sent, to init's handler and on to its keepers
 * A plan or a spawn that is accepted is walked as mounts.c and spawn.c walk it, in a heap block that
 * ends where the body ends. */
#include "../init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "doors.h"

#define PATH_ROOM 4096
#define NAME_ROOM 255
#define FD_ROOM 40 /* descriptors that are looked at: one conversation needs a dozen */
#define SENT_FDS 7 /* more than a message may have */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
_Noreturn void door_exit(int code);

static struct plan plan;

_Noreturn void broken(const char *promise) {
    (void)fprintf(stderr, "broken promise: %s\n", promise);
    abort();
}

static void promise(bool kept, const char *words) {
    if (!kept)
        broken(words);
}

/* --- plans --------------------------------------------------------------------------------------- */

/* What mounts.c relies on: see walk_to, which copies each component into NAME_MAX + 1 bytes. */
static size_t check_path(const unsigned char *path) {
    size_t length = strlen((const char *)path);
    promise(length > 0 && length < PATH_ROOM && path[0] == '/', "a path is absolute and short");
    for (size_t start = 1; start < length;) {
        const unsigned char *slash = memchr(path + start, '/', length - start);
        size_t end = slash == NULL ? length : (size_t)(slash - path);
        size_t size = end - start;
        promise(size > 0 && size <= NAME_ROOM, "a component has a size");
        promise(size != 2 || memcmp(path + start, "..", 2) != 0, "no component leads up");
        promise(size != 1 || path[start] != '.', "no component is a dot");
        promise(end != length - 1, "no path ends in a slash");
        start = end + 1;
    }
    return length + 1;
}

static void check_record(const struct record *record) {
    const unsigned char *data = record->data;
    struct node node;
    size_t at;
    switch (record->op) {
    case RECORD_HOSTNAME:
        at = strlen((const char *)data) + 1;
        promise(at > 1 && at <= 65, "a hostname is a name");
        break;
    case RECORD_DIRECTORY:
    case RECORD_PRIVATE:
        at = sizeof node + check_path(data + sizeof node);
        break;
    case RECORD_FILE:
        memcpy(&node, data, sizeof node);
        at = sizeof node + check_path(data + sizeof node);
        promise(node.size <= record->size && at == record->size - node.size, "a file's content is in its record");
        at += node.size;
        break;
    case RECORD_SYMLINK:
        at = check_path(data);
        at += strlen((const char *)data + at) + 1;
        break;
    case RECORD_BIND:
        at = sizeof(struct bind) + check_path(data + sizeof(struct bind));
        at += check_path(data + at);
        break;
    case RECORD_PROC:
    case RECORD_DEVPTS:
    case RECORD_READ_ONLY:
    case RECORD_MASK:
    case RECORD_DENY:
        at = check_path(data);
        break;
    case RECORD_LANDLOCK_RULE:
        at = sizeof(struct rule) + check_path(data + sizeof(struct rule));
        break;
    case RECORD_SECCOMP:
        promise(record->size > 0 && record->size % sizeof(struct sock_filter) == 0 &&
                    record->size <= BPF_MAXINSNS * sizeof(struct sock_filter),
                "a filter fits into its array");
        return;
    default: /* fixed sizes, which the compiler knows as well as we do */
        return;
    }
    promise(at == record->size, "a record holds what it says, and nothing else");
}

static void fuzz_plan(const uint8_t *data, size_t size) {
    const char *problem = decode_plan(data, size, &plan);
    promise(plan.count <= RECORDS_LIMIT, "a plan's records are counted");
    /* The last record may be what it was refused for; those before were accepted. */
    uint32_t accepted = problem == NULL || plan.count == 0 ? plan.count : plan.count - 1;
    for (uint32_t i = 0; i < accepted; i++) {
        const struct record *record = &plan.records[i];
        promise(record->data >= data && record->data <= data + size &&
                    record->size <= (size_t)(data + size - record->data),
                "a record lies in its plan");
        promise((record->data - data) % 8 == 0, "a record is aligned");
        check_record(record);
    }
    if (problem != NULL)
        return;
    promise(plan.identity.mode <= IDENTITY_LEASED && plan.identity.uid != 0 && plan.identity.host_uid != 0,
            "nobody is uid 0");
    promise(plan.identity.further <= FURTHER_LIMIT && plan.identity.host_uid + plan.identity.further >= plan.identity.host_uid,
            "further users have ids");
    promise(plan.identity.further == 0 || (plan.identity.mode == IDENTITY_LEASED && plan.identity.disk != 0),
            "further users are leased, and nobody is uid 0 on disk");
}

/* --- late mounts --------------------------------------------------------------------------------- */

/* As late.c walks it: nothing is read beyond what was decoded. */
static void fuzz_late(const uint8_t *data, size_t size) {
    struct late late;
    if (decode_late(data, size, &late) != NULL)
        return;
    promise(late.head.kind >= LATE_BIND && late.head.kind <= LATE_REMOVE, "a late mount is of a known kind");
    promise(late.head.uid != 0, "nobody is uid 0");
    size_t at = sizeof late.head + check_path((const unsigned char *)late.target);
    promise(late.parts == data + at, "parts follow the target");
    for (uint32_t i = 0; i < late.head.parts; i++) {
        struct late_part part;
        const char *path;
        size_t taken = late_part_read(data + at, &part, &path);
        promise(taken == sizeof part + check_path((const unsigned char *)path), "a part is a head and a path");
        promise(part.read_only <= 1, "a part is read-only or not");
        at += taken;
    }
    promise(at == size, "a late mount holds what it says, and nothing else");
}

/* As layers.c walks it. */
static void fuzz_layers(const uint8_t *data, size_t size) {
    struct layers layers;
    if (decode_layers(data, size, &layers) != NULL)
        return;
    promise(layers.head.uid != 0, "nobody is uid 0");
    promise(layers.head.count != 1 && layers.head.count <= LAYERS_LIMIT, "the layers have room");
    size_t at = sizeof layers.head;
    promise(layers.layers == data + at, "layers follow the head");
    for (uint32_t i = 0; i < layers.head.count; i++) {
        struct layer layer;
        const char *path;
        size_t taken = layer_read(data + at, &layer, &path);
        promise(taken == sizeof layer + check_path((const unsigned char *)path), "a layer is a head and a path");
        at += taken;
    }
    promise(at == size, "a layered tree holds what it says, and nothing else");
}

/* --- spawns -------------------------------------------------------------------------------------- */

static size_t check_word(const unsigned char *body, size_t size, const char *word) {
    const unsigned char *start = (const unsigned char *)word;
    promise(start >= body && start < body + size, "a word lies in its spawn");
    size_t room = (size_t)(body + size - start);
    promise(memchr(word, 0, room) != NULL, "a word ends in its spawn");
    return strlen(word) + 1;
}

void check_spawn(const unsigned char *body, size_t size, char *const *argv, size_t argc, char *const *envp,
                 size_t envc, const char *cwd) {
    struct spawn_head head;
    promise(size > sizeof head, "a spawn has a head");
    memcpy(&head, body, sizeof head);
    promise(argc == head.argc && envc == head.envc && argc > 0, "all words are there");
    promise((head.fd_mask & ~7u) == 0, "three descriptors at most");
    promise(cwd[0] == '/', "the directory is absolute");
    size_t seen = sizeof head + check_word(body, size, cwd);
    for (size_t i = 0; i < argc; i++)
        seen += check_word(body, size, argv[i]);
    for (size_t i = 0; i < envc; i++)
        seen += check_word(body, size, envp[i]);
    if ((head.flags & SPAWN_NARROWED) != 0)
        promise(seen < size, "a narrowing follows the words");
    else
        promise(seen == size, "a spawn is its words, and nothing else");
}

/* As privileges.c reads it. */
static void check_user(const unsigned char *body, size_t size, const struct spawn *spawn) {
    struct user user;
    if (spawn->user == NULL)
        return;
    promise(spawn->user >= body && spawn->user + sizeof user <= body + size, "a user lies in its spawn");
    memcpy(&user, spawn->user, sizeof user);
    promise(user.number <= FURTHER_LIMIT && user.count <= FURTHER_LIMIT, "a user and its groups may be there");
    promise(spawn->user + sizeof user + user.count * sizeof(uint32_t) <= body + size, "groups lie in their spawn");
}

/* As narrow.c walks it. */
static void check_narrowing(const unsigned char *body, size_t size, const struct spawn *spawn) {
    struct record record;
    if (spawn->narrowing == NULL)
        return;
    promise(spawn->narrowing + spawn->narrowing_size == body + size, "a narrowing is the end of its spawn");
    for (size_t at = 0; at < spawn->narrowing_size;) {
        at += record_read(spawn->narrowing + at, &record);
        promise(record.data + record.size <= body + size && at <= spawn->narrowing_size, "a record lies in its spawn");
        promise(record.op == RECORD_LIMIT || record.op == RECORD_LANDLOCK || record.op == RECORD_LANDLOCK_RULE ||
                    record.op == RECORD_SECCOMP,
                "a narrowing only narrows");
    }
}

static void fuzz_spawn(unsigned char *body, size_t size) {
    struct spawn spawn;
    size_t room = spawn_vector_room(body, size), argc = 0, envc = 0;
    promise(room <= 2 * size + 2, "words cost no more than the message did");
    char **vector = malloc(room * sizeof *vector);
    if (decode_spawn(body, size, vector, room, &spawn) == NULL) {
        while (spawn.argv[argc] != NULL)
            argc++;
        while (spawn.envp[envc] != NULL)
            envc++;
        check_spawn(body, size, spawn.argv, argc, spawn.envp, envc, spawn.cwd);
        check_user(body, size, &spawn);
        check_narrowing(body, size, &spawn);
    }
    free(vector);
}

/* --- messages ------------------------------------------------------------------------------------ */

enum how { HOW_MEMFD = 1, HOW_SHRINKABLE = 2, HOW_NO_MEMFD = 4, HOW_LATER = 8, HOW_FDS = 4 /* shift */ };

struct wire {
    uint8_t how; /* enum how, and above it how many descriptors */
    uint8_t zero;
    uint16_t size; /* of what follows: a struct message and its body */
};

static jmp_buf the_end;
static int null_device = -1;

/* Init, or a keeper, has ended itself: that is a refusal too. */
_Noreturn void door_exit(int code) {
    (void)code;
    longjmp(the_end, 1);
}

static int make_body(const uint8_t *body, size_t size, bool shrinkable) {
    int memfd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memfd < 0 || write(memfd, body, size) != (ssize_t)size)
        broken("the fuzzer has no memory");
    (void)fcntl(memfd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE | (shrinkable ? 0 : F_SEAL_SHRINK));
    return memfd;
}

static void send_wire(int channel, uint8_t how, const uint8_t *sent, size_t size) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * (SENT_FDS + 1))];
        struct cmsghdr aligned;
    } control = {{0}};
    int fds[SENT_FDS + 1], memfd = -1;
    unsigned count = 0, wanted = how >> HOW_FDS;
    size_t body = size < sizeof(struct message) ? size : sizeof(struct message);
    if ((how & HOW_MEMFD) != 0) {
        memfd = fds[count++] =
            (how & HOW_NO_MEMFD) != 0 ? dup(null_device) : make_body(sent + body, size - body, (how & HOW_SHRINKABLE) != 0);
        size = body;
    }
    while (count < wanted && count < SENT_FDS)
        fds[count++] = null_device;
    struct iovec part = {(void *)sent, size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * count);
    }
    (void)sendmsg(channel, &header, MSG_DONTWAIT | MSG_NOSIGNAL); /* full: then it was not said */
    if (memfd >= 0)
        (void)close(memfd);
}

static void hear(int host) {
    static unsigned char event[INLINE_LIMIT];
    struct message head;
    ssize_t got;
    while ((got = recv(host, event, sizeof event, MSG_DONTWAIT)) > 0) {
        promise((size_t)got >= sizeof head, "an event has a head");
        memcpy(&head, event, sizeof head);
        promise(head.magic == PROTOCOL_MAGIC && head.flags == 0 && head.size == (size_t)got - sizeof head &&
                    (head.kind == EVENT_SPAWN_FAILED ||
                     (head.kind == EVENT_STILLED && head.size == sizeof(struct stilled)) ||
                     (head.kind == EVENT_SOCKET_MADE && head.size == sizeof(struct socket_made))),
                "what init says is of the protocol");
    }
}

/* They are used again for the next input: to make them costs more than all that is said on them. */
static struct {
    int host[2], idle[2], busy[2]; /* ours and init's, a keeper's and init's */
} on;

static void talk(const uint8_t *data, size_t size) {
    struct wire wire;
    while (size >= sizeof wire) {
        memcpy(&wire, data, sizeof wire);
        data += sizeof wire;
        size -= sizeof wire;
        size_t length = wire.size < size ? wire.size : size;
        send_wire(on.host[0], wire.how, data, length);
        data += length;
        size -= length;
        serve_door_handle();
        if ((wire.how & HOW_LATER) == 0) {
            keeper_door_run(on.idle[0], on.host[1]);
            serve_door_idle();
            keeper_door_obey(on.busy[0], on.host[1]);
        }
        hear(on.host[0]);
    }
}

static void open_channels(void) {
    int *const pairs[] = {on.host, on.idle, on.busy};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[i]) != 0)
            broken("the fuzzer has no descriptors");
}

/* What was not heard is not heard in the next conversation either, nor are its descriptors taken. */
static void drain_channels(void) {
    static unsigned char dropped[1];
    const int ends[] = {on.host[0], on.host[1], on.idle[0], on.busy[0]};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        while (recv(ends[i], dropped, sizeof dropped, MSG_DONTWAIT) >= 0)
            continue;
}

/* What was open before the first conversation, which others than init may have opened. */
static bool was_open[FD_ROOM];

static void look_at_open(bool open[FD_ROOM]) {
    struct pollfd looked[FD_ROOM];
    for (int fd = 0; fd < FD_ROOM; fd++)
        looked[fd] = (struct pollfd){.fd = fd};
    if (poll(looked, FD_ROOM, 0) < 0)
        broken("the fuzzer can't look at its descriptors");
    for (int fd = 0; fd < FD_ROOM; fd++)
        open[fd] = (looked[fd].revents & POLLNVAL) == 0;
}

/* Whatever was opened since; it is closed if init has ended, and a leak if not. */
static void check_closed(bool ended) {
    bool is_open[FD_ROOM];
    look_at_open(is_open);
    for (int fd = 0; fd < FD_ROOM; fd++) {
        if (was_open[fd] || !is_open[fd])
            continue;
        promise(ended, "descriptors are given back");
        (void)close(fd);
    }
}

static void fuzz_wire(const uint8_t *data, size_t size) {
    static volatile bool ended; /* static: setjmp leaves what is in registers undefined */
    if (null_device < 0) {
        null_device = open("/dev/null", O_RDWR | O_CLOEXEC);
        open_channels();
        look_at_open(was_open);
    }
    serve_door_open(on.host[1], on.idle[1], on.busy[1]);
    ended = true;
    if (setjmp(the_end) == 0) {
        talk(data, size);
        serve_door_close();
        ended = false;
    }
    drain_channels();
    if (ended)
        memory_door_drop(); /* what a process holds goes with it */
    check_closed(ended);
    promise(memory_door_held() == 0, "mappings are given back");
}

/* --- one input ----------------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    size_t length = size - 1;
    unsigned char *body = malloc(length); /* its end is watched, its start aligned */
    memcpy(body, data + 1, length);
    if (data[0] == 'P')
        fuzz_plan(body, length);
    else if (data[0] == 'L')
        fuzz_late(body, length);
    else if (data[0] == 'Y')
        fuzz_layers(body, length);
    else if (data[0] == 'S')
        fuzz_spawn(body, length);
    else if (data[0] == 'W')
        fuzz_wire(body, length);
    free(body);
    return 0;
}
