"""What a Dockerfile tells of the service that it makes: the context it was written for, and the
port its program listens on.

Where the Dockerfile says no port, the program's own sources are looked at for the plainest ways to
write one. All of this is a guess that is shown with its reason.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.dockerfile import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPort:
    """A port of the program, and why it is thought to be one, in words."""

    number: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfileFacts:
    """`context` is relative to the project's folder, "." for that itself; `takes_all`: the whole
    context is copied into the image."""

    context: str
    ports: tuple[FoundPort, ...] = ()
    takes_all: bool = False


_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::-([^}]*))?\}|([A-Za-z_]\w*))")
_IN_COMMAND = (
    re.compile(r"(?:^|\s)(?:--?(?:[a-z]+[-.])?port|-p)[ =](\d{2,5})\b"),
    re.compile(r"(?:^|\s)(?:--?(?:bind|b|listen|addr|address|http|host))[ =]\S*?:(\d{2,5})\b"),
    re.compile(r"\bhttp\.server\s+(\d{2,5})\b"),
    re.compile(r"\brunserver\s+(?:\S*:)?(\d{2,5})\b"),
    re.compile(r"(?:^|[\s=])(?:[\d.]+|localhost|\[::\]|\*)?:(\d{4,5})\b"),
)
# Programs that listen where nobody told them otherwise.
_BY_TOOL = (
    (re.compile(r"\b(?:uvicorn|gunicorn|hypercorn|daphne|runserver|http\.server)\b"), 8000),
    (re.compile(r"\bflask\b.*\brun\b"), 5000),
    (re.compile(r"\bstreamlit\b"), 8501),
    (re.compile(r"\bnext\b.*\b(?:start|dev)\b|\brails\b"), 3000),
    (re.compile(r"\bvite\b"), 5173),
)
_SUFFIXES = (
    *(".py", ".js", ".mjs", ".cjs", ".ts", ".go", ".rb", ".rs", ".java", ".kt", ".php"),
    *(".conf", ".properties"),
)
_IN_SOURCE = re.compile(
    r"""\.listen\(\s*(\d{2,5})\b
      | (?:ListenAndServe(?:TLS)?|\.Run|\.Start|\.Listen|net\.Listen)
          \(\s*(?:"tcp",\s*)?"[^"\s]*:(\d{2,5})"
      | Addr:\s*"[^"\s]*:(\d{2,5})"
      | Server\(\s*\(\s*["'][^"']*["']\s*,\s*(\d{2,5})\s*\)
      | \bport\s*(?:=>?|:)\s*(\d{4,5})\b
      | :port,\s*(\d{2,5})\b
      | ^[^#\n]*\blisten\s+(?:[\d.]+:|\[::\]:|\*:)?(\d{2,5})\b[^;\n]*;
      | \bPORT["']?\)?\s*(?:\|\||\?\?|,|or)\s*["']?:?(\d{2,5})\b
      | \b(?:const|let|var)\s+port\s*(?::?=)\s*["']?:?(\d{2,5})\b
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# Of what programs connect to: databases, queues, mail.
_OF_OTHERS = frozenset(
    {25, 465, 587, 1433, 1521, 3306, 5432, 5672, 6379, 9042, 9092, 9200, 11211, 27017}
)
_MOST_SOURCES = 200
_LARGEST_SOURCE = 256 * 1024
_MOST_PORTS = 4


def facts(
    root: Path, path: str, *, context: str | None = None, target: str = ""
) -> DockerfileFacts:
    """What `path` (relative to `root`) tells; `context` where it is known. A file that cannot be
    read tells nothing."""
    dockerfile = load(root / path, path)
    context = _context(root, path, dockerfile) if context is None else context
    stages = tuple(_line(dockerfile, target))
    sources = {
        source.removeprefix("./").rstrip("/") or "."
        for stage in dockerfile.needed(target or None)
        for each in stage.instructions
        for source in each.sources
    }
    ports = tuple(_ports(dockerfile, stages, path)) or _of_sources(root, context)
    ports = ports or tuple(_of_base(stages, path))
    return DockerfileFacts(
        context=context, ports=ports[:_MOST_PORTS], takes_all=bool(sources & {".", "*"})
    )


def _line(dockerfile: Dockerfile, target: str) -> Iterator[Stage]:
    """The stage that is built, the one it begins with, and so on."""
    stage = dockerfile.stage(target) if target else None
    stage = stage or (dockerfile.stages[-1] if dockerfile.stages else None)
    while stage is not None:
        yield stage
        base = dockerfile.stage(stage.base)
        stage = base if base is not None and base.index < stage.index else None


def _context(root: Path, path: str, dockerfile: Dockerfile) -> str:
    """The folder, from the Dockerfile's up to the project's, that has most of what is copied."""
    folder = path.rpartition("/")[0]
    above = [folder]
    while above[-1]:
        above.append(above[-1].rpartition("/")[0])
    wanted = {
        source
        for each in dockerfile.instructions
        for source in each.sources
        if not re.search(r"[$*?\[]", source) and source.strip("./")
    }

    def there(where: str) -> int:
        return sum(os.path.lexists(root / where / source.lstrip("/")) for source in wanted)

    best = max(above, key=there)  # the first of equals: the nearest
    return best or "."


def _ports(dockerfile: Dockerfile, stages: tuple[Stage, ...], path: str) -> Iterator[FoundPort]:
    values = _values(dockerfile)
    seen: set[int] = set()
    for stage in stages:
        for each in stage.instructions:
            if each.keyword != "EXPOSE":
                continue
            for word in each.arguments:
                number, _, protocol = _expanded(word, values).partition("/")
                if protocol.lower() in ("", "tcp") and _is_port(number) and int(number) not in seen:
                    seen.add(int(number))
                    yield FoundPort(number=int(number), why=f"{path}:{each.start} EXPOSE")
        if seen:
            return
    if _is_port(values.get("PORT", "")):
        yield FoundPort(number=int(values["PORT"]), why=f"{path}: PORT={values['PORT']}")
        return
    yield from _of_command(stages, values, path)


def _of_command(
    stages: tuple[Stage, ...], values: dict[str, str], path: str
) -> Iterator[FoundPort]:
    command = _command(stages)
    if not command:
        return
    text = _expanded(" ".join(word for each in command for word in each.arguments), values)
    for pattern in _IN_COMMAND:
        if (match := pattern.search(text)) and _is_port(match[1]):
            yield FoundPort(number=int(match[1]), why=f"{path}:{command[-1].start} CMD")
            return
    for tool, number in _BY_TOOL:
        if match := tool.search(text):
            why = f"{path}:{command[-1].start}: the default of {match[0].split()[0]}"
            yield FoundPort(number=number, why=why)
            return


def _of_base(stages: tuple[Stage, ...], path: str) -> Iterator[FoundPort]:
    """Web servers whose own images say where they listen."""
    base = stages[-1].base if stages else ""
    if base.partition("@")[0].partition(":")[0].rpartition("/")[2] in ("nginx", "httpd", "caddy"):
        yield FoundPort(number=80, why=f"{path}: where {base} listens")


def _command(stages: tuple[Stage, ...]) -> list[Instruction]:
    """ENTRYPOINT and CMD that hold."""
    for stage in stages:
        last = {each.keyword: each for each in stage.instructions}
        if found := [last[word] for word in ("ENTRYPOINT", "CMD") if word in last]:
            return found
    return []


def _values(dockerfile: Dockerfile) -> dict[str, str]:
    """What ARG and ENV set, wherever."""
    found: dict[str, str] = {}
    for each in dockerfile.instructions:
        if each.keyword not in ("ARG", "ENV"):
            continue
        try:
            words = shlex.split(each.value)
        except ValueError:
            continue
        if each.keyword == "ENV" and len(words) == 2 and "=" not in words[0]:
            words = [f"{words[0]}={words[1]}"]
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                found[name] = _expanded(value, found)
    return found


def _expanded(text: str, values: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda m: values.get(m[1] or m[3]) or m[2] or "", text)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _of_sources(root: Path, context: str) -> tuple[FoundPort, ...]:
    """The port that the program's sources name, if they all name the same one."""
    found: dict[int, str] = {}
    looked = 0
    for folder, below, names in os.walk(root / context):
        below[:] = [n for n in sorted(below) if n[0] != "." and n not in _ELSEWHERE]
        depth = os.path.relpath(folder, root / context).count("/")
        if depth >= 2:
            below.clear()
        for name in sorted(names):
            if not name.endswith(_SUFFIXES) or re.search(r"(?:_|\.|^)(?:test|spec)[_.]", name):
                continue
            looked += 1
            if looked > _MOST_SOURCES:
                return ()
            for number, line in _in_source(folder, name):
                shown = os.path.normpath(os.path.relpath(Path(folder, name), root))
                found.setdefault(number, f"{shown}:{line}")
    if len(found) != 1:
        return ()
    ((number, where),) = found.items()
    return (FoundPort(number=number, why=where),)


_ELSEWHERE = frozenset({"node_modules", "vendor", "venv", "test", "tests", "dist", "__pycache__"})


def _in_source(folder: str, name: str) -> Iterator[tuple[int, int]]:
    try:
        with Path(folder, name).open("rb") as file:
            text = file.read(_LARGEST_SOURCE).decode("utf-8", "replace")
    except OSError:
        return
    for match in _IN_SOURCE.finditer(text):
        number = next((each for each in match.groups() if each), "")
        if _is_port(number) and int(number) not in _OF_OTHERS:
            yield int(number), text.count("\n", 0, match.start()) + 1
