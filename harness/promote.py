"""Which ready items get a hint, in which band, in which order. Pure; hints are politeness and efficiency, never safety.

Priority (0 first) is the band; a boost replaces it; every `AGEING_S` of waiting moves an item one band forward, so that
nothing starves. Inside a band the item with the longest chain of dependants comes first, then the older one. Items whose
`files` overlap are not started together; backoff, pause, overlap, limits of credentials and budgets withhold the hint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import PurePosixPath

from harness.budgets import Funds, Purse
from harness.clock import moment_of
from harness.dataclass import dataclass
from harness.model import Attempt, Outcome

AGEING_S = 3600.0
RELEASED_MAX_S = 7 * 86400.0
"""A released attempt may wait for a limit's reset for days; a failed one only for the maximum of its backoff."""
WILD = "*?["


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One claimable item. Times are seconds of the observer's monotonic clock."""

    uid: str
    project: str
    priority: int
    since: float
    """When it was first seen claimable."""
    not_before: float = 0.0
    """Backoff: no hint before."""
    chain: int = 0
    """Length of the longest chain of items that wait for it."""
    files: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    """Any of them may run it."""


def delay_s(last: Attempt | None, now: float, max_delay_s: float) -> float:
    """How long the attempt after `last` is to wait yet; 0: not at all. `now`: by the wall clock.

    Never longer than `max_delay_s` (`RELEASED_MAX_S` behind a released one), whatever the clock said when it ended.
    """
    end = last.end if last is not None and not last.grant else None
    moment = moment_of(end.not_before) if end is not None else None
    if end is None or moment is None:
        return 0.0
    most = RELEASED_MAX_S if end.outcome is Outcome.RELEASED else max_delay_s
    return max(0.0, min(moment - now, most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """What limits of credentials say of agents."""

    stopped: frozenset[str] = frozenset()
    """Agents that may not start."""
    trying: Mapping[str, str] = field(default_factory=dict)
    """Agent -> its credential, whose limit may be over: one item alone tries it."""
    for_good: Mapping[str, str] = field(default_factory=dict)
    """Agents that do not start until a person has helped -> their credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """One item that runs or is being merged."""

    uid: str
    project: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A hint that should exist."""

    band: int
    chain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who should have a hint, and who has none for want of money."""

    hints: Mapping[str, Wish]
    unpaid: Mapping[str, tuple[str, ...]]
    """uid -> the budgets that it waits for."""


def wishes(
    ready: Iterable[Ready],
    busy: Iterable[Busy],
    boosts: Mapping[str, int],
    paused: frozenset[str],
    now: float,
    limited: Limited | None = None,
) -> Mapping[str, Wish]:
    """uid -> the hint it should have, when money does not matter."""
    return decide(ready, busy, boosts, paused, now, limited).hints


def decide(
    ready: Iterable[Ready],
    busy: Iterable[Busy],
    boosts: Mapping[str, int],
    paused: frozenset[str],
    now: float,
    limited: Limited | None = None,
    funds: Funds | None = None,
) -> Decision:
    """Who is not named should have no hint. `paused`: projects whose items wait. `funds` are handed out in the order in
    which items would start; one that asks for more than is left waits, and the next may have it."""
    limited, purse = limited or Limited(), Purse(funds or Funds())
    tried: set[str] = set()
    taken: dict[str, list[tuple[str, ...]]] = {}
    for other in busy:
        if other.files:
            taken.setdefault(other.project, []).append(other.files)
    out: dict[str, Wish] = {}
    unpaid: dict[str, tuple[str, ...]] = {}
    order = sorted(ready, key=lambda r: (band_of(r, boosts, now), -r.chain, r.since, r.uid))
    for item in order:
        if item.project in paused or now < item.not_before:
            continue
        if lacking := purse.lacking(item.uid):
            unpaid[item.uid] = lacking
            continue
        if not _may_start(item, limited, tried):
            continue
        others = taken.setdefault(item.project, []) if item.files else []
        if any(overlap(item.files, files) for files in others):
            continue
        purse.give(item.uid)
        if item.files:
            others.append(item.files)
        out[item.uid] = Wish(band=band_of(item, boosts, now), chain=item.chain)
    return Decision(hints=out, unpaid=unpaid)


def _may_start(item: Ready, limited: Limited, tried: set[str]) -> bool:
    """Is there an agent for it that no limit stops? `tried`: credentials that an earlier item tries already."""
    if not item.agents:
        return True
    free = [agent for agent in item.agents if agent not in limited.stopped]
    certain = [agent for agent in free if agent not in limited.trying]
    if certain or not free:
        return bool(certain)
    credential = limited.trying[free[0]]
    if credential in tried:
        return False
    tried.add(credential)
    return True


def band_of(item: Ready, boosts: Mapping[str, int], now: float) -> int:
    """0..9: boost or priority, minus one for every AGEING_S that the item has been ready."""
    base = boosts.get(item.uid, item.priority)
    return max(0, min(9, base) - int(max(0.0, now - item.since) // AGEING_S))


def overlap(a: Iterable[str], b: Iterable[str]) -> bool:
    """May a path match globs of both? Errs on the side of yes: compares what stands before the first wildcard."""
    heads = [_head(p) for p in b]
    return any(x[: len(y)] == y[: len(x)] for x in map(_head, a) for y in heads)


def _head(pattern: str) -> tuple[str, ...]:
    """The leading parts without a wildcard: everything that the glob (or the folder) can match lies below them."""
    fixed: list[str] = []
    for part in PurePosixPath(pattern).parts:
        if any(c in part for c in WILD):
            break
        fixed.append(part)
    return tuple(fixed)


def chains(dependants: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """uid -> length of the longest chain of items that wait for it. Circles count as no chain.

    `dependants`: uid -> uids that wait for it. Linear in the number of edges (longest path in a DAG, by depth-first
    search with an explicit stack).
    """
    out: dict[str, int] = {}
    for root in dependants:
        stack: list[tuple[str, bool]] = [(root, False)]
        open_: set[str] = set()
        while stack:
            uid, done = stack.pop()
            if done:
                open_.discard(uid)
                out[uid] = 1 + max((out.get(d, 0) for d in dependants.get(uid, ())), default=-1)
                continue
            if uid in out or uid in open_:
                continue
            open_.add(uid)
            stack.append((uid, True))
            stack.extend((d, False) for d in dependants.get(uid, ()) if d not in out and d not in open_)
    return out
