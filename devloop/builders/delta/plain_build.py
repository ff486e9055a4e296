"""Whether a `builder: command` builds the Dockerfile as it stands, and does nothing else.

A script may compile first and copy the result; then a changed source means more than a changed
layer, and nothing in the image would show it. Only commands that are plainly a build are believed.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
_BUILDERS = frozenset({"docker", "podman", "nerdctl", "buildah"})
_VERBS = frozenset({"build", "push", "tag", "bud"})
# What makes the image of something else than the Dockerfile and the context that devloop knows.
_OTHERWISE = ("-f", "--file", "--target", "--build-arg", "--build-context", "--squash", "--no-")


def is_plain_build(argv: Sequence[str], root: Path, context: Path) -> bool:
    """Whether `argv`, run in `root`, is `docker build CONTEXT` (or another builder's) and pushes,
    perhaps as `sh -c 'docker build ... && docker push ...'`."""
    commands = list(_commands(argv))
    if not commands or not all(_plain(words) for words in commands):
        return False
    built = [words for words in commands if "build" in words or "bud" in words]
    return bool(built) and all(_place(words, root) == context for words in built)


def _commands(argv: Sequence[str]) -> Iterator[list[str]]:
    if len(argv) == 3 and Path(argv[0]).name in _SHELLS and argv[1].strip("-eux") == "c":
        try:
            lexer = shlex.shlex(argv[2].replace("\n", ";"), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            yield [""]
            return
        command: list[str] = []
        for word in (*words, ";"):
            if word in ("&&", ";"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)
    else:
        yield list(argv)


def _plain(words: Sequence[str]) -> bool:
    if not words:
        return False
    if words[0] == "set":
        return True
    if Path(words[0]).name not in _BUILDERS:
        return False
    if any(set(word) <= set("|&;()<>") or "`" in word or "$(" in word for word in words):
        return False
    if any(word.startswith(_OTHERWISE) for word in words):
        return False
    rest = [word for word in words[1:] if word not in ("buildx", "image")]
    return bool(rest) and rest[0] in _VERBS


def _place(words: Sequence[str], root: Path) -> Path | None:
    """The context: the last word, which has to be a directory."""
    path = Path(os.path.normpath(root / words[-1]))
    return path if path.is_dir() else None
