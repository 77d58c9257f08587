"""What the coordinator knows of the items in open/ and waiting/: a cache of the store, refreshed by looking again.

Truth is on disk. An item is looked at again when its folder's mtime changed, when a process reported that it touched it,
or when the index is told to. Everything here may be thrown away at any moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import field, replace

from harness.clock import Clock
from harness.dataclass import dataclass
from harness.errors import UnreadableRecordError
from harness.layout import Layout
from harness.model import Item
from harness.promote import Busy, Ready, chains, delay_s
from harness.store.cells import Look, Standing, look, parking_reason
from harness.store.disk import Disk
from harness.store.promotion import Waiting

SETTLED_NS = 100_000_000
"""A folder that changed so recently may change again within the same tick of the kernel's clock: look once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One item in open/ as last seen. Times: the observer's monotonic clock, seconds."""

    uid: str
    item: Item
    n: int
    standing: Standing
    mtime_ns: int
    since: float
    """When this (n, standing) was first seen."""
    not_before: float = 0.0
    """Backoff of a ready item, clamped from first sight."""
    reason: str = ""
    """Why it is parked, or which of its records is damaged."""


@dataclass(slots=True)
class Index:
    layout: Layout
    disk: Disk
    clock: Clock
    max_delay_s: float = 300.0
    open: dict[str, Entry] = field(default_factory=dict)
    waiting: dict[str, Item] = field(default_factory=dict)
    why: dict[str, Waiting] = field(default_factory=dict)
    """uid -> what a waiting item waited for when it was last asked."""
    version: int = 0
    """Changes with everything that is known here."""
    _waiting_for: dict[str, set[str]] = field(default_factory=dict)
    """uid or id -> uids in waiting/ that depend on it."""

    unreadable: dict[str, str] = field(default_factory=dict)
    """uid -> which of its records is damaged. Such an item is left alone; the others go on."""

    def note(self, uid: str, trouble: str) -> None:
        """Remember what cannot be read, or that it can be read again."""
        if trouble:
            self.unreadable[uid] = trouble
        else:
            self.unreadable.pop(uid, None)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def sweep(self) -> list[Entry]:
        """Compare everything with the disk. -> entries that changed. Cost: one stat an unchanged item."""
        names = set(_names(f"{self.layout.queue}/open"))
        for uid in self.open.keys() - names:
            del self.open[uid]
            self.version += 1
        changed = [e for uid in names if self.may_differ(uid) and (e := self.look_at(uid))]
        waiting = set(_names(f"{self.layout.queue}/waiting"))
        for uid in self.waiting.keys() - waiting:
            self._forget_waiting(uid)
        for uid in waiting - self.waiting.keys():
            self.add_waiting(uid)
        for uid in self.unreadable.keys() - names - waiting:
            self.note(uid, "")  # it was taken away
        return changed

    def may_differ(self, uid: str) -> bool:
        """Is there a reason to look at it again? One stat, where looking opens every cell."""
        known = self.open.get(uid)
        if known is None or known.standing is Standing.UNREADABLE:  # somebody may write into the damaged file
            return True
        mtime = _mtime(f"{self.layout.queue}/open/{uid}")
        return mtime != known.mtime_ns or self.clock.wall() * 1e9 - mtime <= SETTLED_NS

    def look_at(self, uid: str) -> Entry | None:
        """Look at one item again. -> its entry when something changed; None when nothing did, or it is gone."""
        mtime = _mtime(f"{self.layout.queue}/open/{uid}")
        seen = self.disk.run(look(uid))
        known = self.open.get(uid)
        self.note(uid, seen.trouble)
        item = seen.item or (known.item if known and seen.standing is Standing.UNREADABLE else None)
        if item is None:
            self.version += self.open.pop(uid, None) is not None
            return None
        if known and (known.n, known.standing) == (seen.n, seen.standing):
            if known.mtime_ns != mtime:
                self.open[uid] = replace(known, mtime_ns=mtime)
            return None
        entry = self._entry(seen, item, mtime)
        self.open[uid] = entry
        self.version += 1
        return entry

    def _entry(self, seen: Look, item: Item, mtime: int) -> Entry:
        now = self.clock.monotonic()
        not_before = 0.0
        if seen.standing is Standing.READY and seen.attempts:
            not_before = now + delay_s(seen.attempts[-1], self.clock.wall(), self.max_delay_s)
        reason = parking_reason(item, seen.attempts) if seen.standing is Standing.PARKED else seen.trouble
        return Entry(
            uid=seen.uid,
            item=item,
            n=seen.n,
            standing=seen.standing,
            mtime_ns=mtime,
            since=now,
            not_before=not_before,
            reason=reason,
        )

    def add_waiting(self, uid: str) -> None:
        try:
            item = self.disk.do_read(f"queue/waiting/{uid}/item.json", Item)
        except UnreadableRecordError as e:
            self.note(uid, str(e))
            return
        if not isinstance(item, Item):
            return
        self.waiting[uid] = item
        self.version += 1
        for dep, fixed in item.deps.items():
            self._waiting_for.setdefault(fixed or dep, set()).add(uid)

    def _forget_waiting(self, uid: str) -> None:
        item = self.waiting.pop(uid, None)
        self.version += 1
        self.why.pop(uid, None)
        if item:
            for dep, fixed in item.deps.items():
                group = self._waiting_for.get(fixed or dep)
                if group:
                    group.discard(uid)
                    if not group:
                        del self._waiting_for[fixed or dep]

    def left_waiting(self, uid: str) -> None:
        """It was promoted (or moved on): look for it in open/."""
        self._forget_waiting(uid)
        self.look_at(uid)

    # ---- asking ----------------------------------------------------------------------------------------------------

    def dependants(self, uid: str, name: str) -> set[str]:
        """Who in waiting/ waits for this item, by its uid or by its id."""
        return self._waiting_for.get(uid, set()) | self._waiting_for.get(name, set())

    def of(self, *standings: Standing) -> Iterator[Entry]:
        return (e for e in self.open.values() if e.standing in standings)

    def ready(self) -> list[Ready]:
        """Claimable items, with the length of the chain that waits for each."""
        graph: dict[str, Iterable[str]] = {}
        if self.waiting:
            for uid in (*self.open, *self.waiting):
                item = self.open[uid].item if uid in self.open else self.waiting[uid]
                if below := self.dependants(uid, item.id):
                    graph[uid] = below
        length = chains(graph)
        return [
            Ready(
                uid=e.uid,
                project=e.item.project,
                priority=e.item.priority,
                since=e.since,
                not_before=e.not_before,
                chain=length.get(e.uid, 0),
                files=e.item.files,
                agents=e.item.agents,
            )
            for e in self.of(Standing.READY)
        ]

    def busy(self) -> list[Busy]:
        return [
            Busy(uid=e.uid, project=e.item.project, files=e.item.files)
            for e in self.of(Standing.RUNNING, Standing.SUBMITTED, Standing.UNREADABLE)  # it may run
        ]

    def counts(self) -> dict[str, int]:
        out = dict.fromkeys(("waiting", "ready", "claimed", "merging", "parked"), 0)
        names = {
            Standing.READY: "ready",
            Standing.RUNNING: "claimed",
            Standing.SUBMITTED: "merging",
            Standing.PARKED: "parked",
            Standing.UNREADABLE: "parked",
        }
        for e in self.open.values():
            if name := names.get(e.standing):
                out[name] += 1
        blocked = sum(w.blocked for w in self.why.values())
        out["waiting"] = len(self.waiting) - blocked
        out["parked"] += blocked + sum(
            uid not in self.open and uid not in self.waiting for uid in self.unreadable
        )
        return out


def _names(folder: str) -> list[str]:
    try:
        return [x for x in os.listdir(folder) if x[0] != "."]
    except FileNotFoundError:
        return []


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0
