"""From checked values to the dataclasses of schema.py: defaults, absolute paths, mutual rules.

Touches no file: paths are joined, never looked at (files.py does that).
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from devloop.base.image_reference import familiar
from devloop.base.lazy_dataclass import dataclass
from devloop.config.grammar import Block, List, Map
from devloop.config.problems import nearest
from devloop.config.rules import label_from
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from devloop.config.grammar import Kind
    from devloop.config.problems import Locations, Problems
    from devloop.config.problems import Path as Where


_PORT = re.compile(
    r"(?:(?P<address>[0-9.]*\.[0-9.]*|\[[^]]*\]|localhost):)?(?P<local>[0-9]+)"
    r"(?::(?:(?P<target>[a-z]+/[^:]+):)?(?P<port>[^:/]+))?"
)
# Where the debuggers listen by their own defaults.
_DEBUG_PORTS = {"python": 5678, "node": 9229, "go": 2345}
# What is no directory, in a named context's source: buildx takes the rest for a path.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://)?(?=\S)")
_CONTEXT_SCHEMES = ("docker-image://", "oci-layout://", "https://", "http://", "git://", "ssh://")
_GIT = re.compile(r"git@[^/]+:|github\.com/")
_Values: TypeAlias = dict[str, Any]
# A list as the reader leaves it: each item with its position in the file.
_Items: TypeAlias = "Iterable[tuple[int, Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceScope:
    """The setting at `where` of the file: what it is relative to, and where its problems go."""

    file: Path
    variables: Mapping[str, str]
    locations: Locations
    problems: Problems
    where: Where = ()

    def below(self, part: str | int) -> ServiceScope:
        return replace(self, where=(*self.where, part))

    def refuse(self, key: str | int, message: str, hint: str, cause: str | None = None) -> None:
        """Report what is wrong with what stands under `key`."""
        where = (*self.where, key)
        locate = self.locations.value if isinstance(key, int) else self.locations.key
        self.problems.add(Code.CONFIG_VALUE, message, locate(where), hint, cause=cause)

    def path(self, text: str) -> Path:
        return _normal(self.file.parent / self.home(text))

    def home(self, text: str) -> str:
        home = self.variables.get("HOME")
        return home + text[1:] if home and (text == "~" or text.startswith("~/")) else text

    def pattern(self, text: str) -> str:
        """An absolute pattern; what stands above it is no part of the pattern."""
        return os.path.normpath(Path(glob.escape(str(self.file.parent)), self.home(text)))


def make(kind: Block, values: _Values, scope: ServiceScope) -> object | None:
    """What `values` of a block make, with defaults for what they lack; None after any problem."""
    found: _Values = {}
    for name, key in kind.keys.items():
        if name in values or isinstance(key.kind, Block):
            value, below = values.get(name, {}), scope.below(name)
            found[key.field] = key.read(value, below) if key.read else _made(key.kind, value, below)
    if kind.finish is not None:
        kind.finish(found, values, scope)
    return None if scope.problems else kind.make(**found)


def _made(kind: Kind, value: Any, scope: ServiceScope) -> Any:
    if isinstance(kind, Block):
        return make(kind, value, scope)
    if isinstance(kind, List) and not isinstance(value, str):
        return tuple(_made(kind.item, item, scope.below(at)) for at, item in value)
    if isinstance(kind, Map) and isinstance(kind.value, Block):
        read = {name: each for name, each in value.items() if isinstance(each, dict)}
        return {name: _made(kind.value, each, scope.below(name)) for name, each in read.items()}
    return value


def texts(items: _Items) -> tuple[str, ...]:
    return tuple(text for _, text in items)


def args(values: Mapping[str, Any], scope: ServiceScope) -> dict[str, str]:
    """One without a value is taken from the environment or, if not there, left out."""
    given = scope.variables
    found = {name: given.get(name) if text is None else text for name, text in values.items()}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def secrets(items: _Items, scope: ServiceScope) -> tuple[str, ...]:
    """Secrets with absolute `src`.

    In a flow list, YAML parts `[id=pip,src=pip.conf]` at the comma; an item without `id=` is the
    rest of the one before."""
    joined: list[tuple[int, str]] = []
    for position, text in items:
        if joined and not secret_fields(text).get("id"):
            joined[-1] = (joined[-1][0], f"{joined[-1][1]},{text}")
        else:
            joined.append((position, text))
    return tuple(_secret(text, position, scope) for position, text in joined)


def _secret(text: str, position: int, scope: ServiceScope) -> str:
    fields = secret_fields(text)
    if not fields.get("id") or not fields.keys() <= {"id", "src", "source", "env", "type"}:
        scope.refuse(
            position,
            f"{text!r} is not a build secret",
            "id=pip,src=pip.conf",
            "the form is id=NAME,src=FILE or id=NAME,env=VARIABLE",
        )
        return text
    for name in ("src", "source"):
        if fields.get(name):
            fields[name] = str(scope.path(fields[name]))
    return ",".join(f"{name}={value}" for name, value in fields.items())


def buildx_specs(items: _Items, _: ServiceScope) -> tuple[str, ...]:
    """Sources and destinations of a cache. In a flow list, YAML parts `[type=registry,ref=x]` at
    the comma; an item with another first key than `type=` is the rest of the one before."""
    joined: list[str] = []
    for text in texts(items):
        goes_on = re.match(r"[\w-]+=", text) and not text.startswith("type=")
        if joined and joined[-1].startswith("type=") and goes_on:
            joined[-1] = f"{joined[-1]},{text}"
        else:
            joined.append(text)
    return tuple(joined)


def contexts(values: Mapping[str, Any], scope: ServiceScope) -> dict[str, str]:
    """Directories get their whole path. The names of Docker Hub's images are written in several
    ways; they are kept in the one by which BuildKit looks them up."""
    found: dict[str, str] = {}
    for name, text in values.items():
        scheme = _SCHEME.match(text)
        if scheme and scheme[0].lower() not in _CONTEXT_SCHEMES:
            near = nearest(scheme[0], _CONTEXT_SCHEMES)
            scope.refuse(
                name,
                f"{text!r} is no source of a named context",
                f"{name}: {near}{text[scheme.end() :]}" if near else "",
                "a directory, docker-image://, oci-layout:// or the URL of a Git repository or of "
                "a file",
            )
        remote = scheme or _GIT.match(text)
        found[familiar(name)] = text if remote else str(scope.path(text))
    return found


def ssh(items: _Items, scope: ServiceScope) -> tuple[str, ...]:
    """Agents and keys with absolute paths."""
    found = []
    for text in texts(items):
        name, equals, paths = text.partition("=")
        absolute = ",".join(str(scope.path(path)) for path in paths.split(","))
        found.append(f"{name}={absolute}" if equals else text)
    return tuple(found)


def port(text: str) -> tuple[str, int, str, str]:
    """The address ("" for loopback), the local port, the object ("" for the service's own workload)
    and its port, a number or a name."""
    found = _PORT.fullmatch(text)
    assert found is not None, text  # noqa: S101 - rules.PORT let it through
    address = (found["address"] or "").strip("[]")
    address = "" if address in ("localhost", "127.0.0.1") else address
    return address, int(found["local"]), found["target"] or "", found["port"] or found["local"]


def finish_build(found: _Values, _values: _Values, scope: ServiceScope) -> None:
    context = found.setdefault("context", scope.path("."))
    found["dockerfile"] = _normal(context / scope.home(found.get("dockerfile", "Dockerfile")))
    command = found.get("command")
    if found.get("builder") == "command" and command is None and not scope.problems:
        hint = "add `command: [./build.sh]`"
        scope.refuse("builder", "`builder: command` needs a `command`", hint)
    elif found.get("builder") != "command" and command is not None:
        hint = "add `builder: command`, or remove `command`"
        scope.refuse("command", "`command` is only read with `builder: command`", hint)
    if found.get("builder") == "command":
        for key in ("contexts", "platforms"):
            if found.get(key):
                scope.refuse(key, f"`{key}` is not read with `builder: command`", "remove it")
    platforms: tuple[str, ...] = tuple(dict.fromkeys(found.get("platforms") or ()))
    if platforms and found.get("platform"):
        hint = "remove `platform`"
        scope.refuse("platform", "`platform` and `platforms` exclude each other", hint)
    elif len(platforms) == 1:
        found |= {"platform": platforms[0], "platforms": ()}


def finish_deploy(found: _Values, _values: _Values, scope: ServiceScope) -> None:
    service = scope.where[-2]
    given: tuple[str, ...] = found.get("workloads") or ()
    kind, _, name = (given[0] if given else f"deployment/{service}").partition("/")
    found |= {"workload_kind": kind, "workload_name": name, "workload_default": not given}
    rendered = any(map(found.get, ("manifests", "kustomize", "helm")))
    if len(given) > 1 and rendered:
        hint = f"workload: {given[0]}"
        what = "several workloads are for a service without manifests: of those in the manifests "
        scope.refuse("workload", what + "everything that runs the image is followed", hint)
    _check_release(found, scope)


def _check_release(found: _Values, scope: ServiceScope) -> None:
    """Which object is the release's and which devloop's is only known where there is one kind."""
    charts = filter(None, found.get("helm") or ())  # there is none where one is wrong
    releases = [chart for chart in charts if chart.mode == "release"]
    for key in ("manifests", "kustomize"):
        if releases and found.get(key):
            scope.refuse(
                key,
                f"`{key}` cannot stand beside a chart with `mode: release`",
                "mode: template, or move them into the chart",
            )


def finish_debug(found: _Values, _values: _Values, scope: ServiceScope) -> None:
    found.setdefault("port", _DEBUG_PORTS.get(found.get("kind", "")))
    found["location"] = scope.locations.key(scope.where)


def finish_service(found: _Values, _values: _Values, scope: ServiceScope) -> None:
    name = scope.where[-1]
    found.setdefault("image", name)
    found |= {"name": name, "line": scope.locations.key(scope.where).line or 1}


def finish_project(found: _Values, values: _Values, scope: ServiceScope) -> None:
    root = scope.file.parent
    # A project without a name has its directory's, made fit for Kubernetes.
    found.setdefault("name", label_from(root.name) or "project")
    found |= {"root": root, "file": scope.file}
    _check_ports(values.get("services", {}), scope)
    _check_needs(values.get("services", {}), scope)


def _check_ports(services: Mapping[str, Any], scope: ServiceScope) -> None:
    taken: dict[int, Where] = {}
    for name, values in services.items():
        for below, local, container in _local_ports(values) if isinstance(values, dict) else ():
            where: Where = ("services", name, *below)
            first = taken.setdefault(local, where)
            if first is not where:
                other = local % 65535 + 1
                replace(scope, where=where[:-1]).refuse(
                    where[-1],
                    f"the local port {local} is used twice",
                    f'"{other}:{container}"' if container else f"port: {other}",
                    f"`{first[1]}` has it at {scope.locations.value(first)}",
                )


def _local_ports(values: Mapping[str, Any]) -> Iterator[tuple[Where, int, str]]:
    """The local ports of a service: where they stand in it, and which port they lead to; "" for the
    debugger's, which is the same one."""
    for position, text in values.get("ports", ()):
        _, local, _, container = port(text)
        yield ("ports", position), local, container
    debug = values.get("debug") or {}
    number = debug.get("port") or _DEBUG_PORTS.get(debug.get("kind", ""))
    if number:
        yield ("debug", "port"), int(number), ""


def _check_needs(services: Mapping[str, Any], scope: ServiceScope) -> None:
    needs: dict[str, dict[str, Where]] = {}
    for name, values in services.items():
        for position, other in values.get("needs", ()) if isinstance(values, dict) else ():
            where: Where = ("services", name, "needs", position)
            if other in services:
                needs.setdefault(name, {}).setdefault(other, where)
                continue
            meant = nearest(other, services)
            replace(scope, where=where[:-1]).refuse(
                position,
                f"there is no service `{other}`",
                f"did you mean `{meant}`?" if meant else "",
                f"services: {', '.join(services)}",
            )
    for cycle in _cycles(needs):
        first, second = cycle[:2]
        where = needs[first][second]
        steps = itertools.pairwise(cycle)
        places = (f"{a} needs {b} at {scope.locations.value(needs[a][b])}" for a, b in steps)
        replace(scope, where=where[:-1]).refuse(
            int(where[-1]),
            f"services need each other: {' -> '.join(cycle)}",
            "take one of them out",
            ", ".join(places),
        )


def _cycles(needs: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """The ways through `needs` that lead back to where they began, one for each service at most and
    no service on two."""
    done: set[str] = set()

    def walk(way: tuple[str, ...]) -> tuple[str, ...] | None:
        for other in needs.get(way[-1], ()):
            if other in way:
                return (*way[way.index(other) :], other)
            if other not in done and (found := walk((*way, other))) is not None:
                return found
        done.add(way[-1])
        return None

    for name in needs:
        if name not in done and (found := walk((name,))) is not None:
            done.update(found)
            yield found


def secret_fields(text: str) -> dict[str, str]:
    """The fields of a secret in buildx's form: id, src ..."""
    parts = (part.partition("=") for part in text.split(","))
    return {name.strip(): value.strip() for name, _, value in parts}


def _normal(path: Path) -> Path:
    """Without `.` and `..`; symbolic links stay, as they are the user's own names."""
    return Path(os.path.normpath(path))
