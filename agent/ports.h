/* The TCP ports that the command listens on, told by what vanishes when it ends. */
#ifndef DEVLOOP_PORTS_H
#define DEVLOOP_PORTS_H

#include "sys.h"
#include "text.h"

/* Note who listens now: before a stop, and whenever the command is known to serve. */
void ports_note(void);

/* The command has ended by itself: what no longer listens was its own. */
void ports_ended(void);

/* The command was started, this moment: likewise. From now on its ports are awaited. */
void ports_started(void);

/* Whether they listen again, all of them. True as well when there is nothing to wait for. */
bool ports_back(void);

/* Where they do not a second after the start, and whenever that changes: which of them do not listen
   yet, which do, and which others do that did not at the start, as three words. Whether that is
   enough is for devloop to decide, which knows the manifest. */
bool ports_news(Line *news);

/* That is all that the command will listen on. */
void ports_settle(void);

#endif
