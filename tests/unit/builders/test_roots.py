"""Which directories of a project a debugger finds where in a container."""

from __future__ import annotations

import pytest

from devloop.builders.dockerfile import parse
from devloop.builders.image.roots import source_roots

GO = "FROM golang AS build\nWORKDIR /src\nCOPY . .\nFROM scratch\nCOPY --from=build /web /web\n"


def roots(text: str, *directories: str, target: str | None = None) -> list[tuple[str, str]]:
    return list(source_roots(parse(text), target, {}, directories.__contains__))


@pytest.mark.parametrize(
    ("copies", "wanted"),
    [
        ("COPY . .", [("", "/app")]),
        ("COPY . /srv/", [("", "/srv")]),
        ("COPY app.py notes.py ./", [("", "/app")]),
        ("COPY app.py .", [("", "/app")]),
        ("COPY app.py /srv/app.py", [("", "/srv")]),
        ("COPY app.py /srv/main.py", []),
        ("COPY src /opt/lib", [("src", "/opt/lib")]),
        ("COPY src/*.py lib/", [("src", "/app/lib")]),
        ("COPY src/a/b.py lib/", [("src/a", "/app/lib")]),
        ("COPY --parents src/b.py lib/", [("", "/app/lib")]),
        # What comes before the program itself is no place of it.
        ("COPY requirements.txt /tmp/\nRUN pip\nCOPY . .", [("", "/app")]),
        ("COPY . .\nCOPY nginx.conf /etc/nginx/", [("", "/app")]),
        # The deepest first; one that says nothing new is left out.
        ("COPY . .\nCOPY src /opt", [("src", "/opt"), ("", "/app")]),
        ("COPY . .\nCOPY src src", [("", "/app")]),
        ("COPY src src\nCOPY src/a /a", [("src/a", "/a"), ("src", "/app/src")]),
    ],
)
def test_each_copy_of_files_says_where_they_are(copies: str, wanted: list[tuple[str, str]]) -> None:
    text = f"FROM python\nWORKDIR /app\n{copies}\n"
    assert roots(text, "src", "src/a") == wanted


def test_a_compiler_names_the_paths_of_the_stage_it_ran_in() -> None:
    assert roots(GO) == [("", "/src")]


def test_the_targets_stage_comes_first() -> None:
    text = "FROM a AS dev\nCOPY . /dev\nFROM a AS prod\nCOPY . /prod\n"
    assert roots(text) == [("", "/prod")]
    assert roots(text, target="dev") == [("", "/dev")]


def test_variables_are_replaced() -> None:
    text = "FROM a\nARG HOME=/srv\nENV APP=$HOME/app\nWORKDIR $APP\nCOPY . .\n"
    assert roots(text) == [("", "/srv/app")]


def test_what_the_dockerfile_does_not_tell_is_not_guessed() -> None:
    assert roots("FROM node\nCOPY . .\n") == []
    assert roots("FROM node\n") == []
