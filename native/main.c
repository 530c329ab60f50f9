/* Owns the order of things: the outer process decodes the plan and clones the sandbox's first
 * process, which builds its walls from the inside out, loses the means to take them down, reports,
 * and serves. Read become_sandbox() aloud.
 *
 * usage: sandyard-init FD [PATH], where FD is one end of a SOCK_SEQPACKET socket pair. Asked for a late
 * mount in place of a sandbox, or for a layered tree, it makes that and ends: late.c, layers.c. With a
 * path it passes that directory and ends. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTROL = 3, HOST = 4, PARENT = 5, ABOVE_PLACES = 16 };

static const idtype_t WAIT_PIDFD = (idtype_t)3; /* P_PIDFD; older headers lack it */
static struct plan plan;
static int children_fd = -1; /* the outer process's */

/* Puts the descriptors that init keeps at their places and closes all others; `parent` may be -1. */
static void keep_descriptors(int host, int parent) {
    int place = dup3(host, HOST, O_CLOEXEC) < 0 ? -1 : HOST + 1;
    if (place > 0 && parent >= 0)
        place = dup3(parent, PARENT, O_CLOEXEC) < 0 ? -1 : PARENT + 1;
    if (place > 0)
        place = tree_keep(place);
    if (place < 0 || close_from(place) != 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "keeping descriptors");
}

/* The null device of inside replaces the host's, which commands must never hold. */
static void take_null_device(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        if (null < 0 || dup2(null, fd) < 0)
            report_failure(STEP_SERVE, NO_RECORD, errno, "opening /dev/null inside");
    if (null > 2) /* it is close-on-exec: the copies are what commands inherit */
        (void)close(null);
}

/* Root's sandboxes enter their user namespace when the mounts are made, so that these belong to
 * the outside; only the outer process may then write the id map. */
static void enter_user_namespace(int parent) {
    char byte = 0;
    if (unshare(CLONE_NEWUSER) != 0)
        report_failure(STEP_USER, NO_RECORD, errno, "entering the user namespace");
    if (write(parent, &byte, 1) != 1 || read(parent, &byte, 1) != 1)
        report_failure(STEP_USER, NO_RECORD, EPIPE, "waiting for the id map");
    report_done(STEP_USER, NO_RECORD, 0);
}

static _Noreturn void become_sandbox(int host, int parent) {
    bool leased = plan.identity.mode == IDENTITY_LEASED;
    bool subordinate = plan.identity.mode == IDENTITY_SUBORDINATE;

    privileges_follow_parent(parent);
    late_hand_over(parent);
    if (plan.identity.mode == IDENTITY_CALLER)
        user_map_self(&plan.identity);
    if (subordinate) {
        late_await_keeper(parent); /* who answers when the maps are written */
        report_done(STEP_USER, NO_RECORD, 0);
    }
    user_counts_open();
    mounts_build(&plan);
    host_name(&plan);
    host_loopback(&plan);
    if (!subordinate)
        late_await_keeper(parent);
    if (leased)
        enter_user_namespace(parent);
    user_counts_bound(&plan.identity);
    limits_set(&plan);
    capabilities_bound();
    identity_take(&plan.identity, leased || subordinate);
    capabilities_keep(&plan.identity);
    privileges_lock();
    privileges_follow_parent(parent);
    tree_try_outside();
    keep_descriptors(host, -1);
    take_null_device();
    landlock_restrict(&plan);
    filter_install(&plan);
    serve(CONTROL, HOST, -1);
}

/* The same where there are no namespaces. An ordinary user has no capability to drop from the bounding
 * set, and none comes back without new privileges. Init must not be killed with its parent: it has to
 * end what the kernel does not end with it. */
static _Noreturn void become_guest(int host, int parent) {
    bool leased = plan.identity.mode == IDENTITY_LEASED;
    struct identity identity = plan.identity;

    identity.uid = identity.host_uid;
    identity.gid = identity.host_gid;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "becoming a child subreaper");
    limits_set(&plan);
    if (leased)
        capabilities_bound();
    identity_take(&identity, leased);
    capabilities_drop();
    if (!leased)
        report_done(STEP_CAPABILITIES, NO_RECORD, 0);
    privileges_lock();
    tree_try_outside();
    keep_descriptors(host, parent);
    take_null_device();
    landlock_restrict(&plan);
    filter_install(&plan);
    serve(CONTROL, HOST, PARENT);
}

/* Init sees the end of its host by itself, unless somebody outside, or in a session without a pid
 * namespace a command, has stopped it: the outer process watches too, and ends it. Returns init's
 * status. A stopped init that is `guarded` is ended at once: commands can reach it, and would bring
 * the session to a halt. */
