/* The command under a debugger: python and node load a hook of devloop's at their start, which lies
   beside this program (devloop/base/debug_hooks); a Go program is executed by Delve.

   Nothing here may keep the command from running: what cannot be had is said in one line, which
   begins as devloop/app/debugging.py reads it, and the command runs without. */
#include "debug.h"

#include "child.h"
#include "text.h"

enum { MOST_VARIABLES = 2048, MOST_ARGUMENTS = 512, MOST_PORT = 65535 };

static char *variables[MOST_VARIABLES + 3];
static char *arguments[MOST_ARGUMENTS + 16];
static char port_variable[40] = "DEVLOOP_DEBUG=";
static char path_variable[2 * PATH_MAX];
static char program[PATH_MAX];
static char listen_option[48] = "--listen=127.0.0.1:";

static void not_started(const char *why, const char *about) {
    Line line = {0};
    add(&line, "devloop: debug: not started: ");
    add_shown(&line, about, strlen(about));
    add(&line, why);
    line.text[line.size++] = '\n';
    write_all(2, line.text, line.size);
}

/* The command gets `name` with `first` before what stands there already, and the port. */
static void set_variables(const char *name, const char *first, const char *between) {
    size_t size = strlen(name), count = 0;
    const char *old = getenv(name);
    bool more = old && *old;
    size_t length = size + 1 + strlen(first) + (more ? strlen(between) + strlen(old) : 0);
    for (char **each = environ; *each; each++) {
        bool same = strncmp(*each, name, size) == 0 && (*each)[size] == '=';
        if (same || strncmp(*each, "DEVLOOP_DEBUG=", 14) == 0) continue;
        if (count < MOST_VARIABLES) variables[count] = *each;
        count++;
    }
    if (count > MOST_VARIABLES || length >= sizeof path_variable) {
        not_started(": the environment is too large", name);
        return;
    }
    char *at = path_variable;
    const char *parts[] = {name, "=", first, more ? between : "", more ? old : ""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        memcpy(at, parts[i], strlen(parts[i]));
        at += strlen(parts[i]);
    }
    *at = '\0';
    variables[count] = path_variable;
    variables[count + 1] = port_variable;
    environ = variables;
}

/* --- Go -------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t magic[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, segments, sections;
    uint32_t flags;
    uint16_t size, segment_size, segment_count, section_size, section_count, names_at;
} Elf;

typedef struct {
    uint32_t name, type;
    uint64_t flags, address, offset, size, rest[3];
} Section;

_Static_assert(sizeof(Elf) == 64 && sizeof(Section) == 64, "as elf(5) has it");

static bool read_at(int fd, uint64_t offset, void *to, size_t size) {
    return lseek(fd, (long)offset, SEEK_SET) >= 0 && read(fd, to, size) == (ssize_t)size;
}

/* What of a program for this kind of machine is there: that it is a Go program, and that it has what
   a debugger reads. False for what is no such program. */
static bool look_at(const char *path, bool *go, bool *readable) {
    Elf elf;
    Section names, section;
    *go = *readable = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool is_elf = read_at(fd, 0, &elf, sizeof elf) && memcmp(elf.magic, "\177ELF\2", 5) == 0 &&
                  elf.section_size == sizeof section && elf.names_at < elf.section_count &&
                  read_at(fd, elf.sections + (uint64_t)elf.names_at * sizeof names, &names,
                          sizeof names);
    for (unsigned i = 0; is_elf && i < elf.section_count; i++) {
        char name[24] = {0};
        if (!read_at(fd, elf.sections + (uint64_t)i * sizeof section, &section, sizeof section) ||
            lseek(fd, (long)(names.offset + section.name), SEEK_SET) < 0 ||
            read(fd, name, sizeof name - 1) <= 0) {
            break;
        }
        if (strcmp(name, ".go.buildinfo") == 0) *go = true;
        if (strcmp(name, ".debug_info") == 0 || strcmp(name, ".zdebug_info") == 0) *readable = true;
    }
    close(fd);
    return is_elf;
}

static void under_delve(char ***argv) {
    static char delve[PATH_MAX];
    bool go, readable;
    char **own = *argv;
    size_t count = 0;
    while (own[count]) count++;
    if (!child_finds(own[0], program)) return; /* the attempt to execute it says so */
    if (!look_at(program, &go, &readable) || !go) {
        not_started(" is not a Go program: have the image's command be the program itself", own[0]);
    } else if (!readable) {
        not_started(" is built without debug information: build it without -ldflags=-s -w and with "
                    "-gcflags='all=-N -l'", own[0]);
    } else if (!child_finds("dlv", delve)) {
        not_started("dlv is not in the image: go install "
                    "github.com/go-delve/delve/cmd/dlv@latest, and COPY it to /usr/local/bin", "");
    } else if (count > MOST_ARGUMENTS) {
        not_started(": too many arguments", own[0]);
    } else {
        char *before[] = {delve, "exec", "--headless", listen_option, "--accept-multiclient",
                          "--continue", "--api-version=2", "--check-go-version=false", program};
        size_t size = sizeof before / sizeof before[0];
        memcpy(arguments, before, sizeof before);
        if (count > 1) arguments[size++] = "--";
        memcpy(arguments + size, own + 1, (count - 1) * sizeof *own);
        *argv = arguments;
    }
}

/* --- all of them ----------------------------------------------------------------------------- */

bool debug_prepare(const char *what, char ***argv) {
    uint64_t port;
    const char *colon = strchr(what, ':');
    if (!colon || strlen(colon + 1) > 5) return false;
    if (!number_of(colon + 1, strlen(colon + 1), MOST_PORT, &port) || port == 0) return false;
    memcpy(port_variable + strlen(port_variable), colon + 1, strlen(colon + 1) + 1);
    memcpy(listen_option + strlen(listen_option), colon + 1, strlen(colon + 1) + 1);
    if (strncmp(what, "python:", 7) == 0) {
        set_variables("PYTHONPATH", "/.devloop/python", ":");
    } else if (strncmp(what, "node:", 5) == 0) {
        set_variables("NODE_OPTIONS", "--require /.devloop/node.cjs", " ");
    } else if (strncmp(what, "go:", 3) == 0) {
        under_delve(argv);
    } else {
        return false;
    }
    return true;
}
