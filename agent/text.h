/* Short lines of text, put together without stdio and without malloc. */
#ifndef DEVLOOP_TEXT_H
#define DEVLOOP_TEXT_H

#include "sys.h"

enum { LINE_SIZE = 1024 };

/* What does not fit is left out; room for a closing newline is always kept. */
typedef struct {
    size_t size;
    char text[LINE_SIZE];
} Line;

void add(Line *line, const char *text);
void add_bytes(Line *line, const char *bytes, size_t size);
void add_number(Line *line, uint64_t number);
void add_octal(Line *line, unsigned number);
/* Any bytes as part of one line: control characters become spaces. */
void add_shown(Line *line, const char *bytes, size_t size);
/* Any bytes as one word that can be read back: control characters, spaces and backslashes become
   a backslash and three octal digits. */
void add_escaped(Line *line, const char *bytes, size_t size);

/* A number in decimal and nothing else; false for anything else or above `most`. */
bool number_of(const char *text, size_t size, uint64_t most, uint64_t *number);

/* All of it, waiting where that is needed; false when it cannot be written. */
bool write_all(int fd, const char *bytes, size_t size);

#endif
