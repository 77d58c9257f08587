"""Where in a text each value of a JSON or YAML document stands, so that an error can name line and column.

`Places` is lazy: a drop without errors never pays for it. A document that cannot be mapped has no places.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, TypeAlias

import yaml

Path: TypeAlias = tuple[Any, ...]
"""Keys and indexes from the root of a document to a value."""

MAX_TEXT = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^\s,\]}]+")


class Places:
    """(line, column), 1-based, of every value of one document; found when first asked for."""

    __slots__ = ("_find", "_map")

    def __init__(self, find: Callable[[], dict[Path, tuple[int, int]]]) -> None:
        self._find = find
        self._map: dict[Path, tuple[int, int]] | None = None

    def nearest(self, path: Path) -> tuple[int, int]:
        """The place of a value, or of the nearest value around it that the text has; (0, 0) when unknown."""
        if self._map is None:
            try:
                self._map = self._find()
            except (RecursionError, IndexError, ValueError, yaml.YAMLError):
                self._map = {}
        for end in range(len(path), -1, -1):
            if (place := self._map.get(path[:end])) is not None:
                return place
        return 0, 0


NOWHERE = Places(dict)


def line_column(text: str, offset: int) -> tuple[int, int]:
    """Offset in a text -> (line, column), 1-based."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def json_places(text: str, first_line: int = 1) -> Places:
    """Places of a valid JSON text whose first character stands on `first_line`."""

    def find() -> dict[Path, tuple[int, int]]:
        if len(text) > MAX_TEXT:
            return {}
        starts: dict[Path, int] = {}
        _scan(text, _skip(text, 0), (), starts)
        lines = [0, *(m.end() for m in re.finditer("\n", text))]
        out = {}
        for path, offset in starts.items():
            row = bisect_right(lines, offset)
            out[path] = (row + first_line - 1, offset - lines[row - 1] + 1)
        return out

    return Places(find)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _scan(text: str, at: int, path: Path, out: dict[Path, int]) -> int:
    """Note where the value at `at` starts, and all below it; -> the offset behind it."""
    out[path] = at
    first = text[at]
    if first == '"':
        return int(scanstring(text, at + 1, True)[1])
    if first not in "{[":
        match = _SCALAR.match(text, at)
        return match.end() if match else at + 1
    close = "}" if first == "{" else "]"
    at = _skip(text, at + 1)
    index = 0
    while text[at] != close:
        key: Any = index
        if first == "{":
            key, at = scanstring(text, at + 1, True)
            at = _skip(text, _skip(text, at) + 1)
        at = _skip(text, _scan(text, at, (*path, key), out))
        index += 1
        if text[at] == ",":
            at = _skip(text, at + 1)
    return at + 1


def yaml_places(root: yaml.Node) -> Places:
    """Places of a composed YAML document without aliases."""

    def find() -> dict[Path, tuple[int, int]]:
        out: dict[Path, tuple[int, int]] = {}
        _walk(root, (), out)
        return out

    return Places(find)


def _walk(node: yaml.Node, path: Path, out: dict[Path, tuple[int, int]]) -> None:
    out[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _walk(value, (*path, key.value), out)
    elif isinstance(node, yaml.SequenceNode):
        for k, value in enumerate(node.value):
            _walk(value, (*path, k), out)
