/* devloop's agent in a development container: see README.md for what its roles promise.

   One static program without a C library of the image, for it has to run in any image. */
#include "agent.h"
#include "sys.h"
#include "text.h"

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "supervise") == 0) return supervise(arguments + 2);
    if (count > 1 && strcmp(arguments[1], "serve") == 0) return serve(arguments + 2);
    static const char usage[] =
        "usage: agent supervise [--stop-signal N] [--socket NAME] -- ARGV...\n"
        "       agent serve [--socket NAME]\n";
    write_all(2, usage, sizeof usage - 1);
    return BAD_USAGE;
}
