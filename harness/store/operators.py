"""What people do to items: cancel, hold (park), stop, retry. Every act that forbids running consumes a number.

An act is decided by a cell before anything is killed. `Answer` says what is true at that moment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from harness.dataclass import dataclass
from harness.model import Act, Claim, End, Grant, Outcome, VerdictKind
from harness.store import ops
from harness.store.attempts import COMPLETION
from harness.store.cells import Actor, Look, Standing, Won, claim_of, look, publish, take_number
from harness.store.ops import Step
from harness.store.promotion import move_to_open

TRIES = 1000
"""An operator loops until its act is decided; each turn means that somebody else moved the item on."""


class Said(StrEnum):
    DONE = "done"  # the act stands
    TOO_LATE = "too late"  # the item is over, otherwise
    NOT_NOW = "not now"  # hold: a result is being judged; retry: the item is not parked
    UNKNOWN = "unknown"  # no such item in open/ or waiting/
    DAMAGED = "damaged"  # one of its records cannot be read: nobody decides anything on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The fact after the act; `n` is the attempt it was decided on; `sha` when it was merged already."""

    said: Said
    n: int = 0
    sha: str | None = None
    detail: str = ""


class Judge(Protocol):
    """`lane.judge` bound to the item's project: decides a submitted attempt under the lane. False: lane lost."""

    def __call__(self, uid: str, n: int, *, cancel_by: str, why: str) -> Step[bool]: ...


def _decide(actor: Actor, uid: str, n: int, outcome: Outcome, by: str, why: str) -> Step[Won]:
    record = End(n=n, outcome=outcome, by=by, reason=why, ended_at=actor.stamp())
    won, _ = yield from publish(actor, "end", record, f"queue/open/{uid}/{n}.end")
    return won


def _overrule(actor: Actor, uid: str, n: int, outcome: Outcome, by: str, why: str) -> Step[bool]:
    """Decide a running attempt, then stop it. False: look again, somebody else decided it.

    An operator's claim without its end is not overruled but completed, as by expiry: an end that is not its act's would
    undo what a person may have been told already.
    """
    claimed = yield from claim_of(uid, n)
    if claimed is None:
        return False
    if claimed.act is not Act.RUN:
        yield from _decide(actor, uid, n, COMPLETION[claimed.act], claimed.owner.name, "")
        return False
    if (yield from _decide(actor, uid, n, outcome, by, why)) is not Won.YES:
        return False
    yield from ops.interrupt(uid, n)
    return True


def _consume(actor: Actor, seen: Look, act: Act, outcome: Outcome, by: str, why: str) -> Step[bool]:
    """Claim the next number as operator and end it at once. Killed in between: anybody completes it, by its act."""
    uid, n = seen.uid, seen.n + 1
    assert seen.item is not None
    record = Claim(n=n, act=act, owner=actor.identity, claimed_at=actor.stamp())
    won, ticket = yield from take_number(actor, seen.item, record)
    if won is not Won.YES:
        return False
    yield from _decide(actor, uid, n, outcome, by, why)
    yield from ops.unlock(ticket)
    yield from ops.unhint(uid)
    return True


def make_durable(uid: str) -> Step[None]:
    """A decision that may be another's, wherever its item is by now, before a person is told."""
    yield from ops.fsync_dir(f"queue/waiting/{uid}")
    yield from ops.fsync_dir(f"queue/open/{uid}")  # not there either: archived, and durable before that


def hold(actor: Actor, uid: str, by: str, why: str) -> Step[Answer]:
    """Park: nothing of this item runs again before a retry. A running attempt is decided, then interrupted."""
    for _ in range(TRIES):
        seen = yield from look(uid)
        match seen.standing:
            case Standing.GONE:
                return Answer(said=Said.UNKNOWN)
            case Standing.UNREADABLE:
                return Answer(said=Said.DAMAGED, detail=seen.trouble)
            case Standing.OVER:
                return (yield from _too_late(seen))
            case Standing.SUBMITTED:
                return Answer(
                    said=Said.NOT_NOW, n=seen.n, detail="its result is being merged; wait for the verdict"
                )
            case Standing.RUNNING:
                if (yield from _overrule(actor, uid, seen.n, Outcome.HELD, by, why)):
                    return Answer(said=Said.DONE, n=seen.n)
            case Standing.READY | Standing.PARKED:
                if (yield from _consume(actor, seen, Act.HOLD, Outcome.HELD, by, why)):
                    return Answer(said=Said.DONE, n=seen.n + 1)
    return Answer(said=Said.NOT_NOW, detail="it changes too fast; try again")


