/* Owns one lie: runs a program and lets one chosen system call of one of its processes fail.
 *
 *   inject LOG PROCESS NUMBER ERRNO SPARED PROGRAM [ARGUMENT]...
 *
 * PROCESS counts processes in the order of their birth, NUMBER a process's system calls, both from
 * 0. A SIGUSR1 lets all calls be counted from 0 again; what comes before it is spared if SPARED is 1.
 * LOG is a descriptor; lines are written to it:
 *
 *   S PROCESS NUMBER NAME    a call that may fail, in the order of the calls; only with PROCESS -1
 *   H PROCESS NUMBER NAME    the chosen call has failed
 *   A                        the counts are 0 again
 *   L COUNT                  so many processes outlived the first one by PATIENCE_S
 *
 * A process that executes a program of its own (a command) is let go. */
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_LIMIT 256
#define PATIENCE_S 10

struct process {
    pid_t pid;
    bool executed, lying;
    volatile long number; /* of its next system call */
};

static struct process processes[PROCESSES_LIMIT];
static int process_count, log_fd;
static volatile sig_atomic_t spared;

static const struct {
    long number;
    const char *name;
} NAMES[] = {
    {SYS_brk, "brk"},           {SYS_close, "close"},     {SYS_getrandom, "getrandom"},
    {SYS_mprotect, "mprotect"}, {SYS_munmap, "munmap"},   {SYS_prlimit64, "prlimit64"},
    {SYS_ioctl, "ioctl"},
    {SYS_recvmsg, "recvmsg"},   {SYS_rseq, "rseq"},       {SYS_sendmsg, "sendmsg"},
    {SYS_ppoll, "poll"},        {SYS_wait4, "wait4"},     {SYS_set_robust_list, "set_robust_list"},
    {SYS_read, "read"},         {SYS_prctl, "prctl"},     {SYS_rt_sigaction, "rt_sigaction"},
    {SYS_fcntl, "fcntl"},       {SYS_write, "write"},     {SYS_openat, "openat"},
    {SYS_execve, "execve"},     {SYS_kill, "kill"},       {SYS_getsid, "getsid"},
#ifdef SYS_poll
    {SYS_poll, "poll"},
#endif
#ifdef SYS_readlink
    {SYS_readlink, "readlink"},
#endif
    {SYS_readlinkat, "readlink"},
};

static void say(const char *format, ...) {
    char line[128];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (length < 0 || write(log_fd, line, (size_t)length) != length)
        _exit(120);
}

static void say_call(char kind, int process, long number, long call) {
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (NAMES[i].number == call) {
            say("%c %d %ld %s\n", kind, process, number, NAMES[i].name);
            return;
        }
    say("%c %d %ld %ld\n", kind, process, number, call);
}

/* Those that the kernel never fails, so that nobody asks whether they did. */
static bool may_fail(long call) {
    return call != SYS_exit && call != SYS_exit_group && call != SYS_rt_sigreturn && call != SYS_umask &&
           call != SYS_getpid && call != SYS_getppid && call != SYS_gettid && call != SYS_getuid &&
           call != SYS_geteuid && call != SYS_getgid && call != SYS_getegid && call != SYS_set_tid_address &&
           call != SYS_restart_syscall;
}

static _Noreturn void give_up(const char *what) {
    perror(what);
    _exit(121);
}

/* --- the call ------------------------------------------------------------------------------------- */

static void skip_call(pid_t pid) {
#if defined(__x86_64__)
    if (ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), -1L) != 0)
        give_up("skipping a call");
#elif defined(__aarch64__)
    int none = -1;
    struct iovec part = {&none, sizeof none};
    if (ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &part) != 0)
        give_up("skipping a call");
#else
#error "which register holds the number of a system call?"
#endif
}

static void set_result(pid_t pid, long result) {
#if defined(__x86_64__)
    if (ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rax), result) != 0)
        give_up("setting a result");
#else
    struct user_regs_struct registers;
    struct iovec part = {&registers, sizeof registers};
    if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &part) != 0)
        give_up("reading registers");
    registers.regs[0] = (unsigned long)result;
    if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &part) != 0)
        give_up("setting a result");
#endif
}

