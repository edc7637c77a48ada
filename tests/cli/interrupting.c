/* For LD_PRELOAD: Ctrl-C comes after the interpreter's last look at signals, and before the wait for a typed line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <sys/select.h>

static void interrupt(void) {
    static int done;
    if (!done++)
        raise(SIGINT);
}

char *fgets(char *line, int size, FILE *file) {
    char *(*next)(char *, int, FILE *) = dlsym(RTLD_NEXT, "fgets");
    if (file == stdin)
        interrupt();
    return next(line, size, file);
}

int select(int count, fd_set *readable, fd_set *writable, fd_set *failed, struct timeval *timeout) {
    int (*next)(int, fd_set *, fd_set *, fd_set *, struct timeval *) = dlsym(RTLD_NEXT, "select");
    if (readable && FD_ISSET(0, readable))
        interrupt();
    return next(count, readable, writable, failed, timeout);
}
