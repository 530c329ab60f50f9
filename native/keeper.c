/* Owns one job: its command, everything that descends from it, and the account of its exit.
 *
 * Forked by init when it runs short, used again for the next job when the last process of this one
 * has ended, and gone after a while without work. */
#include "init.h"
#include "pace.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define VECTOR_ROOM 1024 /* words and variables of an ordinary command; more take a mapping */
#define IDLE_MS 3000
#define KILL_ROUNDS 2 /* of SIGKILL alone, to the group and to all, before the tree is frozen first */

struct job {
    uint32_t id, flags;
    pid_t command; /* 0 once reaped */
    bool children; /* as of the last reap */
    bool ending; /* the tree is being ended */
    bool killed; /* because the host asked */
    bool reported, left_over; /* its exit is reported; and something lived on after it */
    unsigned rounds;
    int status;
    struct rusage usage;
    struct terminal terminal; /* the command's side only: it is held while the command lives */
    struct output output; /* what it writes, where we made the pipes */
    bool asked, handed; /* the host wants them; and has them, so that it reads */
    struct pace handing;
};

static int channel_fd, control_fd, children_fd;
static const struct refusals *refusals;
static char *vector[VECTOR_ROOM];

/* With a descriptor, unless `fd` is -1. */
static void deliver(uint16_t kind, uint32_t id, const void *body, size_t size, int fd) {
    for (;;) {
        int error = channel_send_fds(control_fd, kind, id, body, size, &fd, fd < 0 ? 0 : 1);
        if (error == 0)
            return;
        if (error != EAGAIN)
            _exit(1); /* the host is gone, and the sandbox in a moment; or the master can't travel */
        struct pollfd room = {.fd = control_fd, .events = POLLOUT};
        if (poll(&room, 1, -1) < 0 && errno != EINTR)
            _exit(1);
    }
}

static uint64_t microseconds(struct timeval time) { return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec; }

/* Tells what waits in one stream, and no more: somebody who goes on writing must not keep us. */
static void report_written(const struct job *job, unsigned stream, size_t waiting) {
    struct {
        struct written head;
        unsigned char bytes[OUTPUT_ROOM];
    } body = {.head = {stream, 0}};
    while (waiting > 0) {
        size_t got = output_read(&job->output, stream, body.bytes, waiting);
        if (got == 0)
            return;
        deliver(EVENT_WRITTEN, job->id, &body, sizeof body.head + got, -1);
        waiting -= got;
    }
}

/* Takes what the command wrote before it exited: into `rest`, or, where it has no room there, to the host.
 * Returns the bytes in `rest`. */
static size_t take_output(struct job *job, struct exited *exited, unsigned char *rest) {
    size_t out = output_waiting(&job->output, 0), err = output_waiting(&job->output, 1);
    if (out + err > OUTPUT_ROOM) {
        report_written(job, 0, out);
        report_written(job, 1, err);
        return 0;
    }
    if (out > 0)
        exited->out = (uint32_t)output_read(&job->output, 0, rest, out);
    if (err > 0)
        exited->err = (uint32_t)output_read(&job->output, 1, rest + exited->out, err);
    return exited->out + exited->err;
}

static void report_exit(struct job *job) {
    struct {
        struct exited exited;
        unsigned char rest[sizeof(struct refused[REFUSED_LISTED]) + sizeof(struct leftover[LEFTOVERS_LISTED]) +
                           OUTPUT_ROOM];
    } body;
    struct refused refused[REFUSED_LISTED];
    struct leftover running[LEFTOVERS_LISTED];
    uint64_t total;
    const struct rusage *usage = &job->usage;
    size_t kinds = refusals_read(refusals, &total, refused);
    size_t left = job->children ? tree_list(getpid(), running, LEFTOVERS_LISTED) : 0;
    size_t listed = left < LEFTOVERS_LISTED ? left : LEFTOVERS_LISTED;

    if (left == TREE_UNKNOWN) { /* there are children, so that much is certain */
        left = 1;
        listed = 0;
    }

    body.exited = (struct exited){
        .status = job->status,
        .flags = job->killed ? EXITED_KILLED : 0,
        .user_us = microseconds(usage->ru_utime),
        .system_us = microseconds(usage->ru_stime),
        .max_rss_kib = (uint64_t)usage->ru_maxrss,
        .minor_faults = (uint64_t)usage->ru_minflt,
        .major_faults = (uint64_t)usage->ru_majflt,
        .blocks_in = (uint64_t)usage->ru_inblock,
        .blocks_out = (uint64_t)usage->ru_oublock,
        .voluntary_switches = (uint64_t)usage->ru_nvcsw,
        .involuntary_switches = (uint64_t)usage->ru_nivcsw,
        .left = (uint32_t)left,
        .listed = (uint32_t)listed,
        .refused = total,
        .kinds = (uint32_t)kinds,
    };
    memcpy(body.rest, refused, kinds * sizeof refused[0]);
    memcpy(body.rest + kinds * sizeof refused[0], running, listed * sizeof running[0]);
    size_t rest = kinds * sizeof refused[0] + listed * sizeof running[0];
    if (job->handed)
        output_close(&job->output); /* the host reads what is there */
    else
        rest += take_output(job, &body.exited, body.rest + rest);
    deliver(EVENT_EXITED, job->id, &body, sizeof body.exited + rest, -1);
    job->reported = true;
    job->asked = false;
    job->left_over = left > 0;
}

