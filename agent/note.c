/* A note that outlives the container: its files were changed, so its image lacks what was served.

   A container that the kubelet starts again has the files of its image. What stays is what the pod
   has: containers of a pod share /dev/shm, a tmpfs that everybody may write to. The note is an empty
   directory there, named by the command and by the layers below the container's root, so that a
   container with another image, which may well have what was changed, is no heir to it. Where the
   layers cannot be told there are no notes. */
#include "note.h"

#include "text.h"

static Line path; /* empty: no notes */

static const uint64_t FNV_START = 14695981039346656037u, FNV_PRIME = 1099511628211u;

static uint64_t hashed(uint64_t hash, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)bytes[i]) * FNV_PRIME;
    return hash;
}

/* The option `lowerdir=` of the overlay at /, from its line in /proc/self/mountinfo (proc(5)): the
   fifth field is the mount point. */
static bool hash_layers(uint64_t *hash) {
    static char text[16384];
    int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t size = 0;
    ssize_t got;
    while (size < sizeof text - 1 && (got = read(fd, text + size, sizeof text - 1 - size)) > 0) {
        size += (size_t)got;
    }
    close(fd);
    text[size] = '\0';
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        const char *field = line;
        for (int i = 0; i < 4 && field; i++) {
            field = strchr(field, ' ');
            if (field) field++;
        }
        if (!field || field[0] != '/' || field[1] != ' ') continue;
        const char *layers = strstr(field, "lowerdir=");
        if (!layers) return false;
        *hash = hashed(*hash, layers, strcspn(layers, ","));
        return true;
    }
    return false;
}

void note_prepare(const char *name, char *const *argv) {
    static const char digits[] = "0123456789abcdef";
    uint64_t hash = FNV_START;
    if (name) {
        hash = hashed(hash, name, strlen(name));
    } else if (!hash_layers(&hash)) {
        return;
    }
    for (; *argv; argv++) hash = hashed(hash, *argv, strlen(*argv) + 1);
    add(&path, "/dev/shm/.devloop-");
    for (int shift = 60; shift >= 0; shift -= 4) add_bytes(&path, &digits[hash >> shift & 15], 1);
    path.text[path.size] = '\0';
}

bool note_found(void) {
    struct stat found;
    return path.size && fstatat(AT_FDCWD, path.text, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(found.st_mode) && found.st_uid == geteuid();
}

void note_leave(void) {
    if (path.size) mkdir(path.text, 0700);
}
