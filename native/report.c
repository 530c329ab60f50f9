/* Owns the account of a start: each step that was done, or the one that failed and ends us. */
#include "init.h"

#include <string.h>
#include <unistd.h>

#define TEXT_LIMIT 512

static int report_channel = -1;
static struct done steps[RECORDS_LIMIT + 32];
static size_t step_count;

void report_open(int channel) { report_channel = channel; }

void report_done(enum step step, uint32_t record, int skipped) {
    if (step_count < sizeof steps / sizeof steps[0])
        steps[step_count++] = (struct done){(uint16_t)step, (uint16_t)skipped, record};
}

int report_send(void) { return channel_send(report_channel, EVENT_STARTED, 0, steps, step_count * sizeof steps[0]); }

_Noreturn void report_failure(enum step step, uint32_t record, int error, const char *text) {
    struct {
        struct failure failure;
        char text[TEXT_LIMIT];
    } body;
    size_t length = text == NULL ? 0 : strnlen(text, TEXT_LIMIT);

    body.failure = (struct failure){(uint16_t)step, 0, error, record, (uint32_t)length};
    memcpy(body.text, text == NULL ? "" : text, length);
    /* If even this cannot be sent, the host sees the channel close: the start fails either way. */
    (void)channel_send(report_channel, EVENT_START_FAILED, 0, &body, sizeof body.failure + length);
    _exit(1);
}
