"""Ids of people: who has one. `ids/<hh>/<sha256(id)>.<k>` is the k-th item that had it; cells are never removed.

An id is free when the newest item that had it is finished (its stub exists). The same item finds its own cell again
after a crash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.layout import fan
from harness.model import Record
from harness.store import ops
from harness.store.cells import Actor, Won, publish, stub_of
from harness.store.ops import Step

if TYPE_CHECKING:  # reading the store must not cost the import of the validation library
    from harness.store.draft import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Record):
    """`ids/<hh>/<sha256(id)>.<k>`: the k-th item that had this id."""

    what: ClassVar[str] = "id cell"
    uid: str
    digest: str = ""
    id: str = ""


def name_path(name: str, k: int) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"queue/ids/{fan(name)}/{digest}.{k}"


def holder_of(name: str) -> Step[tuple[Name | None, str]]:
    """The newest holder of an id, and the path of the next free cell. Cells are numbered without gaps."""
    k, newest = 1, None
    while (cell := (yield from ops.read(name_path(name, k), Name))) is not None:
        newest, k = cell, k + 1
    return newest, name_path(name, k)


def first_holder(name: str) -> Step[str | None]:
    """The uid that an id resolves to which was unknown at admission: its first holder that was not rejected."""
    k = 1
    while (cell := (yield from ops.read(name_path(name, k), Name))) is not None:
        stub = yield from stub_of(cell.uid)
        if not (stub and stub.outcome == "rejected"):
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
        name = draft.id if draft.id is not None else default if suffix == 1 else f"{default}-{suffix}"
        suffix += 1
        if draft.id is None and name in used:
            continue
        holder, free = yield from holder_of(name)
        if holder is None or (holder.uid != uid and (yield from stub_of(holder.uid)) is not None):
            return name, free, None
        if holder.uid == uid:  # from before a crash
            return name, "", None
        if draft.id is not None:
            return name, "", holder


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
