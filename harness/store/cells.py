"""Cells: the one primitive that sets them, and what a set of them means for an item.

`publish` is the only writer of cells in the project. `look` is the only reader that decides.
PROTOCOL: a cell is set once by link(2), never changed; the first link wins and the loser knows it for certain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import field
from enum import StrEnum

from harness.dataclass import dataclass
from harness.errors import StoreError, UnreadableRecordError
from harness.layout import fan
from harness.model import (
    LONG_AGO,
    MAX_RELEASES,
    Attempt,
    Claim,
    CommitPolicy,
    End,
    Grant,
    Identity,
    Item,
    Outcome,
    Record,
    Stub,
    Verdict,
    VerdictKind,
)
from harness.store import ops
from harness.store.ops import Linked, Step

SPENDING = frozenset({Outcome.FAILED, Outcome.EXPIRED})


class Won(StrEnum):
    """What became of an attempt to set a cell."""

    YES = "won"
    LOST = "lost"  # another process set it first
    GONE = "gone"  # the folder is not there: the item moved on


class Standing(StrEnum):
    """What may happen to an item in open/ now; each comment says who moves it on."""

    GONE = "gone"  # not in open/ (any more)
    READY = "ready"  # attempt n+1 may be claimed by a worker
    RUNNING = "running"  # n.claim without n.end: its owner, or the coordinator by expiry
    SUBMITTED = "submitted"  # n.end = done without a verdict: the merger
    PARKED = "parked"  # a person: grant, or an operator's claim
    UNREADABLE = "unreadable"  # a person, with fsck and a backup: a record is damaged
    OVER = "over"  # a terminal cell: whoever sees it finishes it


@dataclass(slots=True)
class Actor:
    """One incarnation that acts on the store: names its private files and signs its records.

    `stamp` gives the wall clock, RFC 3339 in UTC; it goes into messages, and its date names the folder of the archive.
    """

    identity: Identity
    stamp: Callable[[], str] = lambda: LONG_AGO
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def tmp(self, what: str) -> str:
        """A name in queue/tmp/ that no other incarnation and no other call uses."""
        return f"queue/tmp/{self.identity.incarnation}.{next(self._count)}.{what}"

    def tree(self) -> str:
        """The name of a batch's folder that no other incarnation and no other call uses."""
        return f"b.{self.identity.incarnation}.{next(self._count)}"

    @property
    def name(self) -> str:
        return self.identity.name or self.identity.incarnation


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What `look` saw: n is the last attempt; `attempts` are 1..n as far as they were read."""

    uid: str
    n: int
    standing: Standing
    item: Item | None = None
    attempts: tuple[Attempt, ...] = ()
    last: End | Verdict | None = None
    """The terminal cell, when OVER; otherwise the last end or verdict."""
    trouble: str = ""
    """What is UNREADABLE, where, and what to do."""


def publish(
    actor: Actor, what: str, record: Record, cell: str, *, lock: bool = False, helping: bool = True
) -> Step[tuple[Won, str]]:
    """Set a write-once cell (PROTOCOL, section 3). -> (what became of it, the private name: the ticket's key).

    `helping`: make the folder durable first, because the cell builds on what was only read there. Left out when there is
    nothing of the kind: nothing was read, or what was read is the caller's own.

    Guarantees: whoever reads the cell reads it whole; the winner's cell is durable on return; a loser holds no lock.
    Not guaranteed: that the cell is durable for somebody who merely *saw* it (they fsync its folder first).
    """
    folder = cell.rsplit("/", 1)[0]
    while True:
        tmp = actor.tmp(what)
        yield from ops.make(tmp, record, lock)
        yield from ops.fsync(tmp)  # whole before it is visible
        if helping:
            yield from ops.fsync_dir(folder)  # what I build on must outlive me
        reply = yield from ops.link(tmp, cell)  # <-- linearization point
        if reply is not Linked.OK and (yield from ops.same(tmp, cell)):
            reply = Linked.OK  # the link was made, its reply was lost (NFS)
        if reply is not Linked.GONE or (yield from ops.same(tmp, tmp)):
            break
        # ENOENT because of the private file: a sweep took us for dead (`sweeping`). The item may well be there.
        if lock:
            yield from ops.unlock(tmp)
    if reply is Linked.UNKNOWN:
        yield from ops.die("link", cell)  # neither won nor lost: recovery is the only error path
    yield from ops.unlink(tmp)
    if reply is Linked.OK:
        yield from ops.fsync_dir(folder)
        return Won.YES, tmp
    if lock:
        yield from ops.unlock(tmp)  # a loser that kept its ticket would hold a lock for ever
    return (Won.GONE if reply is Linked.GONE else Won.LOST), tmp


def take_number(actor: Actor, item: Item, record: Claim) -> Step[tuple[Won, str]]:
    """Set `<n>.claim` of an item in open/, locked. -> as `publish`

    The first claim of an item that waited is built on its move to open/, so that is made durable first: else a power
    loss could bring the item back to waiting/ with a claim, where a cancel would be decided by `0.end`, which nobody
    reads any more.
    """
    if record.n == 1 and waits(item):
        yield from ops.fsync_dir("queue/open")
    cell = f"queue/open/{item.uid}/{record.n}.claim"
    # item.json was durable before its folder came to open/, so a first claim has nothing else to build on.
    return (yield from publish(actor, "claim", record, cell, lock=True, helping=record.n > 1))


def waits(item: Item) -> bool:
    """Does it go to waiting/ first? (decided by the snapshot alone, so that every admitter says the same)"""
    return bool(item.deps or item.not_before)


def numbers(names: tuple[str, ...]) -> int:
    """The highest attempt number in a listing of an item's folder; 0 when none (`0.end`, `0.grant` included)."""
    return max(
        (int(head) for head, dot, tail in (x.partition(".") for x in names) if tail and head.isdecimal()),
        default=0,
    )


def needs_merge(item: Item, end: End) -> bool:
    """From immutable facts only: item.json and whether the end has a commit."""
    return end.outcome is Outcome.DONE and item.commit is not CommitPolicy.NONE and end.sha is not None


def spent(attempts: tuple[Attempt, ...]) -> int:
    """Attempts that count: failed, expired or returned. Released and held never do."""
    return sum(
        a.end is not None and (a.end.outcome in SPENDING or bool(a.verdict and a.verdict.returned))
        for a in attempts
    )


def allowance(item: Item, attempts: tuple[Attempt, ...]) -> int:
    """How many attempts may be spent: the item's own plus what people granted."""
    return item.max_attempts + sum(a.grant.extra for a in attempts if a.grant)


def parking_reason(item: Item, attempts: tuple[Attempt, ...]) -> str:
    """Why the item is parked after its last (closed) attempt, or "" when it is not. Ignores a grant of that attempt."""
    if not attempts:
        return ""
    last = attempts[-1]
    before = (*attempts[:-1], Attempt(n=last.n, claim=last.claim, end=last.end, verdict=last.verdict))
    if last.end and last.end.outcome is Outcome.HELD:
        return f"held by {last.end.by}" + (f": {last.end.reason}" if last.end.reason else "")
    used, allowed = spent(before), allowance(item, before)
    if used >= allowed:
        why = ""
        if last.verdict and last.verdict.returned:
            why = f"; last: {last.verdict.returned} {last.verdict.why}".rstrip()
        elif last.end:
            why = f"; last: {last.end.outcome.value} {last.end.reason}".rstrip()
        return f"{used} of {allowed} attempts spent{why}"
    releases = 0
    for a in before:
        counts = a.end is not None and a.end.outcome is Outcome.RELEASED and not a.end.waits
        releases = 0 if a.grant else releases + counts
    if releases > MAX_RELEASES:
        return f"released {releases} times without an attempt being spent; last: {last.end.reason if last.end else ''}"
    return ""


def look(uid: str, folder: str | None = None) -> Step[Look]:
    """What state an item in open/ is in; UNREADABLE when one of its records is damaged. See `_look`."""
    try:
        return (yield from _look(uid, folder))
    except UnreadableRecordError as e:
        try:
            item = yield from ops.read(f"{folder or f'queue/open/{uid}'}/item.json", Item)
        except UnreadableRecordError:
            item = None
        return Look(uid=uid, n=0, standing=Standing.UNREADABLE, item=item, trouble=str(e))


def _look(uid: str, folder: str | None) -> Step[Look]:
    """What state an item in open/ is in, by cells read by name (a listing only gives the highest number).

    Not a snapshot: what it says may be overtaken, and every act on it is a `publish` that then loses.
    """
    home = folder or f"queue/open/{uid}"
    names = yield from ops.ls(home)
    if names is None:
        return Look(uid=uid, n=0, standing=Standing.GONE)
    item = yield from ops.read(f"{home}/item.json", Item)
    if item is None:
        return Look(uid=uid, n=0, standing=Standing.GONE)
    n = numbers(names)
    if n == 0:
        zero = yield from ops.read(f"{home}/0.end", End)  # cancelled while it waited?
        standing = Standing.OVER if zero else Standing.READY
        return Look(uid=uid, n=0, standing=standing, item=item, last=zero)
    attempts: list[Attempt] = []
    for k in range(1, n + 1):
        end = yield from ops.read(f"{home}/{k}.end", End)
        if end is None:
            yield from ops.read(f"{home}/{k}.claim", Claim)  # damaged, nobody could say whose it is
            # Only the last attempt can be open. A hole below it means that the folder moved while we read.
            standing = Standing.RUNNING if k == n else Standing.GONE
            attempts.append(Attempt(n=k, claim=None))
            return Look(uid=uid, n=k, standing=standing, item=item, attempts=tuple(attempts))
        verdict = None
        if needs_merge(item, end):
            verdict = yield from ops.read(f"{home}/{k}.verdict", Verdict)
        grant = yield from ops.read(f"{home}/{k}.grant", Grant)
        attempts.append(Attempt(n=k, claim=None, end=end, verdict=verdict, grant=grant))
    seen = tuple(attempts)
    last = seen[-1]
    assert last.end is not None
    standing = _standing(item, seen)
    if standing is Standing.SUBMITTED and (yield from ops.ls(home)) is None:
        standing = Standing.GONE  # "no verdict" was ENOENT because the item was archived in between
    return Look(uid=uid, n=n, standing=standing, item=item, attempts=seen, last=last.verdict or last.end)


def _standing(item: Item, attempts: tuple[Attempt, ...]) -> Standing:
    last = attempts[-1]
    assert last.end is not None
    if last.end.outcome is Outcome.CANCELLED:
        return Standing.OVER
    if needs_merge(item, last.end):
        if last.verdict is None:
            return Standing.SUBMITTED
        if last.verdict.kind is not VerdictKind.RETURNED:
            return Standing.OVER
    elif last.end.outcome is Outcome.DONE:
        return Standing.OVER
    if last.grant is None and parking_reason(item, attempts):
        return Standing.PARKED
    return Standing.READY


def stub_path(uid: str) -> str:
    return f"queue/done/{fan(uid)}/{uid}"


def set_stub(uid: str, cell: str) -> Step[None]:
    """Give the cell that is terminal, whole and durable, its second name: the stub. Idempotent, durable on return.

    Whoever comes second finds the same inode there: two that finish an item cannot disagree.
    Raises StoreError when neither the cell nor the stub is there: the store was moved.
    """
    path = stub_path(uid)
    folder = path.rsplit("/", 1)[0]
    yield from ops.ensure_dir(folder)
    reply = yield from ops.link(cell, path)
    if reply is Linked.UNKNOWN and not (yield from ops.same(cell, path)):
        yield from ops.die("link", path)
    if reply is Linked.GONE and (yield from stub_of(uid)) is None:  # else another has finished the item
        raise StoreError(
            "a finished item vanished before its stub was set", where=cell, remedy="run: harnessctl fsck"
        )
    yield from ops.fsync_dir(folder)


def stub_of(uid: str) -> Step[Stub | None]:
    return (yield from ops.read(stub_path(uid), Stub))


def claim_of(uid: str, n: int) -> Step[Claim | None]:
    return (yield from ops.read(f"queue/open/{uid}/{n}.claim", Claim))
