"""What the live view is made of: rows of styled text that know how to fit a width. Pure.

Rows are laid out in terminal cells, not characters, so wide text stays in its column. Styles are
names of the theme below and only use the sixteen colours that every user's palette defines.
"""

from __future__ import annotations

import io
import re
import zlib

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.text import Text
from rich.theme import Theme

from devloop.base.lazy_dataclass import dataclass
from devloop.ui.sanitize import coloured, plain

_THEME = Theme(
    {
        "ok": "green",
        "done": "bold green",
        "bad": "bold red",
        "warn": "yellow",
        "soft": "dim",
        "strong": "bold",
        "place": "cyan",
        "busy": "cyan",
        "none": "",
    },
    inherit=False,
)

# Only asked for styles and cell widths; it never writes.
_CONSOLE = Console(
    file=io.StringIO(),
    theme=_THEME,
    width=10_000,
    color_system="standard",
    force_terminal=True,
    legacy_windows=False,
    _environ={},
)

# Where the column at the right ends on a wide terminal: farther off the eye loses the line.
_COLUMN = 76


# What stands apart in a row: a row that is too long is broken there first.
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The symbols; all of one set have the same width in both sets' places."""

    ok: str = "✓"
    bad: str = "✗"
    ready: str = "●"
    idle: str = "○"
    hold: str = "◌"
    off: str = "\N{EN DASH}"
    warn: str = "!"
    arrow: str = "→"
    bar: str = "│"
    dot: str = "·"
    more: str = "…"
    spinner: str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


_ASCII = Glyphs("+", "x", "*", "o", "~", "-", "!", ">", "|", "-", "...", "|/-\\")


