from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.builders.build_errors import BuildFailure, BuildLocation, diagnose, nearest
from devloop.builders.classic import BuildStream, PushStream
from devloop.builders.docker_errors import (
    disk_full,
    docker_unreachable,
    explain_docker,
    push_failed,
)
from devloop.builders.dockerfile import parse
from devloop.builders.rawjson import Solve
from tests.unit.builders.kit import recorded, recorded_items

if TYPE_CHECKING:
    from devloop.errors import Diagnosis

DOCKERFILES = {
    "ok": "FROM busybox-base:dev AS base\nRUN echo hello && echo world >&2\nFROM base\n"
    "COPY a.txt /a.txt\nWORKDIR /x\nRUN cat /a.txt\n",
    "run": "FROM busybox-base:dev\nARG N=3\nRUN echo start; \\\n  # comment\n"
    "  echo bad >&2; exit ${N}\n",
    "copy": "FROM busybox-base:dev\nCOPY requirement.txt /x\n",
    "parse": "FROM busybox-base:dev\nRUNN echo x\n",
    "base": "FROM nosuch.invalid/python:nope\nRUN x\n",
    "heredoc": "FROM busybox-base:dev\nRUN <<EOF\necho in heredoc\nexit 4\nEOF\n",
    "refused": "FROM x\n",
}
NAMES = ("requirements.txt", "src", "src/main.py")


def place(name: str, context: Path, dockerfile: str = "") -> BuildLocation:
    return BuildLocation(
        shown="app/Dockerfile",
        dockerfile=parse(dockerfile or DOCKERFILES[name]),
        context=context,
        names=NAMES,
        repository="localhost:5001/shop/web",
    )


def by_buildx(name: str, context: Path, *, source_block: bool = True) -> Diagnosis:
    solve = Solve()
    for line in recorded(f"buildx-{name}"):
        solve.feed(line)
    failed = solve.failed
    text = "\n".join(solve.text if source_block else [x for x in solve.text if "ERROR" in x])
    return diagnose(
        BuildFailure(
            vertex=failed.name if failed else "",
            error=failed.error if failed else "",
            text=text,
            log=solve.tail(failed, 20) if failed else (),
            exporting=failed is not None and failed.exports,
        ),
        place(name, context),
    )


def by_classic(name: str, context: Path) -> Diagnosis:
    state = BuildStream()
    for item in recorded_items(f"classic-{name}"):
        state.feed(item)
    where = place(name, context)
    instruction = state.instruction(where.dockerfile)
    line = instruction.start if instruction else None
    return diagnose(BuildFailure(error=state.error, log=tuple(state.log), line=line), where)


CASES = [
    ("run", "build/run-failed", "RUN exited 3: echo start; echo bad >&2; exit ${N}", 3),
    ("copy", "build/copy-missing", "COPY requirement.txt: no such path in the build context", 2),
    ("parse", "build/dockerfile-parse", "unknown instruction: RUNN", 2),
    ("base", "build/base-pull-failed", "cannot pull nosuch.invalid/python:nope", 1),
]


@pytest.mark.parametrize(("name", "code", "message", "line"), CASES)
@pytest.mark.parametrize("builder", ["buildx", "classic"])
def test_both_builders_name_the_line(
    builder: str, name: str, code: str, message: str, line: int, tmp_path: Path
) -> None:
    found = (by_buildx if builder == "buildx" else by_classic)(name, tmp_path)
    assert (found.code, found.message) == (code, message)
    assert str(found.location) == f"app/Dockerfile:{line}:1"


@pytest.mark.parametrize(("name", "line"), [("run", 3), ("copy", 2), ("heredoc", 2)])
def test_the_model_finds_the_line_where_buildx_shows_no_source(
    name: str, line: int, tmp_path: Path
) -> None:
    found = by_buildx(name, tmp_path, source_block=False)
    assert found.location is not None
    assert found.location.line == line


def test_details(tmp_path: Path) -> None:
    assert sorted(by_buildx("run", tmp_path).detail) == ["bad", "start"]
    assert by_classic("run", tmp_path).detail == ("start", "bad")
    assert by_buildx("copy", tmp_path).suggestions == ('did you mean "requirements.txt"?',)
    assert by_buildx("parse", tmp_path).suggestions == ("did you mean RUN?",)
    assert by_buildx("heredoc", tmp_path).message == "RUN exited 4: echo in heredoc …"


