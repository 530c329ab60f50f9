/* What each file of sandyard-init promises to the others. Read it from top to bottom: it is the order
 * in which things happen. */
#ifndef SANDYARD_INIT_H
#define SANDYARD_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "protocol.h"

#define RECORDS_LIMIT 1024
#define NO_RECORD UINT32_MAX

/* decode.c: bytes to values, without effects; what it accepts is within bounds. */

struct record {
    uint16_t op;
    uint32_t size;
    const unsigned char *data;
};

struct plan {
    uint32_t count;
    struct record records[RECORDS_LIMIT];
    struct identity identity;
    uint32_t namespaces;
    struct scratch scratch;
    bool outside; /* processes are found in the procfs outside */
    bool layered; /* one of the binds shows the tree that comes with the plan */
    int passed; /* that tree, detached, or -1; not decoded */
};

struct spawn {
    uint32_t fd_mask, flags;
    char *cwd;
    char **argv, **envp; /* NULL-terminated, inside the caller's vector */
    const unsigned char *user; /* struct user and its groups, or NULL for the session's own */
    const unsigned char *narrowing; /* records, or NULL */
    size_t narrowing_size;
    uint16_t rows, columns; /* of its terminal; 0 without SPAWN_TERMINAL */
};

struct late {
    struct late_head head;
    const char *target;
    const unsigned char *parts; /* each a struct late_part and a path */
};

/* Takes one plain path off the front of `data`; returns what it and its NUL occupy, or 0. */
size_t take_path(const unsigned char *data, size_t size);

/* decode_late.c: likewise. */

struct layers {
    struct layers_head head;
    const unsigned char *layers; /* each a struct layer and a path */
};

const char *decode_layers(const unsigned char *bytes, size_t size, struct layers *layers);
/* Reads one layer that was decoded before; returns the bytes that it takes. */
size_t layer_read(const unsigned char *bytes, struct layer *layer, const char **path);
const char *decode_late(const unsigned char *bytes, size_t size, struct late *late);
/* Reads one part that was decoded before; returns the bytes that it takes. */
size_t late_part_read(const unsigned char *bytes, struct late_part *part, const char **path);
const char *decode_plan(const unsigned char *bytes, size_t size, struct plan *plan);
const char *decode_spawn(unsigned char *bytes, size_t size, char **vector, size_t room, struct spawn *spawn);
/* Reads one record that was decoded before; returns the bytes that it takes. */
size_t record_read(const unsigned char *bytes, struct record *record);
size_t spawn_vector_room(const unsigned char *bytes, size_t size);

/* channel.c: the control channel and the keepers' channels; a datagram is whole or refused. */

struct incoming {
    struct message head;
    unsigned char *body; /* writable, 8-byte aligned; valid until the next receive or release */
    size_t mapped; /* bytes to unmap, 0 for an inline body */
    int fds[FDS_LIMIT]; /* close-on-exec; release() closes those still >= 0 */
    unsigned fd_count;
};

enum receive_result { RECEIVED, RECEIVE_EOF, RECEIVE_AGAIN, RECEIVE_BAD };

enum receive_result channel_receive(int channel, int flags, struct incoming *in);
void channel_release(struct incoming *in);
int close_from(int first); /* and all descriptors above it */
unsigned channel_bodies(const struct incoming *in); /* descriptors that only carried the body */
int channel_forward(int channel, const struct incoming *in);
int channel_send(int channel, uint16_t kind, uint32_t job, const void *body, size_t size);
int channel_send_fds(int channel, uint16_t kind, uint32_t job, const void *body, size_t size, const int *fds,
                     unsigned count);

/* report.c: how far a start has come, and the one way in which it fails. */

void report_open(int channel);
void report_done(enum step step, uint32_t record, int skipped);
int report_send(void);
_Noreturn void report_failure(enum step step, uint32_t record, int error, const char *text);

/* user.c: user namespaces and their id maps. */

