"""What is written for each editor, into an empty project and into files that somebody keeps.

After a wanted change: GOLDEN=write pytest tests/unit/editor/test_editor_files.py, and the diff is
to be read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from devloop.editor import jetbrains, nvim, vscode, zed
from devloop.editor.jsonc import parse
from devloop.editor.tasks import EditorDebugger, EditorProject

GOLDEN = Path(__file__).parent / "golden"
EDITORS = {"vscode": vscode, "jetbrains": jetbrains, "zed": zed, "nvim": nvim}
COMMANDS = frozenset({"dev", "run", "check", "status"})
PROJECT = EditorProject(commands=COMMANDS)


DEBUGGERS = (
    EditorDebugger(
        service="api", kind="python", port=5678, roots=(("api/lib", "/opt/lib"), ("api", "/app"))
    ),
    EditorDebugger(service="web", kind="node", port=9229, roots=(("web", "/srv"),)),
    EditorDebugger(service="job", kind="go", port=2345, roots=(("", "/src"),)),
)


def check(path: Path, text: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("editor", EDITORS)
def test_an_empty_project(editor: str) -> None:
    for name, text in EDITORS[editor].files(PROJECT, lambda _: None).items():
        check(GOLDEN / editor / name.removeprefix("."), text)


@pytest.mark.parametrize("editor", EDITORS)
def test_what_attaches_to_services_that_are_debugged(editor: str) -> None:
    plain = EDITORS[editor].files(PROJECT, lambda _: None)
    project = dataclasses.replace(PROJECT, debuggers=DEBUGGERS)
    wanted = EDITORS[editor].files(project, lambda _: None)
    for name, text in wanted.items():
        if plain.get(name) != text:
            check(GOLDEN / "debug" / editor / name.removeprefix("."), text)
    assert EDITORS[editor].files(project, wanted.get) == wanted


def test_a_launch_configuration_of_somebody_elses_stays() -> None:
    kept = '{"configurations": [{"name": "mine", "port": 1}, // as it is\n], "compounds": []}\n'
    project = dataclasses.replace(PROJECT, directory="shop", debuggers=DEBUGGERS[:1])
    text = vscode.files(project, {".vscode/launch.json": kept}.get)[".vscode/launch.json"]
    assert '{"name": "mine", "port": 1}, // as it is' in text
    node = parse(text, "")
    assert node is not None
    assert [e["name"] for e in node.value["configurations"]] == [
        "mine",
        "devloop: debug api (shop)",
    ]
    assert node.value["compounds"] == []


@pytest.mark.parametrize(
    ("editor", "name"), [("vscode", "tasks.json"), ("zed", "zed.json"), ("nvim", "nvim.lua")]
)
def test_files_that_somebody_keeps(editor: str, name: str) -> None:
    before = GOLDEN / "rich" / name
    wanted = EDITORS[editor].files(PROJECT, lambda _: before.read_text())
    path = list(wanted)[-1]
    check(before.with_stem(f"{before.stem}-merged"), wanted[path])
    assert EDITORS[editor].files(PROJECT, lambda _: wanted[path])[path] == wanted[path]


@pytest.mark.parametrize("editor", EDITORS)
def test_a_project_below_the_workspace_has_its_own_directory_and_names(editor: str) -> None:
    below = EditorProject(directory="a b/api", file="ci.yaml", commands=COMMANDS)
    wanted = EDITORS[editor].files(below, lambda _: None)
    for name in wanted.keys() - {".nvim.lua"}:
        assert "a b/api" in wanted[name].replace("\\ ", " ")  # as a Vim option has it
    assert any("ci.yaml" in text for text in wanted.values())


def test_two_projects_of_a_workspace_share_its_tasks_and_have_lists_of_their_own() -> None:
    api = EditorProject(directory="api", commands=COMMANDS)
    (one,) = vscode.files(PROJECT, lambda _: None).values()
    (both,) = vscode.files(api, lambda _: one).values()
    tasks = json.loads(both)["tasks"]
    assert tasks[:3] == json.loads(one)["tasks"]
    assert [task["label"] for task in tasks[3:]] == [
        "devloop: dev (api)",
        "devloop: run (api)",
        "devloop: check (api)",
    ]
    assert {task["options"]["cwd"] for task in tasks[3:]} == {"${workspaceFolder}/api"}
    owners = [task["problemMatcher"]["owner"] for task in tasks]
    assert owners == ["devloop"] * 3 + ["devloop api"] * 3


def test_only_commands_that_there_are_become_tasks() -> None:
    more = EditorProject(commands=COMMANDS | {"logs", "trigger"})
    (text,) = zed.files(more, lambda _: None).values()
    node = parse(text, "")
    assert node is not None
    assert [each["label"].removeprefix("devloop: ") for each in node.value] == [
        "dev",
        "run",
        "trigger",
        "logs",
        "check",
    ]


def test_jetbrains_files_are_xml_whatever_the_directory_is_called() -> None:
    odd = EditorProject(directory='a"<&', commands=COMMANDS)
    for name, text in jetbrains.files(odd, lambda _: None).items():
        assert name.startswith(".run/devloop-")
        options = ET.fromstring(text).findall("*/option")
        values = {each.get("name"): each.get("value") for each in options}
        assert values["SCRIPT_WORKING_DIRECTORY"] == '$PROJECT_DIR$/a"<&'


STREAM = """\
devloop: begin #1 web start
devloop: begin #2 api start
app.py:2:3: error[pod/crash-loop]: container web exits
k8s/web.yaml:1:1: warning[config/manifest]: mind this
    app.py:9:9: error [a/b]: forged
