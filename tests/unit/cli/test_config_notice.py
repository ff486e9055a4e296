"""A session says once that its configuration changed, and nothing when it is back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.wiring import ConfigNotice
from devloop.base.cancel import Cancel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.errors import Diagnosis


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


def said(tmp_path: Path, *texts: str | None) -> list[Diagnosis]:
    file = tmp_path / "devloop.yaml"
    file.write_text("a")
    told: list[Diagnosis] = []
    notice = ConfigNotice(Steps(file, texts), (file,), show=lambda p: p.name, report=told.append)
    assert len(list(notice.hints(Cancel()))) == len(texts)
    return told


def test_each_new_content_is_told_once(tmp_path: Path) -> None:
    told = said(tmp_path, "b", "b", "c")
    assert [(each.code, each.severity) for each in told] == [("config/changed", "warning")] * 2
    assert str(told[0].location) == "devloop.yaml:1:1"


def test_a_touch_a_replacing_editor_and_the_way_back_are_no_news(tmp_path: Path) -> None:
    assert said(tmp_path, "a", None, "a") == []
    assert len(said(tmp_path, "b", "a")) == 1


def test_a_change_behind_a_link_is_one_of_the_file(tmp_path: Path) -> None:
    real, file = tmp_path / "shared.yaml", tmp_path / "devloop.yaml"
    real.write_text("a")
    file.symlink_to("shared.yaml")
    told: list[Diagnosis] = []
    notice = ConfigNotice(Steps(real, ("b",)), (file,), show=lambda p: p.name, report=told.append)
    assert list(notice.hints(Cancel())) == [frozenset({real})]
    assert [each.message.partition(" ")[0] for each in told] == ["devloop.yaml"]
