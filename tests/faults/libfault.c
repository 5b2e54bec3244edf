/* Faults on purpose: loaded with LD_PRELOAD, it counts the system calls of one kind on paths that
 * hold a text, and at the k-th of them fails, writes half, or kills the process.
 *
 * Each hook asks `hit` what to do and then makes the system call itself, so nothing of the C
 * library's has to be found.  Set by variables when the process starts
 *
 *     SCIO_FAULT_CALL=pwrite64   one of `names` below
 *     SCIO_FAULT_AT=k            from the k-th on, the first is 1; 0: none, count only
 *     SCIO_FAULT_ERRNO=n         with this errno ...
 *     SCIO_FAULT_SHORT=1         ... or write half of what is asked for ...
 *     SCIO_FAULT_KILL=1          ... or SIGKILL before the call
 *     SCIO_FAULT_ONCE=1          only at the k-th
 *     SCIO_FAULT_PATH=text       of the files meant; for `alloc`, of the library that asks
 *     SCIO_FAULT_LOG=file        record what is done to these files
 *     SCIO_FAULT_COUNT=1         say on stderr at the end how many calls there were
 *
 * or by scio_fault_arm from a process that forks a child for each k.  One thing at a time is
 * armed; arming is not thread-safe, counting is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef enum fault_call {
    CALL_WRITE, CALL_PWRITE, CALL_FSYNC, CALL_FDATASYNC, CALL_FTRUNCATE, CALL_RENAME,
    CALL_OPEN, CALL_MMAP, CALL_FALLOCATE, CALL_MKDIR, CALL_LINK, CALL_UNLINK, CALL_ALLOC,
    CALL_ANY, /* all but the allocations */
    N_CALLS
} fault_call;

static const char *const names[N_CALLS] = {
    "write", "pwrite64", "fsync", "fdatasync", "ftruncate64", "rename",
    "openat", "mmap", "posix_fallocate", "mkdir", "link", "unlink", "alloc",
    "any",
};

typedef enum fault_mode { MODE_FAIL, MODE_SHORT, MODE_KILL } fault_mode;
typedef enum fault_action { PASS, FAIL, SHORT } fault_action;

enum { MAX_LIBRARIES = 16, MAX_PATH = 4096 };

static struct {
    int call; /* fault_call, -1: nothing is armed */
    long at;
    int err, is_once;
    fault_mode mode;
    char path[MAX_PATH];
    int log_fd;
    struct { uintptr_t start, end; } libraries[MAX_LIBRARIES];
    int n_libraries;
} fault = {.call = -1, .log_fd = -1};

static atomic_long n_calls, n_hits;

static int
find_libraries(struct dl_phdr_info *info, size_t nbytes, void *unused)
{
    (void)nbytes;
    (void)unused;
    if (info->dlpi_name == NULL || strstr(info->dlpi_name, fault.path) == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];

        if (header->p_type != PT_LOAD || (header->p_flags & PF_X) == 0 ||
            fault.n_libraries == MAX_LIBRARIES)
            continue;
        fault.libraries[fault.n_libraries].start = info->dlpi_addr + header->p_vaddr;
        fault.libraries[fault.n_libraries++].end =
            info->dlpi_addr + header->p_vaddr + header->p_memsz;
    }
    return 0;
}

/* Returns how many libraries are meant (alloc), else 0; -1: there is no such call. */
int scio_fault_arm(const char *call, long at, int err, int is_once, int mode, const char *path);
int
scio_fault_arm(const char *call, long at, int err, int is_once, int mode, const char *path)
{
    fault.call = -1;
    fault.n_libraries = 0;
    fault.at = at;
    fault.err = err;
    fault.is_once = is_once;
    fault.mode = (fault_mode)mode;
    snprintf(fault.path, sizeof fault.path, "%s", path);
    atomic_store(&n_calls, 0);
    atomic_store(&n_hits, 0);
    for (int i = 0; i < N_CALLS; i++) {
        if (strcmp(names[i], call) != 0)
            continue;
        if (i == CALL_ALLOC)
            dl_iterate_phdr(find_libraries, NULL);
        fault.call = i;
        return fault.n_libraries;
    }
    return -1;
}

