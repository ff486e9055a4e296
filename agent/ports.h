/* The TCP ports that the command listens on, told by what vanishes when it ends. */
#ifndef DEVLOOP_PORTS_H
#define DEVLOOP_PORTS_H

#include "sys.h"

/* How long some of the command's ports are enough before it has fewer of them. */
extern uint64_t ports_fewer_ms;

/* Note who listens now: before a stop, and whenever the command is known to serve. */
void ports_note(void);

/* The command has ended by itself: what no longer listens was its own. */
void ports_ended(void);

/* The command was started, this moment: likewise. From now on its ports are awaited. */
void ports_started(void);

/* Whether they listen again, all of them; or another port that did not listen at the start does so
   for a second: then the command has moved. True as well when there is nothing to wait for. */
bool ports_back(void);

#endif
