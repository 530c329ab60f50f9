/* Owns the account of what the filter refuses: each refused call waits until init has noted it, and
 * fails with the errno that the filter says.
 *
 * A call that is allowed never comes here, and costs what it cost. One that is refused with ENOSYS does
 * not, either: that is for what programs try in order to find out whether it exists. Without us, which
 * is without a sandbox, the kernel answers ENOSYS itself. */
#include "init.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#define KERNEL_ROOM 256 /* a later kernel's structures may be larger than those that we know */

static struct sock_filter program[BPF_MAXINSNS]; /* as the plan has it, with the errors */
static size_t program_size;
static struct sock_filter installed[BPF_MAXINSNS];
static int listener = -1;

static bool is_told(const struct sock_filter *step) {
    return step->code == (BPF_RET | BPF_K) && (step->k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO &&
           (step->k & SECCOMP_RET_DATA) != ENOSYS;
}

int refusals_listen(const struct record *record) {
    struct seccomp_notif_sizes sizes;
    program_size = record->size / sizeof program[0]; /* decode.c bounds it to the array */
    memcpy(program, record->data, record->size);
    memcpy(installed, record->data, record->size);
    for (size_t i = 0; i < program_size; i++)
        if (is_told(&installed[i]))
            installed[i].k = SECCOMP_RET_USER_NOTIF;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0)
        return errno;
    if (sizes.seccomp_notif > KERNEL_ROOM || sizes.seccomp_notif_resp > KERNEL_ROOM)
        return E2BIG;
    struct sock_fprog whole = {(unsigned short)program_size, installed};
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &whole);
    return listener < 0 ? errno : 0; /* the kernel makes it close-on-exec */
}

int refusals_listener(void) { return listener; }

/* What the plan's program says of a call. The kernel has checked it when it took the one that differs
 * in nothing but results, so jumps and loads are within bounds. */
static uint32_t judge(const struct seccomp_data *data) {
    uint32_t word = 0;
    for (size_t at = 0; at < program_size; at++) {
        const struct sock_filter *step = &program[at];
        bool yes = false;
        switch (step->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            memcpy(&word, (const unsigned char *)data + step->k, sizeof word);
            continue;
        case BPF_ALU | BPF_AND | BPF_K:
            word &= step->k;
            continue;
        case BPF_JMP | BPF_JEQ | BPF_K:
            yes = word == step->k;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            yes = word > step->k;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            yes = (word & step->k) != 0;
            break;
        default: /* a result; of a program that does what we do not know, none */
            return step->code == (BPF_RET | BPF_K) ? step->k : 0;
        }
        at += yes ? step->jt : step->jf;
    }
    return 0;
}

/* Returns false where there is none after all: its process may have been killed. */
bool refusals_take(struct refusal *refusal) {
    union {
        struct seccomp_notif call;
        unsigned char room[KERNEL_ROOM];
    } message;
    memset(&message, 0, sizeof message); /* the kernel asks for that */
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &message) != 0)
        return false;
    uint32_t said = judge(&message.call.data);
    int error = (said & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO ? (int)(said & SECCOMP_RET_DATA) : EPERM;
    *refusal = (struct refusal){message.call.id, (pid_t)message.call.pid, (uint32_t)message.call.data.nr, error};
    return true;
}

bool refusals_waits(const struct refusal *refusal) {
    uint64_t id = refusal->id;
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

void refusals_answer(const struct refusal *refusal) {
    union {
        struct seccomp_notif_resp answer;
        unsigned char room[KERNEL_ROOM];
    } message;
    memset(&message, 0, sizeof message);
    message.answer.id = refusal->id;
    message.answer.error = -refusal->error;
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &message); /* ENOENT: nobody waits any more */
}

void refusals_note(struct refusals *job, const struct refusal *refusal, const char name[16]) {
    uint32_t at = 0;
    __atomic_fetch_add(&job->total, 1, __ATOMIC_RELAXED);
    while (at < job->used && (job->kinds[at].number != refusal->number || job->kinds[at].error != refusal->error))
        at++;
    if (at < job->used) {
        __atomic_fetch_add(&job->kinds[at].count, 1, __ATOMIC_RELAXED);
    } else if (at < REFUSED_LISTED) {
        job->kinds[at] = (struct refused){.count = 1, .number = refusal->number, .error = refusal->error};
        memcpy(job->kinds[at].name, name, sizeof job->kinds[at].name);
        __atomic_store_n(&job->used, at + 1, __ATOMIC_RELEASE);
    }
}

size_t refusals_read(const struct refusals *job, uint64_t *total, struct refused out[REFUSED_LISTED]) {
    uint32_t used = __atomic_load_n(&job->used, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < used; i++) {
        out[i] = job->kinds[i];
        out[i].count = __atomic_load_n(&job->kinds[i].count, __ATOMIC_RELAXED);
    }
    *total = __atomic_load_n(&job->total, __ATOMIC_RELAXED); /* last, so it is the sum of these at least */
    return used;
}

void refusals_clear(struct refusals *job) {
    if (job->total != 0) /* or its page stays unused */
        memset(job, 0, sizeof *job);
}
