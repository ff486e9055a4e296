"""Stack traces as runtimes write them, and which place of the project they are about.

Those of CPython 3.11, Node 20, Go 1.26, Java 17 and rustc 1.95 are what these printed.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.cluster.rollout.stack_traces import crash_location, frames
from devloop.errors import Location

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PYTHON = """\
Traceback (most recent call last):
  File "/app/app.py", line 6, in <module>
    load("x")
  File "/app/app.py", line 2, in load
    return json.loads(text)
           ^^^^^^^^^^^^^^^^
  File "/usr/local/lib/python3.11/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "<frozen importlib._bootstrap>", line 1204, in _gcd_import
json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)
"""
PYTHON_CHAINED = """\
Traceback (most recent call last):
  File "/app/app.py", line 2, in load
    return int(text)
ValueError: invalid literal for int() with base 10: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/app.py", line 8, in <module>
    raise RuntimeError("no port") from error
RuntimeError: no port
"""
PYTHON_SYNTAX = """\
Traceback (most recent call last):
  File "/app/app.py", line 1, in <module>
    import bad
  File "/app/bad.py", line 3
    def f(:
          ^
SyntaxError: invalid syntax
"""
PYTHON_GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/app/app.py", line 8, in <module>
  |     raise ExceptionGroup("all", errors)
  | ExceptionGroup: all (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/app.py", line 5, in <module>
    |     one()
    |   File "/app/app.py", line 2, in one
    |     raise ValueError("a")
    | ValueError: a
    +------------------------------------
"""
PYTHON_COLOURED = """\
Traceback (most recent call last):
  File \x1b[35m"/app/app.py"\x1b[0m, line \x1b[35m3\x1b[0m, in \x1b[35m<module>\x1b[0m
\x1b[1;35mRuntimeError\x1b[0m: \x1b[35mx\x1b[0m
"""
NODE = """\
listening
/srv/server.js:2
  throw new Error("boom");
  ^

Error: boom
    at f (/srv/server.js:2:9)
    at Array.forEach (<anonymous>)
    at Object.<anonymous> (/srv/server.js:5:1)
    at Module._compile (node:internal/modules/cjs/loader:1521:14)
    at node:internal/main/run_main_module:28:49

Node.js v20.20.2
"""
NODE_SYNTAX = """\
/srv/lib.js:2
const y = = 2;
          ^

SyntaxError: Unexpected token '='
    at wrapSafe (node:internal/modules/cjs/loader:1464:18)
    at require (node:internal/modules/helpers:182:18)
    at Object.<anonymous> (/srv/main.js:1:1)

Node.js v20.20.2
"""
NODE_MODULE = """\
<anonymous_script>:1
{

SyntaxError: Expected property name or '}' in JSON at position 1
    at JSON.parse (<anonymous>)
    at g (file:///srv/m.mjs:3:8)
    at async file:///srv/m.mjs:5:1
"""
NODE_TEXT = """\

/srv/t.js:1
throw "text";
^
text
(Use `node --trace-uncaught ...` to show where the exception was thrown)
"""
NODE_LOGGED = """\
TypeError: first
    at a (/srv/first.js:1:1)
TypeError: second
    at Array.map (<anonymous>)
    at b (/srv/second.js:2:2)
    at Array.forEach (<anonymous>)
    at c (/srv/third.js:3:3)
"""
NODE_CAUSE = """\
Error: outer
    at Object.<anonymous> (/srv/c.js:9:34)
    ... 4 lines matching cause stack trace ...
    at node:internal/main/run_main_module:28:49 {
  [cause]: TypeError: Cannot read properties of null (reading 'x')
      at Object.<anonymous> (/srv/c.js:1:12)
      at node:internal/main/run_main_module:28:49
}
"""
GO = """\
x
panic: runtime error: index out of range [3] with length 0

goroutine 1 [running]:
main.f(...)
\t/app/main.go:5
main.main()
\t/app/main.go:9 +0x4c
exit status 2
"""
GO_SERVED = """\
2024/05/01 10:00:00 http: panic serving 10.0.0.1:5: boom
goroutine 7 [running]:
net/http.(*conn).serve.func1()
\t/usr/local/go/src/net/http/server.go:1898 +0xbe
panic({0x6b6b20?, 0x7a4ad0?})
\t/usr/local/go/src/runtime/panic.go:770 +0x132
main.handle({0x7a5f60?, 0xc0000d0000?}, 0x0?)
\t/app/web/handle.go:12 +0x25
main.main()
\t/app/main.go:3 +0x1d
"""
GO_DEADLOCK = """\
fatal error: all goroutines are asleep - deadlock!

goroutine 1 [chan receive]:
main.main()
\t/app/dead.go:6 +0x39

goroutine 18 [select (no cases)]:
main.main.func1()
\t/app/dead.go:5 +0xf
created by main.main in goroutine 1
\t/app/dead.go:5 +0x2d
"""
GO_COMPILE = """\
# command-line-arguments
./bad.go:4:2: undefined: undefined
./bad.go:9:2: undefined: undefined
"""
RUBY = """\
/app/app.rb:3:in 'Object#f': boom (RuntimeError)
\tfrom <internal:kernel>:187:in 'loop'
\tfrom /app/app.rb:7:in '<main>'
"""
RUBY_SYNTAX = "app.rb:3: syntax error, unexpected end-of-input (SyntaxError)\n"
PHP = """\
PHP Fatal error:  Uncaught Exception: boom in /app/lib.php:3
Stack trace:
#0 [internal function]: f()
#1 /app/index.php(7): array_map()
#2 {main}
  thrown in /app/lib.php on line 3
"""
PHP_SYNTAX = 'PHP Parse error:  syntax error, unexpected token "}" in /app/index.php on line 3\n'
JAVA = """\
Exception in thread "main" java.lang.IllegalStateException: no port
\tat com.example.Foo.f(Foo.java:6)
\tat java.base/jdk.internal.reflect.NativeMethodAccessorImpl.invoke0(Native Method)
\tat com.example.Foo$Inner.<init>(Foo.java:8)
Caused by: java.lang.NumberFormatException: For input string: "x"
\tat java.base/java.lang.Integer.parseInt(Integer.java:668)
\tat app//com.example.Foo.f(Foo.java:5)
\t... 1 more
"""
DOTNET = """\
Unhandled exception. System.InvalidOperationException: outer
 ---> System.FormatException: The input string 'x' was not in a correct format.
   at System.Number.ThrowFormatException[TChar](ReadOnlySpan`1 value)
   at Program.F() in /src/Program.cs:line 5
   --- End of inner exception stack trace ---
   at Program.Main(String[] args) in /src/Program.cs:line 12
"""
RUST = """\
thread 'main' (30512) panicked at src/main.rs:3:21:
index out of bounds: the len is 0 but the index is 0
"""
RUST_BEFORE = "thread 'main' panicked at 'boom', src/main.rs:3:21\n"


class Project:
    """A project whose files are in a container below these directories, or named like this."""

    def __init__(self, *prefixes: str) -> None:
        self._prefixes = prefixes

    def __call__(self, paths: Sequence[str]) -> Mapping[str, str]:
        return {
            path: path.removeprefix(prefix)
            for path in paths
            for prefix in self._prefixes
            if path.startswith(prefix)
        }


@pytest.mark.parametrize(
    ("log", "prefix", "place"),
    [
        (PYTHON, "/app/", Location("app.py", 2)),
        (PYTHON_CHAINED, "/app/", Location("app.py", 8)),
        (PYTHON_SYNTAX, "/app/", Location("bad.py", 3)),
        (PYTHON_GROUP, "/app/", Location("app.py", 2)),
        (PYTHON_COLOURED, "/app/", Location("app.py", 3)),
        (NODE, "/srv/", Location("server.js", 2, 9)),
        (NODE_SYNTAX, "/srv/", Location("lib.js", 2)),
        (NODE_MODULE, "/srv/", Location("m.mjs", 3, 8)),
        (NODE_TEXT, "/srv/", Location("t.js", 1)),
        (NODE_LOGGED, "/srv/", Location("second.js", 2, 2)),
        (NODE_CAUSE, "/srv/", Location("c.js", 1, 12)),
        (GO, "/app/", Location("main.go", 5)),
        (GO_SERVED, "/app/", Location("web/handle.go", 12)),
        (GO_DEADLOCK, "/app/", Location("dead.go", 6)),
        (GO_COMPILE, "./", Location("bad.go", 4, 2)),
        (RUBY, "/app/", Location("app.rb", 3)),
        (RUBY_SYNTAX, "", Location("app.rb", 3)),
        (PHP, "/app/", Location("lib.php", 3)),
        (PHP_SYNTAX, "/app/", Location("index.php", 3)),
        (JAVA, "com/", Location("example/Foo.java", 5)),
        (DOTNET, "/src/", Location("Program.cs", 5)),
        (RUST, "src/", Location("main.rs", 3, 21)),
        (RUST_BEFORE, "src/", Location("main.rs", 3, 21)),
    ],
)
def test_a_trace_is_about_its_innermost_place_in_the_project(
    log: str, prefix: str, place: Location
) -> None:
    assert crash_location(log.splitlines(), Project(prefix)) == place


def test_the_last_trace_counts_whatever_language_those_before_it_are_in() -> None:
    project = Project("/app/", "/srv/")
    assert crash_location((NODE + PYTHON).splitlines(), project) == Location("app.py", 2)
    assert crash_location((PYTHON + NODE).splitlines(), project) == Location("server.js", 2, 9)
    assert crash_location((GO_SERVED + GO).splitlines(), project) == Location("main.go", 5)


def test_a_trace_outside_of_the_project_gives_way_to_the_one_before() -> None:
    lines = (JAVA.rpartition("\tat app")[0] + "\t... 2 more").splitlines()
    assert crash_location(lines, Project("com/")) == Location("example/Foo.java", 6)


def test_no_place_is_better_than_that_of_an_outer_frame() -> None:
    assert crash_location(NODE.splitlines()[8:], Project("/srv/")) is None
    assert crash_location(GO.splitlines()[6:], Project("/app/")) is None
    assert crash_location(JAVA.splitlines()[2:4], Project("com/")) is None
    # Python's innermost frame is the last one.
    assert crash_location(PYTHON.splitlines()[3:], Project("/app/")) == Location("app.py", 2)


def test_a_log_without_a_trace_has_no_place() -> None:
    for log in ("", "serving v1", "GET /app/app.py:3 200", 'File "x", line 0', PYTHON):
        assert crash_location(log.splitlines(), Project("/nowhere/")) is None


@pytest.mark.parametrize("text", ["def f(:\n", "x = 1\n\nraise ValueError(x)\n"])
def test_what_this_python_prints_is_understood(tmp_path: Path, text: str) -> None:
    program = tmp_path / "app.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    place = crash_location(done.stderr.splitlines(), Project(f"{tmp_path}/"))
    assert place == Location("app.py", text.count("\n"))


PIECES = st.sampled_from(
    ['  File "', '", line ', "    at ", "(", ")", "/a.js", ":", "1", "\u0663", "panic: ", "/a.go",
     " in ", "/a.php", " on line ", "#0 ", "\t", "at a.B.c(B.java:", "Exception: ", "\x1b[3", "m",
     ".rb", "from ", "99999999999", "panicked at ", ".rs"]
)  # fmt: skip
LINES = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join) | st.text()


@given(st.lists(LINES, max_size=12))
def test_no_log_is_too_odd(lines: list[str]) -> None:
    for frame in frames(lines):
        assert frame.path
        assert frame.line > 0
        assert frame.column is None or frame.column > 0
    crash_location(lines, Project("/"))
