"""Read kubeconfig files and the credentials in them.

Why not the client library's reader: importing it costs a third of a second, it lets the *last* file
of KUBECONFIG decide the current context where kubectl takes the first, and it leaves client keys in
the temporary folder. Credential plugins and identity providers are its job here, imported only for
users that need them. Nothing in this module talks to a cluster.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Cluster", "Context", "Kubeconfig", "UserCredentials", "obtain", "read"]

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
class UserCredentials:
    """How to prove who we are. `cert` and `key` are PEM text, `authorization` a header's value.

    `source` tells whether a refused request is worth a second try after `obtain` ran again."""

    authorization: str = ""
    cert: str = ""
    key: str = ""
    source: Literal["none", "static", "file", "plugin"] = "none"

    @property
    def renewable(self) -> bool:
        return self.source in {"file", "plugin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context with everything it names, resolved once. `user_entry` holds the raw user, its
    relative paths made absolute."""

    name: str
    namespace: str
    cluster: Cluster
    cluster_name: str
    user_name: str
    user_entry: Mapping[str, Any]
    cluster_entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubeconfig:
    """All files merged; the first file that names something wins, as with kubectl."""

    files: tuple[Path, ...]
    current: str
    contexts: Mapping[str, Mapping[str, Any]]
    clusters: Mapping[str, Mapping[str, Any]]
    users: Mapping[str, Mapping[str, Any]]

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
            cluster_name=cluster_name,
            user_name=user_name,
            user_entry=self.users.get(user_name, {}),
            cluster_entry=entry,
        )

    def _location(self) -> Location | None:
        return Location(str(self.files[0])) if self.files else None

    def _no_context(self, wanted: str) -> DevloopError:
        known = sorted(self.contexts)
        if not known:
            message = "there is no kubeconfig with a context"
            looked = ", ".join(str(f) for f in self.files)
            return DevloopError.of(
                Code.CLUSTER_CONTEXT_NOT_FOUND,
                message,
                cause=f"looked at {looked}" if looked else None,
                suggestions=(
                    "devloop cluster up makes a local cluster",
                    "or set KUBECONFIG to your cluster's file",
                ),
            )
        if not wanted:
            message = "the kubeconfig has no current context"
            near = known[:1]
        else:
            message = f"the kubeconfig has no context {wanted!r}"
            near = difflib.get_close_matches(wanted, known, n=1)
        suggestions = tuple(f"did you mean --context {n}?" for n in near)
        return DevloopError.of(
            Code.CLUSTER_CONTEXT_NOT_FOUND,
            message,
            location=self._location(),
            cause="contexts: " + ", ".join(known),
            suggestions=suggestions or (f"use one of: {', '.join(known)}",),
        )


def read(env: Mapping[str, str]) -> Kubeconfig:
    """Read the files of KUBECONFIG, else ~/.kube/config. Missing files are skipped, as kubectl
    does; a file that is not a kubeconfig raises config/parse."""
    value = env.get("KUBECONFIG", "")
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    names = [n for n in value.split(os.pathsep) if n] or [str(home / ".kube" / "config")]
    files = tuple(Path(n) for n in names)
    current = ""
    merged: dict[str, dict[str, Mapping[str, Any]]] = {"contexts": {}, "clusters": {}, "users": {}}
    for file in files:
        document = _load(file)
        current = current or str(document.get("current-context") or "")
        for section, inner in (("contexts", "context"), ("clusters", "cluster"), ("users", "user")):
            for item in document.get(section) or ():
                if isinstance(item, dict) and isinstance(item.get("name"), str):
                    body = item.get(inner)
                    entry = _absolute(body if isinstance(body, dict) else {}, file.parent)
                    merged[section].setdefault(item["name"], entry)
    return Kubeconfig(
        files=files,
        current=current,
        contexts=merged["contexts"],
        clusters=merged["clusters"],
        users=merged["users"],
    )


def _load(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE,
            "the kubeconfig cannot be read",
            location=Location(str(file)),
            cause=str(error),
        ) from error
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader, in C if there
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            "the kubeconfig is not YAML",
            location=Location(str(file), mark.line + 1, mark.column + 1)
            if mark
            else Location(str(file)),
            cause=error.problem,
        ) from error
    except yaml.YAMLError as error:
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            "the kubeconfig is not YAML",
            location=Location(str(file)),
            cause=str(error),
        ) from error
    return document if isinstance(document, dict) else {}


