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
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.builders.dockerfile import Instruction

    Expand = Callable[[str, Mapping[str, str]], str]
    """From a word and the variables to the word with quotes and variables replaced."""


_COMMENT = "buildkit.dockerfile.v0"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
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
_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


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
    return ImageConfig(fields=fields, config={"Env": [f"PATH={_PATH}"], "WorkingDir": "/"})


def started(document: Mapping[str, Any]) -> ImageConfig:
    """What FROM an image with this config document starts with. Raises `NeedsFullBuild` for an
    image with ONBUILD triggers."""
    found = document.get("config") or {}
    if found.get("OnBuild"):
        raise NeedsFullBuild("the base image has ONBUILD triggers")
    config = {key: found[key] for key in _CONFIG if found.get(key)}
    if not any(entry.startswith("PATH=") for entry in config.get("Env", ())):
        config["Env"] = [*config.get("Env", ()), f"PATH={_PATH}"]
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
    return _APPLIERS[instruction.keyword](before, instruction, text)


def _arg(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    after, shown = before, []
    for declaration in split(instruction.value, text.escape):
        name, equals, default = declaration.partition("=")
        if name in text.given:
            value: str | None = text.given[name]
        elif equals:
            value = text.expand(default, after.variables)
        else:
            value = text.outer.get(name)
        shown.append(name if value is None else f"{name}={value}")
        if value is None:
            continue
        if after.env.get(name, value) != value:
            # BuildKit's releases differ in which of the two later words see.
            raise NeedsFullBuild(f"{name} is an ENV and an ARG")
        after = replace(after, args={**after.args, name: value})
    return after.with_history("ARG " + " ".join(shown))


def _env(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    pairs = _pairs(before, instruction, text)
    env = {**before.env, **dict(pairs)}
    entries = [f"{key}={text}" for key, text in env.items()]
    return before.set(Env=entries).with_history("ENV " + _joined(pairs))


def _label(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    pairs = _pairs(before, instruction, text)
    labels = {**before.config.get("Labels", {}), **dict(pairs)}
    return before.set(Labels=labels).with_history("LABEL " + _joined(pairs))


def _workdir(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    path = text.expand(instruction.value, before.variables)
    if not path:
        raise NeedsFullBuild("WORKDIR has no path")
    cleaned = posixpath.normpath(posixpath.join("/", before.workdir, path))
    # POSIX lets two slashes at the start stand; Go does not.
    workdir = "/" + cleaned.lstrip("/")
    return before.set(WorkingDir=workdir).with_history(f"WORKDIR {workdir}")


def _user(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    user = text.expand(instruction.value, before.variables)
    return before.set(User=user).with_history(f"USER {user}")


def _cmd(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    del text
    command = _command(before, instruction)
    after = replace(before.set(Cmd=command, ArgsEscaped=True), cmd=True)
    return after.with_history(f"CMD {_quoted(command)}")


def _entrypoint(
    before: ImageConfig, instruction: Instruction, text: InstructionText
) -> ImageConfig:
    del text
    command = _command(before, instruction)
    after = before.set(Entrypoint=command)
    if not after.cmd:
        after = after.set(Cmd=None)
    return after.with_history(f"ENTRYPOINT {_quoted(command)}")


def _expose(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    texts = (text.expand(word, before.variables) for word in instruction.value.split())
    ports = {port for word in texts for port in _ports(word)}
    exposed = {**before.config.get("ExposedPorts", {}), **{port: {} for port in sorted(ports)}}
    shown = " ".join(f"{port}:{{}}" for port in sorted(ports))
    return before.set(ExposedPorts=exposed).with_history(f"EXPOSE map[{shown}]")


def _volume(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    texts = _list(instruction)
    texts = instruction.value.split() if texts is None else texts
    names = [text.expand(word, before.variables).strip() for word in texts]
    if not names or not all(names):
        raise NeedsFullBuild(f"{instruction} names no directory")
    volumes = {**before.config.get("Volumes", {}), **{name: {} for name in names}}
    return before.set(Volumes=volumes).with_history(f"VOLUME [{' '.join(names)}]")


def _stopsignal(
    before: ImageConfig, instruction: Instruction, text: InstructionText
) -> ImageConfig:
    name = text.expand(instruction.value, before.variables)
    known = {str(entry.name).removeprefix("SIG") for entry in signal.Signals}
    number = name.isdecimal() and int(name) > 0
    if not number and name.upper().removeprefix("SIG") not in known:
        raise NeedsFullBuild(f"STOPSIGNAL {name} is not known here")
    return before.set(StopSignal=name).with_history(f"STOPSIGNAL {name}")


def _shell(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    del text
    shell = _list(instruction)
    if not shell:
        raise NeedsFullBuild(f"{instruction} is not a JSON list")
    return before.set(Shell=shell).with_history(f"SHELL [{' '.join(shell)}]")


def _healthcheck(
    before: ImageConfig, instruction: Instruction, text: InstructionText
) -> ImageConfig:
    del text
    check = _health(instruction)
    return before.set(Healthcheck=check).with_history(f"HEALTHCHECK {_quoted(check['Test'])}")


def _maintainer(
    before: ImageConfig, instruction: Instruction, text: InstructionText
) -> ImageConfig:
    del text
    fields = {**before.fields, "author": instruction.value}
    return replace(before, fields=fields).with_history(f"MAINTAINER {instruction.value}")


def _onbuild(before: ImageConfig, instruction: Instruction, text: InstructionText) -> ImageConfig:
    """Kept for who builds from the image; it leaves no line of history."""
    del text
    if instruction.value.split()[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise NeedsFullBuild(f"{instruction} is not allowed")
    return before.set(OnBuild=[*before.config.get("OnBuild", ()), instruction.value])


_APPLIERS: Mapping[str, Callable[[ImageConfig, Instruction, InstructionText], ImageConfig]] = (
    MappingProxyType(
        {
            "ARG": _arg,
            "CMD": _cmd,
            "ENTRYPOINT": _entrypoint,
            "ENV": _env,
            "EXPOSE": _expose,
            "HEALTHCHECK": _healthcheck,
            "LABEL": _label,
            "MAINTAINER": _maintainer,
            "ONBUILD": _onbuild,
            "SHELL": _shell,
            "STOPSIGNAL": _stopsignal,
            "USER": _user,
            "VOLUME": _volume,
            "WORKDIR": _workdir,
        }
    )
)

CONFIGURING = frozenset(_APPLIERS)
"""The instructions that `apply_instruction` understands. WORKDIR also makes a directory; that is
not done here."""


def _pairs(
    before: ImageConfig, instruction: Instruction, text: InstructionText
) -> list[tuple[str, str]]:
    """The names and values of an ENV or LABEL, all read with what was set before it."""
    found = split(instruction.value, text.escape)
    if "=" not in found[0]:
        # The old form, of one name and all the rest.
        name, *rest = instruction.value.split(None, 1)
        if not rest:
            raise NeedsFullBuild(f"{instruction} has no value")
        found = [f"{name}={rest[0]}"]
    if not all(word.partition("=")[1] and word[0] != "=" for word in found):
        raise NeedsFullBuild(f"{instruction} has a word without a name or a value")
    return [
        (text.expand(key, before.variables), text.expand(value, before.variables))
        for key, _, value in (word.partition("=") for word in found)
    ]


def _joined(pairs: list[tuple[str, str]]) -> str:
    return " ".join(f"{key}={value}" for key, value in pairs)


def _quoted(items: list[str]) -> str:
    return "[" + " ".join(json.dumps(item, ensure_ascii=False) for item in items) + "]"


def _list(instruction: Instruction) -> list[str] | None:
    """The JSON form, None when it is not that."""
    value = instruction.value
    if not value.startswith("["):
        return None
    try:
        found, end = json.JSONDecoder().raw_decode(value)
    except ValueError:
        return None
    if value[end:].strip():
        raise NeedsFullBuild(f"{instruction} has more after its JSON list")
    if not all(isinstance(item, str) for item in found):
        raise NeedsFullBuild(f"{instruction} is a list of more than strings")
    return list(found)


def _command(before: ImageConfig, instruction: Instruction) -> list[str]:
    found = _list(instruction)
    if found is not None:
        return found
    return [*(before.config.get("Shell") or ("/bin/sh", "-c")), instruction.value]


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
    command = _list(replace(instruction, value=rest))
    test = ["CMD-SHELL", rest] if command is None else ["CMD", *command]
    check: dict[str, Any] = {"Test": test}
    for flag, text in instruction.flags:
        if flag in _HEALTH_FLAGS:
            check[_HEALTH_FLAGS[flag]] = _nanoseconds(text)
        elif flag == "retries" and text.isdecimal():
            check["Retries"] = int(text)
        else:
            raise NeedsFullBuild(f"HEALTHCHECK --{flag} is not understood")
    return {key: value for key, value in check.items() if value}


def _nanoseconds(text: str) -> int:
    parts = _DURATION.findall(text)
    if text == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise NeedsFullBuild(f"HEALTHCHECK has {text} for a duration")
    found = sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
    if 0 < found < 10**6:
        raise NeedsFullBuild(f"HEALTHCHECK has {text} for a duration, less than a millisecond")
    return found
