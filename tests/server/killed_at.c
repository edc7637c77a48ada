/* For LD_PRELOAD: kills the process before its KILLED_AT-th call that changes a file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static void step(void) {
    const char *at = getenv("KILLED_AT");
    if (at != NULL && atomic_fetch_add(&calls, 1) + 1 == atol(at)) kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *p, size_t n) { step(); return REAL(write)(fd, p, n); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) { step(); return REAL(pwrite64)(fd, p, n, at); }
int fsync(int fd) { step(); return REAL(fsync)(fd); }
int fdatasync(int fd) { step(); return REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { step(); return REAL(rename)(from, to); }
int unlink(const char *path) { step(); return REAL(unlink)(path); }
