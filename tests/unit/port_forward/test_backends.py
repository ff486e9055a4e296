"""Which pod a connection goes to, and what is learned about replacements on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devloop.model import ContainerView, PodView
from devloop.port_forward.backends import BackendChooser, BackendView


def pod(
    name: str,
    *,
    image: str = "app:1",
    container: str = "c1",
    ready: bool = True,
    deleting: bool = False,
    created: str = "2026-01-01T00:00:00Z",
    reason: str = "",
    runs: str = "",
    starts: tuple[int, int] = (0, 0),
) -> PodView:
    return PodView(
        name=name,
        uid=f"uid-{name}",
        namespace="default",
        created=created,
        phase="Running",
        ready=ready,
        deleting=deleting,
        containers=(
            ContainerView(
                name="main",
                image=image,
                image_id=runs,
                container_id=container,
                reason=reason,
                starts_asked=starts[0],
                starts_done=starts[1],
            ),
        ),
    )


def seen(sight: BackendView) -> tuple[set[str], set[str]]:
    return set(sight.replacing), set(sight.replaced)


def target(chooser: BackendChooser, *pods: PodView, now: float = 0.0) -> str:
    found = chooser.look(pods, now).target
    return found.name if found else ""


def test_nobody_is_chosen_when_nobody_is_ready() -> None:
    assert target(BackendChooser()) == ""
    assert target(BackendChooser(), pod("a", ready=False)) == ""


def test_a_pod_being_deleted_is_not_chosen_even_while_ready() -> None:
    assert target(BackendChooser(), pod("a", deleting=True)) == ""


def test_the_newest_ready_pod_is_chosen() -> None:
    old = pod("a", created="2026-01-01T00:00:00Z")
    new = pod("b", created="2026-01-01T00:00:05Z")
    starting = pod("c", created="2026-01-01T00:00:09Z", ready=False)
    assert target(BackendChooser(), old, new, starting) == "b"


@given(st.permutations(["a", "b", "c"]))
def test_names_decide_within_a_second(order: list[str]) -> None:
    assert target(BackendChooser(), *(pod(name) for name in order)) == "c"


def test_the_newer_image_wins_over_the_younger_pod() -> None:
    """Replicas that are restarted in place one by one: never back to older content."""
    chooser = BackendChooser()
    a = pod("a", created="2026-01-01T00:00:00Z")
    b = pod("b", created="2026-01-01T00:00:05Z")
    assert target(chooser, a, b) == "b"
    assert target(chooser, pod("a", image="app:2"), b) == "a"
    assert target(chooser, pod("a", image="app:2", container="c2"), b) == "a"


def test_an_image_that_comes_back_is_new_again() -> None:
    chooser = BackendChooser()
    assert target(chooser, pod("a", image="app:1")) == "a"
    assert target(chooser, pod("b", image="app:2")) == "b"
    assert target(chooser, pod("b", image="app:2"), pod("a", image="app:1")) == "a"


def test_a_restart_in_place_is_told_twice_and_keeps_the_pod() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a")], 0.0)
    patched = chooser.look([pod("a", image="app:2")], 1.0)
    assert seen(patched) == ({"uid-a"}, set())
    again = chooser.look([pod("a", image="app:2")], 1.1)
    assert seen(again) == (set(), set())
    running = chooser.look([pod("a", image="app:2", container="c2", ready=False)], 1.5)
    assert seen(running) == (set(), {"uid-a"})
    assert running.target is not None


def test_a_process_that_starts_anew_is_told_twice_and_keeps_the_pod() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a")], 0.0)
    for n in (1, 2, 3):
        asked = chooser.look([pod("a", starts=(n, n - 1), ready=False)], float(n))
        assert seen(asked) == ({"uid-a"}, set())
        assert asked.target is not None
        assert seen(chooser.look([pod("a", starts=(n, n - 1))], n + 0.1)) == (set(), set())
        assert seen(chooser.look([pod("a", starts=(n, n))], n + 0.2)) == (set(), {"uid-a"})


def test_a_process_that_is_asked_to_start_again_before_it_serves_is_going_again() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a")], 0.0)
    assert seen(chooser.look([pod("a", starts=(1, 0))], 1.0)) == ({"uid-a"}, set())
    assert seen(chooser.look([pod("a", starts=(2, 0))], 2.0)) == ({"uid-a"}, set())
    # The first start was told late: the process is about to be killed.
    assert seen(chooser.look([pod("a", starts=(2, 1))], 2.1)) == (set(), set())
    assert seen(chooser.look([pod("a", starts=(2, 2))], 2.2)) == (set(), {"uid-a"})


def test_a_container_that_ends_while_its_process_starts_anew_is_replaced_with_the_next_one() -> (
    None
):
    chooser = BackendChooser()
    chooser.look([pod("a")], 0.0)
    chooser.look([pod("a", starts=(1, 0))], 1.0)
    assert seen(chooser.look([pod("a", starts=(1, 1), container="c2")], 2.0)) == (
        set(),
        {"uid-a"},
    )


def test_of_two_replicas_the_one_whose_process_started_anew_is_chosen() -> None:
    chooser = BackendChooser()
    old, young = pod("a"), pod("b", created="2026-01-01T00:00:05Z")
    assert target(chooser, old, young) == "b"
    assert target(chooser, pod("a", starts=(1, 1)), young) == "a"
    assert target(chooser, pod("a", starts=(1, 1)), pod("b", starts=(1, 0))) == "b"


def test_a_container_told_late_is_not_the_one_that_the_pod_asks_for_by_now() -> None:
    one, two, three = (f"app@sha256:{n}" for n in (1, 2, 3))
    chooser = BackendChooser()
    chooser.look([pod("a", image=one, runs=one)], 0.0)
    assert seen(chooser.look([pod("a", image=two, runs=one)], 1.0)) == ({"uid-a"}, set())
    assert seen(chooser.look([pod("a", image=three, runs=one)], 2.0)) == ({"uid-a"}, set())
    late = pod("a", image=three, runs=two, container="c2")
    assert seen(chooser.look([late], 2.1)) == (set(), set())
    there = pod("a", image=three, runs=three, container="c3")
    assert seen(chooser.look([there], 2.5)) == (set(), {"uid-a"})


def test_the_next_image_and_the_container_before_it_told_at_once() -> None:
    one, two, three = (f"app@sha256:{n}" for n in (1, 2, 3))
    chooser = BackendChooser()
    chooser.look([pod("a", image=one, runs=one)], 0.0)
    chooser.look([pod("a", image=two, runs=one)], 1.0)
    both = pod("a", image=three, runs=two, container="c2")
    assert seen(chooser.look([both], 2.0)) == ({"uid-a"}, set())


def test_a_restarted_pod_is_not_waited_for_for_ever() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a")], 0.0)
    restarted = pod("a", image="app:2", container="c2", ready=False)
    assert target(chooser, restarted, now=1.0) == "a"
    assert target(chooser, restarted, now=20.0) == "a"
    assert target(chooser, restarted, now=40.0) == ""


def test_others_are_asked_sooner_when_a_restarted_pod_does_not_come() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a"), pod("b")], 0.0)
    restarted = pod("b", image="app:2", container="c2", ready=False)
    assert target(chooser, pod("a"), restarted, now=1.0) == "b"
    assert target(chooser, pod("a"), restarted, now=5.0) == "a"


def test_a_container_in_back_off_is_not_waited_for() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a")], 0.0)
    broken = pod("a", container="c2", ready=False, reason="CrashLoopBackOff")
    assert target(chooser, broken, now=1.0) == ""


def test_a_pod_that_starts_for_the_first_time_is_not_a_restart() -> None:
    chooser = BackendChooser()
    chooser.look([pod("a", container="", ready=False)], 0.0)
    sight = chooser.look([pod("a", ready=False)], 1.0)
    assert sight.target is None
    assert seen(sight) == (set(), set())


def test_the_pod_that_is_coming_is_told_before_it_is_ready() -> None:
    old = pod("a")
    new = pod("b", image="app:2", ready=False, created="2026-01-01T00:00:05Z")
    sight = BackendChooser().look([old, new], 0.0)
    assert [p.name for p in sight.likely] == ["a", "b"]
