"""Debian packages of any suite, taken from the machine's own mirror without touching its apt.

Docker Engine is wanted from a newer Debian than the machine's, and images are made of packages
that are never installed here.  Both get an apt of their own: separate lists, cache and status,
with the mirror and the key read from the machine's sources, so no host is named in this project.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache, console, shell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SOURCES = Path("/etc/apt")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS_AGE_SECONDS = 24 * 3600
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
# Nobody reads these in an image; together they are half of it.
UNREAD = ("doc", "man", "locale", "info", "lintian", "bug", "perl*", "bash-completion", "i18n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One apt source: where from, which suites, and the key file it is checked with."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    key: str | None


def parse_list(text: str) -> list[Source]:
    """Read the one-line format: `deb [signed-by=FILE] URI SUITE COMPONENT...`."""
    found: list[Source] = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>.+)", line)
        if match is None:
            continue
        uri, suite, *components = match["rest"].split("#")[0].split()
        signed = re.search(r"signed-by=(\S+)", match["options"] or "")
        key = signed[1] if signed else None
        found.append(Source(uri=uri, suites=(suite,), components=tuple(components), key=key))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read the paragraph format (`*.sources`); a key given inline counts as no key file."""
    found: list[Source] = []
    without_comments = "\n".join(ln for ln in text.splitlines() if not ln.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", without_comments):
        fields = {
            name.lower(): " ".join(value.split())
            for name, value in re.findall(
                r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, flags=re.MULTILINE
            )
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        key = fields.get("signed-by", "").split(" ")[0]
        found.extend(
            Source(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                key=key if key.startswith("/") else None,
            )
            for uri in fields.get("uris", "").split()
        )
    return found


def own_sources(directory: Path = SOURCES) -> list[Source]:
    """Return the machine's apt sources."""
    found: list[Source] = []
    plain = directory / "sources.list"
    for file in [plain, *sorted((directory / "sources.list.d").glob("*.list"))]:
        if file.is_file():
            found.extend(parse_list(file.read_text()))
    for file in sorted((directory / "sources.list.d").glob("*.sources")):
        found.extend(parse_deb822(file.read_text()))
    return found


def own_suite() -> str | None:
    """Return the code name of the Debian this machine runs, or None on any other system."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return release.get("VERSION_CODENAME") if release.get("ID") == "debian" else None


def mirror(sources: Iterable[Source], suite: str) -> Source:
    """Return the source that the machine's own suite comes from.

    Raises:
        MachineError: none of them offers `main` of that suite.
    """
    for source in sources:
        if suite in source.suites and "main" in source.components:
            return source
    raise shell.MachineError(f"no apt source of this machine offers Debian's suite {suite}")


def usable() -> bool:
    """Tell whether packages can be taken here: Debian with apt, and we are root."""
    return own_suite() is not None and shell.find("apt-get") is not None and os.geteuid() == 0


def architecture() -> str:
    """Return Debian's name of this machine's architecture (Go's is the same for these two)."""
    name = shell.run(["dpkg", "--print-architecture"], timeout=20).strip()
    if name not in TRIPLETS:
        raise shell.MachineError(f"images can be made for {' and '.join(TRIPLETS)}, not for {name}")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One suite of Debian, with an apt state of its own in the cache."""

    suite: str

    @property
    def directory(self) -> Path:
        """Return the directory of this suite's lists."""
        return cache.home() / "apt" / self.suite

    def options(self) -> list[str]:
        """Return the apt options that keep it off the machine's own state."""
        directory = self.directory
        settings = {
            "Dir::Etc::SourceList": directory / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::Etc::Preferences": "-",
            "Dir::Etc::PreferencesParts": "-",
            "Dir::State": directory / "state",
            "Dir::State::status": directory / "status",
            "Dir::Cache": directory / "cache",
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def refresh(self) -> None:
        """Fetch the suite's package lists unless those of the last day are here."""
        directory = self.directory
        stamp = directory / "fresh"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_AGE_SECONDS:
            return
        origin = mirror(own_sources(), own_suite() or "")
        key = origin.key or (KEYRING if Path(KEYRING).exists() else None)
        signed = f"[signed-by={key}] " if key else ""
        for part in ("state/lists/partial", "cache/archives/partial"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        (directory / "sources.list").write_text(f"deb {signed}{origin.uri} {self.suite} main\n")
        with console.step(f"package lists of Debian {self.suite}", "5 s"):
            shell.run(["apt-get", *self.options(), "update"], timeout=300)
        stamp.touch()

    def fetch(self, packages: Sequence[str], directory: Path, *, dependencies: bool) -> list[Path]:
        """Download packages into `directory`, with what they depend on if asked, and list them."""
        self.refresh()
        (directory / "partial").mkdir(parents=True, exist_ok=True)
        if dependencies:
            wanted = ["-qq", "-y", "--no-install-recommends", "--download-only", "install"]
            place = ["-o", f"Dir::Cache::archives={directory}"]
            command = ["apt-get", *self.options(), *place, *wanted, *packages]
        else:
            command = ["apt-get", *self.options(), "-qq", "download", *packages]
        shell.run(command, timeout=600, cwd=directory)
        return sorted(directory.glob("*.deb"))


def unpack(debs: Iterable[Path], root: Path) -> None:
    """Unpack packages into a tree, without running anything of theirs (no maintainer scripts).

    The tree has one /usr that /bin, /sbin and /lib point into, as Debian's own has.
    """
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    skip = [f"--exclude=./usr/share/{name}" for name in UNREAD]
    skip += [
        "--exclude=./usr/lib/*/gconv",
        "--exclude=./usr/lib/*/perl*",
        "--exclude=./usr/bin/perl*",
    ]
    into = ["tar", "-C", str(root), "--keep-directory-symlink", "-xf", "-", *skip]
    for deb in debs:
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE
        ) as source:
            subprocess.run(into, stdin=source.stdout, check=True, timeout=300)
        if source.returncode != 0:
            raise shell.MachineError(f"{deb.name} could not be unpacked")


def install(programs: dict[str, str]) -> None:
    """Install into the system the packages (values) of those programs (keys) that are missing."""
    missing = sorted({package for name, package in programs.items() if shell.find(name) is None})
    if not missing:
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with console.step(f"apt-get install {' '.join(missing)}", "15 s"):
        shell.run(["apt-get", "-qq", "update"], timeout=300)
        shell.run(
            ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing],
            timeout=600,
            env=quiet,
        )
