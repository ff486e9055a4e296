"""Our entries in somebody else's file: nothing but them changes, and the file stays JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.editor.jsonc import parse, with_entries
from devloop.errors import DevloopError

ENTRY = {"label": "devloop: dev", "args": ["dev"]}
OTHER = {"label": "devloop: check"}


def merged(text: str, *entries: dict[str, Any]) -> str:
    return with_entries(text, entries or [ENTRY], shown="tasks.json", within="tasks")


def value(text: str) -> Any:
    node = parse(text, "tasks.json")
    return node and node.value


@pytest.mark.parametrize("text", ["", " \n", "// mine\n", "/* mine\n*/ // too", "\ufeff"])
def test_a_file_without_a_value_gets_one_below_its_comments(text: str) -> None:
    got = with_entries(text, [ENTRY], shown="", within="tasks", head={"version": "2.0.0"})
    assert value(got) == {"version": "2.0.0", "tasks": [ENTRY]}
    assert got.startswith(text.strip("\ufeff \n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "tasks": [\n    @\n  ]\n}'),
        ('{\n\t"a": 1\n}', '{\n\t"a": 1,\n\t"tasks": [\n\t\t@\n\t]\n}'),
        ('{\n  "a": 1, // one\n}', '{\n  "a": 1, // one\n  "tasks": [\n    @\n  ],\n}'),
        ('{"tasks": []}', '{"tasks": [\n  @\n]}'),
        ('{"tasks": [ /* none */ ]}', '{"tasks": [ /* none */\n  @\n]}'),
        ('{"tasks": [ // none\n]}', '{"tasks": [ // none\n  @\n]}'),
        ('{"tasks": [{}]}', '{"tasks": [{},\n  @\n]}'),
        ('{"tasks": [{} ]}', '{"tasks": [{},\n  @\n]}'),
        ('{"tasks": [{}/*]*/]}', '{"tasks": [{},\n  @\n/*]*/]}'),
        (
            '{\n    "tasks": [\n        {} // last\n        // {}\n    ]\n}',
            '{\n    "tasks": [\n        {}, // last\n        @\n        // {}\n    ]\n}',
        ),
        (
            '{\n    "tasks": [\n        {} /* a */, // last\n    ],\n}',
            '{\n    "tasks": [\n        {} /* a */, // last\n        @,\n    ],\n}',
        ),
        ('{\r\n  "tasks": [\r\n  ]\r\n}\r\n', '{\r\n  "tasks": [\r\n    @\r\n  ]\r\n}\r\n'),
    ],
)
def test_a_new_entry_comes_at_the_end_in_the_files_manner(before: str, after: str) -> None:
    entry = {"label": "x"}
    got = merged(before, entry)
    line = after.partition("@")[0].rpartition("\n")[2]
    unit = "\t" if "\t" in before else "    " if '\n    "' in before else "  "
    end = "\r\n" if "\r" in before else "\n"
    assert got == after.replace("@", f'{{{end}{line}{unit}"label": "x"{end}{line}}}')
    assert entry in value(got)["tasks"]


def test_an_entry_of_ours_is_replaced_where_it_stands() -> None:
    before = (
        '{ "tasks": [ // all\n'
        '      { "label": "mine", /* stays */ "devloop: dev": 1 },\n'
        '      { "args": ["old"], "label": "devloop: dev" }, // ours\n'
        '      { "label": "last" }\n'
        "] }\n"
    )
    assert merged(before) == before.replace(
        '{ "args": ["old"], "label": "devloop: dev" }',
        '{\n            "label": "devloop: dev",\n            "args": ["dev"]\n      }',
    )


def test_an_entry_that_says_the_same_keeps_its_looks() -> None:
    before = '{"tasks": [{"args": [ "dev", ], /* why */ "label": "devloop: dev"}, {}]}'
    assert merged(before) == before
    assert value(merged(before, ENTRY, OTHER))["tasks"] == [ENTRY, {}, OTHER]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('{"tasks": [}', "1:12", "a value is expected here"),
        ('{\n  "tasks": {}\n}', "2:12", "an array is expected here"),
        ("[]", "1:1", "an object is expected here"),
        ('{"a": 1 "b": 2}', "1:9", "a comma or } is expected here"),
        ('{"a" 1}', "1:6", "a colon is expected here"),
        ("{a: 1}", "1:2", "a string is expected here"),
        ('{"a: 1}', "1:2", "this string does not end"),
        ('{"\\x": 1}', "1:2", "this is no string: Invalid \\escape"),
        ("{} {}", "1:4", "nothing more is expected here"),
        ("{,}", "1:2", "a string is expected here"),
        ("{", "1:2", "a string is expected here"),
        ('{"a": 01}', "1:7", "a value is expected here"),
        ('{"a": truely}', "1:7", "a value is expected here"),
        ("{/* }", "1:2", "a string is expected here"),
        ('{"a":' + "[" * 200, "1:106", "nested too deeply"),
        ('{"tasks": [{"label": "a"\n<<<<<<< HEAD', "2:1", "a comma or } is expected here"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(text: str, place: str, message: str) -> None:
    with pytest.raises(DevloopError) as refused:
        merged(text)
    assert str(refused.value.diagnosis.location) == f"tasks.json:{place}"
    assert refused.value.diagnosis.message.startswith(message)
    assert refused.value.exit_status == 2


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TRIVIA = st.sampled_from(["", " ", "\n", "\t", "// c [{]\n", '/* " */', "/***/", "\r\n"])


@st.composite
def jsonc(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A text with comments, odd spaces and trailing commas, and its value."""

    def write(found: Any) -> str:
        before, after = draw(TRIVIA), draw(TRIVIA)
        if isinstance(found, list):
            parts = [write(each) for each in found]
            body = f"[{','.join(parts)}{comma(parts)}{draw(TRIVIA)}]"
        elif isinstance(found, dict):
            parts = [f"{write(key)}:{write(each)}" for key, each in found.items()]
            body = f"{{{','.join(parts)}{comma(parts)}{draw(TRIVIA)}}}"
        else:
            body = json.dumps(found, ensure_ascii=draw(st.booleans()))
        return before + body + after

    def comma(parts: list[str]) -> str:
        return draw(st.sampled_from(["", ","])) if parts else ""

    whole = draw(st.dictionaries(st.text(), JSON, max_size=3))
    if draw(st.booleans()):
        whole["tasks"] = draw(st.lists(JSON | st.just(ENTRY) | st.just(OTHER), max_size=3))
    else:
        whole.pop("tasks", None)
    return write(whole), whole


@given(jsonc())
def test_whatever_the_file_holds_stays_and_a_second_time_changes_nothing(
    made: tuple[str, dict[str, Any]],
) -> None:
    text, whole = made
    assert value(text) == whole
    new = {"label": "devloop: dev", "new": True}
    got = merged(text, new, OTHER)
    changed = value(got)
    tasks, changed_tasks = whole.pop("tasks", []), changed.pop("tasks")
    assert changed == whole
    assert [t for t in changed_tasks if t not in (new, ENTRY, OTHER)] == [
        t for t in tasks if t not in (ENTRY, OTHER)
    ]
    assert new in changed_tasks
    assert OTHER in changed_tasks
    assert merged(got, new, OTHER) == got
    if ENTRY not in tasks:  # comments in one of ours go with it
        assert all(got.count(each) == text.count(each) for each in ("// c [{]", "/***/"))


@given(st.text(alphabet='{}[]",:/*\n truefalsn0.e-\\u') | st.text())
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    try:
        got = merged(text)
    except DevloopError as error:
        assert error.code == "config/parse"  # noqa: PT017 - any text may be refused
    else:
        assert ENTRY in value(got)["tasks"]
