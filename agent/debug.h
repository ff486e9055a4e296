/* How the command is started so that an editor can attach to it. */
#ifndef DEVLOOP_DEBUG_H
#define DEVLOOP_DEBUG_H

#include "sys.h"

/* `what` is KIND:PORT, KIND being python, node or go. Changes the environment that the command gets,
   or what is executed in its place; where that cannot be, says why on standard error and leaves the
   command as it is. False when `what` makes no sense. Called once, before the first start. */
bool debug_prepare(const char *what, char ***argv);

#endif
