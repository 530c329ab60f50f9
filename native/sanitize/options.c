/* Owns how the sanitizers behave in a build with them; no other build has this file. */

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

/* A leak check would run threads and trace us at the end, which the filter refuses; init ends by
 * _exit anyway. Init's own standard error is a null device, so an exit code has to tell. */
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99:abort_on_error=0"; }

const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=99"; }
