/* Owns the reading of what programs of their own are asked for: late mounts and layered trees. No effects,
 * no allocation, like decode.c. */
#include "init.h"

#include <string.h>

#define LATE_FLAGS ((uint32_t)(LATE_WRITABLE | LATE_LEASED | LATE_AS_OWNER))
#define NO_ID UINT32_MAX /* setresuid(2) and its kind take it for "leave it as it is" */

static const char *check_late(const struct late_head *head) {
    bool made = head->kind == LATE_TMPFS || head->kind == LATE_OVERLAY;
    bool removed = head->kind == LATE_REMOVE;
    bool sourced = head->kind == LATE_BIND || head->kind == LATE_OVERLAY;
    if (head->kind < LATE_BIND || head->kind > LATE_REMOVE || (head->flags & ~LATE_FLAGS) != 0 || head->zero != 0)
        return "a late mount is of no known kind";
    if (head->uid == 0 || head->uid == NO_ID || head->gid == NO_ID)
        return "a late mount's user may not be uid 0";
    if (made != (head->size != 0) || made != (head->inodes != 0)) /* tmpfs takes 0 for no limit at all */
        return "a new file system needs a size, and only that has one";
    if (removed ? head->dev != 0 || head->ino != 0 || (head->flags & ~(uint32_t)LATE_LEASED) != 0 : head->mount != 0)
        return "a late mount says too much";
    if ((head->flags & LATE_AS_OWNER) != 0 && !sourced)
        return "what has no source has no owner";
    if (head->parts != 0 && (head->kind != LATE_BIND || (head->flags & LATE_WRITABLE) == 0))
        return "only what can be written to has parts that are kept";
    return NULL;
}

size_t late_part_read(const unsigned char *bytes, struct late_part *part, const char **path) {
    memcpy(part, bytes, sizeof *part);
    *path = (const char *)bytes + sizeof *part;
    return sizeof *part + strlen(*path) + 1;
}

const char *decode_late(const unsigned char *bytes, size_t size, struct late *late) {
    memset(late, 0, sizeof *late);
    if (size < sizeof late->head)
        return "the head of a late mount is cut off";
    memcpy(&late->head, bytes, sizeof late->head);
    const char *problem = check_late(&late->head);
    if (problem != NULL)
        return problem;
    size_t at = sizeof late->head;
    size_t taken = take_path(bytes + at, size - at);
    if (taken < sizeof "/a") /* never the root */
        return "a late mount's target is malformed";
    late->target = (const char *)bytes + at;
    at += taken;
    late->parts = bytes + at;
    for (uint32_t i = 0; i < late->head.parts; i++) {
        struct late_part part;
        if (size - at < sizeof part)
            return "a part is cut off";
        memcpy(&part, bytes + at, sizeof part);
        at += sizeof part;
        taken = take_path(bytes + at, size - at);
        if (part.read_only > 1 || part.zero != 0 || taken < sizeof "/a")
            return "a part is malformed";
        at += taken;
    }
    return at == size ? NULL : "a late mount has trailing bytes";
}

size_t layer_read(const unsigned char *bytes, struct layer *layer, const char **path) {
    memcpy(layer, bytes, sizeof *layer);
    *path = (const char *)bytes + sizeof *layer;
    return sizeof *layer + strlen(*path) + 1;
}

const char *decode_layers(const unsigned char *bytes, size_t size, struct layers *layers) {
    memset(layers, 0, sizeof *layers);
    if (size < sizeof layers->head)
        return "the head of a layered tree is cut off";
    memcpy(&layers->head, bytes, sizeof layers->head);
    const struct layers_head *head = &layers->head;
    if ((head->flags & ~(uint32_t)LAYERS_LEASED) != 0 || head->uid == 0 || head->uid == NO_ID || head->gid == NO_ID)
        return "a layered tree's user may not be uid 0";
    if (head->count == 1 || head->count > LAYERS_LIMIT)
        return "a layered tree has at least two layers, and not too many";
    size_t at = sizeof *head;
    layers->layers = bytes + at;
    for (uint32_t i = 0; i < head->count; i++) {
        if (size - at < sizeof(struct layer))
            return "a layer is cut off";
        at += sizeof(struct layer);
        size_t taken = take_path(bytes + at, size - at);
        if (taken < sizeof "/a")
            return "a layer's path is malformed";
        at += taken;
    }
    return at == size ? NULL : "a layered tree has trailing bytes";
}
