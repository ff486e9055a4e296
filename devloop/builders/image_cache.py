"""Remembers which image came of which content, so that going back to it needs no build.

A record is only believed while the registry still has the manifest. The file is a cache: losing it
costs a build.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from devloop.base.state_file import StateFile
from devloop.errors import DevloopError
from devloop.model import Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.job import Job
    from devloop.engine.ports import Builder, Reporter
    from devloop.model import ImageRef, Scan


# Enough to go back some steps; a session of many services must not forget one over another.
_KEPT = 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class CachedImages:
    """`(repository, build fingerprint) -> digest`, in a JSON file; the last 20 of each repository.
    Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path, durable=True)

    def find(self, repository: str, build: str) -> str | None:
        return _images(self._file.read() or {}).get(_key(repository, build))

    def add(self, repository: str, build: str, digest: str) -> None:
        with self._file.updating() as value:
            images = value["images"] = _images(value)
            images.pop(_key(repository, build), None)
            images[_key(repository, build)] = digest
            mine = [key for key in images if key.startswith(_key(repository, ""))]
            for key in mine[:-_KEPT]:
                del images[key]


def _images(value: Mapping[str, Any]) -> dict[str, str]:
    images = value.get("images")
    if not isinstance(images, dict):
        return {}
    return {k: v for k, v in images.items() if isinstance(v, str) and _DIGEST.fullmatch(v)}


def _key(repository: str, build: str) -> str:
    return f"{repository}@{build}"


class CachingBuilder:
    """A builder that looks into the cache first and asks the fallback builder second."""

    def __init__(self, job: Job, fallback: Builder, images: CachedImages) -> None:
        self._job = job
        self._fallback = fallback
        self._images = images

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        repository = self._job.repository
        digest = self._known(repository, scan, cancel)
        if digest is not None:
            reporter.started(Step.BUILD)
            reporter.finished(Step.BUILD, StepOutcome.SKIPPED, f"same content as {digest[:19]}…")
            return self._job.image_ref(scan, digest)
        image = self._fallback.build(scan, reporter, cancel)
        if image.digest:
            # Only here, after the fallback builder made sure that no file changed meanwhile.
            self._images.add(repository, scan.fingerprint.build, image.digest)
        return image

    def _known(self, repository: str, scan: Scan, cancel: Cancel) -> str | None:
        registry = self._job.registry
        digest = self._images.find(repository, scan.fingerprint.build)
        if digest is None or registry is None or not self._job.target.push:
            return None
        try:
            return digest if registry.digest(repository, digest, cancel) == digest else None
        except DevloopError:
            # The build will say what is wrong with the registry, if it is wrong there too.
            return None
