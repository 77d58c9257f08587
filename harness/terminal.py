"""What agents and people wrote, made harmless to show: the one place that decides which characters reach a terminal."""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    r"""
    (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]?                                  # CSI: colours, cursor movement
    | (?: \x1b[\]PX^_] | [\x9d\x90\x98\x9e\x9f] ) [^\x07\x1b\x9c\n]* (?: \x07 | \x1b\\ | \x9c )?   # OSC, DCS, ...
    | \x1b [ -/]* [0-~]?                                                      # the rest of ECMA-48
    """,
    re.VERBOSE,
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: text that reads differently than it is
    "\u2028\u2029\ufeff]"
)


def printable(text: str) -> str:
    """Text without escape sequences and control characters; only newline and tab stay.

    Carriage returns become newlines, so that nothing can be overwritten; what is no character becomes "?".
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", _ESCAPE.sub("", text))
    return text.encode("utf-8", "replace").decode("utf-8")


def printable_line(text: str, limit: int = 200) -> str:
    """The same on one line, at most `limit` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
