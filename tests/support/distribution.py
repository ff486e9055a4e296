"""devloop as it is published: a source distribution, the wheel made of it, and what that needs.

Each is made once for the same files and kept in the cache of the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.machine import cache

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
OLDEST = "3.11"
SECONDS = 300  # the compiler of the agents is a large download


def run(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program that does not see the checkout, and return what it prints."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(argument) for argument in argv],
        cwd=cwd,
        env={**own, **(env or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built() -> tuple[Path, Path]:
    """Return the wheel, made from the source distribution, and that."""
    listed = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    names = [name for name in listed.splitlines() if (ROOT / name).is_file()]

    def make(place: Path) -> None:
        source = place.with_suffix(".source")
        for name in names:  # nothing that was built here before
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        uv = (sys.executable, "-m", "uv", "build", "--quiet", "--python", OLDEST)
        run(*uv, "--out-dir", place, source)

    # What else is in the source distribution is not installed.
    counted = [name for name in names if not name.startswith(("tests/", "docs/", "sample_app/"))]
    parts = [part for name in counted for part in (name, ROOT / name)]
    place = _kept("dist", cache.key(*parts), make)
    (wheel,) = place.glob("*.whl")
    (sdist,) = place.glob("*.tar.gz")
    return wheel, sdist


def requirements(python: str, machine: str) -> Path:
    """Return a directory of wheels of all that devloop needs on Linux with that Python (`3.11`)."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    def make(place: Path) -> None:
        platforms = [f"--platform=manylinux{name}_{machine}" for name in ("2014", "_2_17", "_2_28")]
        run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
            *(f"--python-version={python}", *platforms, f"--dest={place}", *needs),
        )

    return _kept("wheels", cache.key(python, machine, *needs), make)


def _kept(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    with cache.lock():
        place = cache.made(f"distribution/{kind}-{key}", make)
        cache.forget(f"distribution/{kind}-*")
    return place
