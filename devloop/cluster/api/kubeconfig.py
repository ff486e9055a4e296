"""Read kubeconfig files.

Why not the client library's reader: importing it costs a third of a second, it lets the *last* file
of KUBECONFIG decide the current context where kubectl takes the first, it ignores impersonation and
it leaves client keys in the temporary directory. Nothing in this module talks to a cluster, and how
a user proves who they are is user_credentials.py's to know.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from devloop.base.home import home_directory
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.cluster.api.pod_view import Json


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the API server is. `ca` is PEM text; empty means the system's authorities."""

    server: str
    ca: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    proxy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context with everything it names, resolved once. `user_entry` holds the raw user, its
    relative paths made absolute."""

    name: str
    namespace: str
    cluster: Cluster
    user_name: str
    user_entry: Json
    cluster_entry: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubeconfig:
    """All files merged; the first file that names something wins, as with kubectl."""

    files: tuple[Path, ...]
    current: str
    contexts: Mapping[str, Json]
    clusters: Mapping[str, Json]
    users: Mapping[str, Json]

    def resolve(self, name: str | None) -> Context:
        """The context called `name`, or the current one. Raises cluster/context-not-found."""
        wanted = name or self.current
        if not wanted or wanted not in self.contexts:
            raise self._no_context(wanted)
        context = self.contexts[wanted]
        cluster_name = str(context.get("cluster") or "")
        entry = self.clusters.get(cluster_name)
        if entry is None or not entry.get("server"):
            raise DevloopError.of(
                Code.CLUSTER_CONTEXT_NOT_FOUND,
                f"context {wanted!r} names the cluster {cluster_name!r}, which has no server",
                location=self._location(),
                suggestions=("look at `kubectl config view`",),
            )
        user_name = str(context.get("user") or "")
        return Context(
            name=wanted,
            namespace=str(context.get("namespace") or "default"),
            cluster=_cluster(entry),
            user_name=user_name,
            user_entry=self.users.get(user_name, {}),
            cluster_entry=entry,
        )

    def _location(self) -> Location | None:
        return Location(str(self.files[0])) if self.files else None

    def _no_context(self, wanted: str) -> DevloopError:
        known = sorted(self.contexts)
        if not known:
            looked = ", ".join(str(f) for f in self.files)
            return DevloopError.of(
                Code.CLUSTER_CONTEXT_NOT_FOUND,
                "there is no kubeconfig with a context",
                cause=f"looked at {looked}" if looked else None,
                suggestions=(
                    "devloop cluster up makes a local cluster",
                    "or set KUBECONFIG to your cluster's file",
                ),
            )
        what = f"context {wanted!r}" if wanted else "current context"
        near = difflib.get_close_matches(wanted, known, n=1) if wanted else known[:1]
        suggestions = tuple(f"did you mean --context {n}?" for n in near)
        return DevloopError.of(
            Code.CLUSTER_CONTEXT_NOT_FOUND,
            f"the kubeconfig has no {what}",
            location=self._location(),
            cause="contexts: " + ", ".join(known),
            suggestions=suggestions or (f"use one of: {', '.join(known)}",),
        )


def read(env: Mapping[str, str]) -> Kubeconfig:
    """Read the files of KUBECONFIG, else ~/.kube/config. Missing files are skipped, as kubectl
    does; a file that is not a kubeconfig raises config/parse."""
    value = env.get("KUBECONFIG", "")
    names = [n for n in value.split(os.pathsep) if n]
    names = names or [str(home_directory(env) / ".kube" / "config")]
    files = tuple(Path(n) for n in names)
    current = ""
    merged: dict[str, dict[str, Json]] = {"contexts": {}, "clusters": {}, "users": {}}
    for file in files:
        document = _load(file)
        current = current or str(document.get("current-context") or "")
        for section, entries in merged.items():
            for item in document.get(section) or ():
                if isinstance(item, dict) and isinstance(item.get("name"), str):
                    body = item.get(section.removesuffix("s"))
                    entry = _absolute(body if isinstance(body, dict) else {}, file.parent)
                    entries.setdefault(item["name"], entry)
    return Kubeconfig(files=files, current=current, **merged)


def _load(file: Path) -> dict[str, Any]:
    try:
        text = text_of(file, "the kubeconfig cannot be read")
    except DevloopError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader, in C if there
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = (mark.line + 1, mark.column + 1) if mark else ()
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            "the kubeconfig is not YAML",
            location=Location(str(file), *place),
            cause=error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error),
        ) from error
    return document if isinstance(document, dict) else {}


_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def _absolute(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Relative paths in a kubeconfig start at its file; so does a plugin given as ./path."""
    result = dict(entry)
    for key in _PATHS:
        if isinstance(result.get(key), str) and result[key]:
            result[key] = str(directory / result[key])
    plugin = result.get("exec")
    if isinstance(plugin, dict):
        command = plugin.get("command")
        if isinstance(command, str) and os.sep in command and not Path(command).is_absolute():
            result["exec"] = plugin | {"command": str(directory / command)}
    return result


def _cluster(entry: Json) -> Cluster:
    insecure = bool(entry.get("insecure-skip-tls-verify"))
    return Cluster(
        server=str(entry["server"]).rstrip("/"),
        ca="" if insecure else pem_of(entry, "certificate-authority"),
        insecure=insecure,
        tls_server_name=str(entry.get("tls-server-name") or ""),
        proxy=str(entry.get("proxy-url") or ""),
    )


def pem_of(entry: Json, key: str) -> str:
    """PEM text of an entry, "" for none: the data form wins over the file form, as with kubectl.

    Raises config/value and env/file-unreadable."""
    data = entry.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False).decode("ascii", "replace")
        except (binascii.Error, ValueError) as error:
            raise DevloopError.of(
                Code.CONFIG_VALUE, f"{key}-data of the kubeconfig is not base64", cause=str(error)
            ) from error
    name = entry.get(key)
    return text_of(Path(str(name))) if name else ""


def text_of(file: Path, otherwise: str = "a file that the kubeconfig names cannot be read") -> str:
    """Raises env/file-unreadable, saying `otherwise`."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE, otherwise, location=Location(str(file)), cause=str(error)
        ) from error
