"""One service's inputs as one fingerprint: the context, the Dockerfile, secrets and manifests.

The engine compares fingerprints and nothing else, so all that shapes the image or the deploy has to
be in here, and nothing that does not: a `touch`, an editor's backup or a longer timeout must not
build anything. Reads only; what cannot be read is an error with a place, never a silent gap.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from devloop.base.cancel import Cancel
from devloop.base.editor_files import is_temporary
from devloop.base.file_content import FileCache
from devloop.base.patterns import FilePatterns, existing_directory, link_targets
from devloop.base.read_patterns import may_match
from devloop.config.resolve import secret_fields
from devloop.errors import Code, DevloopError, Location, unreadable
from devloop.model import Fingerprint, RenderingInputs, Scan
from devloop.watch.context_rules import ReadsAnything, RulesInForce
from devloop.watch.context_tree import ContextTree
from devloop.watch.rules import NarrowRules
from devloop.watch.scan_progress import LASTING, large_context

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import Snapshot
    from devloop.watch.context_rules import BuildReads
    from devloop.watch.scan import TreeScanner


# Part of every fingerprint: raised when what it covers changes, so that old ones never match.
_VERSION = 1
# Of `build`, what shapes an image where it is given.
_OPTIONS = ("network", "add_host", "shm_size", "labels", "platforms")


class _Seen(NamedTuple):
    """What a scan found: in the context, in the named ones by name, outside of them the digests by
    path, and the base images that moved."""

    snapshot: Snapshot
    named: Mapping[str, Snapshot]
    outside: dict[str, str | None]
    moved: Mapping[str, str]


class ServiceSource:
    """The engine's `Source` for one service. `concerns`, `directories` and `roots` never wait for a
    scan in another thread (the watcher calls them)."""

    def __init__(
        self,
        service: Service,
        project_root: Path,
        rendering: Rendering | None = None,
        *,
        check: Callable[[Cancel], None] = lambda _: None,
        needed: Callable[[str], bool] = lambda _: True,
        bases: Callable[[Cancel], Mapping[str, str]] = lambda _: {},
        uses: Callable[[], Collection[str]] = tuple,
        reads: BuildReads | None = None,
        reads_of: Callable[[str], BuildReads] = lambda _: ReadsAnything(),
        progress: Callable[[str], None] = lambda _: None,
        warn: Callable[[Diagnosis], None] = lambda _: None,
    ) -> None:
        """`check` raises for manifests that cannot be deployed; it is asked once for each content.
        `needed` says whether a build may read a path of the context, and is asked of those that may
        not be read here. `bases` are the base images that moved under their names: name -> digest.
        `uses` are the services whose images the build uses. `reads` knows what the build reads;
        without it, that is everything; `reads_of` the same of a named context. `progress` gets what
        a look that lasts is at, `warn` what makes it last, once."""
        build = service.build
        self._service = service
        self._project = os.fspath(project_root)
        self._context = os.fspath(build.context)
        self._dockerfile = os.fspath(build.dockerfile)
        self._ignore = RulesInForce(
            self._context,
            (f"{self._dockerfile}.dockerignore", os.path.join(self._context, ".dockerignore")),  # noqa: PTH118
            build.ignore,
            self._project,
            reads or ReadsAnything(),
        )
        self._tree = ContextTree(build.context, self._ignore, needed=needed, progress=progress)
        self._named = {
            name: named_tree(path, self._project, reads_of(name), progress)
            for name, path in build.directories.items()
        }
        secrets = [secret_fields(s) for s in build.secrets]
        self._secrets = tuple(s.get("src") or s.get("source") for s in secrets)
        self._secret_ids = [s.get("id", "") for s in secrets]
        self._rendering = rendering
        self._check = check
        self._bases = bases
        self._uses = uses
        # The images of those services, by service, "" for none.
        self._needs: Mapping[str, str] = {}
        self._warn = warn
        self._warned = False
        self._moved: Mapping[str, str] = {}
        self._checked = ""
        layouts = filter(None, map(_layout_index, build.contexts.values()))
        self._layouts = tuple(os.path.normpath(project_root / each) for each in layouts)
        singles = [self._dockerfile, *self._ignore.candidates, *filter(None, self._secrets)]
        singles += [*self._layouts, *(t.in_force.candidates[0] for t in self._named.values())]
        self._singles = tuple(dict.fromkeys(singles))
        self._inputs: RenderingInputs | None = None
        # Where those of the files outside of the context lead that are symlinks.
        self._targets: frozenset[str] = frozenset()
        self._read_inputs()
        self._follow_links()
        self._prefix = f"{os.path.relpath(self._context, self._project)}/".removeprefix("./")
        self._files = FileCache()
        self._manifests: list[str] | None = None
        # Digests of what is outside of the context.
        self._outside: dict[str, str | None] = {}
        # Whether the last look saw all it was asked to; what it missed is made up for.
        self._complete = False
        # What the last scan returned, and whether the last look was that scan: if not, the
        # scanner's changes are not those since then.
        self._last: _Seen | None = None
        # What the last look found in the named contexts.
        self._found: Mapping[str, Snapshot] = {}
        self._in_step = False
        self._lock = threading.Lock()

    def scan(
        self,
        hints: frozenset[Path] | None,
        cancel: Cancel,
        passing: frozenset[str] = frozenset(),
        needs: Mapping[str, str] = MappingProxyType({}),
    ) -> Scan:
        """Look at the disk; see engine.ports.Source.

        Raises `config/dockerfile-missing`, `config/context-missing`, `config/value` (a bad ignore
        pattern), `env/file-unreadable`, what `check` raises, and `Cancelled`; the scan after one
        that could not see everything looks at everything."""
        started = time.perf_counter()
        with self._lock:
            in_step, self._in_step = self._in_step, False
            before = self._looks
            found = self._look(hints, cancel, passing, needs)
            in_step = in_step and self._looks == before + 1
            if self._checked != found.fingerprint.deploy:
                self._check(cancel)
                self._checked = found.fingerprint.deploy
            changed = self._changes(found.snapshot, in_step=in_step)
            self._last = _Seen(found.snapshot, self._found, self._outside, self._moved)
            self._in_step = True
        took = time.perf_counter() - started
        if took > LASTING and not self._warned:
            self._warned = True
            self._warn(large_context(found.snapshot, took, self._service.name))
        return replace(found, changed=changed, ms=took * 1000)

    def last_snapshot(self) -> Snapshot | None:
        """That of the last scan, None before the first. Never waits for one that goes on."""
        last = self._last
        return last.snapshot if last is not None else None

    def written_since(self, scan: Scan) -> frozenset[str] | None:
        """The paths of the context that were written to since `scan`, be it with the same bytes;
        None when something else may have been, or when nobody knows.

        For builders that read the files themselves and later. What is found here is not lost for
        the next scan's `changed`. Safe to call while another thread scans."""
        try:
            with self._lock:
                in_step, self._in_step = self._in_step, False
                before = self._looks
                now = self._look(None, Cancel(), needs=scan.needs)
                changed = self._looks > before + 1 or (self._scanner and self._scanner.changes)
                self._in_step = in_step and not changed
        except DevloopError:
            return None
        if now.recipe != scan.recipe or self._scanner is None:
            return None
        trees = zip(self._named.values(), scan.named_looks, strict=True)
        if any(t.scanner and t.scanner.rewritten_since(look) for t, look in trees):
            return None
        same_files = now.snapshot.stamp == scan.snapshot.stamp
        if same_files and now.fingerprint.build == scan.fingerprint.build:
            return frozenset()
        written = now.snapshot.changed_since(scan.snapshot)
        written |= self._scanner.rewritten_since(scan.look)
        return frozenset(path for path in written if not _passing(path)) or None

    def look_again(self, cancel: Cancel, since: Scan | None = None) -> tuple[Scan, frozenset[str]]:
        """What is on disk now, and the paths of the context that were written to since `since`, be
        it with the same bytes. Nothing of it is lost for the next scan's `changed`. Raises as
        `scan`."""
        passing = since.passing if since is not None else frozenset()
        with self._lock:
            in_step, self._in_step = self._in_step, False
            before = self._looks
            keep = frozenset(self._prefix + path for path in passing)
            needs = since.needs if since is not None else self._needs
            now = self._look(None, cancel, keep, needs)
            scanner = self._scanner
            changed = self._looks > before + 1 or (scanner and scanner.changes)
            self._in_step = in_step and not changed
            if since is None or scanner is None:
                return now, frozenset()
            written = now.snapshot.changed_since(since.snapshot)
            return now, written | scanner.rewritten_since(since.look)

    @property
    def _scanner(self) -> TreeScanner | None:
        return self._tree.scanner

    @property
    def _looks(self) -> int:
        return self._scanner.looks if self._scanner is not None else 0

    def _look(
        self,
        hints: frozenset[Path] | None,
        cancel: Cancel,
        passing: frozenset[str] = frozenset(),
        needs: Mapping[str, str] = MappingProxyType({}),
    ) -> Scan:
        """What is on disk, not yet compared with the look before."""
        length, prefix = len(self._prefix), self._prefix
        keep = frozenset(path[length:] for path in passing if path.startswith(prefix))
        if not self._complete:
            hints = None
        self._complete = False
        try:
            snapshot = self._tree.look(hints, cancel, keep)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(
                Code.CONFIG_CONTEXT_MISSING, "is not a directory", os.path.isdir
            ) from None
        self._found = {
            name: self._look_into(name, tree, hints, cancel) for name, tree in self._named.items()
        }
        self._outside = {}
        self._needs = {name: needs.get(name, "") for name in sorted(self._uses())}
        recipe = self._recipe_digest(cancel)
        fingerprint = Fingerprint(
            build=_digest({"context": snapshot.digest, "recipe": recipe}),
            deploy=self._deploy_digest(hints, cancel),
        )
        self._complete = True
        scanner = self._tree.scanner
        assert scanner is not None  # noqa: S101 - it has looked
        others = [tree.scanner for tree in self._named.values() if tree.scanner is not None]
        return Scan(
            fingerprint=fingerprint,
            snapshot=snapshot,
            recipe=recipe,
            files=scanner.files + sum(each.files for each in others),
            look=scanner.looks,
            named_looks=tuple(each.looks for each in others),
            needs=self._needs,
            passing=frozenset(p for p in keep if p in scanner.kept or p not in snapshot.entries),
            kept=scanner.kept,
        )

    def concerns(self, path: Path) -> bool:
        """See engine.ports.Source. Knows names only, so a directory is believed to matter when
        something in it may."""
        text = os.fspath(path)
        # With many services nearly every path is asked about in vain.
        if text in self._above or text in self._targets:
            return True
        if not text.startswith(self._tops):
            return False
        if self._tree.concerns(text) or any(t.concerns(text) for t in self._named.values()):
            return True
        return self._patterns.concerns(text)

    def reshapes(self, path: Path) -> bool:
        """Whether a change of `path` changes which paths matter: it is an ignore file, a Dockerfile
        that says what is read, or an input of the rendering that names others."""
        text = os.fspath(path)
        in_force = (self._ignore, *(tree.in_force for tree in self._named.values()))
        if any(text in each.candidates for each in in_force):
            return True
        if (text == self._dockerfile or text in self._targets) and any(
            isinstance(each.last_rules(), NarrowRules) for each in in_force
        ):
            return True
        before, targets = self._inputs, self._targets
        named = self._patterns.concerns(text)
        if (named or text in self._singles or text in targets) and self._follow_links() != targets:
            return True
        return named and self._read_inputs() != before

    def directories(self) -> set[str]:
        """The directories whose direct changes matter, as they stand on disk now: everything that
        the rules do not leave out, and where the files outside of the context are (or will be)."""
        self._read_inputs()
        found = self._around()
        for tree in (self._tree, *self._named.values()):
            tree.add_directories(Cancel(), found)
        return found

    def roots(self) -> set[str]:
        """The same as few trees, for watchers that watch trees at no cost (FSEvents)."""
        trees = (self._tree, *self._named.values())
        found = self._around() | {existing_directory(os.fspath(t.directory)) for t in trees}
        return {p for p in found if not any(p.startswith(o.rstrip("/") + "/") for o in found)}

    def _around(self) -> set[str]:
        """Where the files outside of the context are, or will be."""
        paths = (*self._singles, *self._follow_links())
        singles = {existing_directory(os.path.dirname(path)) for path in paths}  # noqa: PTH120
        return singles | self._patterns.directories()

    def _follow_links(self) -> frozenset[str]:
        links = filter(os.path.islink, (*self._singles, *self._patterns.files()))
        self._targets = frozenset(target for link in links for target in link_targets(link))
        return self._targets

    def _read_inputs(self) -> RenderingInputs:
        inputs = self._rendering.inputs() if self._rendering is not None else RenderingInputs()
        if self._inputs != inputs:
            self._patterns = FilePatterns(inputs.patterns)
            contexts = (self._context, *(os.fspath(t.directory) for t in self._named.values()))
            tops = (*contexts, *self._singles, *self._patterns.tops)
            above = (str(directory) for top in tops for directory in PurePath(top).parents)
            self._above = frozenset(above).union(self._singles, contexts)
            # Last: the watcher's thread asks while another one scans.
            self._inputs, self._tops = inputs, tops
        return inputs

    def _recipe_digest(self, cancel: Cancel) -> str:
        build = self._service.build
        dockerfile = self._content(self._dockerfile, cancel)
        if dockerfile is None and build.builder != "command":
            raise self._missing(Code.CONFIG_DOCKERFILE_MISSING, "does not exist", os.path.isfile)
        self._moved = moved = dict(self._bases(cancel))
        return _digest(
            {
                **({"bases": moved} if moved else {}),
                **({"needs": self._needs} if self._needs else {}),
                "version": _VERSION,
                "dockerfile": dockerfile,
                "image": self._service.image,
                "target": build.target,
                "args": build.args,
                "platform": build.platform,
                "secrets": self._secret_ids,
                "secret files": [self._content(s, cancel) if s else None for s in self._secrets],
                "ssh": [s.partition("=")[0] for s in build.ssh],
                "ignore": build.ignore,
                "builder": build.builder,
                "command": build.command,
                "cache": build.cache,
                **{name: value for name in _OPTIONS if (value := getattr(build, name))},
                **self._contexts(cancel),
                **({"debug": (debug.kind, debug.port)} if (debug := self._service.debug) else {}),
            }
        )

    def _contexts(self, cancel: Cancel) -> dict[str, object]:
        """What the named contexts are: directories by what is in them."""
        contexts = self._service.build.contexts
        if not contexts:
            return {}
        found = {name: self._found[name].digest for name in self._named}
        layouts = [self._content(path, cancel) for path in self._layouts]
        return {"contexts": {**contexts, **found}, **({"layouts": layouts} if layouts else {})}

    def _look_into(
        self, name: str, tree: ContextTree, hints: frozenset[Path] | None, cancel: Cancel
    ) -> Snapshot:
        try:
            return tree.look(hints, cancel)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(
                *(Code.CONFIG_CONTEXT_MISSING, "is not a directory", os.path.isdir),
                named=(f"contexts.{name}", os.fspath(tree.directory)),
            ) from None

    def _deploy_digest(self, hints: Iterable[Path] | None, cancel: Cancel) -> str:
        deploy = self._service.deploy
        concerned = hints is None or any(self._patterns.concerns(os.fspath(h)) for h in hints)
        if self._manifests is None or concerned:
            self._read_inputs()
            self._manifests = self._patterns.files()
        return _digest(
            {
                "version": _VERSION,
                "manifests": [(self._shown(p), self._content(p, cancel)) for p in self._manifests],
                "values": self._inputs.values if self._inputs else (),
                "kind": deploy.workload_kind,
                "name": deploy.workload_name,
                "more": deploy.workloads[1:],
                "container": deploy.container,
            }
        )

    def _content(self, path: str, cancel: Cancel) -> str | None:
        try:
            self._outside[path] = self._files.digest(path, cancel)
        except OSError as error:
            raise unreadable(path, error) from error
        return self._outside[path]

    def _changes(self, snapshot: Snapshot, *, in_step: bool) -> tuple[str, ...]:
        """What differs from the last scan, as the user would name it."""
        if self._last is None or self._scanner is None:
            return ()
        before, old, bases = self._last.snapshot, self._last.outside, self._last.moved
        inside = self._scanner.changes if in_step else snapshot.changed_since(before)
        paths = {self._prefix + path for path in inside if not _passing(path)}
        for name, tree in self._named.items():
            there, was = self._found[name], self._last.named[name]
            changed = there.changed_since(was) if there.digest != was.digest else ()
            paths.update([self._shown(os.fspath(tree.directory / path)) for path in changed])
        now = self._outside
        paths.update([self._shown(p) for p in old.keys() | now.keys() if old.get(p) != now.get(p)])
        moved = self._moved
        names = [n for n in bases.keys() | moved.keys() if bases.get(n) != moved.get(n)]
        return (*(f"base {name}" for name in sorted(names)), *sorted(paths))

    def _shown(self, path: str) -> str:
        """`path` as the user would name it: relative to the project."""
        return os.path.relpath(path, self._project)

    def _missing(
        self,
        code: Code,
        wrong: str,
        fits: Callable[[str], bool],
        named: tuple[str, str] | None = None,
    ) -> DevloopError:
        """The error for what `build.<key>` names, with the nearest that fits instead."""
        is_context = code == Code.CONFIG_CONTEXT_MISSING
        own = ("context", self._context) if is_context else ("dockerfile", self._dockerfile)
        key, path = named or own
        directory, name = os.path.split(path)
        return DevloopError.of(
            code,
            f"{self._shown(path)} {wrong}",
            location=Location(self._shown(path)),
            cause=f"services.{self._service.name}.build.{key} names it",
            suggestions=tuple(
                f"did you mean {self._shown(os.path.join(directory, near))}?"  # noqa: PTH118
                for near in _nearest(directory, name, fits)
            ),
        )


