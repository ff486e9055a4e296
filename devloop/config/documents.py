"""The text of a configuration file, and its YAML tree with what is wrong in it as problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.yaml_tree import read_yaml
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.yaml_tree import Node
    from devloop.config.problems import Problems


LARGEST_FILE = 4 * 1024 * 1024


def read_text(path: Path, shown: str) -> str:
    """The text of a file named `shown` in messages.

    Raises `DevloopError`: config/not-found, env/file-unreadable or config/parse (not UTF-8)."""

    def fault(code: Code, message: str, cause: str | None = None) -> DevloopError:
        return DevloopError.of(code, message, location=Location(shown), cause=cause)

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise fault(Code.CONFIG_NOT_FOUND, f"{shown} does not exist") from None
    except IsADirectoryError:
        raise fault(Code.CONFIG_NOT_FOUND, f"{shown} is a directory, not a file") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise fault(Code.ENV_FILE_UNREADABLE, f"{shown} cannot be read", why) from None
    if len(data) > LARGEST_FILE:
        size = f"{LARGEST_FILE // 1024 // 1024} MB"
        raise fault(Code.CONFIG_PARSE, f"{shown} is larger than {size}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Of the text behind a byte order mark, to which the positions belong.
        data, before = error.object, error.object[: error.start]
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            f"the file is not UTF-8 text: byte 0x{data[error.start]:02x}",
            location=Location.after(before.decode(), shown),
            suggestions=("save the file with the encoding UTF-8",),
        ) from None


def compose_documents(
    text: str, shown: str, problems: Problems, *, lenient: bool = False
) -> tuple[Node, ...]:
    """The documents of a YAML text; an empty one is left out.

    What is wrong goes to `problems`: after a syntax error nothing is returned; tags, merge keys
    (unless `lenient`), duplicate keys and too many nodes are reported, and the rest is read on."""
    nodes, faults = read_yaml(text, shown, lenient=lenient)
    for fault in faults:
        problems.add(
            Code.CONFIG_DUPLICATE_KEY if fault.duplicate else Code.CONFIG_PARSE,
            fault.message,
            fault.location,
            *fault.suggestions,
            cause=fault.cause,
            detail=fault.detail,
        )
    return nodes
