"""`devloop doctor`, as a shell and a program see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from devloop.app.doctor import checks
from devloop.app.doctor.hops import HOPS, HopFinding
from devloop.cli.main import main
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.app.doctor.hops import Check
    from devloop.base.cancel import Cancel


def refused(_: Cancel) -> HopFinding:
    raise DevloopError.of(
        Code.REGISTRY_UNREACHABLE,
        "the registry localhost:1 does not answer",
        cause="it refused the connection",
        suggestions=("devloop cluster up", "docker ps"),
    )


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """What the hops come to; all are well."""
    made: dict[str, Check] = {hop.name: lambda _: HopFinding(detail="fine") for hop in HOPS}
    monkeypatch.setattr(checks.Examination, "checks", lambda _: made)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.usefixtures("found")
def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["✓", hop.name] for hop in HOPS]
    assert lines[-1] == "all is well"


def test_a_hop_that_fails_is_named_with_its_cure(
    found: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    found["registry"] = refused
    assert main(["doctor", "push"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("✗ registry")
    assert lines[3].endswith("the registry localhost:1 does not answer  [registry/unreachable]")
    assert [line.strip() for line in lines[4:]] == [
        "cause  it refused the connection",
        "try    devloop cluster up",
        "docker ps",
        "- build             needs registry",
        "- push              needs build",
        "not well: registry",
    ]


def test_json_has_each_hop(found: dict[str, Check], capsys: pytest.CaptureFixture[str]) -> None:
    found["cluster"] = refused
    warning = Diagnosis(code=Code.ENV_TOOL_MISSING, severity="warning", message="slow")
    found["builder"] = lambda _: HopFinding(warning=warning)
    assert main(["doctor", "registry", "builder", "-o", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    states = {each["hop"]: each["state"] for each in told["hops"]}
    assert states == {
        "docker": "ok",
        "builder": "warning",
        "cluster": "failed",
        "registry": "skipped",
    }
    assert not told["ok"]
    assert told["hops"][2]["diagnosis"]["code"] == "registry/unreachable"


def test_a_terminal_has_room_for_every_line(
    found: dict[str, Check],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "the node cannot pull " + "localhost:5001/shop/web@sha256:0123456789abcdef " * 5

    def broken(_: Cancel) -> HopFinding:
        raise DevloopError.of(Code.POD_IMAGE_PULL, long, cause=long, suggestions=(long,))

    found["docker"] = broken
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["doctor", "docker"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].startswith("✗ docker")
    assert all(line.startswith(" " * 20) for line in lines[1:-1])


@pytest.mark.usefixtures("found")
def test_a_broken_devloop_yaml_is_no_hindrance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "devloop.yaml").write_text("version: [")
    assert main(["doctor", "docker"]) == 0
    assert capsys.readouterr().out.endswith("all is well\n")


@pytest.mark.usefixtures("found")
def test_a_hop_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "dokcer"]) == 2
    assert "did you mean docker?" in capsys.readouterr().err
