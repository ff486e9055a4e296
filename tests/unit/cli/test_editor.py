"""`devloop editor`: a diff unless asked to write, and never more than devloop's own."""

from __future__ import annotations

import importlib
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from devloop.cli.main import COMMANDS, main
from devloop.editor.tasks import EditorProject, tasks_of

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ".vscode/tasks.json"
MINE = '{\r\n  "tasks": [\r\n    {"label": "mine"} // keep\r\n  ]\r\n}'


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devloop.yaml").write_text("this need not be right: [")
    return tmp_path


def files_of(directory: Path) -> list[str]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(directory).as_posix() for path in found)


@pytest.mark.parametrize("editor", ["vscode", "jetbrains", "zed", "nvim"])
def test_the_diff_is_what_would_be_written(
    directory: Path, capsys: pytest.CaptureFixture[str], editor: str
) -> None:
    for name, text in ((TASKS, MINE), (".zed/tasks.json", "[{}] // mine")):
        (directory / name).parent.mkdir()
        (directory / name).write_bytes(text.encode())
    (directory / ".nvim.lua").write_bytes(b"-- no line end")
    before = {name: (directory / name).read_bytes() for name in files_of(directory)}
    assert main(["editor", editor]) == 0
    diff, hint = capsys.readouterr()
    assert {name: (directory / name).read_bytes() for name in files_of(directory)} == before
    assert hint == f"`devloop editor {editor} --write` writes this\n"

    assert main(["editor", editor, "--write"]) == 0
    wrote = [line.removeprefix("wrote ") for line in capsys.readouterr().out.splitlines()]
    after = {name: (directory / name).read_bytes() for name in files_of(directory)}
    assert sorted(name for name in after if after[name] != before.get(name)) == sorted(wrote)

    other = directory / "other"
    for name, data in before.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(data)
    subprocess.run(["git", "init", "-q"], cwd=other, check=True, timeout=60)
    subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=other, check=True, timeout=60)
    assert {name: (other / name).read_bytes() for name in after} == after

    assert main(["editor", editor]) == 0
    assert capsys.readouterr() == ("", "nothing to change\n")


def test_a_file_keeps_its_mode_and_the_link_to_it(directory: Path) -> None:
    (directory / ".vscode").mkdir()
    (directory / "dotfiles.json").write_text("{}")
    (directory / "dotfiles.json").chmod(0o640)
    (directory / TASKS).symlink_to("../dotfiles.json")
    assert main(["editor", "vscode", "--write"]) == 0
    assert (directory / TASKS).is_symlink()
    assert (directory / "dotfiles.json").stat().st_mode & 0o777 == 0o640
    assert len(json.loads((directory / TASKS).read_text())["tasks"]) >= 3


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'{\n  "tasks": [}\n', "2:13"),
        (b'{"tasks": 1}', "1:11"),
        (b'{\n"\xff"}', "2:2"),
    ],
)
def test_a_broken_file_is_refused_with_its_place_and_stays(
    directory: Path, capsys: pytest.CaptureFixture[str], data: bytes, place: str
) -> None:
    (directory / ".vscode").mkdir()
    (directory / TASKS).write_bytes(data)
    assert main(["editor", "vscode", "--write"]) == 2
    error = capsys.readouterr().err
    assert "error[config/parse]: " in error
    assert f"at {TASKS}:{place}\n" in error
    assert (directory / TASKS).read_bytes() == data


def test_the_workspace_is_where_the_editor_has_its_files_else_the_repository(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = directory / "services/api"
    api.mkdir(parents=True)
    (api / "devloop.yaml").write_text("version: 1\n")
    monkeypatch.chdir(api)

    def shown(*arguments: str) -> list[str]:
        assert main(["editor", "zed", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line[1:].strip() for line in lines if '"cwd"' in line][:1]

    assert shown() == ['"cwd": "$ZED_WORKTREE_ROOT",']
    (directory / ".git").mkdir()
    assert shown() == ['"cwd": "$ZED_WORKTREE_ROOT/services/api",']
    (directory / "services/.zed").mkdir()
    assert shown() == ['"cwd": "$ZED_WORKTREE_ROOT/api",']
    assert shown("--workspace", ".") == ['"cwd": "$ZED_WORKTREE_ROOT",']
    assert shown("-f", "../../devloop.yaml") == ['"cwd": "$ZED_WORKTREE_ROOT",']
    (api / "inner").mkdir()
    assert main(["editor", "zed", "--workspace", "inner"]) == 2
    assert "is not in the workspace" in capsys.readouterr().err


def test_colours_and_what_a_file_holds_cannot_steer_the_terminal(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / ".nvim.lua").write_text("-- \x1b]0;owned\x07\n")
    assert main(["editor", "nvim", "--color", "always"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[32m+-- devloop: end\x1b[0m\n" in out
    assert "owned" not in out


def test_no_project_and_what_cannot_be_written_are_errors(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / ".vscode").write_text("")
    assert main(["editor", "vscode", "--write"]) == 3
    assert "error[env/file-unreadable]: .vscode/tasks.json cannot be" in capsys.readouterr().err
    (directory / "devloop.yaml").unlink()
    assert main(["editor", "vscode"]) == 2
    assert "error[config/not-found]" in capsys.readouterr().err


def test_every_task_is_a_command_line_that_devloop_takes() -> None:
    project = EditorProject(file="ci.yaml", commands=frozenset(COMMANDS))
    tasks = tasks_of(project)
    assert [task.name for task in tasks] == [*("dev", "run", "trigger", "logs", "doctor", "check")]
    for task in tasks:
        command = importlib.import_module(f"devloop.cli.{task.name}").command
        command.make_context(task.name, list(task.arguments[1:]))


def test_a_service_that_is_debugged_gets_what_attaches_to_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "Dockerfile").write_text("FROM python\nWORKDIR /srv\nCOPY src lib\n")
    (directory / "src").mkdir()
    text = "version: 1\nservices: {api: {build: ., debug: python}}\n"
    (directory / "devloop.yaml").write_text(text)
    assert main(["editor", "vscode", "--write"]) == 0
    launch = json.loads((directory / ".vscode/launch.json").read_text())
    (entry,) = launch["configurations"]
    assert entry["name"] == "devloop: debug api"
    assert entry["pathMappings"] == [
        {"localRoot": "${workspaceFolder}/src", "remoteRoot": "/srv/lib"}
    ]
    assert capsys.readouterr().err == ""


def test_what_a_broken_file_or_dockerfile_does_not_tell_is_said(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "devloop.yaml").write_text("version: 1\nservices: {api: {debug: ruby}}\n")
    assert main(["editor", "zed", "--write"]) == 0
    assert not (directory / ".zed/debug.json").exists()
    said = capsys.readouterr().err
    assert said.startswith("devloop.yaml:2:")
    assert said.endswith("what attaches debuggers stays as it is\n")
    (directory / "Dockerfile").write_text("FROM node\nCOPY . .\n")
    text = "version: 1\nservices: {api: {build: ., debug: node}}\n"
    (directory / "devloop.yaml").write_text(text)
    assert main(["editor", "zed", "--write"]) == 0
    (entry,) = json.loads((directory / ".zed/debug.json").read_text())
    assert entry["remoteRoot"] == "/app"
    assert "api: the Dockerfile does not tell" in capsys.readouterr().err
