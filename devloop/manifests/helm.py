"""Charts, rendered by the user's own `helm template`: what it makes of one is right by
construction.

devloop applies what comes of it as it applies any manifest, so that owners, images and `restore`
hold; hooks are told apart from the rest and run beside it.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.manifests import tools
from devloop.manifests.chart import LocalChart
from devloop.manifests.files import objects_of
from devloop.manifests.origins import line_of
from devloop.model import Hook, RenderingInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.config.charts import Chart
    from devloop.model import ManifestObject


_RUN = frozenset({"pre-install", "post-install", "pre-upgrade", "post-upgrade"})
TESTS = frozenset({"test", "test-success", "test-failure"})
_SOURCE = re.compile(r"^---\n# Source: (.+)\n", re.MULTILINE)
_KIND = re.compile(r"^kind:\s*[\"']?(\w+)", re.MULTILINE)
# template: web/templates/a.yaml:3:14: ..., parse error at (web/templates/a.yaml:3): ...,
# YAML parse error on web/templates/a.yaml: ... line 9: ...
_PLACE = re.compile(
    r"(?P<file>[^\s:(\"']+/[^\s:(\"']+\.(?:ya?ml|tpl|txt|json)):(?P<line>\d+)(?::(?P<column>\d+))?"
)
_ON = re.compile(r"error on (?P<file>[^\s:]+): .*?(?:line (?P<line>\d+))?", re.DOTALL)
_OF_OUTPUT = "the line is one of what the template renders: --debug prints that"
_LINE = re.compile(r"\bline (\d+)")


@dataclass(frozen=True, slots=True)
class HelmRendering:
    """The `Rendering` of a chart; see engine.ports. `namespace` is the release's; `show` turns a
    path into what a user would type."""

    chart: Chart
    namespace: str
    show: Callable[[Path], str] = os.fspath

    def inputs(self) -> RenderingInputs:
        import glob  # noqa: PLC0415 - not at every start

        chart = self.chart
        files = [glob.escape(os.fspath(path)) for path in chart.values]
        local = self._local()
        what = "" if local else chart.chart
        given = (chart.release, what, chart.version or "", chart.repo or "", self.namespace)
        values = (*given, repr(sorted(chart.set.items())), str(chart.skip_tests), chart.mode)
        patterns = tuple(local.patterns()) if local else ()
        return RenderingInputs(patterns=(*patterns, *files), values=values)

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        """Raises manifests/*, env/tool-missing, config/manifest."""
        if (local := self._local()) is not None:
            self._build_dependencies(local, cancel, notify)
        argv = ["helm", "template", self.chart.release, *self.arguments(), "--include-crds"]
        try:
            limit = tools.RENDER_LIMIT if local else tools.FETCH_LIMIT
            text = tools.tool(argv, cancel, limit=limit).out
        except tools.ToolFailed as failed:
            raise self.error(failed) from failed
        return tuple(self._objects(text, local, notify))

    def arguments(self) -> list[str]:
        """What a command of Helm needs after the release's name."""
        chart = self.chart
        local = self._local()
        argv = [local.path if local else chart.chart, "--namespace", self.namespace]
        for name, value in (("--version", chart.version), ("--repo", chart.repo)):
            argv += [name, value] if value else []
        for path in chart.values:
            argv += ["--values", os.fspath(path)]
        for name, value in chart.set.items():
            # A list in Helm's braces stays one; elsewhere a comma would begin another value.
            text = value if value[:1] == "{" else value.replace(",", "\\,")
            argv += ["--set", f"{name}={text}"]
        return argv

    def _local(self) -> LocalChart | None:
        chart = self.chart
        if chart.repo or chart.chart.startswith("oci://") or "://" in chart.chart:
            return None
        there = chart.directory.exists()
        # As Helm has it, REPOSITORY/NAME is a remote one unless there is such a directory.
        alias = re.fullmatch(r"[\w-]+/[\w.-]+", chart.chart) is not None
        return None if alias and not there else LocalChart(os.fspath(chart.directory))

    # --- dependencies --------------------------------------------------------------------------

    def _build_dependencies(
        self, local: LocalChart, cancel: Cancel, notify: Callable[[Diagnosis], None], depth: int = 0
    ) -> None:
        for each in local.dependencies() if depth < 5 else ():
            if each.directory is not None and os.path.isdir(each.directory):  # noqa: PTH112
                inner = LocalChart(each.directory)
                self._build_dependencies(inner, cancel, notify, depth + 1)
        if not (lacking := local.lacking()):
            return
        # Without anything remote there is no index to refresh.
        remote = any(each.directory is None for each in local.dependencies())
        more = () if remote else ("--skip-refresh",)
        locked = os.path.isfile(f"{local.path}/Chart.lock")  # noqa: PTH113
        verbs = ("build", "update") if locked else ("update",)
        for verb in verbs:
            try:
                argv = ["helm", "dependency", verb, local.path, *more]
                tools.tool(argv, cancel, limit=tools.FETCH_LIMIT)
            except tools.ToolFailed as failed:
                if verb == verbs[-1]:
                    raise self.error(failed) from failed
                continue
            notify(
                Diagnosis(
                    code=Code.MANIFESTS_NOTE,
                    severity="info",
                    message=f"helm dependency {verb} {self.show(Path(local.path))}: charts/ lacked "
                    + ", ".join(lacking),
                )
            )
            return

    # --- what was rendered ---------------------------------------------------------------------

    def _objects(
        self, text: str, local: LocalChart | None, notify: Callable[[Diagnosis], None]
    ) -> Iterator[ManifestObject]:
        _, *parts = _SOURCE.split(text)
        for source, document in zip(parts[::2], parts[1::2], strict=True):
            file = self._file(source, local)
            shown = self.show(Path(file)) if file else source
            for made in objects_of(document, shown):
                hook = _hook(made.object)
                if hook is None or self._runs(hook, made, shown, notify):
                    yield replace(
                        made,
                        object=self._placed(made.object),
                        places=_places(file, made.key[1]),
                        hook=hook,
                    )

    def _runs(
        self, hook: Hook, made: ManifestObject, shown: str, notify: Callable[[Diagnosis], None]
    ) -> bool:
        if hook.events & _RUN or (hook.events & TESTS and not self.chart.skip_tests):
            return True
        if not hook.events <= TESTS:
            message = (
                f"{made.key[1]} {made.key[3]} is a hook for {', '.join(sorted(hook.events))}, "
                "which devloop does not run"
            )
            note = Diagnosis(
                code=Code.MANIFESTS_NOTE, severity="info", message=message, cause=f"see {shown}"
            )
            notify(note)
        return False

    def _placed(self, thing: Any) -> dict[str, Any]:
        """In the release's namespace, where it is not the project's."""
        metadata = thing.get("metadata") or {}
        if self.chart.namespace is None or metadata.get("namespace"):
            return dict(thing)
        return {**thing, "metadata": {**metadata, "namespace": self.chart.namespace}}

    def _file(self, source: str, local: LocalChart | None) -> str | None:
        """The template that Helm calls `source`: the chart's name, then its path in there."""
        _, _, inside = source.partition("/")
        while local is not None:
            path = f"{local.path}/{inside}"
            if os.path.isfile(path):  # noqa: PTH113
                return path
            found = re.match(r"charts/([^/]+)/(.+)", inside)
            if found is None:
                return None
            wanted, inside = found[1], found[2]
            local = next(
                (
                    LocalChart(each.directory)
                    for each in local.dependencies()
                    if each.directory and wanted in (each.name, LocalChart(each.directory).name)
                ),
                None,
            )
        return None

    # --- what went wrong -----------------------------------------------------------------------

    def error(self, failed: tools.ToolFailed) -> DevloopError:
        """What Helm says, with the place in the chart that it speaks of."""
        lines = [line for line in failed.output.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("WARNING:", "Use --debug"))]
        first = next(
            (line for line in lines if line.startswith("Error:")), lines[-1:] and lines[-1]
        )
        said = str(first or "it gives no reason").removeprefix("Error: ")
        remote = self._local() is None or " dependency " in failed.command
        fetching = remote and failed.fetching
        place = self._place(failed.output)
        name = self.show(Path(local.path)) if (local := self._local()) else self.chart.chart
        return DevloopError.of(
            Code.MANIFESTS_FETCH_FAILED if fetching else Code.MANIFESTS_RENDER_FAILED,
            f"helm cannot render {name}: {_without_place(said)}",
            location=place,
            cause=_OF_OUTPUT if _ON.search(said) else None,
            suggestions=(f"run it by hand: {failed.command}",),
            detail=tuple(lines[:20]) if len(lines) > 1 else (),
        )

    def _place(self, output: str) -> Location | None:
        local = self._local()
        for found in _PLACE.finditer(output):
            if file := self._file(found["file"], local):
                # The innermost place that Helm names is where it failed: the last of a chain.
                line, column = int(found["line"]), int(found["column"] or 0) + 1
                return Location(self.show(Path(file)), line, column)
        told = _LINE.search(output)
        for path in (*self.chart.values, *((Path(local.path, "values.yaml"),) if local else ())):
            named = (
                str(path) in output
                or f"parse {path.name}" in output
                or f"load {path.name}" in output
            )
            if named:
                return Location(self.show(path), int(told[1]) if told else 1, 1)
        if (on := _ON.search(output)) and (file := self._file(on["file"], local)):
            # The line is one of what came of the template.
            return Location(self.show(Path(file)), 1, 1)
        if local is None:
            return self.chart.location
        chart = Path(local.path, "Chart.yaml")
        shown = self.show(chart)
        words = next((d.name for d in local.dependencies() if d.name in output), "dependencies")
        return line_of(os.fspath(chart), words, shown) or Location(shown, 1, 1)


def _without_place(said: str) -> str:
    """The place stands before the message already."""
    return said if len(said) <= 400 else f"{said[:400]} ..."


def _hook(thing: Any) -> Hook | None:
    annotations = (thing.get("metadata") or {}).get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    events = _words(annotations.get("helm.sh/hook"))
    if not events:
        return None
    weight = str(annotations.get("helm.sh/hook-weight") or "0")
    delete = _words(annotations.get("helm.sh/hook-delete-policy"))
    return Hook(
        events=events,
        weight=int(weight) if re.fullmatch(r"[-+]?\d+", weight) else 0,
        delete=delete or frozenset({"before-hook-creation"}),
    )


def _words(text: object) -> frozenset[str]:
    return frozenset(filter(None, (word.strip() for word in str(text or "").split(","))))


def _places(file: str | None, kind: str) -> dict[tuple[str | int, ...], tuple[int, int]]:
    """Where the object begins in its template, if that can be told."""
    try:
        text = Path(file).read_text("utf-8", "replace") if file else ""
    except OSError:
        return {}
    return dict(_lines(text, kind))


@functools.lru_cache(maxsize=512)
def _lines(text: str, kind: str) -> tuple[tuple[tuple[str | int, ...], tuple[int, int]], ...]:
    found = [match for match in _KIND.finditer(text) if match[1] == kind]
    return (((), (text.count("\n", 0, found[0].start()) + 1, 1)),) if len(found) == 1 else ()
