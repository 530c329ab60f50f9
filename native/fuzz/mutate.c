/* Owns the ways in which an input is changed: blindly, at the borders of its records, and by records
 * of others. The same seed changes the same inputs in the same way. */
#include "mutate.h"

#include <stddef.h>
#include <string.h>

#include "../protocol.h"

#define CHANGES_LIMIT 6 /* of one input */
#define BLOCK_LIMIT 64 /* bytes inserted, removed or copied at once */
#define DICTIONARY_LIMIT 2048
#define LONG 2048 /* bytes: such an input is taken as it comes only once in LONG_SHARE times */
#define LONG_SHARE 8
#define TRIES 8 /* to find an input of the kind that is wanted */
#define PIECES_LIMIT 256 /* records of one input that are told apart */

static uint64_t dice;

static uint32_t roll(size_t sides) { /* xorshift64*, Vigna 2016 */
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return sides == 0 ? 0 : (uint32_t)((dice * 0x2545f4914f6cdd1du >> 32) % sides);
}

/* --- pieces: records of a plan, words of a spawn, messages of a conversation ---------------------- */

struct piece {
    size_t at, size;
};

static size_t piece_of(const uint8_t *data, size_t size, size_t at) {
    struct record_head record;
    uint16_t wire[2];
    size_t rest = size - at, whole = rest;
    if (data[0] == 'P' && rest >= sizeof record) {
        memcpy(&record, data + at, sizeof record);
        whole = sizeof record + (((size_t)record.size + 7) & ~(size_t)7);
    } else if (data[0] == 'W' && rest >= sizeof wire) {
        memcpy(wire, data + at, sizeof wire);
        whole = sizeof wire + wire[1];
    } else if (data[0] == 'S' && at > sizeof(struct spawn_head)) {
        const uint8_t *end = memchr(data + at, 0, rest);
        whole = end == NULL ? rest : (size_t)(end - data) + 1 - at;
    } else if (data[0] == 'S') {
        whole = sizeof(struct spawn_head);
    }
    return whole < rest ? whole : rest;
}

static size_t split(const uint8_t *data, size_t size, struct piece *pieces) {
    size_t count = 0;
    for (size_t at = 1; at < size && count < PIECES_LIMIT;) {
        size_t taken = piece_of(data, size, at);
        pieces[count++] = (struct piece){at, taken};
        at += taken;
    }
    return count;
}

/* --- the dictionary ------------------------------------------------------------------------------- */

static struct input dictionary[DICTIONARY_LIMIT];
static uint8_t dictionary_kind[DICTIONARY_LIMIT];
static size_t dictionary_count;

void mutate_seed(uint64_t seed, const struct input *corpus, size_t count) {
    struct piece pieces[PIECES_LIMIT];
    dice = seed * 0x9e3779b97f4a7c15u | 1; /* never zero, where xorshift would stay */
    for (size_t i = 0; i < count; i++) {
        size_t found = split(corpus[i].data, corpus[i].size, pieces);
        for (size_t j = 0; j < found && dictionary_count < DICTIONARY_LIMIT; j++) {
            dictionary_kind[dictionary_count] = corpus[i].data[0];
            dictionary[dictionary_count++] = (struct input){corpus[i].data + pieces[j].at, pieces[j].size};
        }
    }
}

/* --- changes -------------------------------------------------------------------------------------- */

struct draft {
    uint8_t *data;
    size_t size, first; /* what lies before the first byte stays */
};

/* Puts `size` bytes, `times` over, into the place of `gone` at `at`; not where it would be too long. */
static void replace(struct draft *draft, size_t at, size_t gone, const uint8_t *bytes, size_t size, size_t times) {
    static uint8_t held[INPUT_LIMIT];
    if (gone > draft->size - at)
        gone = draft->size - at;
    if (draft->size - gone + size * times > INPUT_LIMIT)
        return;
    memcpy(held, bytes, size); /* it may lie in the draft itself */
    memmove(draft->data + at + size * times, draft->data + at + gone, draft->size - at - gone);
    for (size_t i = 0; i < times; i++)
        memcpy(draft->data + at + i * size, held, size);
    draft->size = draft->size - gone + size * times;
}

static void remove_block(struct draft *draft, size_t at, size_t size) { replace(draft, at, size, draft->data, 0, 0); }

static void write_number(struct draft *draft, size_t at) {
    static const uint64_t odd[] = {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 64, 127, 128, 255, 256, 511, 512, 1023, 1024,
                                   1025, 4095, 4096, 4097, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
                                   0xfffffff0, 0xfffffff8, 0xffffffff, UINT64_MAX};
    uint64_t number = odd[roll(sizeof odd / sizeof odd[0])];
    size_t width = (size_t)1 << roll(4);
    if (roll(3) == 0)
        number = draft->size - at + roll(17) - 8; /* about what is left */
    if (draft->size - at >= width)
        memcpy(draft->data + at, &number, width);
}

static void write_word(struct draft *draft, size_t at) {
    static const char *const words[] = {"/", "//", "/.", "/..", "/../", "/./", ".", "..", "\0", "=", "/a"};
    const char *word = words[roll(sizeof words / sizeof words[0])];
    size_t size = word[0] == '\0' ? 1 : strlen(word);
    const uint8_t *slash = roll(2) == 0 ? memchr(draft->data + at, '/', draft->size - at) : NULL;
    if (slash != NULL)
        at = (size_t)(slash - draft->data);
    replace(draft, at, roll(2) * size, (const uint8_t *)word, size, 1);
}

/* Mostly few: long inputs take long. At most 2 to the power of `limit` - 1. */
static size_t few_or_many(size_t limit) { return (size_t)1 << roll(1 + roll(limit)); }

