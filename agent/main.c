/* devloop's agent in a development container: see README.md for what its roles promise.

   One static program without a C library of the image, for it has to run in any image. */
#include "agent.h"
#include "sys.h"
#include "text.h"

/* What the kernel says of process 1, for images without `cat`. */
static int tell_status(void) {
    char piece[4096];
    int from = openat(AT_FDCWD, "/proc/1/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;
    while (from >= 0 && (got = read(from, piece, sizeof piece)) > 0) write_all(1, piece, (size_t)got);
    return got == 0 ? 0 : 1;
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "supervise") == 0) return supervise(arguments + 2);
    if (count > 1 && strcmp(arguments[1], "serve") == 0) return serve(arguments + 2);
    if (count > 1 && strcmp(arguments[1], "status") == 0) return tell_status();
    static const char usage[] =
        "usage: agent supervise [--stop-signal N] [--socket NAME] [--debug KIND:PORT] -- ARGV...\n"
        "       agent serve [--socket NAME]\n"
        "       agent status\n";
    write_all(2, usage, sizeof usage - 1);
    return BAD_USAGE;
}
