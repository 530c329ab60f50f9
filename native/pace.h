/* Owns the rhythm of trying again: soon while something moves, rarely while nothing does. A process
 * that hangs in the kernel can't be ended by anybody, and waiting for it must not cost a processor. */
#ifndef SANDYARD_PACE_H
#define SANDYARD_PACE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define FIRST_PAUSE_MS 2
#define LAST_PAUSE_MS 256

struct pace { /* zeros: the first try is due at once */
    int64_t due; /* milliseconds of the monotonic clock */
    int pause; /* before the last try that was due; 0: none was, since something moved */
};

static inline int64_t pace_now(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        _exit(1); /* or we would try for ever, or never */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether to try now; true counts as a try, and the next one is due later. */
static inline bool pace_is_due(struct pace *pace) {
    int64_t now = pace_now();
    if (now < pace->due)
        return false;
    pace->pause = pace->pause == 0 ? FIRST_PAUSE_MS : pace->pause * 2;
    if (pace->pause > LAST_PAUSE_MS)
        pace->pause = LAST_PAUSE_MS;
    pace->due = now + pace->pause;
    return true;
}

/* Something has moved: the next try is due soon. */
static inline void pace_quicken(struct pace *pace) {
    int64_t soon = pace_now() + FIRST_PAUSE_MS;
    pace->pause = 0;
    if (pace->due > soon)
        pace->due = soon;
}

/* Milliseconds until the next try, for poll(2). */
static inline int pace_timeout(const struct pace *pace) {
    int64_t left = pace->due - pace_now();
    return left < 0 ? 0 : (int)left;
}

#endif
