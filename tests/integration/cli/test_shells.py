"""What a TAB makes of a line in the shells themselves, on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.pty_program import PtyProgram
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = "version: 1\nservices:\n  web: {build: .}\n  worker: {build: w}\n  api: {build: api}\n"
KUBECONFIG = "contexts: [{name: kind-a, context: {}}, {name: team-b, context: {}}]\n"

# Asked by a shell it answers as ever; called by somebody it writes down with what.
PROGRAM = """#!/bin/sh
case "$_DEVLOOP_COMPLETE:$1" in
:completion) ;;
:*) echo "$*" >> called; exit ;;
esac
exec "{python}" -m devloop "$@"
"""

SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), """PS1='ready''> '\n"""),
    "zsh": (
        ("zsh", "-f", "-i"),
        # An ambiguous word is left as it is, and a prompt is not preceded by a mark.
        """unsetopt prompt_sp; PS1='ready''> '; autoload -Uz compinit; compinit -u -d dump\n""",
    ),
    "fish": (("fish", "--no-config", "-i"), """function fish_prompt; echo 'ready''> '; end\n"""),
}
LEARN = {
    "bash": 'eval "$(devloop completion bash)"\n',
    "zsh": 'eval "$(devloop completion zsh)"\n',
    "fish": "devloop completion fish | source\n",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_tab_completes_commands_options_services_and_contexts(shell: str, tmp_path: Path) -> None:
    argv, prompt = SHELLS[shell]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {shell} here: script/test brings it on Debian")
    (tmp_path / "devloop.yaml").write_text(PROJECT)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    program = tmp_path / "bin/devloop"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
    }
    with PtyProgram(argv, cwd=tmp_path, env=env) as terminal:
        terminal.type(prompt)
        at = terminal.until("ready> ")
        terminal.type(LEARN[shell])
        at = terminal.until("ready> ", after=at)
        for typed in ("devloop doc\t", "devloop dev wo\t", "devloop logs --context te\tap\t"):
            terminal.type(f"{typed}\n")
        called = tmp_path / "called"
        until(lambda: called.is_file() and len(called.read_text().splitlines()) == 3)
    lines = [line.split() for line in called.read_text().splitlines()]
    assert lines == [["doctor"], ["dev", "worker"], ["logs", "--context", "team-b", "api"]]
