/* What the container's files are, by the word of whoever changes them: kept in PID 1, so it lives as
   long as the files do, whoever is killed meanwhile.

   A change makes them unknown until the one who made it gives the mark of what they are now. That is
   believed only of one who knew what they were before and was alone with it from then on: where two
   have changed them, nobody knows what came of it until the container begins anew. */
#include "content.h"

static char mark[MOST_MARK + 1] = "image";
static uint64_t edition = 1; /* a new one with each change and each mark */
static bool unknown;
static bool mixed;

const char *content_now(void) { return unknown ? "unknown" : mark; }

uint64_t content_known(void) { return unknown ? 0 : edition; }

uint64_t content_changing(uint64_t known) {
    if (known != edition) mixed = true;
    unknown = true;
    return ++edition;
}

static bool is_mark(const char *text) {
    size_t size = 0;
    while ((text[size] >= '0' && text[size] <= '9') || (text[size] >= 'a' && text[size] <= 'f')) size++;
    return size && size <= MOST_MARK && !text[size];
}

bool content_mark(uint64_t *known, const char *text) {
    if (mixed || !unknown || *known != edition || !is_mark(text)) return false;
    memcpy(mark, text, strlen(text) + 1);
    unknown = false;
    *known = ++edition;
    return true;
}
