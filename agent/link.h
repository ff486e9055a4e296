/* The socket between a supervisor and the `serve` processes of its container. */
#ifndef DEVLOOP_LINK_H
#define DEVLOOP_LINK_H

#include "sys.h"

enum { MESSAGE_SIZE = 128 };

/* Both give a descriptor that is closed on exec, or -1. `name` is NULL for the container's own. */
int link_listen(const char *name);
int link_connect(const char *name);

/* Whether the other end runs as this user or as root. */
bool link_trusted(int fd);

/* A descriptor above those that a program expects to inherit, closed on exec; -1 stays -1. */
int out_of_the_way(int fd);

#endif
