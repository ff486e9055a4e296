"""Signals as containers number them, whatever this computer calls them (signal(7), x86 and ARM)."""

from __future__ import annotations

import re

_NAMES = (
    *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2"),
    *("PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG"),
    *("XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"),
)
_OTHER_NAMES = {"CLD": "CHLD", "IOT": "ABRT", "POLL": "IO"}
_RTMIN, _RTMAX = 34, 64
_REALTIME = re.compile(r"(RTMIN|RTMAX)(?:([+-])(\d{1,2}))?")


def signal_number(text: str) -> int | None:
    """Of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; None for what is no signal."""
    if text.isdecimal() and text.isascii():
        return int(text) if 0 < int(text) <= _RTMAX else None
    name = text.upper().removeprefix("SIG")
    name = _OTHER_NAMES.get(name, name)
    if name in _NAMES:
        return _NAMES.index(name) + 1
    if (match := _REALTIME.fullmatch(name)) is None:
        return None
    start = _RTMIN if match[1] == "RTMIN" else _RTMAX
    number = start + int(f"{match[2] or '+'}{match[3] or 0}")
    return number if _RTMIN <= number <= _RTMAX else None


def signal_name(number: int) -> str:
    """`SIGTERM`, or `signal 40` for one without a name."""
    return f"SIG{_NAMES[number - 1]}" if 0 < number <= len(_NAMES) else f"signal {number}"
