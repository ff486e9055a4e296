"""What a text must look like to be an image's name, a port, a platform and so on.

Each rule is one regular expression, which Python and JSON Schema (ECMA 262) read alike, and an
explanation of what does not match it. Pure; reads no file.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base import image_reference, platforms
from devloop.base.image_reference import HOST_LABEL, IMAGE_PATH, PORT_NUMBER, split_registry
from devloop.base.lazy_dataclass import dataclass
from devloop.config.problems import fault
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.config.problems import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """`pattern` must match the whole text, and `also` (where a pattern cannot say it) must not
    object. `explain` is asked only about texts that `pattern` refuses."""

    name: str
    pattern: str
    longest: int
    explain: Callable[[str], Fault]
    also: Callable[[str], Fault | None] | None = None
    code: Code = Code.CONFIG_VALUE
    examples: tuple[str, ...] = ()

    def check(self, text: str) -> Fault | None:
        if len(text) > self.longest:
            return fault(f"{self.name} has at most {self.longest} characters, this one {len(text)}")
        if re.fullmatch(self.pattern, text) is None:
            return self.explain(text)
        return self.also(text) if self.also else None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def label_from(text: str) -> str:
    """The nearest DNS label to any text (RFC 1123); empty when nothing of it is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def _label_fault(text: str) -> Fault:
    return fault(
        f"{_quoted(text)} is not a name that Kubernetes takes",
        label_from(text),
        cause="a name is made of a-z, 0-9 and -, and begins and ends with a letter or digit",
    )


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

LABEL = TextRule(name="a name", pattern=f"^{_LABEL}$", longest=63, explain=_label_fault)
CONTAINER = replace(LABEL, name="a container's name")


def _image_fault(text: str) -> Fault:
    first, rest = split_registry(text)
    if first and first == first.lower():
        return fault(
            f"{_quoted(text)} names a registry; `image` is the name without it",
            f"registry: {first} and image: {rest.rpartition('@')[0] or rest}",
        )
    for sign, wrong in (
        ("@", "holds a digest; devloop pins the image itself"),
        (":", "holds a tag; devloop tags the image itself"),
    ):
        if sign in text:
            return fault(f"{_quoted(text)} {wrong}", text.partition(sign)[0].lower())
    if text.lower() != text:
        wrong = "holds an uppercase letter; image names are lowercase"
        return fault(f"{_quoted(text)} {wrong}", text.lower())
    return fault(
        f"{_quoted(text)} is not an image name",
        cause="parts divided by / hold a-z and 0-9, with single . _ __ or - between them",
    )


IMAGE = TextRule(
    name="an image name",
    # The lookahead keeps out what docker would take for a registry's host.
    pattern=rf"^(?!localhost/|[^/]*\.[^/]*/){IMAGE_PATH}$",
    longest=200,
    explain=_image_fault,
    code=Code.CONFIG_IMAGE_NAME,
    examples=("shop/web",),
)


def _registry_fault(text: str) -> Fault:
    scheme, found, rest = text.partition("://")
    if found and scheme in {"http", "https", "oci", "docker"}:
        return fault("a registry is written without the scheme", rest.rstrip("/"))
    if text.endswith("/"):
        return fault("a registry does not end in /", text.rstrip("/"))
    host, _, path = text.partition("/")
    if path != path.lower():
        return fault("a registry's path is lowercase", f"{host}/{path.lower()}")
    if re.fullmatch(HOST_LABEL, host):
        return fault(
            f"{_quoted(host)} is not a registry's host",
            f"docker.io/{text}",
            f"{host}:5000 for a host of that name",
            cause="docker takes a single word without a port for a user of Docker Hub",
        )
    return fault(f"{_quoted(text)} is not of the form HOST[:PORT][/PATH]")


REGISTRY = TextRule(
    name="a registry",
    pattern=f"^{image_reference.REGISTRY}$",
    longest=200,
    explain=_registry_fault,
    examples=("localhost:5001", "ghcr.io/acme"),
)


def _platform_fault(text: str) -> Fault:
    if "," in text:
        several = ", ".join(each.strip() for each in text.split(","))
        return fault("one platform only; several are `platforms`", f"platforms: [{several}]")
    message = f"{_quoted(text)} is not a platform"
    system, _, processor = text.lower().partition("/")
    if processor and platforms.architecture(processor) != processor:
        return fault(message, f"{system}/{platforms.architecture(processor)}")
    known = platforms.architecture(system)
    return fault(
        message,
        f"linux/{known}" if known in platforms.ARCHITECTURES else "",
        cause=f"the form is OS/ARCH with linux or windows and {', '.join(platforms.ARCHITECTURES)}",
    )


PLATFORM = TextRule(
    name="a platform",
    pattern=f"^(linux|windows)/({'|'.join(platforms.ARCHITECTURES)})(/v[0-9]+)?$",
    longest=40,
    explain=_platform_fault,
    examples=("linux/amd64", "linux/arm64"),
)


