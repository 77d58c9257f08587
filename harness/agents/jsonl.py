"""One line of a tool's output -> a JSON object; typed looks into it. Nothing here raises for what a tool says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

MAX_COUNT = 10**12
MAX_LINE_BYTES = 16 << 20
"""A longer line is kept in the session's folder and not read: what it holds is a tool's result, not its end."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def parsed(line: bytes) -> Mapping[str, Any] | None:
    """The object that a line holds, or None: not JSON, no object, nested too deep."""
    if len(line) > MAX_LINE_BYTES or not line.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def embedded(line: bytes, start: bytes) -> Mapping[str, Any] | None:
    """The object that begins with `start` in the middle of a broken line: two writers of one pipe."""
    at = line.find(start)
    if at < 0 or len(line) > MAX_LINE_BYTES:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(line[at:].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def mapping(data: object, *keys: str) -> Mapping[str, Any]:
    """The mapping at the end of `keys`; an empty one when there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def text(data: Mapping[str, Any], key: str) -> str:
    """A string, or ""."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def identifier(data: Mapping[str, Any], key: str) -> str:
    """A string that can be an argument of a later run (no option, no path), or ""."""
    value = text(data, key)
    return value if _IDENTIFIER.fullmatch(value) else ""


def items(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def number(data: Mapping[str, Any], key: str) -> float | None:
    """A finite number that is not negative, or None."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def count(data: Mapping[str, Any], key: str) -> int | None:
    """A whole number that is not negative, or None; also for more than MAX_COUNT, which nothing is."""
    value = number(data, key)
    return None if value is None or value > MAX_COUNT else int(value)
