"""The page's scripts, as far as they need no browser: run by node where there is one."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="there is no node here to run the page's scripts")
def test_the_scripts_of_the_page(tmp_path: Path) -> None:
    static = Path(str(resources.files("devloop.web").joinpath("static")))
    for file in static.glob("*.js"):
        shutil.copy(file, tmp_path)
    # A browser is told by the page that they are modules.
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(
        [NODE or "node", Path(__file__).with_name("state_test.mjs"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" tests\n")
