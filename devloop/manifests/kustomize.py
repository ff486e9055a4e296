"""Kustomizations, built by the user's own `kustomize` or `kubectl`: what they make of one is right
by construction. What is read for that, and so is watched, see kustomization.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import read_yaml
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.manifests import tools
from devloop.manifests.files import objects_of
from devloop.manifests.kustomization import NAMES, kustomization_file, reached
from devloop.manifests.origins import line_of, place_of, with_origins
from devloop.model import RenderingInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.manifests.kustomization import Reached
    from devloop.model import ManifestObject


# Files of a parent directory: refused unless asked for, as is a chart.
_OUTSIDE = re.compile(r"is not in or below|security; file")
_ANY_PATH = ("--load-restrictor", "LoadRestrictionsNone")
_QUOTED = re.compile(r"['\"]([^'\"\n]{1,400})['\"]")
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')
# Deployment.v1.apps/web.[noNs]
_ID = re.compile(r"(\w+)\.v[^/\s]*/([\w.-]+?)\.\[")
_LONGEST = 300
_NOT_THERE = re.compile(r"evalsymlink failure on '(.+?)' : lstat .+?: no such file or directory")
_LINE = re.compile(r"\bline (\d+)")


@dataclass(frozen=True, slots=True)
class KustomizeRendering:
    """The `Rendering` of the kustomization in a directory; see engine.ports. `show` turns a path
    into what a user would type."""

    directory: Path
    show: Callable[[Path], str] = os.fspath

    def inputs(self) -> RenderingInputs:
        found = reached([os.fspath(self.directory)])
        # Wherever a kustomization is missing it may come under any of its names.
        missing = [file for file in found.kustomizations if not os.path.isfile(file)]  # noqa: PTH113
        more = (f"{os.path.dirname(file)}/{name}" for file in missing for name in NAMES)  # noqa: PTH120
        return RenderingInputs(patterns=(*found.all_patterns, *more))

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        """Raises manifests/*, env/tool-missing and config/manifest."""
        found = reached([os.fspath(self.directory)])
        for entry, file in found.remote.items():
            notify(_remote(entry, file, self.show(Path(file))))
        text = self._built(found, cancel, notify)
        made = objects_of(text, f"kustomize build {self.show(self.directory)}")
        return with_origins(made, found.files, found.kustomizations, self.show)

    def _built(self, found: Reached, cancel: Cancel, notify: Callable[[Diagnosis], None]) -> str:
        program = tools.first_of(("kustomize", "kubectl"))
        if program is None:
            raise tools.missing(
                "kustomize", "neither kustomize nor kubectl is on the PATH", "or install kubectl"
            )
        verb = "build" if program == "kustomize" else "kustomize"
        argv = [program, verb, os.fspath(self.directory)]
        if found.charts:
            argv.append("--enable-helm")
        limit = tools.FETCH_LIMIT if found.remote or found.charts else tools.RENDER_LIMIT
        try:
            return tools.tool(argv, cancel, limit=limit).out
        except tools.ToolFailed as failed:
            if not _OUTSIDE.search(failed.output):
                raise self._error(found, failed) from failed
            outside = failed
        try:
            text = tools.tool([*argv, *_ANY_PATH], cancel, limit=limit).out
        except tools.ToolFailed as failed:
            raise self._error(found, failed) from failed
        notify(self._read_outside(found, outside))
        return text

    def _read_outside(self, found: Reached, failed: tools.ToolFailed) -> Diagnosis:
        return Diagnosis(
            code=Code.MANIFESTS_NOTE,
            severity="info",
            message=f"{self.show(self.directory)} is built with {' '.join(_ANY_PATH)}: it reads "
            "files that are not below their kustomization",
            cause=f"see {self._place(found, failed.output)}",
        )

    def _error(self, found: Reached, failed: tools.ToolFailed) -> DevloopError:
        said = _innermost(failed.output)
        lines = self._with_short_paths(failed.output).splitlines()
        fetching = failed.fetching and bool(found.remote or found.charts)
        shown = self.show(self.directory)
        return DevloopError.of(
            Code.MANIFESTS_FETCH_FAILED if fetching else Code.MANIFESTS_RENDER_FAILED,
            f"kustomize cannot build {shown}: {self._with_short_paths(said)}",
            location=self._place(found, failed.output),
            suggestions=(f"run it by hand: {failed.command}",),
            detail=tuple(lines[:20]) if len(lines) > 1 or len(lines[0]) > _LONGEST else (),
        )

    def _with_short_paths(self, text: str) -> str:
        """Paths as a user would type them."""
        for directory in (self.directory, *self.directory.parents):
            shown = self.show(directory)
            if shown.startswith(("/", "..")):
                break
            text = text.replace(f"{directory}/", "" if shown == "." else f"{shown}/")
            text = text.replace(os.fspath(directory), shown)
        return text

    def _place(self, found: Reached, output: str) -> Location:
        """Where what the tool complains of is written, as far as that can be told."""
        for place in self._places(found, output):
            return place
        return Location(self.show(Path(kustomization_file(os.fspath(self.directory)))), 1, 1)

    def _places(self, found: Reached, output: str) -> Iterator[Location]:
        for path in (*found.kustomizations, *found.files):
            if path.endswith((".yaml", ".yml", "Kustomization")) and (fault := _fault(path)):
                shown = self.show(Path(path))
                line, column = fault
                yield Location(shown, line, column)
        for kind, name in _ID.findall(output):
            if place := place_of(kind, name, found.files, self.show):
                yield place
        words = [*_UNKNOWN_FIELD.findall(output), *reversed(_QUOTED.findall(output))]
        words += [path for path in found.files if not os.path.exists(path) and path in output]  # noqa: PTH110
        for word in words:
            for file in found.kustomizations:
                directory = os.path.dirname(file)  # noqa: PTH120
                relative = os.path.relpath(word, directory) if word[:1] == "/" else word
                if place := line_of(file, relative, self.show(Path(file))):
                    yield place
        for path in (*found.files, *found.kustomizations):
            if os.path.basename(path) in output and path in found.files:  # noqa: PTH119
                told = _LINE.search(output)
                yield Location(self.show(Path(path)), int(told[1]) if told else 1, 1)


def _fault(path: str) -> tuple[int, int] | None:
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    _, faults = read_yaml(text, path, lenient=True)
    if not faults:
        return None
    return faults[0].location.line or 1, faults[0].location.column or 1


def _innermost(output: str) -> str:
    """The last of the reasons that kustomize nests in each other, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = next(
        (line for line in lines if line.lower().startswith("error")), lines[0:1] and lines[0]
    )
    text = re.sub(r"^[Ee]rror: ", "", str(said or "it gives no reason"))
    # Each of its guesses (a file, a directory, a repository) is one, the first the likeliest.
    first = text.partition(": must build at directory")[0].partition(", 'evalsymlink failure")[0]
    first = first.rpartition("accumulation err='")[2].removesuffix("'")
    first = _NOT_THERE.sub(r"\1 does not exist", first)
    return f"... {first[-_LONGEST:]}" if len(first) > _LONGEST else first


def _remote(entry: str, file: str, shown: str) -> Diagnosis:
    return Diagnosis(
        code=Code.MANIFESTS_NOTE,
        severity="info",
        message=f"{entry} is fetched anew only when the kustomization changes",
        cause=f"see {line_of(file, entry, shown) or Location(shown, 1, 1)}",
    )
