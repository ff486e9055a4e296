/* What the container's files are, by the word of whoever changes them. */
#ifndef DEVLOOP_CONTENT_H
#define DEVLOOP_CONTENT_H

#include "sys.h"

enum { MOST_MARK = 64 };

/* `image` when nobody has changed them since the container began, `unknown`, or a mark. */
const char *content_now(void);

/* Each peer keeps the number that it gets here and hands it in again: 0 for one that never asked. */
uint64_t content_known(void);
uint64_t content_changing(uint64_t known);

/* False when it is not a mark, or when what the peer knew is no longer so. */
bool content_mark(uint64_t *known, const char *mark);

#endif