void scio_fault_disarm(void);
void
scio_fault_disarm(void)
{
    fault.call = -1;
}

long scio_fault_n_calls(void);
long
scio_fault_n_calls(void)
{
    return atomic_load(&n_calls);
}

long scio_fault_n_hits(void);
long
scio_fault_n_hits(void)
{
    return atomic_load(&n_hits);
}

/* What to do at a call that is meant. */
static fault_action
hit(void)
{
    const long k = atomic_fetch_add(&n_calls, 1) + 1;

    if (fault.at == 0 || k < fault.at || (fault.is_once && k > fault.at))
        return PASS;
    atomic_fetch_add(&n_hits, 1);
    if (fault.mode == MODE_KILL)
        (void)syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    if (fault.mode == MODE_SHORT)
        return SHORT;
    errno = fault.err;
    return FAIL;
}

static int
is_armed(fault_call call)
{
    return fault.call == (int)call || (fault.call == CALL_ANY && call != CALL_ALLOC);
}

static fault_action
at_path(fault_call call, const char *path)
{
    return is_armed(call) && path != NULL && strstr(path, fault.path) != NULL ? hit() : PASS;
}

static int
path_of(int fd, char *path_out)
{
    char link[64];
    ssize_t nbytes;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    nbytes = syscall(SYS_readlinkat, AT_FDCWD, link, path_out, MAX_PATH - 1);
    path_out[nbytes < 0 ? 0 : nbytes] = '\0';
    return nbytes >= 0;
}

static fault_action
at_fd(fault_call call, int fd)
{
    char path[MAX_PATH];
    const int old_errno = errno;
    fault_action action = PASS;

    if (is_armed(call) && path_of(fd, path)) {
        errno = old_errno;
        action = at_path(call, path);
    }
    return action;
}

static fault_action
at_caller(const void *caller)
{
    const uintptr_t address = (uintptr_t)caller;

    if (fault.call != CALL_ALLOC)
        return PASS;
    for (int i = 0; i < fault.n_libraries; i++)
        if (address >= fault.libraries[i].start && address < fault.libraries[i].end)
            return hit();
    return PASS;
}

/* ---- the log: op, offset, sizes of both texts and of the data, then these */

static void
put_log(const void *data, size_t nbytes)
{
    const char *next = data;

    while (nbytes > 0) {
        const ssize_t n = syscall(SYS_write, fault.log_fd, next, nbytes);
        if (n <= 0)
            _exit(99); /* a log with a gap proves nothing */
        next += n;
        nbytes -= (size_t)n;
    }
}

static void
log_op(char op, const char *path, const char *path2, int64_t offset, const void *data,
       size_t nbytes)
{
    const int old_errno = errno;
    const uint32_t sizes[2] = {(uint32_t)strlen(path), (uint32_t)strlen(path2)};
    const uint64_t data_nbytes = nbytes;

    if (strstr(path, fault.path) == NULL)
        return;
    put_log(&op, 1);
    put_log(&offset, sizeof offset);
    put_log(sizes, sizeof sizes);
    put_log(&data_nbytes, sizeof data_nbytes);
    put_log(path, sizes[0]);
    put_log(path2, sizes[1]);
    put_log(data, nbytes);
    errno = old_errno;
}

static void
log_fd_op(char op, int fd, int64_t offset, const void *data, size_t nbytes)
{
    char path[MAX_PATH];

    if (fault.log_fd >= 0 && path_of(fd, path))
        log_op(op, path, "", offset, data, nbytes);
}

void scio_fault_log(const char *file);
void
scio_fault_log(const char *file)
{
    fault.log_fd = (int)syscall(SYS_openat, AT_FDCWD, file,
                                O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fault.log_fd < 0)
        _exit(99);
}

/* ---- hooks */

static size_t
cut(fault_action action, size_t nbytes)
{
    return action == SHORT ? (nbytes + 1) / 2 : nbytes;
}

ssize_t
write(int fd, const void *data, size_t nbytes)
{
    const fault_action action = at_fd(CALL_WRITE, fd);
    const off_t at = fault.log_fd >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t n;

    if (action == FAIL)
        return -1;
    n = syscall(SYS_write, fd, data, cut(action, nbytes));
    if (n > 0)
        log_fd_op('w', fd, at, data, (size_t)n);
    return n;
}

