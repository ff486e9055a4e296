/* What the program needs of a C library, and no more: it has none, so that it is built in a second
   and is the same everywhere. Names, arguments and `errno` are those of POSIX and Linux; layouts and
   numbers are the kernel's own for x86_64 and aarch64, for a host need not have its headers.

   With -DWITH_LIBC it is compiled against the host's C library instead, for a compiler's
   sanitizers: `cc -D_GNU_SOURCE -DWITH_LIBC -fsanitize=address,undefined *.c`. */
#ifndef DEVLOOP_SYS_H
#define DEVLOOP_SYS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef WITH_LIBC
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#else

/* --- the processors -------------------------------------------------------------------------- */

#if defined __x86_64__

enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_fstat = 5, SYS_lseek = 8,
    SYS_rt_sigaction = 13, SYS_rt_sigprocmask = 14, SYS_ioctl = 16, SYS_getpid = 39,
    SYS_socket = 41, SYS_connect = 42, SYS_sendto = 44, SYS_recvfrom = 45, SYS_bind = 49,
    SYS_listen = 50, SYS_getsockopt = 55, SYS_clone = 56, SYS_execve = 59, SYS_kill = 62,
    SYS_fcntl = 72, SYS_getcwd = 79, SYS_chdir = 80, SYS_fchmod = 91, SYS_umask = 95,
    SYS_getuid = 102, SYS_geteuid = 107, SYS_getegid = 108, SYS_setpgid = 109, SYS_getpgid = 121,
    SYS_capget = 125, SYS_rt_sigqueueinfo = 129, SYS_prctl = 157, SYS_getdents64 = 217,
    SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_waitid = 247, SYS_openat = 257,
    SYS_mkdirat = 258, SYS_fchownat = 260, SYS_newfstatat = 262, SYS_unlinkat = 263,
    SYS_renameat = 264, SYS_symlinkat = 266, SYS_readlinkat = 267, SYS_faccessat = 269,
    SYS_ppoll = 271, SYS_utimensat = 280, SYS_accept4 = 288, SYS_signalfd4 = 289, SYS_statx = 332,
    SYS_nanosleep = 35, SYS_ftruncate = 77, SYS_fallocate = 285, SYS_memfd_create = 319,
    SYS_getgroups = 115,
};

enum { O_DIRECTORY = 0200000, O_NOFOLLOW = 0400000 };

#elif defined __aarch64__

enum {
    SYS_getcwd = 17, SYS_fcntl = 25, SYS_ioctl = 29, SYS_mkdirat = 34, SYS_unlinkat = 35,
    SYS_symlinkat = 36, SYS_renameat = 38, SYS_faccessat = 48, SYS_chdir = 49, SYS_fchmod = 52,
    SYS_fchownat = 54, SYS_openat = 56, SYS_close = 57, SYS_getdents64 = 61, SYS_lseek = 62,
    SYS_read = 63, SYS_write = 64, SYS_ppoll = 73, SYS_signalfd4 = 74, SYS_readlinkat = 78,
    SYS_newfstatat = 79, SYS_fstat = 80, SYS_utimensat = 88, SYS_capget = 90, SYS_exit_group = 94,
    SYS_waitid = 95, SYS_clock_gettime = 113, SYS_kill = 129, SYS_rt_sigaction = 134,
    SYS_rt_sigprocmask = 135, SYS_rt_sigqueueinfo = 138, SYS_setpgid = 154, SYS_getpgid = 155,
    SYS_umask = 166, SYS_prctl = 167, SYS_getpid = 172, SYS_getuid = 174, SYS_geteuid = 175,
    SYS_getegid = 177, SYS_socket = 198, SYS_bind = 200, SYS_listen = 201, SYS_connect = 203,
    SYS_sendto = 206, SYS_recvfrom = 207, SYS_getsockopt = 209, SYS_clone = 220, SYS_execve = 221,
    SYS_accept4 = 242, SYS_statx = 291, SYS_ftruncate = 46, SYS_fallocate = 47, SYS_nanosleep = 101,
    SYS_getgroups = 158, SYS_memfd_create = 279,
};

enum { O_DIRECTORY = 040000, O_NOFOLLOW = 0100000 };

#else
#error "written for x86_64 and aarch64"
#endif

/* --- types ----------------------------------------------------------------------------------- */

typedef long ssize_t;
typedef long time_t;
typedef int pid_t;
typedef int clockid_t;
typedef unsigned uid_t, gid_t, id_t, mode_t, socklen_t;

struct timespec {
    time_t tv_sec;
    long tv_nsec;
};

