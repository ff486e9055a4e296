/* Changes of files below a root.

   Everything returns false when it could not be done and says why in `why`, with the path. What needs
   a place is done below directories that were opened one by one: no symlink below the root is
   followed and nothing leaves it. */
#ifndef DEVLOOP_FILES_H
#define DEVLOOP_FILES_H

#include "places.h"
#include "sha256.h"
#include "sys.h"
#include "text.h"

/* A file that is being written beside its place. Whether that works is told at the end only, for its
   content must be taken in any case. */
typedef struct {
    bool failed;
    int directory;
    int file;
    int refused; /* the error for which `file` is in memory and not beside its place, or 0 */
    uint64_t size;
    const char *name;
    Sha256 sum;
} NewFile;

/* Before all else: sets the umask, and the name of temporary files. */
void files_prepare(void);

void file_start(NewFile *new, Place place, Line *why);
void file_add(NewFile *new, Place place, const char *bytes, size_t size, Line *why);
/* Put it in its place if its content has that digest, or forget it; see README.md for its time. */
bool file_end(NewFile *new, Place place, mode_t mode, Owner owner, const char *digest, Line *why);
void file_forget(NewFile *new);

bool make_link(Place place, Owner owner, const char *target, Line *why);
bool make_directory(Place place, mode_t mode, Owner owner, Line *why);
bool remove_all(Place place, Line *why);

#endif
