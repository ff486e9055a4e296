/* The agent as devloop speaks to it through one exec stream: changes of files and questions on standard
   input, answers on standard output, what concerns the command to the supervisor and back.

   It ends with its input. Everything passes through fixed buffers, whatever is sent; a request that
   is none of its own is answered and passed over, and one whose end cannot be known ends it. */
#include "agent.h"
#include "files.h"
#include "link.h"
#include "ports.h"
#include "questions.h"
#include "sys.h"
#include "text.h"

enum {
    PROTOCOL = 1,
    SIZE_DIGITS = 8,
    MOST_REQUEST = 16384, /* a root, a path and a target of PATH_MAX each */
    TAIL = 128,           /* of a longer one, so that the size of its content is still found */
    MOST_FIELDS = 8,
    BUFFER = 1 << 17,
    MOST_REASON = 600,
    LOOK_MS = 5, /* between two looks at who listens, while that is awaited */
    LATER_MS = 50,      /* after as many of them as MOST_LOOKS */
    MOST_LOOKS = 2000,
};

static int supervisor = -1;
static uint64_t step; /* of the batch, from 1 */
static bool step_failed;
static bool announced; /* that this batch changes files */
static uint64_t awaited; /* the number of the start whose ports are awaited, 0 for none */
static unsigned looks;   /* for them */
static bool restarting;  /* a start was asked for that has not come yet */

/* --- output ---------------------------------------------------------------------------------- */

static void put_line(Line *line) {
    line->text[line->size++] = '\n';
    if (!write_all(1, line->text, line->size)) exit(1);
}

static void bad(const Line *why) {
    Line line = {0};
    step_failed = true;
    add(&line, "bad ");
    add_number(&line, step);
    add(&line, " ");
    add_bytes(&line, why->text, why->size < MOST_REASON ? why->size : MOST_REASON);
    put_line(&line);
}

static void bad_text(const char *text) {
    Line why = {0};
    add(&why, text);
    bad(&why);
}

/* What follows the last space, as a number. */
static uint64_t last_number(const char *text, size_t size) {
    size_t from = size;
    uint64_t number = 0;
    while (from && text[from - 1] != ' ') from--;
    return number_of(text + from, size - from, UINT64_MAX, &number) ? number : 0;
}

static void look_at_ports(void) {
    Line line = {0}, news = {0};
    if (!awaited) return;
    looks++;
    bool back = ports_back();
    if (!back && !ports_news(&news)) return;
    add(&line, back ? "event listening " : "event waiting ");
    add_number(&line, awaited);
    add_bytes(&line, news.text, news.size);
    if (back) awaited = 0;
    put_line(&line);
}

static void note_event(const char *event, const char *text, size_t size) {
    if (strcmp(event, "started") == 0) {
        awaited = last_number(text, size);
        looks = 0;
        restarting = false;
        ports_started();
    } else {
        if (strcmp(event, "ended") == 0) ports_ended();
        awaited = 0;
    }
}

/* What happens by itself is an `event`; what the supervisor answers stands for itself. */
static void hear_supervisor(void) {
    char text[MESSAGE_SIZE];
    ssize_t size;
    while ((size = recv(supervisor, text, sizeof text, MSG_DONTWAIT)) > 0) {
        Line line = {0};
        size_t word = 0;
        while (word < (size_t)size && text[word] != ' ') word++;
        static const char *const events[] = {"started", "ended", "stopped"};
        for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
            if (strlen(events[i]) == word && memcmp(events[i], text, word) == 0) {
                add(&line, "event ");
                note_event(events[i], text, (size_t)size);
            }
        }
        add_shown(&line, text, (size_t)size);
        put_line(&line);
        look_at_ports();
    }
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    close(supervisor);
    supervisor = -1;
    Line line = {0};
    add(&line, "event lost");
    put_line(&line);
}

/* --- input ----------------------------------------------------------------------------------- */

static char buffer[BUFFER];
static size_t buffered_from, buffered_to;

/* Some bytes of input, at most `most`, valid until the next call; 0 at its end. */
static size_t take_some(size_t most, const char **bytes) {
    while (buffered_from == buffered_to) {
        struct pollfd polls[2] = {{.fd = 0, .events = POLLIN}, {.fd = supervisor, .events = POLLIN}};
        int pause = !awaited ? -1 : looks < MOST_LOOKS ? LOOK_MS : LATER_MS;
        if (poll(polls, 2, pause) < 0 && errno != EINTR) return 0;
        if (polls[1].revents) hear_supervisor();
        look_at_ports();
        if (!polls[0].revents) continue;
        ssize_t size = read(0, buffer, sizeof buffer);
        if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (size <= 0) return 0;
        buffered_from = 0;
        buffered_to = (size_t)size;
    }
    size_t size = buffered_to - buffered_from;
    if (size > most) size = most;
    *bytes = buffer + buffered_from;
    buffered_from += size;
    return size;
}

