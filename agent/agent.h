/* The roles of the program. Each gets its own arguments, without its name, and returns an exit
   status. */
#ifndef DEVLOOP_AGENT_H
#define DEVLOOP_AGENT_H

enum { BAD_USAGE = 2 };

int supervise(char **arguments);
int serve(char **arguments);

#endif
