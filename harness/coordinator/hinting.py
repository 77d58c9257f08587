"""Keeps queue/ready/ as `promote.wishes` decides, and carries boosts and pauses from state/control/ into it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from harness.bell import Bell
from harness.budgets import Funds, Room
from harness.clock import Clock
from harness.config import Config
from harness.coordinator.budgeting import Budgeting
from harness.coordinator.index import Index
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.limits import PERSONAL, Limits, limiter_of
from harness.promote import AGEING_S, Limited, Wish, decide
from harness.store.hints import Hints

TICK_S = 0.005
"""So much after a limit's end is looked again: not a moment before it."""


@dataclass(slots=True)
class Hinting:
    """Not thread-safe. `has` mirrors the hints that exist, as far as this process knows."""

    layout: Layout
    clock: Clock
    index: Index
    hints: Hints
    budgeting: Budgeting | None = None
    has: dict[str, Wish] = field(default_factory=dict)
    boosts: dict[str, int] = field(default_factory=dict)
    paused: frozenset[str] = frozenset()
    limited: Limited = field(default_factory=Limited)
    limited_until: tuple[float, ...] = ()
    """When limits end, by the wall clock."""
    rooms: Mapping[str, Room] = field(default_factory=dict)
    """Budget -> what is left of it."""
    unpaid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """uid -> the budgets that a ready item waits for."""
    budgets: tuple[Mapping[str, Any], ...] = ()
    """For the report: those that are spent or waited for."""
    unannounced: int = 0
    """Hints found on disk that nobody was rung for, as far as this process knows."""
    next_change: float | None = None
    """When the next withheld hint becomes due, by the monotonic clock."""
    _decided: tuple[object, ...] = ()
    """What the hints were last decided from, and until when that holds."""
    _until: float = 0.0
    _config: Config | None = None
    """What items ask of budgets is decided by it."""

    def read_control(self, unusable: frozenset[str] = frozenset()) -> None:
        """state/control/priority/<uid> holds a digit; pause.project.<name> withholds a project's hints."""
        boosts: dict[str, int] = {}
        folder = self.layout.control / "priority"
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name.startswith("."):
                    continue  # a draft of who is asking now
                try:
                    boosts[path.name] = max(0, min(9, int(_head(path).strip() or b"0")))
                except (ValueError, OSError):
                    continue
                if path.name not in self.index.open and path.name not in self.index.waiting:
                    path.unlink(missing_ok=True)  # it is over
        self.boosts = boosts
        prefix = "pause.project."
        self.paused = unusable | frozenset(
            p.name.removeprefix(prefix)
            for p in self.layout.control.glob(prefix + "*")
            if not p.name.endswith("~")
        )

    def read_limits(self, config: Config) -> None:
        """Which agents of config.yaml may not start now, and on whose behalf one item has to try."""
        limits = Limits(self.layout, self.clock)
        records = {record.credential: record for record in limits.all()}
        if not records and not self.limited_until and self.limited == Limited():
            return
        stopped, trying, for_good, until = set(), {}, {}, set()
        for name in config.agents:
            key = limiter_of(config, name)
            if key not in records:
                continue
            limit = limits.blocked(key, config.credential_of(name))
            if limit is not None:
                stopped.add(name)
                if limit.until is not None:
                    until.add(limit.until)
                elif limit.kind in PERSONAL:
                    for_good[name] = key
            elif not records[key].told:
                trying[name] = key
        self.limited = Limited(stopped=frozenset(stopped), trying=trying, for_good=for_good)
        self.limited_until = tuple(sorted(until))

    def read_budgets(self, config: Config) -> None:
        """What is left of every budget."""
        looked = (
            self._config is not None
        )  # an earlier coordinator may have left questions that nobody has any more
        if self.budgeting is None or (looked and not (config.budgeted or self.rooms or self.budgets)):
            return
        self._config = config
        try:
            self.rooms = self.budgeting.rooms(config)
        except OSError:
            self.rooms = {}  # who starts an agent reads it again, and says what is wrong

    def rebuild(self) -> None:
        """Compare with what is really there: remove what is wrong or double, forget what is gone."""
        ready = {r.uid for r in self.index.ready()}
        found = self.hints.all()
        for uid, places in found.items():
            wish = self.has.get(uid)
            keep = next((path for band, path in places if wish and band == wish.band), None)
            for band, path in places:
                if uid not in ready or path != (keep or places[0][1]):
                    self.hints.drop(path)
                elif wish is None or wish.band != band:
                    # Where it is, not where it should be: `update` moves it.
                    self.has[uid] = Wish(band=band, chain=0)
                    self.hints.remember(uid, path)
                    if wish is not None:
                        continue
                    # Admission makes the hint and leaves the ring to `update`, which sees nothing new in it now.
                    self.unannounced += 1
        for uid in [u for u in self.has if u not in found]:
            del self.has[uid]
        self.hints.tidy()
        self._decided = ()

    def update(self) -> int:
        """Make and remove hints as decided now; ring once for each new one. -> how many rings."""
        now = self.clock.monotonic()
        facts = (self.index.version, self.boosts, self.paused, self.limited, self.rooms, self._config)
        if facts == self._decided and now < self._until:
            return 0  # sorting a long backlog in every tick would be most of what a busy coordinator does
        ready = self.index.ready()
        funds = self._funds()
        decision = decide(ready, self.index.busy(), self.boosts, self.paused, now, self.limited, funds)
        wanted, self.unpaid = decision.hints, decision.unpaid
        self._tell_budgets(funds)
        due = [r.not_before for r in ready if r.not_before > now]
        due += [now + max(0.0, moment - self.clock.wall()) + TICK_S for moment in self.limited_until]
        self.next_change = min(due, default=None)
        self._decided, self._until = facts, min([now + AGEING_S / 60, *due])
        for uid in [u for u in self.has if u not in wanted]:
            self.hints.remove(uid)
            del self.has[uid]
        new, self.unannounced = self.unannounced, 0
        for uid, wish in wanted.items():
            before = self.has.get(uid)
            if before == wish or (before and before.band == wish.band):
                continue
            self.hints.add(uid, wish.band, wish.chain)
            self.has[uid] = wish
            new += before is None
        bell = Bell(self.layout.bell("workers"))
        for _ in range(min(new, 64)):
            if not bell.ring():
                break
        return new

    def _funds(self) -> Funds:
        if self.budgeting is None or self._config is None:
            return Funds()
        return self.budgeting.funds(self._config, self.rooms)

    def _tell_budgets(self, funds: Funds) -> None:
        if self.budgeting is not None and self._config is not None:
            self.budgets = self.budgeting.rows(funds, self.unpaid)
            self.budgeting.ask(self.budgets)


def _head(path: Path) -> bytes:
    """The beginning of a file that a person made; a FIFO or a link there must not stop the loop."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, 16)
    finally:
        os.close(fd)
