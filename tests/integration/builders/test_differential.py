"""Images made in-process equal those of `docker buildx build --no-cache`, whatever is edited.

The short form of tests/bench/differential.py, which takes hours where this takes a minute: some
random cases, and every case that ever differed, kept as data in tests/support/differential/kept.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.differential import kept
from tests.support.differential.campaign import Campaign
from tests.support.differential.candidate import IN_PROCESS, SPLIT
from tests.support.differential.place import make_bases
from tests.support.differential.shrink import shrink

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.registry.client import RegistryClient
    from tests.support.differential.campaign import Tally
    from tests.support.differential.recipes import Bases

pytestmark = pytest.mark.docker

# In seconds: for the random wave, and for making what it finds small.
WAVE, SHRINK = 35.0, 40.0


@pytest.fixture(scope="module")
def bases(registry: str) -> Bases:
    return make_bases(registry)


@pytest.fixture
def campaign(tmp_path: Path, client: RegistryClient, bases: Bases) -> Campaign:
    return Campaign(tmp_path, client, bases)


def _wave(campaign: Campaign, *, spaces: int) -> Tally:
    """Random edits for a while; fails where an image differs."""
    # Another seed tries other cases: DEVLOOP_TEST_SEED=2 pytest ...
    seed = os.environ.get("DEVLOOP_TEST_SEED", "short")
    end = time.monotonic() + WAVE
    tally = campaign.wave(seed, spaces=spaces, rounds=12, until=lambda: time.monotonic() > end)
    if tally.findings:
        stop = time.monotonic() + SHRINK
        found = shrink(tally.findings[0], campaign.run, lambda: time.monotonic() < stop)
        data = json.dumps(found.case.to_json())
        pytest.fail(f"{len(tally.findings)} differ, the first:\n{found}\n{data}")
    return tally


def test_random_edits_of_random_contexts(campaign: Campaign) -> None:
    tally = _wave(campaign, spaces=8)
    # A test in which the full builder does all the work compares it with itself.
    assert tally.share(*IN_PROCESS) > 0.4, (tally.ways, tally.reasons)
    assert tally.compared >= 8


def test_random_builds_that_are_split(tmp_path: Path, client: RegistryClient, bases: Bases) -> None:
    tally = _wave(Campaign(tmp_path, client, bases, split=True), spaces=6)
    assert tally.share(SPLIT) > 0.2, (tally.ways, tally.reasons)
    assert tally.compared >= 6


def test_what_once_differed(campaign: Campaign, bases: Bases, registry: str) -> None:
    cases = kept.load(registry, bases.flags)
    assert cases
    found = campaign.run(list(cases.values()))
    wrong = {name: str(f) for name, f in zip(cases, found, strict=True) if f is not None}
    assert not wrong, "\n\n".join(f"{name}:\n{text}" for name, text in wrong.items())
