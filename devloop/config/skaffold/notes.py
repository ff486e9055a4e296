"""What translating one skaffold.yaml has at hand: the files beside it, the values of templates, and
where to say what devloop does otherwise."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from devloop.base.lazy_dataclass import dataclass
from devloop.config.skaffold.template import has_template, render
from devloop.config.skaffold.tree import given
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.base.yaml_tree import Keys, Node, Scalar
    from devloop.config.problems import Problems
    from devloop.errors import Location


# What stands for `${NAME}` in a text of the tree that goes into a devloop.yaml.
KEPT = re.compile("\ue000([^\ue001]*)\ue001")
_VARIABLE = re.compile(r"\{\{\s*\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_DEFAULT = re.compile(
    r"""\{\{\s*(?:default\s+"([^"$}\\]*)"\s+\.(\w+)|\.(\w+)\s*\|\s*default\s+"([^"$}\\]*)")\s*\}\}"""
)


class FilesBeside(Protocol):
    """The files of the project, by paths relative to it."""

    def text(self, path: str) -> str:
        """The content; "" for what cannot be read."""

    def is_file(self, path: str) -> bool: ...

    def matches(self, pattern: str) -> tuple[str, ...]:
        """The files that a pattern (or a directory's name) stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One document, upgraded, with its profiles applied. `directory` is that of its file relative
    to the project's, "" for the same; `name` is `metadata.name`."""

    document: Keys
    directory: str = ""
    name: str = ""

    def path(self, text: str) -> str:
        """A path of the document relative to the project."""
        return posixpath.normpath(posixpath.join(self.directory, text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Translating:
    """`values` are what templates may name; `supports` says whether a service has a key, `system`
    is the operating system as Go calls it. With `keep_variables` the values of `value` keep theirs,
    see `KEPT`."""

    files: FilesBeside
    values: Mapping[str, str]
    supports: Callable[[str], bool]
    system: str
    problems: Problems
    notes: list[Diagnosis]
    keep_variables: bool = False

    def warn(self, message: str, location: Location, *hints: str, cause: str | None = None) -> None:
        """Of what is otherwise, or not there, in a way that matters."""
        self._note("warning", message, location, hints, cause)

    def inform(self, message: str, location: Location, cause: str | None = None) -> None:
        """Of what makes no difference to `devloop dev`."""
        self._note("info", message, location, (), cause)

    def _note(
        self, severity: str, message: str, at: Location, hints: tuple[str, ...], cause: str | None
    ) -> None:
        found = Diagnosis(
            code=Code.CONFIG_NOT_SUPPORTED,
            severity="warning" if severity == "warning" else "info",
            message=message,
            location=at,
            cause=cause,
            suggestions=tuple(filter(None, hints)),
        )
        if found not in self.notes:
            self.notes.append(found)

    def templated(self, node: Node | None, text: str, more: Mapping[str, str] | None = None) -> str:
        """`text`, which stands at `node`, with its template replaced."""
        if node is None or not has_template(text):
            return text
        found = render(text, {**self.values, **(more or {})})
        if found.wrong:
            self.problems.add(
                Code.CONFIG_NOT_SUPPORTED,
                f"this template cannot be read: {found.wrong}",
                node.location,
                "write the value itself, or set a variable and name it: {{.NAME}}",
            )
        for name in found.missing:
            message = f"the variable {name} is not set; it is taken as empty"
            self.warn(message, node.location, f"set {name}, or add it to skaffold.env")
        return found.text

    def value(self, node: Scalar) -> Scalar:
        """A single value with its template replaced."""
        if self.keep_variables:
            node = replace(node, text=self._kept(node.text))
        return given(self.templated(node, node.text), node.location, plain=node.plain)

    def _kept(self, text: str) -> str:
        def other(found: re.Match[str]) -> str:
            name, value = found[2] or found[3], found[1] or found[4] or ""
            return f"\ue000{name}:-{value}\ue001"

        def plain(found: re.Match[str]) -> str:
            unset = "" if found[1] in self.values else ":-"
            return f"\ue000{found[1]}{unset}\ue001"

        return _VARIABLE.sub(plain, _DEFAULT.sub(other, text))
