/* What mutate.c promises to the driver. */
#ifndef SANDYARD_FUZZ_MUTATE_H
#define SANDYARD_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

#define INPUT_LIMIT (64u * 1024u) /* above a datagram, and far above what new edges need */

struct input {
    uint8_t *data;
    size_t size;
};

/* Sets the dice, and takes the dictionary from the inputs that were given. */
void mutate_seed(uint64_t seed, const struct input *corpus, size_t count);

/* Writes a changed input to `out`, which has room for INPUT_LIMIT bytes; returns its size. */
size_t mutate(uint8_t *out, const struct input *corpus, size_t count);

#endif
