"""Time. Wall clock is for people and `not_before`; monotonic time is for everything we decide."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the product asks of time. Tests pass a fake one."""

    def wall(self) -> float:
        """Seconds since the epoch. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some start; never goes back, counts through a suspend where it can."""
        ...


class SystemClock:
    """The real clock. CLOCK_BOOTTIME, so that a suspended laptop's timeouts do elapse."""

    __slots__ = ()

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def rfc3339(wall: float) -> str:
    """Seconds since the epoch -> ``2026-01-31T12:00:00.123Z`` (UTC, milliseconds)."""
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def parse_rfc3339(text: str) -> float:
    """RFC 3339 -> seconds since the epoch. A time without a zone is taken as UTC.

    Raises ValueError for anything else.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def moment_of(value: object) -> float | None:
    """The same of what a file holds: None for what is no moment, of whatever type it is."""
    try:
        return parse_rfc3339(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return None


def day(wall: float) -> str:
    """Seconds since the epoch -> ``2026-01-31`` (UTC)."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")
