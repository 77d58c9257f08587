"""What was told already: an item that is parked is news once, also to those who follow several coordinators.

Kept in state/run/, where a loss costs a repeated event. Between an event and the note that it was told we may die: then
the next coordinator says it again (at least once).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from harness import reports
from harness.coordinator.index import Entry
from harness.dataclass import dataclass
from harness.events import EventStream
from harness.layout import Layout
from harness.logs import Event
from harness.reports import ToldReport


@dataclass(slots=True)
class News:
    layout: Layout
    events: EventStream
    told: set[str] = field(default_factory=set)
    """uid.n of what is parked, as far as it was said."""
    _saved: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Remember what an earlier coordinator has told."""
        report = reports.read(reports.told_path(self.layout), ToldReport)
        self.told = set(report.parked) if report else set()
        self._saved = set(self.told)

    def parked(self, entry: Entry) -> None:
        """Say that this item is parked, unless it was said."""
        mark = _mark(entry)
        if mark in self.told:
            return
        self.told.add(mark)
        self.events.emit(Event.ITEM_PARKED, uid=entry.uid, id=entry.item.id, n=entry.n, reason=entry.reason)

    def save(self) -> None:
        """To be called in every tick: writes only what changed."""
        if self.told != self._saved:
            reports.write(reports.told_path(self.layout), ToldReport(parked=tuple(sorted(self.told))))
            self._saved = set(self.told)

    def keep_only(self, parked: Iterable[Entry]) -> None:
        """Forget what is parked no more."""
        self.told &= {_mark(entry) for entry in parked}


def _mark(entry: Entry) -> str:
    return f"{entry.uid}.{entry.n}"