_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative paths in a kubeconfig start at its file; so does a plugin given as ./path."""
    result = dict(entry)
    for key in _PATHS:
        if isinstance(result.get(key), str) and result[key]:
            result[key] = str(folder / result[key])
    plugin = result.get("exec")
    if isinstance(plugin, dict):
        command = plugin.get("command")
        if isinstance(command, str) and os.sep in command and not Path(command).is_absolute():
            result["exec"] = plugin | {"command": str(folder / command)}
    return result


def _cluster(entry: Mapping[str, Any]) -> Cluster:
    insecure = bool(entry.get("insecure-skip-tls-verify"))
    return Cluster(
        server=str(entry["server"]).rstrip("/"),
        ca="" if insecure else _pem(entry, "certificate-authority"),
        insecure=insecure,
        tls_server_name=str(entry.get("tls-server-name") or ""),
        proxy=str(entry.get("proxy-url") or ""),
    )


def _pem(entry: Mapping[str, Any], key: str) -> str:
    """The data form wins over the file form, as kubectl has it."""
    data = entry.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False).decode("ascii", "replace")
        except (binascii.Error, ValueError) as error:
            raise DevloopError.of(
                Code.CONFIG_VALUE, f"{key}-data of the kubeconfig is not base64", cause=str(error)
            ) from error
    name = entry.get(key)
    return _text(Path(str(name))) if name else ""


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE,
            "a file that the kubeconfig names cannot be read",
            location=Location(str(file)),
            cause=str(error),
        ) from error


def obtain(context: Context) -> UserCredentials:
    """Get the user's credentials: runs a credential plugin if the user has one.

    The order is client-go's: certificate and token as they stand, then the plugin, the identity
    provider, the password. Raises cluster/unauthorized when a plugin fails."""
    user = context.user_entry
    cert, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    token, source = str(user.get("token") or ""), "static"
    if not token and user.get("tokenFile"):
        # Projected tokens are rewritten while we run: worth reading again after a 401.
        token, source = _text(Path(str(user["tokenFile"]))).strip(), "file"
    if token:
        return UserCredentials(
            authorization=f"Bearer {token}",
            cert=cert,
            key=key,
            source="file" if source == "file" else "static",
        )
    if user.get("exec"):
        return _plugin(context, cert, key)
    if user.get("auth-provider"):
        return _provider(context)
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password') or ''}".encode()
        basic = base64.b64encode(pair).decode("ascii")
        return UserCredentials(authorization=f"Basic {basic}", cert=cert, key=key, source="static")
    return UserCredentials(cert=cert, key=key, source="static" if cert else "none")


def _plugin(context: Context, cert: str, key: str) -> UserCredentials:
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415 - slow import
    from kubernetes.config.exec_provider import ExecProvider  # noqa: PLC0415 - slow import
    from kubernetes.config.kube_config import ConfigNode  # noqa: PLC0415 - slow import

    plugin = context.user_entry["exec"]
    try:
        entry = ConfigNode("exec", plugin)  # type: ignore[no-untyped-call]
        cluster = ConfigNode("cluster", dict(context.cluster_entry))  # type: ignore[no-untyped-call]
        provider = ExecProvider(entry, "", cluster)  # type: ignore[no-untyped-call]
        status = provider.run()  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, KeyError, TypeError, ValueError) as error:
        command = plugin.get("command") if isinstance(plugin, dict) else plugin
        hint = plugin.get("installHint") if isinstance(plugin, dict) else None
        raise DevloopError.of(
            Code.CLUSTER_UNAUTHORIZED,
            f"the credential plugin {command!r} of user {context.user_name!r} failed",
            cause=str(error).splitlines()[0] if str(error) else type(error).__name__,
            suggestions=(
                str(hint).splitlines()[0] if hint else f"run `{command}` by hand, or log in again",
            ),
            detail=tuple(str(error).splitlines()[:20]),
        ) from error
    token = status.get("token")
    return UserCredentials(
        authorization=f"Bearer {token}" if token else "",
        cert=str(status.get("clientCertificateData") or cert),
        key=str(status.get("clientKeyData") or key),
        source="plugin",
    )


def _provider(context: Context) -> UserCredentials:
    from kubernetes.client.configuration import Configuration  # noqa: PLC0415 - slow import
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415 - slow import
    from kubernetes.config.kube_config import KubeConfigLoader  # noqa: PLC0415 - slow import

    document = {
        "current-context": context.name,
        "contexts": [
            {
                "name": context.name,
                "context": {"cluster": context.cluster_name, "user": context.user_name},
            }
        ],
        "clusters": [{"name": context.cluster_name, "cluster": dict(context.cluster_entry)}],
        "users": [{"name": context.user_name, "user": dict(context.user_entry)}],
    }
    configuration = Configuration()
    try:
        loader = KubeConfigLoader(document)  # type: ignore[no-untyped-call]
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, KeyError, TypeError, ValueError) as error:
        raise DevloopError.of(
            Code.CLUSTER_UNAUTHORIZED,
            f"the identity provider of user {context.user_name!r} gave no token",
            cause=str(error),
            suggestions=("log in again with your provider's tool",),
        ) from error
    return UserCredentials(
        authorization=str(configuration.api_key.get("BearerToken") or ""), source="plugin"
    )
