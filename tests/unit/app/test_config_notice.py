"""What is wrong with the configuration is said until it is mended; the rest is handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.config_notice import ConfigNotice, contents_of
from devloop.base.cancel import Cancel
from devloop.config.loader import load_project
from devloop.errors import Code, Diagnosis, Location
from devloop.events import ConfigChecked, DiagnosticRaised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from devloop.config.loader import LoadedProject
    from devloop.events import Event


GOOD = "version: 1\nname: a\nservices: {web: {build: .}}\n"
OTHER = GOOD.replace("name: a", "name: b")
WRONG = GOOD.replace("build", "buidl")
ENV = GOOD + "env_file: .env\n"


class Steps:
    """Hints, before each of which `steps` do something; each says that `file` changed."""

    def __init__(self, file: Path, steps: tuple[Callable[[], object], ...]) -> None:
        self.file, self.steps = file, steps
        self.watched: list[set[str]] = []

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        del cancel
        for step in self.steps:
            step()
            yield frozenset({self.file})

    def renew(self, files: Iterable[Path]) -> None:
        self.watched.append({file.name for file in files})


class Noticed:
    """What is said, and taken over, of a file `devloop.yaml` beside a Dockerfile."""

    def __init__(self, root: Path, *notes: Diagnosis) -> None:
        self.file = root / "devloop.yaml"
        if not self.file.is_symlink():
            self.file.write_text(GOOD)
        (root / "Dockerfile").write_text("FROM scratch\n")
        self.events: list[Event] = []
        self.taken: list[str] = []
        self.notes = notes

    def load(self) -> LoadedProject:
        return load_project(cwd=self.file.parent, env={})

    def run(self, *steps: Callable[[], object], file: Path | None = None) -> Steps:
        hints = Steps(file or self.file, steps)
        loaded = self.load()
        notice = ConfigNotice(
            hints,
            loaded,
            load=self.load,
            publish=self.events.append,
            contents=contents_of(loaded.files),
            away=0,
        )
        notice.take_over_by(self._take)
        assert len(list(notice.hints(Cancel()))) == len(steps)
        return hints

    def writes(self, *texts: str) -> list[tuple[str, str] | bool]:
        self.run(*(lambda text=text: self.file.write_text(text) for text in texts))
        return self.said

    def _take(self, loaded: LoadedProject, cancel: Cancel) -> tuple[Diagnosis, ...]:
        del cancel
        self.taken.append(loaded.project.name)
        return self.notes

    @property
    def said(self) -> list[tuple[str, str] | bool]:
        return [
            event.valid
            if isinstance(event, ConfigChecked)
            else (event.code, f"{event.severity} {event.location}")
            for event in self.events
            if isinstance(event, (ConfigChecked, DiagnosticRaised))
        ]


UNKNOWN = ("config/unknown-key", "error devloop.yaml:3:18")


def test_each_new_content_that_is_valid_is_taken_over_once_and_nothing_is_said(
    tmp_path: Path,
) -> None:
    noticed = Noticed(tmp_path)
    assert noticed.writes(OTHER, OTHER, GOOD, GOOD) == []
    assert noticed.taken == ["b", "a"]


def test_what_is_wrong_is_said_once_and_not_taken_over_and_so_is_that_it_is_mended(
    tmp_path: Path,
) -> None:
    noticed = Noticed(tmp_path)
    assert noticed.writes(WRONG, WRONG, OTHER) == [UNKNOWN, False, True]
    assert noticed.taken == ["b"]


def test_what_cannot_be_taken_over_is_said_with_each_content_until_it_can(tmp_path: Path) -> None:
    note = Diagnosis(
        code=Code.CONFIG_NEEDS_RESTART,
        severity="warning",
        message="no",
        location=Location("devloop.yaml", 2, 1),
    )
    noticed = Noticed(tmp_path, note)
    told = ("config/needs-restart", "warning devloop.yaml:2:1")
    assert noticed.writes(OTHER, OTHER + "# more\n") == [told, True, told, True]
    noticed.events.clear()
    noticed.notes = ()
    assert noticed.writes(GOOD) == []


def test_what_cannot_be_had_is_tried_again_with_every_hint_and_said_once(tmp_path: Path) -> None:
    busy = Diagnosis(
        code=Code.ENV_PORT_BUSY, message="in use", location=Location("devloop.yaml", 3, 4)
    )
    noticed = Noticed(tmp_path, busy)

    def free() -> None:
        noticed.notes = ()

    hints = noticed.run(lambda: noticed.file.write_text(OTHER), lambda: None, free, lambda: None)
    assert noticed.said == [("env/port-busy", "error devloop.yaml:3:4"), False, True]
    assert noticed.taken == ["b", "b", "b"]
    assert len(hints.watched) == 2


def test_a_file_that_an_editor_took_away_is_missed_only_if_it_stays_away(tmp_path: Path) -> None:
    noticed = Noticed(tmp_path)
    noticed.run(noticed.file.unlink, lambda: noticed.file.write_text(OTHER))
    assert noticed.said == [("config/not-found", "error devloop.yaml"), False, True]
    assert noticed.taken == ["b"]


def test_a_file_in_a_directory_above_is_another_project(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "devloop.yaml").write_text(OTHER)
    noticed = Noticed(inner)
    noticed.run(noticed.file.unlink)
    assert noticed.said == [("config/not-found", "error devloop.yaml"), False]
    assert noticed.taken == []


def test_a_change_behind_a_link_is_one_of_the_file(tmp_path: Path) -> None:
    real = tmp_path / "shared.yaml"
    real.write_text(GOOD)
    (tmp_path / "devloop.yaml").symlink_to("shared.yaml")
    noticed = Noticed(tmp_path)
    noticed.run(lambda: real.write_text(OTHER), file=real)
    assert noticed.taken == ["b"]


def test_an_env_file_is_watched_from_when_it_is_named_be_it_there_or_not(tmp_path: Path) -> None:
    noticed = Noticed(tmp_path)
    env = tmp_path / ".env"
    hints = noticed.run(lambda: noticed.file.write_text(ENV), lambda: env.write_text("A=1\n"))
    assert noticed.said == [("config/file-missing", "error devloop.yaml:4:11"), False, True]
    assert {"devloop.yaml", ".env"} in hints.watched
    assert noticed.taken == ["a"]


def test_what_was_wrong_may_be_mended_in_another_file(tmp_path: Path) -> None:
    noticed = Noticed(tmp_path)
    dockerfile = tmp_path / "app" / "Dockerfile"
    dockerfile.parent.mkdir()
    text = GOOD.replace("build: .", "build: app")
    noticed.run(
        lambda: noticed.file.write_text(text), lambda: dockerfile.write_text("FROM scratch\n")
    )
    assert [each for each in noticed.said if isinstance(each, bool)] == [False, True]
    assert noticed.taken == ["a"]
