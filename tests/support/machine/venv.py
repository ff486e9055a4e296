"""The project's virtual environment: made once, brought up to date when pyproject.toml changes."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from . import cache, console, debian, shell

ROOT = Path(__file__).resolve().parents[3]
BIN = ROOT / ".venv/bin"
STAMP = ROOT / ".venv/.installed-from"


def ensure() -> None:
    """Have devloop and its development tools in `.venv`."""
    python = BIN / "python"
    key = cache.key(ROOT / "pyproject.toml", sys.version)
    if (
        STAMP.exists()
        and STAMP.read_text() == key
        and shell.succeeds([python, "-c", "import rich"])
    ):
        return
    if not shell.succeeds([python, "-m", "pip", "--version"]):
        create()
    with console.step("installing devloop and its development tools into .venv", "1 min"):
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        shell.run([*pip, "-e", f"{ROOT}[dev]"], timeout=900, cwd=ROOT)
    STAMP.write_text(key)


def create() -> None:
    """Make the virtual environment itself."""
    if importlib.util.find_spec("ensurepip") is None:
        if not debian.usable():
            raise shell.MachineError("this Python has no venv: install the package python3-venv")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        with console.step("apt-get install python3-venv", "15 s"):
            shell.run(["apt-get", "-qq", "update"], timeout=300)
            install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install"]
            shell.run([*install, "python3-venv"], timeout=600, env=quiet)
    with console.step("making .venv", "5 s"):
        shell.run([sys.executable, "-m", "venv", "--clear", ROOT / ".venv"], timeout=300)


def path() -> str:
    """Return the PATH with our own programs first, as every later step and the tests need it."""
    ours = [str(BIN), str(cache.bin_dir())]
    rest = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part not in ours]
    missing = [part for part in shell.SYSTEM_PATH.split(":") if part not in rest]
    return os.pathsep.join([*ours, *rest, *missing])