def _nearest(directory: str, name: str, fits: Callable[[str], bool]) -> list[str]:
    try:
        names = [n for n in sorted(os.listdir(directory)) if fits(os.path.join(directory, n))]  # noqa: PTH118, PTH208
    except OSError:
        return []
    names = [n for n in names if not n.endswith(".dockerignore")]
    return difflib.get_close_matches(name, names, n=2)


def named_tree(
    directory: Path, project: str, reads: BuildReads, progress: Callable[[str], None]
) -> ContextTree:
    """A named context. Of such a one BuildKit takes the ignore file at its top alone, and what
    devloop leaves out of the context otherwise is in it: `.git` counts."""
    ignore = os.fspath(directory / ".dockerignore")
    in_force = RulesInForce(os.fspath(directory), (ignore, ignore), (), project, reads, git=True)

    def needed(path: str) -> bool:
        named = reads.named()
        return named is None or any(may_match(pattern, path) for pattern in named)

    return ContextTree(directory, in_force, needed=needed, progress=progress)


def _layout_index(source: str) -> str | None:
    """The file that says what is in an OCI layout."""
    path = source.removeprefix("oci-layout://")
    return None if path == source else f"{re.split('[:@]', path)[0]}/index.json"


def _passing(path: str) -> bool:
    """Whether it is an editor's temporary file, which is in the context and changes nothing."""
    return is_temporary(path.rpartition("/")[2])


def _digest(parts: dict[str, object]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
