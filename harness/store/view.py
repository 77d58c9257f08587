"""Reading the store for people: which items there are, where, and in what state. Never writes, never decides.

What is read is not a snapshot: an item that moves while it is read is looked for again, and may be seen in its old or
in its new place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.dataclass import dataclass
from harness.errors import ConflictError, NotFoundError, UnreadableRecordError
from harness.layout import Layout
from harness.model import (
    UID,
    Attempt,
    Claim,
    End,
    Grant,
    Item,
    Outcome,
    State,
    Stub,
    Verdict,
    VerdictKind,
)
from harness.store import ops
from harness.store.cells import Standing, look, numbers, parking_reason, stub_path
from harness.store.decisions import Decision
from harness.store.disk import Disk
from harness.store.names import Name, name_path, newest_of
from harness.store.promotion import Waiting, why_waiting

STATES = {
    Standing.READY: State.READY,
    Standing.RUNNING: State.RUNNING,
    Standing.SUBMITTED: State.MERGING,
    Standing.PARKED: State.PARKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One item as people see it. `place` is its folder, relative to the root."""

    uid: str
    state: State
    place: str
    item: Item | None = None
    attempts: tuple[Attempt, ...] = ()
    zero: End | None = None
    """0.end: cancelled while it waited."""
    waits_for: tuple[str, ...] = ()
    blocked: bool = False
    reason: str = ""
    """Why it is parked, rejected, cancelled or waiting, in words. Of a ready item: `control.holdups`."""

    @property
    def id(self) -> str:
        return self.item.id if self.item else self.uid

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None


