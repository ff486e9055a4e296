"""The tree of a devloop.yaml as its text: short, in the order of the tree, with remarks. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.yaml_tree import Items, Keys, Scalar
from devloop.config.skaffold.notes import KEPT
from devloop.config.yaml_text import scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devloop.base.yaml_tree import Node
    from devloop.errors import Diagnosis


_WIDTH = 92


def as_text(root: Keys, notes: Sequence[Diagnosis], *, head: str, env_file: str = "") -> str:
    """`head` are the first lines, as remarks; `notes` come last, as remarks as well. `env_file` is
    named where a variable was kept."""
    body = list(_mapping(root, 0))
    if env_file and any("${" in line.replace("$${", "") for line in body):
        body.insert(1, f"env_file: {scalar(env_file)}")
    lines = [*(f"# {line}" for line in head.splitlines()), *body]
    for severity, title in (
        ("warning", "Not the same as with Skaffold:"),
        ("info", "Left out, as it makes no difference here:"),
    ):
        found = [each for each in notes if each.severity == severity]
        if found:
            lines += ["", f"# {title}"]
            lines += [f"#   {line}" for each in found for line in _remark(each)]
    return "".join(f"{line}\n" for line in lines)


def _remark(note: Diagnosis) -> Iterator[str]:
    cause = f": {note.cause}" if note.cause else ""
    hint = f" ({note.suggestions[0]})" if note.suggestions else ""
    yield f"{note.location}: {note.message}{cause}{hint}"


def _mapping(keys: Keys, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for entry in keys:
        name = f"{indent}{scalar(entry.key)}:"
        value = entry.value
        flow = _flow(value)
        one_line = f"{name} {flow}".rstrip()
        wide = depth < 2 and isinstance(value, Keys)
        if isinstance(value, Keys) and not value.entries:
            yield f"{name} {{}}"
        elif isinstance(value, Scalar) or (
            not wide and "\\n" not in flow and len(one_line) <= _WIDTH
        ):
            yield one_line
        elif isinstance(value, Keys):
            yield name
            yield from _mapping(value, depth + 1)
        else:
            yield name
            yield from _items(value, depth + 1)


def _items(found: Items, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for each in found.items:
        text = _text(each) if isinstance(each, Scalar) else ""
        if "\n" in text and _fits_block(text):
            yield f"{indent}- |-"
            yield from (f"{indent}  {line}".rstrip() for line in text.split("\n"))
        else:
            yield f"{indent}- {_flow(each)}"


def _fits_block(text: str) -> bool:
    """Whether a literal block keeps it as it is."""
    lines = text.split("\n")
    return (
        all(line == line.rstrip() for line in lines)
        and not text.startswith((" ", "\n"))
        and not text.endswith("\n")
        and all(character.isprintable() for line in lines for character in line)
    )


def _flow(node: Node) -> str:
    if isinstance(node, Items):
        return f"[{', '.join(map(_flow, node.items))}]"
    if isinstance(node, Keys):
        pairs = (f"{scalar(each.key)}: {_flow(each.value) or 'null'}" for each in node)
        return f"{{{', '.join(pairs)}}}"
    if node.plain and not isinstance(node.value, str):
        return "" if node.value is None else node.text
    return scalar(_text(node))


def _text(node: Scalar) -> str:
    """As devloop.yaml has it: a `$` is written twice but in a variable that was kept."""
    return re.sub(KEPT, lambda found: f"${{{found[1]}}}", node.text.replace("$", "$$"))