static void change_bytes(struct draft *draft) {
    size_t room = draft->size - draft->first;
    size_t at = draft->first + roll(room), size = 1 + roll(BLOCK_LIMIT);
    size_t here = size < draft->size - at ? size : draft->size - at;
    if (room == 0)
        return;
    switch (roll(7)) {
    case 0:
        draft->data[at] ^= (uint8_t)(1u << roll(8));
        break;
    case 1:
        draft->data[at] = (uint8_t)roll(256);
        break;
    case 2:
        write_number(draft, at);
        break;
    case 3:
        remove_block(draft, at, size);
        break;
    case 4:
        replace(draft, draft->first + roll(room), 0, draft->data + at, here, 1);
        break;
    case 5: /* up to what is more than any limit */
        here = 1 + roll(here < 9 ? here : 9);
        replace(draft, at, 0, draft->data + at, here < draft->size - at ? here : draft->size - at, few_or_many(14));
        break;
    default:
        write_word(draft, at);
    }
}

/* Changes what a record or a message holds, and makes its sizes true again. */
static void change_payload(struct draft *draft, struct piece here) {
    static uint8_t payload[INPUT_LIMIT];
    size_t before = draft->data[0] == 'P'   ? sizeof(struct record_head)
                    : draft->data[0] == 'W' ? sizeof(uint16_t[2]) + sizeof(struct message)
                                            : 0;
    if (here.size < before)
        return;
    memcpy(payload, draft->data + here.at, here.size);
    struct draft inner = {payload, here.size, before};
    for (size_t changes = 1 + roll(3); changes > 0; changes--)
        change_bytes(&inner);
    if (inner.size < before || inner.size > UINT16_MAX - 8)
        return;
    uint32_t size = (uint32_t)(inner.size - before);
    if (draft->data[0] == 'P') {
        memcpy(payload + offsetof(struct record_head, size), &size, sizeof size);
        memset(payload + inner.size, 0, -inner.size & 7);
        inner.size += -inner.size & 7;
    } else if (draft->data[0] == 'W') {
        uint16_t sent = (uint16_t)(inner.size - sizeof(uint16_t[2]));
        memcpy(payload + sizeof sent, &sent, sizeof sent);
        memcpy(payload + sizeof(uint16_t[2]) + offsetof(struct message, size), &size, sizeof size);
    }
    replace(draft, here.at, here.size, payload, inner.size, 1);
}

static void change_pieces(struct draft *draft, const struct piece *pieces, size_t count) {
    struct piece here = pieces[roll(count)], there = pieces[roll(count)];
    size_t word = roll(dictionary_count);
    switch (roll(8)) {
    case 0: /* its head, where the sizes are */
        write_number(draft, here.at + roll(here.size < 32 ? here.size : 32));
        break;
    case 1:
        remove_block(draft, here.at, here.size);
        break;
    case 2:
        replace(draft, here.at, roll(2) * here.size, draft->data + there.at, there.size, 1);
        break;
    case 3: /* its end, where the NULs and the padding are */
        write_number(draft, here.at + here.size - 1 - roll(here.size < 9 ? here.size : 9));
        break;
    case 4:
        replace(draft, here.at, 0, draft->data + there.at, there.size, few_or_many(11));
        break;
    case 5:
        if (dictionary_count > 0 && dictionary_kind[word] == draft->data[0])
            replace(draft, here.at, roll(2) * here.size, dictionary[word].data, dictionary[word].size, 1);
        break;
    default:
        change_payload(draft, here);
    }
}

/* Goes on as another input of the same kind, from a border of its pieces. */
static void splice(struct draft *draft, const struct input *other) {
    struct piece ours[PIECES_LIMIT], theirs[PIECES_LIMIT];
    size_t our_count = split(draft->data, draft->size, ours);
    size_t their_count = split(other->data, other->size, theirs);
    if (other->data[0] != draft->data[0] || our_count == 0 || their_count == 0)
        return;
    size_t at = ours[roll(our_count)].at, from = theirs[roll(their_count)].at;
    replace(draft, at, draft->size - at, other->data + from, other->size - from, 1);
}

/* One in two from the newest quarter: what was found last leads on. Each kind has its share. */
static const struct input *choose(const struct input *corpus, size_t count) {
    static const uint8_t kinds[] = {'P', 'P', 'W', 'W', 'S', 'L', 'Y'};
    const struct input *chosen = corpus;
    uint8_t kind = kinds[roll(sizeof kinds)];
    for (int tries = 0; tries < TRIES; tries++) {
        size_t newest = count - count / 4 + roll(count / 4 + 1);
        chosen = &corpus[roll(2) == 0 && newest < count ? newest : roll(count)];
        if (chosen->data[0] == kind && (chosen->size <= LONG || roll(LONG_SHARE) == 0))
            break;
    }
    return chosen;
}

size_t mutate(uint8_t *out, const struct input *corpus, size_t count) {
    const struct input *from = choose(corpus, count);
    struct draft draft = {out, from->size, 1};
    struct piece pieces[PIECES_LIMIT];
    memcpy(out, from->data, from->size);
    if (roll(8) == 0)
        splice(&draft, &corpus[roll(count)]);
    for (size_t changes = 1 + roll(CHANGES_LIMIT); changes > 0 && draft.size > 1; changes--) {
        size_t found = roll(2) == 0 ? split(draft.data, draft.size, pieces) : 0;
        if (found > 0)
            change_pieces(&draft, pieces, found);
        else
            change_bytes(&draft);
    }
    return draft.size;
}
