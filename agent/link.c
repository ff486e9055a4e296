/* Where the supervisor listens: an abstract Unix socket, for it needs no writable directory.

   Containers of a pod share the network namespace that such names live in, so the name is made of
   the container's own mount namespace, which a process started by exec shares. */
#include "link.h"

#include "sys.h"
#include "text.h"

enum { ABOVE_INHERITED = 64, WAITING_PEERS = 8 };

static bool add_own_name(Line *line) {
    struct stat place;
    if (stat("/proc/self/ns/mnt", &place) == 0) {
        add_number(line, place.st_ino);
        return true;
    }
    if (stat("/", &place) < 0) return false;
    add_number(line, place.st_dev);
    add(line, ":");
    add_number(line, place.st_ino);
    return true;
}

static bool address(const char *name, struct sockaddr_un *at, socklen_t *size) {
    Line line = {0};
    add(&line, "devloop-agent/");
    if (name) {
        add(&line, name);
    } else if (!add_own_name(&line)) {
        return false;
    }
    if (line.size > sizeof at->sun_path - 1) return false;
    memset(at, 0, sizeof *at);
    at->sun_family = AF_UNIX;
    memcpy(at->sun_path + 1, line.text, line.size);
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + line.size);
    return true;
}

int out_of_the_way(int fd) {
    if (fd < 0) return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_INHERITED);
    if (moved < 0) moved = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* a low limit of open files */
    close(fd);
    return moved;
}

int link_listen(const char *name) {
    struct sockaddr_un at;
    socklen_t size;
    if (!address(name, &at, &size)) return -1;
    int fd = out_of_the_way(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&at, size) == 0 && listen(fd, WAITING_PEERS) == 0) return fd;
    close(fd);
    return -1;
}

int link_connect(const char *name) {
    struct sockaddr_un at;
    socklen_t size;
    if (!address(name, &at, &size)) return -1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&at, size) == 0 && link_trusted(fd)) return fd;
    close(fd);
    return -1;
}

bool link_trusted(int fd) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return false;
    return peer.uid == geteuid() || peer.uid == 0;
}
