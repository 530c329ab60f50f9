/* Owns what a command writes where its keeper made the pipes: it is read when the command has exited, unless
 * the host asks for the pipes before. The ends that we read never block: whoever has the other ends may
 * open these as well, and read before us. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void close_end(int *end) {
    if (*end >= 0)
        (void)close(*end);
    *end = -1;
}

int output_open(struct output *output) {
    for (unsigned stream = 0; stream < STREAMS; stream++) {
        int ends[2];
        int error = pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno;
        if (error == 0) {
            output->ours[stream] = ends[0];
            output->theirs[stream] = ends[1];
            error = fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
        }
        if (error != 0) {
            output_close(output);
            return error;
        }
    }
    return 0;
}

void output_begun(struct output *output) {
    for (unsigned stream = 0; stream < STREAMS; stream++)
        close_end(&output->theirs[stream]);
}

void output_close(struct output *output) {
    output_begun(output);
    for (unsigned stream = 0; stream < STREAMS; stream++)
        close_end(&output->ours[stream]);
}

size_t output_waiting(const struct output *output, unsigned stream) {
    int waiting;
    if (output->ours[stream] < 0)
        return 0;
    while (ioctl(output->ours[stream], FIONREAD, &waiting) != 0)
        if (errno != EINTR)
            _exit(1); /* less would be told than there was: init says that we are lost */
    return (size_t)waiting;
}

/* A pipe may have been made to give out each write by itself (O_DIRECT). Of such a one, which is PIPE_BUF bytes
 * at most, the kernel throws away what a read has no room for. */
size_t output_read(const struct output *output, unsigned stream, unsigned char *into, size_t waiting) {
    size_t taken = 0;
    while (taken < waiting && (waiting <= OUTPUT_ROOM || OUTPUT_ROOM - taken >= PIPE_BUF)) {
        size_t room = (waiting < OUTPUT_ROOM ? waiting : OUTPUT_ROOM) - taken;
        ssize_t got = read(output->ours[stream], into + taken, room);
        if (got == 0 || (got < 0 && errno == EAGAIN))
            break;
        if (got > 0)
            taken += (size_t)got;
        else if (errno != EINTR)
            _exit(1); /* likewise */
    }
    return taken;
}

void output_drop(struct output *output, unsigned stream) {
    static unsigned char dropped[OUTPUT_ROOM];
    ssize_t got = read(output->ours[stream], dropped, sizeof dropped);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        close_end(&output->ours[stream]);
}
