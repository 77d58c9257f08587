"""Attempts: claim, end, expire, finish. The attempt's number is its fencing token.

Exactly one process owns attempt n, because one link made `n.claim`; exactly one end stands, because one link made
`n.end`. Who loses either race knows it for certain, publishes nothing, and salvages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from harness.dataclass import dataclass
from harness.errors import StoreError, UnreadableRecordError
from harness.model import Act, Attempt, Claim, End, Item, Outcome, Stub
from harness.store import ops
from harness.store.cells import (
    Actor,
    Look,
    Standing,
    Won,
    claim_of,
    look,
    publish,
    set_stub,
    stub_of,
    take_number,
)
from harness.store.ops import Moved, Step

COMPLETION = {Act.RUN: Outcome.EXPIRED, Act.HOLD: Outcome.HELD, Act.CANCEL: Outcome.CANCELLED}
"""How a claim without an end is completed when its owner is dead: an operator's act is carried out, never expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Attempt n is ours until `end`. `ticket` keys the open, locked file description of `n.claim`."""

    uid: str
    n: int
    item: Item
    attempts: tuple[Attempt, ...]
    """The earlier attempts, with their evidence."""
    ticket: str
    branch: str


class Ended(StrEnum):
    """What became of an owner's end."""

    WON = "won"
    SUPERSEDED = "superseded"  # decided by another: kill the own tree, salvage, give up the worktree


def branch_of(uid: str, n: int) -> str:
    return f"harness/{uid}/{n}"


def claim(
    actor: Actor,
    uid: str,
    *,
    patient: bool = False,
    fit: Callable[[Item, Sequence[Attempt]], bool] | None = None,
) -> Step[Claimed | Look]:
    """Try to own the next attempt. -> Claimed, or the Look that says why not (its hint is then wrong).

    `patient`: respect the backoff of the last end, as the coordinator does when it withholds a hint. `fit`: asked of the
    item and its earlier attempts; False: it is left alone.

    Guarantees: at most one process gets (uid, n), ever; the claim is locked before anybody can see it and durable
    on return. Side effects of the attempt may start only now.
    """
    seen = yield from look(uid)
    if seen.standing is not Standing.READY or seen.item is None:
        return seen
    delayed = seen.last.not_before if isinstance(seen.last, End) and not seen.attempts[-1].grant else None
    if patient and delayed and not (yield from ops.passed(delayed)):
        return seen
    if fit is not None and not fit(seen.item, seen.attempts):
        return seen
    n = seen.n + 1
    record = Claim(n=n, act=Act.RUN, owner=actor.identity, claimed_at=actor.stamp(), branch=branch_of(uid, n))
    won, ticket = yield from take_number(actor, seen.item, record)
    if won is not Won.YES:
        return Look(
            uid=uid, n=n, standing=Standing.RUNNING if won is Won.LOST else Standing.GONE, item=seen.item
        )
    yield from ops.unhint(uid)
    return Claimed(uid=uid, n=n, item=seen.item, attempts=seen.attempts, ticket=ticket, branch=record.branch)


def end(actor: Actor, owned: Claimed, record: End) -> Step[Ended]:
    """Decide the own attempt. The commit that `record.sha` names is durable and pinned before this is called.

    Raises StoreError when the item's folder is gone and nobody decided the attempt: the store was moved (R7); the
    caller salvages, reports and ends the process.
    """
    # All that it builds on is the own claim, durable since it was won.
    won, _ = yield from publish(actor, "end", record, f"queue/open/{owned.uid}/{owned.n}.end", helping=False)
    if won is Won.GONE and (yield from stub_of(owned.uid)) is None:
        raise StoreError(
            f"attempt {owned.n} of {owned.uid} cannot be ended: its folder is gone and nobody finished it",
            where=f"queue/open/{owned.uid}",
            remedy="was queue/ moved or restored? put it back, or run: harnessctl fsck",
        )
    yield from ops.unlock(owned.ticket)
    return Ended.WON if won is Won.YES else Ended.SUPERSEDED


