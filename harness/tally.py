"""Counting the items of a store without a coordinator: how many are in which state, and which are parked.

Cost: one listing an item that was never tried, a few small reads for the others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from harness.clock import SystemClock
from harness.dataclass import dataclass
from harness.errors import UnreadableRecordError
from harness.layout import Layout
from harness.model import State, Stub
from harness.store.cells import stub_path
from harness.store.disk import Disk
from harness.store.view import Seen, View

SHOWN = 100
"""Parked items that are named; the others are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    counts: dict[str, int]
    """State -> number of items."""
    parked: list[dict[str, Any]] = field(default_factory=list)
    """The first of them: uid, id ("" when a record is damaged), reason."""


def tally(layout: Layout) -> Tally:
    """Counts every item of the store, by looking."""
    disk = Disk(layout, SystemClock(), durable=False)
    try:
        return _tally(disk, View(disk))
    finally:
        disk.close()


def _tally(disk: Disk, view: View) -> Tally:
    counts: Counter[str] = Counter()
    parked: list[dict[str, Any]] = []
    for seen in _live(disk, view):
        state = seen if isinstance(seen, State) else seen.state
        counts[state.value] += 1
        if isinstance(seen, Seen) and state is State.PARKED and len(parked) < SHOWN:
            parked.append({"uid": seen.uid, "id": seen.id if seen.item else "", "reason": seen.reason})
    counts[State.INCOMING] += len(view.uids("incoming"))
    counts[State.REJECTED] += len(view.uids("rejected"))
    for uid in (uid for _, uid in view.archived()):
        try:
            stub = disk.do_read(stub_path(uid), Stub)
        except UnreadableRecordError:
            stub = None  # fsck says it
        counts[stub.outcome if isinstance(stub, Stub) else State.DONE.value] += 1
    return Tally(counts={state: number for state, number in counts.items() if number}, parked=parked)


def _live(disk: Disk, view: View) -> Iterator[Seen | State]:
    """Every item in open/ and waiting/; of those that were never tried only the state."""
    base = f"{disk.layout.queue}/open/"
    for uid in view.uids("open"):
        if _untried(base + uid):
            yield State.READY
        elif seen := view.open_item(uid):
            yield seen
    for uid in view.uids("waiting"):
        if seen := view.waiting_item(uid):
            yield seen


def _untried(folder: str) -> bool:
    """Whether an item's folder holds its snapshot and no cell: what most of a long backlog looks like."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return "item.json" in names and not any(name[0].isdecimal() for name in names)
