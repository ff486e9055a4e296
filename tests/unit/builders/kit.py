"""What the build tests share: recorded streams, scans of real directories, a reporter that
notes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.builders.job import Job
from devloop.config.builds import Build
from devloop.model import ContextEntry, Fingerprint, PushTarget, Scan, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.errors import Diagnosis
    from devloop.model import Step, StepOutcome

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> list[str]:
    return (RECORDED / f"{name}.txt").read_text().splitlines()


def recorded_items(name: str) -> Iterator[Any]:
    for line in recorded(name):
        yield json.loads(line)


def snapshot_of(context: Path) -> Snapshot:
    """All of a directory, whatever the ignore files say."""
    entries = {}
    for directory, names, files in os.walk(context):
        for name in (*names, *files):
            path = Path(directory) / name
            found = path.lstat()
            relative = str(path.relative_to(context))
            mode = stat.S_IMODE(found.st_mode)
            if path.is_symlink():
                entries[relative] = ContextEntry("symlink", mode, link=os.readlink(path))  # noqa: PTH115
            elif path.is_dir():
                entries[relative] = ContextEntry("dir", mode)
            else:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                entries[relative] = ContextEntry("file", mode, found.st_size, digest)
    entries = dict(sorted(entries.items()))
    digest = hashlib.sha256(repr(entries).encode("utf-8", "surrogateescape")).hexdigest()
    return Snapshot(entries=entries, digest=digest, stamp=digest)


def scan_of(context: Path, salt: str = "") -> Scan:
    snapshot = snapshot_of(context)
    build = hashlib.sha256((salt + snapshot.digest).encode()).hexdigest()
    return Scan(fingerprint=Fingerprint(build, ""), snapshot=snapshot)


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def job(context: Path, target: PushTarget | None = None, **options: Any) -> Job:
    build = {"context": context, "dockerfile": context / "Dockerfile"} | options.pop("build", {})
    defaults: dict[str, Any] = {
        "build": Build(**build),
        "image": "shop/web",
        "root": context,
        "target": target or PushTarget(push="localhost:5001"),
        "shown": "app/Dockerfile",
        "written_since": lambda _: frozenset(),
    }
    return Job(**(defaults | options))


@dataclass(slots=True)
class Notes:
    """A reporter that keeps everything."""

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    diagnostics: list[Diagnosis] = field(default_factory=list)

    def started(self, step: Step) -> None:
        self.steps.append((step.value, "started", ""))

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        assert step.value == self.steps[-1][0], "progress of a step that is not open"
        self.messages.append(message)

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        assert (step.value, "started", "") in self.steps
        self.steps.append((step.value, outcome.value, detail))

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self.diagnostics.append(diagnosis)


class FakeRegistry:
    """A registry with `tags`: reference -> digest, or an error to raise."""

    def __init__(self, tags: dict[str, str] | None = None, error: Exception | None = None) -> None:
        self.tags = tags or {}
        self.error = error
        self.asked: list[tuple[str, str]] = []

    def digest(self, repository: str, reference: str, cancel: object = None) -> str | None:
        self.asked.append((repository, reference))
        if self.error is not None:
            raise self.error
        return self.tags.get(reference)
