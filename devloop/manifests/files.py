"""Read a service's manifest files as the API server would, keeping where everything stands.

YAML as kubectl reads it: no dates, no base-60 numbers, several documents, `List` kinds flattened;
what could hide a mistake or blow up (double keys, tags, an anchor bomb) is an error with its place.
Must not know the cluster nor change an object: planning is cluster/deploy's job.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from devloop.base.patterns import FilePatterns
from devloop.errors import Code, DevloopError, Location
from devloop.model import ManifestObject, RenderingInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from devloop.base.cancel import Cancel

__all__ = ["FilesRendering", "find_files", "read_manifests"]

_MOST_NODES = 200_000
_MOST_BYTES = 16 * 1024 * 1024


class FilesRendering:
    """The `Rendering` of plain manifest files; see engine.ports.

    `patterns` are absolute, as `FilePatterns` reads them; `show` turns a path into what a user
    would type."""

    def __init__(self, patterns: Sequence[str], *, show: Callable[[Path], str] = os.fspath) -> None:
        self._patterns = tuple(patterns)
        self._show = show

    def inputs(self) -> RenderingInputs:
        return RenderingInputs(patterns=self._patterns)

    def objects(self, cancel: Cancel) -> tuple[ManifestObject, ...]:
        """Raises config/manifest, config/manifest-missing and env/file-unreadable."""
        cancel.check()
        return read_manifests(find_files(self._patterns), show=self._show)


def find_files(patterns: Iterable[str]) -> tuple[Path, ...]:
    """The files that absolute patterns name, as `FilePatterns` reads them: in the order of the
    patterns, each sorted, none twice. Raises config/manifest-missing for a pattern that matches
    nothing."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = FilePatterns([pattern]).files()
        if not files:
            raise DevloopError.of(
                Code.CONFIG_MANIFEST_MISSING,
                f"no file matches the manifests pattern {pattern}",
                suggestions=("correct `deploy.manifests`, or leave it out to patch only",),
            )
        found.update(dict.fromkeys(map(Path, files)))
    return tuple(found)


def read_manifests(
    files: Iterable[Path], *, show: Callable[[Path], str] = os.fspath
) -> tuple[ManifestObject, ...]:
    """All objects of all files in their order. `show` turns a path into what a user would type.

    Raises config/manifest with the place for what is no manifest, and for the same object given
    twice."""
    found: list[ManifestObject] = []
    seen: dict[tuple[str, str, str, str], ManifestObject] = {}
    for file in files:
        for manifest in _read(file, show(file)):
            other = seen.setdefault(manifest.key, manifest)
            if other is not manifest:
                _, kind, _, name = manifest.key
                raise _wrong(
                    manifest.location, f"{kind} {name} is there twice", f"first at {other.location}"
                )
            found.append(manifest)
    return tuple(found)


