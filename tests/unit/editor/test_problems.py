"""Every failure that has a place stands there in an editor's list: the same recorded output goes
through the patterns in Python, in node as VS Code has them, and in Neovim or Vim.

After a wanted change of words: GOLDEN=write pytest tests/unit/editor/test_problems.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from devloop.editor import problems, vscode
from devloop.editor.tasks import EditorProject
from tests.unit.editor.failures import FAILURES, RECORDED, Place, lay_out, output_of

if TYPE_CHECKING:
    from pathlib import Path

NODE = shutil.which("node")
VIMS = {"nvim": ("--headless",), "vim": ("-N", "-es")}


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_recorded_is_what_devloop_prints(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, FAILURES[name].files)
    printed = output_of(FAILURES[name], tmp_path, capsys)
    if os.environ.get("GOLDEN") == "write":
        (RECORDED / f"{name}.txt").write_text(printed)
    assert printed == recorded(name)
    for path, line, *_ in FAILURES[name].places:
        assert line <= len((tmp_path / path).read_text().splitlines())


@pytest.mark.parametrize("name", FAILURES)
def test_the_problems_of_each_failure_are_found(name: str) -> None:
    found: list[Place] = []
    for line in recorded(name).splitlines():
        if match := re.search(problems.PROBLEM, line):
            file, at, column, severity, code = match.groups()[:5]
            found.append((file, int(at), int(column), severity, code))
    assert tuple(found) == FAILURES[name].places


def test_there_is_no_failure_of_which_nothing_is_recorded() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == set(FAILURES)
    assert len(FAILURES) >= 20


def test_the_patterns_are_such_that_every_editor_reads_them_alike() -> None:
    for pattern in (problems.BEGIN, problems.END, problems.PROBLEM):
        assert not re.search(r"\(\?|\\[dswDSWb]|[*+?}]\?", pattern)


_NODE = """
const { pattern, texts } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const regexp = new RegExp(pattern.regexp);
const found = {};
for (const [name, text] of Object.entries(texts)) {
  found[name] = [];
  for (const line of text.split("\\n")) {
    const match = regexp.exec(line);
    if (match) {
      found[name].push([match[pattern.file], +match[pattern.line], +match[pattern.column],
                        match[pattern.severity], match[pattern.code]]);
    }
  }
}
process.stdout.write(JSON.stringify(found));
"""


@pytest.mark.skipif(NODE is None, reason="no node")
def test_javascript_finds_the_same_with_what_is_in_tasks_json() -> None:
    project = EditorProject(commands=frozenset({"dev"}))
    (text,) = vscode.files(project, lambda _: None).values()
    pattern = json.loads(text)["tasks"][0]["problemMatcher"]["pattern"]
    done = subprocess.run(
        [str(NODE), "-e", _NODE],
        input=json.dumps(
            {"pattern": pattern, "texts": {name: recorded(name) for name in FAILURES}}
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {
        name: [list(place) for place in failure.places] for name, failure in FAILURES.items()
    }


_VIM = """
let found = {}
for file in glob(getcwd() . '/*.txt', 0, 1)
  call setqflist([], 'r', {'lines': readfile(file), 'efm': g:errorformat})
  let found[fnamemodify(file, ':t:r')] = map(filter(getqflist(), 'v:val.valid'),
        \\ '[bufname(v:val.bufnr), v:val.lnum, v:val.col, v:val.type, v:val.text]')
endfor
call writefile([json_encode(found)], 'found.json')
qall!
"""


@pytest.mark.parametrize("vim", VIMS)
def test_vim_finds_the_same_with_the_errorformat(vim: str, tmp_path: Path) -> None:
    if shutil.which(vim) is None:
        pytest.skip(f"no {vim}")
    for name in FAILURES:
        shutil.copy(RECORDED / f"{name}.txt", tmp_path)
    (tmp_path / "read.vim").write_text(
        f"let g:errorformat = '{problems.VIM_ERRORFORMAT}'\n{_VIM}", encoding="utf-8"
    )
    subprocess.run(
        [vim, *VIMS[vim], "-u", "NONE", "-i", "NONE", "-S", "read.vim"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert {name: tuple(map(_shown, places)) for name, places in found.items()} == {
        name: failure.places for name, failure in FAILURES.items()
    }


def _shown(item: tuple[str, int, int, str, str]) -> Place:
    path, line, column, kind, text = item
    severity = {"e": "error", "w": "warning", "i": "info"}[kind]
    return path, line, column, severity, text.removeprefix("[").partition("]")[0]