def abandon(owned: Claimed) -> Step[None]:
    """Close the ticket of an attempt that another has decided."""
    yield from ops.unlock(owned.ticket)


def decided(owned: Claimed) -> Step[End | None]:
    """The end of an attempt that its owner believes to run: cancelled, held, released or expired by another.

    Also of an item that was archived before its owner looked: whoever cancels a running item finishes it at once.
    """
    cell = f"{owned.uid}/{owned.n}.end"
    end = yield from ops.read(f"queue/open/{cell}", End)
    if end is not None or (stub := (yield from stub_of(owned.uid))) is None:
        return end
    return (yield from ops.read(f"queue/archive/{stub.day}/{cell}", End)) or (
        yield from ops.read(f"queue/open/{cell}", End)  # decided and finished since we looked, not moved yet
    )


def expire(actor: Actor, uid: str, n: int) -> Step[Outcome | None]:
    """Complete attempt n of a dead (or hung) owner. -> how, or None: it lives, or another was first.

    What is left of the attempt is killed first, so that nothing of it runs beside attempt n+1.
    """
    claimed = yield from ops.suspect(f"queue/open/{uid}/{n}.claim")
    if claimed is None or (yield from _closed(uid, n)):
        return None
    if claimed.act is Act.RUN and not (yield from ops.clear(uid, claimed)):
        return None
    outcome = COMPLETION[claimed.act]
    record = End(n=n, outcome=outcome, by=actor.name, reason=_reason(claimed), ended_at=actor.stamp())
    won, _ = yield from publish(actor, "expire", record, f"queue/open/{uid}/{n}.end")
    return outcome if won is Won.YES else None


def _closed(uid: str, n: int) -> Step[bool]:
    """Whether attempt n has an end, or its item was moved. An owner lets go of its claim after the end: a free lock
    is the mark of a dead owner only while there is none."""
    try:
        if (yield from ops.read(f"queue/open/{uid}/{n}.end", End)) is not None:
            return True
        return (yield from claim_of(uid, n)) is None  # moved before we read: its end went with it
    except UnreadableRecordError:
        return True


def _reason(claimed: Claim) -> str:
    who = claimed.owner.name or claimed.owner.incarnation
    if claimed.act is Act.RUN:
        return f"{who} (pid {claimed.owner.pid}) died or hung"
    return f"completed for {who}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """An item that is over."""

    stub: Stub
    here: bool
    """This call moved it into the archive. Of all who finish an item at most one is told so: it tells others."""


def finish(uid: str) -> Step[Stub | None]:
    """T6. -> the stub when the item is over (by whomever), else None."""
    done = yield from archive(uid)
    return done.stub if done else None


def archive(uid: str, mine: End | None = None) -> Step[Archived | None]:
    """T6, idempotent: stub, then archive. -> None when the item is not over.

    `mine`: the terminal end that the caller has just won with `end`; then nothing needs to be read.
    """
    home = f"queue/open/{uid}"
    if mine is not None:
        stub, cell = Stub.of(mine), f"{home}/{mine.n}.end"
    else:
        seen = yield from look(uid)
        if seen.standing is not Standing.OVER or seen.last is None:
            known = (yield from stub_of(uid)) if seen.standing is Standing.GONE else None
            return Archived(stub=known, here=False) if known else None
        yield from ops.fsync_dir(home)  # never act on a fact that can vanish
        stub, cell = Stub.of(seen.last), f"{home}/{seen.n}.{seen.last.what}"
    yield from set_stub(uid, cell)
    yield from ops.ensure_dir(f"queue/archive/{stub.day}")
    moved = yield from ops.rename(home, f"queue/archive/{stub.day}/{uid}")
    # The move is not made durable: the stub is, so an item that a power loss brings back to open/ is only moved again.
    if moved is Moved.OK:
        yield from ops.unhint(uid)
    return Archived(stub=stub, here=moved is Moved.OK)
