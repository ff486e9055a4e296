"""What instructions make of an image's config; the expected values are those of BuildKit 0.13."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.builders.dockerfile import parse
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import (
    ImageConfig,
    InstructionText,
    apply_instruction,
    platform_arguments,
    scratch,
    started,
)
from devloop.builders.image.text import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def shaped(
    *lines: str,
    base: ImageConfig | None = None,
    given: Mapping[str, str] | None = None,
    outer: Mapping[str, str] | None = None,
) -> ImageConfig:
    dockerfile = parse("\n".join(("FROM scratch", *lines)))
    words = InstructionText(
        expand=lambda word, variables: expand(word, variables, "\\"),
        given=given or {},
        outer=outer or {},
    )
    found = base or scratch("linux/amd64")
    for instruction in dockerfile.instructions[1:]:
        found = apply_instruction(found, instruction, words)
    return found


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        (("ENV A=1 B='x y' C=\"$A-\"",), "Env", [PATH, "A=1", "B=x y", "C=-"]),
        (("ENV A=1", "ENV A=2 B=$A"), "Env", [PATH, "A=2", "B=1"]),
        (("ENV A some words  here",), "Env", [PATH, "A=some words  here"]),
        (("ENV A=a\\ b",), "Env", [PATH, "A=a b"]),
        (("ARG V=3", "ENV A=$V"), "Env", [PATH, "A=3"]),
        (('LABEL "a b"=c d="e f"', "LABEL g=$PATH"), "Labels",
         {"a b": "c", "d": "e f", "g": PATH[5:]}),
        (("WORKDIR /a", "WORKDIR b/../c"), "WorkingDir", "/a/c"),
        (("WORKDIR //x/",), "WorkingDir", "/x"),
        (("ENV U=app", "USER $U:staff"), "User", "app:staff"),
        (("CMD run --fast $X",), "Cmd", ["/bin/sh", "-c", "run --fast $X"]),
        (('CMD ["a", "$b"]',), "Cmd", ["a", "$b"]),
        (("CMD ['a']",), "Cmd", ["/bin/sh", "-c", "['a']"]),
        (('SHELL ["/bin/bash", "-c"]', "CMD a"), "Cmd", ["/bin/bash", "-c", "a"]),
        (("CMD a", "ENTRYPOINT b"), "Cmd", ["/bin/sh", "-c", "a"]),
        (('ENTRYPOINT ["b"]',), "Entrypoint", ["b"]),
        (("EXPOSE 80 53/UDP 8000-8002",), "ExposedPorts",
         {p: {} for p in ("53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp")}),
        (("ARG P=1-2", "EXPOSE $P/sctp"), "ExposedPorts", {"1/sctp": {}, "2/sctp": {}}),
        (("VOLUME /a $HOME/b", 'VOLUME ["/c d"]'), "Volumes", {"/a": {}, "/b": {}, "/c d": {}}),
        (("STOPSIGNAL SIGQUIT",), "StopSignal", "SIGQUIT"),
        (("STOPSIGNAL 9",), "StopSignal", "9"),
        (("HEALTHCHECK NONE",), "Healthcheck", {"Test": ["NONE"]}),
        (("HEALTHCHECK --interval=1m30s --retries=3 CMD x y",), "Healthcheck",
         {"Test": ["CMD-SHELL", "x y"], "Interval": 90 * 10**9, "Retries": 3}),
        (('HEALTHCHECK --timeout=1.5s --start-period=500ms CMD ["x"]',), "Healthcheck",
         {"Test": ["CMD", "x"], "Timeout": 15 * 10**8, "StartPeriod": 5 * 10**8}),
        (("ONBUILD RUN make", "ONBUILD COPY . ."), "OnBuild", ["RUN make", "COPY . ."]),
    ],
)  # fmt: skip
def test_a_field_of_the_config(lines: tuple[str, ...], key: str, value: Any) -> None:
    assert shaped(*lines).config[key] == value


def test_arguments() -> None:
    found = shaped("ARG A B=1 C", "ARG D=$B$C", given={"B": "given"}, outer={"C": "outer"})
    assert found.args == {"B": "given", "C": "outer", "D": "givenouter"}
    assert found.history[0]["created_by"] == "ARG A B=given C=outer"


def test_an_env_hides_an_argument_of_the_same_name() -> None:
    assert shaped("ARG A=1", "ENV A=2", "LABEL a=$A").config["Labels"] == {"a": "2"}
    with pytest.raises(NeedsFullBuild, match="A is an ENV and an ARG"):
        shaped("ENV A=1", "ARG A=2")


def test_an_entrypoint_resets_the_bases_command_only() -> None:
    base = started({"config": {"Cmd": ["old"], "Entrypoint": ["e"], "Env": ["A=b=c"]}})
    assert "Cmd" not in shaped("ENTRYPOINT x", base=base).config
    assert shaped("CMD a", "ENTRYPOINT x", base=base).config["Cmd"][-1] == "a"
    assert base.env["A"] == "b=c"


def test_what_is_taken_over_from_a_base() -> None:
    document = {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "docker_version": "1",
        "config": {"Hostname": "h", "Labels": {"a": "b"}, "WorkingDir": "app/", "User": ""},
        "history": [{"created": "then", "created_by": "x"}],
    }
    found = shaped("MAINTAINER me  too", "USER 1", base=started(document)).document("now")
    assert found == {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "author": "me  too",
        "created": "now",
        "config": {"Labels": {"a": "b"}, "WorkingDir": "/app", "Env": [PATH], "User": "1"},
        "history": [
            {"created": "then", "created_by": "x"},
            {
                "created": "now",
                "created_by": "MAINTAINER me  too",
                "comment": "buildkit.dockerfile.v0",
                "empty_layer": True,
            },
            {
                "created": "now",
                "created_by": "USER 1",
                "comment": "buildkit.dockerfile.v0",
                "empty_layer": True,
            },
        ],
    }


@pytest.mark.parametrize(
    "line",
    [
        "ENV A", "ENV A=1 B", "ENV =1", "EXPOSE http", "EXPOSE 9-8", "EXPOSE 70000",
        "EXPOSE 127.0.0.1:80:80", "STOPSIGNAL SIGNOTHING", "SHELL /bin/sh", "SHELL []",
        "VOLUME []", "HEALTHCHECK CMD", "HEALTHCHECK RUN x", "HEALTHCHECK --interval=1 CMD x",
        "HEALTHCHECK --interval=1us CMD x", "HEALTHCHECK --often=1s CMD x", "CMD [1]",
        'CMD ["a"] b', "CMD", "ONBUILD FROM x", "WORKDIR $NOTHING",
    ],
)  # fmt: skip
def test_what_buildkit_has_to_judge(line: str) -> None:
    with pytest.raises(NeedsFullBuild):
        shaped(line)


def test_triggers_of_a_base() -> None:
    with pytest.raises(NeedsFullBuild, match="ONBUILD"):
        started({"config": {"OnBuild": ["RUN x"]}})


def test_the_variables_of_a_platform() -> None:
    found = platform_arguments("linux/arm/v7", "linux/amd64")
    assert (found["TARGETPLATFORM"], found["TARGETARCH"], found["TARGETVARIANT"]) == (
        "linux/arm/v7",
        "arm",
        "v7",
    )
    assert (found["BUILDOS"], found["BUILDVARIANT"]) == ("linux", "")
