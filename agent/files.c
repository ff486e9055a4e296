/* Changes of files, made so that a process that reads them meanwhile sees the old or the new one.

   The container's own processes may do anything at the same time: every directory is opened from the
   one above it without following a link, and what was looked at is not looked up again by its path. */
#include "files.h"

#include "sys.h"

enum {
    DIRECTORY = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
    DEEPEST = 200, /* directories in each other that are removed; each is a descriptor and 1 KB */
    MOST_MEMORY = 16 << 20, /* of the container's own, for a file that has no place beside its own */
    MOST_WAIT_S = 3,        /* for a later full second */
};

#ifndef STATX_ATTR_MOUNT_ROOT /* linux/stat.h has it, which goes badly with sys/stat.h */
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

static char temporary[32];

void files_prepare(void) {
    Line name = {0};
    add(&name, ".devloop-sync~");
    add_number(&name, (uint64_t)getpid());
    memcpy(temporary, name.text, name.size);
    umask(0);
}

/* Of a long path its beginning: the reason after it must fit. */
static void add_path(Line *line, Place place) {
    add_shown(line, place.root, strnlen(place.root, LINE_SIZE / 4));
    if (!place.path[0]) return;
    add(line, "/");
    add_shown(line, place.path, strnlen(place.path, LINE_SIZE / 4));
}

static bool fail(Line *why, Place place, const char *reason) {
    if (why->size) return false; /* the first reason counts */
    add_path(why, place);
    add(why, ": ");
    add(why, reason);
    return false;
}

static bool failed(Line *why, Place place) { return fail(why, place, strerror(errno)); }

/* --- ways ------------------------------------------------------------------------------------ */

static bool usable(Place place, Line *why) {
    if (place.root[0] != '/') return fail(why, place, "the root is not absolute");
    if (strlen(place.root) + 1 + strlen(place.path) >= PATH_MAX) {
        return fail(why, place, strerror(ENAMETOOLONG));
    }
    for (const char *at = place.path; *at;) {
        size_t size = strcspn(at, "/");
        bool dots = (size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.');
        if (size == 0 || dots) return fail(why, place, "not a path below the root");
        at += size;
        if (*at && !*++at) return fail(why, place, "not a path below the root");
    }
    return true;
}

static mode_t type_at(int directory, const char *name) {
    struct stat found;
    if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) < 0) return 0;
    return found.st_mode & S_IFMT;
}

static int open_root(const char *root, bool make) {
    int fd = open(root, DIRECTORY);
    if (fd >= 0 || errno != ENOENT || !make) return fd;
    char path[PATH_MAX];
    size_t size = strlen(root);
    if (size >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(path, root, size + 1);
    for (size_t at = 1; at <= size; at++) {
        if (path[at] != '/' && path[at] != '\0') continue;
        char after = path[at];
        path[at] = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST) return -1;
        path[at] = after;
    }
    return open(root, DIRECTORY);
}

/* The directory that a place is in, and its name there. The root itself is "." in itself. -1 with
   nothing in `why` when the way ends and is not to be made. */
static int enter(Place place, bool make, const char **name, Line *why) {
    if (!usable(place, why)) return -1;
    int fd = open_root(place.root, make);
    char *part = place.path;
    char *slash;
    while (fd >= 0 && (slash = strchr(part, '/'))) {
        *slash = '\0';
        if (make && mkdirat(fd, part, 0755) < 0 && errno != EEXIST) {
            failed(why, place);
        } else {
            int inner = openat(fd, part, DIRECTORY | O_NOFOLLOW);
            if (inner < 0) {
                int error = errno;
                bool link = type_at(fd, part) == S_IFLNK;
                errno = error == ENOTDIR && !make ? ENOENT : error;
                if (link) {
                    add_path(why, place);
                    add(why, " is a symlink in the image");
                } else if (make || errno != ENOENT) {
                    failed(why, place);
                }
                *slash = '/';
                close(fd);
                return -1;
            }
            close(fd);
            fd = inner;
        }
        *slash = '/';
        if (why->size) {
            close(fd);
            return -1;
        }
        part = slash + 1;
    }
    if (fd < 0 && (make || errno != ENOENT)) failed(why, place);
    *name = *part ? part : ".";
    return fd;
}

