"""What a shell is told at a TAB, and that telling it needs no network and no adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.shell_completion import ShellComplete

from devloop.cli import main as cli

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = "version: 1\nservices:\n  web: {build: .}\n  worker: {build: w}\n  api: {build: api}\n"
KUBECONFIG = "contexts: [{name: kind-a, context: {}}, {name: team-b, context: {}}]\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "devloop.yaml").write_text(PROJECT)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("DEVLOOP_FILE", raising=False)
    return tmp_path


def offered(*words: str) -> list[str]:
    """What stands for the last of `words`."""
    complete = ShellComplete(cli.command, {}, "devloop", "_DEVLOOP_COMPLETE")
    return [each.value for each in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("c",), ["clean", "check", "config", "completion", "cluster"]),
        (("dev", ""), ["web", "worker", "api"]),
        (("dev", "w"), ["web", "worker"]),
        (("dev", "web", "w"), ["worker"]),
        (("run", "x"), []),
        (("logs", "w"), ["web", "worker"]),
        (("why", "a"), ["api"]),
        (("trigger", "--wait", "a"), ["api"]),
        (("dev", "--context", ""), ["kind-a", "team-b"]),
        (("dev", "--context", "t"), ["team-b"]),
        (("dev", "--out"), ["--output"]),
        (("dev", "--output", "l"), ["live", "lines"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("cluster", "u"), ["up"]),
        (("nonsense", "x"), []),
    ],
)
def test_the_names_that_fit_are_offered(words: tuple[str, ...], names: list[str]) -> None:
    assert offered(*words) == names


def test_another_file_is_read_where_one_is_named(project: Path) -> None:
    (project / "other.yaml").write_text("services: {blue: {}}\n")
    assert offered("dev", "-f", "other.yaml", "") == ["blue"]


@pytest.mark.parametrize("text", ["services: [", "- 1\n", "services: 3\n", "\x00", ""])
def test_a_broken_file_offers_nothing(project: Path, text: str) -> None:
    (project / "devloop.yaml").write_text(text)
    (project / "kubeconfig").write_text("{")
    assert offered("dev", "") == []
    assert offered("dev", "--context", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_clicks_with_a_word_on_where_it_goes(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looks for the version of the bash that is there, by running it.
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda _: None)
    assert cli.main(["completion", shell]) == 0
    told = capsys.readouterr()
    assert "_DEVLOOP_COMPLETE" in told.out
    assert f"devloop completion {shell}" in told.out.splitlines()[-1]


def test_every_service_argument_completes() -> None:
    """A command that takes services offers them."""
    group = cli.command
    assert isinstance(group, click.Group)
    for name in cli.COMMANDS:
        found = group.get_command(click.Context(group), name)
        assert found is not None
        for each in found.params:
            if isinstance(each, click.Argument) and each.name in ("service", "services"):
                assert each._custom_shell_complete is not None, name
