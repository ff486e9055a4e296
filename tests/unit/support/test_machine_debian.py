"""Reading apt sources, which every machine writes differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.machine import debian, shell

if TYPE_CHECKING:
    from pathlib import Path

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.test/debian http://second.test/debian
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /keys/debian.gpg

Types: deb
URIs: http://mirror.test/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb-src
URIs: http://mirror.test/sources
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.test/off
Suites: bookworm
Components: main
"""


def test_deb822() -> None:
    first, second, security = debian.parse_deb822(DEB822)
    assert (first.uri, second.uri) == ("http://mirror.test/debian", "http://second.test/debian")
    assert first.suites == ("bookworm", "bookworm-updates")
    assert first.key == "/keys/debian.gpg"
    assert security.key is None, "a key given inline is no file"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("deb http://mirror.test/debian trixie main contrib", None),
        (
            "deb [arch=amd64 signed-by=/keys/d.gpg] http://mirror.test/debian trixie main contrib",
            "/keys/d.gpg",
        ),
        ("  deb [ signed-by=/k ] http://mirror.test/debian trixie main contrib # why", "/k"),
    ],
)
def test_one_line(line: str, key: str | None) -> None:
    assert debian.parse_list(f"# deb http://no.test x main\n\n{line}\n") == [
        debian.Source(
            uri="http://mirror.test/debian",
            suites=("trixie",),
            components=("main", "contrib"),
            key=key,
        )
    ]


def test_sources_of_all_files_and_the_mirror_among_them(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb-src http://mirror.test/sources bookworm main\n")
    (parts / "other.list").write_text("deb http://other.test/apt stable main\n")
    (parts / "off.list.disabled").write_text("deb http://off.test/apt bookworm main\n")
    (parts / "debian.sources").write_text(DEB822)
    sources = debian.own_sources(tmp_path)
    assert sources[0].uri == "http://other.test/apt"
    assert debian.mirror(sources, "bookworm").uri == "http://mirror.test/debian"
    with pytest.raises(shell.MachineError, match="trixie"):
        debian.mirror(sources, "trixie")


def test_no_sources_at_all(tmp_path: Path) -> None:
    assert debian.own_sources(tmp_path) == []


def test_an_archive_keeps_to_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVLOOP_TEST_CACHE", str(tmp_path))
    options = debian.Archive(suite="trixie").options()
    for name in ("Dir::State", "Dir::State::status", "Dir::Cache", "Dir::Etc::SourceList"):
        assert any(option.startswith(f"{name}={tmp_path}/apt/trixie") for option in options)
