#include "places.h"

#ifndef STATX_ATTR_MOUNT_ROOT /* linux/stat.h has it, which goes badly with sys/stat.h */
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

/* Of a long path its beginning: the reason after it must fit. */
static void add_path(Line *line, Place place) {
    add_shown(line, place.root, strnlen(place.root, LINE_SIZE / 4));
    if (!place.path[0]) return;
    add(line, "/");
    add_shown(line, place.path, strnlen(place.path, LINE_SIZE / 4));
}

bool fail(Line *why, Place place, const char *reason) {
    if (why->size) return false; /* the first reason counts */
    add_path(why, place);
    add(why, ": ");
    add(why, reason);
    return false;
}

bool failed(Line *why, Place place) { return fail(why, place, strerror(errno)); }

bool usable(Place place, Line *why) {
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

mode_t type_at(int directory, const char *name) {
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

int enter(Place place, bool make, const char **name, Line *why) {
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

bool what_it_is_like(int directory, const char *name, struct stat *like, bool *replaced) {
    *replaced = fstatat(directory, name, like, AT_SYMLINK_NOFOLLOW) == 0;
    return *replaced || (errno == ENOENT && fstat(directory, like) == 0);
}

bool is_mounted(int directory, const char *name) {
    struct statx of;
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &of) < 0) return false;
    return of.stx_attributes & of.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT;
}

bool is_in(gid_t group) {
    static gid_t groups[1024];
    int count = getgroups((int)(sizeof groups / sizeof groups[0]), groups);
    for (int i = 0; i < count; i++) {
        if (groups[i] == group) return true;
    }
    return group == getegid();
}

bool keeps_bits(mode_t mode, const struct stat *of) {
    if (!(mode & 06000)) return true;
    return of->st_uid == geteuid() && (!(mode & 02000) || is_in(of->st_gid));
}

bool rewritable(int directory, const char *name, Owner owner) {
    struct stat of;
    if (fstatat(directory, name, &of, AT_SYMLINK_NOFOLLOW) < 0) return false;
    if (!keeps_bits(of.st_mode, &of)) return false;
    if (!S_ISREG(of.st_mode) || of.st_nlink != 1 || is_mounted(directory, name)) return false;
    if (owner.given && (of.st_uid != owner.user || of.st_gid != owner.group)) return false;
    return faccessat(directory, name, W_OK, 0) == 0;
}