/* --- removing -------------------------------------------------------------------------------- */

struct entry { /* linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static bool remove_at(int directory, const char *name, int depth);

static bool empty(int directory, int depth) {
    _Alignas(struct entry) char entries[1024];
    bool removed_some;
    do { /* file systems differ in what a listing still shows while its entries are removed */
        removed_some = false;
        long size;
        if (lseek(directory, 0, SEEK_SET) < 0) return false;
        while ((size = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
            for (long at = 0; at < size;) {
                struct entry *entry = (struct entry *)(entries + at);
                at += entry->size;
                if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
                if (!remove_at(directory, entry->name, depth)) return false;
                removed_some = true;
            }
        }
        if (size < 0) return false;
    } while (removed_some);
    return true;
}

static bool remove_at(int directory, const char *name, int depth) {
    if (type_at(directory, name) != S_IFDIR) {
        return unlinkat(directory, name, 0) == 0 || errno == ENOENT;
    }
    if (depth == DEEPEST) {
        errno = ELOOP;
        return false;
    }
    int inner = openat(directory, name, DIRECTORY | O_NOFOLLOW);
    if (inner < 0) return false;
    bool emptied = empty(inner, depth + 1);
    int error = errno;
    close(inner);
    errno = error;
    return emptied && unlinkat(directory, name, AT_REMOVEDIR) == 0;
}

/* --- owners and times ------------------------------------------------------------------------ */

static bool own(int directory, const char *made, Owner owner, const struct stat *like) {
    uid_t user = owner.given ? owner.user : like->st_uid;
    gid_t group = owner.given ? owner.group : like->st_gid;
    struct stat have;
    if (fstatat(directory, made, &have, AT_SYMLINK_NOFOLLOW) < 0) return false;
    if (have.st_uid == user && have.st_gid == group) return true;
    return fchownat(directory, made, user, group, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What stands at `name`, or else its directory. False when neither can be looked at. */
static bool what_it_is_like(int directory, const char *name, struct stat *like, bool *replaced) {
    *replaced = fstatat(directory, name, like, AT_SYMLINK_NOFOLLOW) == 0;
    return *replaced || (errno == ENOENT && fstat(directory, like) == 0);
}

/* A later full second than that of the file that it replaces: many programs compare seconds and size
   and would take a second change within a second for none. */
static time_t least_second(const struct stat *replaced) {
    return replaced->st_mtim.tv_sec + 1 + (replaced->st_mtim.tv_nsec > 0);
}

static bool set_time(int file, const struct stat *replaced) {
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[1] = times[0];
    time_t least = least_second(replaced);
    if (times[1].tv_sec < least) times[1] = (struct timespec){.tv_sec = least};
    return futimens(file, times) == 0;
}

/* Who may not set another time than now waits for it. */
static bool wait_for_time(const struct stat *replaced) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time_t least = least_second(replaced);
    if (now.tv_sec >= least) return true;
    if (least - now.tv_sec > MOST_WAIT_S) return false;
    struct timespec left = {.tv_sec = least - now.tv_sec - 1, .tv_nsec = 1000000000 - now.tv_nsec};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) continue;
    return true;
}

/* The temporary takes its place. */
static bool settle(int directory, const char *name) {
    if (type_at(directory, name) == S_IFDIR && !remove_at(directory, name, 0)) return false;
    return renameat(directory, temporary, directory, name) == 0;
}

/* --- files ----------------------------------------------------------------------------------- */

/* Whether something is mounted right there. A kernel before 5.8 does not tell. */
static bool is_mounted(int directory, const char *name) {
    struct statx of;
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &of) < 0) return false;
    return of.stx_attributes & of.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT;
}

/* Whether the file that stands there can get a new content where it is: it is the owner's that is
   wanted, and it has no other name. */