pid_t process_clone(unsigned long flags);
void user_map(pid_t pid, const struct identity *identity);
void user_map_self(const struct identity *identity);
void user_idmaps_open(const struct plan *plan);
void user_idmaps_settle(void); /* waits for what opened them, which nobody else is to wait for */
int user_idmap(uid_t uid, gid_t gid);
int user_idmap_open(uid_t uid, gid_t gid, const struct identity *identity); /* or -errno */
void user_counts_open(void); /* before the old root goes */
void user_counts_bound(const struct identity *identity); /* in the user namespace */

/* filesystem.c: mounts that are not attached, and their attachment. */

struct option {
    const char *name;
    char value[256]; /* the most that fsconfig(2) takes */
};

void option_number(struct option *option, const char *name, uint64_t number, unsigned base);
void option_word(struct option *option, const char *name, const char *word); /* "" for a flag */
int filesystem_make(const char *type, const struct option *options, size_t count, uint64_t flags); /* or -errno */
int filesystem_empty(unsigned mode); /* a directory that stays so; or -1 and errno */
int mount_set(int fd, const char *path, unsigned flags, uint64_t set, int idmap); /* idmap may be -1 */
int mount_clone(int fd); /* recursive */
int mount_attach(int tree, int target);
int mount_attach_named(int tree, int parent, const char *name);
int mount_cover(int tree);
int mount_make_private(void); /* all mounts of our namespace */
int mount_pivot(int root); /* in its place; the old root goes */

/* places.c: where something stands in the new root, or is to stand. No symlink is followed. */

int place_begin(int root); /* 0, or errno */
bool place_is_ours(int fd); /* on the file system that is the root */
int place_parent(const char *path, const char **last, bool *ours); /* made where it is ours; or -errno */
int place_open(const char *path); /* what exists; or -errno */
void place_covered(const char *path);
void place_end(void);

/* mounts.c: the new root, from nothing to pivot_root. */

void mounts_build(const struct plan *plan);

/* late.c: what is mounted in a sandbox that already stands. A program of its own, which never serves. */

void late_hand_over(int parent);
void late_await_keeper(int parent);
void late_keep_namespace(int child);
void late_enter_users(int namespace);
void late_leave_host(void);
void late_enter_mounts(int namespace);
_Noreturn void late_run(int channel, struct incoming *in);
/* Finds a directory in the host's place, which could not be got back from a file server that has gone
 * silent, and passes it. */
_Noreturn void late_look(int channel, const char *path);

/* layers.c: trees of several layers, made before the sandbox that shows them. Likewise. */

_Noreturn void layers_run(int channel, struct incoming *in);

/* host.c: hostname and loopback. */

void host_name(const struct plan *plan);
void host_loopback(const struct plan *plan);

/* privileges.c: limits, capabilities, ids, no_new_privs, dumpable; none of it comes back. */

void limits_set(const struct plan *plan);
int limits_for_command(void);
int limit_set(const struct limit *limit);
void capabilities_bound(void);
void identity_take(const struct identity *identity, bool set_groups);
void capabilities_drop(void);
void capabilities_keep(const struct identity *identity); /* init's own, where there are several users */
void capabilities_only_kill(void);
int user_become(const unsigned char *user); /* a command's; NULL for the session's own user; 0 or an errno */
uint32_t user_number(const unsigned char *user);
int user_files(uint32_t number); /* whom this process makes files as; 0 or an errno */
void privileges_lock(void);
void privileges_follow_parent(int parent);

/* landlock.c, filter.c: the last two layers, in this order. Where init looks outside for processes,
 * commands get a ruleset of their own, in which that is not allowed. */

void landlock_restrict(const struct plan *plan);
int landlock_create(const struct landlock *landlock);
int landlock_allow(int ruleset, int place, uint64_t access);
int landlock_enter(int ruleset, bool logged);
int landlock_keep(int place);
int landlock_for_command(void);
void filter_install(const struct plan *plan);
int filter_add(const struct record *record);

/* refusals.c: what the filter refuses is answered by init, which so comes to know of it. */

