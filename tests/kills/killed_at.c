/* For LD_PRELOAD: a process that ends, or a disk that is full, from its n-th call that changes a file on.
 *
 * KILLED_AT=n  the process kills itself before the call.
 * FULL_AT=n    this call and all later ones fail with ENOSPC if they need room: writes to files, new files and names.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

/* Count a call. Returns whether it fails. */
static int fails(int needs_room) {
    const char *killed = getenv("KILLED_AT"), *full = getenv("FULL_AT");
    if (killed == NULL && full == NULL) return 0;
    long call = atomic_fetch_add(&calls, 1) + 1;
    if (killed != NULL && call == atol(killed)) kill(getpid(), SIGKILL);
    if (full == NULL || call < atol(full) || !needs_room) return 0;
    errno = ENOSPC;
    return 1;
}

static int is_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *p, size_t n) { return fails(is_file(fd) && fd > 2) ? -1 : REAL(write)(fd, p, n); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) {
    return fails(is_file(fd)) ? -1 : REAL(pwrite64)(fd, p, n, at);
}
int fsync(int fd) { return fails(0) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(0) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { return fails(0) ? -1 : REAL(rename)(from, to); }
int link(const char *from, const char *to) { return fails(1) ? -1 : REAL(link)(from, to); }
int unlink(const char *path) { return fails(0) ? -1 : REAL(unlink)(path); }
int unlinkat(int fd, const char *path, int flags) { return fails(0) ? -1 : REAL(unlinkat)(fd, path, flags); }
int mkdir(const char *path, mode_t mode) { return fails(1) ? -1 : REAL(mkdir)(path, mode); }
int rmdir(const char *path) { return fails(0) ? -1 : REAL(rmdir)(path); }
int ftruncate64(int fd, off64_t size) { return fails(0) ? -1 : REAL(ftruncate64)(fd, size); }
int truncate64(const char *path, off64_t size) { return fails(0) ? -1 : REAL(truncate64)(path, size); }

#define OPEN(symbol)                                                                                                   \
    int symbol(const char *path, int flags, ...) {                                                                     \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                                      \
        va_end(rest);                                                                                                  \
        int is_new = flags & O_CREAT && access(path, F_OK) != 0;                                                       \
        return flags & (O_CREAT | O_TRUNC) && fails(is_new) ? -1 : REAL(symbol)(path, flags, mode);                    \
    }
OPEN(open)
OPEN(open64)
