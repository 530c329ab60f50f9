/* Opens serve.c to the fuzzer: its handlers run on a real channel, and no process is harmed. */
#include <unistd.h>

static pid_t door_getpid(void) { return 1; } /* as where everybody can be signalled */
#define getpid door_getpid
#include "../serve.c"

enum { IDLE_PLACE, BUSY_PLACE, PLACES };

static uint32_t door_states[KEEPERS_LIMIT];
static struct refusals door_refusals[PLACES];

void serve_door_open(int control, int idle_keeper, int busy_keeper) {
    control_fd = control;
    host_fd = -1;
    states = door_states;
    refusals = door_refusals;
    keepers[IDLE_PLACE] = (struct keeper){.pid = 1, .channel = idle_keeper};
    keepers[BUSY_PLACE] = (struct keeper){.pid = 1, .channel = busy_keeper, .job = BUSY_JOB};
    states[IDLE_PLACE] = KEEPER_IDLE;
    states[BUSY_PLACE] = KEEPER_BUSY;
    keepers_used = PLACES;
}

void serve_door_handle(void) { handle(); }

void serve_door_idle(void) { states[IDLE_PLACE] = KEEPER_IDLE; }

void serve_door_close(void) {
    if (keepers_used != PLACES)
        broken("a keeper was started without a fork");
    keepers_used = 0;
    stilled_all = false;
}

/* Nobody can be born here; whoever asks must cope. */
pid_t door_fork(void) {
    errno = EAGAIN;
    return -1;
}

int door_kill(pid_t pid, int number) {
    bool everybody = pid == -1 && number == SIGSTOP;
    if ((pid != 1 && !everybody) || number < 0 || number > SIGNAL_LIMIT)
        broken("a signal that nobody asked for");
    return 0;
}
