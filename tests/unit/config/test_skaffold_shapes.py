"""Each of Skaffold's shapes is read without a warning, and is the same project once
`devloop init --from skaffold.yaml` wrote it as a devloop.yaml."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.app.starter.convert import converted
from devloop.app.starter.start import Flags
from devloop.config.effective import as_yaml, effective
from tests.support.skaffold_shapes import SHAPES
from tests.unit.config.test_skaffold import same

if TYPE_CHECKING:
    from devloop.config.loader import LoadedProject
    from tests.support.skaffold_shapes import Shape
    from tests.unit.config.conftest import Directory


def plan(loaded: LoadedProject) -> list[str]:
    """What `devloop config` shows, line by line: variables with their values, and without the name
    of their file."""
    text = as_yaml(effective(loaded, loaded.variables, {}), sources=False)
    text = re.sub(r'"\$\{(\w+)(?::-)?\}"', lambda found: loaded.variables[found[1]], text)
    return [line for line in text.splitlines() if not line.startswith("env_file:")]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda each: each.name)
def test_the_devloop_yaml_that_init_writes_is_the_same_plan(
    shape: Shape, directory: Directory
) -> None:
    shape.write(directory.path)
    directory.env = {"HOME": "/nowhere", **shape.env}
    before = directory.load()
    assert [str(each) for each in before.notes if each.severity == "warning"] == []

    found = converted(Path("skaffold.yaml"), directory.path, directory.env, Flags())
    after = directory.load(found.text)

    assert replace(same(after.project), env_file=None) == same(before.project)
    assert plan(after) == plan(before)
