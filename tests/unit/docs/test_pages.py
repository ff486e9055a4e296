"""Links lead somewhere, generated pages are what the code makes of them, and the commands and
configurations in all pages are such as devloop takes."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest
import yaml

from devloop.cli.main import COMMANDS, main
from devloop.cli.main import command as root
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError
from tests.support.docs import markdown
from tests.support.docs.pages import DOCS, PAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Commands that stand in code blocks and ask neither Docker nor a cluster.
ALONE = {"init", "check", "config", "schema"}
MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
"""


def _pages() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            each for each in folders if not each.startswith(".") and each != "node_modules"
        ]
        yield from (ROOT / folder / each for each in files if each.endswith(".md"))


MARKDOWN = {path.relative_to(ROOT).as_posix(): path for path in sorted(_pages())}
GUIDES = ["README.md", "sample_app/README.md", *(p for p in MARKDOWN if p.startswith("docs/"))]
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in MARKDOWN.items()}


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_makes_of_it(name: str) -> None:
    there = (DOCS / name).read_text(encoding="utf-8")
    assert there == PAGES[name](), "run `python -m tests.support.docs` to write it anew"


def test_each_error_code_has_a_meaning_and_a_cure() -> None:
    assert [code for code in Code if not code.meaning or not code.cure.endswith(".")] == []


@pytest.mark.parametrize("name", MARKDOWN)
def test_links_within_the_project_lead_to_a_file_and_a_heading(name: str) -> None:
    broken = []
    for link in markdown.links(TEXTS[name]):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (MARKDOWN[name].parent / path).resolve() if path else MARKDOWN[name]
        page = target.suffix == ".md" and target.is_file()
        known = markdown.anchors(target.read_text(encoding="utf-8")) if anchor and page else set()
        if not target.exists() or (anchor and anchor not in known):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", GUIDES)
def test_command_lines_in_code_blocks_are_taken_by_the_command_line(name: str) -> None:
    for line in _command_lines(name):
        _parse(line)


@pytest.mark.parametrize("name", GUIDES)
def test_commands_in_the_text_exist_with_their_options(name: str) -> None:
    for span in markdown.code_spans(TEXTS[name]):
        if span.startswith("devloop "):
            _check_named(span)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project that the pages begin with, on a computer without a cluster."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /app\nEXPOSE 8080\n")
    (tmp_path / "k8s.yaml").write_text(MANIFEST)
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nservices: {web: {build: ., deploy: {manifests: [k8s.yaml]}}}\n"
    )
    (tmp_path / "skaffold.yaml").write_text(
        "apiVersion: skaffold/v4beta11\nbuild: {artifacts: [{image: web}]}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_commands_of_the_pages_that_need_no_cluster_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line for name in GUIDES for line in _command_lines(name)}
    found = [words for line in sorted(lines) if (words := shlex.split(line, comments=True)[1:])]
    alone = [words for words in found if words[0] in ALONE]
    assert {words[0] for words in alone} == ALONE
    for words in alone:
        # The project has its file already.
        status = main([*words, "--force"] if words[0] == "init" else words)
        shown = capsys.readouterr()
        assert status == 0, f"{words}: {shown.err}"


def test_every_command_is_in_the_list_of_commands() -> None:
    spans = markdown.code_spans(TEXTS["docs/commands.md"])
    assert [name for name in COMMANDS if not any(f"devloop {name}" in each for each in spans)] == []


@pytest.mark.parametrize("name", GUIDES)
def test_yaml_in_the_pages_is_a_devloop_yaml_that_loads_or_another_tools(
    name: str, tmp_path: Path
) -> None:
    for block in markdown.split(TEXTS[name])[1]:
        if block.language not in {"yaml", "yml"}:
            continue
        if {"apiVersion", "jobs", "stages"} & set(next(yaml.safe_load_all(block.text))):
            continue
        file = tmp_path / f"{block.line}.yaml"
        file.write_text(block.text, encoding="utf-8")
        try:
            load_project(cwd=tmp_path, file=file, env={})
        except DevloopError as error:
            pytest.fail(f"{name}:{block.line}: {error}")


@pytest.mark.parametrize(
    "wrong",
    ["devloop launch", "devloop dev --watch", "devloop status --output yaml", "devloop logs a b"],
)
def test_a_command_line_that_is_wrong_is_found(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        _parse(wrong)


@pytest.mark.parametrize("wrong", ["devloop launch", "devloop dev --watch", "devloop cluster x"])
def test_a_command_that_does_not_exist_is_found_in_the_text(wrong: str) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        _check_named(wrong)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("How it decides", "how-it-decides"),
        ("services.NAME.build.stop_timeout", "servicesnamebuildstop_timeout"),
        ("`build`", "build"),
        ("What stays, and what does not", "what-stays-and-what-does-not"),
    ],
)
def test_an_anchor_is_the_one_that_github_makes(heading: str, anchor: str) -> None:
    assert markdown.anchor(heading) == anchor


def test_headings_with_the_same_text_are_numbered_and_code_has_none() -> None:
    assert markdown.anchors("# A b\n```sh\n# c\n```\n## A b\n") == {"a-b", "a-b-1"}


def _command_lines(name: str) -> Iterator[str]:
    """The commands of devloop in the shell's blocks of a page, comments and prompts left out."""
    for block in markdown.split(TEXTS[name])[1]:
        if block.language in {"sh", "shell", "console", "bash"}:
            for line in block.text.splitlines():
                text = line.strip().removeprefix("$ ")
                if text.startswith("devloop "):
                    yield re.split(r" (?:&&|\|\|?|>>?|;) ", text)[0]


def _parse(line: str) -> None:
    """Has click read the line as it would, without running it. Raises click.UsageError."""
    words = shlex.split(line, comments=True)[1:]
    context = click.Context(root, info_name="devloop")
    command: click.Command = root
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, line
        context, command = click.Context(found, parent=context, info_name=name), found
    command.parse_args(context, words)


def _check_named(span: str) -> None:
    """A command as it is named in a text, with placeholders and alternatives."""
    words = re.sub(r"[\[\]]|\.\.\.", "", span).split()[1:]
    if words[0].isupper() or words[0].startswith("-"):
        return
    context = click.Context(root, info_name="devloop")
    command: click.Command = root
    while isinstance(command, click.Group) and words:
        first, *words = words
        named = [command.resolve_command(context, [each])[1] for each in first.split("|")]
        assert named[0] is not None, span
        command = named[0]
    options = {text for each in command.get_params(context) for text in each.opts}
    wanted = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert wanted <= options, f"{span}: there is no {', '.join(wanted - options)}"
