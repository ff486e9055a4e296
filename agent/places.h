/* Ways to places: every directory on one is opened from the one above it without following a link. */
#ifndef DEVLOOP_PLACES_H
#define DEVLOOP_PLACES_H

#include "sys.h"
#include "text.h"

enum { DIRECTORY = O_RDONLY | O_DIRECTORY | O_CLOEXEC };

typedef struct {
    const char *root; /* absolute; may be a link itself */
    char *path;       /* below it, without a slash at either end; "" is the root itself */
} Place;

typedef struct {
    bool given; /* otherwise that of what is replaced, or of the directory */
    uid_t user;
    gid_t group;
} Owner;

/* Both say why, with the path, and are false. */
bool fail(Line *why, Place place, const char *reason);
bool failed(Line *why, Place place); /* as `errno` has it */

/* Whether it is one that nothing leads out of. */
bool usable(Place place, Line *why);
/* The directory that a place is in, and its name there. The root itself is "." in itself. -1 with
   nothing in `why` when the way ends and is not to be made. */
int enter(Place place, bool make, const char **name, Line *why);

/* Whether this process is in a group. */
bool is_in(gid_t group);

/* Whether a file can have the set-user-ID and set-group-ID bits of `mode` after this process has
   written to it: a write takes them away, and only the owner may give them again, the latter only if
   in the group. */
bool keeps_bits(mode_t mode, const struct stat *of);

/* The type of what stands there, 0 for nothing. */
mode_t type_at(int directory, const char *name);
/* What stands at `name`, or else its directory. False when neither can be looked at. */
bool what_it_is_like(int directory, const char *name, struct stat *like, bool *replaced);
/* Whether something is mounted right there. A kernel before 5.8 does not tell. */
bool is_mounted(int directory, const char *name);
/* Whether the file that stands there can get a new content where it is: it is the owner's that is
   wanted, and it has no other name. */
bool rewritable(int directory, const char *name, Owner owner);

#endif
