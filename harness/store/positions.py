"""Where in a text each value of a JSON or YAML document stands, so that an error can name line and column.

`Places` is lazy: a drop without errors never pays for it. A document that cannot be mapped has no places.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right, insort
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, TypeAlias

import yaml

Path: TypeAlias = tuple[Any, ...]
"""Keys and indexes from the root of a document to a value."""

_SPACE = re.compile(r"[ \t\n\r]*")
_SKIP = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class Places:
    """(line, column), 1-based, of the values of one document; this one knows none."""

    __slots__ = ()

    def nearest(self, path: Path) -> tuple[int, int]:
        """The place of a value, or of the nearest value around it that the text has; (0, 0) when unknown."""
        return 0, 0


NOWHERE = Places()


def line_column(text: str, offset: int) -> tuple[int, int]:
    """Offset in a text -> (line, column), 1-based."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


class JsonPlaces(Places):
    """Of a valid JSON text whose first character stands on `first_line`.

    Only what leads to a value that is asked for is looked at; the C parser skips what lies beside it.
    """

    __slots__ = ("_children", "_known", "_text")

    def __init__(self, text: str, first_line: int = 1) -> None:
        self._text = text
        self._children: dict[int, dict[Any, int]] = {}
        """Offset of a list or object -> offset of each of its values."""
        self._known = [(0, first_line)]
        """(offset, its line), sorted: the lines are counted from the nearest one."""

    def nearest(self, path: Path) -> tuple[int, int]:
        try:
            at = _skip(self._text, 0)
            for part in path:
                if at not in self._children:
                    self._children[at] = self._list(at)
                if (below := self._children[at].get(part)) is None:
                    break
                at = below
            return self._place(at)
        except (RecursionError, IndexError, ValueError, StopIteration):
            return 0, 0

    def _list(self, at: int) -> dict[Any, int]:
        text = self._text
        first = text[at]
        out: dict[Any, int] = {}
        if first not in "{[":
            return out
        close = "}" if first == "{" else "]"
        at = _skip(text, at + 1)
        while text[at] != close:
            key: Any = len(out)
            if first == "{":
                key, at = scanstring(text, at + 1, True)
                at = _skip(text, _skip(text, at) + 1)
            out[key] = at
            at = _skip(text, _SKIP(text, at)[1])
            if text[at] == ",":
                at = _skip(text, at + 1)
        return out

    def _place(self, offset: int) -> tuple[int, int]:
        start, line = self._known[bisect_right(self._known, (offset, 1 << 62)) - 1]
        line += self._text.count("\n", start, offset)
        if offset - start > 1 << 16:
            insort(self._known, (offset, line))
        return line, offset - self._text.rfind("\n", 0, offset)


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] > " ":
        return at
    match = _SPACE.match(text, at)
    return match.end() if match else at


class YamlPlaces(Places):
    """Of a document that is read a second time, for its places, when the first is asked for."""

    __slots__ = ("_find", "_map")

    def __init__(self, find: Callable[[], dict[Path, tuple[int, int]]]) -> None:
        self._find = find
        self._map: dict[Path, tuple[int, int]] | None = None

    def nearest(self, path: Path) -> tuple[int, int]:
        if self._map is None:
            try:
                self._map = self._find()
            except (RecursionError, ValueError, yaml.YAMLError):
                self._map = {}
        for end in range(len(path), -1, -1):
            if (place := self._map.get(path[:end])) is not None:
                return place
        return 0, 0
