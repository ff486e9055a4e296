"""How the instructions of a Dockerfile change an image's config: all but files.

Pure. What BuildKit would refuse is `NeedsFullBuild` here, so that BuildKit reports it in its
words. Rules: BuildKit's dockerfile2llb (dispatch*), its parser (line_parsers.go) and its
instructions.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import PATH, joined, json_form, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.builders.dockerfile import Instruction

    Expand = Callable[[str, Mapping[str, str]], str]
    """From a word and the variables to the word with quotes and variables replaced."""


_COMMENT = "buildkit.dockerfile.v0"
_KEPT = ("architecture", "os", "os.version", "os.features", "variant", "author")
_CONFIG = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
    *("StopSignal", "ArgsEscaped", "Healthcheck", "OnBuild", "Shell", "Memory", "MemorySwap"),
    *("CpuShares",),
)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9}
_UNITS |= {"m": 60 * 10**9, "h": 3600 * 10**9}
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_HEALTH_TIMES = frozenset({"interval", "timeout", "start-period", "start-interval"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's config while it is being made. `fields` is the document around it (os,
    architecture, author), `config` its own object, `args` the ARGs with a value. `cmd` says whether
    this stage has set a CMD."""

    fields: Mapping[str, Any]
    config: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()
    args: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cmd: bool = False

    @property
    def env(self) -> Mapping[str, str]:
        """ENV alone."""
        pairs = (entry.partition("=") for entry in self.config.get("Env") or ())
        return {key: value for key, _, value in pairs}

    @property
    def variables(self) -> Mapping[str, str]:
        """What the stage's words may name: an ENV hides an ARG."""
        return {**self.args, **self.env}

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    def with_history(self, created_by: str, *, layer: bool = False) -> ImageConfig:
        """With one more line of history."""
        line: dict[str, Any] = {"created_by": created_by, "comment": _COMMENT}
        if not layer:
            line["empty_layer"] = True
        return replace(self, history=(*self.history, line))

    def document(self, created: str) -> dict[str, Any]:
        """The config document, without `rootfs`; history that has no time of its own is of
        `created`."""
        return {
            **self.fields,
            "created": created,
            "config": dict(self.config),
            "history": [{"created": created, **line} for line in self.history],
        }

    def set(self, **config: Any) -> ImageConfig:
        """With other values; what is empty is left out."""
        merged = {**self.config, **config}
        return replace(self, config={key: value for key, value in merged.items() if value})


def scratch(platform: str) -> ImageConfig:
    """What `FROM scratch` starts with."""
    os, architecture, *variant = platform.split("/")
    fields: dict[str, Any] = {"architecture": architecture, "os": os}
    if variant:
        fields["variant"] = variant[0]
    return ImageConfig(fields=fields, config={"Env": [f"PATH={PATH}"], "WorkingDir": "/"})


def started(document: Mapping[str, Any]) -> ImageConfig:
    """What FROM an image with this config document starts with. Raises `NeedsFullBuild` for an
    image with ONBUILD triggers."""
    found = document.get("config") or {}
    if found.get("OnBuild"):
        raise NeedsFullBuild("the base image has ONBUILD triggers")
    config = {key: found[key] for key in _CONFIG if found.get(key)}
    if not any(entry.startswith("PATH=") for entry in config.get("Env", ())):
        config["Env"] = [*config.get("Env", ()), f"PATH={PATH}"]
    if config.get("WorkingDir"):
        config["WorkingDir"] = posixpath.join("/", posixpath.normpath(config["WorkingDir"]))
    return ImageConfig(
        fields={key: document[key] for key in _KEPT if document.get(key)},
        config=config,
        history=tuple(document.get("history") or ()),
    )


