/* The `serve` processes that are connected to the supervisor. */
#ifndef DEVLOOP_PEERS_H
#define DEVLOOP_PEERS_H

#include "sys.h"

#include "text.h"

enum { MOST_PEERS = 8, PEER_POLLS = MOST_PEERS + 1 };

typedef struct Peer Peer;

/* Not being able to listen is no error: then nobody ever connects. */
void peers_listen(const char *name);

/* Fill in what to wait for: always PEER_POLLS entries. */
void peers_poll(struct pollfd *polls);

/* Take what came: `greet` for each new peer, `request` for each message, which is a line of text, and
   `answer` for each peer that asks, once there is no message of anyone left: also of those who are
   gone by now. */
void peers_take(const struct pollfd *polls, void (*greet)(Peer *),
                void (*request)(Peer *, const char *text), void (*answer)(Peer *));
void peer_asks(Peer *peer);

/* Of the container's content: a number of content.h's. */
uint64_t *peer_known(Peer *peer);

void peer_hold(Peer *peer);
bool peers_hold(void);

/* Never waits: a peer that does not read is dropped. */
void peer_tell(Peer *peer, const Line *line);
void peers_tell(const Line *line);

#endif