devloop: end #2 failed rollout 3.1s
devloop: begin #1 web under way
app.py:2:3: error[pod/crash-loop]: container web exits
k8s/web.yaml:1:1: warning[config/manifest]: mind this
devloop: end #1 ready 3.1s
"""
_LOOK = """
vim.cmd("Devloop")
local done = vim.wait(20000, function()
  for _, buffer in ipairs(vim.api.nvim_list_bufs()) do
    for _, line in ipairs(vim.api.nvim_buf_get_lines(buffer, 0, -1, false)) do
      if vim.startswith(line, "devloop: end @LAST@ ") then
        return true
      end
    end
  end
end, 10)
local found = {}
for _, item in ipairs(vim.fn.getqflist()) do
  if item.valid == 1 then
    local path = vim.fn.fnamemodify(vim.fn.bufname(item.bufnr), ":.")
    table.insert(found, { path, item.lnum, item.col, item.type, item.text })
  end
end
local shown = #vim.diagnostic.get()
vim.fn.writefile({ vim.fn.json_encode({ done, found, shown }) }, "found.json")
vim.cmd("DevloopStop")
vim.cmd("qall!")
"""


@pytest.mark.skipif(shutil.which("nvim") is None, reason="no Neovim")
@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("directory", ["", "api"])
def test_neovim_lists_what_a_session_in_its_background_finds(
    tmp_path: Path, mended: bool, directory: str
) -> None:
    project = EditorProject(directory=directory, commands=COMMANDS)
    for name, text in nvim.files(project, lambda _: None).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    root = tmp_path / directory
    (root / "k8s").mkdir(parents=True)
    (root / "k8s/web.yaml").write_text("a\n")
    (root / "app.py").write_text("a\nbbbb\n")
    stream = STREAM + ("devloop: begin #3 web 1 file\ndevloop: end #3 ready 1s\n" if mended else "")
    (tmp_path / "stream").write_text(stream)
    fake = tmp_path / "bin/devloop"
    fake.parent.mkdir()
    # `cat` ends when it is told to, as devloop does.
    fake.write_text(
        f'#!/bin/sh\n[ "$*" = "dev --output lines" ] && exec cat "{tmp_path}/stream" -\n'
    )
    fake.chmod(0o755)
    (tmp_path / "look.lua").write_text(_LOOK.replace("@LAST@", "#3" if mended else "#1"))
    subprocess.run(
        ["nvim", "--headless", "-u", ".nvim.lua", "-i", "NONE", "-S", "look.lua"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{fake.parent}:{os.environ['PATH']}"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    below = f"{directory}/" if directory else ""
    found = [
        [f"{below}app.py", 2, 3, "e", "[pod/crash-loop]: container web exits"],
        [f"{below}k8s/web.yaml", 1, 1, "w", "[config/manifest]: mind this"],
    ]
    expected = [True, [], 0] if mended else [True, found, 2]
    assert json.loads((tmp_path / "found.json").read_text()) == expected


@pytest.mark.parametrize("vim", [("nvim", "--headless"), ("vim", "-N", "-es")])
@pytest.mark.parametrize("directory", ["", "a b"])
def test_make_fills_the_quickfix_list_in_neovim_and_vim(
    tmp_path: Path, vim: tuple[str, ...], directory: str
) -> None:
    if shutil.which(vim[0]) is None:
        pytest.skip(f"no {vim[0]}")
    project = EditorProject(directory=directory, commands=COMMANDS)
    for name, text in nvim.files(project, lambda _: None).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / directory).mkdir(exist_ok=True)
    (tmp_path / directory / "app.py").write_text("")
    fake = tmp_path / "bin/devloop"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\necho "app.py:2:3: error[a/b]: $*"; echo "  cause  app.py:1:1: no"\n'
    )
    fake.chmod(0o755)
    (tmp_path / "make.vim").write_text(
        "set runtimepath+=.nvim\ncompiler devloop\nsilent make!\n"
        "let found = map(filter(getqflist(), 'v:val.valid'), "
        """'fnamemodify(bufname(v:val.bufnr), ":.") . ":" . v:val.lnum . ":" . v:val.col """
        """. ":" . v:val.type . v:val.text')\n"""
        "call writefile(found, 'found')\nqall!\n"
    )
    subprocess.run(
        [*vim, "-u", "NONE", "-i", "NONE", "-S", "make.vim"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{fake.parent}:{os.environ['PATH']}"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    below = f"{directory}/" if directory else ""
    assert (tmp_path / "found").read_text() == f"{below}app.py:2:3:e[a/b]: check\n"
