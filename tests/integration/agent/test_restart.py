"""What peers of the supervisor may ask for: holding, stopping, starting again."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.agent import (
    OTHER_PROGRAM,
    Supervised,
    child_of,
    descendants,
    program,
    python,
    restart_often,
)
from tests.support.waiting import runs, until

# An hour: what must end before it ends because of something else.
LONG = 3_600_000


def test_a_peer_is_told_how_things_are() -> None:
    with Supervised("sh", "-c", "read line; exit 3", stdin=subprocess.PIPE) as supervised:
        first = supervised.peer()
        word, started, pid, at, count = first.first.split()
        assert (word, started, count) == ("state", "started", "1")
        assert int(pid) in descendants(supervised.pid)
        assert 0 < int(at) < 2**63
        assert supervised.peer().first == first.first
        assert first.ask("state") == first.first
        assert first.ask("hold") == "holding 1"
        supervised.give(b"\n")
        assert first.hear() == "ended exit 3 itself 1"
        assert supervised.peer().first == "state ended exit 3 itself 1"


def test_who_holds_keeps_the_container_up() -> None:
    with Supervised("sh", "-c", "echo up; read line; exit 3", stdin=subprocess.PIPE) as supervised:
        assert supervised.line() == "up"
        one, other, watching = (supervised.peer() for _ in range(3))
        assert one.ask("hold") == other.ask("hold") == "holding 1"
        os.kill(child_of(one.first), signal.SIGKILL)
        assert one.hear() == "ended signal 9 itself 1"
        one.close()
        assert other.hear() == "ended signal 9 itself 1"
        assert other.ask("state") == "state ended signal 9 itself 1"
        assert supervised.process.poll() is None
        other.close()
        assert supervised.ended() == 137
        assert watching.hear_all() == ["ended signal 9 itself 1"]


def test_a_restart_starts_the_same_command_again(tmp_path: Path) -> None:
    script = 'echo "$$ $PWD $(umask) $ODD $*"; exec sleep 100'
    argv = ["sh", "-c", script, "name", "a b"]
    env = {"PATH": os.environ["PATH"], "ODD": "x"}
    with Supervised(*argv, cwd=tmp_path, env=env) as supervised:
        peer = supervised.peer()
        for count in range(2, 5):
            before = supervised.line().split()
            assert peer.ask(f"restart {LONG}") == f"restarting {count}"
            assert peer.hear() == f"ended signal 15 asked {count - 1}"
            event = peer.hear()
            assert (event.split()[0], event.split()[3]) == ("started", str(count))
            assert child_of(event) != int(before[0])
            assert before[1:] == [str(tmp_path), "0022", "x", "a", "b"]


def test_times_of_starts_grow() -> None:
    with Supervised("sleep", "100") as supervised:
        peer = supervised.peer()
        first = int(peer.first.split()[3])
        peer.ask(f"restart {LONG}")
        peer.hear()
        assert int(peer.hear().split()[2]) > first


def test_a_working_directory_made_anew_is_entered_again(tmp_path: Path) -> None:
    place = tmp_path / "app"
    place.mkdir()
    with Supervised("sh", "-c", "cat file; exec sleep 100", cwd=place) as supervised:
        peer = supervised.peer()
        place.rename(tmp_path / "old")
        place.mkdir()
        (place / "file").write_text("new\n")
        peer.ask(f"restart {LONG}")
        assert supervised.line() == "new"


def test_a_command_that_ignores_the_signal_is_killed_in_time() -> None:
    with Supervised("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done") as supervised:
        assert supervised.line() == "up"
        peer = supervised.peer()
        peer.ask("restart 100")
        assert peer.hear() == "ended signal 9 asked 1"
        assert peer.hear().startswith("started ")
        assert supervised.line() == "up"


def test_the_command_may_end_in_its_own_way() -> None:
    with Supervised("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done") as it:
        assert it.line() == "up"
        peer = it.peer()
        peer.ask(f"stop {LONG}")
        assert peer.hear() == "ended exit 7 asked 1"
        assert it.ended() == 7


def test_a_shell_without_exec_takes_its_server_along() -> None:
    """The server holds a port that the next one needs."""
    server = (
        "import socket, sys\n"
        "s = socket.socket()\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "s.bind(('127.0.0.1', int(sys.argv[1])))\n"
        "s.listen()\n"
        "print('listens', flush=True)\n"
        "s.accept()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = '"$@"; echo ended with $?'
    with Supervised("sh", "-c", script, "sh", *python(server), port) as supervised:
        peer = supervised.peer()
        for _ in range(3):
            assert supervised.line() == "listens"
            peer.ask(f"restart {LONG}")
            assert peer.hear().startswith("ended signal 15 asked")
            assert peer.hear().startswith("started")
        assert supervised.line() == "listens"


@pytest.mark.parametrize("stop_ms", [0, 50, LONG])
def test_what_left_the_group_is_killed_too(stop_ms: int) -> None:
    script = (
        'setsid sh -c \'trap "" TERM; echo $$; (setsid sleep 100 & echo $!); '
        "while :; do sleep 1; done' & exec sleep 100"
    )
    with Supervised("sh", "-c", script) as supervised:
        daemons = [int(supervised.line()) for _ in range(2)]
        peer = supervised.peer()
        peer.ask(f"restart {stop_ms}")
        assert peer.hear().startswith("ended signal")
        second = child_of(peer.hear())
        assert not any(map(runs, daemons))
        again = [int(supervised.line()) for _ in range(2)]
        until(lambda: set(again) | {second} <= set(descendants(supervised.pid)))


def test_the_rest_of_the_group_has_until_the_same_deadline() -> None:
    script = (
        "sh -c 'trap \"echo asked\" TERM; echo up; while :; do sleep 0.01; done' & "
        "sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.01; done' & wait"
    )
    with Supervised("sh", "-c", script) as supervised:
        assert [supervised.line(), supervised.line()] == ["up", "up"]
        peer = supervised.peer()
        peer.ask("hold")
        peer.ask("stop 200")
        assert peer.hear() == "ended signal 15 asked 1"
        assert supervised.line() == "asked"
        assert peer.hear() == "stopped 1"
        assert descendants(supervised.pid) == []


def test_leftovers_of_a_command_that_ended_by_itself_go_before_the_next_start() -> None:
    script = "read line; sleep 100 & echo $!; setsid sleep 100 & echo $!; exit 1"
    with Supervised("sh", "-c", script, stdin=subprocess.PIPE) as supervised:
        peer = supervised.peer()
        peer.ask("hold")
        supervised.give(b"\n")
        left = [int(supervised.line()) for _ in range(2)]
        assert peer.hear() == "ended exit 1 itself 1"
        assert all(map(runs, left))
        peer.ask(f"restart {LONG}")
        until(lambda: peer.hear().startswith("started"))
        assert not any(map(runs, left))


def test_stop_and_start() -> None:
    with Supervised("sleep", "100") as supervised:
        peer = supervised.peer()
        peer.ask("hold")
        assert peer.ask("stop 1000") == "stopping 1"
        assert [peer.hear(), peer.hear()] == ["ended signal 15 asked 1", "stopped 1"]
        assert peer.ask("stop 1000") == "stopping 1"
        assert peer.hear() == "stopped 1"
        assert peer.ask("signal 10") == "refused signal the command does not run"
        assert peer.ask("restart 1000") == "restarting 2"
        assert peer.hear().startswith("started")
        assert peer.ask("signal 9") == "signalled 9"
        assert peer.hear() == "ended signal 9 itself 2"
        peer.close()
        assert supervised.ended() == 137


def test_a_stop_without_a_holder_ends_the_container() -> None:
    with Supervised("sleep", "100") as supervised:
        supervised.peer().ask("stop 1000")
        assert supervised.ended() == 143


def test_restarts_asked_for_during_a_restart_are_one() -> None:
    script = "trap 'echo asked; read line; exit 1' TERM; echo up; while :; do sleep 0.01; done"
    with Supervised("sh", "-c", script, stdin=subprocess.PIPE) as supervised:
        assert supervised.line() == "up"
        one, other = supervised.peer(), supervised.peer()
        assert one.ask(f"restart {LONG}") == "restarting 2"
        assert supervised.line() == "asked"
        assert other.ask(f"restart {LONG}") == "restarting 2"
        assert one.ask(f"stop {LONG}") == "stopping 1"
        assert one.ask(f"restart {LONG}") == "restarting 2"
        supervised.give(b"\n")
        assert other.hear() == "ended exit 1 asked 1"
        assert other.hear().split()[3] == "2"
        assert supervised.line() == "up"
        assert one.ask("signal 9").startswith("ended exit 1")


def test_the_last_asked_for_counts() -> None:
    script = "trap 'echo asked; read line; exit 1' TERM; echo up; while :; do sleep 0.01; done"
    with Supervised("sh", "-c", script, stdin=subprocess.PIPE) as supervised:
        assert supervised.line() == "up"
        peer = supervised.peer()
        peer.ask("hold")
        peer.ask(f"restart {LONG}")
        assert supervised.line() == "asked"
        peer.ask("stop 20")
        assert [peer.hear(), peer.hear()] == ["ended signal 9 asked 1", "stopped 1"]


def test_the_kubelets_signal_ends_all_holding() -> None:
    script = "trap 'echo asked; read line; exit 9' TERM; echo up; while :; do sleep 0.01; done"
    with Supervised("sh", "-c", script, stdin=subprocess.PIPE) as supervised:
        assert supervised.line() == "up"
        peer = supervised.peer()
        peer.ask("hold")
        supervised.process.terminate()
        assert supervised.line() == "asked"
        assert peer.ask("restart 0") == "refused restart the container is ending"
        assert peer.ask("stop 0") == "refused stop the container is ending"
        assert peer.ask("hold") == "refused hold the container is ending"
        supervised.give(b"\n")
        # The container was told to end: nobody is to take that for a crash.
        assert peer.hear() == "ended exit 9 asked 1"
        assert supervised.ended() == 9


def test_the_kubelets_signal_while_a_stop_is_under_way_gives_the_command_its_time() -> None:
    script = "trap 'echo asked; read line; exit 9' TERM; echo up; while :; do sleep 0.01; done"
    with Supervised("sh", "-c", script, stdin=subprocess.PIPE) as supervised:
        assert supervised.line() == "up"
        peer = supervised.peer()
        peer.ask("hold")
        peer.ask("restart 300")
        assert supervised.line() == "asked"
        supervised.process.terminate()
        while not peer.ask("hold").startswith("refused"):
            pass
        with pytest.raises(subprocess.TimeoutExpired):
            supervised.process.wait(0.5)
        supervised.give(b"\n")
        assert supervised.ended() == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_the_kubelets_signal_while_nothing_runs(number: int) -> None:
    with Supervised("sh", "-c", "read x; exit 6", stdin=subprocess.PIPE,
                    options=["--stop-signal", "3"]) as supervised:  # fmt: skip
        peer = supervised.peer()
        peer.ask("hold")
        supervised.give(b"\n")
        assert peer.hear() == "ended exit 6 itself 1"
        supervised.process.send_signal(number)
        assert supervised.ended() == 6


def test_the_images_own_stop_signal_counts_as_the_kubelets() -> None:
    def heed() -> None:
        # A shell starts what runs in its background with this signal ignored, and so the tests.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    options = ["--stop-signal", "3"]
    with Supervised("sleep", "100", options=options, preexec=heed) as supervised:
        peer = supervised.peer()
        peer.ask("hold")
        supervised.process.send_signal(signal.SIGQUIT)
        assert supervised.ended() == 128 + signal.SIGQUIT


def test_a_command_that_cannot_be_started_again_is_held_as_one_that_ended(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho up\nexec sleep 100\n")
    tool.chmod(0o755)
    with Supervised(str(tool)) as supervised:
        assert supervised.line() == "up"
        peer = supervised.peer()
        peer.ask("hold")
        tool.rename(tmp_path / "gone")
        peer.ask("restart 1000")
        assert peer.hear().startswith("ended signal 15 asked 1")
        assert peer.hear().startswith("started")
        assert peer.hear() == "ended exit 127 itself 2"
        (tmp_path / "gone").rename(tool)
        peer.ask("restart 1000")
        assert peer.hear().startswith("started")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("", "unknown "),
        ("dance now", "unknown dance"),
        ("restart", "unknown restart"),
        ("restart ", "refused restart not a number of milliseconds"),
        ("restart -1", "refused restart not a number of milliseconds"),
        ("restart 99999999999999999999", "refused restart not a number of milliseconds"),
        ("stop x", "refused stop not a number of milliseconds"),
        ("signal 0", "refused signal not the number of a signal"),
        ("signal 65", "refused signal not the number of a signal"),
        ("\n\t", "unknown   "),
    ],
)
def test_odd_requests(request_: str, answer: str) -> None:
    with Supervised("sleep", "100") as supervised:
        peer = supervised.peer()
        if request_:
            assert peer.ask(request_) == answer
        assert peer.ask("state") == peer.first


def test_a_message_that_is_too_long_ends_its_peer_alone() -> None:
    with Supervised("sleep", "100") as supervised:
        peer, other = supervised.peer(), supervised.peer()
        assert peer.ask("restart " + "1" * 500) == ""
        assert other.ask("state") == other.first


def test_peers_come_and_go() -> None:
    with Supervised("sleep", "100") as supervised:
        for _ in range(100):
            peer = supervised.peer()
            peer.ask("hold")
            peer.say("state")
            peer.close()
        peers = [supervised.peer() for _ in range(8)]
        with pytest.raises((AssertionError, ConnectionError)):
            assert supervised.peer().first  # one too many is closed at once
        peers[0].close()
        until(lambda: supervised.peer().first == peers[1].first)


def test_a_peer_that_does_not_read_is_dropped() -> None:
    with Supervised("sleep", "100") as supervised:
        deaf, other = supervised.peer(), supervised.peer()
        deaf.say("hold")
        try:
            for _ in range(100_000):
                deaf.say("state")
            pytest.fail("never dropped")
        except OSError:
            pass
        assert other.ask("state") == other.first
        supervised.process.terminate()
        assert supervised.ended() == 143


def test_its_own_namespace_is_where_it_is_found() -> None:
    """Without a name given, two supervisors of one mount namespace meet: only the first listens."""
    inode = Path("/proc/self/ns/mnt").stat().st_ino
    argv = [str(program()), "supervise", "--", "sleep", "100"]
    with subprocess.Popen(argv) as process:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.settimeout(20)

                def connected() -> bool:
                    try:
                        peer.connect(f"\0devloop-agent/{inode}")
                    except ConnectionError:
                        return False
                    return True

                until(connected)
                assert peer.recv(100).startswith(b"state started")
                peer.send(b"stop 0")
                assert process.wait(20) in (128 + signal.SIGKILL, 128 + signal.SIGTERM)
        finally:
            process.kill()


def test_many_restarts_leave_nothing_behind() -> None:
    """`python -m tests.bench.restarts` is for more of them."""
    # Pages come in when they are first used; what is left behind each time would be more.
    _, first, *_, last = (found for _, found in restart_often(120, every=30))
    assert last.descriptors == first.descriptors or os.environ.get(OTHER_PROGRAM)
    assert last.resident <= first.resident + 64 or os.environ.get(OTHER_PROGRAM)
    assert last.zombies == 0
    assert last.resident < 1024 or os.environ.get(OTHER_PROGRAM)


# Leaves the group, as debugpy's adapter does, and says goodbye once the command has gone.
_STAYS = """
import os, signal, sys, time
out, command = os.dup(1), os.getpid()
if os.fork() == 0:
    os.setsid()
    while os.getppid() == command:
        time.sleep(0.001)
    time.sleep(0.02)
    os.write(out, b'goodbye\\n')
    os._exit(0)
os.write(out, b'up\\n')
signal.pause()
"""


def test_a_debugger_has_a_moment_to_say_goodbye() -> None:
    with Supervised(*python(_STAYS), options=("--debug", "node:9229")) as supervised:
        assert supervised.line() == "up"
        peer = supervised.peer()
        # On a busy machine the moment may be over before it has its turn.
        for _ in range(20):
            peer.say(f"restart {LONG}")
            if supervised.line() == "goodbye":
                break
        else:
            pytest.fail("it was killed at once each time")


def test_what_does_not_go_with_its_debugger_is_killed() -> None:
    code = _STAYS.replace("time.sleep(0.02)", "time.sleep(1000)")
    with Supervised(*python(code), options=("--debug", "node:9229")) as supervised:
        peer = supervised.peer()
        for _ in range(2):
            assert supervised.line() == "up"
            peer.ask(f"restart {LONG}")