static void report_gone(const struct job *job) {
    struct {
        struct gone gone;
        struct refused refused[REFUSED_LISTED];
    } body;
    uint64_t total;
    size_t kinds = refusals_read(refusals, &total, body.refused);
    body.gone = (struct gone){.refused = total, .kinds = (uint32_t)kinds};
    deliver(EVENT_GONE, job->id, &body, sizeof body.gone + kinds * sizeof body.refused[0], -1);
}

/* Returns whether somebody has ended. */
static bool reap(struct job *job) {
    struct signalfd_siginfo drained;
    struct rusage usage;
    bool ended = false;
    int status;
    /* At most one can be pending: SIGCHLD does not queue. */
    if (read(children_fd, &drained, sizeof drained) < 0 && errno != EAGAIN && errno != EINTR)
        _exit(1);
    for (;;) {
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0 && errno != ECHILD)
            _exit(1); /* it can't be known whether something is left: init ends it */
        job->children = pid == 0;
        if (pid <= 0)
            return ended;
        ended = true;
        if (pid == job->command) {
            job->command = 0;
            job->status = status;
            job->usage = usage;
        }
    }
}

static void end_tree(struct job *job) {
    unsigned round = job->rounds++;
    /* The command leads a group, which has nearly always all of the tree: the kernel takes a group whole,
     * forks under way included, and however many fork, nobody has to be looked for. The number is the
     * command's own until it is reaped. */
    if (round == 0 && job->command != 0 && kill(-job->command, SIGKILL) == 0)
        return;
    if (round >= KILL_ROUNDS)
        tree_freeze(getpid(), NULL, 0, FREEZE_ROUNDS);
    (void)tree_signal(getpid(), NULL, 0, SIGKILL);
}

static void signal_job(const struct job *job, const struct signal_body *request) {
    int number = (int)request->number;
    if (request->target == SIGNAL_TREE) {
        (void)tree_signal(getpid(), NULL, 0, number);
    } else if (job->command != 0) { /* not reaped, so its pid is still its own */
        bool all = request->target == SIGNAL_FOREGROUND;
        pid_t group = all ? tree_foreground(job->command) : 0;
        if (!all || group > 1)
            (void)kill(all ? -group : job->command, number);
    }
}

static void obey(struct job *job) {
    struct incoming in;
    enum receive_result result = channel_receive(channel_fd, MSG_DONTWAIT, &in);
    if (result == RECEIVE_EOF)
        _exit(0);
    if (result == RECEIVED && in.head.job == job->id && in.head.kind == REQUEST_KILL) {
        job->ending = job->killed = true;
    } else if (result == RECEIVED && in.head.job == job->id && in.head.kind == REQUEST_SIGNAL) {
        struct signal_body request;
        memcpy(&request, in.body, sizeof request); /* serve.c checked its size and number */
        signal_job(job, &request);
    } else if (result == RECEIVED && in.head.job == job->id && in.head.kind == REQUEST_OUTPUT) {
        job->asked = job->output.ours[0] >= 0 && !job->reported;
    }
    channel_release(&in);
}

/* The host may have no room for them, or the channel: then it is tried again. We keep our copies until the
 * exit, so that the host can ask again where it had no descriptor left for them. */
