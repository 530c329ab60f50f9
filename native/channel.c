/* Owns datagrams: one message is received whole with its descriptors, or refused. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436 /* on every machine; some C libraries lack the function, others the number */
#endif

/* One buffer for the process: init and each keeper handle one message at a time. */
static unsigned char inline_body[INLINE_LIMIT] __attribute__((aligned(8)));

static void take_fds(struct msghdr *header, struct incoming *in) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && in->fd_count < FDS_LIMIT; i++)
            memcpy(&in->fds[in->fd_count++], CMSG_DATA(part) + i * sizeof(int), sizeof(int));
    }
}

/* The body of a large message lies in a memfd that nobody can change or shrink any more: a mapping
 * of anything else could fault under us. */
static bool map_body(struct incoming *in) {
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    if (in->fd_count == 0 || in->head.size == 0 || in->head.size > BODY_LIMIT)
        return false;
    int memfd = in->fds[0];
    int sealed = fcntl(memfd, F_GET_SEALS); /* -1 for what can't be sealed */
    if (sealed < 0 || (sealed & seals) != seals || lseek(memfd, 0, SEEK_END) != (off_t)in->head.size)
        return false;
    /* Private: decode_spawn hands out char pointers into it. */
    void *mapped = mmap(NULL, in->head.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
    if (mapped == MAP_FAILED)
        return false;
    in->body = mapped;
    in->mapped = in->head.size;
    return true;
}

enum receive_result channel_receive(int channel, int flags, struct incoming *in) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * FDS_LIMIT)];
        struct cmsghdr aligned;
    } control;
    struct iovec parts[2] = {{&in->head, sizeof in->head}, {inline_body, sizeof inline_body}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control};
    /* Without the padding, in which one more descriptor would arrive unseen. */
    header.msg_controllen = CMSG_LEN(sizeof(int) * FDS_LIMIT);
    ssize_t got;

    memset(in, 0, sizeof *in);
    do {
        got = recvmsg(channel, &header, flags | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return RECEIVE_AGAIN;
    if (got <= 0) /* a reset connection is an end as well */
        return RECEIVE_EOF;
    take_fds(&header, in);
    in->body = inline_body;
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || (size_t)got < sizeof in->head ||
        in->head.magic != PROTOCOL_MAGIC || (in->head.flags & ~BODY_IN_MEMFD) != 0)
        return RECEIVE_BAD;
    if ((in->head.flags & BODY_IN_MEMFD) != 0)
        return (size_t)got == sizeof in->head && map_body(in) ? RECEIVED : RECEIVE_BAD;
    return (size_t)got - sizeof in->head == in->head.size ? RECEIVED : RECEIVE_BAD;
}

void channel_release(struct incoming *in) {
    for (unsigned i = 0; i < in->fd_count; i++)
        if (in->fds[i] >= 0)
            (void)close(in->fds[i]); /* nothing was written through it: there is no error to lose */
    if (in->mapped != 0)
        (void)munmap(in->body, in->mapped);
    in->fd_count = 0;
    in->mapped = 0;
}

static int send_whole(int channel, struct iovec *parts, size_t count, const int *fds, unsigned fd_count) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * FDS_LIMIT)];
        struct cmsghdr aligned;
    } control = {0};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = count};
    if (fd_count > 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(part), fds, sizeof(int) * fd_count);
    }
    for (;;) {
        /* Never blocking: a host that does not read must not stop us from serving or from ending. */
        if (sendmsg(channel, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return 0;
        if (errno != EINTR)
            return errno;
    }
}

int close_from(int first) { return (int)syscall(SYS_close_range, first, ~0u, 0); }

unsigned channel_bodies(const struct incoming *in) { return in->mapped != 0 ? 1 : 0; }

int channel_forward(int channel, const struct incoming *in) {
    struct message head = in->head;
    struct iovec parts[2] = {{&head, sizeof head}, {in->body, in->mapped != 0 ? 0 : head.size}};
    return send_whole(channel, parts, 2, in->fds, in->fd_count);
}

int channel_send(int channel, uint16_t kind, uint32_t job, const void *body, size_t size) {
    struct message head = {PROTOCOL_MAGIC, kind, 0, job, (uint32_t)size};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, size}};
    return send_whole(channel, parts, 2, NULL, 0);
}

int channel_send_fds(int channel, uint16_t kind, uint32_t job, const void *body, size_t size, const int *fds,
                     unsigned count) {
    struct message head = {PROTOCOL_MAGIC, kind, 0, job, (uint32_t)size};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, size}};
    return send_whole(channel, parts, 2, fds, count);
}
