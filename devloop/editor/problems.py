"""How line output looks to an editor: the markers of an iteration and the problem lines.

The patterns mean the same to JavaScript, Python and, but for the escapes of `+`, `(` and `|`, to
Vim: no lookaround, no `\\d`, no group without a capture. ui/lines.py is the other side.
"""

from __future__ import annotations

# No group: VS Code takes the first one of a begin pattern for the only file to be cleaned.
BEGIN = "^devloop: begin [#c][0-9a-z]+"
END = "^devloop: end (#[0-9]+|config) (ready|failed|unchanged|cancelled|stopped)( .*)?$"

PROBLEM = r"^(.+):([0-9]+):([0-9]+): (error|warning|info)\[([a-z/-]+)\]: (.*)$"
PROBLEM_GROUPS = {"file": 1, "line": 2, "column": 3, "severity": 4, "code": 5, "message": 6}


def in_directory(path: str) -> str:
    """A line that tells Vim what the paths below are relative to, for `VIM_ERRORFORMAT`."""
    return f"devloop: in <{path}>"


# A bracket comes next. It is not taken, so that the message begins with the code.
_CODE = r"%\%%([%\)%\@=%m"
VIM_ERRORFORMAT = ",".join(
    (
        f"%D{in_directory('%f')}",
        f"%f:%l:%c: %trror{_CODE}",
        f"%f:%l:%c: %tarning{_CODE}",
        f"%f:%l:%c: %tnfo{_CODE}",
        "%-G%.%#",  # all other lines are none
    )
)