static void hand_over(struct job *job) {
    int error = channel_send_fds(control_fd, EVENT_PIPES, job->id, NULL, 0, job->output.ours, STREAMS);
    if (error != 0 && error != EAGAIN && error != ETOOMANYREFS && error != ENOMEM && error != ENOBUFS)
        _exit(1);
    job->asked = error != 0;
    job->handed = job->handed || error == 0;
}

/* What is left of a command after its exit may go on writing: that is dropped here, or its next write would
 * end it, or wait for ever. */
static void watch_leftovers(const struct job *job, struct pollfd events[STREAMS]) {
    for (unsigned stream = 0; stream < STREAMS; stream++)
        events[stream] = (struct pollfd){.fd = job->reported ? job->output.ours[stream] : -1, .events = POLLIN};
}

static int patience(const struct job *job, const struct pace *ending) {
    int end = job->ending ? pace_timeout(ending) : -1, hand = job->asked ? pace_timeout(&job->handing) : -1;
    return end < 0 || (hand >= 0 && hand < end) ? hand : end;
}

/* Stays with the job until its last process is gone. */
static void keep(struct job *job) {
    struct pace pace = {0, 0};
    for (;;) {
        struct pollfd events[2 + STREAMS] = {{.fd = channel_fd, .events = POLLIN},
                                             {.fd = children_fd, .events = POLLIN}};
        watch_leftovers(job, events + 2);
        if (poll(events, 2 + STREAMS, patience(job, &pace)) < 0 && errno != EINTR)
            _exit(1);
        if (events[0].revents != 0)
            obey(job);
        for (unsigned stream = 0; stream < STREAMS; stream++)
            if (events[2 + stream].revents != 0)
                output_drop(&job->output, stream);
        if (reap(job))
            pace_quicken(&pace);
        if (job->command == 0)
            terminal_close(&job->terminal);
        if (job->command == 0 && (job->flags & SPAWN_END_LEFTOVERS) != 0)
            job->ending = true;
        if (job->ending && job->children && pace_is_due(&pace))
            end_tree(job);
        if (job->asked && !job->reported && pace_is_due(&job->handing))
            hand_over(job);
        if (job->command == 0 && !job->reported && !(job->ending && job->children))
            report_exit(job);
        if (job->command == 0 && !job->children)
            return;
    }
}

static void fail(uint32_t id, struct failure failure) {
    deliver(EVENT_SPAWN_FAILED, id, &failure, sizeof failure, -1);
}

/* A command with a terminal of its own in the place of the host's descriptors. */
static pid_t spawn_on_terminal(struct spawn *spawn, struct terminal *terminal, struct failure *failure) {
    int error = user_files(user_number(spawn->user)); /* whose the terminal is */
    if (error == 0)
        error = terminal_open(terminal, spawn->rows, spawn->columns);
    if (user_files(0) != 0)
        _exit(1); /* it would go on as somebody else */
    if (error != 0) {
        *failure = (struct failure){STEP_SPAWN_TERMINAL, 0, error, NO_RECORD, 0};
        return -1;
    }
    const int streams[3] = {terminal->slave, terminal->slave, terminal->slave};
    spawn->fd_mask = 7;
    return spawn_command(spawn, streams, failure);
}

/* A command that writes into pipes of ours. */
static pid_t spawn_captured(struct spawn *spawn, const int *fds, struct output *output, struct failure *failure) {
    int streams[3];
    unsigned count = 0;
    int error = output_open(output);
    if (error != 0) {
        *failure = (struct failure){STEP_SPAWN_STDIO, 0, error, NO_RECORD, 0};
        return -1;
    }
    if (spawn->fd_mask != 0)
        streams[count++] = fds[0]; /* decode.c lets it be nothing but its input */
    for (unsigned stream = 0; stream < STREAMS; stream++) {
        streams[count++] = output->theirs[stream];
        spawn->fd_mask |= 2u << stream;
    }
    pid_t pid = spawn_command(spawn, streams, failure);
    output_begun(output);
    return pid;
}

static pid_t spawn_any(struct job *job, struct spawn *spawn, const int *fds, struct failure *failure) {
    if ((spawn->flags & SPAWN_TERMINAL) != 0)
        return spawn_on_terminal(spawn, &job->terminal, failure);
    if ((spawn->flags & SPAWN_CAPTURED) != 0)
        return spawn_captured(spawn, fds, &job->output, failure);
    return spawn_command(spawn, fds, failure);
}

/* The master is the host's alone. The other side stays with us as well, or the host would be told of
 * an end whenever no process of the command has it open; a command may open it again. */
