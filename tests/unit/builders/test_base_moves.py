"""A base image that moved under its tag is noticed, wherever the builder would take it from."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.base.process import Completed
from devloop.builders import base_moves, docker_socket
from devloop.builders.base_moves import BaseLookup, BaseMoves, base_references
from devloop.builders.docker_socket import DaemonAnswer
from devloop.builders.dockerfile import parse
from devloop.config.builds import Build
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.errors import Diagnosis

A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")


def build(root: Any, **more: Any) -> Build:
    return Build(context=root, dockerfile=root / "Dockerfile", **more)


@pytest.mark.parametrize(
    ("text", "more", "found"),
    [
        ("FROM python:3.13", {}, ("python:3.13",)),
        ("FROM scratch", {}, ()),
        (f"FROM python@{A}", {}, ()),
        ("FROM golang:1 AS b\nFROM alpine\nCOPY --from=b /x /x", {}, ("golang:1", "alpine")),
        ("FROM golang:1 AS b\nFROM alpine\nRUN true", {}, ("alpine",)),
        ("FROM golang:1 AS b\nFROM alpine", {"target": "b"}, ("golang:1",)),
        ("FROM alpine\nCOPY --from=nginx:1 /x /x", {}, ("alpine", "nginx:1")),
        ("FROM alpine\nRUN --mount=from=tools:1,target=/t true", {}, ("alpine", "tools:1")),
        ("ARG V=3\nFROM python:$V", {}, ("python:3",)),
        ("ARG V=3\nFROM python:$V", {"args": {"V": "4"}}, ("python:4",)),
        ("FROM a AS b\nFROM b AS c\nFROM c", {}, ("a",)),
        ("FROM python AS python\nRUN true", {}, ("python",)),
        ("FROM Not_An:Image:", {}, ()),
        ("# syntax=acme/own\nFROM python:3.13", {}, ()),
    ],
)
def test_the_images_that_the_target_is_made_from(
    tmp_path: Path, text: str, more: dict[str, Any], found: tuple[str, ...]
) -> None:
    assert base_references(parse(text), build(tmp_path, **more)) == found


class Answers:
    """A lookup that is told what to answer."""

    def __init__(self, **names: tuple[str, ...]) -> None:
        self.of = names
        self.asked: list[str] = []

    def local(self, reference: str, cancel: Cancel) -> tuple[str, ...] | None:
        del reference, cancel
        return ()

    def remote(self, reference: str, cancel: Cancel) -> tuple[str, ...]:
        del cancel
        self.asked.append(reference)
        return self.of.get(reference, ())


class Session:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.reported: list[Diagnosis] = []
        self.moved: list[str] = []
        self.open: list[BaseMoves] = []

    def bases(self, lookup: Any, *, lasting: bool = False, every: float = 3600.0) -> BaseMoves:
        """After its first look."""
        made = BaseMoves(
            {"web": build(self.root)},
            lookup,
            self.root / ".devloop",
            report=self.reported.append,
            patience=30.0,
            lasting=lasting,
            every=every,
        )
        made.on_move(self.moved.append)
        self.open.append(made)
        made.start()
        made.marks("web", Cancel())
        return made

    def marks(self, *names: str) -> dict[str, str]:
        """Those of another session, to which the image is known by `names`."""
        return self.bases(Answers(base=names)).marks("web", Cancel())


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "Dockerfile").write_text("FROM base\n")
    made = Session(tmp_path)
    yield made
    for bases in made.open:
        bases.close()


def test_the_first_look_moves_nothing_and_a_second_answer_does(session: Session) -> None:
    assert session.marks(A) == {}
    assert session.marks(A) == {}
    assert session.reported == []
    assert session.marks(B) == {"base": B}
    assert session.moved == ["web"]
    assert [d.message for d in session.reported] == [
        "base base moved (sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb)"
    ]
    assert session.marks(B) == {"base": B}
    assert len(session.reported) == 1


def test_one_that_moves_back_is_the_image_of_before(session: Session) -> None:
    session.marks(A)
    session.marks(B)
    assert session.marks(A) == {}
    assert session.marks(B) == {"base": B}


def test_the_same_image_under_other_digests_did_not_move(session: Session) -> None:
    """Asked of the registry, it is its manifest; pulled, Docker knows that and its own id."""
    session.marks(A)
    assert session.marks(B, A) == {}
    assert session.marks(B) == {}
    assert session.marks(C) == {"base": C}
    assert session.marks(D, C) == {"base": C}


def test_what_cannot_be_asked_is_unchanged(session: Session) -> None:
    session.marks(A)
    assert session.marks() == {}
    session.marks(B)
    assert session.marks() == {"base": B}


def test_a_damaged_file_is_none(session: Session) -> None:
    session.marks(A)
    (session.root / ".devloop/bases.json").write_text('{"bases": {"base": {"first": 1}}}')
    assert session.marks(B) == {}


def test_a_lasting_session_looks_again(session: Session) -> None:
    answers = Answers(base=(A,))
    bases = session.bases(answers, lasting=True, every=0.01)
    seen = threading.Event()
    bases.on_move(lambda _: seen.set())
    answers.of["base"] = (B,)
    assert seen.wait(30)
    assert bases.marks("web", Cancel()) == {"base": B}


def test_a_base_that_is_new_in_the_dockerfile_is_asked_for_at_once(session: Session) -> None:
    answers = Answers(base=(A,), other=(B,))
    bases = session.bases(answers, lasting=True)
    (session.root / "Dockerfile").write_text("FROM other\n")
    assert bases.marks("web", Cancel()) == {}
    seen = threading.Event()
    bases.on_move(lambda _: seen.set())
    while "other" not in answers.asked:
        seen.wait(0.01)


def test_nobody_waits_longer_than_is_allowed(session: Session) -> None:
    stuck = threading.Event()

    class Stuck(Answers):
        def remote(self, reference: str, cancel: Cancel) -> tuple[str, ...]:
            with cancel.closing(stuck.set):
                stuck.wait(30)
            return super().remote(reference, cancel)

    bases = BaseMoves(
        {"web": build(session.root)},
        Stuck(),  # type: ignore[arg-type]
        session.root,
        report=session.reported.append,
        patience=None,
        lasting=False,
    )
    session.open.append(bases)
    bases.start()
    assert bases.marks("web", Cancel()) == {}
    assert not stuck.is_set()


# --- where it is asked ------------------------------------------------------------------------


class Registry:
    def __init__(self, tags: dict[str, str] | None = None, *, fails: bool = False) -> None:
        self.tags = tags or {}
        self.fails = fails

    def digest(self, repository: str, reference: str, cancel: Cancel) -> str | None:
        del cancel
        if self.fails:
            raise DevloopError.of(Code.REGISTRY_UNREACHABLE, "away")
        return self.tags.get(f"{repository}:{reference}")


class Places:
    """What Docker (`None`: not installed, else its answer) and the registries say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, docker: Completed | None) -> None:
        self.hosts: dict[str, Registry] = {}
        self.driver = "docker"
        self.opened: list[str] = []
        monkeypatch.setattr("shutil.which", lambda _: docker and "docker")
        monkeypatch.setattr(base_moves, "ask_docker", lambda *_, **__: docker)
        monkeypatch.setattr(docker_socket, "ask_daemon", lambda *_: self.daemon)
        self.daemon: DaemonAnswer | None = None
        monkeypatch.setattr("devloop.builders.buildx_builder.driver_in_use", lambda _: self.driver)
        monkeypatch.setenv("BUILDX_BUILDER", "mine")

    def names(self, *, pull: bool = False) -> tuple[str, ...]:
        def opened(host: str) -> Any:
            self.opened.append(host)
            return self.hosts.get(host, Registry())

        lookup = BaseLookup(opened, "localhost:5005/team", pull=pull)
        local = lookup.local("base:1", Cancel())
        return local or (lookup.remote("base:1", Cancel()) if local == () else ())


