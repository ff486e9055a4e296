"""Which RUNs get a cache between builds, and which are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.builders.cache_mounts import additions, advice, missing, report, with_mounts
from devloop.builders.dockerfile import parse
from devloop.config.builds import Build

GO = "/root/.cache/go-build"
GO_MODULES = "/go/pkg/mod"
NPM = "/root/.npm/_cacache"
END = "\nFROM scratch\nCOPY --from=build /app /app\n"


def build(cache: Any = "auto", **more: Any) -> Build:
    return Build(context=Path("/p"), dockerfile=Path("/p/Dockerfile"), cache=cache, **more)


def added(text: str, cache: Any = "auto", **more: Any) -> dict[int, str]:
    """Line -> the directories that are added there."""
    found = additions(parse(text), build(cache, **more))
    return {each.run.start: each.directories for each in found}


def advised(text: str) -> dict[int, str]:
    return {each.run.start: each.directories for each in missing(parse(text), build(()))}


def one(run: str, image: str = "x", before: str = "") -> str:
    """A build stage with one RUN, on line 2 when nothing stands before."""
    return f"FROM {image} AS build\n{before}{run}{END}"


@pytest.mark.parametrize(
    ("run", "image", "directories"),
    [
        ("go build ./...", "x", GO),
        ("cd cmd && GOOS=linux X=1 /usr/local/go/bin/go install ./...", "x", GO),
        ("set -e; if true; then go vet .; fi", "x", GO),
        ("echo $(go list -m) > v", "golang:1.23", GO_MODULES),
        ('["go", "build"]', "golang", f"{GO}, {GO_MODULES}"),
        ('["sh", "-c", "cd x && go build"]', "x", GO),
        ("cargo build", "rust:1", "/usr/local/cargo/registry, /usr/local/cargo/git/db"),
        ("./gradlew --no-daemon jar", "eclipse-temurin:21", "/root/.gradle"),
        ("mvn -B package", "docker.io/library/maven:3", "/root/.m2/repository"),
        ("npm ci --omit=dev", "x", NPM),
        ("pnpm install", "x", "/root/.local/share/pnpm/store"),
        ("yarn --frozen-lockfile", "node:22", "/usr/local/share/.cache/yarn"),
        ("pip install -r r.txt", "x", "/root/.cache/pip"),
        ("python3.12 -m pip install x", "x", "/root/.cache/pip"),
        ("uv sync --locked", "x", "/root/.cache/uv"),
        ("apt-get update && apt-get install -y gcc", "x", "/var/cache/apt, /var/lib/apt"),
        ("dotnet publish", "mcr.microsoft.com/dotnet/sdk:8.0", "/root/.nuget/packages"),
        ("ccache gcc -c x.c", "x", "/root/.cache/ccache"),
        ("make CC='ccache gcc'", "x", "/root/.cache/ccache"),
        ("bazel build //x", "x", "/root/.cache/bazel/_bazel_root/cache"),
        ("<<EOF\n# don't stop\ngo build \\\n  ./...\nEOF", "x", GO),
        ("<<-'E'\n\t#!/usr/bin/env bash\n\tgo build\n\tE", "x", GO),
    ],
)
def test_tools_are_known_by_their_commands(run: str, image: str, directories: str) -> None:
    assert advised(one(f"RUN {run}", image)) == {2: directories}


@pytest.mark.parametrize(
    "run",
    [
        "echo go build",
        'echo "x; go build"',
        "gofmt -l . && ./go-build build",
        "npm run build",
        "pip list",
        "apt-get clean",
        "yarn run build",
        "echo 'open && go build",
        '["echo", "go build"]',
        '["go", "build"] || true',
        "<<EOF\n#!/usr/bin/env python3\ngo build\nEOF",
        "cat <<EOF\ngo build\nEOF",
        "go build <<EOF && go clean -cache\nEOF",
    ],
)
def test_other_commands_are_not(run: str) -> None:
    assert advised(one(f"RUN {run}")) == {}


@pytest.mark.parametrize(
    ("run", "image", "before", "directories"),
    [
        ("CGO_ENABLED=0 go build", "x", "", GO),
        ("go build", "x", "ENV CGO_ENABLED=0\n", GO),
        ("go build", "x", "ARG CGO_ENABLED=0\n", GO),
        # What C libraries are linked is not part of its key.
        ("go build", "x", "", None),
        ("go build", "x", "ENV CGO_ENABLED=1\n", None),
        ("CGO_ENABLED=1 go build", "x", "ENV CGO_ENABLED=0\n", None),
        # What a test reads outside of the module is not looked at again.
        ("CGO_ENABLED=0 go build && go test ./...", "x", "", None),
        ("npm ci", "node", "", NPM),
        ("CCACHE_NODIRECT=1 ccache cc x.c", "x", "", "/root/.cache/ccache"),
        ("ccache cc x.c", "x", "", None),
        ("pip install x", "python", "", None),
        ("cargo build", "rust", "", None),
        ("mvn package", "maven", "", None),
        ("apt-get install -y gcc", "debian", "", None),
        # What removes a mount point fails, and what reads it would read other builds' too.
        ("npm ci && npm cache clean --force", "node", "", None),
        ("npm ci && rm -rf /root/.npm", "node", "", None),
        ("npm ci && rm -rf ~/.np*", "node", "", None),
        ("npm ci && rm -rf $CACHE", "node", "", None),
        ("npm ci && cp -r ${HOME}/.npm /backup", "node", "", None),
        ("npm ci && rm -rf /tmp/*", "node", "", NPM),
    ],
)
def test_auto_takes_what_never_changes_a_build(
    run: str, image: str, before: str, directories: str | None
) -> None:
    found = added(one(f"RUN {run}", image, before))
    assert list(found.values()) == ([directories] if directories else [])


@pytest.mark.parametrize(
    ("before", "directory"),
    [
        ("ENV npm_config_cache=/c/npm\n", "/c/npm/_cacache"),
        ('ENV A=1 NPM_CONFIG_CACHE="/c"\n', "/c/_cacache"),
        ("ENV HOME=/home/x\n", "/home/x/.npm/_cacache"),
        ("ENV TOP /top\nENV HOME=$TOP/h\n", "/top/h/.npm/_cacache"),
        ("USER 1000\nUSER root\n", NPM),
        ("ENV npm_config_cache=.npm\n", None),
        ("ENV npm_config_cache=$WHO/npm\n", None),
        ('ENV npm_config_cache="/a b"\n', None),
        ("ENV npm_config_cache=\n", None),
        ("USER node\n", None),
        ("USER ${UID}\n", None),
    ],
)
def test_where_the_cache_is(before: str, directory: str | None) -> None:
    assert list(added(one("RUN npm ci", "node", before)).values()) == [directory] * bool(directory)


@pytest.mark.parametrize(
    "run",
    [
        "npm_config_cache=/x npm ci",
        "npm ci --cache /x",
        "export HOME=/x && npm ci",
        "--mount=type=cache,target=/root/.npm npm ci",
        "--mount=type=bind,target=/root/.npm/_cacache/x npm ci",
        "--mount=type=tmpfs,dst=/root npm ci",
        "--mount=type=cache,target=$CACHE npm ci",
    ],
)
def test_a_cache_that_the_run_has_elsewhere_is_left_alone(run: str) -> None:
    assert added(one(f"RUN {run}", "node")) == {}


@pytest.mark.parametrize(
    "other",
    [
        "COPY npm /root/.npm/_cacache\n",
        "ADD npm.tgz /root/.npm/_cacache/x\n",
        "COPY npm $CACHE\n",
    ],
)
def test_a_directory_that_a_copy_fills_is_left_alone(other: str) -> None:
    assert added(f"FROM node\n{other}RUN npm ci\n") == {}
    assert added(f"FROM node AS a\n{other}FROM a\nRUN npm ci\n") == {}
    assert added(f"FROM node\nRUN npm ci\n{other}") == {}
    assert added("FROM node\nWORKDIR /root\nCOPY npm .npm/_cacache/\nRUN npm ci\n") == {}


def test_a_copy_to_elsewhere_does_no_harm() -> None:
    text = "FROM node\nENV APP=/app\nCOPY a /root/\nCOPY b .\nCOPY c $APP/x\nRUN npm ci\n"
    assert added(text) == {6: NPM}


@pytest.mark.parametrize(
    ("reader", "alone"),
    [
        ("COPY --from=build /root/.npm /x", True),
        ("COPY --from=0 / /", True),
        ("COPY --from=build /root/.np* /x", True),
        ("COPY --from=build $DIR /x", True),
        ("RUN --mount=type=bind,from=build,target=/b cp /b/x /x", True),
        ("RUN --mount=from=build,source=/app,target=/b cp /b/x /x", False),
        ("COPY --from=build /app/* /root/.npmrc /x/", False),
        ("COPY --from=build /app /app\nCOPY --from=node /root/.npm /x", False),
    ],
)
def test_a_directory_that_another_stage_reads_is_left_alone(reader: str, alone: bool) -> None:
    assert added(f"FROM node AS build\nRUN npm ci\nFROM x\n{reader}\n") == (
        {} if alone else {2: NPM}
    )
    inherited = f"FROM node AS a\nRUN npm ci\nFROM a AS build\nRUN x\nFROM y\n{reader}\n"
    assert added(inherited.replace("--from=0", "--from=1")) == ({} if alone else {2: NPM})


MODULES = "FROM golang:${V} AS build\nCOPY . .\nRUN go mod verify"


def test_a_store_is_kept_where_one_step_fills_and_reads_it() -> None:
    assert added(MODULES + END) == {3: GO_MODULES}
    # The RUN before it is known to be about something else.
    assert added("FROM golang AS build\nRUN apt-get install x\nRUN go get x" + END) == {
        3: GO_MODULES
    }


@pytest.mark.parametrize(
    "text",
    [
        MODULES,
        MODULES + "\nRUN go vet" + END,
        MODULES + "\nRUN make" + END,
        MODULES + "\nFROM build AS b\nRUN go test" + END,
        "FROM golang AS build\nRUN ./fetch\nRUN go mod verify" + END,
        MODULES.replace("golang:${V}", "my-golang") + END,
        MODULES.replace("golang:${V}", "${BASE}") + END,
    ],
    ids=["final", "read later", "read by who knows", "inherited", "filled", "base", "no name"],
)
def test_a_store_that_another_step_may_need_is_left_alone(text: str) -> None:
    assert added(text) == {}


def test_the_target_is_what_is_built() -> None:
    text = f"{MODULES}\nFROM scratch AS other\nRUN npm ci"
    assert added(text, target="build") == {}
    assert added(text) == {5: NPM}


@pytest.mark.parametrize(
    "syntax", ["docker/dockerfile:1.1", "docker/dockerfile:1.0.2", "my/frontend:1"]
)
@pytest.mark.parametrize("cache", ["auto", ("/c",)])
def test_frontends_without_cache_mounts_are_left_alone(syntax: str, cache: Any) -> None:
    text = f"# syntax={syntax}\nFROM node\nRUN npm ci\n"
    assert added(text, cache) == {}
    assert advised(text) == {}
    assert added(text.replace(syntax, "docker/dockerfile:1.10"), cache) != {}


def test_a_list_is_for_every_run_that_has_no_such_mount() -> None:
    text = (
        "FROM a\nRUN x\nUSER 7\nONBUILD RUN y\n"
        "RUN --mount=type=cache,target=/c/ y\nFROM b\nRUN --network=none z\n"
    )
    assert added(text, ("/c", "/d")) == {2: "/c, /d", 5: "/d", 7: "/c, /d"}
    assert added(text, ()) == {}


ODD = """\
# escape=`
FROM node
  run `
    # a comment
    npm ci && `

    true
