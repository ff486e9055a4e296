"""Which registries Docker on this computer trusts, and how."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from devloop.registry.docker_trust import DockerTrust, trust_of

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_certificates_are_those_of_the_hosts_directory(tmp_path: Path) -> None:
    etc, home = tmp_path / "etc", tmp_path / "home"
    write(etc / "certs.d/reg.corp:5000/ca.crt", "CA")
    write(etc / "certs.d/reg.corp:5000/me.cert", "CERT")
    write(etc / "certs.d/reg.corp:5000/me.key", "KEY")
    write(home / ".docker/certs.d/reg.corp:5000/more.crt", "MORE")
    write(etc / "certs.d/other.corp/me.cert", "CERT")
    env = {"HOME": str(home)}
    found = trust_of("reg.corp:5000", env, etc)
    assert (found.ca.split(), found.cert, found.key) == (["CA", "MORE"], "CERT", "KEY")
    assert trust_of("reg.corp", env, etc) == DockerTrust()
    # A certificate without its key is of no use.
    assert trust_of("other.corp", env, etc) == DockerTrust()


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("reg.corp:5000", True),
        ("reg.corp", False),
        ("10.1.2.3:5000", True),
        ("10.2.2.3:5000", False),
        ("[fd00::1]:5000", True),
    ],
)
def test_insecure_registries_are_named_or_lie_in_a_network(
    tmp_path: Path, host: str, insecure: bool
) -> None:
    known = {"insecure-registries": ["reg.corp:5000", "10.1.0.0/16", "fd00::/8"]}
    write(tmp_path / "docker/daemon.json", json.dumps(known))
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert trust_of(host, env, tmp_path / "nothing").insecure is insecure


def test_what_cannot_be_read_counts_as_absent(tmp_path: Path) -> None:
    write(tmp_path / "daemon.json", "{")
    write(tmp_path / "certs.d/a", "a file")
    assert trust_of("a", {}, tmp_path) == DockerTrust()
