"""The cases that differed once, and some that easily could: run with every test, so that none does.

A file is what `python -m tests.bench.differential` writes for a finding; `HOST` stands for the
registry. Its name says what it is about.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.differential.cases import Case

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["load"]

DIRECTORY = Path(__file__).parent / "kept"


def load(host: str, flags: Iterable[str]) -> dict[str, Case]:
    """The cases that a builder which knows `flags` can build, by name."""
    missing = {"--parents", "--exclude"} - set(flags)
    found = {}
    for file in sorted(DIRECTORY.glob("*.json")):
        text = file.read_text()
        if not any(flag in text for flag in missing):
            case = Case.from_json(json.loads(text)["case"])
            found[file.stem] = case.renamed(lambda line: line.replace("HOST", host))
    return found
