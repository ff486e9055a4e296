/* System calls and the few functions of a C library that are used here; see sys.h. */
#include "sys.h"

#ifndef WITH_LIBC

#include <stdarg.h>

int errno;
char **environ;

/* --- the processors -------------------------------------------------------------------------- */

int main(int count, char **arguments);

/* The stack as the kernel leaves it: the number of arguments, them, NULL, the environment, NULL. */
__attribute__((used)) static _Noreturn void begin(long *stack) {
    char **arguments = (char **)(stack + 1);
    environ = arguments + stack[0] + 1;
    _exit(main((int)stack[0], arguments));
}

#ifdef __x86_64__

__asm__(".text\n"
        ".global _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#else

__asm__(".text\n"
        ".global _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    and sp, x0, #-16\n"
        "    b begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

#endif

/* --- system calls ---------------------------------------------------------------------------- */

static long result_of(long result) {
    if (result >= 0 || result < -MOST_ERRNO) return result;
    errno = (int)-result;
    return -1;
}

long syscall(long number, ...) {
    long argument[6];
    va_list list;
    va_start(list, number);
    /* What was not given is whatever a register holds; the kernel does not look at it. */
    for (int i = 0; i < 6; i++) argument[i] = va_arg(list, long);
    va_end(list);
    return result_of(call(number, argument[0], argument[1], argument[2], argument[3], argument[4],
                          argument[5]));
}

/* The arguments as they are, zeros after them. */
#define CALL(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(number, a, b, c, d, e, f, ...)                                               \
    result_of(call((number), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)))

ssize_t read(int fd, void *to, size_t size) { return CALL(SYS_read, fd, to, size); }

ssize_t write(int fd, const void *from, size_t size) { return CALL(SYS_write, fd, from, size); }

int close(int fd) { return (int)CALL(SYS_close, fd); }

long lseek(int fd, long offset, int whence) { return CALL(SYS_lseek, fd, offset, whence); }

int ftruncate(int fd, long size) { return (int)CALL(SYS_ftruncate, fd, size); }

int fallocate(int fd, int mode, long from, long size) {
    return (int)CALL(SYS_fallocate, fd, mode, from, size);
}

int memfd_create(const char *name, unsigned flags) {
    return (int)CALL(SYS_memfd_create, name, flags);
}

int fcntl(int fd, int command, int argument) {
    return (int)CALL(SYS_fcntl, fd, command, argument);
}

int poll(struct pollfd *polls, size_t count, int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    return (int)CALL(SYS_ppoll, polls, count, milliseconds < 0 ? NULL : &time);
}

int openat(int directory, const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        va_end(list);
    }
    return (int)CALL(SYS_openat, directory, path, flags, mode);
}

int open(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }

int faccessat(int directory, const char *path, int mode, int flags) {
    (void)flags;
    return (int)CALL(SYS_faccessat, directory, path, mode);
}

int access(const char *path, int mode) { return faccessat(AT_FDCWD, path, mode, 0); }

int fstatat(int directory, const char *path, struct stat *found, int flags) {
    return (int)CALL(SYS_newfstatat, directory, path, found, flags);
}

int stat(const char *path, struct stat *found) { return fstatat(AT_FDCWD, path, found, 0); }

int fstat(int fd, struct stat *found) { return (int)CALL(SYS_fstat, fd, found); }

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *found) {
    return (int)CALL(SYS_statx, directory, path, flags, mask, found);
}

ssize_t readlinkat(int directory, const char *path, char *to, size_t size) {
    return CALL(SYS_readlinkat, directory, path, to, size);
}

