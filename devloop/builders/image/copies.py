"""What a COPY, or an ADD of local files, puts where in the image's file system.

Pure: from a Dockerfile and a `Snapshot` to paths, types, modes, owners. Reads no file and knows no
layer format. The rules are BuildKit's (dockerfile2llb and fsutil's copy).

What lies below is not known here. A destination that leads through a symlink of the image, or that
is a directory there without a slash at its end here, is the callers' to find.
"""

from __future__ import annotations

import re
from dataclasses import field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.copy_sources import Filter, Sources, clean, is_pattern
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import Scope, stages_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devloop.builders.dockerfile import Dockerfile, Instruction
    from devloop.model import ContextEntry, Snapshot


_WHITEOUT = ".wh."
_FLAGS = {
    "COPY": frozenset({"chown", "chmod", "link", "parents", "exclude", "from"}),
    "ADD": frozenset({"chown", "chmod", "link", "exclude"}),
}
_REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:)", re.IGNORECASE)
_OCTAL = re.compile(r"[0-7]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """What the image below a stage's first instruction says. `workdir` is absolute."""

    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    workdir: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One COPY or ADD with every variable replaced. `sources` are relative to the context and may
    be patterns; `dest` is absolute and clean; `directory` says that it has to be a directory (it
    ended in a slash) or is known to be one. `chown` is `user[:group]` as written, None without the
    flag; `chmod` is octal. `link` is left out where BuildKit passes over it.

    `unclear` says that builders differ in whether they take `dest` for a directory."""

    instruction: Instruction
    sources: tuple[str, ...]
    dest: str
    directory: bool
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unclear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One path in the image, relative to / and without a leading slash. `source` is the path in the
    context that its bytes come from, "" for what has none; `origin` is the path there of what is
    copied as it is, a directory or a symlink too. `implied` marks a directory that is only made,
    with this mode and owner, where it does not exist yet.

    `unsure` marks a directory whose mode or owner is another in some cases: an implied one where it
    is made, by some releases of BuildKit; one that is not implied where it is there already."""

    path: str
    type: Literal["file", "dir", "symlink"]
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    digest: str = ""
    link: str = ""
    source: str = ""
    implied: bool = False
    unsure: bool = False
    origin: str = field(default="", compare=False)


def stage_copies(
    dockerfile: Dockerfile, target: str | None, args: Mapping[str, str], base: StageState | None
) -> tuple[Copy, ...]:
    """The local COPY and ADD instructions of the target's stage, in order, variables replaced.

    Where the stage starts from another one of the file, that one's come first. `base` is the state
    of the image that the first of them starts from, None when it is not known. Raises
    `NeedsFullBuild` for what cannot be worked out (a relative WORKDIR on an unknown base, a remote
    ADD source, a heredoc beside files, a flag not known here)."""
    stages = stages_of(dockerfile, target, args)
    scope = Scope(dockerfile, args)
    if base is not None:
        scope.start(base.env, base.workdir)
    elif stages[0].base == "scratch":
        scope.start({}, "/")
    found = []
    for stage in stages:
        scope.enter_stage()
        for instruction in stage.instructions[1:]:
            if instruction.keyword not in ("COPY", "ADD"):
                scope.replay(instruction)
            elif not instruction.flag("from") and (
                # What stands in the Dockerfile itself is as fixed as what another stage has.
                instruction.sources or not instruction.heredocs
            ):
                found.append(understood(instruction, scope))
    return tuple(found)


def understood(instruction: Instruction, scope: Scope) -> Copy:
    """A COPY or ADD without --from, with the variables and the WORKDIR of `scope`. Raises
    `NeedsFullBuild`."""
    where = f"line {instruction.start}: {instruction.keyword}"
    if instruction.heredocs:
        raise NeedsFullBuild(f"{where} of a heredoc")
    flags = _flags(instruction, where)
    words = words_of(instruction)
    if len(words) < 2:
        raise NeedsFullBuild(f"{where} has no destination")
    *sources, dest = (scope.expand(word) for word in words)
    for source in sources:
        if not source or "\\" in source:
            raise NeedsFullBuild(f"{where} has a source that is not understood")
        if _REMOTE.match(source):
            raise NeedsFullBuild(f"{where} {source} is not in the context")
    if "\\" in dest:
        raise NeedsFullBuild(f"{where} has a destination that is not understood")
    chmod = flags.get("chmod", [None])[0]
    if chmod is not None and (not _OCTAL.fullmatch(chmod) or int(chmod, 8) > 0o7777):
        # Some releases ignore what others understand, and only some replace variables.
        raise NeedsFullBuild(f"{where} --chmod={chmod}")
    link = _switch(flags, "link", where) and chmod is None
    chown = scope.expand(flags["chown"][0]) if "chown" in flags else None
    full = scope.path(dest)
    slash = dest.endswith("/") or dest in ("", ".") or full == "/"
    known = full in scope.directories
    if not all(map(is_pattern, sources)):
        # Where nothing matches, nothing is made.
        whole = slash or any(not clean(source) for source in sources)
        scope.note_directory(full if whole else full.rpartition("/")[0])
    return Copy(
        instruction=instruction,
        sources=tuple(sources),
        dest=full,
        directory=slash or (known and not link),
        chown=chown or None,
        chmod=chmod,
        link=link,
        parents=_switch(flags, "parents", where),
        exclude=tuple(flags.get("exclude", ())),
        unclear=not slash and (dest.endswith("/.") or (known and link)),
    )


def _flags(instruction: Instruction, where: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in instruction.flags:
        if name not in _FLAGS[instruction.keyword] or "\\" in value:
            raise NeedsFullBuild(f"{where} --{name}")
        if name == "exclude" and "$" in value:
            raise NeedsFullBuild(f"{where} --exclude={value}")
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        if len(values) > 1 and name != "exclude":
            raise NeedsFullBuild(f"{where} has --{name} twice")
        if name not in ("link", "parents") and not all(values):
            raise NeedsFullBuild(f"{where} --{name} has no value")
    return found


def _switch(flags: Mapping[str, list[str]], name: str, where: str) -> bool:
    if name not in flags:
        return False
    value = flags[name][0].lower()
    if value not in ("", "true", "false"):
        raise NeedsFullBuild(f"{where} --{name}={value}")
    return value != "false"


def place(
    copy: Copy,
    snapshot: Snapshot,
    owner: tuple[int, int],
    head: Callable[[str], bytes] | None = None,
) -> Mapping[str, FileEntry]:
    """What `copy` puts into the image, by path, directories before what is in them.

    `owner` is the uid and gid that `copy.chown` stands for (0, 0 without it). `head` gives the
    first 512 bytes of a file in the context, for an ADD, which unpacks archives; without it names
    have to do. Raises `NeedsFullBuild` for what BuildKit refuses, for an archive, and for a name
    that means a deletion in a layer."""
    placing = _Placing(copy, Sources(snapshot), owner, head)
    for source in copy.sources:
        placing.add(source)
    for path in placing.tree:
        # OCI's layer.md, "Whiteouts". Builders differ in what they make of such a file.
        if _WHITEOUT in path and path.rpartition("/")[2].startswith(_WHITEOUT):
            raise NeedsFullBuild(f"/{path} would delete something")
    return placing.tree


class _Placing:
    """One COPY going on. `tree` has what it has placed so far."""

    def __init__(
        self,
        copy: Copy,
        sources: Sources,
        owner: tuple[int, int],
        head: Callable[[str], bytes] | None,
    ) -> None:
        self.tree: dict[str, FileEntry] = {}
        self._copy = copy
        self._sources = sources
        self._entry = partial(FileEntry, uid=owner[0], gid=owner[1])
        self._head = head
        self._dest = copy.dest.strip("/")
        self._mode = None if copy.chmod is None else int(copy.chmod, 8)
        # Newer releases of BuildKit give --chmod to the directories on the way as well.
        self._unsure = self._mode is not None and self._mode & 0o777 != 0o755

    def add(self, source: str) -> None:
        if self._copy.parents:
            pivot, separator, pattern = source.partition("/./")
            if not separator:
                pivot, pattern = "", source
            if not clean(pattern):
                raise NeedsFullBuild(f"--parents {source} takes nothing")
            if not is_pattern(source) and self._sources.find(clean(source)) is None:
                raise NeedsFullBuild(f"{source} is not in the context")
            before = len(self.tree)
            self._take(clean(pivot), Filter([clean(pattern)]), chosen=True)
            # Directories on the way alone are nothing.
            if all(entry.implied for entry in list(self.tree.values())[before:]):
                raise NeedsFullBuild(f"--parents {source} takes nothing")
            return
        chosen = is_pattern(source) or bool(self._copy.exclude)
        paths = self._sources.matches(source)
        links: list[str] = []
        for path in paths:
            links += [path, *self._take(path, None, chosen=chosen)]
        if is_pattern(source):
            self._check_sent(links, paths)

    def _check_sent(self, links: Iterable[str], paths: Iterable[str]) -> None:
        """A builder is sent what the patterns name, and looks at what symlinks in it lead to."""
        named = [path for path in paths if path]
        for link in links:
            real = self._sources.real(link)
            if real != link and not any(real == n or real.startswith(f"{n}/") for n in named):
                raise NeedsFullBuild(f"{link} leads to what no pattern may name")

    def _take(self, path: str, include: Filter | None, *, chosen: bool) -> list[str]:
        """Place one path; the symlinks in it that were. `chosen` says that a pattern had a say;
        then some releases insist on what all symlinks lead to."""
        real = self._sources.real(path)
        entry = self._sources.find(real)
        if entry is None:
            raise NeedsFullBuild(f"{path} is not in the context")
        dest = self._dest
        self._make_directories(dest if self._copy.directory else dest.rpartition("/")[0])
        if entry.type == "dir":
            self._make_directories(dest)
            taken = self._take_directory(real, dest, include)
            for link in taken if chosen else ():
                if self._sources.find(self._sources.real(link)) is None:
                    raise NeedsFullBuild(f"{link} leads nowhere")
            return taken
        if include is not None:
            raise NeedsFullBuild(f"--parents {path} is not a directory")
        if self._copy.unclear and dest not in self.tree:
            raise NeedsFullBuild(f"builders differ in what {self._copy.dest} is")
        if self._copy.instruction.keyword == "ADD" and entry.type == "file" and entry.size:
            data = None if self._head is None else self._head(real)
            if may_be_archive(real, data):
                raise NeedsFullBuild(f"ADD {real}, which may be an archive")
        there = self.tree.get(dest)
        into = not dest or (there is not None and there.type == "dir")
        name = path.rpartition("/")[2]
        self._put(f"{dest}/{name}".lstrip("/") if into else dest, entry, real)
        return []

    def _take_directory(self, real: str, dest: str, include: Filter | None) -> list[str]:
        """Place what is in a directory; the symlinks that it took."""
        links = []
        exclude = Filter(self._copy.exclude)
        inside = f"{dest}/" if dest else ""
        directory = f"{real}/" if real else ""
        # A directory that is not selected comes with what is selected below it.
        waiting: dict[str, ContextEntry] = {}
        for name, entry in self._sources.below(real):
            selected = include is None or include.selects(name)
            if (exclude and exclude.selects(name)) or not selected:
                if entry.type == "dir":
                    waiting[name] = entry
                continue
            above = name
            late = []
            while waiting and (above := above.rpartition("/")[0]) in waiting:
                late.append(above)
            for above in reversed(late):
                self._put(inside + above, waiting.pop(above), directory + above, unsure=True)
            self._put(inside + name, entry, directory + name)
            if entry.type == "symlink":
                links.append(directory + name)
        return links

    def _make_directories(self, path: str) -> None:
        """As `mkdir -p` does."""
        missing = []
        while path and path not in self.tree:
            missing.append(path)
            path = path.rpartition("/")[0]
        if path and self.tree[path].type != "dir":
            raise NeedsFullBuild(f"/{path} is no directory and has something in it")
        for path in reversed(missing):
            self.tree[path] = self._entry(
                path=path, type="dir", mode=0o755, implied=True, unsure=self._unsure
            )

    def _put(self, path: str, entry: ContextEntry, source: str, *, unsure: bool = False) -> None:
        there = self.tree.get(path)
        if there is not None and (there.type == "dir") != (entry.type == "dir"):
            raise NeedsFullBuild(f"/{path} is to be a {there.type} and a {entry.type}")
        mode = entry.mode if self._mode is None else self._mode
        self.tree[path] = self._entry(
            path=path,
            type=entry.type,
            mode=0o777 if entry.type == "symlink" else mode,
            size=entry.size if entry.type == "file" else 0,
            digest=entry.digest,
            link=entry.link,
            source=source if entry.type == "file" else "",
            origin=source,
            unsure=unsure,
        )


_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_TEXT = frozenset(
    (
        *("c", "cfg", "conf", "cpp", "cs", "css", "csv", "env", "ex", "exs", "go", "gradle"),
        *("h", "hpp", "htm", "html", "ini", "java", "js", "json", "jsx", "kt", "less", "lock"),
        *("lua", "md", "mjs", "mod", "php", "pl", "properties", "proto", "py", "rb", "rs"),
        *("rst", "scala", "scss", "sh", "sql", "sum", "swift", "toml", "ts", "tsx", "txt"),
        *("vue", "xml", "yaml", "yml"),
    )
)


def may_be_archive(path: str, head: bytes | None) -> bool:
    """Whether BuildKit's ADD might unpack a file. `head` are its first 512 bytes; by its name
    alone, everything but text might be one.

    Source: isArchivePath in BuildKit's solver/llbsolver/file/unpack.go."""
    if head is None:
        return path.rpartition("/")[2].rpartition(".")[2].lower() not in _TEXT
    if head.startswith(_PACKED) or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", head):
        return True
    if len(head) < 512:
        return False
    total = sum(head[:148]) + 8 * 32 + sum(head[156:512])
    signed = total - 256 * sum(1 for byte in head[:148] + head[156:512] if byte > 127)
    digits = head[148:156].strip(b" \0").partition(b"\0")[0]
    return bool(re.fullmatch(rb"[0-7]+", digits)) and int(digits, 8) in (total, signed)


def merge(layers: Iterable[Mapping[str, FileEntry]]) -> dict[str, tuple[int, FileEntry]]:
    """What is there in the end, when what each COPY places lies over what those before it placed:
    the COPY's number and the entry. A directory that is only implied leaves one that is there as it
    is; any other takes its place, what is in it stays. Raises `NeedsFullBuild` when two disagree
    about what is a directory, and for what may be written through a symlink that an earlier one
    placed."""
    found: dict[str, tuple[int, FileEntry]] = {}
    for number, layer in enumerate(layers):
        for path, entry in layer.items():
            if path in found:
                there = found[path][1]
                if (there.type == "dir") != (entry.type == "dir"):
                    raise NeedsFullBuild(f"two COPYs disagree about what /{path} is")
                if there.type == "symlink" and entry.type != "symlink":
                    raise NeedsFullBuild(f"/{path} is a symlink already")
                if entry.implied:
                    continue
            found[path] = (number, entry)
    return found
