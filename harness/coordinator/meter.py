"""The figures of status: counted from the event stream, over the last hour, since this coordinator started."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from harness.clock import parse_rfc3339
from harness.dataclass import dataclass
from harness.events import end, read
from harness.layout import Layout
from harness.logs import Event

WINDOW_S = 3600.0
KEPT = 100_000
"""Ends that are remembered at most: a bound for memory, far above what agents do in an hour."""

_GOOD = frozenset({"done", "merged"})
_ENDS = frozenset({"failed", "submitted", "released"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing that counts: when (wall clock), what, and how many seconds it took if known."""

    at: float
    kind: str
    """finished, failed (spent an attempt), released."""
    seconds: float | None = None
    limited: bool = False
    """An attempt that ended by a limit of its credential."""


@dataclass(slots=True)
class Meter:
    """Follows the stream by a cursor; each call reads only what is new."""

    layout: Layout
    cursor: str | None = None
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=KEPT))
    claimed: dict[str, float] = field(default_factory=dict)
    """uid.n -> when it was claimed; forgotten with its end."""
    limited: set[str] = field(default_factory=set)
    """uid.n of attempts that met a limit; forgotten with their end."""
    expired: int = 0
    attempts: int = 0

    def start(self) -> None:
        """Count from now on."""
        self.cursor = end(self.layout)

    def update(self) -> None:
        """Read what happened since the last call."""
        for cursor, event in read(self.layout, self.cursor):
            self.cursor = cursor
            self.marks.extend(self._marks(event))

    def _marks(self, event: Mapping[str, Any]) -> Iterator[Mark]:
        try:
            at = parse_rfc3339(str(event["ts"]))
            key = f"{event.get('uid')}.{event.get('n')}"
            match event["event"]:
                case Event.ITEM_CLAIMED:
                    self.claimed[key] = at
                case Event.LIMIT_MET:
                    self.limited.add(key)
                case Event.ATTEMPT_EXPIRED:
                    self.expired += 1
                    yield self._end(key, at, "failed")
                case Event.ITEM_SUBMITTED:
                    yield self._end(key, at, "submitted")
                case Event.ATTEMPT_ENDED:
                    kinds = {"failed": "failed", "done": "submitted"}
                    yield self._end(key, at, kinds.get(str(event.get("outcome")), "released"))
                case Event.ITEM_RETURNED:
                    yield Mark(at=at, kind="returned")
                case Event.ITEM_FINISHED if event.get("outcome") in _GOOD:
                    yield Mark(at=at, kind="finished")
                case _:
                    pass
        except (KeyError, ValueError):
            return  # a line of a newer version: it does not count

    def _end(self, key: str, at: float, kind: str) -> Mark:
        self.attempts += 1
        began = self.claimed.pop(key, None)
        limited = key in self.limited
        self.limited.discard(key)
        seconds = None if began is None else max(0.0, at - began)
        return Mark(at=at, kind=kind, seconds=seconds, limited=limited)

    def values(self, now: float) -> dict[str, float]:
        """`now` is wall time. success_rate: of the attempts that cost one, the part that was neither failed, expired
        nor returned. average_seconds: of ended attempts. limit_rate: of all that ended, the part that did so by a limit of a
        credential. attempts and expired: since the start."""
        while self.marks and self.marks[0].at < now - WINDOW_S:
            self.marks.popleft()
        count = {
            kind: sum(m.kind == kind for m in self.marks)
            for kind in ("finished", "failed", "submitted", "returned")
        }
        spent = count["failed"] + count["submitted"]
        ended = [m for m in self.marks if m.kind in _ENDS]
        took = [m.seconds for m in self.marks if m.seconds is not None and m.kind != "released"]
        return {
            "throughput_per_hour": float(count["finished"]),
            "success_rate": round(max(0, count["submitted"] - count["returned"]) / spent, 4)
            if spent
            else 0.0,
            "average_seconds": round(sum(took) / len(took), 3) if took else 0.0,
            "attempts": float(self.attempts),
            "expired": float(self.expired),
            "limit_rate": round(sum(m.limited for m in ended) / len(ended), 4) if ended else 0.0,
        }