# Kubernetes takes a name of letters, digits and dashes with a letter in it for a port's (RFC 6335).
_PORT_NAME = "[a-z0-9-]*[a-z][a-z0-9-]*"
_ADDRESS = r"[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-fA-F:]+\]|localhost"
_TARGET_KINDS = ("service", "deployment", "statefulset", "daemonset", "pod")


def _port_fault(text: str) -> Fault:
    parts = re.sub(r"^\[[^]]*\]", "address", text).split(":")
    if text.lower().endswith("/tcp"):
        return fault("ports are TCP; nothing is written behind them", text.partition("/")[0])
    if text.lower().endswith("/udp"):
        return fault("only TCP ports can be forwarded")
    if len(parts) <= 2 and all(re.fullmatch("[0-9]+", part) for part in parts):
        return fault(f"{_quoted(text)}: a port is a number from 1 to 65535")
    if "/" in text:
        kind, _, rest = parts[-2].partition("/") if len(parts) > 1 else ("", "", "")
        full = {"svc": "service", "po": "pod", **_SHORT_KINDS}.get(kind, "")
        hint = text.replace(f"{kind}/{rest}", f"{full}/{rest}") if full and rest else ""
        return fault(
            f"{_quoted(text)} does not name an object and its port",
            hint,
            cause=f"the form is LOCAL:KIND/NAME:PORT with {', '.join(_TARGET_KINDS)}",
        )
    return fault(f"{_quoted(text)} is not of the form [ADDRESS:]LOCAL:PORT")


def _address_fault(text: str) -> Fault | None:
    address = re.match(f"({_ADDRESS}):", text)
    if address is None or address[1] == "localhost":
        return None
    try:
        ipaddress.ip_address(address[1].strip("[]"))
    except ValueError:
        return fault(f"{_quoted(address[1])} is not an address of this computer")
    return None


PORT = TextRule(
    name="a port",
    pattern=(
        f"^(({_ADDRESS}):)?{PORT_NUMBER}"
        f"(:(({'|'.join(_TARGET_KINDS)})/{_LABEL}(\\.{_LABEL})*:)?"
        f"({PORT_NUMBER}|{_PORT_NAME}))?$"
    ),
    longest=330,
    explain=_port_fault,
    also=_address_fault,
    examples=("8080", "9000:80", "8081:http", "5432:service/db:5432", "0.0.0.0:8082:80"),
)

DEBUG_PORT = TextRule(
    name="a port",
    pattern=f"^{PORT_NUMBER}$",
    longest=5,
    explain=lambda text: fault(
        f"{_quoted(text)}: a port is a number from 1 to 65535",
        cause="an editor finds the debugger at it, and so does devloop in the container",
    ),
    examples=("5678",),
)

_KINDS = ("deployment", "statefulset", "daemonset", "replicaset", "pod", "job", "cronjob")
_SHORT_KINDS = {"deploy": "deployment", "sts": "statefulset", "ds": "daemonset"}


def _workload_fault(text: str) -> Fault:
    kind, slash, name = text.partition("/")
    form = f"the form is KIND/NAME with {', '.join(_KINDS[:-1])} or {_KINDS[-1]}"
    if not slash:
        better = label_from(text)
        message = f"{_quoted(text)} does not say of which kind the workload is"
        return fault(message, f"deployment/{better}" if better else "", cause=form)
    full = _SHORT_KINDS.get(kind.lower(), kind.lower().removesuffix("s"))
    hint = f"{full}/{name}" if full in _KINDS and f"{full}/{name}" != text else ""
    return fault(f"{_quoted(text)} is not a workload", hint, cause=form)


WORKLOAD = TextRule(
    name="a workload",
    pattern=rf"^({'|'.join(_KINDS)})/{_LABEL}(\.{_LABEL})*$",
    longest=253,
    explain=_workload_fault,
    examples=("deployment/api", "statefulset/db"),
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 24 * 3600.0
_LONGEST_STOP = 3600.0  # as agent/supervise.c has it
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def seconds(text: str | float) -> float:
    """A length of time in seconds: `90`, `120s`, `2m`, `500ms`, `1m30s`, as Go writes them."""
    if isinstance(text, int | float) or not text[-1:].isalpha():
        return float(text)
    return sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(text))


def _range_fault(text: str) -> Fault | None:
    within = 0 < seconds(text) <= _LONGEST
    return None if within else fault("a time limit is longer than 0 and at most 24h")


DURATION = TextRule(
    name="a time limit",
    pattern=r"^([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$",
    longest=20,
    explain=lambda text: fault(
        f"{_quoted(text)} is not a length of time",
        *("120s", "2m", "500ms"),
        cause="a length of time is a number with ms, s, m or h; a bare number counts seconds",
    ),
    also=_range_fault,
    examples=("120s", "2m", "500ms"),
)

STOP_TIMEOUT = replace(
    DURATION,
    name="a stop timeout",
    also=lambda text: (
        None
        if 0 < seconds(text) <= _LONGEST_STOP
        else fault("a stop timeout is longer than 0 and at most 1h", "1s", "10s")
    ),
    examples=("1s", "10s", "500ms"),
)