def glyphs_for(encoding: str) -> Glyphs:
    """The symbols that can be written in `encoding`."""
    glyphs = Glyphs()
    try:
        "".join(getattr(glyphs, name) for name in Glyphs.__slots__).encode(encoding)
    except (UnicodeError, LookupError):
        return _ASCII
    return glyphs


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the view. `parts` are (text, style) pairs; `right` goes into the column at the
    right; a row that is too long is continued below, indented by `hang`, or cut if it has
    something at the right or is not to `wrap`."""

    parts: tuple[tuple[str, str], ...] = ()
    right: tuple[str, str] = ("", "none")
    hang: int = 0
    wrap: bool = True

    @classmethod
    def of(cls, *parts: str | tuple[str, str], hang: int = 0) -> Row:
        return cls(tuple(p if isinstance(p, tuple) else (p, "none") for p in parts), hang=hang)


def render(row: Row, width: int, glyphs: Glyphs) -> list[Text]:
    """`row` as lines of at most `width` cells."""
    # Details of steps end in an ellipsis, whatever the terminal can show.
    parts = ((_shown(part, glyphs), style) for part, style in row.parts)
    text = Text.assemble(*parts, end="")
    if row.right[0]:
        right = Text(row.right[0], row.right[1], end="")
        column = min(width, _COLUMN)
        room = column - right.cell_len - 2
        if text.cell_len > room:
            # On a wide terminal a long text may push the column; on a narrow one it is cut.
            room = min(text.cell_len, width - right.cell_len - 2)
        if room < 16:  # too narrow for two columns
            return [*render(Row(row.parts, hang=row.hang), width, glyphs), _cut(right, width, "")]
        text = _cut(text, room, glyphs.more)
        text.pad_right(room - text.cell_len + 2)
        return [text.append_text(right)]
    if text.cell_len <= width:
        return [text]
    if not row.wrap:
        return [_cut(text, width, glyphs.more)]
    return _broken(text, width, row.hang if row.hang < width // 2 else 2)


def _broken(text: Text, width: int, hang: int) -> list[Text]:
    """`text` on several lines: broken where it has a gap, if what follows that has room on a line
    of its own, else between words; a word that is too long is cut."""
    lines: list[Text] = []
    room = width
    while text.cell_len > room:
        at = _gap(text.plain, room, width - hang)
        first = text[:at] if at else text.wrap(_CONSOLE, room)[0]
        text = text[len(first.plain) :]
        text = text[len(text.plain) - len(text.plain.lstrip()) :]
        first.rstrip()
        lines.append(first if not lines else Text(" " * hang, end="").append_text(first))
        room = width - hang
    if text or not lines:
        lines.append(text if not lines else Text(" " * hang, end="").append_text(text))
    return lines


def _gap(line: str, room: int, below: int) -> int:
    """Behind the last gap that begins within `room` cells; 0 where there is none, it would leave
    the line all but empty, or what follows it does not fit into `below` cells."""
    found = 0
    for match in _GAP.finditer(line):
        before = cell_len(line[: match.start()])
        if before > room:
            break
        found = match.end() if before * 3 >= room else 0
    piece = line[found:]
    following = _GAP.search(piece)
    piece = piece[: following.start()] if following else piece
    return found if cell_len(piece) <= below else 0


def _shown(part: str, glyphs: Glyphs) -> str:
    return plain(part).replace("…", glyphs.more).expandtabs(4)


def _cut(text: Text, width: int, more: str) -> Text:
    if text.cell_len <= width:
        return text
    text = text.copy()
    text.truncate(max(0, width - len(more)))
    text.append(more)
    return text


def paint(text: Text) -> str:
    """`text` with its colours as a terminal understands them."""
    return "".join(
        segment.style.render(segment.text, color_system=ColorSystem.STANDARD)
        if segment.style
        else segment.text
        for segment in text.render(_CONSOLE)
    )


def plain_text(text: Text) -> str:
    """`text` without colours and without blanks at its end."""
    return text.plain.rstrip()


class LogPrefixes:
    """`web x2x7 │ `: whose line it is.

    A service keeps its colour for good, its pods take turns with two shades of it, so that the
    old and the new pod of a rollout differ at a glance; the suffix tells them apart in black and
    white. Containers are named once a service turns out to have several."""

    # Not red, which means trouble, nor black and white, which are the background's.
    _COLOURS = (6, 5, 2, 4, 3)

    def __init__(self, glyphs: Glyphs, *, color: bool) -> None:
        self._glyphs = glyphs
        self._color = color
        self._services: list[str] = []
        self._pods: dict[str, dict[str, int]] = {}
        self._containers: dict[str, set[str]] = {}
        self._known: dict[tuple[str, str, str], str] = {}
        self._width = 0

    def expect(self, services: tuple[str, ...]) -> None:
        """These will have lines: their names share one column."""
        self._services = list(services)
        self._width = min(16, max((len(name) for name in services), default=0))

    def line(self, service: str, pod: str, container: str, text: str) -> str:
        """The whole line as it goes to the terminal, without a newline."""
        key = (service, pod, container)
        prefix = self._known.get(key)
        if prefix is None:
            containers = self._containers.setdefault(service, set())
            if container and container not in containers:
                containers.add(container)
                if len(containers) == 2:
                    self._known.clear()
            prefix = self._known[key] = self._prefix(service, pod, container)
        return prefix + (coloured(text) if self._color else plain(text))

    def _prefix(self, service: str, pod: str, container: str) -> str:
        name = f"{plain(service):<{self._width}} {plain(pod.rsplit('-', 1)[-1])}"
        if container and len(self._containers[service]) > 1:
            name += f" {plain(container)}"
        bar = self._glyphs.bar
        if not self._color:
            return f"{name} {bar} "
        pods = self._pods.setdefault(service, {})
        bright = pods.setdefault(pod, len(pods)) % 2 == 1
        if service in self._services:
            index = self._services.index(service)
        else:
            index = zlib.crc32(service.encode("utf-8", "replace"))
        colour = self._COLOURS[index % len(self._COLOURS)] + (90 if bright else 30)
        return f"\x1b[{colour}m{name}\x1b[0m \x1b[2m{bar}\x1b[0m "
