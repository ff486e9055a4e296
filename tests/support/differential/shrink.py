"""Makes a case that differs as small as it can be made within a number of tries.

Many smaller cases are tried in one go, because a build of sixteen contexts costs little more than
one of a single context.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.differential.campaign import Finding
    from tests.support.differential.cases import Case, Step
    from tests.support.differential.recipes import Recipe

__all__ = ["shrink", "smaller"]

T = TypeVar("T")
_BATCH = 16


def shrink(
    finding: Finding,
    run: Callable[[Sequence[Case]], list[Finding | None]],
    more: Callable[[], bool],
) -> Finding:
    """A smaller case with a difference of the same kind; tries as long as `more` says so."""
    kind = _kind(finding)
    skip = 0
    while more():
        batch = []
        for number, case in enumerate(smaller(finding.case)):
            if number >= skip:
                batch.append(case)
            if len(batch) == _BATCH:
                break
        if not batch:
            break
        found = next((f for f in run(batch) if f is not None and _kind(f) == kind), None)
        if found is None:
            skip += len(batch)
        else:
            finding, skip = found, 0
    return finding


def _kind(finding: Finding) -> str:
    """What the first difference is about, without names and digits."""
    return re.sub(r"/'.*?': |/\".*?\": |\d+|'[^']*'|[0-9a-f]{8}", "", finding.lines[0])[:60]


def smaller(case: Case) -> Iterator[Case]:
    """Cases with less in them, the boldest first."""
    yield from (replace(case, steps=steps) for steps in _less(case.steps))
    if case.steps:
        # All that happened as the beginning: then no delta is needed for the difference.
        edits = tuple(edit for step in case.steps for edit in step.edits)
        yield replace(case, tree=(*case.tree, *edits), recipe=case.last_recipe, steps=())
    yield from (replace(case, tree=tree) for tree in _less(case.tree))
    for number, step in enumerate(case.steps):
        for edits in _less(step.edits):
            if edits:
                yield _with_step(case, number, replace(step, edits=edits))
        if step.restart:
            yield _with_step(case, number, replace(step, restart=False))
        if step.recipe and step.edits:
            yield _with_step(case, number, replace(step, recipe=None))
    for recipe in _smaller_recipes(case.recipe):
        # Where a Dockerfile is and what it is built for stays the same in all of a case.
        kept = recipe.beside == case.recipe.beside and recipe.stage == case.recipe.stage
        if kept or not any(step.recipe for step in case.steps):
            yield replace(case, recipe=recipe)


def _smaller_recipes(recipe: Recipe) -> Iterator[Recipe]:
    for lines in _less(recipe.lines):
        if any(line.upper().startswith("FROM") for line in lines):
            yield replace(recipe, lines=lines)
    for number, line in enumerate(recipe.lines):
        for shorter in _shorter(line):
            lines = (*recipe.lines[:number], shorter, *recipe.lines[number + 1 :])
            yield replace(recipe, lines=lines)
    if recipe.args:
        yield replace(recipe, args={})
    if recipe.beside:
        yield replace(recipe, beside=False)
    if recipe.stage:
        yield replace(recipe, stage=None)


def _with_step(case: Case, number: int, step: Step) -> Case:
    return replace(case, steps=(*case.steps[:number], step, *case.steps[number + 1 :]))


def _less(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """The items without a half, a quarter ... a single one of them."""
    size = len(items)
    while size >= 1:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        size = 0 if size == 1 else (size + 1) // 2


def _shorter(line: str) -> Iterator[str]:
    """The line without one of its words (a flag, a source)."""
    words = line.split(" ")
    if words[0] in ("COPY", "ADD") and "[" not in line:
        for number in range(1, len(words) - 1):
            if len(words) > 3:
                yield " ".join(words[:number] + words[number + 1 :])
    if words[0] == "FROM" and line.count("/") and "AS" not in words:
        yield "FROM scratch"