RUN\t<<EOF
npm ci
EOF
Run [ "npm", "ci" ]
COPY <<EOF /x
RUN npm ci
EOF
RUN npm `\r
  ci
RUN --network=host npm install
"""


def test_no_line_moves() -> None:
    text = ODD.replace("\n", "\r\n", 1)
    flag = "--mount=type=cache,target=/c"
    made = with_mounts(text, build(("/c",)))
    assert made.count(flag) == 5
    assert made.replace(f" {flag}", "") == text
    lines = [line for line in made.split("\n") if flag in line]
    assert lines[:3] == [f"  run {flag} `", f"RUN {flag}\t<<EOF", f'Run {flag} [ "npm", "ci" ]']
    again = parse(made)
    assert [(i.keyword, i.start, i.end, i.value) for i in again.instructions] == [
        (i.keyword, i.start, i.end, i.value) for i in parse(text).instructions
    ]
    runs = [i for i in again.instructions if i.keyword == "RUN"]
    assert all({"type": "cache", "target": "/c"} in run.mounts for run in runs)


_PARTS = st.sampled_from(
    [
        *("FROM golang AS a\n", "FROM a\n", "FROM a AS a\n", "FROM\n", "COPY --from=a . /\n"),
        *("ENV HOME=/x\\1 CGO_ENABLED=0\n", "ENV $A=b\n", 'ENV "\n', "ARG HOME\n", "USER\n"),
        *("WORKDIR $x\n", "COPY a\n", "COPY\n", "ADD [\n", "RUN", " ", "\\\n", "\n", "<<E", "E\n"),
        *(" go build ", " npm ci ", "&&", "'", '"', '["go", "build"]', "[1]", " rm ~/x$(", "\\"),
        *(" --mount=type=cache,target=/c ", " --mount=target= ", "# x\n", "# escape=`\n", "`\n"),
    ]
)


