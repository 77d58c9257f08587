"""One JSON object on disk: how a frozen value becomes one, and is read again. Shared by cells, items and reports.

Apart from `model`, so that `status`, which must be instant, need not make every class of the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, ClassVar, Self

from harness.dataclass import dataclass
from harness.errors import UnreadableRecordError

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of what is stored as one JSON object."""

    what: ClassVar[str] = "record"

    def to_record(self) -> dict[str, Any]:
        """A JSON-ready dict: ``v`` first, then the fields in order; None and empty values are left out."""
        out: dict[str, Any] = {"v": VERSION}
        for name in _names(type(self)):
            value = getattr(self, name)
            if value or isinstance(value, (int, float)):  # 0 and False say something, an empty text does not
                out[name] = value if type(value) in _JSON else _plain(value)
        return out

    def to_bytes(self) -> bytes:
        return dump(self.to_record())

    @classmethod
    def from_record(cls, data: object, where: object = None) -> Self:
        """Raises UnreadableRecordError for a wrong version or a missing field; ignores unknown keys."""
        if not isinstance(data, Mapping):
            raise UnreadableRecordError(
                f"{cls.what} is not a JSON object", where=where, remedy="run: harnessctl fsck"
            )
        if data.get("v") != VERSION:
            raise UnreadableRecordError(
                f"{cls.what} has version {data.get('v')!r}, this program knows {VERSION}",
                where=where,
                remedy="upgrade harness, or run: harnessctl fsck",
            )
        known = _names(cls)
        try:
            return cls(**{k: cls._field(k, v) for k, v in data.items() if k in known})
        except (TypeError, ValueError) as e:
            raise UnreadableRecordError(
                f"{cls.what} cannot be read: {e}", where=where, remedy="run: harnessctl fsck"
            ) from e

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        """JSON value -> field value; overridden where a field is not a plain JSON value."""
        return tuple(value) if isinstance(value, list) else value


_JSON = frozenset({str, int, float, bool})
_NAMES: dict[type[Any], dict[str, None]] = {}


def _names(kind: type[Any]) -> dict[str, None]:
    """The fields of a record, in order; found once: records are read and written all the time."""
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = dict.fromkeys(f.name for f in fields(kind))
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {k: v for k, v in value.to_record().items() if k != "v"}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


_ENCODE = json.JSONEncoder(separators=(", ", ": ")).encode


def dump(data: object) -> bytes:
    """One line of compact JSON with a newline, ASCII only (so that any terminal shows it harmlessly)."""
    return _ENCODE(data).encode() + b"\n"
