"""Which daemon the SDK's client speaks to: the one of the docker CLI."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from devloop.builders.docker_client import _endpoint
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from pathlib import Path

PLACE = "unix:///run/user/1000/docker.sock"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The CLI's configuration file, beside a context `rootless`."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"rootless").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(
        json.dumps({"Name": "rootless", "Metadata": {}, "Endpoints": {"docker": {"Host": PLACE}}})
    )
    config = tmp_path / "config.json"
    config.write_text("{}")
    return config


@pytest.mark.parametrize(
    "current", ["{}", '{"currentContext": ""}', '{"currentContext": "default"}']
)
def test_without_a_context_it_is_the_default_socket(config: Path, current: str) -> None:
    config.write_text(current)
    assert _endpoint().get("base_url") is None


def test_the_current_context_is_followed(config: Path) -> None:
    config.write_text('{"currentContext": "rootless"}')
    assert _endpoint()["base_url"] == PLACE


@pytest.mark.usefixtures("config")
def test_a_context_in_the_environment_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "rootless")
    assert _endpoint()["base_url"] == PLACE


def test_a_host_in_the_environment_comes_before_every_context(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('{"currentContext": "rootless"}')
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert _endpoint()["base_url"] == "tcp://127.0.0.1:2375"


@pytest.mark.usefixtures("config")
def test_a_context_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(DevloopError) as caught:
        _endpoint()
    assert caught.value.code == Code.ENV_DOCKER_UNREACHABLE
    assert caught.value.diagnosis.cause == (
        'the Docker context "gone" does not exist; DOCKER_CONTEXT names it'
    )
