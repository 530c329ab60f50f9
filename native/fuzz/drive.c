/* Owns a fuzzer for compilers that have none: gcc tells which edges an input took, and what takes new
 * ones is kept and changed further (mutate.c).
 *
 * usage: fuzz-decode [-t SECONDS] [-n RUNS] [-s SEED] [-w DIRECTORY] PATH...
 * PATHs are inputs, or directories of them. They are run first; without -t or -n that is all.
 * The same seed makes the same inputs in the same order. An input that ends the target, or on which
 * it stays for HANG_S, is written to DIRECTORY (default: the first PATH that is one). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mutate.h"

#define EDGES 16384u /* some forty for each that init has: few share one */
#define HANG_S 10
#define WATCH_MS 100
#define CORPUS_LIMIT 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_cov_trace_pc(void);
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

/* What the child that fuzzes tells the parent that watches. */
struct account {
    volatile uint64_t runs;
    volatile uint32_t edges, kept;
    volatile uint32_t size;
    uint8_t input[INPUT_LIMIT];
};

static struct account *account;
static struct input corpus[CORPUS_LIMIT];
static size_t corpus_count;
static const char *directory;

static _Noreturn void give_up(const char *what, const char *about) {
    (void)fprintf(stderr, "fuzz-decode: %s %s: %s\n", what, about, strerror(errno));
    exit(2);
}

/* --- coverage ------------------------------------------------------------------------------------ */

static uint8_t taken[EDGES];
static uint8_t known[EDGES]; /* bit n: the edge was taken about 2^n times in some input */
static uintptr_t previous;

/* gcc calls this at the head of each basic block. */
void __sanitizer_cov_trace_pc(void) {
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    here ^= here >> 16;
    uint8_t *edge = &taken[(here ^ previous) % EDGES];
    *edge = (uint8_t)(*edge + (*edge != UINT8_MAX));
    previous = (here << 1) % EDGES;
}

static uint8_t bucket(uint8_t times) {
    return (uint8_t)(1u << (times < 4 ? times - 1 : times < 8 ? 3 : times < 16 ? 4 : times < 32 ? 5 : times < 128 ? 6 : 7));
}

/* Whether the last run took an edge that none took before, or so often. */
static bool learn(void) {
    const uint64_t *words = (const uint64_t *)taken;
    bool news = false;
    for (size_t word = 0; word < EDGES / 8; word++) {
        if (words[word] == 0)
            continue;
        for (size_t i = word * 8; i < word * 8 + 8; i++) {
            if (taken[i] == 0 || (known[i] & bucket(taken[i])) != 0)
                continue;
            if (known[i] == 0)
                account->edges++;
            known[i] |= bucket(taken[i]);
            news = true;
        }
    }
    return news;
}

static bool run(const uint8_t *data, size_t size) {
    memcpy(account->input, data, size);
    account->size = (uint32_t)size;
    memset(taken, 0, sizeof taken);
    previous = 0;
    (void)LLVMFuzzerTestOneInput(data, size);
    account->runs++;
    return learn();
}

/* --- corpus -------------------------------------------------------------------------------------- */

static void keep(const uint8_t *data, size_t size) {
    if (corpus_count == CORPUS_LIMIT)
        return;
    uint8_t *copy = malloc(size);
    if (copy == NULL)
        give_up("keeping", "an input");
    memcpy(copy, data, size);
    corpus[corpus_count++] = (struct input){copy, size};
    account->kept++;
}