static bool take(char *to, size_t size) {
    while (size) {
        const char *bytes;
        size_t got = take_some(size, &bytes);
        if (!got) return false;
        memcpy(to, bytes, got);
        to += got;
        size -= got;
    }
    return true;
}

/* --- requests -------------------------------------------------------------------------------- */

typedef struct {
    bool too_long; /* then `text` is its first and its last bytes */
    size_t size;
    char text[MOST_REQUEST + 1];
} Request;

static Request request;
static char *field[MOST_FIELDS];
static size_t fields;

static _Noreturn void broken(const char *why) {
    Line line = {0};
    add(&line, "broken ");
    add(&line, why);
    put_line(&line);
    exit(1);
}

/* False at the end of input. */
static bool take_request(void) {
    char digits[SIZE_DIGITS];
    uint64_t left;
    if (!take(digits, sizeof digits)) return false;
    if (!number_of(digits, sizeof digits, UINT64_MAX, &left)) broken("a request begins with its size");
    request.too_long = left > MOST_REQUEST;
    request.size = request.too_long ? MOST_REQUEST : left;
    if (!request.too_long) {
        if (!take(request.text, left)) return false;
    } else {
        if (!take(request.text, MOST_REQUEST - TAIL)) return false;
        for (left -= MOST_REQUEST; left;) {
            const char *bytes;
            size_t got = take_some(left, &bytes);
            if (!got) return false;
            left -= got;
        }
        if (!take(request.text + MOST_REQUEST - TAIL, TAIL)) return false;
    }
    request.text[request.size] = '\0';
    fields = 0;
    for (size_t at = 0; at <= request.size; at += strlen(request.text + at) + 1) {
        if (fields < MOST_FIELDS) field[fields] = request.text + at;
        fields++;
    }
    return true;
}

/* The field that is so many from the end; of a request that is too long as well. */
static const char *field_from_end(size_t number) {
    const char *at = request.text + request.size;
    for (;;) {
        while (at > request.text && at[-1] != '\0') at--;
        if (!number-- || at == request.text) return at;
        at--;
    }
}

static bool read_mode(const char *text, mode_t *mode) {
    unsigned value = 0;
    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '7' || at - text == 4) return false;
        value = value * 8 + (unsigned)(*at - '0');
    }
    *mode = value;
    return *text != '\0';
}

static bool read_owner(const char *text, Owner *owner) {
    uint64_t user, group;
    size_t size = strcspn(text, ":");
    *owner = (Owner){0};
    if (!*text) return true;
    const uint64_t most = UINT32_MAX - 1; /* -1 would leave it as it is */
    if (text[size] != ':' || !number_of(text, size, most, &user)) return false;
    if (!number_of(text + size + 1, strlen(text + size + 1), most, &group)) return false;
    *owner = (Owner){.given = true, .user = (uid_t)user, .group = (gid_t)group};
    return true;
}

static Place place(void) { return (Place){.root = field[1], .path = field[2]}; }

/* Before the first change of a batch the supervisor is told, so that what it says of the container's
   content is true whenever this process is killed. */
static bool announce(Line *why) {
    static const char changing[] = "changing";
    if (announced || supervisor < 0) return true;
    announced = send(supervisor, changing, strlen(changing), MSG_NOSIGNAL) >= 0;
    if (!announced) add(why, "the supervisor does not take it");
    return announced;
}

/* put ROOT PATH MODE OWNER SIZE SHA256, and the content. False at the end of input. */
static bool take_put(void) {
    const char *size_text = field_from_end(1);
    uint64_t left;
    NewFile new = {.failed = true, .directory = -1, .file = -1};
    Line why = {0};
    mode_t mode = 0;
    Owner owner = {0};
    if (fields < 7 || !number_of(size_text, strlen(size_text), INT64_MAX, &left)) {
        broken("put without the size of its content");
    }
    Place at = {.root = "", .path = request.text};
    if (request.too_long) {
        add(&why, "the request is too long");
    } else if (fields != 7 || !read_mode(field[3], &mode) || !read_owner(field[4], &owner) ||
               strlen(field[6]) != SHA256_HEX) {
        add(&why, "put is ROOT PATH MODE OWNER SIZE SHA256");
    } else {
        at = place();
        if (announce(&why)) file_start(&new, at, &why);
    }
    while (left) {
        const char *bytes;
        size_t got = take_some(left < BUFFER ? (size_t)left : BUFFER, &bytes);
        if (!got) {
            file_forget(&new);
            return false;
        }
        file_add(&new, at, bytes, got, &why);
        left -= got;
    }
    if (why.size) {
        file_forget(&new);
        bad(&why);
    } else if (!file_end(&new, at, mode, owner, field[6], &why)) {
        bad(&why);
    }
    return true;
}

static void take_dir(void) {
    Line why = {0};
    mode_t mode;
    Owner owner;
    if (!read_mode(field[3], &mode) || !read_owner(field[4], &owner)) {
        bad_text("dir is ROOT PATH MODE OWNER");
    } else if (!announce(&why) || !make_directory(place(), mode, owner, &why)) {
        bad(&why);
    }
}

