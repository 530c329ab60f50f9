/* Owns the birth of one command: from a decoded spawn to execve, or the step that failed. */
#include "init.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM_LIMIT 4096

/* What the child found out before it failed. It shares our memory until it executes (vfork). */
static volatile struct failure birth;
static char program[PROGRAM_LIMIT];

static _Noreturn void child_fail(enum step step) {
    birth.error = errno;
    birth.step = (uint16_t)step;
    _exit(127);
}

/* The caller's descriptors are 3 and above: 0, 1 and 2 are the null device of inside, which is what
 * a command keeps where nothing is passed. */
static void child_stdio(const struct spawn *spawn, const int *fds) {
    unsigned passed = 0;
    for (int target = 0; target < 3; target++)
        if ((spawn->fd_mask >> target & 1) != 0 && dup2(fds[passed++], target) < 0)
            child_fail(STEP_SPAWN_STDIO);
}

static const char *find_path(char *const *envp) {
    for (; *envp != NULL; envp++)
        if (strncmp(*envp, "PATH=", 5) == 0)
            return *envp + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

/* As execvp(3), without its fallback to a shell: a program that exists but may not be run is
 * remembered while the search goes on, and errors that mean "not here" are passed over. */
static void child_search(const struct spawn *spawn) {
    const char *name = spawn->argv[0], *path = find_path(spawn->envp);
    size_t name_size = strlen(name) + 1;
    int error = ENOENT;
    while (name_size > 1) {
        size_t size = strcspn(path, ":");
        if (size + 1 + name_size <= sizeof program) {
            memcpy(program, size == 0 ? "." : path, size == 0 ? 1 : size);
            size_t at = size == 0 ? 1 : size;
            program[at] = '/';
            memcpy(program + at + 1, name, name_size);
            execve(program, spawn->argv, spawn->envp);
            if (errno == EACCES)
                error = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR)
                return;
        }
        if (path[size] == '\0')
            break;
        path += size + 1;
    }
    errno = error;
}

static _Noreturn void child_run(const struct spawn *spawn, const int *fds) {
    sigset_t none;
    (void)sigemptyset(&none);
    if (setsid() < 0)
        child_fail(STEP_SPAWN_STDIO);
    child_stdio(spawn, fds);
    if ((spawn->flags & SPAWN_TERMINAL) != 0 && terminal_take() != 0)
        child_fail(STEP_SPAWN_TERMINAL);
    errno = user_become(spawn->user);
    if (errno != 0)
        child_fail(STEP_SPAWN_USER);
    if (chdir(spawn->cwd) != 0)
        child_fail(STEP_SPAWN_CWD);
    errno = limits_for_command();
    if (errno == 0)
        errno = landlock_for_command();
    if (errno != 0)
        child_fail(STEP_SPAWN_EXEC);
    errno = spawn->narrowing == NULL ? 0 : narrow_command(spawn);
    if (errno != 0)
        child_fail(STEP_SPAWN_NARROW);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        child_fail(STEP_SPAWN_EXEC);
    if (strchr(spawn->argv[0], '/') != NULL)
        execve(spawn->argv[0], spawn->argv, spawn->envp);
    else
        child_search(spawn);
    child_fail(STEP_SPAWN_EXEC);
}

pid_t spawn_command(const struct spawn *spawn, const int *fds, struct failure *failure) {
    birth = (struct failure){0};
    /* No page table is copied, and we go on when the command has begun or failed. The child runs on
     * our stack, with our memory, by direct system calls and functions that write nothing but `birth`,
     * `program` and the copy of a filter; it never returns. */
    pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork): posix_spawn sets no limits */
    if (pid == 0)
        child_run(spawn, fds); /* NOLINT(clang-analyzer-unix.Vfork) */
    if (pid < 0) {
        *failure = (struct failure){STEP_SPAWN_FORK, 0, errno, NO_RECORD, 0};
        return -1;
    }
    *failure = (struct failure){birth.step, 0, birth.error, NO_RECORD, 0};
    return pid;
}
