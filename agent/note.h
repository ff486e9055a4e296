/* A note that outlives the container: its files were changed, so its image lacks what was served. */
#ifndef DEVLOOP_NOTE_H
#define DEVLOOP_NOTE_H

#include "sys.h"

/* Before the others. `name` takes the place of what tells containers apart, or is NULL. */
void note_prepare(const char *name, char *const *argv);

/* Whether a container before this one, of the same pod, image and command, left one. */
bool note_found(void);

void note_leave(void);

#endif
