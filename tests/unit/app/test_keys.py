"""What the keys of the live view do, and what becomes of the terminal they are typed on."""

from __future__ import annotations

import json
import os
import pty
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from devloop.app.browser import has_browser
from devloop.app.control import SessionControl
from devloop.app.keys import SessionKeys
from devloop.engine.back import nothing_to_go_back_to
from devloop.engine.bus import EventBus
from devloop.engine.facts import Asked, AskedBack, Continued, Paused
from devloop.engine.state import GoodImage
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.events import LogLine, PageOpened, Record, SessionPaused, SessionStarted
from devloop.model import Fingerprint, ImageRef
from devloop.ui.keys import KeyReader
from devloop.ui.terminal import TerminalSink
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator


STARTED = SessionStarted(
    version="1",
    mode="dev",
    project="shop",
    root="/project",
    context="kind-dev",
    namespace="dev",
    registry="localhost:5001",
    services=("api", "web"),
    pid=1,
)


class Engine:
    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.services = {"api": None, "web": None}
        self.good: list[GoodImage] = []

    def post(self, fact: Any) -> None:
        self.posted.append(fact)

    def way_back(self, service: str) -> tuple[str, GoodImage]:
        if not self.good:
            raise nothing_to_go_back_to(service or "web")
        return service or "web", self.good[0]


class View:
    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, text: str) -> None:
        self.noted.append(text)

    def next_logs(self) -> str:
        return "other logs"


class Session:
    def __init__(self, directory: Path) -> None:
        self.bus, self.engine, self.view = EventBus(), Engine(), View()
        self.control = SessionControl(directory, ("web",), publish=self.bus.publish)
        self.stopped: list[tuple[ExitStatus, str]] = []
        self.browsed: list[str] = []
        self.has_browser = True
        self.keys = SessionKeys(
            self.control,
            self.view,
            lambda status, why: self.stopped.append((status, why)),
            self.browse,
        )
        self.bus.subscribe("control", lambda record: self.control.take([record]))
        self.bus.publish(STARTED)

    def browse(self, url: str) -> bool:
        self.browsed.append(url)
        return self.has_browser

    def close(self) -> None:
        self.bus.close()
        self.control.close(1.0)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path)
    yield made
    made.close()


def test_the_keys_do_what_the_help_says(session: Session) -> None:
    session.keys.pressed("r")
    assert session.view.noted == ["the session has not begun to work yet"]
    session.control.steer(session.engine)  # type: ignore[arg-type]
    for key in "rx\x1b":
        session.keys.pressed(key)
    assert [fact.service for fact in session.engine.posted] == ["api", "web"]
    assert all(isinstance(fact, Asked) for fact in session.engine.posted)
    session.keys.pressed("l")
    session.keys.pressed("?")
    assert session.view.noted[1] == "other logs"
    keys = [line.split()[0] for line in session.view.noted[2:]]
    assert keys == ["r", "b", "p", "l", "o", "?", "q"]
    session.keys.pressed("q")
    assert session.stopped == [(ExitStatus.DONE, "q was pressed")]


def test_p_pauses_and_goes_on(session: Session) -> None:
    session.control.steer(session.engine)  # type: ignore[arg-type]
    session.keys.pressed("p")
    (paused,) = session.engine.posted
    assert isinstance(paused, Paused)
    session.bus.publish(SessionPaused(reason=paused.reason))
    until(lambda: session.control._paused)
    session.keys.pressed("r")
    assert session.engine.posted == [paused]
    assert "paused" in session.view.noted[-1]
    session.keys.pressed("p")
    assert session.engine.posted[-1] == Continued()


def test_o_opens_the_page_and_says_where_it_is_without_a_browser(session: Session) -> None:
    opened: list[Any] = []
    session.bus.subscribe("page", lambda record: opened.append(record.event))
    session.keys.pressed("o")
    assert session.view.noted == []
    session.has_browser = False
    session.keys.pressed("o")
    url = session.control.open_page()
    assert session.view.noted == [f"  {url}"]
    # What a command line has is good for one browser, and another each time.
    assert len(set(session.browsed)) == 2
    assert all("/#once-" in each for each in session.browsed)
    assert not [each for each in session.browsed if url.partition("#")[2] in each]
    until(lambda: opened)
    assert opened == [PageOpened(url=url)]


def test_the_page_steers_the_session_and_ends_with_it(session: Session) -> None:
    url, _, token = session.control.open_page().partition("/#")

    def ask(**request: Any) -> Any:
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        sent = Request(f"{url}/ask", json.dumps({"v": 1, **request}).encode(), fields)
        with urlopen(sent, timeout=10) as answer:
            return json.load(answer)

    assert ask(op="trigger")["error"]["code"] == "env/session-starting"
    session.control.steer(session.engine)  # type: ignore[arg-type]
    assert ask(op="trigger", service="web")["services"] == ["web"]
    assert ask(op="trigger", service="wep")["error"]["suggestions"] == ["did you mean web?"]
    assert ask(op="pause")["ok"]
    assert ask(op="resume")["ok"]
    assert ask(op="nothing")["error"]["code"] == "usage/arguments"
    asked, paused, resumed = session.engine.posted
    assert asked.service == "web"
    assert "on the page" in paused.reason
    assert resumed == Continued()
    session.close()
    with pytest.raises(URLError):
        ask(op="status")
    with pytest.raises(DevloopError):
        session.control.open_page()


