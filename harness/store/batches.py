"""One drop, many items: all or nothing. The cell `batch` names the one tree that counts.

The tree is complete and durable before the cell, and nothing is built after it (PROTOCOL, section 5, rule 6).
"""

from __future__ import annotations

from harness.model import slug
from harness.store import ops
from harness.store.cells import Actor, publish, waits
from harness.store.decisions import Decision, snapshot
from harness.store.drops import Context, Drop, default_id, stem_of
from harness.store.names import Name, choose, taken
from harness.store.ops import Linked, Moved, Step

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def decide(actor: Actor, home: str, drop: Drop, context: Context) -> Step[Decision | None]:
    """One cell decides the whole batch, after the whole tree is built and durable (never build after the cell)."""
    folder = f"queue/incoming/{home}"
    if drop.reasons:
        cell = Decision(rejected=tuple(str(r) for r in drop.reasons), drop=drop.name, at=actor.stamp())
    else:
        built = yield from _build(actor, home, drop, context)
        if built is None:
            return None  # another admitter decided it, and moved it on
        cell = built
    yield from publish(actor, "batch", cell, f"{folder}/batch")
    return (yield from ops.read(f"{folder}/batch", Decision))


def _build(actor: Actor, home: str, drop: Drop, context: Context) -> Step[Decision | None]:
    """Take all ids and build all items, in two bulk syncs; a lost race for an id starts over with the same uids.

    None: the drop is not in incoming/ any more.
    """
    nonce = home.rsplit("-", 1)[1]
    stem = stem_of(drop.name)
    uids = [f"{slug(d.id or stem)}-{nonce}{_base36(k)}" for k, d in enumerate(drop.drafts)]
    while True:
        names: dict[int, str] = {}
        present: dict[str, str] = {}
        cells: list[tuple[str, str]] = []
        reasons: list[str] = []
        used = {d.id for d in drop.drafts if d.id is not None}
        for k, draft in enumerate(drop.drafts):
            name, free, other = yield from choose(draft, default_id(stem, k), uids[k], used)
            if other is None:
                used.add(name)
                names[k] = name
                if free:
                    tmp = actor.tmp("id")
                    held = Name(uid=uids[k], digest=draft.digest(), id=name, drop=home)
                    yield from ops.stage(tmp, held)
                    cells.append((tmp, free))
            elif other.digest == draft.digest():
                present[name] = other.uid
            else:
                reasons.append(taken(name, other.uid))
        tree, waiting = "", []
        if names and not reasons:
            tree = actor.tree()
            local = {names[k]: uids[k] for k in names} | present
            there = yield from ops.mkdir(f"queue/incoming/{home}/{tree}")
            for k, name in names.items():
                item = yield from snapshot(actor, drop.drafts[k], uids[k], name, drop.name, local, context)
                there = there and (yield from ops.build(f"queue/incoming/{home}/{tree}/{uids[k]}", item))
                if waits(item):
                    waiting.append(uids[k])
            if not there:
                for tmp, _ in cells:
                    yield from ops.unlink(tmp)
                return None
            for _, cell in cells:
                yield from ops.ensure_dir(cell.rsplit("/", 1)[0])
            yield from ops.syncfs()  # whole and durable before any cell that names it
            raced = yield from _link_all(cells)
            if raced:
                continue
        for tmp, _ in cells:
            yield from ops.unlink(tmp)
        if reasons:
            return Decision(rejected=tuple(reasons), drop=drop.name, at=actor.stamp())
        return Decision(
            drop=drop.name,
            at=actor.stamp(),
            tree=tree,
            items={names[k]: uids[k] for k in names},
            present=present,
            waiting=tuple(waiting),
            bands={uids[k]: drop.drafts[k].priority for k in names},
        )


def _link_all(cells: list[tuple[str, str]]) -> Step[bool]:
    """PUBLISH for many private files that are durable already. -> True when another process won one of the names."""
    raced = False
    for tmp, cell in cells:
        reply = yield from ops.link(tmp, cell)
        if reply is not Linked.OK and not (yield from ops.same(tmp, cell)):
            if reply is Linked.UNKNOWN:
                yield from ops.die("link", cell)
            raced = True
        yield from ops.unlink(tmp)
    if cells:
        yield from ops.syncfs()
    return raced


def _base36(k: int) -> str:
    text = ""
    while True:
        k, digit = divmod(k, 36)
        text = _DIGITS[digit] + text
        if not k:
            return text


def complete(home: str, batch: Decision, day: str) -> Step[list[tuple[str, str, str]]]:
    """Move the items of the tree *named in the cell*; ENOENT: another process did it. -> [(uid, id, phase)] moved here."""
    folder = f"queue/incoming/{home}"
    placed: list[tuple[str, str, str]] = []
    for local, uid in batch.items.items():
        phase = "waiting" if uid in batch.waiting else "open"
        moved = yield from ops.rename(f"{folder}/{batch.tree}/{uid}", f"queue/{phase}/{uid}")
        if moved is Moved.OK:
            placed.append((uid, local, phase))
    yield from ops.fsync_dir("queue/waiting")
    yield from ops.fsync_dir("queue/open")
    if batch.tree:
        yield from ops.fsync_dir(f"{folder}/{batch.tree}")
    yield from ops.ensure_dir(f"queue/batches/{day}")
    yield from ops.rename(folder, f"queue/batches/{day}/{home}")
    yield from ops.fsync_dir(f"queue/batches/{day}")
    yield from ops.fsync_dir("queue/incoming")
    for uid, _, phase in placed:
        if phase == "open":
            yield from ops.hint(uid, batch.bands.get(uid, 5))
    return placed