def platform_arguments(target: str, own: str) -> dict[str, str]:
    """The variables that BuildKit gives to FROM, and to a stage that has an ARG of that name."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", own)):
        os, architecture, *variant = platform.split("/")
        found |= {
            f"{prefix}PLATFORM": platform,
            f"{prefix}OS": os,
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant[0] if variant else "",
        }
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionText:
    """How words are read. `given` are the build arguments, `outer` the ARGs before the first FROM
    that have a value."""

    expand: Expand
    escape: str = "\\"
    given: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    outer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def apply_instruction(
    before: ImageConfig, instruction: Instruction, text: InstructionText
) -> ImageConfig:
    """`before` with one instruction of `CONFIGURING` more. Raises `NeedsFullBuild`."""
    if not instruction.value or instruction.heredocs:
        raise NeedsFullBuild(f"{instruction} is not understood")
    return _APPLIERS[instruction.keyword](_Applied(before, instruction, text))


@dataclass(frozen=True, slots=True)
class _Applied:
    """One instruction and what it is applied to."""

    before: ImageConfig
    instruction: Instruction
    text: InstructionText

    def expand(self, word: str) -> str:
        return self.text.expand(word, self.before.variables)

    def arg(self) -> ImageConfig:
        after, shown = self.before, []
        for declaration in split(self.instruction.value, self.text.escape):
            name, equals, default = declaration.partition("=")
            if name in self.text.given:
                value: str | None = self.text.given[name]
            elif equals:
                value = self.text.expand(default, after.variables)
            else:
                value = self.text.outer.get(name)
            shown.append(name if value is None else f"{name}={value}")
            if value is None:
                continue
            if after.env.get(name, value) != value:
                # BuildKit's releases differ in which of the two later words see.
                raise NeedsFullBuild(f"{name} is an ENV and an ARG")
            after = replace(after, args={**after.args, name: value})
        return after.with_history("ARG " + " ".join(shown))

    def env(self) -> ImageConfig:
        pairs, shown = self._pairs()
        entries = [f"{key}={value}" for key, value in {**self.before.env, **pairs}.items()]
        return self.before.set(Env=entries).with_history(f"ENV {shown}")

    def label(self) -> ImageConfig:
        pairs, shown = self._pairs()
        labels = {**self.before.config.get("Labels", {}), **pairs}
        return self.before.set(Labels=labels).with_history(f"LABEL {shown}")

    def _pairs(self) -> tuple[dict[str, str], str]:
        """The names and values of an ENV or LABEL, all read with what was set before it, and how
        history shows them."""
        instruction = self.instruction
        found = split(instruction.value, self.text.escape)
        if "=" not in found[0]:
            # The old form, of one name and all the rest.
            name, *rest = instruction.value.split(None, 1)
            if not rest:
                raise NeedsFullBuild(f"{instruction} has no value")
            found = [f"{name}={rest[0]}"]
        if not all(word.partition("=")[1] and word[0] != "=" for word in found):
            raise NeedsFullBuild(f"{instruction} has a word without a name or a value")
        pairs = [
            (self.expand(key), self.expand(value))
            for key, _, value in (word.partition("=") for word in found)
        ]
        return dict(pairs), " ".join(f"{key}={value}" for key, value in pairs)

    def workdir(self) -> ImageConfig:
        path = self.expand(self.instruction.value)
        if not path:
            raise NeedsFullBuild("WORKDIR has no path")
        workdir = joined("/", self.before.workdir, path)
        return self.before.set(WorkingDir=workdir).with_history(f"WORKDIR {workdir}")

    def user(self) -> ImageConfig:
        user = self.expand(self.instruction.value)
        return self.before.set(User=user).with_history(f"USER {user}")

    def cmd(self) -> ImageConfig:
        command = self._command()
        after = replace(self.before.set(Cmd=command, ArgsEscaped=True), cmd=True)
        return after.with_history(f"CMD {_quoted(command)}")

    def entrypoint(self) -> ImageConfig:
        command = self._command()
        after = self.before.set(Entrypoint=command)
        if not after.cmd:
            after = after.set(Cmd=None)
        return after.with_history(f"ENTRYPOINT {_quoted(command)}")

    def _command(self) -> list[str]:
        found = json_form(self.instruction)
        if found is not None:
            return found
        return [*(self.before.config.get("Shell") or ("/bin/sh", "-c")), self.instruction.value]

    def expose(self) -> ImageConfig:
        words = map(self.expand, self.instruction.value.split())
        ports = sorted({port for word in words for port in _ports(word)})
        exposed = {**self.before.config.get("ExposedPorts", {}), **{port: {} for port in ports}}
        shown = " ".join(f"{port}:{{}}" for port in ports)
        return self.before.set(ExposedPorts=exposed).with_history(f"EXPOSE map[{shown}]")

    def volume(self) -> ImageConfig:
        words = json_form(self.instruction)
        words = self.instruction.value.split() if words is None else words
        names = [self.expand(word).strip() for word in words]
        if not names or not all(names):
            raise NeedsFullBuild(f"{self.instruction} names no directory")
        volumes = {**self.before.config.get("Volumes", {}), **{name: {} for name in names}}
        return self.before.set(Volumes=volumes).with_history(f"VOLUME [{' '.join(names)}]")

    def stopsignal(self) -> ImageConfig:
        name = self.expand(self.instruction.value)
        known = {str(entry.name).removeprefix("SIG") for entry in signal.Signals}
        number = name.isdecimal() and int(name) > 0
        if not number and name.upper().removeprefix("SIG") not in known:
            raise NeedsFullBuild(f"STOPSIGNAL {name} is not known here")
        return self.before.set(StopSignal=name).with_history(f"STOPSIGNAL {name}")

    def shell(self) -> ImageConfig:
        shell = json_form(self.instruction)
        if not shell:
            raise NeedsFullBuild(f"{self.instruction} is not a JSON list")
        return self.before.set(Shell=shell).with_history(f"SHELL [{' '.join(shell)}]")

    def healthcheck(self) -> ImageConfig:
        check = _health(self.instruction)
        shown = f"HEALTHCHECK {_quoted(check['Test'])}"
        return self.before.set(Healthcheck=check).with_history(shown)

    def maintainer(self) -> ImageConfig:
        name = self.instruction.value
        after = replace(self.before, fields={**self.before.fields, "author": name})
        return after.with_history(f"MAINTAINER {name}")

    def onbuild(self) -> ImageConfig:
        """Kept for who builds from the image; it leaves no line of history."""
        value = self.instruction.value
        if value.split()[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
            raise NeedsFullBuild(f"{self.instruction} is not allowed")
        return self.before.set(OnBuild=[*self.before.config.get("OnBuild", ()), value])


_APPLIERS: Mapping[str, Callable[[_Applied], ImageConfig]] = {
    "ARG": _Applied.arg,
    "CMD": _Applied.cmd,
    "ENTRYPOINT": _Applied.entrypoint,
    "ENV": _Applied.env,
    "EXPOSE": _Applied.expose,
    "HEALTHCHECK": _Applied.healthcheck,
    "LABEL": _Applied.label,
    "MAINTAINER": _Applied.maintainer,
    "ONBUILD": _Applied.onbuild,
    "SHELL": _Applied.shell,
    "STOPSIGNAL": _Applied.stopsignal,
    "USER": _Applied.user,
    "VOLUME": _Applied.volume,
    "WORKDIR": _Applied.workdir,
}

CONFIGURING = frozenset(_APPLIERS)
"""The instructions that `apply_instruction` understands. WORKDIR also makes a directory; that is
not done here."""


def _quoted(items: list[str]) -> str:
    return "[" + " ".join(json.dumps(item, ensure_ascii=False) for item in items) + "]"


def _ports(text: str) -> Iterator[str]:
    match = _PORT.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not match or not first <= last <= 65535:
        raise NeedsFullBuild(f"EXPOSE {text} is not understood")
    protocol = (match[3] or "tcp").lower()
    for port in range(first, last + 1):
        yield f"{port}/{protocol}"


def _health(instruction: Instruction) -> dict[str, Any]:
    kind, _, rest = instruction.value.partition(" ")
    kind, rest = kind.upper(), rest.strip()
    if kind == "NONE" and not rest and not instruction.flags:
        return {"Test": ["NONE"]}
    if kind != "CMD" or not rest:
        raise NeedsFullBuild(f"{instruction} is not understood")
    command = json_form(replace(instruction, value=rest))
    test = ["CMD-SHELL", rest] if command is None else ["CMD", *command]
    check: dict[str, Any] = {"Test": test}
    for flag, text in instruction.flags:
        if flag in _HEALTH_TIMES:
            check[flag.title().replace("-", "")] = _nanoseconds(text)
        elif flag == "retries" and text.isdecimal():
            check["Retries"] = int(text)
        else:
            raise NeedsFullBuild(f"HEALTHCHECK --{flag} is not understood")
    return {key: value for key, value in check.items() if value}


def _nanoseconds(text: str) -> int:
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise NeedsFullBuild(f"HEALTHCHECK has {text} for a duration")
    found = sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
    if 0 < found < 10**6:
        raise NeedsFullBuild(f"HEALTHCHECK has {text} for a duration, less than a millisecond")
    return found
