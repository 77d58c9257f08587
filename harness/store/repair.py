"""Repairs what `fsck` found, as far as no guessing is needed. Everything is idempotent and safe while others work.

Nothing is destroyed: what does not belong into the store is moved to state/kept/, and only private files of dead
incarnations, hints and empty folders are removed. Everything else is done by the transitions of the protocol.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable

from harness.clock import rfc3339
from harness.dataclass import dataclass
from harness.errors import StoreError
from harness.model import Item, Record
from harness.store import ops
from harness.store.attempts import expire, finish
from harness.store.cells import Actor, needs_merge, publish, set_stub, stub_path
from harness.store.decisions import Decided, Decision
from harness.store.disk import Disk
from harness.store.fsck import check, nobody
from harness.store.invariants import broken, read_cells
from harness.store.names import Name
from harness.store.ops import Step
from harness.store.setup import PRIVATE_MODE, QUEUE_MODE, make_folders
from harness.store.violations import Hubs, Repair, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """`done` was repaired, `left` is still there: a person must decide."""

    done: tuple[Violation, ...]
    left: tuple[Violation, ...]


def repair(
    disk: Disk, actor: Actor, *, hubs: Hubs | None = None, alive: Callable[[str], bool] = nobody
) -> Repaired:
    """Check, repair, and check again. With `disk.hands` also the attempts of dead owners are ended (killed first)."""
    found = check(disk, hubs=hubs, alive=alive)
    if any(v.repair is Repair.MAKE for v in found):
        make_folders(disk.layout)
    for violation in found:
        _repair(disk, actor, violation)
    left = check(disk, hubs=hubs, alive=alive) if found else []
    return Repaired(done=tuple(v for v in found if v not in left), left=tuple(left))


def _repair(disk: Disk, actor: Actor, violation: Violation) -> None:
    path = violation.path
    uid = path.split("/")[-1]
    match violation.repair:
        case None | Repair.MAKE:
            pass
        case Repair.MODE:
            os.chmod(disk.layout.root / path, QUEUE_MODE if path == "queue" else PRIVATE_MODE)
        case Repair.DROP_HINT:
            disk.hints.drop(str(disk.layout.root / path))
        case Repair.ADD_HINT:
            item = disk.do_read(f"{path}/item.json", Item)
            if isinstance(item, Item):
                disk.do_hint(item.uid, item.priority)
        case Repair.SWEEP:
            _sweep(disk, path)
        case Repair.ASIDE:
            _move_aside(disk, path)
        case Repair.COMPLETE | Repair.EXPIRE:
            _, _, uid, name = path.split("/")
            if violation.repair is Repair.COMPLETE or disk.hands is not None:
                disk.run(expire(actor, uid, int(name.partition(".")[0])))
        case Repair.FINISH:
            disk.run(finish(uid))
        case Repair.STUB:
            if cell := _terminal(disk, path, uid):
                disk.run(set_stub(uid, f"{path}/{cell}"))
            elif path.startswith("queue/rejected/"):
                disk.run(_reject(actor, uid, "its reasons cannot be read any more"))
        case Repair.WHY:
            disk.run(_write_why(path))
        case Repair.FREE:
            name_cell = disk.do_read(path, Name)
            if isinstance(name_cell, Name):
                why = f"{name_cell.id} was taken for it, and it exists nowhere"
                disk.run(_reject(actor, name_cell.uid, why))


def _sweep(disk: Disk, path: str) -> None:
    full = disk.layout.root / path
    try:
        is_folder = stat.S_ISDIR(os.lstat(full).st_mode)
    except FileNotFoundError:
        return
    if is_folder:
        disk.do_rmdir(path)
    else:
        disk.do_unlink(path)


def _move_aside(disk: Disk, path: str) -> None:
    stamp = rfc3339(disk.clock.wall()).replace(":", "")
    home = disk.layout.kept / f"fsck-{stamp}"
    home.mkdir(parents=True, exist_ok=True)
    target = home / path.replace("/", "%")
    k = 1
    while os.path.lexists(target):
        k += 1
        target = target.with_name(f"{path.replace('/', '%')}.{k}")
    shutil.move(disk.layout.root / path, target)


def _terminal(disk: Disk, path: str, uid: str) -> str | None:
    """The cell that ended an archived item, or a rejected drop; None when it is not there, or not whole."""
    if path.startswith("queue/rejected/"):
        try:
            why = disk.do_read(f"{path}/why.json", Decision)
        except StoreError:
            return None
        return "why.json" if isinstance(why, Decision) and why.rejected else None
    cells = read_cells(disk, path, uid)
    terminal = cells.terminal()
    if not terminal or cells.item is None or broken(cells):
        return None
    n = terminal[-1]
    return f"{n}.verdict" if needs_merge(cells.item, cells.ends[n]) else f"{n}.end"


def _reject(actor: Actor, uid: str, why: str) -> Step[None]:
    """Say of what exists nowhere, or cannot say it itself, that it never became an item."""
    path = stub_path(uid)
    said = Decision(rejected=(f"{why}; said by harnessctl fsck --repair",), at=actor.stamp())
    yield from ops.ensure_dir(path.rsplit("/", 1)[0])
    yield from publish(actor, "stub", said, path)


def _write_why(place: str) -> Step[None]:
    for cell in ("item.json", "batch"):
        decision: Record | None = yield from ops.read(f"{place}/{cell}", Decided)
        if isinstance(decision, Decision) and decision.rejected:
            yield from ops.link(f"{place}/{cell}", f"{place}/why.json")
            yield from ops.fsync_dir(place)
