/* Owns PID 1's life: requests are handed to keepers, orphans are ended, and the end of the host is
 * the end of everything inside. Init is never on the path of a command's data. */
#include "init.h"
#include "pace.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEPERS_LIMIT 2048
#define SPARE_FILES 16 /* below what keepers may take: one message's, and those of a look at /proc */
#define STOP_ROUNDS 4 /* of one sweep; between sweeps there are requests to answer */
#define LOST_PATIENCE_MS 100 /* for strays to end before the loss of their keeper is told */
#define SIGNAL_LIMIT 64

enum { KEEPER_CONTROL = 3, KEEPER_CHANNEL = 4 };

struct keeper {
    pid_t pid; /* 0: free */
    int channel;
    uint32_t job;
    bool killed; /* by us, and not yet buried: it may even say that it is idle, but takes no job */
};

struct lost { /* a job whose keeper has died, until that is told */
    uint32_t job;
    int status;
    int64_t deadline;
};

static struct keeper keepers[KEEPERS_LIMIT];
static volatile uint32_t *states; /* enum keeper_state; shared with the keepers */
static struct refusals *refusals; /* of each keeper's job; shared likewise */
static pid_t keeper_pids[KEEPERS_LIMIT];
static size_t keepers_used; /* keepers beyond this index were never started */
static size_t keepers_room; /* as many as the limit on open files leaves */
static size_t keepers_alive; /* with those that are lost and not told of, never above KEEPERS_LIMIT */
static int control_fd, host_fd, children_fd, parent_fd;
static struct lost losses[KEEPERS_LIMIT];
static size_t loss_count;
static bool strays; /* processes that lost their keeper may be left */
static size_t strays_seen;
static struct pace sweep_pace;
static bool stilled_all; /* all were told to stop, and not yet to go on */

/* Tells the host something, with a descriptor unless `fd` is -1. Returns 0, or ETOOMANYREFS where too many
 * descriptors are on their way; any other error is the end. */
static int reply_with(uint16_t kind, uint32_t job, const void *body, size_t size, int fd) {
    for (;;) {
        int error = channel_send_fds(control_fd, kind, job, body, size, &fd, fd < 0 ? 0 : 1);
        if (error == 0 || (error == ETOOMANYREFS && fd >= 0))
            return error;
        if (error != EAGAIN)
            _exit(0);
        /* The host does not read. Its own sends never block, so waiting here cannot lock the two
         * of us up, and its end still ends us. */
        struct pollfd events[2] = {{.fd = control_fd, .events = POLLOUT}, {.fd = host_fd, .events = POLLIN}};
        if ((poll(events, 2, -1) < 0 && errno != EINTR) || (events[1].revents & POLLIN) != 0)
            _exit(0);
    }
}

static void reply(uint16_t kind, uint32_t job, const void *body, size_t size) {
    (void)reply_with(kind, job, body, size, -1);
}

static void refuse(uint32_t job, enum step step, int error) {
    struct failure failure = {(uint16_t)step, 0, error, NO_RECORD, 0};
    reply(EVENT_SPAWN_FAILED, job, &failure, sizeof failure);
}

/* --- keepers -------------------------------------------------------------------------------------- */

/* The first keeper stays for good, so that a command after a pause does not wait for a fork. */
static _Noreturn void become_keeper(int channel, size_t index) {
    if (dup3(channel, KEEPER_CHANNEL, O_CLOEXEC) < 0)
        keeper_refuse(channel, KEEPER_CONTROL, &states[index], errno);
    int place = tree_keep(KEEPER_CHANNEL + 1);
    if (place > 0)
        place = landlock_keep(place);
    if (place < 0 || close_from(place) != 0)
        keeper_refuse(KEEPER_CHANNEL, KEEPER_CONTROL, &states[index], errno);
    keeper_run(KEEPER_CHANNEL, KEEPER_CONTROL, &states[index], &refusals[index], index == 0);
}

/* Starts a keeper in a free place; returns its index, or -errno. */
static int start_keeper(void) {
    size_t index = 0;
    int pair[2];
    while (index < keepers_room && keepers[index].pid != 0)
        index++;
    if (index == keepers_room || keepers_alive + loss_count == KEEPERS_LIMIT)
        return -EAGAIN;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return -errno;
    states[index] = KEEPER_BUSY;
    pid_t pid = fork();
    if (pid == 0)
        become_keeper(pair[1], index);
    int error = errno;
    (void)close(pair[1]);
    if (pid < 0) {
        (void)close(pair[0]);
        states[index] = KEEPER_NONE;
        return -error;
    }
    keepers[index] = (struct keeper){.pid = pid, .channel = pair[0]};
    keepers_alive++;
    if (index >= keepers_used)
        keepers_used = index + 1;
    return (int)index;
}

