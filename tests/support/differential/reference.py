"""The slow path: many contexts built in one `docker buildx bake --no-cache`, pushed to a registry.

One process for all, because starting a build is most of its cost. A context that cannot be built
takes the whole bake down, so what is expected to fail is built alone, and after a failure all are.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Bake", "Target", "knows"]

_LIMIT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One build. `repository` is `host/path`; the image is pushed there as `:reference`."""

    context: Path
    dockerfile: Path
    repository: str
    args: Mapping[str, str]
    stage: str | None = None


class Bake:
    """Builds with the builder that buildx uses here (`BUILDX_BUILDER` chooses another)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # What the builder said last of each target that it could not build.
        self.refusals: dict[str, str] = {}

    def alone(self, target: Target, *, cache: bool = False) -> str | None:
        """The digest of one image that nothing else is built beside, None when it cannot be built;
        with `cache`, what comes of it when the builder uses what it has."""
        digests = self._bake({"alone": target}, cache=cache)
        return digests["alone"] if digests else None

    def build(
        self, targets: Mapping[str, Target], doubtful: Sequence[str] = ()
    ) -> dict[str, str | None]:
        """The digest of each image, None for what cannot be built. `doubtful` are those that will
        probably fail."""
        sure = [name for name in targets if name not in doubtful]
        found: dict[str, str | None] = {}
        if sure:
            together = self._bake({name: targets[name] for name in sure})
            if together is None:
                doubtful = list(targets)
            else:
                found.update(together)
        with ThreadPoolExecutor(4) as pool:
            alone = pool.map(lambda name: (name, self._bake({name: targets[name]})), doubtful)
            for name, digests in alone:
                found[name] = digests[name] if digests else None
        return found

    def _bake(self, targets: Mapping[str, Target], *, cache: bool = False) -> dict[str, str] | None:
        with tempfile.TemporaryDirectory(dir=self._directory, prefix="bake-") as directory:
            file, metadata = Path(directory) / "bake.json", Path(directory) / "metadata.json"
            document = {
                "group": {"default": {"targets": list(targets)}},
                "target": {name: _described(target) for name, target in targets.items()},
            }
            file.write_text(json.dumps(document))
            command = ["docker", "buildx", "bake", "--progress=plain"]
            command += [] if cache else ["--no-cache"]
            done = subprocess.run(
                [*command, f"--metadata-file={metadata}", f"--file={file}"],
                cwd=directory,
                check=False,
                capture_output=True,
                timeout=_LIMIT,
            )
            if done.returncode != 0:
                errors = [line for line in done.stderr.splitlines() if b"ERROR" in line]
                self.refusals.update(dict.fromkeys(targets, b"".join(errors[-1:]).decode()))
                return None
            known = json.loads(metadata.read_text())
        return {name: known[name]["containerimage.digest"] for name in targets}


def _described(target: Target) -> dict[str, object]:
    name = f"type=image,name={target.repository}:reference,push=true"
    described: dict[str, object] = {
        "context": str(target.context),
        "dockerfile": str(target.dockerfile),
        "args": dict(target.args),
        "output": [name],
        "attest": ["type=provenance,disabled=true"],
    }
    if target.stage:
        described["target"] = target.stage
    return described


def knows(flag: str) -> bool:
    """Whether the builder takes this flag of COPY (`--parents` and `--exclude` are not in every
    BuildKit)."""
    with tempfile.TemporaryDirectory(prefix="devloop-differential-") as directory:
        (Path(directory) / "Dockerfile").write_text(f"FROM scratch\nCOPY {flag} Dockerfile /\n")
        done = subprocess.run(
            ["docker", "buildx", "build", "--output=type=cacheonly", directory],
            check=False,
            capture_output=True,
            timeout=60,
        )
    return done.returncode == 0
