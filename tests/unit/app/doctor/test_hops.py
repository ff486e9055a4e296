"""The order of the hops, and what of them is looked at when one fails."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from devloop.app.doctor.hops import HOPS, HopFinding, chosen, examine
from devloop.base.cancel import Cancel, Cancelled
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from devloop.app.doctor.hops import Check, Examined, Hop

WARNING = Diagnosis(code=Code.ENV_INOTIFY_LIMIT, severity="warning", message="few")


def well(_: Cancel) -> HopFinding:
    return HopFinding(detail="well")


def broken(_: Cancel) -> HopFinding:
    raise DevloopError.of(Code.REGISTRY_UNREACHABLE, "no answer")


def all_examined(hops: tuple[Hop, ...], **checks: Check) -> tuple[Examined, ...]:
    every: dict[str, Check] = {hop.name: well for hop in HOPS}
    seen: list[str] = []
    clock = itertools.count()
    found = examine(
        hops,
        every | checks,
        Cancel(),
        begun=lambda hop: seen.append(hop.name),
        ended=lambda each: seen.append(each.hop),
        clock=lambda: float(next(clock)),
    )
    assert seen == [name for each in found for name in (each.hop, each.hop)]
    return found


def test_what_a_hop_needs_comes_before_it() -> None:
    before: set[str] = set()
    for hop in HOPS:
        assert before.issuperset(hop.needs)
        before.add(hop.name)


def test_a_hop_brings_what_it_needs() -> None:
    assert [hop.name for hop in chosen(["registry", "watch"])] == ["watch", "cluster", "registry"]
    assert chosen([]) == HOPS
    with pytest.raises(DevloopError) as caught:
        chosen(["regstry"])
    assert caught.value.diagnosis.suggestions == ("did you mean registry?",)


def test_all_are_well() -> None:
    found = all_examined(HOPS)
    assert {each.state for each in found} == {"ok"}
    assert {each.ms for each in found} == {1000.0}


def test_what_depends_on_a_failure_is_skipped_and_the_rest_is_not() -> None:
    found = {each.hop: each for each in all_examined(HOPS, registry=broken)}
    states = {name: each.state for name, each in found.items()}
    assert states["registry"] == "failed"
    assert found["registry"].diagnosis is not None
    assert found["build"].detail == "needs registry"
    assert found["push"].detail == "needs build"
    skipped = {"build", "push", "deploy", "pull", "log", "port", "agent"}
    assert {name for name, state in states.items() if state == "skipped"} == skipped
    assert states["clock"] == states["watch"] == "ok"


def test_a_warning_stops_nothing() -> None:
    found = all_examined(HOPS, builder=lambda _: HopFinding(detail="slow", warning=WARNING))
    assert [each.state for each in found].count("warning") == 1
    assert "skipped" not in {each.state for each in found}


def test_a_cancel_ends_it() -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        examine(
            HOPS,
            dict.fromkeys((hop.name for hop in HOPS), well),
            cancel,
            begun=lambda _: None,
            ended=lambda _: None,
        )