ANY_TEXT = TextRule(
    name="a text",
    pattern="^[^\\u0000]+$",
    longest=4096,
    explain=lambda text: fault("the text holds a NUL character" if text else "the text is empty"),
)

CONTEXT_PATTERN = replace(ANY_TEXT, name="a context's name", longest=253, examples=("team-dev",))

PROFILE_VARIABLE = TextRule(
    name="a variable and its value",
    pattern=r"^[A-Za-z_][A-Za-z0-9_]*(=[^\u0000]*)?$",
    longest=4096,
    explain=lambda text: fault(
        f"{_quoted(text)} does not begin with the name of a variable", "CI=true", "CI"
    ),
    examples=("CI=true",),
)

ARGUMENT = TextRule(
    name="a build argument", pattern="^[^\\u0000]*$", longest=65536, explain=ANY_TEXT.explain
)

CONTEXT_NAME = TextRule(
    name="the name of a context",
    pattern=f"^([A-Za-z0-9.-]+(:[0-9]+)?/)?{IMAGE_PATH}(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
    "(@sha256:[0-9a-f]{64})?$",
    longest=300,
    explain=lambda text: fault(
        f"{_quoted(text)} is not a name that FROM and COPY --from can have",
        label_from(text),
        cause="it is that of an image or a stage, in small letters",
    ),
    examples=("shared", "alpine:3.22"),
)

NETWORK = TextRule(
    name="a network",
    pattern="^[A-Za-z0-9][A-Za-z0-9_.:-]*$",
    longest=200,
    explain=lambda text: fault(f"{_quoted(text)} is not the name of a network", "host"),
    examples=("host", "none"),
)

ADDED_HOST = TextRule(
    name="a host and its address",
    pattern="^[A-Za-z0-9_.-]+[:=]([0-9A-Fa-f.:]+|\\[[0-9A-Fa-f:.]+\\]|host-gateway)$",
    longest=400,
    explain=lambda text: fault(
        f"{_quoted(text)} is not a host and its address", "db.test:10.0.0.5"
    ),
    examples=("db.test:10.0.0.5", "host.docker.internal:host-gateway"),
)

SIZE = TextRule(
    name="a size",
    pattern="^[0-9]+[bkmgBKMG]?$",
    longest=20,
    explain=lambda text: fault(
        f"{_quoted(text)} is not a size", "64m", cause="a number of bytes, or with k, m or g"
    ),
    examples=("64m", "1g"),
)

VARIABLE_NAME = TextRule(
    name="an argument's name",
    pattern="^[A-Za-z_][A-Za-z0-9_.-]*$",
    longest=200,
    explain=lambda text: fault(
        f"{_quoted(text)} is not the name of a build argument",
        cause="a name holds letters, digits and _, and does not begin with a digit",
    ),
)


def _sync_source_fault(text: str) -> Fault:
    if not text or "\0" in text:
        return ANY_TEXT.explain(text)
    if text.startswith("/"):
        wrong = "is absolute; `src` is relative to the build context"
        return fault(f"{_quoted(text)} {wrong}", text.lstrip("/"))
    return fault(f"{_quoted(text)} leads out of the build context")


_UP = r"(?!([^\u0000]*/)?\.\.(/|$))"

SYNC_SOURCE = TextRule(
    name="a pattern of files",
    pattern=rf"^(?!/){_UP}[^\u0000]+$",
    longest=4096,
    explain=_sync_source_fault,
    examples=("templates/**",),
)


def _sync_dest_fault(text: str) -> Fault:
    if not text or "\0" in text:
        return ANY_TEXT.explain(text)
    if not text.startswith("/"):
        wrong = "is not absolute; `dest` is a directory in the container"
        better = f"/app/{text}".replace("/./", "/") if ".." not in text else ""
        return fault(f"{_quoted(text)} {wrong}", better)
    return fault(f"{_quoted(text)} holds `..`; write the path without it")


SYNC_DEST = TextRule(
    name="a directory in the container",
    pattern=rf"^/{_UP}[^\u0000]*$",
    longest=4096,
    explain=_sync_dest_fault,
    examples=("/app/templates",),
)


def _cache_fault(text: str) -> Fault:
    if not text or "\0" in text:
        return ANY_TEXT.explain(text)
    if text.startswith("/"):
        cause = "it holds letters, digits and . _ + @ - only, and no `..`"
        return fault(f"{_quoted(text)} is not a directory that can be kept", cause=cause)
    home, rest = text.startswith(("~/", ".")), text.removeprefix("~/").removeprefix("./")
    better = f"/{'root' if home and not text.startswith('./') else 'app'}/{rest}"
    hint = better if ".." not in text and "$" not in text else ""
    return fault(f"{_quoted(text)} is not absolute; it is a directory in the build", hint)


CACHE_DIRECTORY = TextRule(
    name="a directory to keep",
    pattern=rf"^/{_UP}[A-Za-z0-9._+@/-]+$",
    longest=4096,
    explain=_cache_fault,
    examples=("/root/.cache/go-build",),
)
