"""A session of the sample app as it was: its event stream, recorded on the test cluster.

`python -m tests.support.recorded_session` records it again (with the variables of `script/env`);
after that `GOLDEN=write pytest tests/unit/ui/test_ui_recorded.py`, and read the difference. Names
of the machine are replaced by those of an invented one; times, texts and their order stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from devloop import errors, events, model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.session import Devloop

__all__ = ["Scene", "read_scenes"]

_TOP = Path(__file__).parent.parent.parent
_PLACE = _TOP / "tests/unit/ui/recorded"
_ROOT = "/home/ada/guestbook"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What happened until the next scene; `sources` are lines of the project's files then."""

    name: str
    records: tuple[events.Record, ...]
    sources: dict[str, list[str]]


def read_scenes() -> list[Scene]:
    """The whole recorded session."""
    scenes = json.loads((_PLACE / "scenes.json").read_text("utf-8"))
    lines = (_PLACE / "session.ndjson").read_text("utf-8").splitlines()
    records = [read_record(line) for line in lines]
    ends = [scene["seq"] for scene in scenes[1:]] + [len(records) + 1]
    return [
        Scene(
            name=scene["name"],
            records=tuple(records[scene["seq"] - 1 : end - 1]),
            sources=scene["sources"],
        )
        for scene, end in zip(scenes, ends, strict=True)
    ]


def read_record(line: str) -> events.Record:
    """The record that `events.to_json` made a line of; of a log line `ts` is the container's."""
    data = json.loads(line)
    return events.Record(data["seq"], data["ts"], _made(_kinds()[data["type"]], data))


@functools.cache
def _kinds() -> dict[str, type[events.Event]]:
    return {
        kind.type: kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
    }


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls, localns=vars(model) | vars(errors))


def _made(hint: Any, value: Any) -> Any:
    """`value` from JSON as what `hint` says."""
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        kinds = [each for each in get_args(hint) if each is not type(None)]
        return _made(kinds[0], value) if len(kinds) == 1 else value
    if get_origin(hint) is tuple:
        return tuple(_made(get_args(hint)[0], each) for each in value)
    if get_origin(hint) is Literal or not isinstance(hint, type):
        return value
    if dataclasses.is_dataclass(hint):
        hints = _hints(hint)
        # One that was recorded before a key was added has none.
        names = [field.name for field in dataclasses.fields(hint) if field.name in value]
        return hint(**{name: _made(hints[name], value[name]) for name in names})
    return hint(value) if issubclass(hint, enum.Enum) else value


# --- recording ------------------------------------------------------------------------------------