static int take_keeper(void) {
    for (size_t i = 0; i < keepers_used; i++) {
        uint32_t idle = KEEPER_IDLE;
        if (keepers[i].pid != 0 && !keepers[i].killed &&
            __atomic_compare_exchange_n(&states[i], &idle, KEEPER_BUSY, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return (int)i;
    }
    return start_keeper();
}

static struct keeper *find_keeper(uint32_t job) {
    for (size_t i = 0; i < keepers_used; i++)
        if (keepers[i].pid != 0 && keepers[i].job == job && states[i] == KEEPER_BUSY)
            return &keepers[i];
    return NULL;
}

/* --- orphans -------------------------------------------------------------------------------------- */

/* A lost keeper is told of when nothing of its job is left, or when that takes too long. */
static void tell_losses(void) {
    size_t kept = 0;
    for (size_t i = 0; i < loss_count; i++) {
        struct lost lost = losses[i];
        if (strays && pace_now() < lost.deadline) {
            losses[kept++] = lost;
            continue;
        }
        struct exited exited = {.status = lost.status, .flags = EXITED_KEEPER_LOST};
        reply(EVENT_EXITED, lost.job, &exited, sizeof exited);
    }
    loss_count = kept;
}

/* Whoever is our child and no keeper has lost its keeper, which only a command can have killed: it
 * and what descends from it are ended, or a job could outlive its timeout by that trick.
 *
 * One try of it, which takes as long as looking at all processes a few times: they are stopped until
 * no more appear, then killed. What is left is tried again at its own pace, and holds up no request. */
static void sweep(void) {
    size_t count = 0;
    for (size_t i = 0; i < keepers_used; i++)
        if (keepers[i].pid != 0)
            keeper_pids[count++] = keepers[i].pid;
    tree_freeze(getpid(), keeper_pids, count, STOP_ROUNDS);
    size_t living = tree_signal(getpid(), keeper_pids, count, SIGKILL);
    if (living != strays_seen)
        pace_quicken(&sweep_pace);
    strays_seen = living;
    strays = living > 0; /* TREE_UNKNOWN, too */
}

/* Who killed one keeper may have killed them all (kill(2), -1): one that is idle as far as it knows could
 * take a job to its grave, so those are replaced. */
static void discard_idle(void) {
    for (size_t i = 0; i < keepers_used; i++) {
        uint32_t idle = KEEPER_IDLE;
        if (keepers[i].pid == 0 || keepers[i].killed ||
            !__atomic_compare_exchange_n(&states[i], &idle, KEEPER_BUSY, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        keepers[i].job = 0; /* it stays taken until it is buried */
        keepers[i].killed = true;
        (void)kill(keepers[i].pid, SIGKILL);
    }
}

static void bury_keeper(size_t index, int status) {
    struct keeper dead = keepers[index];
    bool busy = states[index] == KEEPER_BUSY && dead.job != 0;
    (void)close(dead.channel);
    keepers[index] = (struct keeper){0};
    keepers_alive--;
    states[index] = KEEPER_NONE;
    if (!busy)
        return; /* it left for want of work, or was killed between two jobs */
    if (!dead.killed)
        discard_idle();
    losses[loss_count++] = (struct lost){dead.job, status, pace_now() + LOST_PATIENCE_MS};
    strays = true;
    pace_quicken(&sweep_pace);
}

static size_t find_pid(pid_t pid) {
    size_t index = 0;
    while (index < keepers_used && keepers[index].pid != pid)
        index++;
    return index;
}

static void reap(void) {
    struct signalfd_siginfo drained;
    int status;
    /* At most one can be pending: SIGCHLD does not queue. */
    if (read(children_fd, &drained, sizeof drained) < 0 && errno != EAGAIN && errno != EINTR)
        _exit(1);
    for (;;) {
        pid_t pid = waitpid(-1, &status, WNOHANG | WUNTRACED);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0 && errno != ECHILD)
            _exit(1); /* a lost keeper would never be told of */
        if (pid <= 0)
            return;
        size_t index = find_pid(pid);
        if (WIFSTOPPED(status)) {
            if (index < keepers_used) /* a command stopped its keeper, or another's; strays we stopped */
                (void)kill(pid, SIGCONT);
            continue;
        }
        pace_quicken(&sweep_pace); /* a keeper, or a stray */
        if (index < keepers_used)
            bury_keeper(index, status);
    }
}

/* --- requests ------------------------------------------------------------------------------------- */

static void handle_spawn(const struct incoming *in) {
    if (in->head.job == 0) { /* which is no job: its keeper's death would not be told */
        refuse(0, STEP_PROTOCOL, EPROTO);
        return;
    }
    for (;;) {
        int index = take_keeper();
        if (index < 0) {
            refuse(in->head.job, STEP_SPAWN_FORK, -index);
            return;
        }
        refusals_clear(&refusals[index]);
        int error = channel_forward(keepers[index].channel, in);
        if (error == EPIPE) { /* killed while idle: it stays taken, without a job, until it is buried */
            keepers[index].job = 0;
            continue;
        }
        keepers[index].job = error == 0 ? in->head.job : 0;
        if (error != 0) {
            states[index] = KEEPER_IDLE;
            refuse(in->head.job, STEP_SPAWN_FORK, error);
        }
        return;
    }
}

/* A malformed signal or kill has no answer that could say so: it is as good as none. */
static void handle_signal(const struct incoming *in) {
    struct signal_body request;
    struct keeper *keeper = find_keeper(in->head.job);
    if (in->head.size != sizeof request || in->fd_count != channel_bodies(in) || keeper == NULL)
        return;
    memcpy(&request, in->body, sizeof request);
    if (request.number == 0 || request.number > SIGNAL_LIMIT || request.target > SIGNAL_FOREGROUND)
        return;
    (void)channel_forward(keeper->channel, in); /* full: it has more signals to deal with than matter */
}

static void handle_kill(const struct incoming *in) {
    struct kill_body request;
    struct keeper *keeper = find_keeper(in->head.job);
    if (in->head.size != sizeof request || in->fd_count != channel_bodies(in) || keeper == NULL)
        return;
    memcpy(&request, in->body, sizeof request);
    if (request.force > 1 || request.zero != 0)
        return;
    /* A command may have stopped its keeper. */
    keeper->killed = keeper->killed || request.force != 0;
    (void)kill(keeper->pid, request.force != 0 ? SIGKILL : SIGCONT);
    if (request.force == 0)
        (void)channel_forward(keeper->channel, in);
}

/* An answer comes only from a keeper whose job runs, and writes into pipes of the keeper's. */
static void handle_output(const struct incoming *in) {
    struct keeper *keeper = find_keeper(in->head.job);
    if (in->head.size == 0 && in->fd_count == 0 && keeper != NULL)
        (void)channel_forward(keeper->channel, in); /* full: the host's own signals are in its way */
}

/* Ports: the host connects the socket itself, and carries what passes; a socket stays in the network in
 * which it was made. It is made here, where nothing has power over anything outside, so what is handed out
 * can lead to the sandbox alone. The host does not ask where the filter refuses sockets: it would refuse
 * ours as well. */
static void handle_socket(const struct incoming *in) {
    struct socket_body request = {0};
    struct socket_made made = {0};
    int fd = -1;
    if (in->head.size == sizeof request && in->fd_count == channel_bodies(in))
        memcpy(&request, in->body, sizeof request);
    if ((request.family == AF_INET || request.family == AF_INET6) && request.zero == 0) {
        fd = socket((int)request.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
        made.error = fd < 0 ? errno : 0;
    } else {
        made.error = EPROTO;
    }
    made.error = made.error != 0 ? made.error : reply_with(EVENT_SOCKET_MADE, in->head.job, &made, sizeof made, fd);
    if (made.error != 0)
        reply(EVENT_SOCKET_MADE, in->head.job, &made, sizeof made);
    if (fd >= 0)
        (void)close(fd);
}

/* One signal to everybody, which no fork gets past: one that is under way has it as well, or begins again.
 * Whoever looks for them one by one gets, amid thousands that want a processor, a share like each of them.
 * Keepers go on at once. */
static int stop_all(void) {
    int error = kill(-1, SIGSTOP) == 0 || errno == ESRCH ? 0 : errno;
    stilled_all = error == 0;
    for (size_t i = 0; i < keepers_used; i++)
        if (keepers[i].pid != 0)
            (void)kill(keepers[i].pid, SIGCONT);
    return error;
}

static void handle_still(const struct incoming *in) {
    struct still_body request = {0};
    struct stilled stilled = {0};
    bool whole = in->head.size == sizeof request && in->fd_count == channel_bodies(in);
    if (whole)
        memcpy(&request, in->body, sizeof request);
    if (!whole || request.on > 1 || request.zero != 0) {
        stilled.error = EPROTO;
    } else if (getpid() != 1) { /* then everybody is whoever has our uid, outside as well */
        stilled.error = ENOSYS;
    } else if (request.on != 0 && !stilled_all) { /* a second signal would look like one before ours */
        stilled.error = stop_all();
    } else if (request.on == 0 && stilled_all) {
        tree_go_on(getpid());
        stilled_all = false;
    }
    reply(EVENT_STILLED, in->head.job, &stilled, sizeof stilled);
}

static void handle(void) {
    struct incoming in;
    enum receive_result result = channel_receive(control_fd, MSG_DONTWAIT, &in);
    if (result == RECEIVE_AGAIN)
        return;
    if (result != RECEIVED)
        _exit(result == RECEIVE_EOF ? 0 : 1); /* a host that speaks another language is no owner */
    switch (in.head.kind) {
    case REQUEST_SPAWN:
        handle_spawn(&in);
        break;
    case REQUEST_SIGNAL:
        handle_signal(&in);
        break;
    case REQUEST_KILL:
        handle_kill(&in);
        break;
    case REQUEST_SOCKET:
        handle_socket(&in);
        break;
    case REQUEST_OUTPUT:
        handle_output(&in);
        break;
    case REQUEST_STILL:
        handle_still(&in);
        break;
    default:
        _exit(1);
    }
    channel_release(&in);
}

/* --- refusals ------------------------------------------------------------------------------------- */

/* One at a time, so that a flood of them takes turns with requests. Of a process that descends from no
 * keeper, which has then lost its own, there is nobody to be told. */
static void hear(void) {
    struct refusal refusal;
    char name[16];
    if (!refusals_take(&refusal))
        return;
    for (size_t i = 0; i < keepers_used; i++)
        keeper_pids[i] = keepers[i].pid;
    size_t index = tree_origin(refusal.pid, keeper_pids, keepers_used, name);
    if (index < keepers_used && refusals_waits(&refusal))
        refusals_note(&refusals[index], &refusal, name);
    refusals_answer(&refusal);
}

void open_files(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "getrlimit");
    files.rlim_cur = files.rlim_max; /* ours alone: each command sets its own */
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "setrlimit");
    /* A message whose descriptors find no room would look malformed, and end us. */
    if (files.rlim_cur <= SPARE_FILES)
        report_failure(STEP_SERVE, NO_RECORD, EMFILE, "the limit on open files leaves no room to serve");
    keepers_room = KEEPERS_LIMIT;
    if (files.rlim_cur - SPARE_FILES < KEEPERS_LIMIT)
        keepers_room = (size_t)files.rlim_cur - SPARE_FILES;
}

_Noreturn void serve(int control, int host, int parent) {
    sigset_t children;
    control_fd = control;
    host_fd = host;
    parent_fd = parent;
    (void)sigemptyset(&children);
    (void)sigaddset(&children, SIGCHLD);
    if (sigprocmask(SIG_SETMASK, &children, NULL) != 0)
        report_failure(STEP_SERVE, NO_RECORD, errno, "sigprocmask");
    children_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    states = mmap(NULL, sizeof(uint32_t) * KEEPERS_LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    refusals = mmap(NULL, sizeof *refusals * KEEPERS_LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (children_fd < 0 || states == MAP_FAILED || refusals == MAP_FAILED)
        report_failure(STEP_SERVE, NO_RECORD, errno, "preparing to serve");
    report_done(STEP_SERVE, NO_RECORD, 0);
    if (report_send() != 0)
        _exit(1);
    for (;;) {
        struct pollfd events[5] = {{.fd = control_fd, .events = POLLIN},
                                   {.fd = host_fd, .events = POLLIN}, /* a pidfd: readable at its end */
                                   {.fd = children_fd, .events = POLLIN},
                                   {.fd = parent_fd, .events = 0}, /* its end only */
                                   {.fd = refusals_listener(), .events = POLLIN}};
        if (poll(events, 5, strays ? pace_timeout(&sweep_pace) : -1) < 0 && errno != EINTR)
            _exit(1);
        if (events[1].revents != 0)
            _exit(0);
        if (events[3].revents != 0) { /* nobody is left to do it */
            tree_end();
            _exit(1);
        }
        if (events[0].revents != 0)
            handle();
        if (events[2].revents != 0)
            reap();
        if ((events[4].revents & POLLIN) != 0)
            hear();
        if (strays && pace_is_due(&sweep_pace))
            sweep();
        if (loss_count > 0)
            tell_losses();
    }
}
