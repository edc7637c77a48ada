/* A disk that fails on demand, for LD_PRELOAD.
 *
 * FAULTY_DISK is a path prefix: while a file of one of these names exists, calls on files of the log fail.
 *   PREFIX.sync    fsync and fdatasync: EIO
 *   PREFIX.write   pwrite to a segment: EIO
 *   PREFIX.full    pwrite to a spare: ENOSPC
 *   PREFIX.short   pwrite writes a third of what it is given
 *   PREFIX.read    pread of any byte of a segment from offset BEGIN to END: EIO. The file contains "BEGIN END"
 * FAULTY_SYNC_AT, FAULTY_WRITE_AT: the number of the one call in this process's life that fails with EIO, from 1;
 * PREFIX.fired is made when it does. Calls on the trends' file, which is no part of the log, are neither counted nor
 * failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long syncs, writes;

static int armed(const char *what) {
    char path[PATH_MAX];
    const char *prefix = getenv("FAULTY_DISK");
    if (prefix == NULL) return 0;
    snprintf(path, sizeof path, "%s.%s", prefix, what);
    return access(path, F_OK) == 0;
}

static int due(const char *variable, atomic_long *calls) {
    const char *at = getenv(variable), *prefix = getenv("FAULTY_DISK");
    if (at == NULL || atomic_fetch_add(calls, 1) + 1 != atol(at)) return 0;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.fired", prefix);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    return 1;
}

static int is_named(int fd, const char *part) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static int is_of_log(int fd) { return !is_named(fd, "/trends.db"); }

static int sync_fails(int fd) {
    if (!is_of_log(fd) || (!armed("sync") && !due("FAULTY_SYNC_AT", &syncs))) return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = dlsym(RTLD_NEXT, "fdatasync");
    return sync_fails(fd) ? -1 : real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = dlsym(RTLD_NEXT, "fsync");
    return sync_fails(fd) ? -1 : real(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "pwrite64");
    if (armed("full") && is_named(fd, "/spare-")) {
        errno = ENOSPC;
        return -1;
    }
    if ((armed("write") && is_named(fd, "/segment-")) || (is_of_log(fd) && due("FAULTY_WRITE_AT", &writes))) {
        errno = EIO;
        return -1;
    }
    if (length > 3 && armed("short")) length /= 3;
    return real(fd, bytes, length, offset);
}

static int read_fails(int fd, size_t length, off64_t offset) {
    char path[PATH_MAX];
    const char *prefix = getenv("FAULTY_DISK");
    long begin, end;
    if (prefix == NULL || !is_named(fd, "/segment-")) return 0;
    snprintf(path, sizeof path, "%s.read", prefix);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    int fields = fscanf(file, "%ld %ld", &begin, &end);
    fclose(file);
    errno = EIO;
    return fields == 2 && offset < end && begin < offset + (long)length;
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "pread64");
    return read_fails(fd, length, offset) ? -1 : real(fd, bytes, length, offset);
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    static ssize_t (*real)(int, const struct iovec *, int, off64_t, int);
    if (real == NULL) real = dlsym(RTLD_NEXT, "preadv64v2");
    return read_fails(fd, parts[0].iov_len, offset) ? -1 : real(fd, parts, count, offset, flags);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }
