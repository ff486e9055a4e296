/* PID 1 of a development container: starts the image's own command, passes signals on, reaps, and
   starts the command again when a peer asks for it.

   Whatever it cannot do for devloop it leaves undone without a word: to the container it is a plain
   init, and to the kubelet it is the command itself. It never allocates, never waits for a peer, and
   sets no timer but while it stops the command. Four stages:

     RUNS     the command runs, has ended by itself and is held, or is not started yet: where what it
              would serve is older than what was served before, a peer has a moment to bring that
     ASKED    the command got SIGTERM because a peer asked; the deadline is set
     REST     it has ended; the rest of its group got SIGTERM, with the same deadline
     KILLING  what is left gets SIGKILL until nothing is left
*/
#include "agent.h"
#include "child.h"
#include "content.h"
#include "debug.h"
#include "link.h"
#include "note.h"
#include "peers.h"
#include "sys.h"

enum {
    BY_SIGNAL = 128,        /* exit status = this + the signal's number, as shells and runc say it */
    MOST_STOP_MS = 3600000,
    KILL_AGAIN_MS = 10,     /* what a process forks while it is killed is found the next time */
    HEIR_MS = 3000,         /* for the peer who changed the files of the container before this one */
    GOODBYE_MS = 500,       /* for a debugger that has left the group to tell its editor */
    GIVE_UP_MS = 2000,      /* after SIGKILL: somebody else's process, or one in uninterruptible sleep */
};

typedef enum { RUNS, ASKED, REST, KILLING } Stage;

static Command command;
static int stop_signal = SIGTERM; /* the image's own, which the kubelet sends */
static const char *debugger; /* how an editor can attach, NULL for not at all */

static Stage stage;
static pid_t child; /* 0 while none runs */
static pid_t group;
static uint64_t starts;
static uint64_t started_at; /* nanoseconds of CLOCK_BOOTTIME */
static uint64_t deadline;   /* milliseconds of CLOCK_MONOTONIC, in all stages but RUNS */
static uint64_t first_start; /* the same, while the command is not started yet; else 0 */
static uint64_t goodbye;    /* likewise, in REST: until then what is out of the group may be left */
static bool start_again;    /* at the end of the stop that is under way */
static bool leaving;        /* the container was told to end: nothing is started or held any more */

static bool ended_by_signal;
static int ended_with;
static bool ended_as_asked;

static uint64_t now(clockid_t clock, uint64_t units_a_second) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * units_a_second +
           (uint64_t)time.tv_nsec / (1000000000 / units_a_second);
}

static uint64_t now_ms(void) { return now(CLOCK_MONOTONIC, 1000); }

/* --- what peers are told --------------------------------------------------------------------- */

static void add_state(Line *line) {
    if (child) {
        add(line, "started ");
        add_number(line, (uint64_t)child);
        add(line, " ");
        add_number(line, started_at);
    } else if (first_start) {
        add(line, "unstarted");
    } else {
        add(line, ended_by_signal ? "ended signal " : "ended exit ");
        add_number(line, (uint64_t)ended_with);
        add(line, ended_as_asked ? " asked" : " itself");
    }
    add(line, " ");
    add_number(line, starts);
}

static void tell_state_to_all(void) {
    Line line = {0};
    add_state(&line);
    peers_tell(&line);
}

static void tell_state(Peer *peer) {
    Line line = {0};
    add(&line, "state ");
    add_state(&line);
    peer_tell(peer, &line);
}

static void answer(Peer *peer, const char *text, uint64_t number) {
    Line line = {0};
    add(&line, text);
    add_number(&line, number);
    peer_tell(peer, &line);
}

static void refuse(Peer *peer, const char *request, const char *why) {
    Line line = {0};
    add(&line, "refused ");
    add(&line, request);
    add(&line, " ");
    add(&line, why);
    peer_tell(peer, &line);
}

/* --- the command ----------------------------------------------------------------------------- */

static void end_if_nobody_holds(void) {
    if (child || first_start || stage != RUNS || (peers_hold() && !leaving)) return;
    _exit(ended_by_signal ? BY_SIGNAL + ended_with : ended_with);
}

static void start(void) {
    stage = RUNS;
    first_start = 0;
    start_again = false;
    starts++;
    pid_t made = child_start(&command);
    if (made > 0) {
        child = group = made;
        started_at = now(CLOCK_BOOTTIME, 1000000000);
    } else {
        ended_by_signal = ended_as_asked = false;
        ended_with = 126;
    }
    tell_state_to_all();
}

static void stopped(void) {
    stage = RUNS;
    if (start_again) {
        start();
        return;
    }
    Line line = {0};
    add(&line, "stopped ");
    add_number(&line, starts);
    peers_tell(&line);
}

/* The command has ended and is a zombie yet, so that its group's number is nobody else's. */
static void command_ended(const siginfo_t *how) {
    child = 0;
    ended_by_signal = how->si_code != CLD_EXITED;
    ended_with = how->si_status;
    ended_as_asked = stage != RUNS || leaving;
    if (stage == ASKED) {
        kill(-group, SIGTERM);
        stage = REST;
        goodbye = debugger ? now_ms() + GOODBYE_MS : 0;
    }
    tell_state_to_all();
}

/* Whether this process has no child left, of its own or adopted. */
static bool reap(void) {
    for (;;) {
        siginfo_t how = {0};
        if (waitid(P_ALL, 0, &how, WEXITED | WNOHANG | WNOWAIT) < 0) return errno == ECHILD;
        if (how.si_pid == 0) return false;
        if (how.si_pid == child) command_ended(&how);
        waitid(P_PID, (id_t)how.si_pid, &how, WEXITED | WNOHANG);
    }
}

static void kill_what_is_left(void) {
    if (child) kill(-child, SIGKILL);
    if (children_left(group, SIGKILL) == NO_PROC) kill(-group, SIGKILL);
}

/* Go as far as it goes now. */
static void advance(void) {
    bool none_left = reap();
    if (stage == RUNS) {
        if (first_start && now_ms() >= first_start) start();
        end_if_nobody_holds();
        return;
    }
    if (stage == REST && !none_left && now_ms() < deadline) {
        Leftovers left = children_left(group, 0);
        bool in_group = left == NO_PROC ? kill(-group, 0) == 0 : left == SOME_IN_GROUP;
        if (in_group || (left == SOME_LEFT && now_ms() < goodbye)) return;
        deadline = now_ms();
    }
    if (!none_left && now_ms() >= deadline) {
        stage = KILLING;
        kill_what_is_left();
        none_left = reap();
    }
    bool given_up = stage == KILLING && !child && now_ms() >= deadline + GIVE_UP_MS;
    if (!child && (none_left || given_up)) {
        stopped();
        end_if_nobody_holds();
    }
}

static int wait_ms(void) {
    uint64_t at = now_ms();
    if (stage == RUNS) return !first_start ? -1 : first_start > at ? (int)(first_start - at) : 0;
    if (stage == REST && goodbye > at && goodbye < deadline) return (int)(goodbye - at);
    if (stage != KILLING) return deadline > at ? (int)(deadline - at) : 0;
    return at < deadline + GIVE_UP_MS ? KILL_AGAIN_MS : GIVE_UP_MS;
}

/* --- what peers ask for ---------------------------------------------------------------------- */

/* A stop that is under way takes no longer because it is asked for again; what it was asked for last
   decides whether the command is started after it. */
static void stop(uint64_t milliseconds, bool then_start) {
    uint64_t until = now_ms() + milliseconds;
    start_again = then_start;
    if (first_start) {
        first_start = 0;
        stopped();
    } else if (stage != RUNS) {
        if (until < deadline) deadline = until;
    } else if (child) {
        deadline = until;
        stage = ASKED;
        kill(child, SIGTERM);
    } else {
        deadline = until;
        stage = REST;
        Leftovers left = children_left(group, 0);
        if (left == SOME_IN_GROUP || left == NO_PROC) kill(-group, SIGTERM);
    }
}

/* What follows `name` in `text`, or NULL when that is another request. */
static const char *after(const char *text, const char *name) {
    size_t size = strlen(name);
    return strncmp(text, name, size) == 0 ? text + size : NULL;
}

static void take_stop(Peer *peer, const char *name, const char *milliseconds) {
    uint64_t number;
    bool then_start = name[0] == 'r';
    if (!number_of(milliseconds, strlen(milliseconds), MOST_STOP_MS, &number)) {
        refuse(peer, name, "not a number of milliseconds");
    } else if (leaving) {
        refuse(peer, name, "the container is ending");
    } else {
        answer(peer, then_start ? "restarting " : "stopping ", then_start ? starts + 1 : starts);
        stop(number, then_start);
    }
}

static void take_signal(Peer *peer, const char *text) {
    uint64_t number;
    if (!number_of(text, strlen(text), (uint64_t)SIGRTMAX, &number) || number == 0) {
        refuse(peer, "signal", "not the number of a signal");
    } else if (!child) {
        refuse(peer, "signal", "the command does not run");
    } else {
        kill(child, (int)number);
        answer(peer, "signalled ", number);
    }
}

static void tell_content(Peer *peer) {
    Line line = {0};
    *peer_known(peer) = content_known();
    add(&line, "content ");
    add(&line, content_now());
    peer_tell(peer, &line);
}

