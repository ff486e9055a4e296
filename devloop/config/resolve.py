"""From checked values to a `Project`: short forms, defaults, absolute paths, rules between keys.

Touches no file: paths are joined, never looked at (files.py does that).
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from devloop.config.rules import label_from, seconds
from devloop.config.schema import Build, Deploy, Logs, Port, Project, Service, SyncRule
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.config.locations import Locations
    from devloop.config.locations import Path as Where
    from devloop.config.problems import Problems

__all__ = ["Resolver", "project_name"]

_Values: TypeAlias = dict[str, Any]


def project_name(root: Path) -> str:
    """The name of a project without one: its folder's, made fit for Kubernetes."""
    return label_from(root.name) or "project"


class Resolver:
    """Builds the project of `file`; problems go to `problems`, after which no project comes."""

    def __init__(
        self,
        *,
        file: Path,
        variables: Mapping[str, str],
        locations: Locations,
        problems: Problems,
    ) -> None:
        self._file = file
        self._root = file.parent
        self._variables = variables
        self._locations = locations
        self._problems = problems

    def project(self, values: _Values) -> Project | None:
        """None when something was wrong, here or before."""
        read = {k: v for k, v in values.get("services", {}).items() if isinstance(v, dict)}
        services = {name: self._service(name, service) for name, service in read.items()}
        self._check_ports(read)
        if self._problems:
            return None
        return Project(
            name=values.get("name") or project_name(self._root),
            root=self._root,
            file=self._file,
            context=values.get("context"),
            namespace=values.get("namespace"),
            registry=values.get("registry"),
            allow_contexts=_items(values, "allow_contexts"),
            services=services,
        )

    def _service(self, name: str, values: _Values) -> Service:
        where = ("services", name)
        return Service(
            name=name,
            image=values.get("image", name),
            build=self._build(values.get("build", {}), (*where, "build")),
            deploy=self._deploy(name, values.get("deploy", {})),
            sync=_sync(values),
            ports=tuple(_port(text) for text in _items(values, "ports")),
            logs=Logs(containers=_items(values.get("logs", {}), "containers") or ("*",)),
            line=self._locations.key(where).line or 1,
        )

    def _build(self, values: _Values, where: Where) -> Build:
        context = self._path(values.get("context", "."))
        dockerfile = values.get("dockerfile", "Dockerfile")
        builder = values.get("builder", "auto")
        command = _items(values, "command") or None
        if builder == "command" and command is None and not self._problems:
            self._problems.add(
                Code.CONFIG_VALUE,
                "`builder: command` needs a `command`",
                self._locations.key((*where, "builder")),
                suggestions=("add `command: [./build.sh]`",),
            )
        elif builder != "command" and command is not None:
            self._problems.add(
                Code.CONFIG_VALUE,
                "`command` is only read with `builder: command`",
                self._locations.key((*where, "command")),
                suggestions=("add `builder: command`, or remove `command`",),
            )
        return Build(
            context=context,
            dockerfile=_normal(context / self._home(dockerfile)),
            target=values.get("target"),
            args=self._args(values.get("args", {})),
            secrets=self._secrets(values, where),
            ssh=tuple(self._ssh(text) for text in _items(values, "ssh")),
            platform=values.get("platform"),
            ignore=_items(values, "ignore"),
            builder=builder,
            command=command,
        )

    def _args(self, values: Mapping[str, Any]) -> dict[str, str]:
        """One without a value is taken from the environment or, if not there, left out."""
        found: dict[str, str] = {}
        for name, value in values.items():
            text = self._variables.get(name) if value is None else value
            if isinstance(text, str):
                found[name] = text
        return found

    def _secrets(self, values: _Values, where: Where) -> tuple[str, ...]:
        """Secrets with absolute `src`.

        In a flow list, YAML parts `[id=pip,src=pip.conf]` at the comma; an item without `id=` is
        the rest of the one before.
        """
        joined: list[tuple[int, str]] = []
        for position, text in values.get("secrets", []):
            if joined and not _fields(text).get("id"):
                joined[-1] = (joined[-1][0], f"{joined[-1][1]},{text}")
            else:
                joined.append((position, text))
        return tuple(self._secret(text, (*where, "secrets", position)) for position, text in joined)

    def _secret(self, text: str, where: Where) -> str:
        fields = _fields(text)
        known = {"id", "src", "source", "env", "type"}
        if not fields.get("id") or not fields.keys() <= known:
            self._problems.add(
                Code.CONFIG_VALUE,
                f"{text!r} is not a build secret",
                self._locations.value(where),
                cause="the form is id=NAME,src=FILE or id=NAME,env=VARIABLE",
                suggestions=("id=pip,src=pip.conf",),
            )
            return text
        for name in ("src", "source"):
            if fields.get(name):
                fields[name] = str(self._path(fields[name]))
        return ",".join(f"{name}={value}" for name, value in fields.items())

    def _ssh(self, text: str) -> str:
        name, equals, paths = text.partition("=")
        if not equals:
            return text
        return f"{name}={','.join(str(self._path(path)) for path in paths.split(','))}"

    def _deploy(self, service: str, values: _Values) -> Deploy:
        kind, _, name = values.get("workload", f"deployment/{service}").partition("/")
        return Deploy(
            workload_kind=cast("Any", kind),
            workload_name=name,
            container=values.get("container"),
            manifests=tuple(self._pattern(text) for text in _items(values, "manifests")),
            timeout=seconds(values["timeout"]) if "timeout" in values else 120.0,
            replace=values.get("replace", "auto"),
            on_failure=values.get("on_failure"),
        )

    def _check_ports(self, services: Mapping[str, Any]) -> None:
        taken: dict[int, Where] = {}
        for name, values in services.items():
            for position, text in values.get("ports", ()):
                where: Where = ("services", name, "ports", position)
                port = _port(text)
                first = taken.setdefault(port.local, where)
                if first is not where:
                    self._problems.add(
                        Code.CONFIG_VALUE,
                        f"the local port {port.local} is used twice",
                        self._locations.value(where),
                        cause=f"`{first[1]}` has it at {self._locations.value(first)}",
                        suggestions=(f'"{port.local % 65535 + 1}:{port.container}"',),
                    )

    def _path(self, text: str) -> Path:
        return _normal(self._root / self._home(text))

    def _home(self, text: str) -> str:
        home = self._variables.get("HOME")
        return home + text[1:] if home and (text == "~" or text.startswith("~/")) else text

    def _pattern(self, text: str) -> str:
        """An absolute pattern; what stands above it is no part of the pattern."""
        text = self._home(text)
        return os.path.normpath(Path(glob.escape(str(self._root)), text))


def _items(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(value for _, value in values.get(key, ()))


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in text.split(","):
        name, _, value = field.partition("=")
        fields[name.strip()] = value.strip()
    return fields


def _port(text: str) -> Port:
    local, _, container = text.partition(":")
    return Port(local=int(local), container=int(container or local))


def _sync(values: _Values) -> tuple[SyncRule, ...] | Literal["auto"]:
    if values.get("sync") == "auto":
        return "auto"
    rules = [rule for _, rule in values.get("sync", ()) if rule.keys() >= {"src", "dest"}]
    return tuple(SyncRule(**rule) for rule in rules)


def _normal(path: Path) -> Path:
    """Without `.` and `..`; symbolic links stay, as they are the user's own names."""
    return Path(os.path.normpath(path))
