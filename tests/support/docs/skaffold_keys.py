"""docs/skaffold-keys.md, made from the table of Skaffold's keys (config/skaffold/keys.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from devloop.config.loader import service_has
from devloop.config.skaffold.keys import KEYS
from devloop.config.skaffold.upgrade import NEWEST_KNOWN, OLDEST
from tests.support.docs.markdown import GENERATED, prose, table

if TYPE_CHECKING:
    from devloop.config.skaffold.keys import Fate

_INTRODUCTION: Final = """\
# Keys of skaffold.yaml

What devloop makes of each key of a skaffold.yaml, whose `apiVersion` is {oldest} to {newest}. One
that is used becomes a key of devloop.yaml. One that makes no difference is named by
`devloop check`, one that matters by `devloop dev` as well, each with its line. What stands below a
key that is not used is not looked at. See [For Skaffold users](skaffold.md).
"""


def skaffold_keys() -> str:
    """The page."""
    rows = ((f"`{key}`", *_words(fate)) for key, fate in KEYS.items())
    introduction = _INTRODUCTION.format(oldest=OLDEST, newest=NEWEST_KNOWN)
    head = ("key", "here", "why, or what instead")
    lines = [
        GENERATED.format(source="devloop/config/skaffold/keys.py"),
        introduction,
        *table(head, rows),
    ]
    return "\n".join(lines) + "\n"


def _words(fate: Fate) -> tuple[str, str]:
    kind, why = fate.fate, fate.why
    if fate.needs and not service_has(fate.needs):
        kind, why = fate.otherwise, f"devloop.yaml has no `{fate.needs}` yet"
    here = {"mapped": "used", "harmless": "makes no difference", "matters": "**matters**"}[kind]
    return here, prose(why)
