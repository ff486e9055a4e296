"""Sources and files that change while the watcher runs, as with an edit of devloop.yaml."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.watch.hints import WatchHints
from devloop.watch.source import ServiceSource
from tests.integration.watch.watching import service

if TYPE_CHECKING:
    from pathlib import Path


def source(root: Path, name: str) -> ServiceSource:
    context = root / name
    (context / "inner").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    return ServiceSource(service(context), root)


def test_what_is_added_is_watched_from_the_next_hint_on_and_what_goes_is_not(
    tmp_path: Path,
) -> None:
    first, second = source(tmp_path, "first"), source(tmp_path, "second")
    sources, cancel = {"first": first}, Cancel()
    watch = WatchHints(sources.values(), files=(tmp_path / "devloop.yaml",))
    config, env = tmp_path / "devloop.yaml", tmp_path / "env" / "values.env"
    env.parent.mkdir()
    deadline = threading.Timer(30, cancel.set)
    deadline.start()
    hints = watch.hints(cancel)
    assert next(hints) is None
    config.write_text("1")
    assert next(hints) == frozenset({config})
    del sources["first"]
    sources["second"] = second
    watch.renew((config, env))
    # Whatever happened before that was not watched.
    assert next(hints) is None
    (first._service.build.context / "inner" / "a.py").write_text("1")
    (second._service.build.context / "inner" / "a.py").write_text("1")
    assert next(hints) == frozenset({second._service.build.context / "inner" / "a.py"})
    env.write_text("1")
    assert next(hints) == frozenset({env})
    cancel.set()
    assert list(hints) == []
    deadline.cancel()
    deadline.join()