ssize_t
pwrite(int fd, const void *data, size_t nbytes, off_t offset)
{
    const fault_action action = at_fd(CALL_PWRITE, fd);
    ssize_t n;

    if (action == FAIL)
        return -1;
    n = syscall(SYS_pwrite64, fd, data, cut(action, nbytes), offset);
    if (n > 0)
        log_fd_op('w', fd, offset, data, (size_t)n);
    return n;
}

ssize_t
pwrite64(int fd, const void *data, size_t nbytes, off64_t offset)
{
    return pwrite(fd, data, nbytes, offset);
}

int
fsync(int fd)
{
    if (at_fd(CALL_FSYNC, fd) == FAIL)
        return -1;
    const int result = (int)syscall(SYS_fsync, fd);
    if (result == 0)
        log_fd_op('s', fd, 0, "", 0);
    return result;
}

int
fdatasync(int fd)
{
    if (at_fd(CALL_FDATASYNC, fd) == FAIL)
        return -1;
    const int result = (int)syscall(SYS_fdatasync, fd);
    if (result == 0)
        log_fd_op('s', fd, 0, "", 0);
    return result;
}

int
ftruncate(int fd, off_t nbytes)
{
    if (at_fd(CALL_FTRUNCATE, fd) == FAIL)
        return -1;
    const int result = (int)syscall(SYS_ftruncate, fd, nbytes);
    if (result == 0)
        log_fd_op('t', fd, nbytes, "", 0);
    return result;
}

int
ftruncate64(int fd, off64_t nbytes)
{
    return ftruncate(fd, nbytes);
}

int
fallocate(int fd, int mode, off_t offset, off_t nbytes)
{
    if (at_fd(CALL_FALLOCATE, fd) == FAIL)
        return -1;
    const int result = (int)syscall(SYS_fallocate, fd, mode, offset, nbytes);
    if (result == 0)
        log_fd_op('a', fd, offset + nbytes, "", 0);
    return result;
}

int
fallocate64(int fd, int mode, off64_t offset, off64_t nbytes)
{
    return fallocate(fd, mode, offset, nbytes);
}

int
posix_fallocate(int fd, off_t offset, off_t nbytes)
{
    return fallocate(fd, 0, offset, nbytes) == 0 ? 0 : errno;
}

int
posix_fallocate64(int fd, off64_t offset, off64_t nbytes)
{
    return posix_fallocate(fd, offset, nbytes);
}

static int
renamed(int old_folder, const char *old, int new_folder, const char *new, unsigned flags)
{
    const fault_action action = at_path(CALL_RENAME, new);

    if (action == FAIL)
        return -1;
    const int result = (int)syscall(SYS_renameat2, old_folder, old, new_folder, new, flags);
    if (result == 0 && fault.log_fd >= 0)
        log_op('r', old, new, 0, "", 0);
    return result;
}

int
rename(const char *old, const char *new)
{
    return renamed(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int
renameat(int old_folder, const char *old, int new_folder, const char *new)
{
    return renamed(old_folder, old, new_folder, new, 0);
}

int
renameat2(int old_folder, const char *old, int new_folder, const char *new, unsigned flags)
{
    return renamed(old_folder, old, new_folder, new, flags);
}

int
link(const char *old, const char *new)
{
    return at_path(CALL_LINK, new) == FAIL
               ? -1
               : (int)syscall(SYS_linkat, AT_FDCWD, old, AT_FDCWD, new, 0);
}

int
unlink(const char *path)
{
    if (at_path(CALL_UNLINK, path) == FAIL)
        return -1;
    const int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0 && fault.log_fd >= 0)
        log_op('u', path, "", 0, "", 0);
    return result;
}

int
mkdir(const char *path, mode_t mode)
{
    return at_path(CALL_MKDIR, path) == FAIL ? -1
                                             : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

static int
opened(int folder, const char *path, int flags, mode_t mode)
{
    if (at_path(CALL_OPEN, path) == FAIL)
        return -1;
    const int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && fault.log_fd >= 0)
        log_op((flags & O_CREAT) != 0 ? 'c' : 'o', path, "", flags & O_TRUNC, "", 0);
    return fd;
}

static mode_t
mode_of(int flags, va_list rest)
{
    const int has_mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;

    return has_mode ? va_arg(rest, mode_t) : 0;
}

#define OPEN_HOOK(name)                                                                            \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        const mode_t mode = mode_of(flags, rest);                                                  \
        va_end(rest);                                                                              \
        return opened(AT_FDCWD, path, flags, mode);                                                \
    }