def test_a_port_that_is_taken_is_a_warning_with_the_way_out(session: Session) -> None:
    port = int(session.control.open_page().partition("/#")[0].rpartition(":")[2])
    other = SessionControl(Path("/nowhere"), ("web",))
    with pytest.raises(DevloopError) as caught:
        other.open_page(port)
    assert caught.value.code == Code.ENV_PORT_BUSY
    assert caught.value.diagnosis.severity == "warning"
    other.close(0.0)


@pytest.mark.parametrize(
    ("platform", "env", "has"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"DISPLAY": "", "BROWSER": "firefox"}, True),
        ("darwin", {}, True),
    ],
)
def test_no_browser_is_opened_in_the_terminal(
    platform: str, env: dict[str, str], has: bool
) -> None:
    assert has_browser(env, platform) is has


def test_b_goes_back_where_there_is_something_to_go_back_to(session: Session) -> None:
    session.control.steer(session.engine)  # type: ignore[arg-type]
    session.keys.pressed("b")
    assert session.view.noted == ["web has no image to go back to"]
    image = ImageRef(repository="r/web", tag="a")
    session.engine.good.append(GoodImage(image=image, fingerprint=Fingerprint("a", "m")))
    session.keys.pressed("b")
    (asked,) = session.engine.posted
    assert isinstance(asked, AskedBack)
    assert asked.service == "web"


def test_a_session_without_a_socket_has_keys_still(tmp_path: Path) -> None:
    session = Session(tmp_path / "gone")
    assert session.control.problem is not None
    session.control.steer(session.engine)  # type: ignore[arg-type]
    session.keys.pressed("p")
    assert len(session.engine.posted) == 1
    session.close()


class Terminal:
    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.stream = os.fdopen(os.dup(self.slave), "r")
        self.before = termios.tcgetattr(self.slave)

    @property
    def linewise(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO))

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_each_key_arrives_at_once_and_the_terminal_is_as_it_was_afterwards(
    terminal: Terminal,
) -> None:
    keys: list[str] = []
    reader = KeyReader(terminal.stream, keys.append, in_foreground=lambda _: True)
    until(lambda: not terminal.linewise)
    os.write(terminal.master, b"rp")
    until(lambda: keys == ["r", "p"])
    # As a shell may leave it that stopped the job and brought it back.
    termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)
    until(lambda: not terminal.linewise)
    reader.close()
    assert termios.tcgetattr(terminal.slave) == terminal.before
    reader.close()


def test_in_the_background_nothing_is_set_or_read(terminal: Terminal) -> None:
    keys: list[str] = []
    foreground = False
    reader = KeyReader(terminal.stream, keys.append, in_foreground=lambda _: foreground)
    os.write(terminal.master, b"r\n")
    assert terminal.linewise
    assert keys == []
    foreground = True
    until(lambda: not terminal.linewise)
    reader.close()


def test_no_terminal_is_an_error_and_one_that_goes_away_is_none(terminal: Terminal) -> None:
    with pytest.raises(OSError), open(os.devnull) as nothing:  # noqa: PTH123, PT011
        KeyReader(nothing, print)
    reader = KeyReader(terminal.stream, print, in_foreground=lambda _: True)
    until(lambda: not terminal.linewise)
    os.close(terminal.master)
    until(lambda: not reader._thread.is_alive())
    reader.close()
    terminal.master = os.dup(terminal.slave)


def test_logs_of_one_service_after_the_other_of_none_and_of_all(terminal: Terminal) -> None:
    with os.fdopen(os.dup(terminal.slave), "w") as stream:
        sink = TerminalSink(stream, color=False, animated=True, env={"TERM": "xterm"})
        seq = iter(range(1, 100))

        def shown(mark: str) -> str:
            for service in ("api", "web"):
                line = LogLine(service=service, pod="p-1", container="c", text=f"{mark}.")
                sink(Record(next(seq), "2026-11-30T14:00:00.000Z", line))
            sink.note(f"{mark} is over")
            text = ""
            while f"{mark} is over" not in text:
                text += os.read(terminal.master, 10_000).decode()
            return "".join(s for s in ("api", "web") if f"{s} " in text and f"{mark}." in text)

        sink(Record(next(seq), "2026-11-30T14:00:00.000Z", STARTED))
        assert shown("one").endswith("apiweb")
        assert sink.next_logs() == "logs of api are shown"
        assert shown("two") == "api"
        assert sink.next_logs() == "logs of web are shown"
        assert shown("three") == "web"
        assert sink.next_logs() == "no logs are shown"
        assert shown("four") == ""
        assert sink.next_logs() == "logs of all services are shown"
        assert shown("five") == "apiweb"
        sink.close()
