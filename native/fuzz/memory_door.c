/* Owns the memory that messages arrive in: a mapping is a piece of the heap, which ends where the body
 * ends, and of the shared buffer only what was received can be read. */
#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../protocol.h"

#define HELD_LIMIT 16

/* Declared here: doors.h would rename what this file needs under its own name. */
_Noreturn void broken(const char *promise);
size_t memory_door_held(void);
void memory_door_drop(void);
void *door_mmap(void *where, size_t size, int protection, int flags, int fd, off_t at);
int door_munmap(void *where, size_t size);
ssize_t door_recvmsg(int fd, struct msghdr *header, int flags);

static struct {
    void *where;
    size_t size;
} held[HELD_LIMIT];

void *door_mmap(void *where, size_t size, int protection, int flags, int fd, off_t at) {
    (void)where, (void)protection, (void)flags;
    for (size_t i = 0; i < HELD_LIMIT; i++) {
        if (held[i].where != NULL)
            continue;
        void *piece = calloc(1, size);
        if (piece == NULL || (fd >= 0 && pread(fd, piece, size, at) != (ssize_t)size))
            broken("a mapping that does not reach as far as its file");
        held[i].where = piece;
        held[i].size = size;
        return piece;
    }
    broken("mappings are not given back");
}

int door_munmap(void *where, size_t size) {
    for (size_t i = 0; i < HELD_LIMIT; i++)
        if (held[i].where == where && held[i].size == size) {
            free(where);
            held[i].where = NULL;
            return 0;
        }
    broken("what is given back was never mapped");
}

size_t memory_door_held(void) {
    size_t number = 0;
    for (size_t i = 0; i < HELD_LIMIT; i++)
        number += held[i].where != NULL;
    return number;
}

void memory_door_drop(void) {
    for (size_t i = 0; i < HELD_LIMIT; i++) {
        free(held[i].where);
        held[i].where = NULL;
    }
}

/* Init receives a head and a body, in this order. */
ssize_t door_recvmsg(int fd, struct msghdr *header, int flags) {
    if (header->msg_iovlen != 2 || header->msg_iov[0].iov_len != sizeof(struct message))
        broken("a message is received in another way than its fuzzer knows");
    struct iovec *body = &header->msg_iov[1];
    ASAN_UNPOISON_MEMORY_REGION(body->iov_base, body->iov_len);
    ssize_t got = recvmsg(fd, header, flags);
    int error = errno;
    size_t head = header->msg_iov[0].iov_len;
    size_t filled = got < (ssize_t)head ? 0 : (size_t)got - head;
    ASAN_POISON_MEMORY_REGION((char *)body->iov_base + filled, body->iov_len - filled);
    errno = error;
    return got;
}
