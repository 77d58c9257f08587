"""summary.json of a session: what its runs did and used, and what the next one needs to go on with it.

Written before each run and after it, whole, by the worker that owns the attempt; read by the worker of a later attempt, by
`harnessctl sessions` and by people. It proves nothing: when it is lost or damaged a new session begins, with evidence of
the earlier attempts in its prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any, ClassVar

from harness.atomicfs import open_plain, replace_file
from harness.dataclass import dataclass
from harness.errors import StoreError
from harness.record import VERSION, Record

MAX_BYTES = 8 << 20
LARGEST = 1e15
"""No number in it is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent(Record):
    """What a run or a session used. None: not known."""

    what: ClassVar[str] = "usage"
    tokens_in: int | None = None
    tokens_cached: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    turns: int | None = None
    estimated: bool = False

    def plus(self, other: Spent) -> Spent:
        """Both together; what only one knows is what that one says."""
        return Spent(
            tokens_in=_sum(self.tokens_in, other.tokens_in),
            tokens_cached=_sum(self.tokens_cached, other.tokens_cached),
            tokens_out=_sum(self.tokens_out, other.tokens_out),
            cost_usd=_sum(self.cost_usd, other.cost_usd),
            turns=_sum(self.turns, other.turns),
            estimated=self.estimated or other.estimated,
        )


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Record):
    """One run of the tool. Without `outcome` it has not ended, or nobody was there when it did."""

    what: ClassVar[str] = "run"
    round: int
    attempt: str
    """``<uid>.<n>``"""
    slot: str
    started_at: str
    outcome: str = ""
    detail: str = ""
    duration_s: float = 0.0
    exit_code: int | None = None
    signal: int | None = None
    survivors: int = 0
    asks: bool = False
    resumed: bool = False
    """It went on with the conversation of an earlier run."""
    usage: Spent | None = None
    gates: tuple[Mapping[str, Any], ...] = ()
    """What the gates said of it: name, ok, required, seconds, reason."""

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        if name == "usage":
            return Spent.from_record({"v": VERSION, **value})
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord(Record):
    """The whole of summary.json."""

    what: ClassVar[str] = "session"
    item: str
    """The person's id."""
    uid: str
    project: str = ""
    agent: str
    """Its name in config.yaml."""
    adapter: str
    session: str
    """Our id of the conversation, a UUID."""
    conversation: str = ""
    """The tool's id of it; empty: it never began."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What the adapter has to know in the next run."""
    worktree: str = ""
    runs: tuple[RunRecord, ...] = ()

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        if name == "runs":
            return tuple(RunRecord.from_record({"v": VERSION, **run}) for run in value)
        return value

    @property
    def used(self) -> Spent:
        """By all runs together."""
        total = Spent()
        for run in self.runs:
            if run.usage is not None:
                total = total.plus(run.usage)
        return total


def read(path: Path) -> SessionRecord | None:
    """None when there is none, or it cannot be read."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        found = SessionRecord.from_record(json.loads(raw), path) if len(raw) <= MAX_BYTES else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, StoreError):
        return None
    return found if found is not None and _sound(found) else None


def _sound(record: Record) -> bool:
    """Whether every value is of its field's type, and every number one to reckon with."""
    for one in fields(record):
        value = getattr(record, one.name)
        kinds = _KINDS[str(one.type)]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            return False
        if isinstance(value, int | float) and not abs(value) < LARGEST:  # NaN is not less either
            return False
        for part in value if isinstance(value, tuple) else (value,):
            if not (
                _sound(part) if isinstance(part, Record) else one.name != "gates" or isinstance(part, dict)
            ):
                return False
    return True


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "Mapping[str, Any]": (dict,),
    "Spent | None": (Spent, type(None)),
    "tuple[RunRecord, ...]": (tuple,),
    "tuple[Mapping[str, Any], ...]": (tuple,),
}
"""Annotation -> what a value read from JSON may be."""


def write(path: Path, record: SessionRecord) -> None:
    """Whole or not at all. Not durable: after a power loss a new session may begin. Raises OSError."""
    replace_file(path, json.dumps(record.to_record(), indent=1).encode() + b"\n", durable=False, mode=0o600)
