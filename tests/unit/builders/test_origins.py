"""Which path of the context a path in an image, or in a stack trace, is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devloop.builders.dockerfile import parse
from devloop.builders.image.origins import Origins
from devloop.model import ContextEntry, Snapshot

PLAIN = "FROM python\nWORKDIR /app\nCOPY . .\n"


def origins(dockerfile: str | None, *files: str, target: str | None = None) -> Origins:
    directories = {name.rpartition("/")[0] for name in files} - {""}
    entries = {name: ContextEntry("dir", 0o755) for name in directories}
    entries |= {name: ContextEntry("file", 0o644, 1, "x") for name in files}
    snapshot = Snapshot(entries=dict(sorted(entries.items())), digest="d", stamp="s")
    return Origins(parse(dockerfile) if dockerfile else None, target, {}, snapshot)


def test_a_file_is_where_the_last_copy_took_it_from() -> None:
    found = origins(
        "FROM python\nWORKDIR /app\nCOPY . .\nRUN compile\nCOPY src/ /srv/\nCOPY src/b.py a.py\n",
        "a.py",
        "src/b.py",
    )
    assert found.of("/app/src/b.py") == "src/b.py"
    assert found.of("/srv/b.py") == "src/b.py"
    assert found.of("/app/x/../a.py") == "src/b.py"
    assert found.of("/app/b.py") is None


def test_a_compiler_names_files_of_the_stage_it_ran_in() -> None:
    found = origins(
        "FROM golang AS build\nWORKDIR /src\nCOPY . .\nRUN go build -o /web ./cmd/web\n"
        "FROM scratch\nCOPY --from=build /web /web\n",
        "cmd/web/main.go",
        "main.go",
    )
    assert found.of("/src/cmd/web/main.go") == "cmd/web/main.go"
    assert found.of("/src/main.go") == "main.go"
    assert found.of("/usr/local/go/src/runtime/main.go") is None


def test_the_stage_that_is_built_counts_before_the_others() -> None:
    text = "FROM node AS dev\nCOPY dev/ /srv/\nFROM node AS prod\nCOPY prod/ /srv/\n"
    files = ("dev/a.js", "prod/a.js")
    assert origins(text, *files, target="dev").of("/srv/a.js") == "dev/a.js"
    assert origins(text, *files, target="prod").of("/srv/a.js") == "prod/a.js"
    assert origins(text, *files).of("/srv/a.js") == "prod/a.js"


def test_without_a_dockerfile_that_is_understood_the_only_file_of_that_name_is_meant() -> None:
    for dockerfile in (None, "FROM python\nWORKDIR app\nCOPY . .\n", "no Dockerfile at all"):
        found = origins(dockerfile, "app.py", "web/views.py", "web/app.py", "models.py")
        assert found.of("/srv/web/views.py") == "web/views.py"
        assert found.of("/srv/models.py") == "models.py"
        assert found.of("/usr/src/app/models.py") == "models.py"
        assert found.of("/srv/app.py") == "app.py"
        # This may be app.py or web/app.py.
        assert found.of("/srv/web/app.py") is None
        assert found.of("/srv/other.py") is None
        assert found.of("/usr/lib/python3.11/models.py") is None
        assert found.of("/go/pkg/mod/example.com/models.py") is None


def test_files_that_another_stage_hands_on_are_known_by_their_names() -> None:
    found = origins(
        "FROM python AS build\nCOPY . /src/\nFROM python\nCOPY --from=build /src /app\n", "app.py"
    )
    assert found.of("/app/app.py") == "app.py"


def test_names_are_no_guide_where_the_dockerfile_says_all() -> None:
    assert origins(PLAIN, "app.py").of("/opt/tool/app.py") is None


def test_the_end_of_a_path_is_enough_where_one_file_has_it() -> None:
    found = origins(PLAIN, "src/main/java/com/example/Foo.java", "app.rb", "test/app.rb", "a/x.py",
                    "b/x.py")  # fmt: skip
    assert found.of("com/example/Foo.java") == "src/main/java/com/example/Foo.java"
    assert found.of("ple/Foo.java") is None
    assert found.of("./app.rb") == "app.rb"
    assert found.of("x.py") is None
    assert found.of("../app.rb") is None


def test_what_a_package_manager_installed_is_nobody_s_source() -> None:
    found = origins(PLAIN, "node_modules/express/index.js", "index.js")
    assert found.of("/app/node_modules/express/index.js") is None
    assert found.of("/app/index.js") == "index.js"
    files = ("flask/app.py", "app.py")
    assert origins(None, *files).of("/opt/venv/lib/site-packages/flask/app.py") is None


@given(st.text(), st.sampled_from([None, PLAIN]))
def test_any_text_is_a_path(path: str, dockerfile: str | None) -> None:
    assert origins(dockerfile, "a", "b/c").of(path) in {None, "a", "b/c"}