def stop(actor: Actor, uid: str, n: int, by: str, why: str, not_before: str | None = None) -> Step[bool]:
    """Give a running attempt back (recycle, scale-down, reboot): decided first, then interrupted. Costs no attempt."""
    record = End(
        n=n, outcome=Outcome.RELEASED, by=by, reason=why, not_before=not_before, ended_at=actor.stamp()
    )
    claimed = yield from claim_of(uid, n)
    if claimed is None or claimed.act is not Act.RUN:  # what a person forbade is not given back
        return False
    won, _ = yield from publish(actor, "end", record, f"queue/open/{uid}/{n}.end")
    if won is Won.YES:
        yield from ops.interrupt(uid, n)
    return won is Won.YES


def cancel(actor: Actor, uid: str, by: str, why: str, judge: Judge) -> Step[Answer]:
    """Forbid the item for ever, wherever it is; loops until that, or something else terminal, is a fact."""
    zero = End(n=0, outcome=Outcome.CANCELLED, by=by, reason=why, ended_at=actor.stamp())
    if (yield from ops.ls(f"queue/waiting/{uid}")) is not None:
        won, _ = yield from publish(actor, "end", zero, f"queue/waiting/{uid}/0.end")
        if won is not Won.GONE:
            yield from make_durable(uid)
            yield from move_to_open(uid, 9)
            return Answer(said=Said.DONE)
    for _ in range(TRIES):
        seen = yield from look(uid)
        match seen.standing:
            case Standing.GONE:
                return Answer(said=Said.UNKNOWN)
            case Standing.UNREADABLE:
                return Answer(said=Said.DAMAGED, detail=seen.trouble)
            case Standing.OVER:
                if _cancelled(seen):
                    yield from make_durable(uid)  # somebody else's verdict or end: it was only seen
                    return Answer(said=Said.DONE, n=seen.n)
                return (yield from _too_late(seen))
            case Standing.SUBMITTED:
                yield from judge(uid, seen.n, cancel_by=by, why=why)
            case Standing.RUNNING:
                if (yield from _overrule(actor, uid, seen.n, Outcome.CANCELLED, by, why)):
                    return Answer(said=Said.DONE, n=seen.n)
            case Standing.READY | Standing.PARKED:
                if (yield from _consume(actor, seen, Act.CANCEL, Outcome.CANCELLED, by, why)):
                    return Answer(said=Said.DONE, n=seen.n + 1)
    return Answer(said=Said.NOT_NOW, detail="it changes too fast; try again")


def retry(actor: Actor, uid: str, by: str, why: str, extra: int = 1, mode: str = "fresh") -> Step[Answer]:
    """Allow a parked item one more run (`extra` attempts); an item that waits may run without waiting."""
    if (yield from ops.ls(f"queue/waiting/{uid}")) is not None:
        zero = Grant(n=0, extra=0, by=by, why=why, mode=mode, granted_at=actor.stamp())
        won, _ = yield from publish(actor, "grant", zero, f"queue/waiting/{uid}/0.grant")
        if (yield from ops.read(f"queue/waiting/{uid}/0.end", End)) is not None:
            # By somebody who has not moved it yet.
            yield from make_durable(uid)
            return Answer(said=Said.TOO_LATE, detail="it is cancelled already")
        if won is not Won.GONE:
            yield from make_durable(uid)
            return Answer(
                said=Said.DONE,
                detail="it runs without waiting" if won is Won.YES else "it was allowed already",
            )
    seen = yield from look(uid)
    match seen.standing:
        case Standing.GONE:
            return Answer(said=Said.UNKNOWN)
        case Standing.UNREADABLE:
            return Answer(said=Said.DAMAGED, detail=seen.trouble)
        case Standing.OVER:
            return (yield from _too_late(seen))
        case Standing.PARKED:
            record = Grant(n=seen.n, extra=extra, by=by, why=why, mode=mode, granted_at=actor.stamp())
            won, _ = yield from publish(actor, "grant", record, f"queue/open/{uid}/{seen.n}.grant")
            if won is Won.GONE:
                return Answer(said=Said.UNKNOWN)
            if won is Won.LOST:
                yield from make_durable(uid)
            if seen.item:
                yield from ops.hint(uid, seen.item.priority)
            return Answer(said=Said.DONE, n=seen.n, detail="" if won is Won.YES else "it was retried already")
        case _:
            return Answer(said=Said.NOT_NOW, n=seen.n, detail=f"it is {seen.standing.value}, not parked")


def _cancelled(seen: Look) -> bool:
    last = seen.last
    if isinstance(last, End):
        return last.outcome is Outcome.CANCELLED
    return last is not None and last.kind is VerdictKind.CANCELLED


def _too_late(seen: Look) -> Step[Answer]:
    yield from make_durable(seen.uid)
    last = seen.last
    if isinstance(last, End):
        return Answer(said=Said.TOO_LATE, n=seen.n, detail=f"it is {last.outcome.value} already")
    sha = last.merged if last else None
    return Answer(
        said=Said.TOO_LATE,
        n=seen.n,
        sha=sha,
        detail=f"already merged as {sha}" if sha else "it is cancelled already",
    )
