"""Which commands of a checkout may run on this computer: those that somebody has trusted.

A checkout is its directory, and what is trusted are its commands one by one: one that is edited, or
comes with a pull, is asked for again, and nothing else is. What runs in a container (a Dockerfile's
RUN, `test`, a hook with `container`) needs no trust. Runs nothing itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.home import home_directory
from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import StateFile
from devloop.config.commands import HookCommands
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.config.loader import LoadedProject
    from devloop.errors import Location


# How many commands a refusal lists; `devloop trust --list` shows all.
_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCommand:
    """A command that devloop.yaml has run on this computer. `key` is where it stands there."""

    key: str
    argv: tuple[str, ...]
    location: Location

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.argv).encode()).hexdigest()

    @property
    def shown(self) -> str:
        """All of it in one line."""
        whole = len(self.argv) == 3 and self.argv[:2] == ("sh", "-c")
        text = self.argv[2] if whole else " ".join(self.argv)
        return "\\n".join(text.splitlines())


def host_commands(
    loaded: LoadedProject, services: Iterable[str] | None = None
) -> tuple[HostCommand, ...]:
    """All of them in the order of the file, those of `services` alone where these are given."""
    found: list[HostCommand] = []
    wanted = None if services is None else set(services)
    for name, service in loaded.project.services.items():
        if wanted is not None and name not in wanted:
            continue
        key = ("services", name)
        if service.build.command:
            argv, place = service.build.command, loaded.locate(*key, "build", "command")
            found.append(HostCommand(key=f"{name}.build.command", argv=argv, location=place))
        for when in HookCommands.__dataclass_fields__:
            own = (hook for hook in getattr(service.hooks, when) if not hook.container)
            found += [
                HostCommand(key=f"{name}.hooks.{when}", argv=hook.command, location=hook.location)
                for hook in own
            ]
    return tuple(found)


class Trusted:
    """What was trusted on this computer, in one file of this user's."""

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path)

    def missing(self, root: Path, commands: Iterable[HostCommand]) -> tuple[HostCommand, ...]:
        """Those of `commands` that nobody trusted in the checkout at `root`."""
        known = set(_of(self._file.read(set_aside=False) or {}, root))
        return tuple(each for each in commands if each.digest not in known)

    def add(self, root: Path, commands: Iterable[HostCommand]) -> None:
        """Raises OSError."""
        digests = {each.digest for each in commands}
        with self._file.updating() as value:
            value[_name(root)] = sorted(digests | set(_of(value, root)))

    def remove(self, root: Path) -> bool:
        """Trust nothing of the checkout any more; whether anything was."""
        with self._file.updating() as value:
            return value.pop(_name(root), None) is not None


def trusted(env: Mapping[str, str]) -> Trusted:
    """By the XDG base directory specification."""
    base = env.get("XDG_STATE_HOME", "")
    directory = Path(base) if base.startswith("/") else home_directory(env)
    directory = directory if base.startswith("/") else directory / ".local" / "state"
    return Trusted(directory / "devloop" / "trusted.json")


def refusal(missing: tuple[HostCommand, ...]) -> Diagnosis:
    """safety/untrusted: what would run, and how to let it."""
    count = len(missing)
    detail = [f"{each.location}  {each.key}: {each.shown}" for each in missing[:_LISTED]]
    if count > _LISTED:
        detail.append(f"and {count - _LISTED} more")
    what = "a command" if count == 1 else f"{count} commands"
    file = missing[0].location.path
    return Diagnosis(
        code=Code.SAFETY_UNTRUSTED,
        message=f"{file} has {what} run on this computer that nobody has trusted yet",
        location=missing[0].location,
        cause="a checkout runs nothing outside of containers before somebody has read it",
        detail=tuple(detail),
        suggestions=(
            "`devloop trust` trusts them, until they change",
            "`--trust`, or DEVLOOP_TRUST=1, for this once",
        ),
    )


def check_trust(
    loaded: LoadedProject, services: Iterable[str] | None = None, *, store: Trusted | None = None
) -> None:
    """Raise safety/untrusted where something would run that nobody trusted."""
    commands = host_commands(loaded, services)
    if not commands:
        return
    store = store or trusted(os.environ)
    if missing := store.missing(loaded.project.root, commands):
        raise DevloopError(refusal(missing))


def _name(root: Path) -> str:
    return os.path.realpath(root)


def _of(value: Mapping[str, object], root: Path) -> list[str]:
    found = value.get(_name(root))
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