int mkdirat(int directory, const char *path, mode_t mode) {
    return (int)CALL(SYS_mkdirat, directory, path, mode);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int symlinkat(const char *target, int directory, const char *path) {
    return (int)CALL(SYS_symlinkat, target, directory, path);
}

int unlinkat(int directory, const char *path, int flags) {
    return (int)CALL(SYS_unlinkat, directory, path, flags);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    return (int)CALL(SYS_renameat, from_directory, from, to_directory, to);
}

int fchmod(int fd, mode_t mode) { return (int)CALL(SYS_fchmod, fd, mode); }

int fchownat(int directory, const char *path, uid_t user, gid_t group, int flags) {
    return (int)CALL(SYS_fchownat, directory, path, user, group, flags);
}

int futimens(int fd, const struct timespec times[2]) {
    return (int)CALL(SYS_utimensat, fd, NULL, times, 0);
}

mode_t umask(mode_t mask) { return (mode_t)CALL(SYS_umask, mask); }

int chdir(const char *path) { return (int)CALL(SYS_chdir, path); }

char *getcwd(char *to, size_t size) { return CALL(SYS_getcwd, to, size) < 0 ? NULL : to; }

int socket(int family, int type, int protocol) {
    return (int)CALL(SYS_socket, family, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t size) {
    return (int)CALL(SYS_bind, fd, address, size);
}

int listen(int fd, int waiting) { return (int)CALL(SYS_listen, fd, waiting); }

int connect(int fd, const struct sockaddr *address, socklen_t size) {
    return (int)CALL(SYS_connect, fd, address, size);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    return (int)CALL(SYS_accept4, fd, address, size, flags);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    return (int)CALL(SYS_getsockopt, fd, level, name, value, size);
}

ssize_t send(int fd, const void *from, size_t size, int flags) {
    return CALL(SYS_sendto, fd, from, size, flags, NULL, 0);
}

ssize_t recv(int fd, void *to, size_t size, int flags) {
    return CALL(SYS_recvfrom, fd, to, size, flags, NULL, NULL);
}

/* aarch64 has no call but this; without a stack the child goes on with a copy of this one. */
pid_t fork(void) { return (pid_t)CALL(SYS_clone, SIGCHLD); }

int execve(const char *path, char *const *argv, char *const *environment) {
    return (int)CALL(SYS_execve, path, argv, environment);
}

_Noreturn void _exit(int status) {
    for (;;) CALL(SYS_exit_group, status);
}

int waitid(int kind, id_t which, siginfo_t *how, int options) {
    return (int)CALL(SYS_waitid, kind, which, how, options, NULL);
}

int kill(pid_t process, int number) { return (int)CALL(SYS_kill, process, number); }

int sigqueue(pid_t process, int number, union sigval value) {
    siginfo_t how = {.si_signo = number, .si_code = SI_QUEUE, .si_pid = getpid(),
                     .si_uid = getuid(), .si_value = value};
    return (int)CALL(SYS_rt_sigqueueinfo, process, number, &how);
}

int sigaction(int number, const struct sigaction *now, struct sigaction *before) {
    return (int)CALL(SYS_rt_sigaction, number, now, before, sizeof now->sa_mask);
}

int prctl(int option, unsigned long argument) { return (int)CALL(SYS_prctl, option, argument); }

pid_t getpid(void) { return (pid_t)CALL(SYS_getpid); }

pid_t getpgrp(void) { return (pid_t)CALL(SYS_getpgid, 0); }

int setpgid(pid_t process, pid_t group) { return (int)CALL(SYS_setpgid, process, group); }

uid_t getuid(void) { return (uid_t)CALL(SYS_getuid); }

uid_t geteuid(void) { return (uid_t)CALL(SYS_geteuid); }

gid_t getegid(void) { return (gid_t)CALL(SYS_getegid); }

int getgroups(int most, gid_t *groups) { return (int)CALL(SYS_getgroups, most, groups); }

int nanosleep(const struct timespec *time, struct timespec *left) {
    return (int)CALL(SYS_nanosleep, time, left);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    return (int)CALL(SYS_clock_gettime, clock, now);
}

pid_t tcgetpgrp(int fd) {
    pid_t group;
    return CALL(SYS_ioctl, fd, TIOCGPGRP, &group) < 0 ? -1 : group;
}

int tcsetpgrp(int fd, pid_t group) { return (int)CALL(SYS_ioctl, fd, TIOCSPGRP, &group); }

int tcgetattr(int fd, struct termios *settings) {
    return (int)CALL(SYS_ioctl, fd, TCGETS, settings);
}

int tcsetattr(int fd, int when, const struct termios *settings) {
    (void)when;
    return (int)CALL(SYS_ioctl, fd, TCSETS, settings);
}

/* --- memory and text ------------------------------------------------------------------------- */

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    unsigned char *at = to;
    const unsigned char *of = from;
    while (size--) *at++ = *of++;
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    unsigned char *at = to;
    const unsigned char *of = from;
    if (at <= of) return memcpy(to, from, size);
    while (size--) at[size] = of[size];
    return to;
}

void *memset(void *to, int byte, size_t size) {
    unsigned char *at = to;
    while (size--) *at++ = (unsigned char)byte;
    return to;
}

int memcmp(const void *one, const void *other, size_t size) {
    const unsigned char *a = one, *b = other;
    for (; size; a++, b++, size--) {
        if (*a != *b) return *a - *b;
    }
    return 0;
}

size_t strnlen(const char *text, size_t most) {
    size_t size = 0;
    while (size < most && text[size]) size++;
    return size;
}

size_t strlen(const char *text) { return strnlen(text, SIZE_MAX); }

int strncmp(const char *one, const char *other, size_t most) {
    for (; most; one++, other++, most--) {
        if (*one != *other || !*one) return (unsigned char)*one - (unsigned char)*other;
    }
    return 0;
}

int strcmp(const char *one, const char *other) { return strncmp(one, other, SIZE_MAX); }

char *strchr(const char *text, int byte) {
    for (; *text != (char)byte; text++) {
        if (!*text) return NULL;
    }
    return (char *)(uintptr_t)text;
}

char *strrchr(const char *text, int byte) {
    char *last = NULL;
    for (char *at; (at = strchr(text, byte)); text = at + 1) last = at;
    return last;
}

char *strstr(const char *text, const char *part) {
    size_t size = strlen(part);
    for (; strncmp(text, part, size) != 0; text++) {
        if (!*text) return NULL;
    }
    return (char *)(uintptr_t)text;
}

size_t strcspn(const char *text, const char *ends) {
    size_t size = 0;
    while (text[size] && !strchr(ends, text[size])) size++;
    return size;
}

static unsigned digit(char of) {
    if (of >= '0' && of <= '9') return (unsigned)(of - '0');
    char lower = of | 0x20;
    return lower >= 'a' && lower <= 'z' ? (unsigned)(lower - 'a' + 10) : UINT_MAX;
}

unsigned long strtoul(const char *text, char **after, int base) {
    unsigned long number = 0;
    while (*text == ' ') text++;
    for (; digit(*text) < (unsigned)base; text++) {
        number = number * (unsigned)base + digit(*text);
    }
    if (after) *after = (char *)(uintptr_t)text;
    return number;
}

char *getenv(const char *name) {
    size_t size = strlen(name);
    for (char **at = environ; *at; at++) {
        if (strncmp(*at, name, size) == 0 && (*at)[size] == '=') return *at + size + 1;
    }
    return NULL;
}

const char *strerror(int error) {
    switch (error) {
        case EPERM: return "Operation not permitted";
        case ENOENT: return "No such file or directory";
        case ESRCH: return "No such process";
        case EINTR: return "Interrupted system call";
        case EIO: return "Input/output error";
        case ENXIO: return "No such device or address";
        case E2BIG: return "Argument list too long";
        case ENOEXEC: return "Exec format error";
        case EBADF: return "Bad file descriptor";
        case EAGAIN: return "Resource temporarily unavailable";
        case ENOMEM: return "Cannot allocate memory";
        case EACCES: return "Permission denied";
        case EFAULT: return "Bad address";
        case EBUSY: return "Device or resource busy";
        case EEXIST: return "File exists";
        case EXDEV: return "Invalid cross-device link";
        case ENODEV: return "No such device";
        case ENOTDIR: return "Not a directory";
        case EISDIR: return "Is a directory";
        case EINVAL: return "Invalid argument";
        case ENFILE: return "Too many open files in system";
        case EMFILE: return "Too many open files";
        case ENOTTY: return "Inappropriate ioctl for device";
        case ETXTBSY: return "Text file busy";
        case EFBIG: return "File too large";
        case ENOSPC: return "No space left on device";
        case ESPIPE: return "Illegal seek";
        case EROFS: return "Read-only file system";
        case EMLINK: return "Too many links";
        case EPIPE: return "Broken pipe";
        case ENAMETOOLONG: return "File name too long";
        case ENOSYS: return "Function not implemented";
        case ENOTEMPTY: return "Directory not empty";
        case ELOOP: return "Too many levels of symbolic links";
        case EOVERFLOW: return "Value too large for defined data type";
        case EILSEQ: return "Invalid or incomplete multibyte or wide character";
        case EOPNOTSUPP: return "Operation not supported";
        case ESTALE: return "Stale file handle";
        case EDQUOT: return "Disk quota exceeded";
    }
    static char text[] = "error 0000";
    for (size_t at = sizeof text - 2; text[at] != ' '; at--, error /= 10) {
        text[at] = (char)('0' + error % 10);
    }
    return text;
}

#endif