def test_a_refused_push(tmp_path: Path) -> None:
    found = by_buildx("refused", tmp_path)
    assert found.code == "registry/unreachable"
    assert "connection refused" in (found.cause or "")


def test_a_path_that_is_there_but_ignored(tmp_path: Path) -> None:
    (tmp_path / "requirement.txt").touch()
    found = by_buildx("copy", tmp_path)
    assert found.code == "build/copy-missing"
    assert "left out" in found.message
    assert found.suggestions == (
        'add "!requirement.txt" to .dockerignore (or change build.ignore)',
    )


def test_a_copy_of_what_git_keeps_is_told_who_leaves_it_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").touch()
    failure = BuildFailure(
        vertex="[2/2] COPY .git/HEAD /head",
        error='failed to calculate checksum of ref x::y: "/.git/HEAD": not found',
    )
    found = diagnose(failure, place("", tmp_path, "FROM a\nCOPY .git/HEAD /head\n"))
    assert found.code == "build/copy-missing"
    assert found.cause is not None
    assert found.cause.startswith("devloop leaves .git out")
    assert "`!.git` in .dockerignore" in found.suggestions[0]


def test_a_path_missing_in_another_stage(tmp_path: Path) -> None:
    dockerfile = "FROM a AS b\nFROM c\nCOPY --from=b /nope /x\n"
    failure = BuildFailure(
        vertex="[stage-1 2/2] COPY --from=b /nope /x",
        error='failed to calculate checksum of ref x::y: "/nope": not found',
    )
    found = diagnose(failure, place("", tmp_path, dockerfile))
    assert (found.code, found.message) == (
        "build/copy-missing",
        "COPY --from=b: nope does not exist there",
    )
    assert found.location is not None
    assert found.location.line == 3


def test_an_unknown_target(tmp_path: Path) -> None:
    failure = BuildFailure(text='ERROR: failed to solve: target stage "bass" could not be found')
    found = diagnose(failure, place("ok", tmp_path))
    assert found.code == "build/dockerfile-parse"
    assert found.suggestions == ('did you mean "base"?', "stages: base")


@pytest.mark.parametrize(
    ("code", "cause"), [(137, "killed (SIGKILL)"), (127, "not found in the image")]
)
def test_telling_exit_codes(code: int, cause: str, tmp_path: Path) -> None:
    error = f'process "/bin/sh -c x \\"y\\"" did not complete successfully: exit code: {code}'
    found = diagnose(BuildFailure(error=error), place("", tmp_path, "FROM a\n"))
    assert found.message == f'RUN exited {code}: x "y"'
    assert cause in (found.cause or "")


def test_a_full_disk_in_a_log_is_reported(tmp_path: Path) -> None:
    failure = BuildFailure(
        vertex="[2/2] RUN x",
        error='process "x" did not complete successfully: exit code: 1',
        log=("write /x: no space left on device",),
    )
    assert diagnose(failure, place("", tmp_path, "FROM a\nRUN x\n")).code == "env/disk-full"
    assert disk_full("all is well") is None


def test_anything_else_keeps_the_builders_words(tmp_path: Path) -> None:
    failure = BuildFailure(
        text="WARNING: x\nERROR: failed to build: failed to solve: some new thing"
    )
    found = diagnose(failure, place("ok", tmp_path))
    assert (found.code, found.message) == ("build/failed", "some new thing")
    assert found.detail[-1].startswith("ERROR:")


@given(st.text(), st.text(), st.text())
def test_there_is_always_a_diagnosis(vertex: str, error: str, text: str) -> None:
    where = place("ok", Path("/nonexistent"))
    assert diagnose(BuildFailure(vertex=vertex, error=error, text=text), where).message


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("main.py", ("src/main.py",)),
        ("src/mian.py", ("src/main.py",)),
        ("requirement.txt", ("requirements.txt",)),
        ("zzz", ()),
    ],
)
def test_nearest(path: str, expected: tuple[str, ...]) -> None:
    assert nearest(path, NAMES) == expected