def _read(file: Path, shown: str) -> Iterator[ManifestObject]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise _wrong(Location(shown), "the file is too large for a manifest", None)
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE,
            "a manifest cannot be read",
            location=Location(shown),
            cause=error.strerror or str(error),
        ) from error
    except UnicodeDecodeError as error:
        raise _wrong(Location(shown), "the file is not UTF-8 text", str(error)) from error
    if "{{" in text and re.search(r"^\s*\{\{", text, re.MULTILINE):
        line = text[: text.index("{{")].count("\n") + 1
        raise _wrong(
            Location(shown, line, 1),
            "this is a Helm template, not a manifest",
            "a line begins with {{",
        )
    builder = _Builder(shown)
    try:
        # JSON is YAML, but for tabs between its tokens, which YAML's scanner refuses.
        text = text.replace("\t", " ") if file.suffix == ".json" else text
        for node in yaml.compose_all(text, Loader=_Loader):
            if node is not None:
                yield from builder.objects(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Location(shown, mark.line + 1, mark.column + 1) if mark else Location(shown)
        raise _wrong(place, f"not YAML: {error.problem}", error.context) from error
    except yaml.YAMLError as error:
        raise _wrong(Location(shown), "not YAML", " ".join(str(error).split())) from error
    except RecursionError as error:
        raise _wrong(Location(shown), "nested too deeply", None) from error


def _wrong(place: Location, message: str, cause: str | None) -> DevloopError:
    return DevloopError.of(Code.CONFIG_MANIFEST, message, location=place, cause=cause)


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Scalars as sigs.k8s.io/yaml (go-yaml 2) resolves them."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_BOOL = re.compile(r"(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
for _name, _pattern, _first in (
    ("bool", _BOOL, "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("merge", re.compile(r"<<$"), "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
_Loader.add_implicit_resolver(
    _TAG + "null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)


class _Builder:
    """Turns composed nodes into plain values, noting places; counts nodes against bombs."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = _MOST_NODES

    def objects(self, node: yaml.Node) -> Iterator[ManifestObject]:
        places: dict[tuple[str | int, ...], tuple[int, int]] = {}
        value = self._value(node, (), places)
        if value is None:
            return
        if not isinstance(value, dict):
            raise _wrong(self._at(node), "a manifest is a mapping with apiVersion and kind", None)
        yield from self._flatten(value, places, ())

    def _flatten(
        self,
        value: dict[str, Any],
        places: dict[tuple[str | int, ...], tuple[int, int]],
        prefix: tuple[str | int, ...],
    ) -> Iterator[ManifestObject]:
        kind = value.get("kind")
        entries = value.get("items")
        if isinstance(kind, str) and kind.endswith("List") and isinstance(entries, list):
            for index, entry in enumerate(entries):
                if isinstance(entry, dict):
                    yield from self._flatten(entry, places, (*prefix, "items", index))
            return
        own = {p[len(prefix) :]: at for p, at in places.items() if p[: len(prefix)] == prefix}
        manifest = ManifestObject(object=value, file=self._file, places=own)
        for key in ("apiVersion", "kind"):
            if not isinstance(value.get(key), str) or not value[key]:
                raise _wrong(manifest.at(key), f"the manifest has no {key}", None)
        metadata = value.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            what = "a metadata.name"
            cause = None
            if isinstance(metadata, dict) and metadata.get("generateName"):
                cause = "generateName would make another object at every deploy"
            raise _wrong(manifest.at("metadata"), f"{kind} has no {what}", cause)
        yield manifest

    def _at(self, node: yaml.Node) -> Location:
        return Location(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _value(
        self,
        node: yaml.Node,
        path: tuple[str | int, ...],
        places: dict[tuple[str | int, ...], tuple[int, int]],
    ) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _wrong(self._at(node), "too many values: an anchor that multiplies itself?", None)
        places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            self._tag(node, "map")
            return self._mapping(node, path, places)
        if isinstance(node, yaml.SequenceNode):
            self._tag(node, "seq")
            return [self._value(n, (*path, i), places) for i, n in enumerate(node.value)]
        return self._scalar(node)

    def _tag(self, node: yaml.Node, name: str) -> None:
        if node.tag != _TAG + name:
            raise _wrong(self._at(node), f"the tag {node.tag} has no meaning in a manifest", None)

    def _mapping(
        self,
        node: yaml.MappingNode,
        path: tuple[str | int, ...],
        places: dict[tuple[str | int, ...], tuple[int, int]],
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                sources = (
                    value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                )
                for source in sources:
                    value = self._value(source, (*path, "<<"), places)
                    if not isinstance(value, dict):
                        raise _wrong(self._at(source), "<< wants a mapping", None)
                    merged = {**value, **merged}
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise _wrong(self._at(key_node), "a key must be text", None)
            if key in result:
                raise _wrong(self._at(key_node), f"the key {key!r} is there twice", None)
            result[key] = self._value(value_node, (*path, key), places)
        return {**{k: v for k, v in merged.items() if k not in result}, **result}

    def _scalar(self, node: yaml.Node) -> Any:
        tag, text = node.tag.removeprefix(_TAG), str(node.value)
        if tag == "str":
            return text
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in {"yes", "true", "on"}
        if tag == "int":
            return _int(text)
        if tag == "float":
            return _float(text)
        if tag in {"binary", "timestamp"}:
            return text
        raise _wrong(self._at(node), f"the tag {node.tag} has no meaning in a manifest", None)


def _int(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * int(digits, 8 if digits.startswith("0") and len(digits) > 1 else 10)


def _float(text: str) -> float | int:
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return int(value) if value.is_integer() and abs(value) < 2**53 and "." not in text else value
