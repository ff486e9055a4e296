"""A Docker Engine that answers: the one that runs, else one that is installed, else Debian's.

kind asks for every capability for its nodes; an Engine before 26 fails on a machine that does not
have them all, so a bare machine gets the one of a Debian that has it, unpacked in the cache
beside containerd and runc of the machine's own Debian.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import cache, console, debian, shell

NEWER_SUITE = "trixie"
OLDEST_ENGINE = 26
NEWER = ("docker.io", "docker-cli", "docker-buildx")
OWN = ("containerd", "runc", "tini")
PROGRAMS = (
    "docker",
    "dockerd",
    "docker-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
)
# kind's node gets iptables rules by the same flavour as dockerd's: Debian's default, nft.
NEEDED = {"iptables": "iptables", "modprobe": "kmod", "ps": "procps"}
PLUGINS = Path("/usr/local/lib/docker/cli-plugins")
RUN = Path("/var/run")
# One that was killed reads what it knows of each image, and ends what ran, before it answers.
START_SECONDS = 300.0


def ensure() -> None:
    """Have a Docker that answers, with buildx; start or bring what is missing.

    Raises:
        MachineError: it can neither be found nor brought here; the message says what to do.
    """
    if answers():
        if not has_buildx():
            add_buildx()
        return
    start(find_daemon())
    if not has_buildx():
        add_buildx()


def answers() -> bool:
    """Tell whether a Docker daemon answers now."""
    return shell.succeeds(["docker", "version", "--format", "{{.Server.Version}}"], timeout=15)


def has_buildx() -> bool:
    """Tell whether `docker buildx` is there."""
    return shell.succeeds(["docker", "buildx", "version"])


def find_daemon() -> Path:
    """Return a dockerd to start that is new enough, brought from Debian if there is none."""
    if sys.platform != "linux":
        raise shell.MachineError(
            "Docker does not answer: start Docker Desktop (or colima), then again"
        )
    installed = shell.find("dockerd")
    if installed and version(shell.output([installed, "--version"])) >= OLDEST_ENGINE:
        return Path(installed)
    if not debian.usable():
        raise shell.MachineError(
            "Docker does not answer. Start it, or install Docker Engine 26 or newer; "
            "on Debian, run this as root and it is brought here"
        )
    return bring() / "dockerd"


def version(text: str) -> int:
    """Return the major version in `Docker version 26.1.5, build ...`; 0 if there is none."""
    match = re.search(r"\b(\d+)\.\d+", text)
    return int(match[1]) if match else 0


def bring() -> Path:
    """Unpack Docker Engine into the cache, link its programs, and return their directory."""
    tree = unpacked()
    for name in PROGRAMS:
        for place in ("usr/bin", "usr/sbin"):
            if (tree / place / name).exists():
                cache.link(tree / place / name, name)
    cache.link(tree / "usr/bin/tini-static", "docker-init")
    debian.install(NEEDED)
    return cache.bin_dir()


def unpacked() -> Path:
    """Return the tree of the packages of Docker Engine."""
    suite = debian.own_suite() or ""

    def make(tree: Path) -> None:
        with console.step("Docker Engine from Debian packages", "20 s"):
            debs = tree.with_suffix(".debs")
            debian.Archive(suite=suite).fetch(OWN, debs, dependencies=False)
            newer = debian.Archive(suite=NEWER_SUITE)
            for deb in newer.fetch(NEWER, debs, dependencies=False):
                shell.run(["dpkg-deb", "-x", deb, tree], timeout=120)

    name = cache.key(suite, NEWER_SUITE, *NEWER, *OWN)
    return cache.made(f"engine-{name}", make)


def add_buildx() -> None:
    """Give the docker command the buildx plugin, from Debian where that is possible."""
    if not debian.usable():
        raise shell.MachineError("docker has no buildx: install the docker-buildx(-plugin) package")
    plugin = next(unpacked().glob("usr/lib*/docker/cli-plugins/docker-buildx"))
    PLUGINS.mkdir(parents=True, exist_ok=True)
    place = PLUGINS / "docker-buildx"
    place.unlink(missing_ok=True)  # one that answers would have been used: this is a dead link
    place.symlink_to(plugin)
    if not has_buildx():
        raise shell.MachineError(f"docker does not take the plugin {place}")


def start(daemon: Path) -> None:
    """Start a dockerd and wait until it answers."""
    if shell.find("systemctl") and Path("/run/systemd/system").is_dir():
        with console.step("starting the docker service"):
            if shell.succeeds(["systemctl", "start", "docker"], timeout=90) and wait(30):
                return
    if os.geteuid() != 0:
        raise shell.MachineError("Docker does not run, and only root can start it")
    deadline = time.monotonic() + START_SECONDS
    while not clear_leftovers():  # one is starting, or ending
        if wait(1):
            return
        if time.monotonic() > deadline:
            raise shell.MachineError("a dockerd runs that does not answer: end it, then again")
    log = cache.home() / "dockerd.log"
    path = f"{cache.bin_dir()}:{daemon.parent}:{os.environ.get('PATH', '')}:{shell.SYSTEM_PATH}"
    with (
        console.step(f"starting dockerd (its log: {log})", "3 s, some 1 min after it was killed"),
        log.open("wb") as out,
    ):
        process = subprocess.Popen(
            [str(daemon), "--host", f"unix://{RUN}/docker.sock", "--log-level", "warn"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
        if not wait(START_SECONDS, process):
            words = shell.tail(log.read_text(errors="replace"))
            raise shell.MachineError(f"dockerd did not come up; the end of {log}:\n{words}")


def wait(seconds: float, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Wait until Docker answers; False if time is over or the process that should, ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answers():
            return True
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.2)
    return False


def clear_leftovers(run: Path = RUN) -> bool:
    """Remove what a killed daemon left behind; False if a daemon lives that is just not ready.

    A pid file whose number now belongs to another program would keep dockerd (or the containerd
    that it starts) from starting.
    """
    for name, program in (
        ("docker.pid", "dockerd"),
        ("docker/containerd/containerd.pid", "containerd"),
    ):
        file = run / name
        if not file.exists():
            continue
        pid = file.read_text().strip()
        if not pid.isdigit() or process_name(int(pid)) != program:
            file.unlink()
        elif program == "dockerd":
            return False
        else:  # a containerd without its daemon: dockerd starts its own, on the same socket
            stop(int(pid))
            file.unlink(missing_ok=True)
    for name in ("docker.sock", "docker/containerd/containerd.sock"):
        (run / name).unlink(missing_ok=True)
    return True


def process_name(pid: int) -> str:
    """Return the name of the program that a process runs; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def stop(pid: int, seconds: float = 10) -> None:
    """End a process, first politely."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process_name(pid):
            time.sleep(0.1)
