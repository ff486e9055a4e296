"""Builds the agent for containers: by hand, for `script/test`, and as a hook of hatchling.

`python agent/hatch_build.py` builds what is missing or older than its sources, with a compiler from
PyPI that it keeps in the user's cache. Within a build of the package hatchling has pip bring that
compiler, and only when something has to be built: it is a download of 80 MB. Whether something has
is one comparison of hashes. Needs the standard library only, and is the same on every host: both
programs are for Linux, and their bytes depend on nothing but the sources, the flags and the
compiler's version.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand or by a test
    BuildHookInterface = object

COMPILER_VERSION = "0.17.1"
COMPILER = f"ziglang=={COMPILER_VERSION}"
# "none": no C library, which would have to be built first.
TARGETS = {"linux-amd64": "x86_64-linux-none", "linux-arm64": "aarch64-linux-none"}
FLAGS = (
    *("-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib"),
    *("-static", "-s", "-ffunction-sections", "-fdata-sections", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-sanitize=all"),
    *("-Wl,--gc-sections", "-Wl,--build-id=none"),
)
MOST_BYTES = 64_000
SOURCES = Path(__file__).resolve().parent
BINARIES = SOURCES.parent / "devloop" / "agents"
_STAMP = "built-from"
_SECONDS = 300


class BuildError(Exception):
    """Why the agent cannot be built, in one sentence for whoever installs devloop."""


def built_from() -> str:
    """What the binaries depend on, as one hash."""
    total = hashlib.sha256(repr((COMPILER, sorted(TARGETS.items()), FLAGS)).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        content = source.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{source.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def is_built() -> bool:
    """Whether both binaries are there and made of these sources."""
    try:
        stamp = (BINARIES / _STAMP).read_text().strip()
    except OSError:
        return False
    return stamp == built_from() and all((BINARIES / name).is_file() for name in TARGETS)


def build(compiler: list[str], environment: dict[str, str]) -> None:
    """Build both; nothing half done is ever seen at their places."""
    stamp = built_from()
    BINARIES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BINARIES, prefix=".part-") as folder:
        own = {**environment, "ZIG_LOCAL_CACHE_DIR": folder}
        with ThreadPoolExecutor(len(TARGETS)) as both:
            made_by = [
                both.submit(_compile, compiler, target, Path(folder) / name, own)
                for name, target in TARGETS.items()
            ]
        for name, made_ in zip(TARGETS, made_by, strict=True):
            made_.result()
            made = Path(folder) / name
            made.chmod(0o755)
            if made.stat().st_size > MOST_BYTES:
                raise BuildError(f"{name} has {made.stat().st_size} bytes, above {MOST_BYTES}")
        for name in TARGETS:
            (Path(folder) / name).replace(BINARIES / name)
        (Path(folder) / _STAMP).write_text(stamp + "\n")
        (Path(folder) / _STAMP).replace(BINARIES / _STAMP)


def _compile(compiler: list[str], target: str, made: Path, environment: dict[str, str]) -> None:
    sources = sorted(source.name for source in SOURCES.glob("*.c"))
    argv = [*compiler, "cc", "-target", target, *FLAGS, *sources, "-o", str(made)]
    try:
        done = subprocess.run(
            argv,
            cwd=SOURCES,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"devloop's agent cannot be built: {error}") from error
    if done.returncode:
        raise BuildError(f"devloop's agent cannot be built for {target}:\n{done.stderr[-4000:]}")


def installed_compiler() -> list[str]:
    """The compiler of this interpreter. Raises `BuildError` when it has none."""
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(
            f"devloop's agent is not built yet, and its compiler is missing: install {COMPILER} "
            "from PyPI (pip does so by itself unless build isolation is off)"
        )
    return [sys.executable, "-m", "ziglang"]


def ensure() -> None:
    """Build both unless they are there, bringing the compiler into the user's cache if need be.

    Raises `BuildError`."""
    if is_built():
        return
    environment = dict(os.environ)
    if importlib.util.find_spec("ziglang") is None:
        environment["PYTHONPATH"] = str(_fetched_compiler())
    build([sys.executable, "-m", "ziglang"], environment)


def _fetched_compiler() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or (
        os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    )
    home = (Path(base) if base else Path.home() / ".cache") / "devloop"
    final = home / f"ziglang-{COMPILER_VERSION}"
    if final.is_dir():
        return final
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".part-") as folder:
        fetched = Path(folder) / "fetched"
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", COMPILER]
        done = subprocess.run(
            [*argv, "--target", str(fetched)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(
                f"devloop's agent cannot be built, for its compiler {COMPILER} cannot be had from "
                f"PyPI:\n{done.stderr[-2000:]}"
            )
        try:
            fetched.rename(final)
        except OSError:
            if not final.is_dir():  # else somebody else was faster
                raise
    return final


class AgentBuildHook(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Puts the binaries into the wheel, or beside the sources for an editable install."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What pip has to bring before the build."""
        return [] if is_built() else [COMPILER]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and say what belongs in the wheel."""
        if not is_built():
            try:
                build(installed_compiler(), dict(os.environ))
            except BuildError as error:
                if version != "editable":
                    sys.exit(f"error: {error}")
                sys.stderr.write(f"warning: {error}\nwithout it nothing is replaced hot\n")
        if version != "editable":
            for name in TARGETS:
                build_data["force_include"][str(BINARIES / name)] = f"devloop/agents/{name}"


if __name__ == "__main__":
    try:
        ensure()
    except BuildError as error:
        sys.exit(f"agent/hatch_build.py: {error}")
