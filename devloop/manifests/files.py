"""Read a service's manifest files as the API server would, keeping where everything stands.

YAML as kubectl reads it: no dates, no base-60 numbers, several documents, `List` kinds flattened;
what could hide a mistake or blow up (double keys, tags, an anchor bomb) is an error with its place.
Must not know the cluster nor change an object: planning is cluster/deploy's job.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import FilePatterns
from devloop.base.yaml_tree import Items, Keys, read_yaml
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.manifests.strangers import kustomization, what_else
from devloop.model import ManifestObject, RenderingInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from devloop.base.cancel import Cancel
    from devloop.base.yaml_tree import Node, Scalar, YamlFault


_MOST_NODES = 200_000
_DEEPEST = 150
_MOST_BYTES = 16 * 1024 * 1024
# A line or a value that begins as a template's does.
_BEGINS = re.compile(r"\s*(?:- +)*(?:[\w./-]+: +)?\{\{")

_Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class FilesRendering:
    """The `Rendering` of plain manifest files; see engine.ports.

    `patterns` are absolute, as `FilePatterns` reads them; `show` turns a path into what a user
    would type."""

    patterns: Sequence[str]
    show: Callable[[Path], str] = os.fspath

    def inputs(self) -> RenderingInputs:
        return RenderingInputs(patterns=tuple(self.patterns))

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        """Raises config/manifest, config/manifest-missing and env/file-unreadable."""
        cancel.check()
        files = find_files(self.patterns)
        named = {Path(os.path.normpath(pattern)) for pattern in self.patterns}
        met = frozenset(file for file in files if file not in named)
        return read_manifests(files, show=self.show, met=met, notify=notify)


def find_files(patterns: Iterable[str]) -> tuple[Path, ...]:
    """The files that absolute patterns name, as `FilePatterns` reads them: in the order of the
    patterns, each sorted, none twice. Raises config/manifest-missing for a pattern that matches
    nothing."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = FilePatterns([pattern]).files()
        if not files:
            message = f"no file matches the manifests pattern {pattern}"
            hint = "correct `deploy.manifests`, or leave it out to patch only"
            raise DevloopError.of(Code.CONFIG_MANIFEST_MISSING, message, suggestions=(hint,))
        found.update(dict.fromkeys(map(Path, files)))
    return tuple(found)


def read_manifests(
    files: Iterable[Path],
    *,
    show: Callable[[Path], str] = os.fspath,
    met: frozenset[Path] = frozenset(),
    notify: Callable[[Diagnosis], None] = lambda _: None,
) -> tuple[ManifestObject, ...]:
    """All objects of all files in their order. `show` turns a path into what a user would type.

    Files that nobody named, but that a directory or a wildcard brought (`met`), are left out with a
    note where they are something else's. Raises config/manifest with the place for what is no
    manifest, and for the same object given twice."""
    return without_doubles(
        manifest
        for file in files
        for manifest in _read(file, show(file), notify if file in met else None)
    )


def without_doubles(manifests: Iterable[ManifestObject]) -> tuple[ManifestObject, ...]:
    """All of `manifests`. Raises config/manifest where one is there twice."""
    seen: dict[tuple[str, str, str, str], ManifestObject] = {}
    for manifest in manifests:
        other = seen.setdefault(manifest.key, manifest)
        if other is not manifest:
            _, kind, _, name = manifest.key
            raise _wrong(
                manifest.location, f"{kind} {name} is there twice", f"first at {other.location}"
            )
    return tuple(seen.values())


def _read(
    file: Path, shown: str, notify: Callable[[Diagnosis], None] | None
) -> Iterator[ManifestObject]:
    """`notify` is for a file that may be left out, with a note; None for one that may not."""
    text = _text(file, shown)
    # JSON is YAML, but for tabs between its tokens, which YAML's scanner refuses.
    text = text.replace("\t", " ") if file.suffix == ".json" else text
    nodes, faults = read_yaml(text, shown, lenient=True, most=_MOST_NODES, deepest=_DEEPEST)
    if faults:
        raise _template(text, shown, faults[0]) or DevloopError.of(
            Code.CONFIG_MANIFEST,
            faults[0].message,
            location=faults[0].location,
            cause=faults[0].cause,
            suggestions=faults[0].suggestions,
            detail=faults[0].detail,
        )
    documents = [each for each in map(_document, nodes) if each[1] is not None]
    other = what_else(file.name, [value for _, value, _ in documents])
    if other and notify is not None:
        notify(_left_out(shown, other, warn=kustomization(file.name)))
        return
    if other:
        hints = ("name the manifests in `deploy.manifests`",)
        raise _wrong(Location(shown, 1, 1), f"this is no manifest: {other}", None, hints)
    for node, value, places in documents:
        if not isinstance(value, dict):
            raise _wrong(node.location, "a manifest is a mapping with apiVersion and kind", None)
        yield from _flatten(value, shown, places, ())


