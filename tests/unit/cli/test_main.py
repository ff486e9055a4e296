"""The command line's promises that need no project: quick help, statuses, errors as text."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import click
import pytest

from devloop.cli import main as cli
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from pathlib import Path


def test_another_project_of_the_same_name_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "devloop-9.8.7.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: devloop\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["--version"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("devloop ")
    assert "another project, devloop 9.8.7," in told.err
    assert "pip install devloop-k8s" in told.err


def test_every_command_of_the_table_exists() -> None:
    context = click.Context(cli.command)
    assert isinstance(cli.command, click.Group)
    for name in cli.COMMANDS:
        found = cli.command.get_command(context, name)
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    ("argv", "page", "services"),
    [
        ([], None, ()),
        (["--web"], 0, ()),
        (["--web", "8123"], 8123, ()),
        (["--web=8123", "api"], 8123, ("api",)),
        (["--web", "api", "web"], 0, ("api", "web")),
        (["api", "--web", "--output", "json"], 0, ("api",)),
    ],
)
def test_the_page_is_asked_for_with_and_without_a_port(
    argv: list[str],
    page: int | None,
    services: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("devloop.cli.dev.run_session", lambda _, **said: asked.update(said) or 0)
    assert cli.main(["dev", *argv]) == 0
    assert (asked["page"], asked["services"]) == (page, services)


def test_a_port_that_there_is_not_is_refused() -> None:
    assert cli.main(["dev", "--web", "65536"]) == 2


@pytest.mark.parametrize("argv", [[], ["cluster"]])
def test_no_command_prints_the_help_as_it_is(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: devloop ")
    assert len(captured.err.splitlines()) > 5


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["chek"], "Did you mean 'check'?"),
        (["dev", "--outptu", "json"], "No such option"),
        (["run", "--output", "xml"], "'xml' is not one of"),
        (["dev", "--profiles", "ci"], "No such option"),
    ],
)
def test_wrong_arguments_end_with_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "error[" in captured.err
    assert "try" in captured.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DevloopError.of(Code.CONFIG_PARSE, "no", location=Location("devloop.yaml", 3, 1)), 2),
        (DevloopError.of(Code.ENV_DOCKER_UNREACHABLE, "no"), 3),
        (DevloopError.of(Code.SAFETY_CONTEXT, "no"), 4),
        (DevloopError.of(Code.BUILD_FAILED, "no"), 1),
        (RuntimeError("surprise"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_status(
    error: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @click.command("fails")
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli.command, "get_command", lambda ctx, name: fails)
    assert cli.main(["fails"]) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if isinstance(error, DevloopError):
        assert f"error[{error.code}]" in err
    if isinstance(error, RuntimeError):
        assert "surprise" in err
        assert "devloop-bug-" in err
