/* Questions about what stands below a root, which change nothing. False when it could not be told, and
   then `why` says why, with the path. */
#ifndef DEVLOOP_QUESTIONS_H
#define DEVLOOP_QUESTIONS_H

#include "places.h"

/* What stands there, as one line. */
bool check(Place place, Line *found, Line *why);
/* Whether this user may do there what `what` names (put, dir, link, gone), for that owner. */
bool may(Place place, const char *what, Owner owner, Line *why);

#endif
