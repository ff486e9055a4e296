"""How many examples a property is tried with: a quarter in an ordinary run, all in a thorough one.

Examples differ from run to run, so what ordinary runs try adds up; whoever changes what a property
speaks of tries them all: `script/test --unit --hypothesis-profile=thorough`.
"""

from __future__ import annotations

from hypothesis import settings

_THOROUGH = 100
_ORDINARY = 25


def register_profiles() -> None:
    """Make both profiles known and choose the ordinary one. pytest's option chooses afterwards."""
    # No example has a deadline: that would be an assertion on elapsed time.
    settings.register_profile("thorough", deadline=None, max_examples=_THOROUGH)
    settings.register_profile("ordinary", deadline=None, max_examples=_ORDINARY)
    settings.load_profile("ordinary")


def examples(thorough: int) -> int:
    """Return how many to try where a thorough run tries `thorough` of them instead of 100."""
    return max(1, thorough * settings().max_examples // _THOROUGH)
