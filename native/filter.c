/* Owns seccomp filters: the last step, since one also binds what comes after it. */
#include "init.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct sock_filter instructions[BPF_MAXINSNS];

int filter_add(const struct record *record) {
    memcpy(instructions, record->data, record->size); /* decode.c bounds it to the array */
    struct sock_fprog program = {(unsigned short)(record->size / sizeof instructions[0]), instructions};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

void filter_install(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct record *record = &plan->records[i];
        if (record->op != RECORD_SECCOMP)
            continue;
        int error = refusals_listen(record);
        /* The wall is the same without our hearing of it. One process is told, and no second one. */
        bool unheard = error == EBUSY || error == E2BIG;
        if (unheard && filter_add(record) != 0)
            report_failure(STEP_SECCOMP, i, errno, "installing the filter");
        if (error != 0 && !unheard)
            report_failure(STEP_SECCOMP, i, error, "installing the filter");
        report_done(STEP_SECCOMP, i, 0);
        report_done(STEP_REFUSALS, NO_RECORD, error);
    }
}
