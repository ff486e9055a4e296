"""The services of a Compose file that are built, as far as a devloop.yaml can say the same.

Reads the file as data; whatever is not understood is left out. What Compose gives a container
besides its image (environment, volumes) belongs into manifests and is only named.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from devloop.base.lazy_dataclass import dataclass
from devloop.config.variables import expand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LARGEST = 1024 * 1024
# `$$`, `$NAME`, and what has no default of its own: `${NAME}`, `${NAME:?message}`.
_VARIABLE = re.compile(r"\$\$|\$([A-Za-z_]\w*)|\$\{([A-Za-z_]\w*)(?::?\?[^}]*)?\}")
# What a container gets besides its image: it is for manifests to say.
_NOT_CARRIED = ("environment", "env_file", "volumes", "depends_on", "secrets", "configs", "command")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeService:
    """A service with `build:`. Paths are relative to the project's folder, `dockerfile` too.
    `ports` are pairs of local port (0: none) and the container's. `left_out` are keys of it that
    devloop.yaml has no place for."""

    name: str
    file: str
    context: str
    dockerfile: str
    target: str = ""
    args: tuple[tuple[str, str | None], ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeFile:
    """`others` are the services that only run an image, as name and image. `problem` says why the
    file could not be read."""

    built: tuple[ComposeService, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    problem: str = ""


def read_compose(root: Path, path: str, env: Mapping[str, str]) -> ComposeFile:
    """What `path` (relative to `root`) has. `env` is what `${NAME}` may name."""
    try:
        with (root / path).open("rb") as file:
            document = yaml.load(file.read(_LARGEST), Loader=_LOADER)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError, ValueError) as error:
        return ComposeFile(problem=str(error).splitlines()[0])
    services = document.get("services") if isinstance(document, dict) else None
    built: list[ComposeService] = []
    others: list[tuple[str, str]] = []
    for name, service in (services if isinstance(services, dict) else {}).items():
        if not isinstance(service, dict):
            continue
        if service.get("build"):
            built += _built(str(name), service, path, env)
        elif service.get("image"):
            others.append((str(name), expand(str(service["image"]), env, bare="replace").text))
    return ComposeFile(built=tuple(built), others=tuple(others))


def _built(
    name: str, service: dict[str, Any], path: str, env: Mapping[str, str]
) -> Iterator[ComposeService]:
    build = service["build"]
    build = {"context": build} if isinstance(build, str) else build
    if not isinstance(build, dict):
        return

    def text(value: object) -> str:
        return expand(str(value), env, bare="replace").text

    folder = path.rpartition("/")[0]
    context = os.path.normpath(Path(folder, text(build.get("context") or ".")))
    if context.startswith(("/", "..")) or "://" in str(build.get("context")):
        return
    dockerfile = text(build.get("dockerfile") or "Dockerfile")
    yield ComposeService(
        name=name,
        file=path,
        context=context,
        dockerfile=os.path.normpath(Path(context, dockerfile)),
        target=text(build.get("target") or ""),
        args=tuple(_args(build.get("args"))),
        ports=tuple(dict.fromkeys(_ports(service, text))),
        left_out=tuple(key for key in _NOT_CARRIED if service.get(key)),
    )


def _args(given: object) -> Iterator[tuple[str, str | None]]:
    """As they are written: devloop.yaml has the same `${NAME}`, where Compose takes a variable that
    is not set for an empty one."""
    if isinstance(given, dict):
        for name, value in given.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield str(name), None if value is None else _VARIABLE.sub(_with_default, text)
    for each in given if isinstance(given, list) else ():
        name, equals, value = str(each).partition("=")
        yield name, _VARIABLE.sub(_with_default, value) if equals else None


def _with_default(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    return f"${{{name}:-}}" if name else found[0]


def _ports(service: dict[str, Any], text: Any) -> Iterator[tuple[int, int]]:
    for each in service.get("ports") or ():
        if isinstance(each, dict):
            published, target = text(each.get("published") or "0"), text(each.get("target") or "")
            protocol = str(each.get("protocol") or "tcp")
        else:
            whole, _, protocol = text(each).partition("/")
            *before, target = whole.split(":")
            published = before[-1] if before else "0"
        if target.isdecimal() and published.isdecimal() and protocol in ("", "tcp"):
            yield int(published), int(target)
    for each in service.get("expose") or ():
        if text(each).isdecimal():
            yield 0, int(text(each))
