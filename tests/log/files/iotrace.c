/* Preloaded into a server or test process: records what happens to the files of one directory, in order, and makes
 * chosen calls fail. disk.py reads the trace.
 *
 *   IOTRACE_DIR   the directory
 *   IOTRACE_FILE  where the trace goes; without it nothing is recorded
 *   IOFAULT       kind:n:errno, as iotrace_arm below
 *
 * One lock is held over each call and its record: the trace's order is the order in which things happened. */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, SYNC, DIRSYNC, RENAME, UNLINK, TRUNCATE, NOTE, DATASYNC };
enum { FAIL_WRITE = 1, FAIL_SYNC, FAIL_OPEN, FAIL_RENAME, FAIL_TRUNCATE, FAIL_UNLINK };
enum { FDS = 4096, SHORT = -1 };

struct record { uint32_t op, name_bytes; uint64_t file, offset, data_bytes; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[4096];
static size_t directory_bytes;
static int trace = -1;
static uint64_t tracked[FDS];  /* inode of an open file of the directory; 1 for the directory itself; 0 for others */
static int fault_kind, fault_errno;
static long fault_at, calls;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static void (*real_exit)(int);
static int (*real_rename)(const char *, const char *), (*real_unlink)(const char *);

__attribute__((constructor)) static void prepare(void) {
    real_open = dlsym(RTLD_NEXT, "open");
    real_close = dlsym(RTLD_NEXT, "close");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_exit = dlsym(RTLD_NEXT, "_exit");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    const char *where = getenv("IOTRACE_DIR"), *file = getenv("IOTRACE_FILE"), *fault = getenv("IOFAULT");
    if (where) snprintf(directory, sizeof directory, "%s", where);
    directory_bytes = strlen(directory);
    if (file) trace = real_open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fault && sscanf(fault, "%d:%ld:%d", &fault_kind, &fault_at, &fault_errno) != 3) abort();
}

/* The name in the directory, "" for the directory itself, NULL for anything else. */
static const char *name_of(const char *path) {
    if (!directory_bytes || strncmp(path, directory, directory_bytes) != 0) return NULL;
    if (path[directory_bytes] == 0) return "";
    return path[directory_bytes] == '/' ? path + directory_bytes + 1 : NULL;
}

static void put(uint32_t op, uint64_t file, uint64_t offset, const char *name, const void *data, size_t data_bytes) {
    struct record r = {op, (uint32_t)(name ? strlen(name) : 0), file, offset, data_bytes};
    struct iovec parts[] = {{&r, sizeof r}, {(void *)name, r.name_bytes}, {(void *)data, data_bytes}};
    if (trace >= 0 && writev(trace, parts, 3) != (ssize_t)(sizeof r + r.name_bytes + data_bytes)) abort();
}

/* Whether this call is the one that fails; errno is set then. SHORT is for the caller to see to. */
static int fails(int kind) {
    if (kind != fault_kind || ++calls != fault_at) return 0;
    if (fault_errno != SHORT) errno = fault_errno;
    return 1;
}

void iotrace_note(const void *data, size_t bytes) {
    pthread_mutex_lock(&lock);
    put(NOTE, 0, 0, NULL, data, bytes);
    pthread_mutex_unlock(&lock);
}

/* From now on the n-th call of a kind fails with an errno (SHORT: half of it is written). */
void iotrace_arm(int kind, long n, int error) {
    pthread_mutex_lock(&lock);
    fault_kind = kind, fault_at = n, fault_errno = error, calls = 0;
    pthread_mutex_unlock(&lock);
}

/* How many calls of the armed kind there were. */
long iotrace_calls(void) { return calls; }

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = name_of(path);
    struct stat before, after;
    if (name == NULL) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = -1, was_there = stat(path, &before) == 0;
    if (!fails(FAIL_OPEN)) fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < FDS && fstat(fd, &after) == 0) {
        tracked[fd] = *name ? after.st_ino : 1;
        if (!was_there) put(CREATE, after.st_ino, 0, name, NULL, 0);
        else if (flags & O_TRUNC) put(TRUNCATE, after.st_ino, 0, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(symbol)                                                                                                   \
    int symbol(const char *path, int flags, ...) {                                                                     \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                                      \
        va_end(rest);                                                                                                  \
        return opened(path, flags, mode);                                                                              \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd >= 0 && fd < FDS) tracked[fd] = 0;
    return real_close(fd);
}

static ssize_t written(int fd, const void *data, size_t bytes, off_t offset) {
    if (fd < 0 || fd >= FDS || !tracked[fd]) return real_pwrite(fd, data, bytes, offset);
    pthread_mutex_lock(&lock);
    ssize_t n = -1;
    if (!fails(FAIL_WRITE)) n = real_pwrite(fd, data, bytes, offset);
    else if (fault_errno == SHORT) n = real_pwrite(fd, data, (bytes + 1) / 2, offset);
    if (n > 0) put(WRITE, tracked[fd], offset, NULL, data, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return written(fd, data, bytes, offset); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return written(fd, data, bytes, offset); }

static int synced(int fd, int (*real)(int), int op) {
    if (fd < 0 || fd >= FDS || !tracked[fd]) return real(fd);
    pthread_mutex_lock(&lock);
    int result = fails(FAIL_SYNC) ? -1 : real(fd);
    if (result == 0) put(tracked[fd] == 1 ? DIRSYNC : op, tracked[fd], 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(fd, real_fsync, SYNC); }
int fdatasync(int fd) { return synced(fd, real_fdatasync, DATASYNC); }

static int truncated(int fd, off_t size) {
    if (fd < 0 || fd >= FDS || !tracked[fd]) return real_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    int result = fails(FAIL_TRUNCATE) ? -1 : real_ftruncate(fd, size);
    if (result == 0) put(TRUNCATE, tracked[fd], size, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size); }

int rename(const char *from, const char *to) {
    const char *old = name_of(from), *new = name_of(to);
    if (old == NULL || new == NULL) return real_rename(from, to);
    pthread_mutex_lock(&lock);
    int result = fails(FAIL_RENAME) ? -1 : real_rename(from, to);
    if (result == 0) put(RENAME, 0, 0, old, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    const char *name = name_of(path);
    if (name == NULL) return real_unlink(path);
    pthread_mutex_lock(&lock);
    int result = fails(FAIL_UNLINK) ? -1 : real_unlink(path);
    if (result == 0) put(UNLINK, 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

/* The process does not end between a call and its record. */
void _exit(int status) {
    pthread_mutex_lock(&lock);
    real_exit(status);
    __builtin_unreachable();
}
