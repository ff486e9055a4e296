"""A case: a context, a Dockerfile and what happens to them, as data to keep and cut down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.support.differential import edits
from tests.support.differential.recipes import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.differential.edits import Edit

__all__ = ["Case", "Step", "arrange", "perform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens between two builds. `recipe` replaces the Dockerfile; `restart` ends devloop
    and begins it again."""

    edits: tuple[Edit, ...] = ()
    recipe: Recipe | None = None
    restart: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "edits": [edits.to_json(edit) for edit in self.edits],
            "recipe": self.recipe.to_json() if self.recipe else None,
            "restart": self.restart,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Step:
        return cls(
            edits=tuple(edits.from_json(edit) for edit in data["edits"]),
            recipe=Recipe.from_json(data["recipe"]) if data["recipe"] else None,
            restart=data.get("restart", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`tree` makes the context out of nothing; after it and after each of `steps` is a build."""

    recipe: Recipe
    tree: tuple[Edit, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def last_recipe(self) -> Recipe:
        return next((s.recipe for s in reversed(self.steps) if s.recipe), self.recipe)

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "tree": [edits.to_json(edit) for edit in self.tree],
            "steps": [step.to_json() for step in self.steps],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Case:
        return cls(
            recipe=Recipe.from_json(data["recipe"]),
            tree=tuple(edits.from_json(edit) for edit in data["tree"]),
            steps=tuple(Step.from_json(step) for step in data["steps"]),
        )

    def renamed(self, change: Callable[[str], str]) -> Case:
        """The same with `change` done to each line of the Dockerfiles (hosts have other names)."""

        def recipe(old: Recipe) -> Recipe:
            return Recipe.from_json({**old.to_json(), "lines": [change(x) for x in old.lines]})

        return Case(
            recipe=recipe(self.recipe),
            tree=self.tree,
            steps=tuple(
                replace(s, recipe=recipe(s.recipe) if s.recipe else None) for s in self.steps
            ),
        )

    def __str__(self) -> str:
        lines = ["Dockerfile:", *(f"    {line}" for line in self.recipe.lines)]
        recipe = self.recipe
        extras = {"args": dict(recipe.args), "target": recipe.stage, "beside": recipe.beside}
        lines += [f"  {key}: {value}" for key, value in extras.items() if value]
        lines += ["context:", *(f"    {edit}" for edit in self.tree)]
        for number, step in enumerate(self.steps, 1):
            lines += [f"then, step {number}:", *(f"    {edit}" for edit in step.edits)]
            if step.restart:
                lines.append("    devloop is started again")
            if step.recipe:
                lines += [
                    "    the Dockerfile becomes",
                    *(f"        {x}" for x in step.recipe.lines),
                ]
        return "\n".join(lines)


def arrange(root: Path, case: Case) -> None:
    """Make the case's beginning in the empty directory `root`."""
    (root / "context").mkdir(parents=True)
    perform(root, Step(edits=case.tree, recipe=case.recipe))


def perform(root: Path, step: Step) -> None:
    if step.recipe is not None:
        file = step.recipe.dockerfile(root)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(step.recipe.text.encode("utf-8", "surrogateescape"))
    for edit in step.edits:
        edits.apply(root / "context", edit)