struct stat {
#ifdef __x86_64__
    uint64_t st_dev, st_ino, st_nlink;
    mode_t st_mode;
    uid_t st_uid;
    gid_t st_gid;
    uint32_t padding;
    uint64_t st_rdev;
    int64_t st_size, st_blksize, st_blocks;
#else
    uint64_t st_dev, st_ino;
    mode_t st_mode;
    uint32_t st_nlink;
    uid_t st_uid;
    gid_t st_gid;
    uint64_t st_rdev, padding;
    int64_t st_size;
    int32_t st_blksize, more_padding;
    int64_t st_blocks;
#endif
    struct timespec st_atim, st_mtim, st_ctim;
    int64_t unused[3];
};

struct statx {
    uint32_t stx_mask, stx_blksize;
    uint64_t stx_attributes;
    uint32_t stx_nlink, stx_uid, stx_gid;
    uint16_t stx_mode, padding;
    uint64_t stx_ino, stx_size, stx_blocks, stx_attributes_mask;
    uint64_t rest[24];
};

/* The kernel's order. No handler is ever set here, so that none needs a way back. */
struct sigaction {
    void (*sa_handler)(int);
    unsigned long sa_flags;
    void (*sa_restorer)(void);
    uint64_t sa_mask;
};
#define SIG_DFL ((void (*)(int))0)
#define SIG_IGN ((void (*)(int))1)

union sigval {
    int sival_int;
    void *sival_ptr;
};

/* Of its many forms those of an ended child and of a queued signal. */
typedef struct {
    int si_signo, si_errno, si_code, padding;
    pid_t si_pid;
    uid_t si_uid;
    union {
        int si_status;
        union sigval si_value;
    };
    int64_t rest[12];
} siginfo_t;

struct signalfd_siginfo {
    uint32_t ssi_signo;
    int32_t ssi_errno, ssi_code;
    uint32_t ssi_pid, ssi_uid;
    int32_t ssi_fd;
    uint32_t ssi_tid, ssi_band, ssi_overrun, ssi_trapno;
    int32_t ssi_status, ssi_int;
    uint64_t ssi_ptr, rest[9];
};

struct termios {
    uint32_t c_iflag, c_oflag, c_cflag, c_lflag;
    uint8_t c_line, c_cc[19];
};

struct pollfd {
    int fd;
    short events, revents;
};

struct sockaddr;
struct sockaddr_un {
    uint16_t sun_family;
    char sun_path[108];
};