def objects_of(text: str, shown: str) -> tuple[ManifestObject, ...]:
    """The objects in `text`, with their places in it. Raises config/manifest."""
    nodes, faults = read_yaml(text, shown, lenient=True, most=_MOST_NODES, deepest=_DEEPEST)
    if faults:
        raise _wrong(faults[0].location, faults[0].message, faults[0].cause)
    found: list[ManifestObject] = []
    for node, value, places in map(_document, nodes):
        if isinstance(value, dict):
            found += _flatten(value, shown, places, ())
        elif value is not None:
            raise _wrong(node.location, "a manifest is a mapping with apiVersion and kind", None)
    return tuple(found)


def _document(node: Node) -> tuple[Node, Any, dict[_Path, tuple[int, int]]]:
    places: dict[_Path, tuple[int, int]] = {}
    return node, _value(node, (), places), places


def _text(file: Path, shown: str) -> str:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise _wrong(Location(shown), "the file is too large for a manifest", None)
        return file.read_text("utf-8-sig")
    except OSError as error:
        message, why = "a manifest cannot be read", error.strerror or str(error)
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE, message, location=Location(shown), cause=why
        ) from error
    except UnicodeDecodeError as error:
        raise _wrong(Location(shown), "the file is not UTF-8 text", str(error)) from error


def _left_out(shown: str, why: str, *, warn: bool = False) -> Diagnosis:
    return Diagnosis(
        code=Code.CONFIG_MANIFEST,
        severity="warning" if warn else "info",
        message=f"{shown} is not applied: {why}",
        location=Location(shown, 1, 1),
        suggestions=("name the manifests themselves in `deploy.manifests`",),
    )


def _template(text: str, shown: str, fault: YamlFault) -> DevloopError | None:
    """What to say where a template's braces are why a file is no YAML: within a value, as in an
    annotation, they are text as any other."""
    lines = text.split("\n")
    last = min(fault.location.line or 1, len(lines))
    line, column = last, lines[last - 1].find("{{")
    for above in range(last - 1, 0, -1):
        if column >= 0:
            break
        if begun := _BEGINS.match(lines[above - 1]):
            line, column = above, begun.end() - 2
        elif lines[above - 1].strip():
            return None
    if column < 0:
        return None
    return _wrong(
        Location(shown, line, column + 1),
        "this is a Helm template, not a manifest",
        "{{ stands where YAML has no room for it",
        ("render it first: helm template",),
    )


def _wrong(
    place: Location, message: str, cause: str | None, hints: tuple[str, ...] = ()
) -> DevloopError:
    return DevloopError.of(
        Code.CONFIG_MANIFEST, message, location=place, cause=cause, suggestions=hints
    )


def _flatten(
    value: dict[str, Any], shown: str, places: dict[_Path, tuple[int, int]], prefix: _Path
) -> Iterator[ManifestObject]:
    kind = value.get("kind")
    entries = value.get("items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(entries, list):
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield from _flatten(entry, shown, places, (*prefix, "items", index))
        return
    own = {p[len(prefix) :]: at for p, at in places.items() if p[: len(prefix)] == prefix}
    manifest = ManifestObject(object=value, file=shown, places=own)
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise _wrong(manifest.at(key), f"the manifest has no {key}", None)
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        cause = None
        if isinstance(metadata, dict) and metadata.get("generateName"):
            cause = "generateName would make another object at every deploy"
        raise _wrong(manifest.at("metadata"), f"{kind} has no metadata.name", cause)
    yield manifest


def _value(node: Node, path: _Path, places: dict[_Path, tuple[int, int]]) -> Any:
    """The plain value of a tree, noting where everything in it stands."""
    places[path] = (node.location.line or 1, node.location.column or 1)
    if isinstance(node, Keys):
        return {each.key: _value(each.value, (*path, each.key), places) for each in node}
    if isinstance(node, Items):
        return [_value(each, (*path, i), places) for i, each in enumerate(node.items)]
    return _scalar(node)


# Scalars as sigs.k8s.io/yaml (go-yaml 2) resolves them.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_TAG = "tag:yaml.org,2002:"


def _scalar(node: Scalar) -> Any:
    text = node.text
    tag = node.tag.removeprefix(_TAG) if node.tag else None if node.plain else "str"
    if tag == "null" or (tag is None and _NULL.fullmatch(text)):
        return None
    if tag == "bool" or (tag is None and _BOOL.fullmatch(text)):
        return text.lower() in {"yes", "true", "on"}
    try:
        if tag == "int" or (tag is None and _INT.fullmatch(text)):
            return _int(text)
        if tag == "float" or (tag is None and _FLOAT.fullmatch(text)):
            return _float(text)
    except ValueError as error:
        raise _wrong(node.location, f"{text[:40]!r} is not a number", None) from error
    return text


def _int(text: str) -> int:
    digits = text.replace("_", "")
    octal = re.fullmatch("[-+]?0[0-9]+", digits)
    return int(digits, 8 if octal else 0)  # 0 reads 0x, 0b and 0o


def _float(text: str) -> float | int:
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return int(value) if value.is_integer() and abs(value) < 2**53 and "." not in text else value
