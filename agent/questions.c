#include "questions.h"

#include "sha256.h"
#include "sys.h"

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
