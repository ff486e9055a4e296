"""Plans: which steps, in which order, and when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.model import ContextEntry, Snapshot
from devloop.sync.changes import ByPlaces, ByRules, ContainerState, SyncPlace, difference
from devloop.sync.rules import PathRule, SyncTarget

if TYPE_CHECKING:
    from devloop.sync.changes import Placing, SyncPlan

FOLDER = ContextEntry("dir", 0o755)


def file(content: str = "x", mode: int = 0o644) -> ContextEntry:
    return ContextEntry("file", mode, len(content), content)


def state(placing: Placing, **entries: ContextEntry) -> ContainerState:
    found = {path.replace("__", "/"): entry for path, entry in entries.items()}
    return ContainerState(snapshot=Snapshot(entries=found, digest="", stamp=""), placing=placing)


def steps(plan: SyncPlan) -> list[str]:
    assert plan.blocker is None
    return [f"{'+' if c.placed else '-'}{c.target.absolute}" for c in plan.changes]


ALL = ByRules([PathRule(src="**", dest="/app")])


def test_parents_before_children_and_removals_last() -> None:
    old = state(ALL, a=FOLDER, a__x=file(), a__y=FOLDER, a__y__z=file(), z=file())
    new = state(ALL, b=FOLDER, b__x=file(), z=file("new"))
    assert steps(difference(old, new)) == ["+/app/b", "+/app/b/x", "+/app/z", "-/app/a"]


def test_types() -> None:
    old = state(ALL, a=FOLDER, a__x=file(), b=file())
    new = state(ALL, a=file(), b=FOLDER, b__x=file())
    assert steps(difference(old, new)) == ["+/app/a", "+/app/b", "+/app/b/x"]
    assert steps(difference(new, old)) == ["+/app/a", "+/app/a/x", "+/app/b"]


def test_a_mode_is_a_change_and_nothing_is_none() -> None:
    old, new = state(ALL, a=file()), state(ALL, a=file(mode=0o755))
    assert steps(difference(old, new)) == ["+/app/a"]
    assert difference(old, old).changes == ()


def test_a_directory_that_another_copy_fills_stays() -> None:
    """COPY . /work/, COPY lib /work/app/: without an `app` the second makes /work/app itself."""
    lib = (SyncPlace(path="/work/lib/x", mode=0o644), SyncPlace(path="/work/app/x", mode=0o644))
    places = {
        "app": (SyncPlace(path="/work/app", mode=0o755),),
        "app/y": (SyncPlace(path="/work/app/y", mode=0o644),),
        "lib": (SyncPlace(path="/work/lib", mode=0o755),),
        "lib/x": lib,
    }
    by = ByPlaces(places)
    whole = state(by, app=FOLDER, app__y=file(), lib=FOLDER, lib__x=file())
    assert difference(whole, state(by, lib=FOLDER, lib__x=file())).blocker == (
        "/work/app is to go and another COPY puts something into it"
    )
    assert steps(difference(whole, state(by, app=FOLDER, lib=FOLDER, lib__x=file()))) == [
        "-/work/app/y"
    ]


def test_what_a_copy_brings_may_not_all_go() -> None:
    """COPY app* /work/sub/, which makes no /work/sub where no `app` is."""
    by = ByPlaces(
        {name: (SyncPlace(path=f"/work/sub/{name}", mode=0o644),) for name in ("app.py", "apps")}
        | {"a": (SyncPlace(path="/srv/a", mode=0o644),)}
    )
    whole = state(by, **{"app.py": file(), "apps": file(), "a": file()})
    one = state(by, apps=file(), a=file())
    assert steps(difference(whole, one)) == ["-/work/sub/app.py"]
    assert difference(one, state(by, a=file())).blocker == (
        "nothing is copied into /work/sub any more"
    )


def test_what_no_rule_covers() -> None:
    rules = ByRules([PathRule(src="t/**", dest="/app/t")])
    old = state(rules, t=FOLDER, t__a=file(), app=file())
    assert difference(old, state(rules, t=FOLDER, t__a=file())).blocker == (
        "app matches no sync rule"
    )
    assert difference(old, state(rules, app=file())).blocker == (
        "the directory t is gone as a whole"
    )
    became = state(rules, t=file(), app=file())
    assert difference(old, became).blocker == "t matches no sync rule"


def test_restart() -> None:
    rules = ByRules(
        [PathRule(src="**", dest="/app"), PathRule(src="*.toml", dest="/app", restart=True)]
    )
    old = state(rules, a=file())
    entries = {"a": file(), "b.toml": file()}
    new = ContainerState(snapshot=Snapshot(entries=entries, digest="", stamp=""), placing=rules)
    plan = difference(old, new)
    assert plan.blocker is None
    assert plan.restart
    assert "b.toml has `restart: true`" in plan.needs_restart
    assert not difference(old, state(rules, a=file("new"))).restart


def test_what_is_copied_by_the_dockerfile_needs_a_new_process() -> None:
    places = {"a": (SyncPlace(path="/app/a", mode=0o644),)}
    for may_stay in (False, True):
        by = ByPlaces(places, may_stay=may_stay)
        plan = difference(state(by, a=file()), state(by, a=file("new")))
        assert plan.restart
        assert bool(plan.needs_restart) is not may_stay


def test_a_new_file_whose_owner_only_the_image_knows_is_not_brought() -> None:
    places = {name: (SyncPlace(path=f"/app/{name}", mode=0o644, owner=""),) for name in "ab"}
    by = ByPlaces(places)
    old = state(by, a=file())
    assert steps(difference(old, state(by, a=file("new")))) == ["+/app/a"]
    assert "b is new" in str(difference(old, state(by, a=file(), b=file())).blocker)


def test_the_later_rule_counts_and_gives_way_again() -> None:
    rules = ByRules([PathRule(src="a/**", dest="/app"), PathRule(src="b/**", dest="/app")])
    both = state(rules, a=FOLDER, b=FOLDER, a__x=file("a"), b__x=file("b"))
    first = state(rules, a=FOLDER, b=FOLDER, a__x=file("a"))
    plan = difference(both, first)
    assert steps(plan) == ["+/app/x"]
    assert plan.changes[0].placed is not None
    assert plan.changes[0].placed.source == "a/x"
    assert steps(difference(both, state(rules, a=FOLDER, b=FOLDER, b__x=file("b")))) == []


def test_what_is_doubtful_is_brought_again() -> None:
    same = state(ALL, a=file(), b=file())
    doubtful = {"/app/a": SyncTarget("/app", "a"), "/app/never": SyncTarget("/app", "never")}
    assert steps(difference(same, same, doubtful)) == ["+/app/a", "-/app/never"]


def test_places() -> None:
    places = {
        "src": (SyncPlace(path="/srv/app", mode=0o755),),
        "src/a": (SyncPlace(path="/srv/app/a", mode=0o600, owner="7:8"),),
        "one": (SyncPlace(path="/etc/two", mode=0o644), SyncPlace(path="/opt/one", mode=0o644)),
    }
    by = ByPlaces(places)
    old = state(by, src=FOLDER, src__a=file(), one=file())
    plan = difference(old, state(by, src=FOLDER, src__a=file("new"), one=file("new")))
    assert steps(plan) == ["+/etc/two", "+/opt/one", "+/srv/app/a"]
    assert [c.target for c in plan.changes] == [
        SyncTarget("/etc", "two"),
        SyncTarget("/opt", "one"),
        SyncTarget("/srv/app", "a"),
    ]
    assert plan.changes[2].placed is not None
    assert plan.changes[2].placed.owner == "7:8"
    assert plan.changes[2].placed.entry.mode == 0o600
    unknown = state(by, src=FOLDER, src__a=file(), one=file(), more=file())
    assert difference(old, unknown).blocker == (
        "more is not known to be copied into the image as it is"
    )
    without = state(ByPlaces({k: v for k, v in places.items() if k != "src"}), one=file())
    assert difference(old, without).blocker == "the directory src is gone as a whole"


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("file", "/app/a is to go and the image has a file below it"),
        (None, "/app/a is to go and what is below it is not known"),
        ("", None),
    ],
)
def test_what_goes_may_lay_open_what_the_base_image_has(there: str | None, said: str) -> None:
    places = {name: (SyncPlace(path=f"/app/{name}", mode=0o644),) for name in ("a", "b")}
    by = ByPlaces(places, below=lambda _: there)
    assert difference(state(by, a=file(), b=file()), state(by, b=file())).blocker == said


def test_what_is_new_may_not_be_what_the_base_image_has_another_thing_for() -> None:
    places = {"a": (SyncPlace(path="/app/a", mode=0o644),)}
    for there, blocked in (("dir", True), ("symlink", False), ("file", False), (None, False)):
        by = ByPlaces(places, below={"/app/a": there}.get)
        assert (difference(state(by), state(by, a=file())).blocker is not None) is blocked
        assert (difference(state(by, a=FOLDER), state(by, a=file())).blocker is not None) is blocked
    by = ByPlaces(places, below=lambda _: "file")
    assert (
        difference(state(by), state(by, a=FOLDER)).blocker == "/app/a is a file in the base image"
    )


def test_a_path_that_goes_somewhere_else_now() -> None:
    old = state(ByPlaces({"a": (SyncPlace(path="/app/b", mode=0o644),)}), a=file())
    new = state(ByPlaces({"a": (SyncPlace(path="/app/a", mode=0o644),)}), a=file())
    assert steps(difference(old, new)) == ["+/app/a", "-/app/b"]


def test_an_owner_that_is_known_by_now_is_no_change() -> None:
    def at(owner: str) -> ByPlaces:
        return ByPlaces(
            {name: (SyncPlace(path=f"/app/{name}", mode=0o644, owner=owner),) for name in "ab"}
        )

    old = state(at(""), a=file(), b=file())
    plan = difference(old, state(at("7:8"), a=file("new"), b=file()))
    assert steps(plan) == ["+/app/a"]
    assert plan.changes[0].placed is not None
    assert plan.changes[0].placed.owner == "7:8"
    assert steps(difference(state(at("1:2"), a=file()), state(at("7:8"), a=file()))) == ["+/app/a"]


def test_what_the_build_does_not_read_is_no_change_until_it_has_a_place() -> None:
    here = (SyncPlace(path="/app/a", mode=0o644),)
    unread = ByPlaces({"a": here, "README": ()})
    old = state(unread, a=file(), README=file())
    plan = difference(old, state(unread, a=file(), README=file("new")))
    assert (steps(plan), plan.restart, plan.needs_restart) == ([], False, "")
    assert steps(difference(old, state(unread, a=file()))) == []
    plan = difference(old, state(unread, a=file("new"), README=file("new")))
    assert (steps(plan), plan.restart) == (["+/app/a"], True)
    read = ByPlaces({"a": here, "README": (SyncPlace(path="/app/README", mode=0o644),)})
    assert steps(difference(old, state(read, a=file(), README=file()))) == ["+/app/README"]
    assert difference(old, state(ByPlaces({"a": here}), a=file(), README=file())).blocker
