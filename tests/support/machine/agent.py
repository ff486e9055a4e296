"""The agent for containers: built again when its sources changed, which is one hash to compare."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import console, shell

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "agent/hatch_build.py"


def recipe() -> ModuleType:
    """Return the recipe as a module; it is part of no package."""
    spec = importlib.util.spec_from_file_location("agent_hatch_build", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ensure(python: str | Path = sys.executable) -> Path:
    """Have the agents built, by `python` if need be, and return the directory they are in.

    Raises:
        MachineError: they cannot be built here; the message says why.
    """
    module = recipe()
    if not module.is_built():
        with console.step("building the agent for containers", "5 s, and a download"):
            shell.run([python, RECIPE], timeout=900, cwd=ROOT)
    binaries: Path = module.BINARIES
    return binaries
