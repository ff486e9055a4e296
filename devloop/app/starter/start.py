"""What `devloop init` writes, and what other commands go on with where there is no devloop.yaml.

Decides nothing about a project (propose.py does); asks the cluster, reads what was proposed with
the loader that will read it later, and writes.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.app.starter.propose import Proposal, Surroundings, propose
from devloop.app.starter.rendered import rendered_workloads
from devloop.app.starter.running import running_workloads
from devloop.app.starter.text import MODELINE, project_text
from devloop.base.lazy_dataclass import dataclass
from devloop.base.sockets import is_bound
from devloop.builders.cache_mounts import additions
from devloop.builders.dockerfile import parse
from devloop.config.loader import LoadedProject, load_project
from devloop.config.places import FILE_NAME
from devloop.config.schema import STATE_DIR
from devloop.errors import Code, DevloopError, Location, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.app.starter.propose import ProposedService
    from devloop.config.builds import Build


ASSUMED = "assumed.yaml"
"""In devloop's own directory: what the last `dev` or `run` without a devloop.yaml went on with."""

_HEAD = "Written by `devloop init`. `devloop check` validates it, `devloop schema` has every key."
_LEAST = "version: 1\nservices: {app: {build: .}}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the command line says of the whole project; see `load_project`."""

    sets: tuple[str, ...] = ()
    context: str | None = None
    namespace: str | None = None
    registry: str | None = None
    profiles: tuple[str, ...] = ()
    user_config: Path | None = None

    def load(self, root: Path, env: Mapping[str, str], text: str, shown: str) -> LoadedProject:
        """`text` read as the devloop.yaml of `root`, called `shown`. Errors: config/*."""
        return load_project(
            cwd=root,
            env=env,
            text=text,
            shown=shown,
            sets=self.sets,
            user_config=self.user_config,
            context=self.context,
            namespace=self.namespace,
            registry=self.registry,
            profiles=self.profiles,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFile:
    """A proposal, its text, and what the loader makes of that."""

    proposal: Proposal
    text: str
    loaded: LoadedProject


def first_file(root: Path, env: Mapping[str, str], flags: Flags, *, name: str = "") -> FirstFile:
    """What `devloop init` writes in `root`. Errors: config/dockerfile-missing, config/*."""
    settings = replace(flags, sets=()).load(root, env, _LEAST, FILE_NAME).project
    around = Surroundings(
        env=env,
        running=lambda: running_workloads(
            settings.context, settings.namespace, settings.allow_contexts
        ),
        is_free=_is_free,
        rendered=rendered_workloads,
    )
    proposal = propose(root, around, name=name)
    if not proposal.services:
        raise _nothing(root, proposal)
    head = f"{MODELINE}\n{_HEAD}"
    return _read_back(proposal, head, lambda text: flags.load(root, env, text, FILE_NAME))


def assumed(root: Path, env: Mapping[str, str], flags: Flags) -> FirstFile:
    """What goes without a devloop.yaml: only what leaves no doubt, and only on local clusters. The
    objects that are made are written to devloop's own directory, and so is the text, for commands
    that come later. Errors: config/not-found, which says what is in doubt."""
    around = Surroundings(
        env=env,
        running=lambda: running_workloads(flags.context, flags.namespace, ()),
        is_free=_is_free,
        rendered=rendered_workloads,
        own=f"{STATE_DIR}/",
        command="devloop dev",
    )
    proposal = propose(root, around)
    doubts = list(proposal.doubts)
    if len(proposal.services) > 1 and proposal.manifests:
        names = ", ".join(each.name for each in proposal.services)
        doubts.append(f"there are several Dockerfiles and no manifests: {names}")
    if doubts or not proposal.services:
        raise _not_found(root, proposal, doubts)
    first = _read_back(
        proposal,
        "Assumed: there is no devloop.yaml.",
        lambda text: _local(flags.load(root, env, text, f"{FILE_NAME} (assumed)")),
    )
    write(root, {**proposal.manifests, f"{STATE_DIR}/{ASSUMED}": first.text}, force=True)
    return first


def _read_back(proposal: Proposal, head: str, load: Callable[[str], LoadedProject]) -> FirstFile:
    text = project_text(proposal, head=head)
    loaded = load(text)
    cached = tuple(
        _with_cache(each, loaded.project.services[each.name].build) for each in proposal.services
    )
    if cached != proposal.services:
        proposal = replace(proposal, services=cached)
        text = project_text(proposal, head=head)
        loaded = load(text)
    return FirstFile(proposal=proposal, text=text, loaded=loaded)


def _with_cache(service: ProposedService, build: Build) -> ProposedService:
    """With `cache: auto` where a slow step would begin anew at each build."""
    try:
        text = build.dockerfile.read_text("utf-8", "replace")
    except OSError:
        return service
    found = additions(parse(text), replace(build, cache="auto"))
    if not found:
        return service
    steps = ", ".join(f"line {each.run.start}" for each in found)
    remark = f"what the RUN of {steps} fetches or compiles is kept"
    return replace(service, cache=True, why={**service.why, "cache": remark})


def assumed_before(root: Path, env: Mapping[str, str], flags: Flags) -> LoadedProject | None:
    """What a `dev` or `run` in `root` assumed last; None where none did."""
    try:
        text = (root / STATE_DIR / ASSUMED).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return _local(flags.load(root, env, text, f"{FILE_NAME} (assumed)"))


def write(
    root: Path,
    files: Mapping[str, str],
    *,
    force: bool = False,
    beside: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write `files` (by path from `root`), which must not be there unless with `force`, and those
    `beside`, which never must. Errors: usage/arguments, env/file-unreadable."""
    for path in (*files, *beside):
        if (not force or path in beside) and os.path.lexists(root / path):
            hints: tuple[str, ...] = ("--print only shows what would be written",)
            if path in files:
                hints = ("--force overwrites it", *hints)
            raise DevloopError.of(
                Code.USAGE_ARGUMENTS,
                f"{path} is there already",
                location=Location(path),
                suggestions=hints,
            )
    for path, text in {**files, **beside}.items():
        where = root / path
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            if path.startswith(f"{STATE_DIR}/"):
                (root / STATE_DIR / ".gitignore").write_text("*\n")
            where.write_text(text, "utf-8")
        except OSError as error:
            raise unreadable(path, error) from error


def schema_file() -> dict[str, str]:
    """What the modeline of the file leads to."""
    from devloop.config.json_schema import project_schema  # noqa: PLC0415 - for `init` only

    return {f"{STATE_DIR}/schema.json": f"{json.dumps(project_schema(), indent=2)}\n"}


def _local(loaded: LoadedProject) -> LoadedProject:
    """A cluster that is not local is allowed by a file that somebody wrote, not by none."""
    return replace(loaded, project=replace(loaded.project, allow_contexts=()))


def _is_free(port: int) -> bool:
    return not is_bound(port)


def _nothing(root: Path, proposal: Proposal) -> DevloopError:
    seen = ", ".join((*proposal.found, *proposal.unread))
    return DevloopError.of(
        Code.CONFIG_DOCKERFILE_MISSING,
        f"there is no Dockerfile in {root}, nor a few folders below",
        cause=f"found: {seen}" if seen else None,
        suggestions=("write one: `docker init` asks a few questions and does",),
    )


def _not_found(root: Path, proposal: Proposal, doubts: list[str]) -> DevloopError:
    if not proposal.services:
        hints: tuple[str, ...] = (
            "write a Dockerfile (`docker init` does), or -f FILE names a devloop.yaml",
        )
    else:
        hints = ("devloop init writes a devloop.yaml to complete",)
        folders = sorted({each.context for each in proposal.services} - {"."})
        if len(proposal.services) > 1 and folders:
            hints = (*hints, f"or for one of them: cd {folders[0]} && devloop dev")
    return DevloopError.of(
        Code.CONFIG_NOT_FOUND,
        f"no {FILE_NAME} in {root} or a directory above it, and none can be assumed",
        cause="; ".join(doubts),
        suggestions=hints,
    )
