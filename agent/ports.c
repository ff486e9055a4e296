/* The TCP ports that the command listens on. Nobody is connected to and nothing is configured: what
   listened before a stop and does not right after it was the command's. The listeners of other
   containers of the pod stay, and so do not count.

   The kernel is asked with sock_diag(7), or else /proc/net/tcp and tcp6 are read (proc(5)). For these
   it goes through its table of all connections, which takes milliseconds on a machine with a lot of
   memory, and the command that starts needs the processor itself. Without either nothing is ever
   waited for. */
#include "ports.h"
#include "sys.h"

enum { PORTS = 65536, WORDS = PORTS / 64, NEWS_MS = 1000, MOST_NAMED = 16 };

typedef struct {
    uint64_t word[WORDS];
} Set;

static Set noted;   /* listened when the command was last known to serve, or before a stop */
static Set own;     /* the command's */
static Set started; /* listened right after the start */
static Set now;
static Line told; /* the last news */
static bool known;  /* whether `own` is of this command, which does not listen on all of it yet */
static uint64_t began;

static char text[8192]; /* the kernel sends at most as much at once, and no line is as long */

/* linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h */
enum {
    NETLINK = 16, SOCK_DIAG = 4, BY_FAMILY = 20, FAILED = 2, ALL_SENT = 3, REQUEST = 1, DUMP = 0x300,
    IPV4 = 2, IPV6 = 10, TCP = 6, LISTENS = 10, DATAGRAMS = 2
};

typedef struct {
    uint32_t size; /* with this head */
    uint16_t type, flags;
    uint32_t number, to;
} Head;

typedef struct {
    Head head;
    uint8_t family, protocol, more, padding;
    uint32_t states;
    uint8_t of_one[48];
} Question;

typedef struct {
    Head head;
    uint8_t family, state, timer, tries;
    uint8_t port[2]; /* the high byte first */
} Listener;

static int kernel = -1; /* the socket that it is asked at */
static bool refused;    /* here it tells nothing */

static uint64_t milliseconds(void) {
    struct timespec at;
    clock_gettime(CLOCK_BOOTTIME, &at);
    return (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / 1000000;
}

/* One line of the table: "  0: 0100007F:1F90 00000000:0000 0A ...". False for one that does not
   listen; those that do come first in the table. */
static bool take_line(Set *set, const char *line) {
    const char *local = strstr(line, ": ");
    const char *port = local ? strchr(local + 2, ':') : NULL;
    const char *remote = port ? strchr(port, ' ') : NULL;
    const char *state = remote ? strchr(remote + 1, ' ') : NULL;
    if (!state) return true; /* the heading */
    if (strncmp(state, " 0A ", 4) != 0) return false;
    uint64_t number = strtoul(port + 1, NULL, 16) % PORTS;
    set->word[number / 64] |= (uint64_t)1 << number % 64;
    return true;
}

/* What of an answer was received. False for one that is an error; `all`: there is no more to come. */
static bool take_listeners(Set *set, size_t size, bool *all) {
    for (size_t at = 0; at + sizeof(Head) <= size && !*all;) {
        Listener one;
        size_t left = size - at;
        memcpy(&one, text + at, left < sizeof one ? left : sizeof one);
        if (one.head.size < sizeof(Head) || one.head.size > left || one.head.type == FAILED) {
            return false;
        }
        *all = one.head.type == ALL_SENT;
        if (one.head.type == BY_FAMILY && one.head.size >= sizeof one) {
            size_t number = (size_t)one.port[0] << 8 | one.port[1];
            set->word[number / 64] |= (uint64_t)1 << number % 64;
        }
        at += (one.head.size + 3) & ~(size_t)3;
    }
    return true;
}

/* Who listens for one family. False where the kernel does not tell. */
static bool ask(Set *set, uint8_t family) {
    Question question = {
        .head = {.size = sizeof question, .type = BY_FAMILY, .flags = REQUEST | DUMP},
        .family = family,
        .protocol = TCP,
        .states = 1 << LISTENS,
    };
    if (send(kernel, &question, sizeof question, MSG_DONTWAIT) < 0) return false;
    for (bool all = false; !all;) {
        ssize_t got = recv(kernel, text, sizeof text, MSG_DONTWAIT | MSG_TRUNC);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0 || (size_t)got > sizeof text) return false;
        if (!take_listeners(set, (size_t)got, &all)) return false;
    }
    return true;
}

static bool ask_kernel(Set *set) {
    if (refused) return false;
    if (kernel < 0) kernel = socket(NETLINK, DATAGRAMS | SOCK_CLOEXEC, SOCK_DIAG);
    if (kernel >= 0 && ask(set, IPV4) && ask(set, IPV6)) return true;
    refused = true;
    close(kernel);
    return false;
}

static void read_table(Set *set, const char *path) {
    size_t size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    for (bool more = true; more;) {
        ssize_t got = read(fd, text + size, sizeof text - 1 - size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        size += (size_t)got;
        text[size] = '\0';
        char *line = text, *end;
        while (more && (end = strchr(line, '\n'))) {
            *end = '\0';
            more = take_line(set, line);
            line = end + 1;
        }
        size = (size_t)(text + size - line);
        memmove(text, line, size);
        if (size == sizeof text - 1) break;
    }
    close(fd);
}

static void look(Set *set) {
    memset(set, 0, sizeof *set);
    if (ask_kernel(set)) return;
    memset(set, 0, sizeof *set);
    read_table(set, "/proc/net/tcp");
    read_table(set, "/proc/net/tcp6");
}

/* Whether one of `left` is not in `right`. */
static bool any_but(const Set *left, const Set *right) {
    for (size_t i = 0; i < WORDS; i++) {
        if (left->word[i] & ~right->word[i]) return true;
    }
    return false;
}

void ports_note(void) { look(&noted); }

/* With `left` listening: what was noted and is not among them was the command's. One that ended, or
   was stopped, before it listened has the ports of the one before it; what was known of it stays
   when something vanishes, for others' listeners come and go too. */
static void take_vanished(const Set *left) {
    if (!known) memset(&own, 0, sizeof own);
    for (size_t i = 0; i < WORDS; i++) own.word[i] |= noted.word[i] & ~left->word[i];
    known = true;
}

void ports_ended(void) {
    look(&now);
    take_vanished(&now);
    noted = now;
}

void ports_started(void) {
    look(&started);
    take_vanished(&started);
    told.size = 0;
    began = milliseconds();
}

void ports_settle(void) {
    look(&noted);
    known = false;
}

bool ports_back(void) {
    look(&now);
    if (any_but(&own, &now)) return false;
    noted = now;
    known = false;
    return true;
}

/* The ports that are in `left` and, as `in` says, in `right` or not, but not in `other`. */
static void add_ports(Line *line, const Set *left, const Set *right, bool in, const Set *other) {
    int named = 0;
    add(line, " ");
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t word = left->word[i] & (in ? right->word[i] : ~right->word[i]);
        if (other) word &= ~other->word[i];
        for (unsigned bit = 0; word && bit < 64 && named < MOST_NAMED; bit++) {
            if (!(word >> bit & 1)) continue;
            if (named++) add(line, ",");
            add_number(line, i * 64 + bit);
        }
    }
    if (!named) add(line, "-");
}

bool ports_news(Line *news) {
    if (milliseconds() - began < NEWS_MS) return false;
    add_ports(news, &own, &now, false, NULL);
    add_ports(news, &own, &now, true, NULL);
    add_ports(news, &now, &started, false, &own);
    if (news->size == told.size && memcmp(news->text, told.text, told.size) == 0) return false;
    told = *news;
    return true;
}
