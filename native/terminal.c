/* Owns terminals: one is opened in the sandbox's own devpts, or the machine's where there is no wall, and
 * belongs to one command.
 *
 * Its master goes to the host, which made none of it and so checks what it gets. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <asm/termbits.h> /* the kernel's own modes: C libraries differ in what they do besides */

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41) /* which some C libraries' headers lack */
#endif

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
    terminal->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
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
