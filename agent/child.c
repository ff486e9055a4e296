/* The command that is supervised: started as the container runtime would have started it, so that it
   can tell no difference but its process number. Between fork and exec only what is safe there. */
#include "child.h"

#include "sys.h"
#include "text.h"

enum { NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

extern char **environ;

static int terminal = -1; /* one of 0, 1, 2 where this process has the terminal's foreground */
static struct termios terminal_settings;
static bool started_before;
static char directory[PATH_MAX];

void child_prepare(void) {
    for (int fd = 0; fd <= 2 && terminal < 0; fd++) {
        if (tcgetpgrp(fd) == getpgrp() && tcgetattr(fd, &terminal_settings) == 0) terminal = fd;
    }
    if (!getcwd(directory, sizeof directory) || directory[0] != '/') directory[0] = '\0';
}

/* --- executing ------------------------------------------------------------------------------- */

static _Noreturn void cannot(const char *name, const char *why, int status) {
    Line line = {0};
    add(&line, "exec: \"");
    add_shown(&line, name, strlen(name));
    add(&line, "\": ");
    add(&line, why);
    line.text[line.size++] = '\n';
    write_all(2, line.text, line.size);
    _exit(status);
}

static _Noreturn void cannot_for(const char *name, int error) {
    const char *why = strerror(error);
    switch (error) {
        case EACCES: why = "permission denied"; break;
        case ENOENT: why = "no such file or directory"; break;
        case ENOEXEC: why = "exec format error"; break;
        case EISDIR: why = "is a directory"; break;
    }
    cannot(name, why, error == ENOENT || error == ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE);
}

/* 0 when `path` is a file that may be executed. As Go's exec.LookPath, which runc uses. */
static int executable(const char *path) {
    struct stat found;
    if (stat(path, &found) < 0) return errno;
    if (S_ISDIR(found.st_mode)) return EISDIR;
    return access(path, X_OK) < 0 ? errno : 0;
}

static bool find_in_path(const char *name, char *found) {
    const char *path = getenv("PATH");
    size_t length = strlen(name);
    while (path && *path) {
        size_t size = strcspn(path, ":");
        const char *from = size ? path : ".";
        size_t from_size = size ? size : 1;
        if (from_size + 1 + length < PATH_MAX) {
            memcpy(found, from, from_size);
            found[from_size] = '/';
            memcpy(found + from_size + 1, name, length + 1);
            if (executable(found) == 0) return true;
        }
        path += size;
        if (*path) path++;
    }
    return false;
}

/* The error of what cannot be executed, ENOENT too where nothing of that name is in PATH. */
static int find(const char *name, char *found) {
    if (!strchr(name, '/')) return *name && find_in_path(name, found) ? 0 : ENOENT;
    size_t size = strlen(name) + 1;
    if (size > PATH_MAX) return ENAMETOOLONG;
    memcpy(found, name, size);
    return executable(name);
}

bool child_finds(const char *name, char *found) { return find(name, found) == 0; }

static _Noreturn void execute(char **argv) {
    char found[PATH_MAX];
    int error = find(argv[0], found);
    if (error && !strchr(argv[0], '/')) {
        cannot(argv[0], "executable file not found in $PATH", NOT_FOUND);
    }
    if (error) cannot_for(argv[0], error);
    execve(found, argv, environ);
    cannot_for(argv[0], errno);
}

void set_mask(uint64_t mask, uint64_t *before) {
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, before, sizeof mask);
}

_Noreturn void child_become(const Command *command) {
    sigaction(SIGCHLD, &command->on_child_end, NULL);
    set_mask(command->mask, NULL);
    execute(command->argv);
}

/* The directory may have been made anew since: what was open then is not what the path leads to. */
static void go_home(void) {
    struct stat here, there;
    if (!directory[0] || stat(directory, &there) < 0) return;
    if (stat(".", &here) == 0 && here.st_dev == there.st_dev && here.st_ino == there.st_ino) return;
    if (chdir(directory) < 0) return; /* then it starts where it would have without this */
}

pid_t child_start(const Command *command) {
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        /* All signals are blocked yet: SIGTTOU does not stop it. */
        if (terminal >= 0) {
            tcsetpgrp(terminal, getpid());
            if (started_before) tcsetattr(terminal, TCSANOW, &terminal_settings);
        }
        if (started_before) go_home();
        child_become(command);
    }
    if (child > 0) {
        setpgid(child, child); /* whoever comes first: its group may be signalled from now on */
        started_before = true;
    }
    return child;
}

/* --- what is left ---------------------------------------------------------------------------- */

/* The parent and group of a process from /proc/PID/stat: its name stands in parentheses and may hold
   anything, so what follows the last one counts. */
static bool parent_and_group(int proc, const char *pid, pid_t *parent, pid_t *group) {
    Line path = {0};
    add(&path, pid);
    add(&path, "/stat");
    path.text[path.size] = '\0';
    int fd = openat(proc, path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    char text[512];
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0) return false;
    text[size] = '\0';
    char *at = strrchr(text, ')');
    if (!at || strlen(at) < 5) return false;
    char *after;
    *parent = (pid_t)strtoul(at + 4, &after, 10);
    *group = (pid_t)strtoul(after, NULL, 10);
    return true;
}

static bool is_own_proc(int proc) {
    char text[24];
    ssize_t size = readlinkat(proc, "self", text, sizeof text);
    uint64_t pid;
    return size > 0 && number_of(text, (size_t)size, INT_MAX, &pid) && (pid_t)pid == getpid();
}

struct entry { /* linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

Leftovers children_left(pid_t group, int signal_number) {
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0) return NO_PROC;
    if (!is_own_proc(proc)) {
        close(proc);
        return NO_PROC;
    }
    Leftovers found = NONE_LEFT;
    static _Alignas(struct entry) char entries[4096];
    long size;
    while ((size = syscall(SYS_getdents64, proc, entries, sizeof entries)) > 0) {
        for (long at = 0; at < size;) {
            struct entry *entry = (struct entry *)(entries + at);
            at += entry->size;
            uint64_t pid;
            pid_t parent, its_group;
            if (!number_of(entry->name, strlen(entry->name), INT_MAX, &pid)) continue;
            if (!parent_and_group(proc, entry->name, &parent, &its_group)) continue;
            if (parent != getpid()) continue;
            if (its_group == group) found = SOME_IN_GROUP;
            if (found == NONE_LEFT) found = SOME_LEFT;
            if (signal_number) kill((pid_t)pid, signal_number);
        }
    }
    close(proc);
    return found;
}