_DOWN = [
    (
        (
            "Cannot connect to the Docker daemon at unix:///nope/docker.sock. Is the docker daemon "
            "running?"
        ),
        "does not exist",
        "start Docker",
    ),
    (
        "Cannot connect to the Docker daemon at unix:///dev/null. Is the docker daemon running?",
        "the daemon is down",
        "start Docker",
    ),
    (
        (
            "permission denied while trying to connect to the Docker daemon socket at "
            'unix:///var/run/docker.sock: Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info": '
            "dial unix /var/run/docker.sock: connect: permission denied"
        ),
        "you may not use the socket /var/run/docker.sock",
        "docker group",
    ),
    (
        (
            "failed to connect to the docker API at unix:///var/run/dicker.sock; check if the path "
            "is correct and if the daemon is running: dial unix /var/run/dicker.sock: connect: no "
            "such file or directory"
        ),
        "the socket /var/run/dicker.sock does not exist",
        "start Docker",
    ),
    (
        (
            'Failed to initialize: unable to resolve docker endpoint: context "nope": context not '
            "found: open /root/.docker/contexts/meta/x/meta.json: no such file or directory"
        ),
        'the Docker context "nope" does not exist',
        "docker context ls",
    ),
    (
        (
            'error during connect: Get "http://foo:2375/v1.50/version": dial tcp: lookup foo on '
            "192.0.2.53:53: no such host"
        ),
        "is not known",
        "spelling",
    ),
    (
        "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?",
        "no daemon listens there",
        "remote daemon",
    ),
    (
        (
            "ERROR: failed to receive status: rpc error: code = Unavailable desc = error reading "
            "from server: EOF"
        ),
        "the connection broke",
        "start Docker",
    ),
]


@pytest.mark.parametrize(("text", "cause", "suggestion"), _DOWN)
def test_why_docker_does_not_answer(text: str, cause: str, suggestion: str) -> None:
    found = docker_unreachable(text, {})
    assert found is not None
    assert found.code == "env/docker-unreachable"
    assert cause in (found.cause or "")
    assert suggestion in found.suggestions[0]


def test_docker_host_is_named_when_it_is_set() -> None:
    found = explain_docker("timed out", {"DOCKER_HOST": "tcp://10.0.0.1:2375"})
    assert found.message == "Docker does not answer at tcp://10.0.0.1:2375"
    assert found.suggestions[-1].startswith("DOCKER_HOST is set to")
    assert docker_unreachable("pip could not reach its index", {}) is None
    found = explain_docker("no answer at unix:///x.sock: timed out", {})
    assert found.message == "Docker does not answer at unix:///x.sock"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no basic auth credentials", "registry/unauthorized"),
        ("unexpected status from HEAD request to https://x: 401 U", "registry/unauthorized"),
        ("denied: requested access to the resource is denied", "registry/unauthorized"),
        ("http: server gave HTTP response to HTTPS client", "registry/unreachable"),
        ("dial tcp 10.0.0.1:5000: i/o timeout", "registry/unreachable"),
        ("tag does not exist", "registry/push-failed"),
        ("dial tcp 127.0.0.1:54010: connect: connection refused", "registry/unreachable"),
        ("Put https://reg:401/v2/: dial tcp: connection refused", "registry/unreachable"),
        (f"failed to authorize: sha256:{'401' * 8}: connection refused", "registry/unreachable"),
        (f"blob sha256:0401f{'0' * 59} unknown to registry", "registry/push-failed"),
        ("pushed 401 of 512 blobs, then gave up", "registry/push-failed"),
        ("received unexpected HTTP status: 401 Unauthorized", "registry/unauthorized"),
        ("error from registry at reg.example:5000: status code 403", "registry/unauthorized"),
    ],
)
def test_why_a_push_failed(text: str, code: str) -> None:
    found = push_failed(text, "reg.example:5000/shop/web")
    assert found.code == code
    assert text in (found.cause or "")


def test_an_insecure_registry_gets_its_cure() -> None:
    found = push_failed("http: server gave HTTP response to HTTPS client", "reg:5000/a")
    assert 'add "reg:5000" to insecure-registries' in found.suggestions[0]