static void at_call(struct process *process, int wanted, long number, int error) {
    struct __ptrace_syscall_info info;
    int index = (int)(process - processes);
    if (ptrace(PTRACE_GET_SYSCALL_INFO, process->pid, sizeof info, &info) < 0)
        return; /* it was killed in this moment */
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && process->lying) {
        process->lying = false;
        set_result(process->pid, -(long)error);
    }
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !process->executed)
        return;
    long mine = process->number++, call = (long)info.entry.nr;
    if (!may_fail(call))
        return;
    if (wanted < 0)
        say_call('S', index, mine, call);
    if (index != wanted || mine != number || spared != 0)
        return;
    say_call('H', index, mine, call);
    if (call != SYS_close) /* close(2): whatever it returns, Linux has closed the descriptor */
        skip_call(process->pid);
    process->lying = true;
}

/* --- processes ------------------------------------------------------------------------------------ */

static void on_arm(int signal_number) {
    (void)signal_number;
    for (int i = 0; i < process_count; i++)
        processes[i].number = 0;
    spared = 0;
    if (write(log_fd, "A\n", 2) != 2)
        _exit(120);
}

static void on_alarm(int signal_number) {
    int left = 0;
    (void)signal_number;
    for (int i = 0; i < process_count; i++)
        left += processes[i].pid != 0;
    char line[] = "L 00\n";
    line[2] = (char)('0' + left / 10 % 10);
    line[3] = (char)('0' + left % 10);
    (void)!write(log_fd, line, 5);
    _exit(122); /* what is left is killed: PTRACE_O_EXITKILL */
}

static struct process *know(pid_t pid) {
    for (int i = 0; i < process_count; i++)
        if (processes[i].pid == pid)
            return &processes[i];
    if (process_count == PROCESSES_LIMIT)
        give_up("too many processes");
    /* What is forked by a process of ours runs our program; the first one has yet to execute it. */
    processes[process_count] = (struct process){.pid = pid, .executed = process_count > 0};
    return &processes[process_count++];
}

static int exit_code(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

/* Resumes a process that has stopped; ESRCH is one that was killed meanwhile. */
static void resume(struct process *process, int status, int wanted, long number, int error) {
    int event = status >> 16, stop = WSTOPSIG(status), deliver = 0;
    unsigned long born;
    enum __ptrace_request how = PTRACE_SYSCALL;
    if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
        if (ptrace(PTRACE_GETEVENTMSG, process->pid, 0, &born) == 0)
            (void)know((pid_t)born);
    } else if (event == PTRACE_EVENT_EXEC) {
        if (process->executed)
            how = PTRACE_DETACH;
        process->executed = true;
    } else if (event == PTRACE_EVENT_STOP) {
        how = stop == SIGTRAP ? PTRACE_SYSCALL : PTRACE_LISTEN;
    } else if (stop == (SIGTRAP | 0x80)) {
        at_call(process, wanted, number, error);
    } else {
        deliver = stop;
    }
    pid_t pid = process->pid;
    if (how == PTRACE_DETACH)
        process->pid = 0;
    if (ptrace(how, pid, 0, (long)deliver) != 0 && errno != ESRCH)
        give_up("resuming a process");
}

static pid_t launch(char **words) {
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                         PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    int gate[2];
    char byte = 0;
    if (pipe(gate) != 0)
        give_up("pipe");
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        (void)close(gate[1]);
        (void)close(log_fd);
        if (read(gate[0], &byte, 1) == 1)
            execv(words[0], words);
        _exit(123);
    }
    if (ptrace(PTRACE_SEIZE, pid, 0, options) != 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0)
        give_up("tracing");
    (void)know(pid);
    if (write(gate[1], &byte, 1) != 1)
        give_up("opening the gate");
    (void)close(gate[0]);
    (void)close(gate[1]);
    return pid;
}

int main(int argc, char **argv) {
    int status, first_status = 0;
    if (argc < 7)
        return 2;
    log_fd = atoi(argv[1]);
    int wanted = atoi(argv[2]), error = atoi(argv[4]);
    long number = atol(argv[3]);
    spared = atoi(argv[5]);
    struct sigaction arm = {.sa_handler = on_arm, .sa_flags = SA_RESTART};
    if (sigaction(SIGUSR1, &arm, NULL) != 0 || signal(SIGALRM, on_alarm) == SIG_ERR)
        give_up("signals");
    pid_t first = launch(argv + 6);
    /* The channel is the program's: we would keep it open. */
    for (int fd = 3; fd < 1024; fd++)
        if (fd != log_fd)
            (void)close(fd);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno == ECHILD)
            return exit_code(first_status);
        if (pid < 0)
            give_up("waiting");
        struct process *process = know(pid);
        if (WIFSTOPPED(status)) {
            resume(process, status, wanted, number, error);
            continue;
        }
        process->pid = 0;
        if (pid == first) {
            first_status = status;
            (void)alarm(PATIENCE_S);
        }
    }
}
