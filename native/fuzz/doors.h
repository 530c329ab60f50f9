/* What the fuzzed build of init calls instead of the kernel: included before each of its files.
 *
 * Only effects are replaced, never a decision: whoever would end, signal or fork a process is told
 * so by a call, memory is given in exact sizes so that one byte too many shows, and all that is
 * given is counted, so that what is not given back shows too. */
#ifndef SANDYARD_FUZZ_DOORS_H
#define SANDYARD_FUZZ_DOORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The headers that are included after this declare the names on the right. */
#define _exit door_exit
#define fork door_fork
#define kill door_kill
#define mmap door_mmap
#define munmap door_munmap
#define recvmsg door_recvmsg

/* A broken promise of init's: prints it and ends the process, as a sanitizer would. */
_Noreturn void broken(const char *promise);

/* serve_door.c: init, with one keeper that waits for work and one that has a job. */
#define BUSY_JOB 7u

void serve_door_open(int control, int idle_keeper, int busy_keeper);
void serve_door_handle(void);
void serve_door_idle(void); /* the first keeper is done with its work */
void serve_door_close(void);

/* keeper_door.c: what the two keepers do with what init hands on. */
void keeper_door_run(int channel, int control);
void keeper_door_obey(int channel, int control);
void check_spawn(const unsigned char *body, size_t size, char *const *argv, size_t argc, char *const *envp,
                 size_t envc, const char *cwd);

/* memory_door.c: memory of exact size. */
size_t memory_door_held(void);
void memory_door_drop(void);

#endif