def has(*words: str) -> Completed:
    return Completed(status=0, out=json.dumps([words[0], words[1:]]) + "\n", err="")


ABSENT = Completed(status=1, out="", err="Error: No such image: base:1")
HUB = Registry({"docker.io/library/base:1": C})


def test_docker_s_own_image_counts_and_no_registry_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = Places(monkeypatch, has(A, f"base@{B}"))
    assert places.names() == (A, B)
    assert places.opened == []


def test_a_builder_with_a_store_of_its_own_takes_the_registry_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = Places(monkeypatch, has(A))
    places.driver, places.hosts = "docker-container", {"docker.io": HUB}
    assert places.names() == (C,)


@pytest.mark.parametrize(
    ("status", "body", "names"),
    [
        (200, {"Id": A, "RepoDigests": [f"base@{B}"]}, (A, B)),
        (200, {"Id": A, "RepoDigests": None}, (A,)),
        (404, {"message": "No such image: base:1"}, (C,)),
        # What is no answer to the question is left to the CLI.
        (404, {"message": "page not found"}, (D,)),
        (500, {"message": "no such image"}, (D,)),
        (200, ["?"], (D,)),
    ],
)
def test_the_daemon_is_asked_before_the_cli_is_started(
    monkeypatch: pytest.MonkeyPatch, status: int, body: object, names: tuple[str, ...]
) -> None:
    places = Places(monkeypatch, has(D))
    places.hosts = {"docker.io": HUB}
    places.daemon = DaemonAnswer(status, json.dumps(body).encode())
    assert places.names() == names


@pytest.mark.parametrize("docker", [None, ABSENT])
def test_without_one_of_docker_s_the_registry_counts(
    monkeypatch: pytest.MonkeyPatch, docker: Completed | None
) -> None:
    places = Places(monkeypatch, docker)
    places.hosts = {"docker.io": HUB}
    assert places.names() == (C,)


def test_pull_asks_the_registry_whatever_docker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(monkeypatch, has(A))
    places.hosts = {"docker.io": HUB}
    assert places.names(pull=True) == (C,)


def test_where_the_registry_is_away_a_copy_beside_the_images_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = Places(monkeypatch, ABSENT)
    copy = Registry({"localhost:5005/team/base:1": D})
    places.hosts = {"docker.io": Registry(fails=True), "localhost:5005": copy}
    assert places.names() == (D,)


def test_a_docker_that_does_not_say_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Completed(status=1, out="", err="Cannot connect to the Docker daemon")
    places = Places(monkeypatch, refused)
    places.hosts = {"docker.io": HUB}
    assert places.names() == ()
