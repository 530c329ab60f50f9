/* Counts primes; scripts/demo.py compiles and runs it in a sandbox. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    long limit = argc > 1 ? strtol(argv[1], NULL, 10) : 100;
    char *composite = calloc((size_t)limit, 1);
    long count = 0;
    if (composite == NULL) {
        return 1;
    }
    for (long n = 2; n < limit; n++) {
        if (composite[n]) {
            continue;
        }
        count++;
        for (long multiple = n * n; multiple < limit; multiple += n) {
            composite[multiple] = 1;
        }
    }
    printf("%ld primes below %ld\n", count, limit);
    free(composite);
    return 0;
}
