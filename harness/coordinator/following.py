"""What follows from a change of an item: it is finished, its parking told, its dependants promoted, its dead owner's
attempt ended. Every verb may be repeated, by anybody; the index says what is worth looking at.
"""

from __future__ import annotations

from harness.coordinator.index import Entry, Index
from harness.coordinator.news import News
from harness.dataclass import dataclass
from harness.errors import UnreadableRecordError
from harness.events import EventStream
from harness.logs import Event
from harness.model import Outcome
from harness.store import attempts, promotion
from harness.store.cells import Actor, Standing
from harness.store.disk import Disk


@dataclass(slots=True)
class Following:
    actor: Actor
    disk: Disk
    events: EventStream
    index: Index
    news: News

    def touch(self, uid: str) -> None:
        """Look at this item now."""
        known = self.index.open.get(uid)
        entry = self.index.look_at(uid)
        if entry is not None:
            self._noticed(entry)
        elif known is not None and uid not in self.index.open:
            self._left(known)

    def changed(self) -> None:
        """Look at what runs or is judged, and may have changed."""
        for entry in list(self.index.of(Standing.RUNNING, Standing.SUBMITTED)):
            if self.index.may_differ(entry.uid):
                self.touch(entry.uid)

    def everything(self) -> None:
        """The slow truth: all items, whoever should have come to them."""
        for entry in self.index.sweep():
            self._noticed(entry)
        for entry in list(self.index.of(Standing.OVER)):
            self._noticed(entry)
        self.expire_dead()
        self.news.keep_only(self.index.of(Standing.PARKED))
        for uid in list(self.index.waiting):
            self._promote(uid)

    def expire_dead(self) -> None:
        """End the attempts of all owners that are dead, or hung."""
        for entry in list(self.index.of(Standing.RUNNING)):
            self.expire(entry.uid, entry.n)

    def expire(self, uid: str, n: int) -> None:
        """The same for one attempt. One whose claim is damaged is left alone, and said to be."""
        try:
            outcome = self.disk.run(attempts.expire(self.actor, uid, n))
        except UnreadableRecordError as e:
            self.index.note(uid, str(e))
            return
        if outcome is None:
            return
        event = Event.ATTEMPT_EXPIRED if outcome is Outcome.EXPIRED else Event.ATTEMPT_ENDED
        self.events.emit(event, uid=uid, n=n, outcome=outcome.value)
        self.touch(uid)

    def promote_new(self) -> None:
        """What began to wait since the last tick; the rest is asked again in every sweep, or when a dependency is over."""
        for uid in [u for u in self.index.waiting if u not in self.index.why]:
            self._promote(uid)

    def _noticed(self, entry: Entry) -> None:
        if entry.standing is Standing.OVER:
            self._finish(entry)
        elif entry.standing is Standing.PARKED:
            self.news.parked(entry)

    def _finish(self, entry: Entry) -> None:
        try:
            finished = self.disk.run(attempts.archive(entry.uid))
        except UnreadableRecordError as e:
            self.index.note(entry.uid, str(e))
            return
        self.index.look_at(entry.uid)
        if finished is None:
            return
        if finished.here:
            self.events.emit(
                Event.ITEM_FINISHED,
                uid=entry.uid,
                id=entry.item.id,
                outcome=finished.stub.outcome,
                sha=finished.stub.sha,
            )
        self._left(entry)

    def _left(self, entry: Entry) -> None:
        """An item was finished (by whomever): its dependants may be eligible now."""
        for uid in list(self.index.dependants(entry.uid, entry.item.id)):
            self._promote(uid)

    def _promote(self, uid: str) -> None:
        item = self.index.waiting.get(uid)
        if item is None:
            return
        try:
            why = self.disk.run(promotion.promote(item))
        except UnreadableRecordError as e:
            self.index.note(uid, str(e))
            self.index.why[uid] = promotion.Waiting(for_=(e.what,), blocked=True)
            return
        if why is not None:
            self.index.why[uid] = why
            return
        self.index.left_waiting(uid)
        self.events.emit(Event.ITEM_PROMOTED, uid=uid, id=item.id)
        entry = self.index.open.get(uid)
        if entry is not None:
            self._noticed(entry)
