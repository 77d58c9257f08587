"""Which items are meant: by name, or by what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from harness.control.desk import Desk
from harness.dataclass import dataclass
from harness.model import TERMINAL, State
from harness.store.view import Seen

LIVE = frozenset(State) - TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """All that is given must hold. Without `states` only items that are not over are meant, unless `everything`."""

    states: frozenset[State] = frozenset()
    project: str = ""
    convoy: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False

    @property
    def empty(self) -> bool:
        """Whether it would choose every item that is not over."""
        return not (self.states or self.project or self.convoy or self.labels or self.everything)

    def wants(self, state: State) -> bool:
        if self.states:
            return state in self.states
        return self.everything or state in LIVE

    def matches(self, seen: Seen) -> bool:
        item = seen.item
        if not self.wants(seen.state):
            return False
        if item is None:  # not admitted, so that it has none of these
            return not (self.project or self.convoy or self.labels)
        return (
            (not self.project or item.project == self.project)
            and (not self.convoy or item.convoy == self.convoy)
            and all(item.labels.get(key) == value for key, value in self.labels.items())
        )


def items(desk: Desk, wanted: Filter) -> Iterator[Seen]:
    """Items that match: those in work first, then what waits, then what is over, newest first. Not a snapshot."""
    for seen in _everywhere(desk, wanted):
        if seen is not None and wanted.matches(seen):
            yield seen


def _everywhere(desk: Desk, wanted: Filter) -> Iterator[Seen | None]:
    view = desk.view
    if wanted.states & LIVE or not wanted.states:
        for uid in view.uids("open"):
            yield view.open_item(uid)
        for uid in view.uids("waiting"):
            yield view.waiting_item(uid)
        for uid in view.uids("incoming"):
            yield Seen(uid=uid, state=State.INCOMING, place=f"queue/incoming/{uid}")
    if any(wanted.wants(state) for state in TERMINAL - {State.REJECTED}):
        if not wanted.states & LIVE and wanted.states:
            for uid in view.uids("open"):  # over, and not archived yet
                yield view.open_item(uid)
        for day, uid in view.archived():
            yield view.archived_item(uid, day)
    if wanted.wants(State.REJECTED):
        for uid in view.uids("rejected"):
            yield view.rejected_item(uid)


def named(desk: Desk, names: Sequence[str]) -> list[Seen]:
    """Items by id, uid or unique prefix; all names are looked up before anything is returned."""
    found: dict[str, Seen] = {}
    for name in names:
        seen = desk.view.find(name)
        found.setdefault(seen.uid, seen)
    return list(found.values())
