"""`devloop init`, and the commands where there is no devloop.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.app.starter import start
from devloop.cli import options
from devloop.cli.main import main
from devloop.cli.session import SessionProject

if TYPE_CHECKING:
    from devloop.app.starter.workloads import FoundWorkload

DOCKERFILE = "FROM python:3.13\nCOPY app.py .\nEXPOSE 8123\nCMD python app.py\n"
FILE = """\
# yaml-language-server: $schema=./.devloop/schema.json
# Written by `devloop init`. `devloop check` validates it, `devloop schema` has every key.
version: 1
services:
  shop:
    build: .
    deploy:
      manifests: [k8s.yaml]  # written for you
    ports: [8123]  # Dockerfile:3 EXPOSE
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Dockerfile; no cluster, no files of the user's."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "app.py").write_text("")
    monkeypatch.chdir(root)
    for name in ("DEVLOOP_FILE", "DEVLOOP_NAMESPACE", "DEVLOOP_REGISTRY", "DEVLOOP_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(start, "is_bound", lambda _: False)
    return root


def test_init_writes_and_says_what_it_assumed(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    assert (shop / "devloop.yaml").read_text() == FILE
    assert (shop / ".devloop" / ".gitignore").read_text() == "*\n"
    assert json.loads((shop / ".devloop" / "schema.json").read_text())["title"] == "devloop.yaml"
    told = capsys.readouterr()
    assert told.out == (
        "found     Dockerfile\n"
        "assumed   a Deployment and a Service called shop, as there are no manifests: k8s.yaml\n"
        f"\n{FILE}\n"
        "wrote devloop.yaml, k8s.yaml\n"
        "next: devloop dev\n"
    )
    assert main(["check"]) == 0


def test_what_is_there_is_not_overwritten(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "devloop.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert "devloop.yaml is there already" in capsys.readouterr().err
    assert sorted(path.name for path in shop.iterdir()) == ["Dockerfile", "app.py", "devloop.yaml"]
    (shop / "k8s.yaml").write_text("mine too")
    assert main(["init", "--force"]) == 2
    (shop / "k8s.yaml").unlink()
    assert main(["init", "--force"]) == 0
    assert (shop / "devloop.yaml").read_text() == FILE


def test_print_writes_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--print", "hello"]) == 0
    assert "  hello:\n" in capsys.readouterr().out
    assert sorted(path.name for path in shop.iterdir()) == ["Dockerfile", "app.py"]


def test_no_dockerfile_is_said_with_what_to_do(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "Dockerfile").unlink()
    assert main(["init"]) == 2
    told = capsys.readouterr().err
    assert "error[config/dockerfile-missing]: there is no Dockerfile in" in told
    assert "docker init" in told


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", ["Not A Name", "-x-"])
def test_a_name_that_kubernetes_does_not_take_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--", name]) == 2
    assert "error[config/value]" in capsys.readouterr().err
    assert not Path("devloop.yaml").exists()


def test_without_a_file_the_same_is_assumed(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    told = capsys.readouterr()
    assert told.out == "devloop.yaml (assumed): ok, 1 service\n"
    assert "no devloop.yaml here; this is assumed" in told.err
    assert "manifests: [.devloop/k8s.yaml]" in told.err
    assert sorted(path.name for path in shop.iterdir()) == [".devloop", "Dockerfile", "app.py"]
    assert main(["config"]) == 0
    assert "manifests: [.devloop/k8s.yaml]" in capsys.readouterr().out


def test_what_was_assumed_is_there_for_other_commands(shop: Path) -> None:
    said: list[str] = []
    common = options.CommonOptions()
    first = options.load_or_assume(common, said.append)
    assert options.load(common).project == first.project
    assert len(said) == 1
    assert first.project.services["shop"].ports[0].local == 8123
    assert (shop / ".devloop" / "assumed.yaml").read_text() == said[0]


def test_a_cluster_that_is_not_local_is_never_assumed(shop: Path) -> None:
    config = shop.parent / ".config" / "devloop" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("allow_contexts: [prod]\n")
    common = options.CommonOptions()
    assert options.load_or_assume(common, lambda _: None).project.allow_contexts == ()
    assert options.load(common).project.allow_contexts == ()
    assert main(["init"]) == 0
    assert options.load(common).project.allow_contexts == ("prod",)


@pytest.mark.parametrize("command", ["check", "config", "run", "dev"])
def test_what_is_in_doubt_is_not_assumed(
    shop: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "worker").mkdir()
    (shop / "worker" / "Dockerfile").write_text("FROM a\n")
    assert main([command]) == 2
    told = capsys.readouterr()
    said = told.out + told.err
    assert "config/not-found" in said
    assert "several Dockerfiles and no manifests: shop, worker" in said
    assert "devloop init" in said
    assert not (shop / ".devloop").exists()


def test_a_file_that_is_named_must_be_there(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-f", "other.yaml"]) == 2
    assert "other.yaml does not exist" in capsys.readouterr().out
    assert not (shop / ".devloop").exists()


def test_a_broken_kubeconfig_is_no_hindrance(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop.parent / "broken").write_text("contexts: [")
    monkeypatch.setenv("KUBECONFIG", str(shop.parent / "broken"))
    assert main(["init"]) == 0


def test_running_workloads_are_those_of_the_flags(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def running(
        context: str | None, namespace: str | None, allowed: tuple[str, ...]
    ) -> tuple[FoundWorkload, ...]:
        asked.append((context, namespace, tuple(allowed)))
        return ()

    monkeypatch.setattr(start, "running_workloads", running)
    assert main(["init", "--context", "kind-a", "-n", "blue"]) == 0
    assert asked == [("kind-a", "blue", ())]
    assert (shop / "k8s.yaml").exists()


def test_what_a_compiler_keeps_is_kept_between_builds(shop: Path) -> None:
    text = (
        "FROM golang:1.25 AS build\nRUN go build -o /x .\nFROM scratch\nCOPY --from=build /x /x\n"
    )
    (shop / "Dockerfile").write_text(text)
    assert main(["init"]) == 0
    lines = (shop / "devloop.yaml").read_text().splitlines()
    assert [line for line in lines if "cache" in line] == [
        "      cache: auto  # what the RUN of line 2 fetches or compiles is kept"
    ]
    assert main(["check"]) == 0


def test_a_session_works_it_out_once_until_there_is_a_file(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = SessionProject(options.CommonOptions())
    first = project.load()
    # The session itself has the port by now.
    monkeypatch.setattr(start, "is_bound", lambda _: True)
    assert project.load() is first
    assert capsys.readouterr().err.count("this is assumed") == 1
    (shop / "devloop.yaml").write_text("version: 1\nservices: {other: {build: .}}\n")
    assert list(project.load().project.services) == ["other"]
