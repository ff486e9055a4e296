"""Profiles: what they change, when they count, and what is said of mistakes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.config.effective import as_yaml, effective
from devloop.errors import Location

if TYPE_CHECKING:
    from tests.unit.config.conftest import Directory


FILE = """\
version: 1
services:
  web:
    build: {context: ., args: {A: one, B: two}}
    ports: [8080, 9090]
    deploy: {timeout: 10s}
  extra: {build: extra}
profiles:
  ci:
    services:
      web:
        build: {args: {A: ci}}
        ports: [7070]
        deploy:
      extra:
      tests: {build: {context: tests}}
  slow:
    services: {web: {deploy: {timeout: 5m}, build: {args: {A: slow}}}}
"""


def test_mappings_are_merged_by_key_and_the_rest_is_replaced_or_taken_away(
    directory: Directory,
) -> None:
    project = directory.load(FILE, profiles=["ci"]).project
    web = project.services["web"]
    assert list(project.services) == ["web", "tests"]
    assert web.build.args == {"A": "ci", "B": "two"}
    assert [port.local for port in web.ports] == [7070]
    assert web.deploy.timeout == 120


def test_without_a_profile_the_file_is_as_it_stands(directory: Directory) -> None:
    loaded = directory.load(FILE)
    assert list(loaded.project.services) == ["web", "extra"]
    assert loaded.profiles == ()


@pytest.mark.parametrize("named", [["ci", "slow"], ["ci,slow"], ["ci, slow", "slow"]])
def test_the_last_of_several_wins_and_set_wins_over_all(
    directory: Directory, named: list[str]
) -> None:
    loaded = directory.load(FILE, profiles=named, sets=["services.web.build.args.B=set"])
    web = loaded.project.services["web"]
    assert web.build.args == {"A": "slow", "B": "set"}
    assert web.deploy.timeout == 300


def test_the_flag_wins_over_the_variable(directory: Directory) -> None:
    directory.env["DEVLOOP_PROFILE"] = "slow"
    assert [str(p) for p in directory.load(FILE).profiles] == ["slow (DEVLOOP_PROFILE)"]
    loaded = directory.load(FILE, profiles=["ci"])
    assert [str(p) for p in loaded.profiles] == ["ci (--profile)"]


def test_a_short_form_is_merged_as_what_it_is_short_for(directory: Directory) -> None:
    text = "version: 1\nservices: {web: {build: {context: a, target: t}}}\n"
    loaded = directory.load(
        f"{text}profiles: {{p: {{services: {{web: {{build: b}}}}}}}}", profiles=["p"]
    )
    build = loaded.project.services["web"].build
    assert (build.context, build.target) == (directory.path / "b", "t")


def test_an_argument_without_a_value_is_the_environments_also_in_a_profile(
    directory: Directory,
) -> None:
    text = FILE.replace("{A: ci}", "{A: }")
    directory.env["A"] = "from outside"
    args = directory.load(text, profiles=["ci"]).project.services["web"].build.args
    assert args == {"A": "from outside", "B": "two"}


def activated(activate: str) -> str:
    head = "version: 1\nservices: {web: {build: .}}\n"
    return f"{head}profiles: {{p: {{activate: {activate}, name: changed}}}}\n"


@pytest.mark.parametrize(
    ("activate", "why"),
    [
        ("[{env: CI=true}]", "variable CI"),
        ("[{env: CI}]", "variable CI"),
        ("[{env: 'CI=t*'}]", "variable CI"),
        ("[{env: 'CI=!false'}]", "variable CI"),
        ("[{env: 'NOT_SET=!x'}]", "variable NOT_SET"),
        ("[{env: NOT_SET=}]", "variable NOT_SET"),
        ("[{env: NOT_SET}, {env: CI}]", "variable CI"),
        ("[{context: 'kind-*'}]", "context kind-dev"),
        ("[{context: '!prod-*'}]", "context kind-dev"),
        ("[{command: dev}]", "command dev"),
        ("[{command: [run, dev], env: CI}]", "command dev, variable CI"),
        ("[{env: CI=false}]", ""),
        ("[{env: CI=}]", ""),
        ("[{env: 'NOT_SET=*'}]", ""),
        ("[{env: 'CI=!'}, {env: 'NOT_SET=!'}]", "variable CI"),
        ("[{context: kind}]", ""),
        ("[{command: run}]", ""),
        ("[{command: dev, env: NOT_SET}]", ""),
        ("[]", ""),
    ],
)
def test_a_profile_is_active_by_itself(directory: Directory, activate: str, why: str) -> None:
    directory.env["CI"] = "true"
    around: dict[str, Any] = {"command": "dev", "current_context": lambda: "kind-dev"}
    loaded = directory.load(activated(activate), **around)
    assert [each.why for each in loaded.profiles] == ([why] if why else [])
    assert loaded.project.name == ("changed" if why else "shop")
    assert directory.load(activated(activate), profiles=["-p"], **around).profiles == ()


def test_the_context_is_the_one_that_is_used(directory: Directory) -> None:
    def refused() -> str:
        raise AssertionError

    text = activated("[{context: prod}]")
    loaded = directory.load(text, context="prod", current_context=refused)
    assert [each.name for each in loaded.profiles] == ["p"]
    directory.load(FILE, current_context=refused)


def test_a_profile_that_does_not_exist_is_named_with_the_nearest(directory: Directory) -> None:
    found = directory.error(FILE, profiles=["slwo"])
    assert found.code == "config/unknown-profile"
    assert (found.location, found.suggestions) == (Location("--profile"), ("did you mean slow?",))
    assert found.cause == "profiles: ci, slow"
    directory.env["DEVLOOP_PROFILE"] = "ci"
    found = directory.error("version: 1\nservices: {web: {build: .}}\n")
    assert (found.location, found.cause) == (Location("DEVLOOP_PROFILE"), "it has none at all")


@pytest.mark.parametrize("profiles", [[], ["p"]], ids=["unused", "used"])
@pytest.mark.parametrize(
    ("profile", "code", "column", "hint"),
    [
        ("services: {wbe: }", "config/value", 19, "did you mean `web`?"),
        ("services: {web: {buidl: x}}", "config/unknown-key", 25, "did you mean `build`?"),
        ("services: {web: {ports: [1, 1]}}", "config/value", 36, '"2:1"'),
        ("services: {new: {image: a}}", "config/value", 19, "add `build: .`"),
        ("service: {}", "config/unknown-key", 8, "did you mean `services`?"),
        ("nothing: ", "config/unknown-key", 8, ""),
        ("version: 1", "config/value", 8, "remove it"),
        ("activate: [{envs: A}]", "config/unknown-key", 20, "did you mean `env`?"),
        ("activate: [{}]", "config/value", 19, "{env: CI=true}"),
        ("activate: [{command: def}]", "config/value", 29, "did you mean `dev`?"),
    ],
)
def test_a_mistake_is_named_at_its_place_used_or_not(
    directory: Directory, profiles: list[str], profile: str, code: str, column: int, hint: str
) -> None:
    text = f"version: 1\nservices: {{web: {{build: .}}}}\nprofiles:\n  p: {{ {profile} }}\n"
    (found, *more) = directory.errors(text, profiles=profiles)
    assert (found.code, found.location) == (code, Location("devloop.yaml", 4, column))
    assert hint in "".join(found.suggestions)
    assert more == []


def test_what_is_no_profile_is_refused(directory: Directory) -> None:
    text = "version: 1\nservices: {web: {build: .}}\n"
    assert directory.error(f"{text}profiles: [ci]").location == Location("devloop.yaml", 3, 11)
    assert directory.error(f"{text}profiles: {{ci: }}").location == Location("devloop.yaml", 3, 12)


def test_a_variable_of_an_unused_profile_need_not_be_set(directory: Directory) -> None:
    text = FILE.replace("timeout: 5m", "timeout: '${T:?needed}'")
    directory.load(text)
    assert directory.error(text, profiles=["slow"]).code == "config/variable"


def test_what_is_wrong_in_the_file_is_said_once(directory: Directory) -> None:
    assert len(directory.errors(FILE.replace("8080, 9090", "0"))) == 1


def test_each_value_says_which_profile_it_is_from(directory: Directory) -> None:
    loaded = directory.load(FILE, profiles=["ci"])
    text = as_yaml(effective(loaded, {}, {}), sources=True)
    source = {line.split(":")[0].strip(): line.partition("# ")[2] for line in text.split("\n")}
    assert source["A"] == "devloop.yaml:12:24, profile ci"
    assert source["B"] == "devloop.yaml:4:40"
    assert source["ports"] == "devloop.yaml:13:9, profile ci"
    assert list(directory.load(text).project.services) == list(loaded.project.services)


def test_what_stands_alone_for_a_list_is_merged_and_set_like_a_mapping(
    directory: Directory,
) -> None:
    text = """\
version: 1
services: {web: {build: ., deploy: {helm: {chart: ./a, values: v.yaml, set: {x: "1"}}}}}
profiles:
  ci: {services: {web: {deploy: {helm: {set: {y: "2"}}}}}}
  two: {services: {web: {deploy: {helm: [{chart: ./b}, {chart: ./c}]}}}}
"""
    sets = ["services.web.deploy.helm.version=3.x"]
    (chart,) = directory.load(text, profiles=["ci"], sets=sets).project.services["web"].deploy.helm
    assert (chart.chart, chart.set, chart.version) == ("./a", {"x": "1", "y": "2"}, "3.x")
    charts = directory.load(text, profiles=["two"]).project.services["web"].deploy.helm
    assert [each.chart for each in charts] == ["./b", "./c"]
