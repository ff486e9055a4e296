"""Which way an image is replaced in, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.replace.policy import ReplacementPolicy
from devloop.cluster.replace.strategy import Change, Replaced, Replacement, Written
from devloop.model import ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment

if TYPE_CHECKING:
    from devloop.model import ReplacedBy

NEW = ImageRef(repository="localhost:5001/shop/web", tag="2", digest="sha256:" + "b" * 64)


class Way(Replacement):
    """Blocked by what `blocked` says at the moment."""

    def __init__(self, how: ReplacedBy, blocked: str | None = None) -> None:
        self.how, self.blocked = how, blocked
        self.refusal = ""

    def blocker(self, change: Change, cancel: Cancel) -> str | None:
        return self.blocked

    def replace(self, change: Change, cancel: Cancel) -> Replaced:
        how: ReplacedBy = "rolling" if self.refusal else self.how
        return Replaced(how=how, written=Written(object=deployment()), blocker=self.refusal)


def change(live: dict[str, Any] | None = None) -> Change:
    never: Any = None
    ref = WorkloadRef("deployment", "web", "dev")
    return Change(ref=ref, live=live or deployment(), containers=("web",), image=NEW, write=never)


def said(policy: ReplacementPolicy) -> str:
    return policy.replace(change(), Cancel())[1]


def test_the_first_way_that_nothing_blocks_is_taken() -> None:
    best, worse = Way("in-place"), Way("fast")
    policy = ReplacementPolicy(best, worse, Way("rolling"))
    assert policy.replace(change(), Cancel())[0].how == "in-place"
    best.blocked = "it has a preStop hook"
    done, _ = policy.replace(change(), Cancel())
    assert (done.how, done.blocker) == ("fast", "it has a preStop hook")


def test_a_blocker_is_reported_once_and_again_when_it_changes() -> None:
    best = Way("in-place", "no pod runs")
    policy = ReplacementPolicy(best, Way("rolling"))
    assert [said(policy), said(policy)] == [", rolling: no pod runs", ", rolling"]
    best.blocked = "a rollout is under way"
    assert [said(policy), said(policy)] == [", rolling: a rollout is under way", ", rolling"]
    best.blocked = None
    assert said(policy) == ", in place"
    best.blocked = "a rollout is under way"
    assert said(policy) == ", rolling: a rollout is under way"


def test_a_refusal_of_the_cluster_is_reported_once_too() -> None:
    best = Way("in-place")
    policy = ReplacementPolicy(best, Way("rolling"))
    best.refusal = "the cluster refuses it"
    assert said(policy) == ", rolling: the cluster refuses it"
    best.blocked = best.refusal
    assert said(policy) == ", rolling"


def test_nothing_to_replace_is_not_worth_a_word() -> None:
    assert said(ReplacementPolicy(Way("in-place", ""), Way("rolling"))) == ""


def test_what_no_better_way_fits_is_reported_only_with_a_new_image() -> None:
    policy = ReplacementPolicy(Way("rolling"), unfit="a statefulset")
    assert policy.replace(change(deployment(NEW.pinned)), Cancel())[1] == ""
    assert said(policy) == ", rolling: a statefulset"


def test_nothing_is_replaced_once_cancelled() -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        ReplacementPolicy(Way("rolling")).replace(change(), cancel)