@given(st.lists(_PARTS, max_size=14).map("".join), st.sampled_from(["auto", ("/k",)]))
def test_any_text_keeps_its_lines(text: str, cache: Any) -> None:
    before = parse(text)
    tuple(advice(before, build(()), "Dockerfile"))
    after = parse(with_mounts(text, build(cache)))
    assert [(i.keyword, i.start, i.end, i.value) for i in after.instructions] == [
        (i.keyword, i.start, i.end, i.value) for i in before.instructions
    ]


def test_a_bare_continuation_takes_the_flags_too() -> None:
    text = "FROM node\nRUN\\\n  npm ci\n"
    made = with_mounts(text, build())
    assert made == f"FROM node\nRUN --mount=type=cache,target={NPM}\\\n  npm ci\n"
    assert parse(made).instructions[1].value == "npm ci"


def test_the_advice_names_place_line_and_key() -> None:
    dockerfile = parse(
        "FROM node\nRUN npm ci \\\n  && true\nRUN pip install x\nRUN uv sync\n"
        "RUN --mount=type=cache,target=/x npm ci\n"
    )
    first, second, third = advice(dockerfile, build(()), "app/Dockerfile")
    assert (first.code, first.severity, str(first.location)) == (
        "build/no-cache-mount",
        "info",
        "app/Dockerfile:2:1",
    )
    assert first.message == "RUN npm ci && true: no cache is kept between builds"
    assert first.suggestions == (
        f"RUN --mount=type=cache,target={NPM} npm ci \\",
        "or `build: {cache: auto}` in devloop.yaml",
    )
    assert second.suggestions == ("RUN --mount=type=cache,target=/root/.cache/pip pip install x",)
    assert third.suggestions[0].endswith("uv sync (ENV UV_LINK_MODE=copy)")
    (slow,) = advice(dockerfile, build(()), "Dockerfile", {4: 12.4, 6: 60.0})
    assert slow.message == "RUN pip install x: no cache is kept between builds, it took 12 s"