def test_the_classic_streams() -> None:
    state = BuildStream()
    notes = [note for item in recorded_items("classic-ok") for note in state.feed(item)]
    assert state.error == ""
    assert state.summary.startswith("6 steps, ")
    assert notes[0].message == "[1/6] FROM busybox-base:dev AS base"
    assert state.instruction(parse(DOCKERFILES["ok"])) is not None

    push = PushStream()
    for item in recorded_items("classic-push"):
        push.feed(item)
    assert push.error == ""
    assert push.digest.startswith("sha256:")

    refused = PushStream()
    for item in recorded_items("classic-push-refused"):
        refused.feed(item)
    assert "connection refused" in refused.error
    assert refused.digest == ""


_KEYS = st.sampled_from(
    ["stream", "status", "error", "errorDetail", "aux", "ID", "Digest", "id", "message", "total"]
)
_ITEMS = st.recursive(
    st.none() | st.text(max_size=4) | st.integers(),
    lambda inner: st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=6,
)


@given(st.lists(_ITEMS))
def test_no_object_of_a_stream_raises(items: list[object]) -> None:
    build, push = BuildStream(), PushStream()
    for item in items:
        build.feed(item)
        push.feed(item)
    _ = (build.summary, build.instruction(parse(DOCKERFILES["ok"])))


@pytest.mark.parametrize(
    ("line", "repository", "names", "hinted"),
    [
        ("fatal: not a git repository", True, NAMES, True),
        ("LookupError: setuptools-scm was unable to detect version for /app", True, NAMES, True),
        ("fatal: not a git repository", False, NAMES, False),
        ("fatal: not a git repository", True, (*NAMES, ".git/HEAD"), False),
        ("make: *** [all] Error 2", True, NAMES, False),
    ],
)
def test_a_step_that_wants_the_repository_is_told_that_it_was_left_out(
    line: str, repository: bool, names: tuple[str, ...], hinted: bool, tmp_path: Path
) -> None:
    if repository:
        (tmp_path / ".git").mkdir()
    error = 'process "/bin/sh -c make" did not complete successfully: exit code: 128'
    where = replace(place("ok", tmp_path), names=names)
    found = diagnose(BuildFailure(error=error, log=(line,)), where)
    assert found.code == "build/run-failed"
    assert any("!.git" in hint for hint in found.suggestions) is hinted


@pytest.mark.parametrize(
    ("vertex", "platforms", "of", "install"),
    [
        ("[linux/arm64 2/2] RUN x", ("linux/amd64", "linux/arm64"), "linux/arm64", "arm64"),
        ("[linux/arm/v7 base 2/2] RUN x", ("linux/amd64", "linux/arm/v7"), "linux/arm/v7", "arm"),
        ("[2/2] RUN x", ("linux/s390x",), "linux/s390x", "s390x"),
        ("[2/2] RUN x", (), "another platform", "all"),
    ],
)
def test_a_program_of_another_platform_without_emulation(
    tmp_path: Path, vertex: str, platforms: tuple[str, ...], of: str, install: str
) -> None:
    error = 'process "/bin/sh -c x" did not complete successfully: exit code: 1'
    where = replace(place("", tmp_path, "FROM a\nRUN x\n"), platforms=platforms)
    log = ("exec /bin/sh: exec format error",)
    found = diagnose(BuildFailure(vertex=vertex, error=error, log=log), where)
    assert (found.code, found.message) == (
        "build/no-emulation", f"the builder cannot run programs of {of}"
    )  # fmt: skip
    assert str(found.location) == "app/Dockerfile:2:1"
    assert found.suggestions[0].endswith(f"tonistiigi/binfmt --install {install}")
    # A script is another matter.
    script = ("/bin/sh: 1: ./x: Exec format error",)
    found = diagnose(BuildFailure(vertex=vertex, error=error, log=script), where)
    assert found.code == "build/run-failed"


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        (
            "ERROR: Multi-platform build is not supported for the docker driver.\nSwitch",
            "docker buildx create --use --driver-opt network=host",
        ),
        (
            "ERROR: docker exporter does not currently support exporting manifest lists",
            "name a registry that the builder reaches with `registry`",
        ),
    ],
)
def test_a_builder_that_makes_no_index(tmp_path: Path, text: str, suggestion: str) -> None:
    found = diagnose(BuildFailure(text=text), place("ok", tmp_path))
    assert found.code == "build/unsupported"
    assert found.message == "this builder makes no image for several platforms"
    assert found.cause
    assert found.cause.lower() in text.lower()
    assert found.suggestions[0] == suggestion
