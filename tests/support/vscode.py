"""A VS Code with a directory open, as its user sees it: a real one (`machine/vscode.py`) in a real
Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from tests.support.browser import Browser, chromium

if TYPE_CHECKING:
    from pathlib import Path

SERVER, CHROMIUM = shutil.which("code-server"), chromium()
_SETTINGS = {"workbench.startupEditor": "none", "workbench.enableExperiments": False}
_CONTROL, _SHIFT = 2, 8
# Whether the entry of a list that Enter takes begins with a text.
_FIRST = (
    "document.querySelector('.quick-input-list .monaco-list-row.focused')?.innerText.startsWith(%s)"
)
# The file, then its problems: `Dockerfile 1`, `RUN exited 3 … [Ln 5, Col 1]`.
_PROBLEMS = """
(() => {
  let file = '';
  const found = [];
  for (const row of document.querySelectorAll('.markers-panel .monaco-list-row')) {
    const at = /\\[Ln ([0-9]+), Col [0-9]+\\]/.exec(row.innerText);
    if (at) found.push(`${file}:${at[1]}`);
    else file = row.innerText.split('\\n')[0];
  }
  return found;
})()"""


class VsCode:
    """The server with `env`, its settings in `place`, and one tab on `directory`."""

    def __init__(self, directory: Path, place: Path, env: dict[str, str]) -> None:
        settings = place / "data/User/settings.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(_SETTINGS))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        no = ("--disable-telemetry", "--disable-update-check", "--disable-workspace-trust")
        own = (f"--user-data-dir={place / 'data'}", f"--extensions-dir={place / 'extensions'}")
        argv = [SERVER or "", "--config", str(place / "config.yaml"), "--auth", "none", *no, *own]
        # As `code` from a shell: the editor has that shell's environment.
        here = {**os.environ, **env, "VSCODE_CLI": "1"}
        here.pop("PORT", None)
        with (place / "server.log").open("w") as log:
            self._server = subprocess.Popen(
                [*argv, "--bind-addr", address, str(directory)],
                env=here,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await(address)
            self.tab = Browser(CHROMIUM or "")
        except BaseException:
            self._stop()
            raise
        self.tab.look(1400, 900)
        self._url = f"http://{address}/?folder={quote(str(directory))}"

    def __enter__(self) -> Self:
        try:
            self.tab.open(self._url)
            self.tab.until("!!document.querySelector('.monaco-workbench .explorer-item')", 120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.tab.__exit__()
        finally:
            self._stop()

    def _await(self, address: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/healthz", timeout=5):
                    return
            except OSError:
                assert self._server.poll() is None, "code-server ended"
                assert time.monotonic() < deadline, "code-server does not answer"
                time.sleep(0.1)

    def _stop(self) -> None:
        """With the terminals, which lead sessions of their own and go with their host."""
        os.killpg(self._server.pid, signal.SIGTERM)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(20)

    # --- what its user does and sees -----------------------------------------------------------

    def key(self, name: str, *, modifiers: int = 0) -> None:
        """Press one key: a letter, or `Enter`, `F5` and the like."""
        codes = {"Enter": 13, "Escape": 27, "F1": 112, "F5": 116}
        number = codes.get(name) or ord(name.upper())
        code = f"Key{name.upper()}" if len(name) == 1 else name
        for kind in ("rawKeyDown", "keyUp"):
            self.tab.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=code,
                windowsVirtualKeyCode=number,
                modifiers=modifiers,
            )

    def command(self, title: str, seconds: float = 90) -> None:
        """By the command palette, under its whole title. A palette that opened before it was ready
        to be typed into is closed and opened again."""
        deadline = time.monotonic() + seconds
        while True:
            self.key("F1")
            try:
                self.tab.until("document.querySelector('.quick-input-box input')?.value === '>'", 5)
                self.tab.call("Input.insertText", text=title)
                self.tab.until(_FIRST % json.dumps(title), 5)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                self.key("Escape")
            else:
                return self.key("Enter")

    def pick(self, label: str, seconds: float = 60) -> None:
        """Of the list that is open, the first entry, which is to be `label`."""
        self.tab.until(_FIRST % json.dumps(label), seconds)
        self.key("Enter")

    def problems(self) -> list[str]:
        """`file:line` of what the Problems panel lists, which is brought to the front."""
        if not self.tab.run("!!document.querySelector('.markers-panel')?.offsetParent"):
            self.key("M", modifiers=_CONTROL | _SHIFT)
        return sorted(self.tab.run(_PROBLEMS))

    def lists(self, problems: list[str], seconds: float = 60) -> None:
        """Wait until these are the problems that are listed."""
        deadline = time.monotonic() + seconds
        while (found := self.problems()) != problems:
            if time.monotonic() > deadline:
                raise AssertionError(f"the panel lists {found}, not {problems}\n{self.text()}")
            time.sleep(0.2)

    def text(self) -> str:
        """All text of the page, for a message."""
        return str(self.tab.run("document.body.innerText"))
