/* Opens keeper.c to the fuzzer: a spawn is decoded up to the command's birth, a signal up to kill(2). */
#include "../keeper.c"

#include <fcntl.h>
#include <string.h>

static const unsigned char *spawn_body;
static size_t spawn_size;
static unsigned spawn_fds; /* that came with it */

/* One pass of keeper_run's loop for a keeper that waits for work. */
void keeper_door_run(int channel, int control) {
    struct incoming in;
    channel_fd = channel;
    control_fd = control;
    enum receive_result result = channel_receive(channel_fd, MSG_DONTWAIT, &in);
    spawn_body = in.body;
    spawn_size = in.head.size;
    spawn_fds = in.fd_count - (in.mapped != 0 ? 1 : 0);
    if (result == RECEIVED && in.head.kind == REQUEST_SPAWN)
        run(&in);
    channel_release(&in);
}

/* The same for one whose job runs. */
void keeper_door_obey(int channel, int control) {
    struct job job = {.id = BUSY_JOB, .command = 1, .output = OUTPUT_NONE};
    channel_fd = channel;
    control_fd = control;
    obey(&job);
}

static size_t count(char *const *words) {
    size_t number = 0;
    while (words[number] != NULL)
        number++;
    return number;
}

/* In the place of spawn.c: looks at all that a command would be given, and fails as exec would. */
pid_t spawn_command(const struct spawn *spawn, const int *fds, struct failure *failure) {
    size_t argc = count(spawn->argv), envc = count(spawn->envp);
    check_spawn(spawn_body, spawn_size, spawn->argv, argc, spawn->envp, envc, spawn->cwd);
    bool terminal = (spawn->flags & SPAWN_TERMINAL) != 0, captured = (spawn->flags & SPAWN_CAPTURED) != 0;
    unsigned wanted = terminal ? 3 : spawn_fds + (captured ? STREAMS : 0);
    if (terminal && (spawn_fds != 0 || spawn->rows == 0 || spawn->columns == 0))
        broken("a terminal has a size, and nothing was sent along");
    if ((unsigned)__builtin_popcount(spawn->fd_mask) != wanted)
        broken("a command gets the descriptors that it was sent, and no others");
    for (unsigned i = 0; i < wanted; i++)
        if (fcntl(fds[i], F_GETFD) != FD_CLOEXEC)
            broken("a command's descriptors are open, and close when it executes");
    *failure = (struct failure){STEP_SPAWN_EXEC, 0, ENOENT, NO_RECORD, 0};
    return -1;
}

/* In the place of terminal.c: two descriptors that somebody has to close. */
int terminal_open(struct terminal *terminal, uint16_t rows, uint16_t columns) {
    (void)rows, (void)columns;
    terminal->master = open("/dev/null", O_RDWR | O_CLOEXEC);
    terminal->slave = open("/dev/null", O_RDWR | O_CLOEXEC);
    return terminal->master < 0 || terminal->slave < 0 ? EMFILE : 0;
}

/* In the place of privileges.c: there is one user. */
uint32_t user_number(const unsigned char *data) {
    struct user user = {0};
    if (data != NULL)
        memcpy(&user, data, sizeof user);
    return user.number;
}

int user_files(uint32_t number) { return number == 0 ? 0 : EPERM; }

void terminal_close(struct terminal *terminal) {
    if (terminal->slave >= 0)
        (void)close(terminal->slave);
    if (terminal->master >= 0)
        (void)close(terminal->master);
    *terminal = (struct terminal){-1, -1};
}

pid_t tree_foreground(pid_t command) {
    (void)command;
    return 0;
}

/* In the place of tree.c: there is no tree. */
size_t tree_signal(pid_t root, const pid_t *spared, size_t spared_count, int number) {
    (void)root, (void)spared, (void)spared_count;
    return (size_t)kill(1, number);
}

void tree_freeze(pid_t root, const pid_t *spared, size_t spared_count, int rounds) {
    (void)root, (void)spared, (void)spared_count, (void)rounds;
}

void tree_go_on(pid_t root) { (void)root; }

size_t tree_origin(pid_t pid, const pid_t *roots, size_t count, char name[16]) {
    (void)pid;
    (void)roots;
    (void)name;
    return count; /* nobody is refused anything here */
}

size_t tree_list(pid_t root, struct leftover *out, size_t room) {
    (void)root, (void)out, (void)room;
    return 0;
}

void tree_end(void) {}

int tree_keep(int place) { return place; }

/* In the place of landlock.c: nothing is restricted. */
int landlock_keep(int place) { return place; }