class _Recording:
    """A session on a copy of the sample app, and the scenes that it had so far."""

    def __init__(self, root: Path, namespace: str, port: int) -> None:
        from tests.e2e.session import Devloop  # noqa: PLC0415 - it needs pytest's environment

        self.root = root
        self.namespace = namespace
        self.port = port
        self.scenes: list[dict[str, Any]] = []
        shutil.copytree(_TOP / "sample_app", root)
        (root / "run.txt").write_text(secrets.token_hex(8))
        self.edit("devloop.yaml", "ports: [8080]", f'ports: ["{port}:8080"]')
        image = f"{namespace}/guestbook"
        self.edit("devloop.yaml", "    build:\n", f"    image: {image}\n    build:\n")
        self._environment = {"BASE_IMAGE": os.environ["DEVLOOP_TEST_BASE_IMAGE"]}
        self.session: Devloop = Devloop(
            "dev", "--namespace", namespace, cwd=root, env=self._environment
        )

    def scene(self, name: str) -> None:
        """All that comes from now on belongs to it."""
        if self.scenes:
            self.session.quiet(2.5)
        self.scenes.append({"name": name, "seq": len(self.session.events) + 1, "sources": {}})

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text("utf-8")
        assert old in text, (name, old)
        (self.root / name).write_text(text.replace(old, new), "utf-8")

    def shown(self, *names: str) -> None:
        """The files whose lines the scene may show."""
        for name in names:
            text = (self.root / name).read_text("utf-8")
            self.scenes[-1]["sources"][name] = text.splitlines()

    def command(self, *argv: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "devloop", *argv, "--namespace", self.namespace],
            cwd=self.root,
            env={**os.environ, **self._environment},
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )

    def kubectl(self, *argv: str) -> None:
        subprocess.run(
            ["kubectl", "-n", self.namespace, *argv],
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )

    def visit(self, *paths: str) -> None:
        """Somebody uses the app: its log has lines."""
        for path in paths:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://localhost:{self.port}{path}", timeout=5).close()

    def texts(self) -> tuple[str, str]:
        """The stream and the scenes, as they are kept."""
        registry = os.environ["DEVLOOP_TEST_REGISTRY"]
        lines = "\n".join(json.dumps(event, ensure_ascii=False) for event in self.session.events)
        for old, new in (
            (str(self.root), _ROOT),
            (f"{self.namespace}/guestbook", "guestbook"),
            (self.namespace, "default"),
            (registry, "localhost:5001"),
            (os.environ["DEVLOOP_TEST_CONTEXT"], "kind-dev"),
            (str(self.port), "8080"),
        ):
            lines = lines.replace(old, new)
        lines = re.sub(r'"pid": \d+', '"pid": 4711', lines)
        return lines + "\n", json.dumps(self.scenes, indent=1, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def _recording() -> Iterator[_Recording]:
    namespace = f"recorded-{secrets.token_hex(3)}"
    subprocess.run(["kubectl", "create", "namespace", namespace], check=True, timeout=60)
    try:
        with tempfile.TemporaryDirectory() as place:
            made = _Recording(Path(place) / "guestbook", namespace, 18_000 + secrets.randbelow(900))
            try:
                yield made
            finally:
                made.session.close()
    finally:
        subprocess.run(
            ["kubectl", "delete", "namespace", namespace, "--wait=false"], check=True, timeout=60
        )


def _mended(session: Devloop) -> None:
    session.wait(
        lambda e: e["type"] == "iteration.finished" and e["outcome"] in ("ready", "unchanged"),
        "mended iteration",
        120,
    )


def _act(r: _Recording) -> None:
    s = r.session
    r.scene("first start")
    s.finished("ready", seconds=180)
    time.sleep(1)
    r.visit("/", "/style.css")

    r.scene("edit")
    r.edit("app.py", "there is nothing here", "nobody has written here")
    s.finished("ready")
    r.visit("/", "/nowhere")
    s.quiet(6)  # the image that follows
    r.edit("templates/index.html", "</h1>", " of Ada</h1>")
    r.edit("static/style.css", "body {", "body { color: navy;")
    s.ready_at_last()
    s.quiet(6)

    r.scene("Dockerfile error")
    wrong = "RUN pip install --no-cache-dir flaks==3.0\n"
    r.edit("Dockerfile", "WORKDIR /app\n", f"WORKDIR /app\n{wrong}")
    s.finished("failed", seconds=120)
    r.shown("Dockerfile")

    r.scene("Dockerfile mended")
    r.edit("Dockerfile", wrong, "")
    _mended(s)

    r.scene("crash")
    r.edit("app.py", "server = Server(", "server = Sever(")
    s.finished("failed", seconds=120)
    r.shown("app.py")
    s.quiet(6)

    r.scene("crash mended")
    r.edit("app.py", "server = Sever(", "server = Server(")
    _mended(s)

    r.scene("rollback")
    s.quiet(5)
    r.edit("app.py", "there is no such note", "that note is gone")
    s.ready_at_last()
    s.quiet(5)
    r.command("rollback", "--wait")

    r.scene("pause")
    r.command("pause")
    r.edit("app.py", "that note is gone", "that note was removed")
    s.quiet(2)
    r.command("resume")
    s.ready_at_last()
    r.visit("/")

    r.scene("somebody else's change")
    s.quiet(5)
    r.kubectl("set", "env", "deployment/guestbook", "DEBUG=1")
    s.quiet(5)
    r.edit("app.py", "that note was removed", "there is no such note")
    s.ready_at_last(120)

    r.scene("quit")
    s.quiet(2)
    r.edit("app.py", "there is no such note", "there never was such a note")
    s.started("scan")
    s.interrupt()


def main() -> None:
    with _recording() as made:
        try:
            _act(made)
        finally:
            lines, scenes = made.texts()
            _PLACE.mkdir(parents=True, exist_ok=True)
            (_PLACE / "session.ndjson").write_text(lines, "utf-8")
            (_PLACE / "scenes.json").write_text(scenes, "utf-8")


if __name__ == "__main__":
    main()