static void take_request(Peer *peer, const char *text) {
    const char *rest;
    if (strcmp(text, "state") == 0) {
        tell_state(peer);
    } else if (strcmp(text, "content") == 0) {
        peer_asks(peer);
    } else if (strcmp(text, "changing") == 0) {
        note_leave();
        *peer_known(peer) = content_changing(*peer_known(peer));
    } else if ((rest = after(text, "mark "))) {
        if (!content_mark(peer_known(peer), rest)) refuse(peer, "mark", "the content is not known");
    } else if (strcmp(text, "hold") == 0) {
        if (leaving) {
            refuse(peer, "hold", "the container is ending");
        } else {
            peer_hold(peer);
            answer(peer, "holding ", starts);
        }
    } else if ((rest = after(text, "restart "))) {
        take_stop(peer, "restart", rest);
    } else if ((rest = after(text, "stop "))) {
        take_stop(peer, "stop", rest);
    } else if ((rest = after(text, "signal "))) {
        take_signal(peer, rest);
    } else {
        Line line = {0};
        add(&line, "unknown ");
        add_shown(&line, text, strcspn(text, " "));
        peer_tell(peer, &line);
    }
}

/* --- what the outside asks for --------------------------------------------------------------- */

static void pass_on(const struct signalfd_siginfo *from) {
    int number = (int)from->ssi_signo;
    if (!child) return;
    if (from->ssi_code == SI_QUEUE) {
        sigqueue(child, number, (union sigval){.sival_ptr = (void *)(uintptr_t)from->ssi_ptr});
    } else {
        kill(child, number);
    }
}

/* The kubelet wants the container to end: the command gets all the time that it would have had. */
static void leave(const struct signalfd_siginfo *from) {
    leaving = true;
    start_again = false;
    if (first_start) _exit(BY_SIGNAL + SIGTERM);
    bool has_it = stage == ASKED && from->ssi_signo == SIGTERM;
    if (stage == ASKED || !child) stage = RUNS;
    if (!has_it) pass_on(from);
}

static void take_signals(int signals) {
    struct signalfd_siginfo from[8];
    ssize_t size;
    while ((size = read(signals, from, sizeof from)) > 0) {
        for (size_t i = 0; i < (size_t)size / sizeof from[0]; i++) {
            int number = (int)from[i].ssi_signo;
            if (number == SIGTERM || number == stop_signal) {
                leave(&from[i]);
            } else if (number != SIGCHLD && number != SIGTTIN && number != SIGTTOU) {
                pass_on(&from[i]);
            }
        }
    }
}

/* --- the whole ------------------------------------------------------------------------------- */

/* Signals are only blocked, not handled: those that this process ignores arrive as well then, and
   what the command inherits stays as it was. */
static int take_over_signals(void) {
    uint64_t all = UINT64_MAX;
    set_mask(all, &command.mask);
    /* Ended children would vanish unseen if this were ignored. */
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigaction(SIGCHLD, &plain, &command.on_child_end);
    int flags = SFD_CLOEXEC | SFD_NONBLOCK;
    return out_of_the_way((int)syscall(SYS_signalfd4, -1, &all, sizeof all, flags));
}

static bool read_arguments(char **arguments, const char **socket) {
    uint64_t number;
    while (*arguments && strcmp(*arguments, "--") != 0) {
        const char *value = arguments[1];
        if (!value) return false;
        if (strcmp(*arguments, "--socket") == 0) {
            *socket = value;
        } else if (strcmp(*arguments, "--stop-signal") == 0 &&
                   number_of(value, strlen(value), (uint64_t)SIGRTMAX, &number) && number > 0) {
            stop_signal = (int)number;
        } else if (strcmp(*arguments, "--debug") == 0) {
            debugger = value;
        } else {
            return false;
        }
        arguments += 2;
    }
    if (!*arguments || !arguments[1]) return false;
    command.argv = arguments + 1;
    return !debugger || debug_prepare(debugger, &command.argv);
}

int supervise(char **arguments) {
    const char *socket = NULL;
    if (!read_arguments(arguments, &socket)) {
        static const char text[] = "agent supervise: what is to be run stands after --\n";
        write_all(2, text, sizeof text - 1);
        return BAD_USAGE;
    }
    int signals = take_over_signals();
    /* Nothing can be supervised without descriptors: then the command had better run alone. */
    if (signals < 0) child_become(&command);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    child_prepare();
    peers_listen(socket);
    note_prepare(socket, command.argv);
    if (note_found()) {
        first_start = now_ms() + HEIR_MS;
    } else {
        start();
        if (!child) child_become(&command);
    }
    for (;;) {
        struct pollfd polls[PEER_POLLS + 1];
        peers_poll(polls);
        polls[PEER_POLLS] = (struct pollfd){.fd = signals, .events = POLLIN};
        poll(polls, PEER_POLLS + 1, wait_ms());
        take_signals(signals);
        reap();
        peers_take(polls, tell_state, take_request, tell_content);
        advance();
    }
}