class View:
    """Reads through one Disk (which must not be shared with a thread that runs protocol generators)."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._layout: Layout = disk.layout

    def uids(self, phase: str) -> list[str]:
        """Names in a phase; days of archive/ and batches/ are flattened by `archived`."""
        return list(self._disk.do_ls(f"queue/{phase}") or ())

    def archived(self, newest_first: bool = True) -> Iterator[tuple[str, str]]:
        """(day, uid) of the archive."""
        for day in sorted(self.uids("archive"), reverse=newest_first):
            for uid in self._disk.do_ls(f"queue/archive/{day}") or ():
                yield day, uid

    def open_item(self, uid: str) -> Seen | None:
        """An item in open/; None when it is not there."""
        return self._shown(uid, f"queue/open/{uid}", State.PARKED, self._open)

    def waiting_item(self, uid: str) -> Seen | None:
        return self._shown(uid, f"queue/waiting/{uid}", State.PARKED, self._waiting)

    def archived_item(self, uid: str, day: str) -> Seen | None:
        place = f"queue/archive/{day}/{uid}"
        try:
            return self._archived(uid, place)
        except UnreadableRecordError as e:
            return Seen(uid=uid, state=self._by_stub(uid), place=place, reason=str(e))

    def _by_stub(self, uid: str) -> State:
        """What its stub says of an item that is over; parked, for a person, when that cannot be read either."""
        try:
            stub = self._disk.do_read(stub_path(uid), Stub)
        except UnreadableRecordError:
            stub = None
        known = {state.value: state for state in (State.MERGED, State.DONE, State.CANCELLED)}
        return known.get(stub.outcome, State.PARKED) if isinstance(stub, Stub) else State.PARKED

    def rejected_item(self, uid: str) -> Seen | None:
        return self._shown(uid, f"queue/rejected/{uid}", State.REJECTED, self._rejected)

    @staticmethod
    def _shown(uid: str, place: str, state: State, read: Callable[[str, str], Seen | None]) -> Seen | None:
        """An item with a record that cannot be read says so, in `state`; it keeps nobody from seeing the others."""
        try:
            return read(uid, place)
        except UnreadableRecordError as e:
            return Seen(uid=uid, state=state, place=place, reason=str(e))

    def _open(self, uid: str, place: str) -> Seen | None:
        seen = self._disk.run(look(uid))
        if seen.standing is Standing.UNREADABLE:
            return Seen(uid=uid, state=State.PARKED, place=place, reason=seen.trouble)
        if seen.standing is Standing.GONE or seen.item is None:
            return None
        if seen.standing is Standing.OVER:
            return self._over(uid, place, seen.item)
        attempts = self._with_claims(place, seen.attempts)
        reason = parking_reason(seen.item, attempts) if seen.standing is Standing.PARKED else ""
        state = STATES[seen.standing]
        return Seen(uid=uid, state=state, place=place, item=seen.item, attempts=attempts, reason=reason)

    def _waiting(self, uid: str, place: str) -> Seen | None:
        item = self._disk.do_read(f"{place}/item.json", Item)
        if not isinstance(item, Item):
            return None
        why: Waiting = self._disk.run(why_waiting(item))
        return Seen(
            uid=uid,
            state=State.PARKED if why.blocked else State.WAITING,
            place=place,
            item=item,
            waits_for=why.for_,
            blocked=why.blocked,
            reason=("; ".join(why.for_)),
        )

    def _archived(self, uid: str, place: str) -> Seen | None:
        item = self._disk.do_read(f"{place}/item.json", Item)
        return self._over(uid, place, item) if isinstance(item, Item) else None

    def _rejected(self, uid: str, place: str) -> Seen | None:
        why = self._disk.do_read(f"{place}/why.json", Decision)
        if not isinstance(why, Decision):
            return None
        return Seen(uid=uid, state=State.REJECTED, place=place, reason="\n".join(why.rejected))

    def item(self, uid: str) -> Seen | None:
        """The item wherever it is. Tries twice: it may move between two looks."""
        for _ in range(2):
            if seen := self.open_item(uid) or self.waiting_item(uid):
                return seen
            try:
                stub = self._disk.do_read(stub_path(uid), Stub)
            except UnreadableRecordError:  # its folder is somewhere
                days = (day for day, name in self.archived() if name == uid)
                if seen := self.rejected_item(uid) or self.archived_item(uid, next(days, "")):
                    return seen
                continue
            if isinstance(stub, Stub) and stub.outcome == "rejected":
                if seen := self.rejected_item(uid):
                    return seen
            elif isinstance(stub, Stub) and (seen := self.archived_item(uid, stub.day)):
                return seen
            if self._disk.do_ls(f"queue/incoming/{uid}") is not None:
                return Seen(uid=uid, state=State.INCOMING, place=f"queue/incoming/{uid}")
        return None

    def all_live(self) -> Iterator[Seen]:
        """Every item in waiting/ and open/. Cost: a few system calls an item."""
        for uid in self.uids("open"):
            if seen := self.open_item(uid):
                yield seen
        for uid in self.uids("waiting"):
            if seen := self.waiting_item(uid):
                yield seen

    def find(self, name: str) -> Seen:
        """By uid, id (the newest that had it) or a unique prefix of a live uid or id.

        Raises NotFoundError with what is near, ConflictError when a prefix is not unique.
        """
        if not name:  # the beginning of every name
            raise NotFoundError("an item without a name", remedy="list them: harnessctl items --all")
        if UID.match(name) and (seen := self.item(name)):
            return seen
        holder, k = self._disk.run(newest_of(name))
        while holder is not None:
            if seen := self.item(holder.uid):
                return seen
            k -= 1
            holder = self._disk.run(ops.read(name_path(name, k), Name)) if k else None
        matches = [
            u for phase in ("open", "waiting") for u in self.uids(phase) if name and u.startswith(name)
        ]
        matches += [u for _, u in self.archived() if u.startswith(name)] if not matches else []
        matches += [u for u in self.uids("rejected") if u.startswith(name)] if not matches else []
        if len(matches) > 1:
            shown = ", ".join(sorted(matches)[:5])
            raise ConflictError(f"{name!r} is not unique: {shown}", remedy="write more of it")
        if matches and (seen := self.item(matches[0])):
            return seen
        raise NotFoundError(f"there is no item {name!r}", remedy="list them: harnessctl items --all")

    def _over(self, uid: str, place: str, item: Item) -> Seen | None:
        """None: it was moved meanwhile, and what was read of it may not be all."""
        names = self._disk.do_ls(place) or ()
        zero = self._disk.do_read(f"{place}/0.end", End)
        attempts = self._with_claims(
            place, tuple(Attempt(n=k, claim=None) for k in range(1, numbers(names) + 1))
        )
        state, reason = State.DONE, ""
        last = attempts[-1] if attempts else None
        if last and last.verdict:
            state = State.MERGED if last.verdict.kind is VerdictKind.MERGED else State.CANCELLED
            reason = last.verdict.why
        elif last and last.end and last.end.outcome is Outcome.CANCELLED:
            state, reason = State.CANCELLED, f"by {last.end.by} {last.end.reason}".strip()
        elif isinstance(zero, End):
            state, reason = State.CANCELLED, f"by {zero.by} {zero.reason}".strip()
        zero_end = zero if isinstance(zero, End) else None
        if self._disk.do_ls(place) is None:
            return None
        return Seen(
            uid=uid, state=state, place=place, item=item, attempts=attempts, zero=zero_end, reason=reason
        )

    def _with_claims(self, place: str, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        full: list[Attempt] = []
        for a in attempts:
            end = a.end or self._disk.do_read(f"{place}/{a.n}.end", End)
            try:
                claim = self._disk.do_read(f"{place}/{a.n}.claim", Claim)
            except UnreadableRecordError:
                if end is None:
                    raise  # nobody can say whose it is, and it stops the item
                claim = None  # decided without it; fsck names it
            verdict = a.verdict or self._disk.do_read(f"{place}/{a.n}.verdict", Verdict)
            grant = a.grant or self._disk.do_read(f"{place}/{a.n}.grant", Grant)
            full.append(
                replace(
                    a,
                    claim=claim if isinstance(claim, Claim) else None,
                    end=end if isinstance(end, End) else None,
                    verdict=verdict if isinstance(verdict, Verdict) else None,
                    grant=grant if isinstance(grant, Grant) else None,
                )
            )
        return tuple(full)
