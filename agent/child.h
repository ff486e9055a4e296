/* Starting the command that is supervised, and finding what it left running. */
#ifndef DEVLOOP_CHILD_H
#define DEVLOOP_CHILD_H

#include "sys.h"

/* What the supervisor changes of itself and the child must get as it was. */
typedef struct {
    char **argv;
    uint64_t mask; /* of blocked signals, as the kernel has it */
    struct sigaction on_child_end;
} Command;

/* Set the mask of blocked signals; `before` may be NULL. Not the C library's function, which keeps
   three real-time signals to itself that a command may use. */
void set_mask(uint64_t mask, uint64_t *before);

/* Remember the terminal and the working directory, before the first start. */
void child_prepare(void);

/* Whether `name` can be executed, and as which file (PATH_MAX bytes). As Go's exec.LookPath, which
   runc uses. */
bool child_finds(const char *name, char *found);

/* Replace this process with the command; says why it cannot be and ends with 126 or 127. */
_Noreturn void child_become(const Command *command);

/* Start the command in a process group of its own; its process, or -1. */
pid_t child_start(const Command *command);

typedef enum { NO_PROC, NONE_LEFT, SOME_LEFT, SOME_IN_GROUP } Leftovers;

/* The children that this process has, its own and those it was given by the end of their parents.
   Each gets `signal_number` unless that is 0. */
Leftovers children_left(pid_t group, int signal_number);

#endif
