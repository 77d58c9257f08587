"""Health: what is wrong with the pool, and what is to be done about it. Pure: snapshots in, findings out.

The coordinator takes the snapshot and acts on the findings; nothing here reads a clock, a file or a process.

A worker is dead when its process is gone. It is hung when its heartbeat has not moved *and* its process tree does
nothing (`Quiet.hung`): silence alone is never enough. The same rule holds for mergers, and for whoever else owns a
claim. Times are seconds of the observer's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TypeAlias

from harness.dataclass import dataclass
from harness.pace import backoff_s

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
class Quiet:
    """For how long a process has given no sign of life."""

    silent_s: float = 0.0
    """Since its heartbeat last moved."""
    inactive_s: float | None = 0.0
    """Since its tree was last seen to work. It is watched in the second half of a silence only, because a look reads
    all of /proc. None: nobody can know, it runs on another host."""
    limit_s: float = 120.0

    @property
    def hung(self) -> bool:
        """Silent for `limit_s`, and without activity as long as that was watched."""
        if self.silent_s <= self.limit_s:
            return False
        return self.inactive_s is None or self.inactive_s > self.limit_s / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    """One slot of the pool at one moment."""

    name: str
    wanted: bool
    """False: the pool was made smaller, or is draining."""
    alive: bool
    quiet: Quiet = Quiet()
    death: Death | None = None
    """Not yet acted on."""
    quick_deaths: int = 0
    next_start: float = 0.0
    refused: bool = False
    """Its last process exited with EXIT_CONFIG, and the configuration is still the same."""


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
    """Kill the worker of this slot: it says nothing and does nothing."""

    slot: str
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Let the worker of this slot finish and go."""

    slot: str


Finding: TypeAlias = Start | Bury | Hung | Retire


def diagnose(slots: Sequence[SlotView], now: float) -> list[Finding]:
    """At most one finding for each slot: what must happen to it next."""
    findings: list[Finding] = []
    for slot in slots:
        finding = _diagnose(slot, now)
        if finding is not None:
            findings.append(finding)
    return findings


def _diagnose(slot: SlotView, now: float) -> Finding | None:
    if slot.alive:
        if slot.quiet.hung:
            return Hung(slot=slot.name, silent_s=slot.quiet.silent_s)
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


LOOK_S = 30.0
"""Of the time between two looks at a token no more counts: while the observer itself did not run (a machine that was
suspended, SIGSTOP), silence proves nothing."""
IDLE_CPU = 0.01
"""Share of one core below which a tree does nothing: an idle event loop of an agent uses a little."""
SAMPLES = 20
"""CPU time is looked at so many times in a limit: in less time one tick of the kernel's clock would look like work."""


@dataclass(slots=True)
class _Trace:
    """What was seen of one process since its token last changed."""

    token: object
    since: float
    looked: float
    sampled: float = 0.0
    cpu_s: float = 0.0
    inactive_since: float | None = None
    """None: not sampled yet."""

    def away(self, seconds: float) -> None:
        """The observer did not run for so long."""
        self.since += seconds
        self.sampled += seconds
        if self.inactive_since is not None:
            self.inactive_since += seconds


@dataclass(slots=True)
class HangWatch:
    """Remembers since when tokens have not changed. Tokens are opaque; only equality counts."""

    _seen: dict[str, _Trace] = field(default_factory=dict)

    def quiet(
        self, key: str, token: object, now: float, limit_s: float, cpu_s: Callable[[], float] | None
    ) -> Quiet:
        """As far as somebody looked. `cpu_s` says what the tree of the process has used so far, and is asked rarely;
        None when nobody can know."""
        trace = self._seen.get(key)
        if trace is None or trace.token != token:
            self._seen[key] = _Trace(token, now, now)
            return Quiet(limit_s=limit_s, inactive_s=None if cpu_s is None else 0.0)
        trace.away(max(0.0, now - trace.looked - LOOK_S))
        trace.looked = now
        silent = now - trace.since
        if cpu_s is None:
            return Quiet(silent_s=silent, inactive_s=None, limit_s=limit_s)
        if silent > limit_s / 2:
            self._sample(trace, now, limit_s, cpu_s)
        inactive = 0.0 if trace.inactive_since is None else now - trace.inactive_since
        return Quiet(silent_s=silent, inactive_s=inactive, limit_s=limit_s)

    def _sample(self, trace: _Trace, now: float, limit_s: float, cpu_s: Callable[[], float]) -> None:
        elapsed = now - trace.sampled
        if trace.inactive_since is not None and elapsed < limit_s / SAMPLES:
            return
        used = cpu_s()
        if trace.inactive_since is None or abs(used - trace.cpu_s) > IDLE_CPU * elapsed:
            trace.inactive_since = now
        trace.sampled, trace.cpu_s = now, used

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)

    def keep_only(self, prefix: str, keys: set[str]) -> None:
        """Forget what starts with prefix and is not in keys, so that the memory stays bounded."""
        for key in [k for k in self._seen if k.startswith(prefix) and k not in keys]:
            del self._seen[key]