static bool rewritable(int directory, const char *name, Owner owner) {
    struct stat of;
    if (fstatat(directory, name, &of, AT_SYMLINK_NOFOLLOW) < 0) return false;
    if (!S_ISREG(of.st_mode) || of.st_nlink != 1 || is_mounted(directory, name)) return false;
    if (owner.given && (of.st_uid != owner.user || of.st_gid != owner.group)) return false;
    return faccessat(directory, name, W_OK, 0) == 0;
}

static bool copy(int from, int to) {
    static char piece[1 << 16];
    ssize_t size;
    if (lseek(from, 0, SEEK_SET) < 0) return false;
    while ((size = read(from, piece, sizeof piece)) > 0) {
        if (!write_all(to, piece, (size_t)size)) return false;
    }
    return size == 0;
}

static bool has_space(int file, uint64_t size) {
    if (!size || fallocate(file, FALLOC_FL_KEEP_SIZE, 0, (long)size) == 0) return true;
    return errno == EOPNOTSUPP;
}

/* For want of the permission to replace a file: `new`, which is whole, over what stands in its place.
   Where there is space for all of it, and never shorter than it was or will be, so that who reads it
   meanwhile sees a mixture only while it is written. False with the file as it was, mostly. */
static bool rewrite(NewFile *new, mode_t mode, Owner owner) {
    struct stat of;
    if (!rewritable(new->directory, new->name, owner)) return false;
    int to = openat(new->directory, new->name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (to < 0) return false;
    bool done = fstat(to, &of) == 0 && S_ISREG(of.st_mode) && of.st_nlink == 1;
    mode_t old = of.st_mode & 07777;
    bool mine = done && fchmod(to, mode) == 0; /* only an owner may, who may set the time as well */
    done = done && (mine || old == mode) && (mine || wait_for_time(&of));
    done = done && has_space(to, new->size);
    done = done && copy(new->file, to) && ftruncate(to, (long)new->size) == 0;
    if (mine) {
        /* a write takes some bits of the mode away */
        done = done && fchmod(to, mode) == 0 && set_time(to, &of);
    }
    close(to);
    return done;
}

void file_start(NewFile *new, Place place, Line *why) {
    *new = (NewFile){.failed = true, .directory = -1, .file = -1};
    sha256_start(&new->sum);
    new->directory = enter(place, true, &new->name, why);
    if (new->directory < 0) return;
    if (strcmp(new->name, ".") == 0) {
        fail(why, place, "a file needs a name");
        return;
    }
    int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    if (remove_at(new->directory, temporary, 0)) {
        new->file = openat(new->directory, temporary, flags, 0600);
    }
    if (new->file < 0 && errno == EACCES) {
        if (rewritable(new->directory, new->name, (Owner){0})) {
            new->refused = EACCES;
            new->file = memfd_create("devloop", MFD_CLOEXEC);
        }
        errno = EACCES;
    }
    new->failed = new->file < 0;
    if (new->failed) failed(why, place);
}

void file_add(NewFile *new, Place place, const char *bytes, size_t size, Line *why) {
    if (new->failed) return;
    sha256_add(&new->sum, bytes, size);
    new->size += size;
    bool fits = !new->refused || new->size <= MOST_MEMORY;
    if (fits && write_all(new->file, bytes, size)) return;
    if (!fits) errno = new->refused;
    new->failed = true;
    failed(why, place);
}

void file_forget(NewFile *new) {
    if (new->file >= 0) close(new->file);
    if (new->directory < 0) return;
    if (new->file >= 0 && !new->refused) unlinkat(new->directory, temporary, 0);
    close(new->directory);
}

/* The whole file, beside its place, gets into it. */
static bool replace(NewFile *new, mode_t mode, Owner owner) {
    struct stat like;
    bool replaced;
    return fchmod(new->file, mode) == 0 &&
           what_it_is_like(new->directory, new->name, &like, &replaced) &&
           (!replaced || !S_ISREG(like.st_mode) || set_time(new->file, &like)) &&
           own(new->directory, temporary, owner, &like) &&
           /* a change of the owner takes these bits away */
           (!(mode & 06000) || fchmod(new->file, mode) == 0) &&
           settle(new->directory, new->name);
}

bool file_end(NewFile *new, Place place, mode_t mode, Owner owner, const char *digest, Line *why) {
    bool done = false;
    char hex[SHA256_HEX];
    sha256_end(&new->sum, hex);
    if (new->failed) {
        /* said already */
    } else if (memcmp(hex, digest, SHA256_HEX) != 0) {
        fail(why, place, "its content is not what it should be");
    } else if (!new->refused && replace(new, mode, owner)) {
        done = true;
        close(new->file);
        new->file = -1; /* nothing is left to remove */
    } else {
        /* It belongs to a group that this user is not in, or its directory to somebody else. */
        int error = new->refused ? new->refused : errno;
        done = (error == EACCES || error == EPERM) && rewrite(new, mode, owner);
        errno = error;
        if (!done) failed(why, place);
    }
    file_forget(new);
    return done;
}

bool make_link(Place place, Owner owner, const char *target, Line *why) {
    const char *name;
    struct stat like;
    bool replaced;
    int directory = enter(place, true, &name, why);
    if (directory < 0) return false;
    bool done = false;
    if (strcmp(name, ".") == 0) {
        fail(why, place, "a link needs a name");
    } else if (!remove_at(directory, temporary, 0) ||
               symlinkat(target, directory, temporary) < 0) {
        failed(why, place);
    } else if (!what_it_is_like(directory, name, &like, &replaced) ||
               !own(directory, temporary, owner, &like) || !settle(directory, name)) {
        failed(why, place);
        unlinkat(directory, temporary, 0);
    } else {
        done = true;
    }
    close(directory);
    return done;
}

bool make_directory(Place place, mode_t mode, Owner owner, Line *why) {
    const char *name;
    int above = enter(place, true, &name, why);
    if (above < 0) return false;
    struct stat like;
    int made = -1;
    bool there = type_at(above, name) == S_IFDIR;
    bool good = there || (remove_at(above, name, 0) && mkdirat(above, name, 0755) == 0 &&
                          fstat(above, &like) == 0 && own(above, name, owner, &like));
    if (good) made = openat(above, name, DIRECTORY | O_NOFOLLOW);
    good = made >= 0 && fstat(made, &like) == 0 && own(made, ".", owner, &like) &&
           fchmod(made, mode) == 0;
    if (!good) failed(why, place);
    if (made >= 0) close(made);
    close(above);
    return good;
}

bool remove_all(Place place, Line *why) {
    const char *name;
    int directory = enter(place, false, &name, why);
    if (directory < 0) return why->size == 0;
    bool done = strcmp(name, ".") == 0 ? fail(why, place, "the root is not removed")
                                       : remove_at(directory, name, 0) || failed(why, place);
    close(directory);
    return done;
}

/* --- questions ------------------------------------------------------------------------------- */

static bool add_digest(int directory, const char *name, Line *found) {
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return false;
    static char piece[1 << 16];
    char hex[SHA256_HEX];
    ssize_t size;
    Sha256 sum;
    sha256_start(&sum);
    while ((size = read(file, piece, sizeof piece)) > 0) sha256_add(&sum, piece, (size_t)size);
    int error = errno;
    close(file);
    errno = error;
    sha256_end(&sum, hex);
    add_bytes(found, hex, sizeof hex);
    return size == 0;
}

static void add_numbers(Line *line, const char *type, const struct stat *of) {
    add(line, type);
    add_octal(line, of->st_mode & 07777);
    add(line, " ");
    add_number(line, of->st_uid);
    add(line, " ");
    add_number(line, of->st_gid);
}

static bool describe(int directory, const char *name, const struct stat *of, Line *found) {
    char target[PATH_MAX];
    ssize_t size;
    switch (of->st_mode & S_IFMT) {
        case S_IFREG:
            add_numbers(found, "file ", of);
            add(found, " ");
            add_number(found, (uint64_t)of->st_size);
            add(found, " ");
            return add_digest(directory, name, found);
        case S_IFDIR:
            add_numbers(found, "dir ", of);
            return true;
        case S_IFLNK:
            size = readlinkat(directory, name, target, sizeof target);
            add(found, "link ");
            add_octal(found, of->st_mode & 07777);
            add(found, " ");
            if (size > 0) add_escaped(found, target, (size_t)size);
            if (found->size == LINE_SIZE - 1) errno = ENAMETOOLONG;
            return size > 0 && found->size < LINE_SIZE - 1;
        default:
            add_numbers(found, "other ", of);
            return true;
    }
}

bool check(Place place, Line *found, Line *why) {
    const char *name;
    struct stat of;
    int directory = enter(place, false, &name, why);
    if (directory < 0) {
        if (why->size) return false;
        add(found, "nothing");
        return true;
    }
    bool done = true;
    if (fstatat(directory, name, &of, AT_SYMLINK_NOFOLLOW) == 0) {
        done = describe(directory, name, &of, found) || failed(why, place);
    } else if (errno == ENOENT || errno == ENOTDIR) {
        add(found, "nothing");
    } else {
        done = failed(why, place);
    }
    close(directory);
    return done;
}

/* Whether this process may give files away: bit CAP_CHOWN of its effective capabilities. */
static bool may_chown(void) {
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } sets[2] = {{0}};
    return syscall(SYS_capget, &header, sets) == 0 && (sets[0].effective & 1);
}