static int outlast(pid_t init, int host, bool guarded) {
    struct pollfd events[2] = {{.fd = children_fd, .events = POLLIN}, {.fd = host, .events = POLLIN}};
    struct signalfd_siginfo drained;
    int status;
    for (;;) {
        pid_t changed = waitpid(init, &status, WNOHANG | (guarded ? WUNTRACED : 0));
        if (changed == init && !WIFSTOPPED(status))
            return status;
        if (changed == init)
            (void)kill(init, SIGKILL);
        if ((changed < 0 || poll(events, 2, -1) < 0) && errno != EINTR)
            _exit(1);
        if (events[1].revents != 0) {
            (void)kill(init, SIGKILL);
            events[1].fd = -1; /* told once; what is left to see is init's end */
        }
        /* At most one can be pending: SIGCHLD does not queue. */
        if (read(children_fd, &drained, sizeof drained) < 0 && errno != EAGAIN && errno != EINTR)
            _exit(1);
    }
}

static _Noreturn void leave_like(int status) {
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* The outer process has one thing left to do, and keeps nothing that it does not need for it. The
 * descriptors that came with the plan stay open: they are the session's leases. So does the sandbox's
 * mount namespace, which nobody else could open any more, for what the host mounts there later. */
static _Noreturn void wait_outside(pid_t init, int host, int parent) {
    if (close(CONTROL) != 0) /* or the host would not see init's end as the end of the channel */
        _exit(1);
    int status = outlast(init, host, false);
    (void)close(parent);
    leave_like(status);
}

/* Without a pid namespace nothing ends with init: what it leaves becomes our child, and we end it. We
 * are out of reach for commands, by Landlock's scope or by our uid, unless an ordinary user wants no wall.
 * Init is not. */
static _Noreturn void wait_and_sweep(pid_t init, int host, int parent) {
    if (close(CONTROL) != 0)
        _exit(1);
    int status = outlast(init, host, true);
    (void)close(parent);
    tree_end();
    leave_like(status);
}

/* Init speaks when it is ready, or ends, or is stopped by somebody while its host ends. */
static void await_init(pid_t init, int host, int parent) {
    struct pollfd events[2] = {{.fd = parent, .events = POLLIN}, {.fd = host, .events = POLLIN}};
    while (poll(events, 2, -1) < 0)
        if (errno != EINTR)
            report_failure(STEP_USER, NO_RECORD, errno, "waiting for init");
    if (events[1].revents != 0)
        (void)kill(init, SIGKILL);
}

/* The ids that a caller may map besides its own are in the hands of two setuid programs, which the host
 * calls: here is no place for programs. Init waits, and the number stays its own for as long as we, its
 * parent, do not wait for its end. Whatever else comes than the answer, init never goes on. */
static void have_mapped(pid_t init, int host) {
    struct pollfd events[2] = {{.fd = CONTROL, .events = POLLIN}, {.fd = host, .events = POLLIN}};
    const struct unmapped unmapped = {(uint32_t)init};
    struct incoming in;
    int error = channel_send(CONTROL, EVENT_UNMAPPED, 0, &unmapped, sizeof unmapped);
    if (error != 0)
        report_failure(STEP_USER, NO_RECORD, error, "asking for the id maps");
    while (poll(events, 2, -1) < 0)
        if (errno != EINTR)
            report_failure(STEP_USER, NO_RECORD, errno, "waiting for the id maps");
    if (events[1].revents != 0)
        _exit(1); /* and init with us */
    if (channel_receive(CONTROL, 0, &in) != RECEIVED || in.head.kind != REQUEST_MAPPED || in.head.size != 0 ||
        in.fd_count != 0)
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, "expected word of the id maps");
}

static void write_map_on_request(pid_t init, int host, int parent) {
    char byte;
    await_init(init, host, parent);
    if (read(parent, &byte, 1) != 1)
        _exit(1); /* init has already said why */
    user_map(init, &plan.identity);
    capabilities_drop(); /* nothing that is left to do needs one, and init waits: it can't start before */
    if (write(parent, &byte, 1) != 1)
        report_failure(STEP_USER, NO_RECORD, errno, "answering init");
}

/* Before init is born, or its end could be missed. Init blocks the same signal when it serves. */
static void watch_children(void) {
    sigset_t children;
    (void)sigemptyset(&children);
    (void)sigaddset(&children, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &children, NULL) == 0)
        children_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children_fd < 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "watching for the end of init");
}

/* Asked by waiting for what is not our child: ECHILD is the answer for a process, EBADF for what is
 * none. A descriptor that never becomes readable would let us outlive the host. */
static bool is_pidfd(int fd) {
    siginfo_t nobody;
    return waitid(WAIT_PIDFD, (id_t)fd, &nobody, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

/* For descriptors whose closing somebody waits for. */
static void close_awaited(int fd) {
    if (close(fd) != 0)
        report_failure(STEP_PROTOCOL, NO_RECORD, errno, "closing a descriptor");
}

static int move_above(int fd) {
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_PLACES);
    if (moved < 0)
        report_failure(STEP_PROTOCOL, NO_RECORD, errno, "moving a descriptor");
    close_awaited(fd);
    return moved;
}

/* The raw call: the C library keeps two signals for itself, which the one that spawned us may have
 * left ignored. SIGKILL and SIGSTOP can't be otherwise, and the call refuses them. */
static void reset_signal(int number) {
    const unsigned long fresh[4] = {0}; /* the kernel's struct sigaction: SIG_DFL, no flags, no mask */
    if (number == SIGKILL || number == SIGSTOP)
        return;
    if (syscall(SYS_rt_sigaction, number, fresh, NULL, sizeof(unsigned long)) != 0)
        report_failure(STEP_PROTOCOL, NO_RECORD, errno, "resetting signals");
}

/* The number of a descriptor that is no standard one. */
static int parse_descriptor(const char *text) {
    char *end;
    long number = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || number < CONTROL || number > INT_MAX)
        _exit(2);
    return (int)number;
}

