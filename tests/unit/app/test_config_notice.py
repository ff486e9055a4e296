"""A session says once that its configuration changed, and nothing when it is back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.config_notice import ConfigNotice, problems_now
from devloop.base.cancel import Cancel
from devloop.config.loader import load_project
from devloop.errors import Code, Diagnosis, Location
from devloop.events import ConfigChecked, DiagnosticRaised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.loader import LoadedProject
    from devloop.events import Event


class Steps:
    """Hints that write `texts` to the file, one before each; None removes it."""

    def __init__(self, file: Path, texts: tuple[str | None, ...]) -> None:
        self.file, self.texts = file, texts

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        del cancel
        for text in self.texts:
            if text is None:
                self.file.unlink()
            else:
                self.file.write_text(text)
            yield frozenset({self.file})


def said(tmp_path: Path, *texts: str | None, wrong: str = "") -> list[Event]:
    """What is published for the texts, of which `wrong` is not valid."""
    file = tmp_path / "devloop.yaml"
    file.write_text("a")
    return noticed(Steps(file, texts), file, wrong)


def noticed(steps: Steps, file: Path, wrong: str = "") -> list[Event]:
    problem = Diagnosis(code=Code.CONFIG_VALUE, message="no", location=Location(file.name, 3, 4))
    told: list[Event] = []
    notice = ConfigNotice(
        steps,
        (file,),
        show=lambda path: path.name,
        check=lambda: (problem,) if file.read_text() == wrong else (),
        publish=told.append,
    )
    assert len(list(notice.hints(Cancel()))) == len(steps.texts)
    return told


def shown(events: list[Event]) -> list[tuple[str, str] | bool]:
    return [
        event.valid
        if isinstance(event, ConfigChecked)
        else (event.code, f"{event.severity} {event.location}")
        for event in events
        if isinstance(event, (ConfigChecked, DiagnosticRaised))
    ]


RESTART = ("config/changed", "warning devloop.yaml:1:1")
WRONG = ("config/value", "error devloop.yaml:3:4")


def test_each_new_content_is_told_once(tmp_path: Path) -> None:
    assert shown(said(tmp_path, "b", "b", "c")) == [RESTART, True, RESTART, True]


def test_what_is_wrong_is_told_instead_and_that_it_is_mended(tmp_path: Path) -> None:
    assert shown(said(tmp_path, "x", "b", wrong="x")) == [WRONG, False, RESTART, True]
    assert shown(said(tmp_path, "x", "a", wrong="x")) == [WRONG, False, True]


def test_a_touch_and_a_replacing_editor_are_no_news_and_the_way_back_wants_no_restart(
    tmp_path: Path,
) -> None:
    assert said(tmp_path, "a") == []
    assert shown(said(tmp_path, "a", None, "a")) == [True]
    assert shown(said(tmp_path, "b", "a")) == [RESTART, True, True]


def test_a_change_behind_a_link_is_one_of_the_file(tmp_path: Path) -> None:
    real, file = tmp_path / "shared.yaml", tmp_path / "devloop.yaml"
    real.write_text("a")
    file.symlink_to("shared.yaml")
    assert shown(noticed(Steps(real, ("b",)), file)) == [RESTART, True]


def test_what_is_wrong_on_disk_is_what_a_start_would_say(tmp_path: Path) -> None:
    def load() -> LoadedProject:
        return load_project(cwd=tmp_path, env={})

    (tmp_path / "devloop.yaml").write_text("version: 1\nservices: {web: {buidl: .}}\n")
    assert [each.code for each in problems_now(load)] == ["config/unknown-key"]
    (tmp_path / "devloop.yaml").write_text("version: 1\nservices: {web: {build: .}}\n")
    assert [each.code for each in problems_now(load)] == ["config/dockerfile-missing"]
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert problems_now(load) == ()
