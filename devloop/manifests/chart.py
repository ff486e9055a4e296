"""What a chart on disk is made of: the files that count, and what it depends on.

Reads Chart.yaml and names, renders nothing and starts no program.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import ANY_FILE
from devloop.manifests.yaml_file import mapping_in

if TYPE_CHECKING:
    from collections.abc import Iterator


# Helm writes these itself, with the time in them: what they say is in Chart.yaml, or is asked for.
_WRITTEN = frozenset({"Chart.lock", "requirements.lock", "charts", "tmpcharts"})
_DEEPEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """One that Chart.yaml names; `directory` is a local one's, absolute."""

    name: str
    version: str
    repository: str
    directory: str | None


@dataclass(frozen=True, slots=True)
class LocalChart:
    """The chart in an absolute directory, or an archive."""

    path: str

    @property
    def packed(self) -> bool:
        return os.path.isfile(self.path)  # noqa: PTH113

    @property
    def name(self) -> str:
        """As Helm begins the names of its templates; the directory's where Chart.yaml says none."""
        name = mapping_in(f"{self.path}/Chart.yaml").get("name")
        return str(name or os.path.basename(self.path))  # noqa: PTH119

    def dependencies(self) -> tuple[Dependency, ...]:
        found = mapping_in(f"{self.path}/Chart.yaml").get("dependencies")
        found = found or mapping_in(f"{self.path}/requirements.yaml").get("dependencies")
        return tuple(
            _dependency(each, self.path)
            for each in (found if isinstance(found, list) else ())
            if isinstance(each, dict)
        )

    def patterns(self, depth: int = 0) -> Iterator[str]:
        """What counts: everything but what `helm dependency` makes, and the local charts that it
        makes it of."""
        base = glob.escape(self.path)
        if self.packed:
            yield base
            return
        yield from (f"{base}/*.{suffix}" for suffix in ("yaml", "yml", "json", "txt", "tpl"))
        yield f"{base}/.helmignore"
        names = {"templates", "crds"}
        with contextlib.suppress(OSError):
            names |= {e.name for e in os.scandir(self.path) if e.is_dir() and e.name[0] != "."}
        for name in sorted(names - _WRITTEN):
            yield f"{base}/{glob.escape(name)}/**/{ANY_FILE}"
        # Charts that are kept unpacked, by whoever wrote this one.
        yield f"{base}/charts/*/**/{ANY_FILE}"
        for each in self.dependencies() if depth < _DEEPEST else ():
            if each.directory is not None:
                yield from LocalChart(each.directory).patterns(depth + 1)

    def lacking(self, depth: int = 0) -> tuple[str, ...]:
        """Dependencies whose archive under charts/ is missing, of another version than the lock
        file says, or older than the local chart that it is made of."""
        if self.packed:
            return ()
        lock = mapping_in(f"{self.path}/Chart.lock").get("dependencies")
        locked = {
            str(each.get("name")): str(each.get("version"))
            for each in (lock if isinstance(lock, list) else ())
            if isinstance(each, dict)
        }
        return tuple(
            each.name
            for each in self.dependencies()
            if not self._has(each, locked.get(each.name), depth)
        )

    def _has(self, each: Dependency, version: str | None, depth: int) -> bool:
        charts = f"{self.path}/charts"
        if os.path.isfile(f"{charts}/{each.name}/Chart.yaml") or not (  # noqa: PTH113
            each.repository or each.directory
        ):
            return True
        exact = re.compile(rf"{re.escape(each.name)}-(v?[0-9].*)\.tgz")
        try:
            names = [n for n in os.listdir(charts) if exact.fullmatch(n)]  # noqa: PTH208
        except OSError:
            return False
        if each.directory is None:
            return any(version in (None, exact.fullmatch(n)[1]) for n in names)  # type: ignore[index]
        made = [os.stat(f"{charts}/{name}").st_mtime_ns for name in names]  # noqa: PTH116
        return bool(made) and max(made) >= _newest(each.directory, depth)


def _newest(directory: str, depth: int) -> int:
    """When a local chart, or one that it depends on, was last written (ns)."""
    from devloop.base.patterns import FilePatterns  # noqa: PLC0415 - seldom needed

    files = FilePatterns(LocalChart(directory).patterns(depth + 1)).files()
    return max((Path(file).stat().st_mtime_ns for file in files if os.path.exists(file)), default=0)  # noqa: PTH110


def _dependency(value: dict[str, Any], chart: str) -> Dependency:
    repository = str(value.get("repository") or "")
    local = repository.removeprefix("file://") if repository.startswith("file://") else None
    return Dependency(
        name=str(value.get("name")),
        version=str(value.get("version") or ""),
        repository=repository,
        directory=os.path.normpath(os.path.join(chart, local)) if local else None,  # noqa: PTH118
    )
