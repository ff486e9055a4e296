/* Changes of files, made so that a process that reads them meanwhile sees the old or the new one.

   The container's own processes may do anything at the same time: every directory is opened from the
   one above it without following a link, and what was looked at is not looked up again by its path. */
#include "files.h"

#include "sys.h"

enum {
    DEEPEST = 200, /* directories in each other that are removed; each is a descriptor and 1 KB */
    MOST_MEMORY = 16 << 20, /* of the container's own, for a file that has no place beside its own */
    MOST_WAIT_S = 3,        /* for a later full second */
};

static char temporary[32];

void files_prepare(void) {
    Line name = {0};
    add(&name, ".devloop-sync~");
    add_number(&name, (uint64_t)getpid());
    memcpy(temporary, name.text, name.size);
    umask(0);
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
    done = done && keeps_bits(mode | of.st_mode, &of);
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
