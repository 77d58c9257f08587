"""Health: what is wrong with the pool, and what is to be done about it. Pure: snapshots in, findings out.

The coordinator takes the snapshot and acts on the findings; nothing here reads a clock, a file or a process.

A worker is dead when its process is gone. It is hung when, while it owns an attempt, its heartbeat has not moved *and*
no process of its tree has used CPU for `hang_s`: silence alone is never enough. Idle workers write nothing and are
never suspected. Times are seconds of the observer's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
HEALTHY_S = 5.0
"""A worker that lived for so long, or ended an attempt, did not die of its own start."""
EXIT_CONFIG = 78
"""A worker that cannot use its configuration says so by this code and is not started again before it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How the last process of a slot went."""

    lived_s: float
    attempts: int = 0
    exit_code: int | None = None
    """None: killed by a signal, or not our child."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    """One slot of the pool at one moment."""

    name: str
    wanted: bool
    """False: the pool was made smaller, or is draining."""
    alive: bool
    busy: bool = False
    """It owns an attempt."""
    silent_s: float = 0.0
    """Since its heartbeat last moved."""
    inactive_s: float = 0.0
    """Since its process tree last used CPU."""
    death: Death | None = None
    """Not yet acted on."""
    quick_deaths: int = 0
    next_start: float = 0.0
    refused: bool = False
    """Its last process exited with EXIT_CONFIG, and the configuration is still the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    hang_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Spawn a worker in this slot now."""

    slot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """The worker of this slot died: end what it held, and wait `delay_s` before the next one."""

    slot: str
    delay_s: float
    quick_deaths: int
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """Kill the worker of this slot: it owns an attempt, says nothing and does nothing."""

    slot: str
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Let the worker of this slot finish and go."""

    slot: str


Finding: TypeAlias = Start | Bury | Hung | Retire


def diagnose(slots: Sequence[SlotView], now: float, limits: Limits) -> list[Finding]:
    """At most one finding for each slot: what must happen to it next."""
    findings: list[Finding] = []
    for slot in slots:
        finding = _diagnose(slot, now, limits)
        if finding is not None:
            findings.append(finding)
    return findings


def _diagnose(slot: SlotView, now: float, limits: Limits) -> Finding | None:
    if slot.alive:
        if slot.busy and slot.silent_s > limits.hang_s and slot.inactive_s > limits.hang_s:
            return Hung(slot=slot.name, silent_s=slot.silent_s)
        return None if slot.wanted else Retire(slot=slot.name)
    if slot.death is not None:
        return _bury(slot, slot.death)
    if slot.wanted and not slot.refused and now >= slot.next_start:
        return Start(slot=slot.name)
    return None


def _bury(slot: SlotView, death: Death) -> Bury:
    if death.exit_code == EXIT_CONFIG:
        return Bury(slot=slot.name, delay_s=0.0, quick_deaths=slot.quick_deaths, refused=True)
    if death.lived_s >= HEALTHY_S or death.attempts > 0:
        return Bury(slot=slot.name, delay_s=0.0, quick_deaths=0)
    deaths = slot.quick_deaths + 1
    return Bury(slot=slot.name, delay_s=backoff_s(deaths), quick_deaths=deaths)


def backoff_s(quick_deaths: int) -> float:
    """0 after the first quick death, then doubling from FIRST_BACKOFF_S to MAX_BACKOFF_S."""
    if quick_deaths <= 1:
        return 0.0
    return float(min(FIRST_BACKOFF_S * 2 ** min(quick_deaths - 2, 30), MAX_BACKOFF_S))


def retry_delay_s(spent: int, first_s: float, max_s: float) -> float:
    """Backoff before the next attempt of an item: doubles with every attempt spent, from first_s up to max_s."""
    if spent <= 0:
        return 0.0
    return float(min(first_s * 2 ** min(spent - 1, 30), max_s))


LOOK_S = 30.0
"""Of the time between two looks at a token no more counts: while the observer itself did not run (a machine that was
suspended, SIGSTOP), silence proves nothing."""


@dataclass(slots=True)
class HangWatch:
    """Since when a token has not changed, by the observer's own clock. Tokens are opaque; only equality counts."""

    _seen: dict[str, tuple[object, float, float]] = field(default_factory=dict)
    """key -> (token, since when, last look)."""

    def unchanged_s(self, key: str, token: object, now: float) -> float:
        """Seconds since `token` was first seen for `key`, as far as somebody looked; 0 when it is new."""
        before = self._seen.get(key)
        if before is None or before[0] != token:
            self._seen[key] = (token, now, now)
            return 0.0
        _, since, looked = before
        since += max(0.0, now - looked - LOOK_S)
        self._seen[key] = (token, since, now)
        return now - since

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)

    def keep_only(self, prefix: str, keys: set[str]) -> None:
        """Forget what starts with prefix and is not in keys, so that the memory stays bounded."""
        for key in [k for k in self._seen if k.startswith(prefix) and k not in keys]:
            del self._seen[key]
