"""From a file in the drop box to items that may be claimed: take, admit, reject, promote.

Whether a drop becomes work is decided by one cell in incoming/<U>: `item.json` (one item) or `batch` (many). A rejection
is set in the *same* cell, so that two admitters with different opinions cannot both win. Everything is idempotent: after
a crash it is run again, with the same uids, by anybody.
"""

from __future__ import annotations

from harness.dataclass import dataclass
from harness.model import Item, Record, slug
from harness.store import batches, names, ops
from harness.store.cells import Actor, publish, set_stub, waits
from harness.store.decisions import Decided, Decision, snapshot
from harness.store.drops import Context, Drop, stem_of, suffix_of
from harness.store.ops import Linked, Moved, Step

TAKE_AT_ONCE = 64
"""Drops taken in one go: they share the fsyncs of incoming/ and of the drop box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What `admit` did with incoming/<U>. `items`: (uid, id, phase) of everything admitted by this call."""

    drop: str
    name: str = ""
    items: tuple[tuple[str, str, str], ...] = ()
    rejected: tuple[str, ...] = ()
    exists: str = ""
    pending: bool = False
    """A writer still has the file open; try again later."""
    empty: bool = False
    """Nothing was ever moved in: sweep it when it is older than an hour."""


# ---- T1: take --------------------------------------------------------------------------------------------------------


def raw_name(name: str) -> str:
    """`raw.<file name>`; of names too long for that, as much as fits, with the suffix."""
    whole = f"raw.{name}"
    if len(whole.encode("utf-8", "surrogateescape")) <= 255:
        return whole
    suffix = suffix_of(name)
    head = name.encode("utf-8", "surrogateescape")[: 250 - len(suffix)].decode("utf-8", "ignore")
    return f"raw.{head}{suffix}"


def take() -> Step[list[tuple[str, str]]]:
    """Move the drops that are ready into incoming/. -> [(U, file name)] of what this call took."""
    ready = (yield from ops.drops())[:TAKE_AT_ONCE]
    homes: list[tuple[str, str]] = []
    for name in ready:
        home = f"{slug(stem_of(name))}-{yield from ops.fresh()}"
        yield from ops.mkdir(f"queue/incoming/{home}")
        homes.append((home, name))
    if homes:
        yield from ops.fsync_dir("queue/incoming")  # the new homes are durable before anything moves in
    taken: list[tuple[str, str]] = []
    for home, name in homes:
        folder = f"queue/incoming/{home}"
        if (yield from ops.rename(f"queue/{name}", f"{folder}/{raw_name(name)}")) is Moved.OK:
            yield from ops.fsync_dir(folder)
            taken.append((home, name))
        else:
            yield from ops.rmdir(folder)
    if taken:
        yield from ops.fsync_dir("queue/incoming")
        yield from ops.fsync_dir("queue")
    return taken


# ---- T2: admit -------------------------------------------------------------------------------------------------------


def admit(actor: Actor, home: str, context: Context, day: str) -> Step[Admission]:
    """Decide incoming/<home> and carry the decision out; completes what a crashed admitter began."""
    folder = f"queue/incoming/{home}"
    listing = yield from ops.ls(folder)
    if listing is None:
        return Admission(drop=home)
    raw = next((x for x in listing if x.startswith("raw.")), None)
    if raw is None:
        return Admission(drop=home, empty=True)
    name = raw.removeprefix("raw.")
    one: Record | None = yield from ops.read(f"{folder}/item.json", Decided)
    many = yield from ops.read(f"{folder}/batch", Decision)
    if one is None and many is None:
        drop: Drop | None = yield from ops.parse(folder, raw)
        if drop is None:
            return Admission(drop=home, name=name, pending=True)
        if drop.many:
            many = yield from batches.decide(actor, home, drop, context)
        else:
            one = yield from _decide_one(actor, home, drop, context)
        if one is None and many is None:
            return Admission(drop=home, name=name)  # it was moved on meanwhile
    yield from ops.fsync_dir(folder)  # help: the decision outlives what follows from it
    decision = many if many is not None else one
    if isinstance(decision, Decision) and decision.rejected:
        yield from _put_aside(home, "batch" if many is not None else "item.json")
        return Admission(drop=home, name=name, rejected=decision.rejected, exists=decision.exists)
    if isinstance(decision, Item):
        phase = yield from _place(decision, folder)
        return Admission(drop=home, name=name, items=((decision.uid, decision.id, phase),) if phase else ())
    assert many is not None
    placed = yield from batches.complete(home, many, day)
    return Admission(drop=home, name=name, items=tuple(placed))


def _decide_one(actor: Actor, home: str, drop: Drop, context: Context) -> Step[Record | None]:
    folder = f"queue/incoming/{home}"
    cell: Record
    if drop.reasons:
        cell = Decision(rejected=tuple(str(r) for r in drop.reasons), drop=drop.name, at=actor.stamp())
    else:
        (draft,) = drop.drafts
        owned = yield from names.own(actor, draft, stem_of(drop.name), home)
        if isinstance(owned, names.Name) and owned.digest == draft.digest():
            same = f"it is here already, as {owned.uid}, with the same content"
            cell = Decision(rejected=(same,), exists=owned.uid, drop=drop.name, at=actor.stamp())
        elif isinstance(owned, names.Name):
            cell = Decision(rejected=(names.taken(owned.id, owned.uid),), drop=drop.name, at=actor.stamp())
        else:
            cell = yield from snapshot(actor, draft, home, owned, drop.name, {}, context)
    yield from publish(actor, "item", cell, f"{folder}/item.json")
    mine_or_anothers: Record | None = yield from ops.read(f"{folder}/item.json", Decided)
    return mine_or_anothers


def _place(item: Item, source: str) -> Step[str]:
    """Move one admitted item to its phase. -> the phase, or "" when another process moved it."""
    phase = "waiting" if waits(item) else "open"
    moved = yield from ops.rename(source, f"queue/{phase}/{item.uid}")
    yield from ops.fsync_dir(f"queue/{phase}")
    yield from ops.fsync_dir("queue/incoming")
    if moved is not Moved.OK:
        return ""
    if phase == "open":
        yield from ops.hint(item.uid, item.priority)
    return phase


def _put_aside(home: str, cell: str) -> Step[None]:
    """T2r: the stub first (it frees the ids that were taken for it), then rejected/, with the reasons as why.json."""
    folder = f"queue/incoming/{home}"
    decision = yield from ops.read(f"{folder}/{cell}", Decision)
    if decision is None:
        return
    why = f"{folder}/why.json"
    reply = yield from ops.link(f"{folder}/{cell}", why)
    if reply is Linked.UNKNOWN and not (yield from ops.same(f"{folder}/{cell}", why)):
        yield from ops.die("link", why)
    yield from set_stub(home, f"{folder}/{cell}")
    yield from ops.fsync_dir(folder)
    yield from ops.rename(folder, f"queue/rejected/{home}")
    yield from ops.fsync_dir("queue/rejected")
    yield from ops.fsync_dir("queue/incoming")
