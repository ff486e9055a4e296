"""A real VS Code, served to a browser: code-server from npm, and the Chromium that looks at it.

Nothing but package registries is needed. npm's scripts would download prebuilt programs from
elsewhere, so none is run; of the native modules, those two are built that it does not start a task
without. Node is npm's too, headers included, so that it does not matter which one the machine has.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from . import cache, console, debian, shell

if TYPE_CHECKING:
    from pathlib import Path

CODE_SERVER = "4.100.3"  # VS Code 1.100, the last one for Node 20
NODE = "20.19.5"
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
BUILD_TOOLS = {"g++": "g++", "make": "make", "python3": "python3"}
BROWSER = {"chromium": "chromium"}
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")

PROGRAM = """\
#!/bin/sh
top=$(dirname "$(readlink -f "$0")")
exec "$top/{node}/bin/node" "$top/node_modules/code-server/out/node/entry.js" "$@"
"""


def ensure() -> None:
    """Have `code-server` and Chromium, on Linux where npm is: without them, the tests that look at
    an editor are skipped."""
    architecture = ARCHITECTURES.get(os.uname().machine)
    if sys.platform != "linux" or architecture is None or shell.find("npm") is None:
        return
    if debian.usable():
        debian.install(BROWSER)
    node = f"node_modules/node-linux-{architecture}"

    def make(top: Path) -> None:
        if debian.usable():
            debian.install(BUILD_TOOLS)
        with console.step(f"VS Code (code-server {CODE_SERVER}) from npm", "1 to 2 min"):
            build(top, top / node)
        program = top / "code-server"
        program.write_text(PROGRAM.format(node=node))
        program.chmod(0o755)

    made_from = cache.key(CODE_SERVER, NODE, architecture, PROGRAM)
    place = cache.made(f"code-server-{made_from}", make)
    cache.forget("code-server-*")
    cache.link(place / "code-server", "code-server")


def build(top: Path, node: Path) -> None:
    """Install both into `top`, `node` being where npm puts the second."""
    top.mkdir()
    (top / "package.json").write_text('{"private": true}\n')
    packages = (f"code-server@{CODE_SERVER}", f"{node.name}@{NODE}")
    shell.run(["npm", "install", *QUIET, *packages], timeout=900, cwd=top)
    env = {
        "PATH": f"{node / 'bin'}:{os.environ['PATH']}",
        "npm_config_nodedir": str(node),
        "npm_config_build_from_source": "true",
    }
    shell.run(["npm", "rebuild", "argon2"], timeout=600, cwd=top, env=env)
    inner = top / "node_modules/code-server/lib/vscode"
    shell.run(["npm", "install", "--omit=dev", *QUIET], timeout=900, cwd=inner, env=env)
    explore = ["npm", "explore", "node-pty", "--", "node-gyp", "rebuild"]
    shell.run(explore, timeout=600, cwd=inner, env=env)
    shutil.rmtree(inner / "node_modules/node-pty/build/Release/obj.target", ignore_errors=True)