static void start_clean(const char *argument) {
    sigset_t none;
    int control = parse_descriptor(argument);
    if (control != CONTROL && dup3(control, CONTROL, O_CLOEXEC) < 0)
        _exit(2);
    if (fcntl(CONTROL, F_SETFD, FD_CLOEXEC) != 0 || close_from(CONTROL + 1) != 0)
        _exit(2);
    report_open(CONTROL);
    /* What the host ignores or blocks (Python ignores SIGPIPE) is no business of the commands. */
    for (int number = 1; number < _NSIG; number++)
        reset_signal(number);
    if (sigemptyset(&none) != 0 || sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        report_failure(STEP_PROTOCOL, NO_RECORD, errno, "resetting signals");
    /* The host's terminal must not signal us. It fails for a leader, who has no terminal either. */
    if (setsid() < 0 && getsid(0) != getpid())
        report_failure(STEP_PROTOCOL, NO_RECORD, errno, "setsid");
    (void)umask(022);
}

static _Noreturn void run_bare(int host, int parent, int child) {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "becoming a child subreaper");
    pid_t init = process_clone(0);
    if (init == 0) {
        close_awaited(child);
        become_guest(host, parent);
    }
    if (init < 0)
        report_failure(STEP_NAMESPACES, NO_RECORD, errno, "forking");
    close_awaited(parent);
    if (plan.identity.mode == IDENTITY_LEASED)
        capabilities_only_kill();
    else
        capabilities_drop();
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        report_failure(STEP_PRIVILEGES, NO_RECORD, errno, "dumpable");
    wait_and_sweep(init, host, child);
}

int main(int argc, char **argv) {
    static struct incoming in;
    int pair[2];

    if (argc != 2 && argc != 3)
        return 2;
    start_clean(argv[1]);
    if (argc == 3)
        late_look(CONTROL, argv[2]);
    if (channel_receive(CONTROL, 0, &in) != RECEIVED)
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, "expected a plan");
    if (in.head.kind == REQUEST_MOUNT)
        late_run(CONTROL, &in);
    if (in.head.kind == REQUEST_LAYERS)
        layers_run(CONTROL, &in);
    if (in.head.kind != REQUEST_START)
        report_failure(STEP_PROTOCOL, NO_RECORD, EPROTO, "expected a plan");
    const char *problem = decode_plan(in.body, in.head.size, &plan);
    unsigned memfds = channel_bodies(&in);
    if (problem != NULL)
        report_failure(STEP_PROTOCOL, plan.count, EPROTO, problem);
    if (in.fd_count <= memfds || !is_pidfd(in.fds[memfds]))
        report_failure(STEP_PROTOCOL, plan.count, EPROTO, "expected a pidfd of the host");
    if (plan.layered && in.fd_count < memfds + 2)
        report_failure(STEP_PROTOCOL, plan.count, EPROTO, "expected the tree that is shown");
    plan.passed = plan.layered ? in.fds[memfds + 1] : -1;
    open_files(); /* before the first of many that are opened on the way in */
    int host = move_above(in.fds[memfds]);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        report_failure(STEP_NAMESPACES, NO_RECORD, errno, "socketpair");
    int parent = move_above(pair[1]);
    unsigned long namespaces = plan.namespaces;
    if (plan.outside)
        tree_look_outside();
    watch_children();
    if (namespaces == 0)
        run_bare(host, parent, pair[0]);
    if (plan.identity.mode == IDENTITY_LEASED) {
        user_idmaps_open(&plan);
        namespaces &= ~(unsigned long)CLONE_NEWUSER;
    } else {
        capabilities_drop(); /* a new user namespace gives init all that it needs, inside */
    }
    pid_t init = process_clone(namespaces);
    if (init == 0) {
        close_awaited(pair[0]); /* or we would be our own parent, and never see its end */
        become_sandbox(host, parent);
    }
    if (init < 0)
        report_failure(STEP_NAMESPACES, NO_RECORD, errno, "cloning into new namespaces");
    close_awaited(parent); /* or its end would not be seen while we hold it, too */
    user_idmaps_settle();  /* while init builds, and not before: on a busy machine it takes its time */
    await_init(init, host, pair[0]);
    if (plan.identity.mode == IDENTITY_SUBORDINATE)
        have_mapped(init, host);
    late_keep_namespace(pair[0]);
    if (plan.identity.mode == IDENTITY_LEASED)
        write_map_on_request(init, host, pair[0]);
    wait_outside(init, host, pair[0]);
}