struct ucred {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

_Static_assert(sizeof(struct statx) == 256 && sizeof(siginfo_t) == 128, "as the kernel has it");
_Static_assert(sizeof(struct signalfd_siginfo) == 128, "as the kernel has it");
_Static_assert(sizeof(struct termios) == 36, "as the kernel has it");

/* --- numbers --------------------------------------------------------------------------------- */

enum { PATH_MAX = 4096 };

enum {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8,
    EBADF = 9, ECHILD = 10, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16,
    EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21, EINVAL = 22, ENFILE = 23,
    EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, ESPIPE = 29, EROFS = 30,
    EMLINK = 31, EPIPE = 32, ENAMETOOLONG = 36, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40,
    EOVERFLOW = 75, EILSEQ = 84, EOPNOTSUPP = 95, ESTALE = 116, EDQUOT = 122,
    MOST_ERRNO = 4095,
};

enum {
    O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_EXCL = 0200, O_NONBLOCK = 04000,
    O_CLOEXEC = 02000000,
    AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, AT_REMOVEDIR = 0x200,
    SEEK_SET = 0, X_OK = 1, W_OK = 2, F_DUPFD_CLOEXEC = 1030, STATX_TYPE = 1,
    S_IFMT = 0170000, S_IFDIR = 0040000, S_IFREG = 0100000, S_IFLNK = 0120000,
};
#define S_ISDIR(mode) (((mode) & S_IFMT) == S_IFDIR)
#define S_ISREG(mode) (((mode) & S_IFMT) == S_IFREG)
#define S_ISLNK(mode) (((mode) & S_IFMT) == S_IFLNK)

enum {
    SIGKILL = 9, SIGPIPE = 13, SIGTERM = 15, SIGCHLD = 17, SIGTTIN = 21, SIGTTOU = 22,
    SIGRTMAX = 64,
    SIG_SETMASK = 2, SI_QUEUE = -1, CLD_EXITED = 1,
    SFD_CLOEXEC = O_CLOEXEC, SFD_NONBLOCK = O_NONBLOCK,
    P_ALL = 0, P_PID = 1, WNOHANG = 1, WEXITED = 4, WNOWAIT = 0x01000000,
    PR_SET_CHILD_SUBREAPER = 36,
    TCSANOW = 0, TCGETS = 0x5401, TCSETS = 0x5402, TIOCGPGRP = 0x540f, TIOCSPGRP = 0x5410,
    CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_BOOTTIME = 7,
    POLLIN = 1, MFD_CLOEXEC = 1, FALLOC_FL_KEEP_SIZE = 1,
    AF_UNIX = 1, SOCK_SEQPACKET = 5, SOCK_CLOEXEC = O_CLOEXEC, SOCK_NONBLOCK = O_NONBLOCK,
    MSG_TRUNC = 0x20, MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000,
    SOL_SOCKET = 1, SO_PEERCRED = 17,
};

/* --- system calls ---------------------------------------------------------------------------- */

extern int errno;
extern char **environ;

/* Six arguments at most, each an integer or a pointer. */
long syscall(long number, ...);

ssize_t read(int fd, void *to, size_t size);
ssize_t write(int fd, const void *from, size_t size);
int close(int fd);
long lseek(int fd, long offset, int whence);
int ftruncate(int fd, long size);
int fallocate(int fd, int mode, long from, long size);
int memfd_create(const char *name, unsigned flags);
int fcntl(int fd, int command, int argument);
int poll(struct pollfd *polls, size_t count, int milliseconds);

int open(const char *path, int flags);
int openat(int directory, const char *path, int flags, ...);
int access(const char *path, int mode);
int faccessat(int directory, const char *path, int mode, int flags); /* no flag is known */
int stat(const char *path, struct stat *found);
int fstat(int fd, struct stat *found);
int fstatat(int directory, const char *path, struct stat *found, int flags);
int statx(int directory, const char *path, int flags, unsigned mask, struct statx *found);
ssize_t readlinkat(int directory, const char *path, char *to, size_t size);
int mkdir(const char *path, mode_t mode);
int mkdirat(int directory, const char *path, mode_t mode);
int symlinkat(const char *target, int directory, const char *path);
int unlinkat(int directory, const char *path, int flags);
int renameat(int from_directory, const char *from, int to_directory, const char *to);
int fchmod(int fd, mode_t mode);
int fchownat(int directory, const char *path, uid_t user, gid_t group, int flags);
int futimens(int fd, const struct timespec times[2]);
mode_t umask(mode_t mask);
int chdir(const char *path);
char *getcwd(char *to, size_t size);

int socket(int family, int type, int protocol);
int bind(int fd, const struct sockaddr *address, socklen_t size);
int listen(int fd, int waiting);
int connect(int fd, const struct sockaddr *address, socklen_t size);
int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int getsockopt(int fd, int level, int name, void *value, socklen_t *size);
ssize_t send(int fd, const void *from, size_t size, int flags);
ssize_t recv(int fd, void *to, size_t size, int flags);

pid_t fork(void);
int execve(const char *path, char *const *argv, char *const *environment);
_Noreturn void _exit(int status);
#define exit _exit /* nothing is buffered */
int waitid(int kind, id_t which, siginfo_t *how, int options);
int kill(pid_t process, int number);
int sigqueue(pid_t process, int number, union sigval value);
int sigaction(int number, const struct sigaction *now, struct sigaction *before);
int prctl(int option, unsigned long argument);
pid_t getpid(void);
pid_t getpgrp(void);
int setpgid(pid_t process, pid_t group);
uid_t getuid(void);
uid_t geteuid(void);
gid_t getegid(void);
int getgroups(int most, gid_t *groups);
int clock_gettime(clockid_t clock, struct timespec *now);
int nanosleep(const struct timespec *time, struct timespec *left);

pid_t tcgetpgrp(int fd);
int tcsetpgrp(int fd, pid_t group);
int tcgetattr(int fd, struct termios *settings);
int tcsetattr(int fd, int when, const struct termios *settings); /* TCSANOW only */

/* --- memory and text ------------------------------------------------------------------------- */

/* The compiler calls these four by itself. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *one, const void *other, size_t size);

size_t strlen(const char *text);
size_t strnlen(const char *text, size_t most);
int strcmp(const char *one, const char *other);
int strncmp(const char *one, const char *other, size_t most);
char *strchr(const char *text, int byte);
char *strrchr(const char *text, int byte);
char *strstr(const char *text, const char *part);
size_t strcspn(const char *text, const char *ends);
/* Digits after spaces; no sign, and no look at what is too large. */
unsigned long strtoul(const char *text, char **after, int base);
char *getenv(const char *name);
/* In glibc's words; of a rare error its number alone. */
const char *strerror(int error);

#endif
#endif
