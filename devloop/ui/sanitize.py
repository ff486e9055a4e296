"""Making text from elsewhere harmless to show: log lines, build output, messages of other programs.

A terminal obeys what it prints: it can be made to move the cursor, set the clipboard, answer as if
the user had typed. Here text loses every escape sequence; colour (SGR) may stay. What cannot be
shown is written out (`\\x08`), so that nothing hides. Pure; the result never holds a newline.

Sequences are those of ECMA-48 (5th edition, section 5) in their 7-bit and 8-bit forms.
"""

from __future__ import annotations

import functools
import re

_RESET = "\x1b[0m"

# What may not be shown as it is: sequences, and `odd` characters: controls (a tab is harmless), the
# separators that `str.splitlines` knows, what reorders the text around it (CVE-2021-42574), and
# halves of a surrogate pair, which no encoding can write.
# No quantifier can give back what it took, so the time is linear in the text's length whatever it
# holds. A control string that is not closed loses its introducer only: the rest is the app's text.
_HIDDEN = r"""
      (?P<sgr> \x1b\[ [0-9;:]*+ m )
    | (?: \x1b\[ | \x9b ) [0-?]*+ [\ -/]*+ [@-~]                                   # CSI
    | (?: \x1b[P\]X^_] | [\x90\x98\x9d-\x9f] ) [^\x00-\x1f\x7f-\x9f]*+
          (?: \x07 | \x1b\\ | \x9c )                                               # OSC, DCS ...
    | \x1b [\ -/]*+ [0-~]                                                          # all others
    | (?P<odd> [\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff] )
    """


@functools.cache
def _hidden() -> re.Pattern[str]:
    # Not at import, which is before the first line of output: most texts are plain.
    return re.compile(_HIDDEN, re.VERBOSE)


def plain(text: str) -> str:
    """`text` as one line of printable text and tabs."""
    return text if text.isprintable() else _hidden().sub(_written_out, text)


def coloured(text: str) -> str:
    """`text` as one line that may set colours and ends with them reset."""
    if text.isprintable():
        return text
    shown = _hidden().sub(lambda match: match["sgr"] or _written_out(match), text)
    return shown + _RESET if "\x1b" in shown else shown


def _written_out(match: re.Match[str]) -> str:
    odd = match["odd"]
    if not odd:
        return ""
    code = ord(odd)
    if odd in "\n\r":
        return "\\n" if odd == "\n" else "\\r"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as `surrogateescape` carries it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