static void load_file(const char *path) {
    static uint8_t bytes[INPUT_LIMIT];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (size < 0)
        give_up("reading", path);
    (void)close(fd);
    if (size > 0)
        keep(bytes, (size_t)size);
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void load(const char *path) {
    struct dirent **names;
    struct stat facts;
    char file[4096];
    if (stat(path, &facts) != 0)
        give_up("looking at", path);
    if (!S_ISDIR(facts.st_mode)) {
        load_file(path);
        return;
    }
    if (directory == NULL)
        directory = path;
    int count = scandir(path, &names, not_hidden, alphasort); /* sorted: the order is part of the seed */
    if (count < 0)
        give_up("listing", path);
    for (int i = 0; i < count; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        load_file(file);
        free(names[i]);
    }
    free(names);
}

/* --- the child ----------------------------------------------------------------------------------- */

static void replay(void) {
    for (size_t i = 0; i < corpus_count; i++)
        (void)run(corpus[i].data, corpus[i].size);
}

static void fuzz(time_t seconds, uint64_t runs, uint64_t seed) {
    static uint8_t input[INPUT_LIMIT];
    time_t end = time(NULL) + seconds;
    mutate_seed(seed, corpus, corpus_count);
    while (runs == 0 ? time(NULL) < end : account->runs < runs) {
        size_t size = mutate(input, corpus, corpus_count);
        if (run(input, size))
            keep(input, size);
    }
}

/* --- the parent ---------------------------------------------------------------------------------- */

static uint64_t hash(const uint8_t *data, size_t size) {
    uint64_t value = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        value = (value ^ data[i]) * 0x100000001b3u;
    return value;
}

static void write_finding(const char *kind, const char *self) {
    char path[4096];
    if (directory == NULL)
        return; /* files were given one by one: whoever did that has them */
    (void)snprintf(path, sizeof path, "%s/%s-%016" PRIx64, directory, kind, hash(account->input, account->size));
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, account->input, account->size) != (ssize_t)account->size)
        give_up("writing", path);
    (void)close(fd);
    (void)printf("written: %s\nreplay:  %s %s\n", path, self, path);
}

/* Waits for the child; returns 0, or 1 if it died of an input. */
static int watch(pid_t child, const char *self) {
    uint64_t runs = UINT64_MAX;
    time_t moved = time(NULL);
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) {
        (void)poll(NULL, 0, WATCH_MS);
        if (account->runs != runs) {
            runs = account->runs;
            moved = time(NULL);
        } else if (time(NULL) - moved > HANG_S) {
            (void)kill(child, SIGKILL);
            (void)waitpid(child, &status, 0);
            write_finding("hang", self);
            return 1;
        }
    }
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2))
        return WEXITSTATUS(status);
    write_finding("crash", self);
    return 1;
}

/* A finding ends the child by a signal, whichever sanitizer it is of. */
const char *__asan_default_options(void) { return "abort_on_error=1:detect_leaks=0:allocator_may_return_null=1"; }

const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }

int main(int argc, char **argv) {
    const char *wanted = NULL;
    long seconds = 0;
    uint64_t seed = 1, runs = 0;
    for (int option; (option = getopt(argc, argv, "t:n:s:w:")) != -1;) {
        if (option == 't')
            seconds = strtol(optarg, NULL, 10);
        else if (option == 'n')
            runs = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 'w')
            wanted = optarg;
        else
            return 2;
    }
    account = mmap(NULL, sizeof *account, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (account == MAP_FAILED)
        give_up("mapping", "the account");
    for (int i = optind; i < argc; i++)
        load(argv[i]);
    if (wanted != NULL)
        directory = wanted;
    size_t given = corpus_count;
    struct timespec began, ended;
    (void)clock_gettime(CLOCK_MONOTONIC, &began);
    pid_t child = fork();
    if (child < 0)
        give_up("forking", "the target");
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        replay();
        if ((seconds > 0 || runs > 0) && corpus_count > 0)
            fuzz(seconds, runs, seed);
        exit(0);
    }
    int result = watch(child, argv[0]);
    (void)clock_gettime(CLOCK_MONOTONIC, &ended);
    double took = (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9;
    (void)printf("seed %" PRIu64 ": %" PRIu64 " runs in %.1f s (%.0f/s), %" PRIu32 " edges, %zu inputs given, %zu found: %s\n",
                 seed, account->runs, took, (double)account->runs / took, account->edges, given,
                 (size_t)account->kept - given, result == 0 ? "nothing broke" : "SOMETHING BROKE");
    return result;
}
