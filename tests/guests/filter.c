/* A debugged guest with a seccomp filter of its own. */
#define FILTERS
#include "ptrace.c"
