"""Which place of the user's source a failed RUN names."""

from __future__ import annotations

import pytest

from devloop.builders.compiler_errors import source_place

NAMES = ("Dockerfile", "main.go", "cmd/api/api_test.go", "src/main.rs", "web/src/a.ts", "lib/a.c",
         "one/same.c", "two/same.c")  # fmt: skip

CASES = {
    "go": (["# example.com/app", "./main.go:13:6: undefined: log.Prinln"], ("main.go", 13, 6)),
    "go test": (
        ["--- FAIL: TestX (0.00s)", "    api_test.go:12: got 1, want 2", "FAIL"],
        ("cmd/api/api_test.go", 12, None),
    ),
    "gcc warns before": (
        [
            "a.c: In function 'main':",
            "a.c:2:5: warning: unused variable 'x'",
            "a.c:3:9: error: expected ';'",
        ],
        ("lib/a.c", 3, 9),
    ),
    "rustc warns before": (
        [
            "warning: unused import: `x`",
            " --> src/main.rs:1:5",
            "error[E0425]: cannot find value `y`",
            " --> src/main.rs:3:5",
        ],
        ("src/main.rs", 3, 5),
    ),
    "tsc": (["src/a.ts(3,5): error TS2304: Cannot find name 'x'."], ("web/src/a.ts", 3, 5)),
    "tsc, pretty": (["src/a.ts:3:5 - error TS2304: Cannot find name 'x'."], ("web/src/a.ts", 3, 5)),
    "a library": (["/go/pkg/mod/x/main.go:3:5: undefined: y", "../x/main.go:1:1: z"], None),
    "another file": (["other.go:3:5: undefined: y"], None),
    "one of two": (["same.c:3:5: error: x"], None),
    "a clock": (["main.go started at 10:11:12: all is well"], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_place_of_the_error(name: str) -> None:
    lines, wanted = CASES[name]
    assert source_place(lines, NAMES) == wanted