static void report_birth(struct job *job) {
    struct spawned spawned = {(uint32_t)job->command, 0};
    if ((job->flags & (SPAWN_REPORT | SPAWN_TERMINAL)) != 0)
        deliver(EVENT_SPAWNED, job->id, &spawned, sizeof spawned, job->terminal.master);
    if (job->terminal.master >= 0)
        (void)close(job->terminal.master);
    job->terminal.master = -1;
}

static void run(struct incoming *in) {
    struct job job = {.id = in->head.job, .terminal = {-1, -1}, .output = OUTPUT_NONE};
    struct failure failure = {STEP_PROTOCOL, 0, EPROTO, NO_RECORD, 0};
    struct spawn spawn;
    char **words = vector;
    unsigned memfds = channel_bodies(in);
    size_t room = spawn_vector_room(in->body, in->head.size), mapped = 0;

    if (room > VECTOR_ROOM) {
        mapped = room * sizeof *words;
        words = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (words == MAP_FAILED) {
        failure.error = ENOMEM;
        fail(job.id, failure);
        return;
    }
    if (decode_spawn(in->body, in->head.size, words, room > VECTOR_ROOM ? room : VECTOR_ROOM, &spawn) == NULL &&
        in->fd_count - memfds == (unsigned)__builtin_popcount(spawn.fd_mask)) {
        job.flags = spawn.flags;
        job.command = spawn_any(&job, &spawn, in->fds + memfds, &failure);
    }
    channel_release(in);
    if (mapped != 0)
        (void)munmap(words, mapped);
    if (failure.step != 0) {
        while (job.command > 0 && waitpid(job.command, NULL, 0) < 0 && errno == EINTR) {
            /* it has ended, or is about to */
        }
        terminal_close(&job.terminal);
        output_close(&job.output);
        fail(job.id, failure);
        return;
    }
    report_birth(&job);
    keep(&job);
    output_close(&job.output);
    if (job.left_over)
        report_gone(&job);
}

/* Waits for a job; false when there was none for so long that this keeper may go. */
static bool wait_for_job(bool stays) {
    struct pollfd event = {.fd = channel_fd, .events = POLLIN};
    int ready = poll(&event, 1, stays ? -1 : IDLE_MS);
    if (ready < 0 && errno != EINTR)
        _exit(1);
    return ready != 0;
}

_Noreturn void keeper_refuse(int channel, int control, volatile uint32_t *state, int error) {
    struct incoming in;
    control_fd = control;
    if (channel_receive(channel, 0, &in) == RECEIVED && in.head.kind == REQUEST_SPAWN)
        fail(in.head.job, (struct failure){STEP_SPAWN_FORK, 0, error, NO_RECORD, 0});
    __atomic_store_n(state, KEEPER_NONE, __ATOMIC_RELEASE); /* or init would tell of an exit, too */
    _exit(1);
}

_Noreturn void keeper_run(int channel, int control, volatile uint32_t *state, const struct refusals *told, bool stays) {
    sigset_t children;
    refusals = told;
    channel_fd = channel;
    control_fd = control;
    (void)sigemptyset(&children);
    (void)sigaddset(&children, SIGCHLD);
    children_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children_fd < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_NAME, "sandyard-keeper", 0, 0, 0) != 0)
        keeper_refuse(channel, control, state, errno);
    for (;;) {
        struct incoming in;
        uint32_t idle = KEEPER_IDLE;
        if (!wait_for_job(stays)) {
            /* Only from idle: init may have given us a job in this very moment. */
            if (__atomic_compare_exchange_n(state, &idle, KEEPER_NONE, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                _exit(0);
            continue;
        }
        enum receive_result result = channel_receive(channel_fd, MSG_DONTWAIT, &in);
        if (result == RECEIVE_EOF)
            _exit(0);
        if (result == RECEIVED && in.head.kind == REQUEST_SPAWN) {
            run(&in);
            __atomic_store_n(state, KEEPER_IDLE, __ATOMIC_RELEASE);
        } else if (result == RECEIVE_BAD) { /* init has seen it whole: here it could not be mapped */
            fail(in.head.job, (struct failure){STEP_PROTOCOL, 0, ENOMEM, NO_RECORD, 0});
            __atomic_store_n(state, KEEPER_IDLE, __ATOMIC_RELEASE);
        }
        channel_release(&in); /* and a signal for a job that has ended meanwhile is dropped */
    }
}