static void take_link(void) {
    Line why = {0};
    Owner owner;
    if (!read_owner(field[3], &owner)) {
        bad_text("link is ROOT PATH OWNER TARGET");
    } else if (!announce(&why) || !make_link(place(), owner, field[4], &why)) {
        bad(&why);
    }
}

static void take_gone(void) {
    Line why = {0};
    if (!announce(&why) || !remove_all(place(), &why)) bad(&why);
}

static void take_check(void) {
    Line found = {0}, why = {0};
    if (check(place(), &found, &why)) {
        put_line(&found);
    } else {
        bad(&why);
    }
}

static void take_may(void) {
    Line why = {0}, line = {0};
    Owner owner;
    if (!read_owner(field[4], &owner)) {
        bad_text("may is ROOT PATH WHAT OWNER");
        return;
    }
    if (may(place(), field[3], owner, &why)) {
        add(&line, "yes");
    } else {
        add(&line, "no ");
        add_bytes(&line, why.text, why.size < MOST_REASON ? why.size : MOST_REASON);
    }
    put_line(&line);
}

/* handles PID SIGNO: from the line SigCgt of /proc/PID/status, a mask in hexadecimal. */
static void take_handles(void) {
    uint64_t pid, number;
    Line line = {0}, path = {0};
    static char status[4096];
    const char *found = NULL;
    if (number_of(field[1], strlen(field[1]), INT32_MAX, &pid) &&
        number_of(field[2], strlen(field[2]), 64, &number) && number) {
        add(&path, "/proc/");
        add_number(&path, pid);
        add(&path, "/status");
        path.text[path.size] = '\0';
        int fd = open(path.text, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? -1 : read(fd, status, sizeof status - 1);
        if (fd >= 0) close(fd);
        status[size > 0 ? size : 0] = '\0';
        found = strstr(status, "\nSigCgt:\t");
    }
    if (!found) {
        add(&line, "unknown");
    } else {
        uint64_t mask = strtoul(found + strlen("\nSigCgt:\t"), NULL, 16);
        add(&line, mask >> (number - 1) & 1 ? "yes" : "no");
    }
    put_line(&line);
}

/* For the supervisor, as its name and at most one number. A half-done batch restarts nothing. */
static void pass_to_supervisor(void) {
    Line line = {0};
    for (size_t i = 0; i < fields; i++) {
        if (i) add(&line, " ");
        add(&line, field[i]);
    }
    if (supervisor < 0) {
        bad_text("there is no supervisor in this container");
        return;
    }
    if (field[0][0] == 'm' && step_failed) return; /* those who failed say so */
    if (field[0][0] == 'r' && step_failed) {
        bad_text("not restarted, for a step before it failed");
        return;
    }
    if (field[0][0] == 'r' && !awaited && !restarting) ports_note();
    if (field[0][0] == 'r') restarting = true;
    if (line.size >= MESSAGE_SIZE ||
        send(supervisor, line.text, line.size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        bad_text("the supervisor does not take it");
    }
}

static void take_settle(void) {
    awaited = 0;
    ports_settle();
}

static void take_done(void) {
    Line line = {0};
    add(&line, "done");
    put_line(&line);
    step = 0;
    step_failed = announced = false;
}

static void dispatch(void) {
    static const struct {
        const char *name;
        size_t fields;
        void (*take)(void);
    } known[] = {
        {"dir", 5, take_dir},       {"link", 5, take_link},
        {"gone", 3, take_gone},     {"check", 3, take_check},
        {"may", 5, take_may},       {"handles", 3, take_handles},
        {"hold", 1, pass_to_supervisor},    {"state", 1, pass_to_supervisor},
        {"settle", 1, take_settle},
        {"content", 1, pass_to_supervisor}, {"mark", 2, pass_to_supervisor},
        {"restart", 2, pass_to_supervisor}, {"stop", 2, pass_to_supervisor},
        {"signal", 2, pass_to_supervisor},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(field[0], known[i].name) != 0) continue;
        if (request.too_long) {
            bad_text("the request is too long");
        } else if (fields != known[i].fields) {
            bad_text("another number of fields belongs to it");
        } else {
            known[i].take();
        }
        return;
    }
    Line line = {0};
    add(&line, "unknown ");
    add_shown(&line, field[0], strnlen(field[0], 40));
    put_line(&line);
}

int serve(char **arguments) {
    const char *name = NULL;
    if (*arguments && strcmp(*arguments, "--socket") == 0) name = arguments[1];
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    files_prepare();
    supervisor = link_connect(name);
    if (supervisor >= 0) ports_note();
    Line line = {0};
    add(&line, "agent ");
    add_number(&line, PROTOCOL);
    add(&line, supervisor < 0 ? " alone" : " supervised");
    put_line(&line);
    while (take_request()) {
        if (fields == 1 && strcmp(field[0], "done") == 0) {
            take_done();
            continue;
        }
        step++;
        if (strcmp(field[0], "put") == 0) {
            if (!take_put()) break;
        } else {
            dispatch();
        }
    }
    return 0;
}
