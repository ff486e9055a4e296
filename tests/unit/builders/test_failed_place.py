"""Where a test that failed says that something is wrong."""

from __future__ import annotations

import pytest

from devloop.builders.failed_place import failed_place
from devloop.errors import Location

FILES = {"tests/test_a.py", "shop/cart.py", "/app/src/a.test.js", "cart_test.go", "src/lib.rs"}
PYTEST = """
    def test_total():
>       assert total([1]) == 2
tests/test_a.py:5:
_ _ _ _ _
shop/cart.py:3: ZeroDivisionError
=========== short test summary info
FAILED tests/test_a.py::test_total - ZeroDivisionError
"""
JEST = """
  ● adds
      at expectation (/app/node_modules/x/y.js:1:1)
      at Object.<anonymous> (/app/src/a.test.js:3:15)
"""
GO = "--- FAIL: TestTotal (0.00s)\n    cart_test.go:12: got 1\nFAIL"
RUST = "thread 'it_adds' panicked at src/lib.rs:9:5:\nassertion failed"


@pytest.mark.parametrize(
    ("printed", "place"),
    [
        (PYTEST, Location("shop/cart.py", 3)),
        (JEST, Location("/app/src/a.test.js", 3, 15)),
        (GO, Location("cart_test.go", 12)),
        (RUST, Location("src/lib.rs", 9, 5)),
        ("\x1b[31mshop/cart.py:3:1: F401 unused\x1b[0m", Location("shop/cart.py", 3, 1)),
        ("listening on 0.0.0.0:8080, see http://x.y:80/", None),
        ("other.py:3: Error", None),
        ("", None),
    ],
)
def test_the_place_is_the_projects_that_is_said_to_be_wrong(
    printed: str, place: Location | None
) -> None:
    known = lambda paths: {path: path for path in paths if path in FILES}  # noqa: E731
    assert failed_place(printed.splitlines(), known) == place