struct refusals { /* of one job; written by init, read by its keeper */
    uint64_t total;
    uint32_t used;
    struct refused kinds[REFUSED_LISTED];
};

struct refusal { /* one refused call, whose process waits for its answer */
    uint64_t id;
    pid_t pid;
    uint32_t number;
    int error;
};

int refusals_listen(const struct record *record); /* installs the filter; 0 or an errno */
int refusals_listener(void); /* readable when a call was refused; -1 where nobody tells us */
bool refusals_take(struct refusal *refusal);
bool refusals_waits(const struct refusal *refusal); /* so its number is still its process's */
void refusals_answer(const struct refusal *refusal);
void refusals_note(struct refusals *job, const struct refusal *refusal, const char name[16]);
size_t refusals_read(const struct refusals *job, uint64_t *total, struct refused out[REFUSED_LISTED]);
void refusals_clear(struct refusals *job);

/* tree.c: the descendants of a process, and their end. What can't be seen counts as living. */

#define TREE_UNKNOWN SIZE_MAX

void tree_look_outside(void);
void tree_try_outside(void); /* without privileges, and not dumpable: as commands can be */
int tree_outside(void);
int tree_keep(int place);
void tree_end(void);

size_t tree_signal(pid_t root, const pid_t *spared, size_t spared_count, int number);
#define FREEZE_ROUNDS 20 /* of looking for who is new */
void tree_freeze(pid_t root, const pid_t *spared, size_t spared_count, int rounds);
void tree_go_on(pid_t root); /* what one signal to all has stopped */
pid_t tree_foreground(pid_t command); /* the group that has its terminal; 0: none */
size_t tree_list(pid_t root, struct leftover *out, size_t room);
/* Which of `roots` a living process descends from, and its name; `count` for none of them. */
size_t tree_origin(pid_t pid, const pid_t *roots, size_t count, char name[16]);

/* narrow.c: what one command has less than its session; 0 or an errno. */

int narrow_command(const struct spawn *spawn);

/* terminal.c: a terminal of the sandbox's own devpts. */

struct terminal {
    int master, slave; /* close-on-exec; -1: closed */
};

int terminal_open(struct terminal *terminal, uint16_t rows, uint16_t columns); /* returns errno */
int terminal_take(void); /* in the command: standard input becomes its controlling terminal */
void terminal_close(struct terminal *terminal);

/* output.c: the pipes of a command whose output is captured. */

#define STREAMS 2u

struct output { /* stdout and stderr; -1: closed, or there is none */
    int ours[STREAMS], theirs[STREAMS]; /* close-on-exec; ours, which are read, never block */
};

#define OUTPUT_NONE                                                                                                    \
    { {-1, -1}, {-1, -1} }

int output_open(struct output *output); /* 0 or an errno */
void output_begun(struct output *output); /* the command has its ends */
void output_close(struct output *output);
size_t output_waiting(const struct output *output, unsigned stream); /* bytes that were written and not read */
/* At most so many of them, and OUTPUT_ROOM; fewer where somebody else has read them. */
size_t output_read(const struct output *output, unsigned stream, unsigned char *into, size_t waiting);
void output_drop(struct output *output, unsigned stream); /* takes what is there, and closes it at its end */

/* spawn.c: the birth of one command; failure->step is 0 where it was born. */

pid_t spawn_command(const struct spawn *spawn, const int *fds, struct failure *failure);

/* keeper.c: one job at a time: its command, its tree, its exit. */

_Noreturn void keeper_run(int channel, int control, volatile uint32_t *state, const struct refusals *told, bool stays);
_Noreturn void keeper_refuse(int channel, int control, volatile uint32_t *state, int error);

enum keeper_state { KEEPER_NONE = 0, KEEPER_IDLE = 1, KEEPER_BUSY = 2 };

/* serve.c: PID 1 after the walls are up. `parent` is -1, or a socket whose end is the end of the
 * outer process, where the kernel does not end us with it. */

/* Raises our own soft limit on open files; each command gets its own. */
void open_files(void);
_Noreturn void serve(int control, int host, int parent);

#endif