static bool is_in(gid_t group) {
    static gid_t groups[1024];
    int count = getgroups((int)(sizeof groups / sizeof groups[0]), groups);
    for (int i = 0; i < count; i++) {
        if (groups[i] == group) return true;
    }
    return group == getegid();
}

static bool may_at(int directory, const char *name, const char *what, Owner owner, Place place,
                   Line *why) {
    struct stat like;
    bool replaced;
    if (strcmp(what, "put") == 0 && rewritable(directory, name, owner)) return true;
    if (strcmp(name, ".") != 0 && is_mounted(directory, name)) {
        return fail(why, place, "something is mounted there");
    }
    if (faccessat(directory, ".", W_OK | X_OK, 0) < 0) return failed(why, place);
    if (!what_it_is_like(directory, name, &like, &replaced)) return failed(why, place);
    if (strcmp(what, "gone") == 0) return true;
    uid_t user = owner.given ? owner.user : like.st_uid;
    gid_t group = owner.given ? owner.group : like.st_gid;
    if ((user == geteuid() && is_in(group)) || may_chown()) return true;
    return fail(why, place, "it is to belong to another user or group");
}

bool may(Place place, const char *what, Owner owner, Line *why) {
    if (!usable(place, why)) return false;
    char root[PATH_MAX];
    size_t size = strlen(place.root);
    if (size >= sizeof root) return fail(why, place, strerror(ENAMETOOLONG));
    memcpy(root, place.root, size + 1);
    /* What is missing is made, and what is no directory may become one before: it is the last
       directory that is there that must allow it. */
    int fd;
    bool whole = true;
    while ((fd = open(root, DIRECTORY)) < 0 && errno == ENOENT && strcmp(root, "/") != 0) {
        char *slash = strrchr(root, '/');
        slash[slash == root ? 1 : 0] = '\0';
        whole = false;
    }
    if (fd < 0) return failed(why, place);
    char *part = place.path;
    char *slash;
    while (whole && (slash = strchr(part, '/'))) {
        *slash = '\0';
        int inner = openat(fd, part, DIRECTORY | O_NOFOLLOW);
        int error = errno;
        *slash = '/';
        if (inner < 0 && error != ENOENT && error != ENOTDIR && error != ELOOP) {
            close(fd);
            return fail(why, place, strerror(error));
        }
        if (inner < 0) {
            whole = false;
        } else {
            close(fd);
            fd = inner;
            part = slash + 1;
        }
    }
    const char *name = whole && *part ? part : ".";
    bool it_may = may_at(fd, name, what, owner, place, why);
    close(fd);
    return it_may;
}