OPEN_HOOK(open)
OPEN_HOOK(open64)

#define OPENAT_HOOK(name)                                                                          \
    int name(int folder, const char *path, int flags, ...)                                         \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        const mode_t mode = mode_of(flags, rest);                                                  \
        va_end(rest);                                                                              \
        return opened(folder, path, flags, mode);                                                  \
    }
OPENAT_HOOK(openat)
OPENAT_HOOK(openat64)

void *
mmap(void *start, size_t nbytes, int protection, int flags, int fd, off_t offset)
{
    const fault_action action =
        fd >= 0 ? at_fd(CALL_MMAP, fd) : at_caller(__builtin_return_address(0));

    if (action == FAIL)
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, start, nbytes, protection, flags, fd, offset);
}

void *
mmap64(void *start, size_t nbytes, int protection, int flags, int fd, off64_t offset)
{
    return mmap(start, nbytes, protection, flags, fd, offset);
}

/* ---- allocations; glibc's own under their other names */

void *__libc_malloc(size_t nbytes);
void *__libc_calloc(size_t n_items, size_t itemsize);
void *__libc_realloc(void *block, size_t nbytes);
void *__libc_memalign(size_t alignment, size_t nbytes);

void *
malloc(size_t nbytes)
{
    return at_caller(__builtin_return_address(0)) == FAIL ? NULL : __libc_malloc(nbytes);
}

void *
calloc(size_t n_items, size_t itemsize)
{
    return at_caller(__builtin_return_address(0)) == FAIL ? NULL
                                                          : __libc_calloc(n_items, itemsize);
}

void *
realloc(void *block, size_t nbytes)
{
    return at_caller(__builtin_return_address(0)) == FAIL ? NULL : __libc_realloc(block, nbytes);
}

void *
aligned_alloc(size_t alignment, size_t nbytes)
{
    return at_caller(__builtin_return_address(0)) == FAIL ? NULL
                                                          : __libc_memalign(alignment, nbytes);
}

int
posix_memalign(void **block_out, size_t alignment, size_t nbytes)
{
    if (at_caller(__builtin_return_address(0)) == FAIL)
        return ENOMEM;
    *block_out = __libc_memalign(alignment, nbytes);
    return *block_out == NULL ? ENOMEM : 0;
}

/* ---- set by variables */

static long
number_of(const char *name)
{
    const char *text = getenv(name);

    return text == NULL ? 0 : atol(text);
}

__attribute__((constructor)) static void
start(void)
{
    const char *call = getenv("SCIO_FAULT_CALL"), *path = getenv("SCIO_FAULT_PATH");
    const char *log = getenv("SCIO_FAULT_LOG");
    const fault_mode mode = number_of("SCIO_FAULT_KILL") != 0    ? MODE_KILL
                            : number_of("SCIO_FAULT_SHORT") != 0 ? MODE_SHORT
                                                                 : MODE_FAIL;

    if (call == NULL)
        return;
    if (scio_fault_arm(call, number_of("SCIO_FAULT_AT"), (int)number_of("SCIO_FAULT_ERRNO"),
                       (int)number_of("SCIO_FAULT_ONCE"), (int)mode, path ? path : "") < 0) {
        fprintf(stderr, "SCIO_FAULT_CALL=%s is no call that libfault knows\n", call);
        _exit(99);
    }
    if (log != NULL)
        scio_fault_log(log);
}

__attribute__((destructor)) static void
finish(void)
{
    if (getenv("SCIO_FAULT_COUNT") != NULL)
        fprintf(stderr, "libfault: %ld calls, %ld hits\n", scio_fault_n_calls(),
                scio_fault_n_hits());
}
