"""Ids of people: who has one. `ids/<hh>/<sha256(id)>.<k>` is the k-th item that had it; cells are never removed.

An id is free when the newest item that had it is finished (its stub exists) or was rejected with its whole batch. The
same item finds its own cell again after a crash.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

from harness.dataclass import dataclass
from harness.layout import fan
from harness.model import Record
from harness.store import ops
from harness.store.cells import Actor, Won, publish, stub_of
from harness.store.ops import Step

REJECTED = "rejected"
SUFFIXES = 20
"""Default ids are tried as x, x-2 ... up to this number."""

if TYPE_CHECKING:  # reading the store must not cost the import of the validation library
    from harness.store.draft import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Record):
    """`ids/<hh>/<sha256(id)>.<k>`: the k-th item that had this id."""

    what: ClassVar[str] = "id cell"
    uid: str
    digest: str = ""
    id: str = ""
    drop: str = ""
    """The incoming/<U> of a batch that took it: when the whole batch is rejected, so is this holder."""


def name_path(name: str, k: int) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"queue/ids/{fan(name)}/{digest}.{k}"


def newest_of(name: str) -> Step[tuple[Name | None, int]]:
    """The newest holder of an id and its number, 0 when there is none. Cells are numbered without gaps: O(log k)."""
    newest, last, missing = None, 0, 1
    while (cell := (yield from ops.read(name_path(name, missing), Name))) is not None:
        newest, last, missing = cell, missing, missing * 2
    while missing - last > 1:
        middle = (last + missing) // 2
        cell = yield from ops.read(name_path(name, middle), Name)
        if cell is None:
            missing = middle
        else:
            newest, last = cell, middle
    return newest, last


def was_rejected(holder: Name) -> Step[bool]:
    """Did it never become an item? (its own stub, or that of the batch it was part of)"""
    for uid in (holder.uid, holder.drop):
        stub = (yield from stub_of(uid)) if uid else None
        if stub is not None and stub.outcome == REJECTED:
            return True
    return False


def is_finished(holder: Name) -> Step[bool]:
    """May another item have its id?"""
    return (yield from stub_of(holder.uid)) is not None or (yield from was_rejected(holder))


def resolve(name: str) -> Step[str | None]:
    """The uid that an id means now: its newest holder that was not rejected; None: unknown."""
    holder, k = yield from newest_of(name)
    while holder is not None and (yield from was_rejected(holder)):
        k -= 1
        holder = (yield from ops.read(name_path(name, k), Name)) if k else None
    return holder.uid if holder else None


def first_holder(name: str) -> Step[str | None]:
    """The uid that an id resolves to which was unknown at admission: its first holder that was not rejected."""
    k = 1
    while (cell := (yield from ops.read(name_path(name, k), Name))) is not None:
        if not (yield from was_rejected(cell)):
            return cell.uid
        k += 1
    return None


def taken(name: str, uid: str) -> str:
    return (
        f"id: {name!r} is in use by {uid}, which is not finished and says something else; "
        f"choose another id, or cancel it first: harnessctl cancel {uid}"
    )


def choose(draft: Draft, default: str, uid: str, used: set[str]) -> Step[tuple[str, str, Name | None]]:
    """-> (id, path of the cell to set or "" when uid has it already, another unfinished holder or None)."""
    suffix = 1
    while True:
        name = draft.id if draft.id is not None else _suffixed(default, suffix, uid)
        suffix += 1
        if draft.id is None and name in used:
            continue
        holder, k = yield from newest_of(name)
        if holder is not None and holder.uid == uid:  # from before a crash
            return name, "", None
        if holder is None or (yield from is_finished(holder)):
            return name, name_path(name, k + 1), None
        if draft.id is not None:
            return name, "", holder


def _suffixed(default: str, suffix: int, uid: str) -> str:
    if suffix == 1:
        return default
    # A popular file name: do not try thousands of numbers, the nonce of the uid is free for sure.
    return f"{default}-{suffix}" if suffix <= SUFFIXES else f"{default}-{uid.rsplit('-', 1)[-1]}-{suffix}"


def own(actor: Actor, draft: Draft, default: str, uid: str) -> Step[str | Name]:
    """Get the draft's id for uid. -> the id, or its unfinished other holder. A default id is suffixed when taken, never rejected."""
    while True:
        name, free, other = yield from choose(draft, default, uid, set())
        if other is not None:
            return other
        if not free:
            yield from ops.fsync_dir(name_path(name, 1).rsplit("/", 1)[0])
            return name
        yield from ops.ensure_dir(free.rsplit("/", 1)[0])
        won, _ = yield from publish(actor, "id", Name(uid=uid, digest=draft.digest(), id=name), free)
        if won is Won.YES:
            return name