def test_the_advice_names_the_setting_that_makes_a_cache_sure() -> None:
    dockerfile = parse("FROM golang\nCOPY . .\nRUN go build .\nRUN CGO_ENABLED=1 go vet .\n")
    first, second = advice(dockerfile, build(()), "Dockerfile")
    key = "`build: {cache: auto}` in devloop.yaml"
    assert first.suggestions[1:] == (f"or CGO_ENABLED=0 there, with {key}",)
    assert second.suggestions[1:] == (f"or CGO_ENABLED=0 there, with {key}",)
    ready = parse(str(dockerfile.instructions[0]) + "\nRUN CGO_ENABLED=0 go build .\n")
    (third,) = advice(ready, build(()), "Dockerfile")
    assert third.suggestions[1:] == (f"or {key}",)


def test_what_was_added_is_reported_in_one_piece() -> None:
    dockerfile = parse("FROM node\nRUN npm ci\nRUN npm i x\n")
    both = report(additions(dockerfile, build()), "Dockerfile")
    assert (both.code, both.severity) == ("build/cache-mounts", "info")
    assert both.message == f"build.cache keeps {NPM}"
    assert both.detail == (f"Dockerfile:2 {NPM}", f"Dockerfile:3 {NPM}")
    assert str(both.location) == "Dockerfile:2:1"
    assert report((), "Dockerfile").message == "build.cache finds nothing to keep"
