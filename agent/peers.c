/* Who is connected to the supervisor and who of them holds. Knows nothing of what messages mean.

   Nothing here may wait for a peer: the supervisor is PID 1 of somebody's container. */
#include "peers.h"

#include "link.h"
#include "sys.h"

enum { MOST_ROUNDS = 64 }; /* so that who sends all the time keeps nobody waiting */

struct Peer {
    bool connected;
    bool asks;
    bool gone; /* but what it said before has to be heard yet */
    bool holds;
    int fd;
    uint64_t known;
};

static Peer peers[MOST_PEERS];
static int listening = -1;

void peers_listen(const char *name) { listening = link_listen(name); }

void peers_poll(struct pollfd *polls) {
    polls[MOST_PEERS] = (struct pollfd){.fd = listening, .events = POLLIN};
    for (int i = 0; i < MOST_PEERS; i++) {
        polls[i] = (struct pollfd){.fd = peers[i].connected ? peers[i].fd : -1, .events = POLLIN};
    }
}

static void drop(Peer *peer) {
    if (peer->connected) close(peer->fd);
    *peer = (Peer){0};
}

/* False when there is none. */
static bool take_message(Peer *peer, void (*request)(Peer *, const char *text)) {
    char text[MESSAGE_SIZE];
    ssize_t size = recv(peer->fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && errno == EINTR) return true;
    if (size < 0 && errno == EAGAIN) return false;
    if (size <= 0 || size > (ssize_t)sizeof text - 1) {
        drop(peer);
        return false;
    }
    text[size] = '\0';
    request(peer, text);
    return true;
}

static bool take_messages(void (*request)(Peer *, const char *text)) {
    bool any = false;
    for (int i = 0; i < MOST_PEERS; i++) {
        if (peers[i].connected && take_message(&peers[i], request)) any = true;
    }
    return any;
}

static void take_peer(void (*greet)(Peer *)) {
    int fd = out_of_the_way(accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd < 0) return;
    for (int i = 0; i < MOST_PEERS && link_trusted(fd); i++) {
        if (peers[i].connected) continue;
        peers[i] = (Peer){.connected = true, .fd = fd};
        greet(&peers[i]);
        return;
    }
    close(fd);
}

void peers_take(const struct pollfd *polls, void (*greet)(Peer *),
                void (*request)(Peer *, const char *text), void (*answer)(Peer *)) {
    int round = 0;
    while (round < MOST_ROUNDS && take_messages(request)) round++;
    for (int i = 0; i < MOST_PEERS && round < MOST_ROUNDS; i++) {
        if (!peers[i].asks) continue;
        peers[i].asks = false;
        answer(&peers[i]);
    }
    if (listening >= 0 && polls[MOST_PEERS].revents) take_peer(greet);
}

uint64_t *peer_known(Peer *peer) { return &peer->known; }

void peer_asks(Peer *peer) { peer->asks = true; }

void peer_hold(Peer *peer) { peer->holds = true; }

bool peers_hold(void) {
    for (int i = 0; i < MOST_PEERS; i++) {
        if (peers[i].holds) return true;
    }
    return false;
}

void peer_tell(Peer *peer, const Line *line) {
    if (!peer->connected || peer->gone) return;
    ssize_t sent = send(peer->fd, line->text, line->size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0 || errno == EINTR) return;
    peer->gone = errno != EAGAIN; /* else it does not read */
    if (!peer->gone) drop(peer);
}

void peers_tell(const Line *line) {
    for (int i = 0; i < MOST_PEERS; i++) peer_tell(&peers[i], line);
}
