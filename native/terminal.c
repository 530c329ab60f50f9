/* Owns terminals: one is opened in the sandbox's own devpts and belongs to one command.
 *
 * Its master goes to the host, which made none of it and so checks what it gets. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <asm/termbits.h> /* the kernel's own modes: C libraries differ in what they do besides */

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41) /* which some C libraries' headers lack */
#endif

#define STAT_ROOM 512
#define PATH_ROOM 32 /* for 10 digits and the 12 bytes around them */
#define FIELD_FOREGROUND 6 /* spaces from the parenthesis that ends the name to tpgid, see proc_pid_stat(5) */

static int set_up(const struct terminal *terminal, uint16_t rows, uint16_t columns) {
    const struct winsize size = {.ws_row = rows, .ws_col = columns};
    struct termios modes;
    if (ioctl(terminal->slave, TIOCSWINSZ, &size) != 0 || ioctl(terminal->slave, TCGETS, &modes) != 0)
        return -1;
    modes.c_iflag |= IUTF8; /* so that erasing takes a whole character, as every terminal of today */
    return ioctl(terminal->slave, TCSETS, &modes);
}

int terminal_open(struct terminal *terminal, uint16_t rows, uint16_t columns) {
    int unlocked = 0;
    terminal->slave = -1;
    terminal->master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal->master >= 0 && ioctl(terminal->master, TIOCSPTLCK, &unlocked) == 0)
        /* Not by its name: the other side of this very master, whatever lies at a path. */
        terminal->slave = ioctl(terminal->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal->slave >= 0 && set_up(terminal, rows, columns) == 0)
        return 0;
    int error = errno;
    terminal_close(terminal);
    return error;
}

int terminal_take(void) { return ioctl(STDIN_FILENO, TIOCSCTTY, 0); }

void terminal_close(struct terminal *terminal) {
    if (terminal->slave >= 0)
        (void)close(terminal->slave);
    if (terminal->master >= 0)
        (void)close(terminal->master);
    *terminal = (struct terminal){-1, -1};
}

/* "/proc/", the number, "/stat", from its end to its beginning; returns where that is. */
static const char *stat_path(pid_t pid, char room[PATH_ROOM]) {
    char *at = &room[PATH_ROOM - sizeof "/stat"];
    memcpy(at, "/stat", sizeof "/stat");
    for (pid_t rest = pid; rest > 0; rest /= 10)
        *--at = (char)('0' + rest % 10);
    at -= sizeof "/proc/" - 1;
    memcpy(at, "/proc/", sizeof "/proc/" - 1); /* NOLINT(bugprone-not-null-terminated-result): it goes on */
    return at;
}

/* The number is of our own namespace, in which a signal reaches nobody outside. */
pid_t terminal_foreground(pid_t command) {
    char room[PATH_ROOM], text[STAT_ROOM];
    int fd = open(stat_path(command, room), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    const char *at = strrchr(text, ')'); /* the name before it is the process's own to choose */
    for (int field = 0; at != NULL && field < FIELD_FOREGROUND; field++)
        at = strchr(at + 1, ' ');
    pid_t group = 0;
    for (at = at == NULL ? "" : at + 1; *at >= '0' && *at <= '9' && group < 100000000; at++)
        group = group * 10 + (*at - '0');
    return group;
}
